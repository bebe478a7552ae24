//! What a pass has seen of the world: plain data between `observe` and `plan`.

use crate::controller::Credentials;
use crate::{gemini, submit};

/// Every field is `None` where this pass had no reason to look.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub credentials: Option<Credentials>,
    pub input: Option<Result<InputFacts, InputProblem>>,
    pub sink: Option<Result<(), SinkProblem>>,
    pub model: Option<ModelFacts>,
    /// Whether the staged file is still at Gemini, whole, and for long enough.
    pub file_usable: Option<bool>,
    /// Jobs of this batch in a complete listing that began after the intent.
    pub listing: Option<Vec<submit::Job>>,
    /// The recorded job, by a GET.
    pub job: Option<JobFacts>,
    /// The recorded job as a sweep has listed it, if it has not ended there.
    pub listed: Option<Box<gemini::Batch>>,
    /// How the end of the job will become known.
    pub tracking: Option<Tracking>,
}

/// A valid, rendered input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFacts {
    pub sha256: String,
    pub rows: i64,
    pub bytes: i64,
}

/// Why the input cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputProblem {
    /// May appear later.
    NotFound(String),
    /// May be allowed later.
    Forbidden(String),
    /// Will not become right by itself; the reason is `InvalidRow`, `DuplicateKey` or `TooLarge`.
    Invalid { reason: &'static str, message: String },
}

/// Why the results would have nowhere to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkProblem {
    Forbidden(String),
    TooLarge(String),
}

/// Whether Gemini knows the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFacts {
    Known,
    Unknown(String),
}

/// The recorded job.
#[derive(Clone, Debug)]
pub enum JobFacts {
    Found(Box<gemini::Batch>),
    /// Proven not to exist, or not visible to the present key.
    Gone,
}

/// How the end of the job will become known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// A ready webhook.
    Static { webhook: String },
    /// A webhook was asked for and is not ready.
    NotReady(String),
    /// The sweep alone.
    SweepOnly(String),
}
