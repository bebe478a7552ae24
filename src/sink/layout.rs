//! PURE: which lines go into which ConfigMap.
//!
//! `NAME` holds the manifest and the first lines, `NAME-1`, `NAME-2`, … go on with them. Lines are never split. The
//! parts' `results.jsonl`, put together in order, are the whole, and so are their `errors.jsonl`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{ERRORS_KEY, MANIFEST_KEY, Publication, RESULTS_KEY};

/// Bytes of data per ConfigMap (decisions TE4). The API server's limit is 1 MiB.
pub const MAX_PART_BYTES: usize = 900 * 1024;
/// ConfigMaps per batch (decisions TE4).
pub const MAX_PARTS: usize = 16;
/// What the manifest's list of parts may take: 2 entries for each of 16 parts, names up to 253 characters.
const PARTS_RESERVE: usize = 20 * 1024;

/// One ConfigMap to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub data: BTreeMap<String, String>,
}

/// It does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TooLarge(pub String);

/// The parts, `NAME` first, and what `results.jsonl` is as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub parts: Vec<Part>,
    /// Of all of `results.jsonl`, in hex.
    pub sha256: String,
    pub lines: i64,
    pub bytes: i64,
    /// The first part with failed rows.
    pub errors_part: Option<String>,
}

/// Lays a publication out over ConfigMaps. The same publication gives the same parts.
pub fn layout(name: &str, publication: &Publication) -> Result<Layout, TooLarge> {
    let _ = (name, publication);
    todo!()
}
