//! PURE: when a job that Gemini does not find counts as gone. It is a final loss, so one 404 is not enough.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::batch::Run;
use crate::controller::after;

/// What a 404 on a job means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Not there for good.
    Proven,
    /// Another key than the one that it was submitted with: what that does not see says nothing.
    OtherKey,
    /// A complete listing has it all the same.
    Listed,
    /// So young that a listing, or a replica of Gemini's, may not have it yet.
    TooYoung,
}

/// A complete listing that began at `started`, and whether it has the job. `lag` is how long it may lag behind.
pub fn absence(run: &Run, fingerprint: &str, started: Timestamp, is_listed: bool, lag: Duration) -> Absence {
    let recorded = run.submit_time.as_ref().map_or(run.intent_time.0, |time| time.0);
    if run.key_fingerprint != fingerprint {
        Absence::OtherKey
    } else if is_listed {
        Absence::Listed
    } else if started < after(recorded, lag) {
        Absence::TooYoung
    } else {
        Absence::Proven
    }
}
