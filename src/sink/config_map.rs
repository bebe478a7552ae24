//! Results in ConfigMaps of the batch's namespace.

use super::{Publication, SinkError};

/// Where the results are, once they are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// `configmap://<namespace>/<name>/results.jsonl`
    pub results_uri: String,
    /// `None` without failed rows.
    pub errors_uri: Option<String>,
    pub manifest_uri: String,
    /// Of `results.jsonl` as a whole, in hex.
    pub sha256: String,
    pub lines: i64,
    pub bytes: i64,
}

/// Before anything is spent: would the results fit, and may they be written?
pub async fn check(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    batch: &str,
    estimated_bytes: u64,
) -> Result<(), SinkError> {
    let _ = (client, namespace, name, batch, estimated_bytes);
    todo!()
}

/// Writes the results; again after a crash, without effect.
pub async fn publish(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    batch: &str,
    publication: &Publication,
) -> Result<Published, SinkError> {
    let _ = (client, namespace, name, batch, publication);
    todo!()
}
