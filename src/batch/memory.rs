//! What one process remembers of a batch between passes. Losing it costs a GET or a listing, never money.

use jiff::Timestamp;

use crate::gemini;
use crate::rows::Fetched;

#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Nonce of the intent whose request this process is sending now.
    pub in_flight: Option<String>,
    /// The job as the newest GET showed it.
    pub job: Option<gemini::Batch>,
    /// When that GET was made.
    pub looked: Option<Timestamp>,
    /// When an event last caused a GET.
    pub event_looked: Option<Timestamp>,
    /// Id of the event that was looked after.
    pub handled_event: Option<String>,
    /// GETs in a row that did not show the end that an event claims.
    pub unconfirmed: usize,
    /// When a sweep last covered this batch.
    pub swept: Option<Timestamp>,
    /// The provider's own word on when to try again.
    pub retry_at: Option<Timestamp>,
    /// A cancel request was answered.
    pub cancel_sent: bool,
    /// Fingerprint of the key with which the model was found.
    pub model_known: Option<String>,
    /// File that was uploaded in this very reconcile, and seen to be usable.
    pub uploaded: Option<String>,
    /// Reconciles in a row that failed.
    pub failures: u32,
    /// What the last failure asks for before the next try.
    pub rest: Option<Rest>,
    /// Fetches of the results that were not whole.
    pub fetched: Fetched,
    /// Tries in a row in which the API server could not give the input for the delivery.
    pub source_failures: u32,
    /// Generation of the spec whose sink cannot hold the results.
    pub too_large: Option<i64>,
}

/// A pause that wakes by our own writes do not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    pub until: Timestamp,
    /// The object as it was then.
    pub stimulus: Stimulus,
}

/// What others change about a batch: there is something new to do, so no pause applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stimulus {
    pub generation: Option<i64>,
    pub is_deleted: bool,
    pub approval: Option<String>,
    pub event: Option<String>,
}
