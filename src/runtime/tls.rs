//! TLS of a server, from a certificate and a key file that may change while the process runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

/// How often the files are looked at. A mounted Secret lags by up to a minute anyway.
const POLL: Duration = Duration::from_secs(5);

/// Why a certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the certificate file is not PEM")]
    Certificate(#[source] rustls::pki_types::pem::Error),
    #[error("the certificate file holds no certificate")]
    NoCertificate,
    #[error("the key file holds no usable private key")]
    Key(#[source] rustls::pki_types::pem::Error),
    #[error("certificate and key do not go together")]
    Pair(#[source] rustls::Error),
}

/// What became of a look at the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    Unchanged,
    Replaced,
}

/// The TLS settings of a server; new connections get the newest good pair.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
    /// Digest of the contents looked at last, good or bad, so that a bad pair is reported once and not every 5 s.
    seen: Mutex<[u8; 32]>,
}

impl Tls {
    /// Reads the pair for the first time. Here a bad one is an error: there is nothing to fall back to.
    pub async fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, Error> {
        let pair = Pair::read(&certificate, &key).await?;
        Ok(Self {
            current: RwLock::new(Arc::new(pair.config()?)),
            seen: Mutex::new(pair.digest()),
            certificate,
            key,
        })
    }

    /// The settings for a new connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files. A bad new pair leaves the old one in place. Compared by content: the time stamps of a
    /// mounted Secret are those of its links.
    pub async fn reload(&self) -> Result<Reload, Error> {
        let pair = Pair::read(&self.certificate, &self.key).await?;
        let digest = pair.digest();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == digest {
                return Ok(Reload::Unchanged);
            }
            *seen = digest;
        }
        let config = Arc::new(pair.config()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(Reload::Replaced)
    }

    /// Looks at the files until the token is cancelled.
    pub async fn watch(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            match self.reload().await {
                Ok(Reload::Unchanged) => {}
                Ok(Reload::Replaced) => tracing::info!("TLS certificate reloaded"),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "new TLS certificate refused, the old one stays"
                    );
                }
            }
        }
    }
}

struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pair {
    async fn read(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let read = async |path: &Path| {
            tokio::fs::read(path).await.map_err(|source| Error::Read { path: path.to_owned(), source })
        };
        Ok(Self { certificate: read(certificate).await?, key: read(key).await? })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        // The length keeps the border between the two.
        digest.update((self.certificate.len() as u64).to_be_bytes());
        digest.update(&self.certificate);
        digest.update(&self.key);
        digest.finalize().into()
    }

    fn config(&self) -> Result<ServerConfig, Error> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(Error::Certificate)?;
        if chain.is_empty() {
            return Err(Error::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(Error::Key)?;
        let mut config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(Error::Pair)?;
        // HTTP/1.1 only: an Ingress speaks it, and HTTP/2 is attack surface without use here.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        directory: PathBuf,
    }

    impl Files {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            Self { directory }
        }

        fn paths(&self) -> (PathBuf, PathBuf) {
            (self.directory.join("tls.crt"), self.directory.join("tls.key"))
        }

        fn write(&self, certificate: &str, key: &str) {
            let paths = self.paths();
            std::fs::write(paths.0, certificate).unwrap();
            std::fs::write(paths.1, key).unwrap();
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[tokio::test]
    async fn a_changed_pair_is_taken_and_a_bad_one_is_not() {
        let files = Files::new("reload");
        let (certificate, key) = pair();
        files.write(&certificate, &key);
        let tls = Tls::load(files.paths().0, files.paths().1).await.unwrap();
        let first = tls.current();
        assert_eq!(tls.reload().await.unwrap(), Reload::Unchanged);

        // Half-way through a rotation: the new certificate with the old key.
        let (newer, newer_key) = pair();
        files.write(&newer, &key);
        assert!(matches!(tls.reload().await, Err(Error::Pair(_))));
        assert!(Arc::ptr_eq(&first, &tls.current()));
        // Reported once.
        assert_eq!(tls.reload().await.unwrap(), Reload::Unchanged);

        files.write(&newer, &newer_key);
        assert_eq!(tls.reload().await.unwrap(), Reload::Replaced);
        assert!(!Arc::ptr_eq(&first, &tls.current()));
        assert_eq!(tls.current().alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[tokio::test]
    async fn a_bad_pair_at_the_start_is_an_error() {
        let files = Files::new("start");
        files.write("", "");
        assert!(matches!(Tls::load(files.paths().0, files.paths().1).await, Err(Error::NoCertificate)));
        let missing = files.directory.join("missing");
        assert!(matches!(Tls::load(missing.clone(), missing).await, Err(Error::Read { .. })));
    }
}
