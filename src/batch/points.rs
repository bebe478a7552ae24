//! Crash points: the places between which a process that dies, stops or panics must leave nothing that is paid twice or
//! lost. Without the feature `failpoints` all of it is nothing, and none of the names is in the program.

use crate::api::GeminiBatch;
use crate::api::batch::GeminiBatchStatus;
#[cfg(feature = "failpoints")]
use {
    super::plan::is_ours,
    crate::api::batch::Submission,
    crate::runtime::failpoint::{self, Side},
};

/// A side effect, or a write that precedes or follows one.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
pub enum Point {
    /// The first status.
    Identity,
    /// Finalizer and annotation.
    Claim,
    Upload,
    /// The status that names the uploaded file.
    Stage,
    /// The compare-and-swap of the intent.
    Intent,
    /// What the process asks itself before it sends.
    Gate,
    /// The one paid request.
    Post,
    /// What its end means is known, and not written yet.
    Answer,
    /// The compare-and-swap of the job's name.
    Record,
    /// The GET of the job.
    Look,
    /// The download of the results.
    Fetch,
    /// The results' ConfigMaps.
    Sink,
    /// The last status.
    Commit,
    /// The status by which an attempt is given up on.
    GiveUp,
    /// The deletion of its input file, and the proof that it is gone.
    Fence,
    /// The status by which it is closed.
    Close,
    /// The status that takes over a job which a listing has shown.
    Adopt,
    /// What a deletion removes at Gemini.
    Cleanup,
    /// The finalizer goes.
    Release,
}

#[cfg(feature = "failpoints")]
impl Point {
    const ALL: [Self; 19] = [
        Self::Identity,
        Self::Claim,
        Self::Upload,
        Self::Stage,
        Self::Intent,
        Self::Gate,
        Self::Post,
        Self::Answer,
        Self::Record,
        Self::Look,
        Self::Fetch,
        Self::Sink,
        Self::Commit,
        Self::GiveUp,
        Self::Fence,
        Self::Close,
        Self::Adopt,
        Self::Cleanup,
        Self::Release,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Identity => "c0-identity",
            Self::Claim => "c1-claim",
            Self::Upload => "c2-upload",
            Self::Stage => "c3-stage",
            Self::Intent => "c4-intent",
            Self::Gate => "c5-gate",
            Self::Post => "c6-post",
            Self::Answer => "c7-answer",
            Self::Record => "c8-record",
            Self::Look => "c9-look",
            Self::Fetch => "c10-fetch",
            Self::Sink => "c11-sink",
            Self::Commit => "c12-commit",
            Self::GiveUp => "r0-give-up",
            Self::Fence => "r1-fence",
            Self::Close => "r2-close",
            Self::Adopt => "r3-adopt",
            Self::Cleanup => "d0-cleanup",
            Self::Release => "d1-release",
        }
    }
}

/// Names of all places, in the order of the protocol: C0-C12 of a submission and its delivery, R0-R3 of a recovery, D0
/// and D1 of a deletion.
#[cfg(feature = "failpoints")]
pub fn names() -> [&'static str; 19] {
    Point::ALL.map(Point::name)
}

/// The fence claims success and deletes nothing: what the bed must be able to see.
#[cfg(feature = "failpoints")]
const NO_FENCE: &str = "fence";

/// Reads from the environment what is to fail; the error is one line.
#[cfg(feature = "failpoints")]
pub fn install() -> Result<(), String> {
    failpoint::install(&names(), &[NO_FENCE])
}

pub(super) fn before(point: impl Into<Option<Point>>) {
    #[cfg(feature = "failpoints")]
    point.into().into_iter().for_each(|point| failpoint::reached(point.name(), Side::Before));
    #[cfg(not(feature = "failpoints"))]
    drop(point);
}

pub(super) fn after(point: impl Into<Option<Point>>) {
    #[cfg(feature = "failpoints")]
    point.into().into_iter().for_each(|point| failpoint::reached(point.name(), Side::After));
    #[cfg(not(feature = "failpoints"))]
    drop(point);
}

/// The work, with its point on either side, however it ends.
#[cfg(feature = "failpoints")]
pub(super) fn around<T>(
    point: impl Into<Option<Point>>,
    work: impl Future<Output = T>,
) -> impl Future<Output = T> {
    // In a box, so that what holds it is no larger than without it.
    let (point, work) = (point.into(), Box::pin(work));
    async move {
        before(point);
        let done = work.await;
        after(point);
        done
    }
}

#[cfg(not(feature = "failpoints"))]
pub(super) fn around<F: Future>(_: impl Into<Option<Point>>, work: F) -> F {
    work
}

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
    if failpoint::is_broken(NO_FENCE) {
        return &[];
    }
    files
}
