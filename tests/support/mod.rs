//! The light bed: a real control plane, the emulator and the operator's own processes, all on loopback,
//! without root.
//!
//! One control plane serves the whole run ([`cluster`]). Each test makes a [`Bed`]: a namespace, an
//! emulator, a controller and a receiver of its own, the last two with tokens of the chart's own
//! ServiceAccounts, so that every test is a test of the chart's RBAC too. A bed ends what it started, by
//! process id, also when its test panics.
//!
//! `TEST_KUBECONFIG` names another cluster to test on; an exported `KUBECONFIG` is never used by itself.

// The test binary and the demo each use another part of this.
#![allow(dead_code, unused_imports)]

pub mod account;
pub mod audit;
pub mod bed;
pub mod check;
pub mod cluster;
pub mod emulator;
pub mod front;
pub mod hooks;
pub mod ingress;
pub mod kubectl;
pub mod process;
pub mod results;
pub mod tls;
pub mod tools;
pub mod wait;

use std::sync::Once;
use std::time::Duration;

pub use account::Account;
pub use bed::{Bed, BedOptions, PROJECT, Replica, Room};
pub use cluster::{CONTROLLER, Cluster, OPERATOR_NAMESPACE, RECEIVER};
pub use wait::batch_condition;

/// How often a condition is looked at while somebody waits for it.
pub const POLL: Duration = Duration::from_millis(100);

/// How long anything may take that is not about the operator's own time windows. Far above what it takes on
/// an idle machine: it only bounds a run that would not end.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Chooses ring for this process; must come before the first client of any kind.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().expect("no other TLS provider was chosen");
    });
}

/// Looks every 100 ms until `done` gives a value; `Err` with what was seen last after `within`.
pub async fn poll<T, E, F>(within: Duration, mut done: F) -> Result<T, E>
where
    F: AsyncFnMut() -> Result<T, E>,
{
    let deadline = tokio::time::Instant::now() + within;
    loop {
        let seen = done().await;
        if seen.is_ok() || tokio::time::Instant::now() >= deadline {
            return seen;
        }
        tokio::time::sleep(POLL).await;
    }
}
