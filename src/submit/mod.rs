//! The submission protocol, pure: no clock, no I/O, no Kubernetes.
//!
//! Creating a batch job is not idempotent and costs money, so everything that decides about it stands here and is
//! called with plain data: how a job is marked, what the end of a POST means and what it does to the status, and what to
//! do while its outcome is unknown. `tests/model` compiles this folder as it stands and explores every state.

mod classify;
mod conclude;
mod marker;
mod step;
mod timing;

pub use classify::{PostEnd, Refusal, Verdict, classify};
pub use conclude::{Conclusion, Standing, conclude};
pub use marker::{
    Claim, FILE_PREFIX, Marked, OperatorSecret, annotation, file_name, file_prefix, marker, read_annotation,
    recognise, submit_key,
};
pub use step::{
    Ambiguity, Attempt, AttemptState, Deletion, History, Job, Listing, Proof, Seen, Step, Wish, duplicates,
    proves, step,
};
pub use timing::Timing;
