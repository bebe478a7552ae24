//! What a pass has seen of the world: plain data between `observe` and `plan`.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::batch::InputStatus;
use crate::controller::Credentials;
use crate::{gemini, submit};

/// Every field is `None` where this pass had no reason to look.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub credentials: Option<Credentials>,
    pub input: Option<Result<InputFacts, InputProblem>>,
    pub sink: Option<Result<(), SinkProblem>>,
    pub model: Option<ModelFacts>,
    /// How long the key's gate stays closed.
    pub gate: Duration,
    /// Whether the staged file is still at Gemini, whole, and for long enough.
    pub file_usable: Option<bool>,
    /// A complete listing for an attempt without a job.
    pub listing: Option<Listed>,
    /// All files of this batch, for an attempt whose own is not known.
    pub files: Option<Vec<String>>,
    /// Jobs of this batch that are one too many.
    pub duplicates: Vec<String>,
    /// The recorded job, by a GET.
    pub job: Option<JobFacts>,
    /// The recorded job as a sweep has listed it, if it has not ended there.
    pub listed: Option<Box<gemini::Batch>>,
    /// How the end of the job will become known.
    pub tracking: Option<Tracking>,
}

/// A complete listing, as far as it concerns this batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// When it began.
    pub started: Timestamp,
    /// Jobs that carry our K.
    pub jobs: Vec<submit::Job>,
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

impl InputProblem {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "SourceNotFound",
            Self::Forbidden(_) => "SourceForbidden",
            Self::Invalid { reason, .. } => reason,
        }
    }

    pub fn message(&self) -> &str {
        match self {
            Self::NotFound(message) | Self::Forbidden(message) | Self::Invalid { message, .. } => message,
        }
    }
}

impl From<&InputFacts> for InputStatus {
    fn from(facts: &InputFacts) -> Self {
        Self { sha256: facts.sha256.clone(), rows: facts.rows, bytes: facts.bytes, file: None }
    }
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
    /// A ready webhook that Gemini, or another sender, knows of.
    Static { webhook: String },
    /// A ready webhook whose address goes to Gemini with the job.
    Dynamic { webhook: String },
    /// A webhook was asked for and is not ready.
    NotReady(String),
    /// The sweep alone.
    SweepOnly(String),
}
