//! The HTTP client: base URL, time limits, and the one place where an answer becomes a value or an error.

use std::time::Duration;

use super::error::Error;

/// The API key. Does not print, and is wiped when dropped.
pub type ApiKey = secrecy::SecretString;

/// Where Gemini is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://…` without path; `http://` is taken for loopback addresses only, because every call carries the key.
    pub base_url: String,
    /// `v1beta` or `v1`.
    pub api_version: String,
    /// CA certificates to trust in addition to the system's, as PEM.
    pub extra_ca_pem: Option<Vec<u8>>,
}

/// How long calls may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub connect: Duration,
    /// One call, from start to the last byte of its answer.
    pub call: Duration,
    /// One chunk of an upload, and the wait for the next bytes of a download.
    pub transfer: Duration,
    /// The paid POST.
    pub post: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            call: Duration::from_secs(60),
            // 8 MiB in 120 s is 70 kB/s: slower than that, an upload of 2 GB would outlive its own file anyway.
            transfer: Duration::from_secs(120),
            post: Duration::from_secs(30),
        }
    }
}

/// The client. Cheap to clone; holds no key.
#[derive(Clone, Debug)]
pub struct Gemini {
    general: reqwest::Client,
    submit: reqwest::Client,
    timeouts: Timeouts,
}

impl Gemini {
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Self::with_timeouts(settings, Timeouts::default())
    }

    /// With limits of one's own, for tests.
    pub fn with_timeouts(settings: &Settings, timeouts: Timeouts) -> Result<Self, Error> {
        let _ = (settings, timeouts);
        todo!()
    }
}
