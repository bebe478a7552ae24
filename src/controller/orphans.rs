//! The orphan ledger: what deletions that gave up may have left at Gemini, in a ConfigMap of the operator's namespace.
//! One entry for each batch, written before its finalizer goes and worked off for days after it.
//!
//! Here stands what decides, without I/O: which entry stays, which goes, and what to do about what a look has shown.

mod reaper;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

pub use reaper::run;
pub use store::{Lock, enter};

use super::next::after;
use crate::api::batch::DeletionPolicy;
use crate::api::refs::SecretKeyRef;
use crate::api::{GROUP, SUBMIT_KEY_ANNOTATION, VERSION};
use crate::gemini::Batch;
use crate::submit::{self, Claim, Marked, OperatorSecret, Timing};

/// Name of the ConfigMap.
pub const ORPHANS_CONFIG_MAP: &str = "gemini-operator-orphans";

/// Entries, and bytes of all of them: a ConfigMap must stay below 1 MiB, and every entry costs work in each pass.
const MAX_ENTRIES: usize = 500;
const MAX_BYTES: usize = 850 * 1024;

/// The ConfigMap's data: an entry in JSON by its K. What cannot be read (a newer operator's) is left as it is.
pub type Data = BTreeMap<String, String>;

/// What one deleted batch may have left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// K.
    pub submit_key: String,
    /// The object, which is gone.
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Where the API key is: never the key itself.
    pub api_key_secret_ref: SecretKeyRef,
    /// Of the API key with which something of it was last seen. What another one does not list proves nothing.
    pub key_fingerprint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_name: Option<String>,
    /// The newest attempt's displayName, for people to look for.
    pub marker: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_file: Option<String>,
    /// What the tag of a displayName vouches for, beside the object's place.
    pub model: String,
    pub operation: String,
    pub input_sha256: String,
    pub deletion_policy: DeletionPolicy,
    /// Whether there is a job was not known: its input file goes whatever the policy, so that there can be none later.
    pub in_doubt: bool,
    pub since: Timestamp,
    /// Since when looks have found nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_since: Option<Timestamp>,
}

impl Entry {
    fn claim(&self) -> Claim<'_> {
        Claim {
            namespace: &self.namespace,
            name: &self.name,
            model: &self.model,
            operation: &self.operation,
            input_sha256: &self.input_sha256,
        }
    }

    /// What may be left, for people.
    pub fn left(&self) -> String {
        match &self.remote_name {
            Some(name) => name.clone(),
            None if self.marker.is_empty() => {
                format!("an uploaded file {}…", submit::file_prefix(&self.submit_key))
            }
            None => format!("a job with displayName {}", self.marker),
        }
    }

    /// The object that was, for Events.
    fn object_ref(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some("GeminiBatch".into()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

/// The entry that can be read from a value.
fn read(text: &str) -> Option<Entry> {
    serde_json::from_str(text).ok()
}

/// Two controllers may give up on one batch, and one may do so twice: it is one entry, as old as the older.
fn merge(old: Option<Entry>, new: Entry) -> Entry {
    let Some(old) = old else { return new };
    Entry {
        since: new.since.min(old.since),
        remote_name: new.remote_name.or(old.remote_name),
        in_doubt: new.in_doubt || old.in_doubt,
        ..new
    }
}

/// What came of writing an entry.
#[derive(Debug, Default, PartialEq, Eq)]
struct Admitted {
    is_new: bool,
    /// Entries that had to leave: what is written at K, the oldest first.
    evicted: Vec<(String, String)>,
}

/// Writes an entry, and lets the oldest go where there is no room.
fn admit(data: &mut Data, entry: Entry) -> Result<Admitted, serde_json::Error> {
    let key = entry.submit_key.clone();
    let old = data.get(&key).and_then(|text| read(text));
    let is_new = old.is_none();
    data.insert(key.clone(), serde_json::to_string(&merge(old, entry))?);
    Ok(Admitted { is_new, evicted: evict(data, &key) })
}

fn evict(data: &mut Data, but: &str) -> Vec<(String, String)> {
    let size = |key: &str, text: &str| key.len() + text.len();
    let mut bytes: usize = data.iter().map(|(key, text)| size(key, text)).sum();
    if data.len() <= MAX_ENTRIES && bytes <= MAX_BYTES {
        return vec![];
    }
    // What cannot be read has no age, and nobody works it off.
    let mut oldest: Vec<(Option<Timestamp>, String)> = data
        .iter()
        .filter(|(key, _)| *key != but)
        .map(|(key, text)| (read(text).map(|e| e.since), key.clone()))
        .collect();
    oldest.sort();
    let mut evicted = vec![];
    for (_, key) in oldest {
        if data.len() <= MAX_ENTRIES && bytes <= MAX_BYTES {
            break;
        }
        if let Some(text) = data.remove(&key) {
            bytes -= size(&key, &text);
            evicted.push((key, text));
        }
    }
    evicted
}

/// One thing to do at Gemini.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    Cancel { job: String },
    Delete { job: String, responses_file: Option<String> },
    Remove { file: String },
}

/// What a look has shown of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    acts: Vec<Act>,
    /// A job carries its K with a tag that is not ours: it is left alone, and so is the entry.
    foreign: bool,
    /// Something that only a key of the right project shows.
    proven: bool,
}

/// What to do about the jobs and files of a key's project.
fn found(entry: &Entry, secret: &OperatorSecret, jobs: &[Batch], files: &[String]) -> Found {
    let mut found = Found::default();
    let deletes = entry.deletion_policy == DeletionPolicy::Delete;
    for job in jobs {
        let is_recorded = entry.remote_name.as_deref() == Some(job.name.as_str());
        match submit::recognise(secret, &entry.submit_key, &entry.claim(), &job.display_name) {
            _ if is_recorded => {}
            Marked::Ours(_) => {}
            Marked::Other => continue,
            Marked::Foreign => {
                found.foreign = true;
                continue;
            }
        }
        found.proven = true;
        let name = job.name.clone();
        if !job.is_terminal() {
            found.acts.push(Act::Cancel { job: name });
        } else if deletes {
            found.acts.push(Act::Delete { job: name, responses_file: job.responses_file.clone() });
        }
    }
    if deletes || entry.in_doubt {
        let prefix = submit::file_prefix(&entry.submit_key);
        for file in files.iter().filter(|file| file.starts_with(&prefix)) {
            found.proven |= entry.input_file.as_deref() == Some(file.as_str());
            found.acts.push(Act::Remove { file: file.clone() });
        }
    }
    found
}

/// A look at Gemini, after what there was to do was done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    /// When its listing of jobs began.
    began: Timestamp,
    /// When both listings had come to their end.
    ended: Timestamp,
    /// Of the key that it was made with.
    fingerprint: String,
    /// Both listings are whole.
    complete: bool,
    found: Found,
}

/// What becomes of an entry.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stays(Box<Entry>),
    /// There is nothing left.
    Settled,
    /// It was looked for long enough.
    Expired,
    /// A live object has taken its K over: a backup was restored, and what there is at Gemini is that object's.
    Restored,
}

/// Whether this object, of the entry's name, has taken its K over.
fn is_restored(entry: &Entry, meta: &ObjectMeta, secret: &OperatorSecret) -> bool {
    let annotation = meta.annotations.as_ref().and_then(|a| a.get(SUBMIT_KEY_ANNOTATION));
    let key = annotation
        .and_then(|text| submit::read_annotation(secret, text, &entry.namespace, &entry.name))
        .map(|(key, _)| key);
    meta.deletion_timestamp.is_none() && key == Some(entry.submit_key.as_str())
}

/// An entry goes when two looks, further apart than a listing can lag, have shown nothing and there was nothing in
/// between: at the first one there was no input file any more, so what could make a job had made it by then.
fn judge(entry: &Entry, look: Option<&Look>, now: Timestamp, timing: &Timing) -> Fate {
    let mut entry = entry.clone();
    if let Some(look) = look {
        if look.found.proven {
            entry.key_fingerprint.clone_from(&look.fingerprint);
        }
        let is_clear = look.complete && !look.found.foreign && look.fingerprint == entry.key_fingerprint;
        match entry.clear_since {
            _ if !look.found.acts.is_empty() => entry.clear_since = None,
            Some(since) if is_clear && look.began >= after(since, timing.listing_lag) => {
                return Fate::Settled;
            }
            None if is_clear => entry.clear_since = Some(look.ended),
            _ => {}
        }
    }
    if now >= after(entry.since, timing.duplicates_watch) {
        Fate::Expired
    } else {
        Fate::Stays(Box::new(entry))
    }
}
