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

/// Makes `ca.crt`, `tls.crt` and `tls.key` in `dir`.
pub fn make(dir: &Path, host: &str) -> Certificate {
    let ca_key = KeyPair::generate().expect("a key can be made");
    let mut ca_params = CertificateParams::new(vec![]).expect("no names are valid names");
    ca_params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = ca_params.self_signed(&ca_key).expect("the authority signs itself");
    let issuer = Issuer::new(ca_params, ca_key);

    let key = KeyPair::generate().expect("a key can be made");
    let params = CertificateParams::new(vec![host.to_owned()]).expect("the host is a valid name");
    let cert = params.signed_by(&key, &issuer).expect("the authority signs");

    let write = |name: &str, content: String| {
        let path = dir.join(name);
        fs::write(&path, content).expect("the bed's folder is writable");
        path
    };
    Certificate {
        ca: write("ca.crt", ca.pem()),
        cert: write("tls.crt", cert.pem()),
        key: write("tls.key", key.serialize_pem()),
    }
}
