//! Faults on real parts: processes that die or stop at every step of the protocol, an API server that lies, and what is
//! left in the end. See `tests/support`.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod hooks;
mod keys;
mod matrix;
mod run;
mod side_by_side;
mod sieve;
mod zombie;
