//! The crash points of a batch, in the order of the protocol: C0-C12 of a submission and its delivery, R0-R3 of a recovery,
//! D0 and D1 of a deletion.

use crate::api::GeminiBatch;
use crate::api::batch::GeminiBatchStatus;
use crate::controller::points::places;
#[cfg(feature = "failpoints")]
use {super::plan::is_ours, crate::api::batch::Submission, crate::controller::points::is_broken};

places! {
    /// The first status.
    Identity = "c0-identity",
    /// Finalizer and annotation.
    Claim = "c1-claim",
    Upload = "c2-upload",
    /// The status that names the uploaded file.
    Stage = "c3-stage",
    /// The compare-and-swap of the intent.
    Intent = "c4-intent",
    /// What the process asks itself before it sends.
    Gate = "c5-gate",
    /// The one paid request.
    Post = "c6-post",
    /// What its end means is known, and not written yet.
    Answer = "c7-answer",
    /// The compare-and-swap of the job's name.
    Record = "c8-record",
    /// The GET of the job.
    Look = "c9-look",
    /// The download of the results.
    Fetch = "c10-fetch",
    /// The results' ConfigMaps.
    Sink = "c11-sink",
    /// The last status.
    Commit = "c12-commit",
    /// The status by which an attempt is given up on.
    GiveUp = "r0-give-up",
    /// The deletion of its input file, and the proof that it is gone.
    Fence = "r1-fence",
    /// The status by which it is closed.
    Close = "r2-close",
    /// The status that takes over a job which a listing has shown.
    Adopt = "r3-adopt",
    /// What a deletion removes at Gemini.
    Cleanup = "d0-cleanup",
    /// The finalizer goes.
    Release = "d1-release",
}

/// The fence claims success and deletes nothing: what the bed must be able to see.
#[cfg(feature = "failpoints")]
const NO_FENCE: &str = "fence";

/// What a test can have broken.
#[cfg(feature = "failpoints")]
pub const SWITCHES: &[&str] = &[NO_FENCE];

/// What the write of this status is in the protocol.
#[cfg(feature = "failpoints")]
pub(super) fn of_write(batch: &GeminiBatch, status: &GeminiBatchStatus) -> Option<Point> {
    if !is_ours(batch) {
        return Some(Point::Identity);
    }
    let submission = |status: &GeminiBatchStatus| status.runs.last().map(|run| run.submission);
    let (before, after) = (batch.status.as_ref().and_then(submission), submission(status)?);
    if before == Some(after) {
        return None;
    }
    match after {
        Submission::Recorded => Some(Point::Adopt),
        Submission::Fenced => Some(Point::GiveUp),
        Submission::Abandoned => Some(Point::Close),
        Submission::Pending | Submission::Quarantined => None,
    }
}

#[cfg(not(feature = "failpoints"))]
pub(super) fn of_write(_: &GeminiBatch, _: &GeminiBatchStatus) -> Option<Point> {
    None
}

/// The files that the fence deletes: all of them.
pub(super) fn to_fence(files: &[String]) -> &[String] {
    #[cfg(feature = "failpoints")]
    if is_broken(NO_FENCE) {
        return &[];
    }
    files
}
