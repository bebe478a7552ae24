//! The operator on real parts: see `tests/support`. One binary, so that one control plane serves all of it.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod adversity;
mod bad_input;
mod cancel;
mod crds;
mod deletion;
mod delivery;
mod dynamic;
mod economy;
mod ingress;
mod main_job;
mod malformed;
mod many;
mod objects;
mod orphans;
mod outcomes;
mod receivers;
mod recovery;
mod rescues;
mod restore;
mod sender;
mod sweep;
mod tenants;
mod told;
mod waiting;
mod webhooks;
