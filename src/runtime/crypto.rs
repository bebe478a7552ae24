//! The one TLS provider of the process: ring.

/// Makes ring the process-wide provider. To be called first thing in main and in every test that makes a client:
/// a TLS client without a provider panics at its first use. Calling it again changes nothing.
pub fn install() {
    // `Err` only says that a provider is installed already, and only this function installs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
