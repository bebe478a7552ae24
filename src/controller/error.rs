//! Errors of a pass, classified once. The class decides how soon to try again and what people are told.

use std::time::Duration;

use crate::gemini;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else wrote the object since it was read; read it again.
    #[error("the object changed meanwhile")]
    Conflict,
    #[error("the Kubernetes API: {0}")]
    Kube(#[from] kube::Error),
    #[error("the Gemini API: {0}")]
    Gemini(#[from] gemini::Error),
    /// The key's gate is closed: Gemini has refused another submission for its quota.
    #[error("submissions with this API key wait for its quota")]
    Gated(Duration),
    /// The download was cut, or is not what the job says it is.
    #[error("results: {0}")]
    Results(String),
    #[error("{0}")]
    Sink(String),
    /// The sink did not take the results; the status says so already.
    #[error("not delivered: {0}")]
    Undelivered(String),
    /// A fault in this program. What it says may hold anything, so it stays in the process's own log.
    #[error("the operator failed inside (a panic); its log says where. Please report it")]
    Panicked,
    /// Longer than any of it should take.
    #[error("{0} took longer than {1:?}; trying again")]
    TooSlow(&'static str, Duration),
    #[error("{0}")]
    Source(String),
    #[error("the keyring Secret: {0}")]
    Keyring(String),
    #[error("the orphan ledger: {0}")]
    Ledger(String),
}

impl Error {
    /// Closed set: metric label and log field.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::Kube(_) => "KubernetesApi",
            Self::Gemini(e) => match e.class {
                gemini::Class::Transient => "GeminiTransient",
                gemini::Class::RateLimited(_) => "GeminiRateLimited",
                gemini::Class::Auth => "GeminiAuth",
                gemini::Class::Rejected => "GeminiRejected",
                gemini::Class::NotFound => "GeminiNotFound",
                gemini::Class::Ambiguous => "GeminiAmbiguous",
            },
            Self::Gated(_) => "Gated",
            Self::Results(_) => "Results",
            Self::Sink(_) | Self::Undelivered(_) => "Sink",
            Self::Panicked => "Panic",
            Self::TooSlow(..) => "TooSlow",
            Self::Source(_) => "Source",
            Self::Keyring(_) => "Keyring",
            Self::Ledger(_) => "Ledger",
        }
    }

    /// How long the other side asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Gemini(e) => match e.class {
                gemini::Class::RateLimited(after) => after,
                _ => None,
            },
            Self::Gated(left) => Some(*left),
            _ => None,
        }
    }

    /// Whether it is worth telling the user of the object: a conflict or a hiccup of the API server is not, nor what
    /// the status says already.
    pub fn is_users_business(&self) -> bool {
        !matches!(self, Self::Conflict | Self::Kube(_) | Self::Gated(_) | Self::Undelivered(_))
    }
}

/// A refused compare-and-swap is no error of the API server.
pub fn cas(error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) if status.is_conflict() => Error::Conflict,
        other => Error::Kube(other),
    }
}

/// Whether the API server says that the object is not there.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Whether the API server says that we may not.
pub fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden())
}
