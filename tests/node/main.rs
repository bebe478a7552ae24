//! The chart on a real node: helm installs it, the kubelet runs its pods, and the emulator is outside of them, as
//! Gemini is.
//!
//! These tests run inside of a node bed (`testenv/node`), which needs root and Linux namespaces: `make e2e-node` builds
//! what they need, brings a bed up and runs them. `cargo test` lists them as ignored.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../e2e/objects.rs"]
#[allow(dead_code)]
mod objects;
#[path = "../support/mod.rs"]
mod support;

mod container;
mod installation;
mod load;
mod main_job;
mod pods_deleted;
mod stay;
mod under_load;
