//! Batch jobs: reading, listing, cancelling and deleting them. Creating one is in `submit`.

use jiff::Timestamp;

use super::error::Error;
use super::http::{ApiKey, Gemini};

/// A batch job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `batches/…`
    pub name: String,
    pub display_name: String,
    /// `models/…`
    pub model: String,
    pub state: State,
    /// The state as it was on the wire; empty when there was none.
    pub raw_state: String,
    pub create_time: Option<Timestamp>,
    pub end_time: Option<Timestamp>,
    /// The uploaded input, `files/…`.
    pub input_file: Option<String>,
    /// The answers, `files/…`.
    pub responses_file: Option<String>,
    /// The answers stand in the operation itself (we never ask for that).
    pub inlined: bool,
    pub stats: BatchStats,
    /// Code (number or text) and message of a job that failed.
    pub error: Option<(String, String)>,
}

impl Batch {
    /// Whether it has ended, in whatever way.
    pub fn is_terminal(&self) -> bool {
        self.state.is_terminal()
    }
}

/// Rows as Gemini counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStats {
    pub request: i64,
    pub successful: i64,
    pub failed: i64,
    pub pending: i64,
}

/// State of a job. Never `Unknown` once the operation says `done`: then the operation's end decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
    /// A state of tomorrow, or none: not terminal.
    Unknown(String),
}

impl State {
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// As Gemini names it, without `BATCH_STATE_`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
            Self::Unknown(raw) => raw,
        }
    }
}

/// One page of the listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchPage {
    pub batches: Vec<Batch>,
    /// Entries that could not be read (no usable name). A listing with such an entry is not complete: it must not
    /// serve as proof that a job does not exist.
    pub unreadable: usize,
    /// `None` on the last page.
    pub next_page_token: Option<String>,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// `models/…`
    pub name: String,
    /// `supportedGenerationMethods`; a batch needs `batchGenerateContent`.
    pub methods: Vec<String>,
    pub input_token_limit: Option<i64>,
    pub output_token_limit: Option<i64>,
}

/// Reads an operation: the answer to create, get, or one entry of the listing.
pub fn parse_operation(body: &[u8]) -> Result<Batch, String> {
    let _ = body;
    todo!()
}

impl Gemini {
    /// One job.
    pub async fn get_batch(&self, key: &ApiKey, name: &str) -> Result<Batch, Error> {
        let _ = (key, name);
        todo!()
    }

    /// One page of all jobs of the key's project, newest first.
    pub async fn list_batches(&self, key: &ApiKey, page_token: Option<&str>) -> Result<BatchPage, Error> {
        let _ = (key, page_token);
        todo!()
    }

    /// Asks for a cancellation; the job ends some time later. A job that has ended or is gone answers with
    /// `Rejected` or `NotFound`.
    pub async fn cancel_batch(&self, key: &ApiKey, name: &str) -> Result<(), Error> {
        let _ = (key, name);
        todo!()
    }

    /// Deletes the job's record. Not a cancellation: cancel first.
    pub async fn delete_batch(&self, key: &ApiKey, name: &str) -> Result<(), Error> {
        let _ = (key, name);
        todo!()
    }

    /// A model, with or without `models/`.
    pub async fn get_model(&self, key: &ApiKey, model: &str) -> Result<Model, Error> {
        let _ = (key, model);
        todo!()
    }
}
