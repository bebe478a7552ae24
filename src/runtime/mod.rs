//! Process plumbing that every process of the operator shares. It has no domain words: nothing here knows what a
//! batch or a webhook is.

pub mod admin;
pub mod crypto;
#[cfg(feature = "failpoints")]
pub mod failpoint;
pub mod kube_client;
pub mod listen;
pub mod readiness;
pub mod relist;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
