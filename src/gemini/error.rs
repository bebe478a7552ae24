//! Errors, classified once: whoever gets one acts on its class and shows its message.

use std::time::Duration;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Back off and try again.
    Transient,
    /// Try again, after that time if Gemini named one (at most an hour).
    RateLimited(Option<Duration>),
    /// The API key is missing, bad, or has no right to the call.
    Auth,
    /// Gemini refused the call; trying it again as it is changes nothing.
    Rejected,
    /// It is not there. For files also HTTP 403, which is how Gemini answers for a file that is gone: see
    /// `http_status`.
    NotFound,
    /// Only for calls that create something (webhooks) or hand out a secret once: it may have happened.
    Ambiguous,
}

impl Class {
    /// The name alone, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "Transient",
            Self::RateLimited(_) => "RateLimited",
            Self::Auth => "Auth",
            Self::Rejected => "Rejected",
            Self::NotFound => "NotFound",
            Self::Ambiguous => "Ambiguous",
        }
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub class: Class,
    /// `None` when there was no complete answer.
    pub http_status: Option<u16>,
    /// `ErrorInfo.reason`, for example `API_KEY_INVALID`.
    pub reason: Option<String>,
    /// The provider's words, or ours about the transport; at most 512 bytes, without the API key and without URLs.
    pub message: String,
}

/// An error answer, whatever its form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedError {
    /// It is a `google.rpc.Status` whose code is the HTTP status: the API itself spoke, no front end.
    pub is_google_rpc: bool,
    /// `error.status`, for example `INVALID_ARGUMENT`.
    pub status_text: Option<String>,
    /// `ErrorInfo.reason`.
    pub reason: Option<String>,
    /// At most 512 bytes.
    pub message: String,
    /// `RetryInfo.retryDelay`.
    pub retry_delay: Option<Duration>,
}

/// Reads the body of an answer with an error status, in all the forms that have been seen: `google.rpc.Status`, the
/// webhook service's form with a text as `code`, and whatever front ends send.
pub fn parse_error(status: u16, body: &[u8]) -> ParsedError {
    let _ = (status, body);
    todo!()
}
