//! The one call that spends money.

use std::time::Duration;

use super::http::{ApiKey, Gemini};

/// How the POST ended. Whether that means a job, none, or doubt is decided in the `submit` room, not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostEnd {
    /// No byte of the request left this process: refused connection, DNS, TLS handshake.
    NotSent(String),
    /// A complete answer.
    Answer {
        status: u16,
        /// `Retry-After`, else `RetryInfo`; at most an hour.
        retry_after: Option<Duration>,
        /// At most 64 KiB.
        body: Vec<u8>,
    },
    /// Sent, at least in part, and no complete answer: there may be a job.
    Broken(String),
}

impl Gemini {
    /// Sends exactly one request to create a job, or none.
    pub async fn create_batch(
        &self,
        key: &ApiKey,
        model: &str,
        display_name: &str,
        input_file: &str,
    ) -> PostEnd {
        let _ = (key, model, display_name, input_file);
        todo!()
    }
}
