//! The submission protocol, pure: no clock, no I/O, no Kubernetes.
//!
//! Creating a batch job is not idempotent and costs money, so everything that decides about it stands here and is
//! called with plain data: how a job is marked, what the end of a POST means, and what to do while its outcome is
//! unknown.

mod classify;
mod marker;
mod step;
mod timing;

pub use classify::{PostEnd, Refusal, Verdict, classify};
pub use marker::{Claim, Marked, OperatorSecret, file_name, file_prefix, marker, recognise, submit_key};
pub use step::{Attempt, AttemptState, Job, Seen, Step, step};
pub use timing::Timing;
