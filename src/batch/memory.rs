//! What one process remembers of a batch between passes. Losing it costs a GET or a listing, never money.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::batch::{Run, Submission};
use crate::gemini;
use crate::rows::Fetched;

#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Nonce of the intent whose request this process is sending now.
    pub in_flight: Option<String>,
    /// The newest attempt that this process has seen, and since when it sees none.
    pub newest: i32,
    pub blank: Option<Timestamp>,
    /// The doubt that this process looks into.
    pub doubt: Option<Doubt>,
    /// When the input file of a fenced attempt last could not be proven gone, since this process began.
    pub unproven: Option<Duration>,
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
    /// An end that a sweep was the first to see, and that is still to be judged. Forgotten in a restart it is not counted.
    pub found: Option<Found>,
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

/// An end that a sweep was the first to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The job.
    pub remote: String,
    /// When it ended, as Gemini says.
    pub ended: Timestamp,
    /// When the sweep saw it.
    pub seen: Timestamp,
    /// Uid of the webhook that should have told.
    pub webhook: String,
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

/// An attempt whose outcome is looked for. Times are since this process began: they do not jump with the wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    nonce: String,
    fenced: bool,
    /// When a listing was last counted, or the doubt first seen.
    pub counted: Duration,
    /// When a listing was last made.
    pub last: Option<Duration>,
}

impl Memory {
    /// Takes note of the newest run, and of the doubt that it is in, if it is in one.
    pub fn watch(&mut self, run: Option<&Run>, now: Timestamp, uptime: Duration) {
        self.blank = run.is_none().then(|| self.blank.unwrap_or(now));
        self.newest = self.newest.max(run.map_or(0, |run| run.attempt));
        let open = |run: &&Run| {
            matches!(run.submission, Submission::Pending | Submission::Fenced | Submission::Quarantined)
        };
        let Some(run) = run.filter(open) else {
            (self.doubt, self.unproven) = (None, None);
            return;
        };
        let fenced = run.fenced_time.is_some();
        if self.doubt.as_ref().is_none_or(|d| (d.nonce.as_str(), d.fenced) != (run.nonce.as_str(), fenced)) {
            self.doubt = Some(Doubt { nonce: run.nonce.clone(), fenced, counted: uptime, last: None });
        }
    }

    /// A listing was made.
    pub fn listed(&mut self, uptime: Duration) {
        if let Some(doubt) = &mut self.doubt {
            doubt.last = Some(uptime);
        }
    }

    /// A listing was counted.
    pub fn counted(&mut self, uptime: Duration) {
        if let Some(doubt) = &mut self.doubt {
            doubt.counted = uptime;
        }
    }
}
