//! Throw-away certificates.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A certificate for one host, and the authority that signed it, as files.
#[derive(Debug)]
pub struct Certificate {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(vec![]).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).expect("the authority signs itself").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Makes `ca.crt`, `tls.crt` and `tls.key` in `dir`.
    pub fn issue(&self, dir: &Path, host: &str) -> Certificate {
        let key = KeyPair::generate().expect("a key can be made");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("the host is a valid name");
        let cert = params.signed_by(&key, &self.issuer).expect("the authority signs");
        let write = |name: &str, content: &str| {
            let path = dir.join(name);
            fs::write(&path, content).expect("the bed's folder is writable");
            path
        };
        Certificate {
            ca: write("ca.crt", &self.pem),
            cert: write("tls.crt", &cert.pem()),
            key: write("tls.key", &key.serialize_pem()),
        }
    }
}

/// The RSA key of the tests, as PKCS#8: nothing here makes such keys.
pub const RSA_KEY: &[u8] = include_bytes!("../../src/receiver/signature/testdata/rsa_key_of_tests.pk8");

/// The one that follows it when keys are rotated.
const NEXT_RSA_KEY: &[u8] =
    include_bytes!("../../src/receiver/signature/testdata/rsa_second_key_of_tests.pk8");

/// Both as PEM files.
pub fn rsa_keys(dir: &Path) -> [PathBuf; 2] {
    [("jwt.key", RSA_KEY), ("next-jwt.key", NEXT_RSA_KEY)].map(|(name, key)| {
        let path = dir.join(name);
        let text = data_encoding::BASE64.encode(key);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        fs::write(&path, pem).expect("the bed's folder is writable");
        path
    })
}

/// A certificate of an authority that signs nothing else.
pub fn make(dir: &Path, host: &str) -> Certificate {
    Authority::new().issue(dir, host)
}
