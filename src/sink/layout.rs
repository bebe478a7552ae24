//! PURE: which lines go into which ConfigMap.
//!
//! `NAME` holds the manifest and the first lines, `NAME-1`, `NAME-2`, … go on with them. Lines are never split. The
//! parts' `results.jsonl`, put together in order, are the whole, and so are their `errors.jsonl`.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
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
    // The manifest stands in the first part and lists all of them, so its room is set aside before its text is known.
    let manifest_size = pretty(&publication.manifest).len() + PARTS_RESERVE;
    let mut bins = Bins::new(manifest_size)?;
    bins.fill(RESULTS_KEY, &publication.results)?;
    bins.fill(ERRORS_KEY, &publication.errors)?;

    let mut listed = Vec::new();
    let mut whole = Sha256::new();
    let mut parts = Vec::new();
    let mut errors_part = None;
    for (index, bin) in bins.bins.into_iter().enumerate() {
        let part_name = part_name(name, index);
        let mut data = BTreeMap::new();
        for (key, text, lines) in
            [(RESULTS_KEY, bin.results, bin.result_lines), (ERRORS_KEY, bin.errors, bin.error_lines)]
        {
            // `results.jsonl` is always there to be read, even empty.
            if lines == 0 && !(index == 0 && key == RESULTS_KEY) {
                continue;
            }
            listed.push(json!({
                "configMap": part_name, "key": key, "lines": lines, "bytes": text.len(), "sha256": hex(&text),
            }));
            if key == RESULTS_KEY {
                whole.update(&text);
            } else if errors_part.is_none() {
                errors_part = Some(part_name.clone());
            }
            data.insert(key.to_owned(), text);
        }
        parts.push(Part { name: part_name, data });
    }

    let sha256 = HEXLOWER.encode(&whole.finalize());
    let lines = count(publication.results.len());
    let bytes = count(publication.results.iter().map(|line| line.len() + 1).sum());
    let mut manifest = publication.manifest.clone();
    manifest.insert("results".into(), json!({ "lines": lines, "bytes": bytes, "sha256": sha256 }));
    manifest.insert("errors".into(), json!({ "lines": publication.errors.len() }));
    manifest.insert("parts".into(), Value::Array(listed));
    if let Some(first) = parts.first_mut() {
        first.data.insert(MANIFEST_KEY.to_owned(), pretty(&manifest));
    }
    Ok(Layout { parts, sha256, lines, bytes, errors_part })
}

/// `NAME`, `NAME-1`, `NAME-2`, …
pub(super) fn part_name(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}-{index}") }
}

/// How many ConfigMaps an estimate needs; an error when it cannot fit.
pub(super) fn parts_for(estimated_bytes: u64) -> Result<usize, TooLarge> {
    let parts = usize::try_from(estimated_bytes.div_ceil(MAX_PART_BYTES as u64)).unwrap_or(usize::MAX).max(1);
    if parts <= MAX_PARTS {
        return Ok(parts);
    }
    Err(TooLarge(format!(
        "the answers may take {estimated_bytes} bytes (4 per token of maxOutputTokens, else 1 KiB a row), more than \
         {MAX_PARTS} ConfigMaps of {MAX_PART_BYTES} bytes hold; lower generationConfig.maxOutputTokens or split the \
         batch"
    )))
}

#[derive(Default)]
struct Bin {
    results: String,
    result_lines: usize,
    errors: String,
    error_lines: usize,
}

/// ConfigMaps that are filled one after the other.
struct Bins {
    bins: Vec<Bin>,
    /// Room left in the last one.
    room: usize,
}

impl Bins {
    fn new(reserved: usize) -> Result<Self, TooLarge> {
        let room = MAX_PART_BYTES
            .checked_sub(reserved)
            .ok_or_else(|| TooLarge(format!("the manifest alone is over {MAX_PART_BYTES} bytes")))?;
        Ok(Self { bins: vec![Bin::default()], room })
    }

    fn fill(&mut self, key: &str, lines: &[String]) -> Result<(), TooLarge> {
        for (number, line) in lines.iter().enumerate() {
            let size = line.len() + 1;
            if size > MAX_PART_BYTES {
                return Err(TooLarge(format!(
                    "line {} of {key} has {size} bytes; one row cannot be split, and a ConfigMap holds \
                     {MAX_PART_BYTES}",
                    number + 1
                )));
            }
            if size > self.room {
                if self.bins.len() == MAX_PARTS {
                    return Err(TooLarge(format!(
                        "the results do not fit into {MAX_PARTS} ConfigMaps of {MAX_PART_BYTES} bytes (full at line \
                         {} of {key})",
                        number + 1
                    )));
                }
                self.bins.push(Bin::default());
                self.room = MAX_PART_BYTES;
            }
            self.room -= size;
            if let Some(bin) = self.bins.last_mut() {
                let (text, count) = if key == RESULTS_KEY {
                    (&mut bin.results, &mut bin.result_lines)
                } else {
                    (&mut bin.errors, &mut bin.error_lines)
                };
                text.push_str(line);
                text.push('\n');
                *count += 1;
            }
        }
        Ok(())
    }
}

fn pretty(manifest: &Map<String, Value>) -> String {
    // A tree of JSON values: cannot fail.
    serde_json::to_string_pretty(manifest).unwrap_or_default()
}

fn hex(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text))
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
