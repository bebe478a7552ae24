//! Tests of the emulator: the real binary, over real sockets.

// Helpers of tests are tests too; clippy's own exception knows only functions marked `#[test]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod batches;
mod cli;
mod deliveries;
mod examiner;
mod faults;
mod files;
mod ledger;
mod support;
mod traces;
mod webhooks;
