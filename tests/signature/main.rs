//! Verification of deliveries as others see it: people by the command, and other people's verifiers.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod command;
mod deliveries;
mod jwt_peer;
mod python_peer;
mod standard_peer;
#[path = "../../src/receiver/signature/vectors.rs"]
mod vectors;
