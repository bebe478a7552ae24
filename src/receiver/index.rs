//! The index: which batch a job at Gemini belongs to, from a watch of the GeminiBatches.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::watch::{Change, Lenient};
use crate::api::GeminiBatch;
use crate::api::batch::LastEvent;

/// A batch, as far as the receiver cares.
#[derive(Clone, Debug)]
pub struct Batch {
    pub uid: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// The newest event in its status, written by this receiver or another.
    pub last_event: Option<StoredEvent>,
    remote_names: Vec<Arc<str>>,
    /// `<K>.<n>` of attempts whose job's name is not known (yet).
    markers: Vec<Arc<str>>,
}

/// An event as it stands in a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    pub remote_name: Box<str>,
    pub type_: Box<str>,
    pub received: Timestamp,
}

/// The index. One watch, or one for each watched namespace, keeps it up to date.
#[derive(Debug, Default)]
pub struct Index {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By uid; with the number of the watch that it came from.
    batches: HashMap<Arc<str>, (usize, Arc<Batch>)>,
    /// One batch for each job; more only if somebody copied a status, and then each of them may look.
    by_remote_name: HashMap<Arc<str>, Vec<Arc<Batch>>>,
    by_marker: HashMap<Arc<str>, Vec<Arc<Batch>>>,
}

impl Index {
    /// The batches that recorded this job.
    pub fn find(&self, remote_name: &str) -> Vec<Arc<Batch>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.by_remote_name.get(remote_name).cloned().unwrap_or_default()
    }

    /// The batches that made this attempt and do not know its job's name. Who knows a name goes by that alone.
    pub fn find_marked(&self, marker: &str) -> Vec<Arc<Batch>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.by_marker.get(marker).cloned().unwrap_or_default()
    }

    /// Takes over a change that the watch number `watch` saw. Returns the remote names that were not there before.
    pub fn apply(&self, watch: usize, change: Change<Batch>) -> Vec<Arc<str>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = Vec::new();
        match change {
            Change::All(all) => {
                let kept: HashSet<_> = all.iter().map(|batch| batch.uid.clone()).collect();
                let gone =
                    state.batches.iter().filter(|(uid, (from, _))| *from == watch && !kept.contains(*uid));
                let gone: Vec<_> = gone.map(|(uid, _)| uid.clone()).collect();
                for uid in gone {
                    state.remove(&uid);
                }
                for batch in all {
                    state.upsert(watch, batch, &mut new);
                }
            }
            Change::Applied(batch) => state.upsert(watch, batch, &mut new),
            Change::Deleted(batch) => {
                state.remove(&batch.uid);
            }
        }
        new
    }
}

impl State {
    fn upsert(&mut self, watch: usize, batch: Batch, new: &mut Vec<Arc<str>>) {
        let old = self.remove(&batch.uid);
        let batch = Arc::new(batch);
        for name in &batch.remote_names {
            if !old.as_ref().is_some_and(|old| old.remote_names.contains(name)) {
                new.push(name.clone());
            }
            self.by_remote_name.entry(name.clone()).or_default().push(batch.clone());
        }
        for marker in &batch.markers {
            self.by_marker.entry(marker.clone()).or_default().push(batch.clone());
        }
        self.batches.insert(batch.uid.clone(), (watch, batch));
    }

    fn remove(&mut self, uid: &str) -> Option<Arc<Batch>> {
        let (_, batch) = self.batches.remove(uid)?;
        disown(&mut self.by_remote_name, &batch.remote_names, &batch);
        disown(&mut self.by_marker, &batch.markers, &batch);
        Some(batch)
    }
}

fn disown(owners: &mut HashMap<Arc<str>, Vec<Arc<Batch>>>, names: &[Arc<str>], batch: &Arc<Batch>) {
    for name in names {
        if let Some(of_name) = owners.get_mut(name) {
            of_name.retain(|owner| !Arc::ptr_eq(owner, batch));
            if of_name.is_empty() {
                owners.remove(name);
            }
        }
    }
}

/// A GeminiBatch without what the receiver does not read: neither its input nor most of its status.
#[derive(Clone, Debug, Deserialize)]
pub struct SlimBatch {
    #[serde(deserialize_with = "crate::api::meta::outline")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Lenient<SlimStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    identity: Lenient<SlimIdentity>,
    runs: Lenient<Vec<Lenient<SlimRun>>>,
    last_event: Lenient<LastEvent>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimIdentity {
    submit_key: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimRun {
    attempt: Lenient<i32>,
    remote_name: Option<String>,
}

impl SlimBatch {
    /// The entry of this object; `None` for one that the API server would not have let in.
    pub fn into_batch(self) -> Option<Batch> {
        let Self { metadata, status } = self;
        let status = status.0.unwrap_or_default();
        let key = status.identity.0.map(|identity| identity.submit_key);
        let (mut remote_names, mut markers) = (Vec::<Arc<str>>::new(), Vec::<Arc<str>>::new());
        for run in status.runs.0.unwrap_or_default().into_iter().filter_map(|run| run.0) {
            match (run.remote_name, &key, run.attempt.0) {
                (Some(name), _, _) => remote_names.push(name.into()),
                (None, Some(key), Some(attempt)) => markers.push(format!("{key}.{attempt}").into()),
                (None, _, _) => {}
            }
        }
        remote_names.dedup();
        Some(Batch {
            uid: metadata.uid?.into(),
            namespace: metadata.namespace?.into(),
            name: metadata.name?.into(),
            last_event: status.last_event.0.map(|event| StoredEvent {
                remote_name: event.remote_name.into(),
                type_: event.type_.into(),
                received: event.received_time.0,
            }),
            remote_names,
            markers,
        })
    }
}

impl Resource for SlimBatch {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        GeminiBatch::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        GeminiBatch::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        GeminiBatch::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        GeminiBatch::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    pub fn batch(namespace: &str, name: &str, uid: &str, remote_names: &[&str]) -> Batch {
        let runs: Vec<_> = remote_names.iter().map(|name| json!({"remoteName": name, "rows": "?"})).collect();
        let object: SlimBatch = serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "spec": {"model": 7},
            "status": {"runs": runs, "phase": []},
        }))
        .unwrap();
        object.into_batch().unwrap()
    }

    /// One whose first attempt is in doubt.
    pub fn batch_in_doubt(namespace: &str, name: &str, uid: &str, key: &str) -> Batch {
        let object: SlimBatch = serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "status": {"identity": {"submitKey": key}, "runs": [{"attempt": 1}]},
        }))
        .unwrap();
        object.into_batch().unwrap()
    }

    fn names(found: &[Arc<Batch>]) -> Vec<&str> {
        found.iter().map(|batch| &*batch.name).collect()
    }

    #[test]
    fn follows_the_objects() {
        let index = Index::default();
        let new = index
            .apply(0, Change::All(vec![batch("a", "x", "1", &["batches/1"]), batch("a", "y", "2", &[])]));
        assert_eq!(new, ["batches/1".into()]);
        assert_eq!(names(&index.find("batches/1")), ["x"]);

        let new = index.apply(0, Change::Applied(batch("a", "x", "1", &["batches/1", "batches/2"])));
        assert_eq!(new, ["batches/2".into()]);
        assert_eq!(names(&index.find("batches/2")), ["x"]);

        // Another namespace's watch starts over: the first one's entries stay.
        assert!(index.apply(1, Change::All(Vec::new())).is_empty());
        assert_eq!(names(&index.find("batches/2")), ["x"]);

        index.apply(0, Change::All(vec![batch("a", "y", "2", &["batches/3"])]));
        assert!(index.find("batches/1").is_empty() && index.find("batches/2").is_empty());
        index.apply(0, Change::Deleted(batch("a", "y", "2", &[])));
        assert!(index.find("batches/3").is_empty());
        let state = index.state.read().unwrap();
        assert!(state.batches.is_empty() && state.by_remote_name.is_empty() && state.by_marker.is_empty());
    }

    #[test]
    fn a_marker_counts_until_the_name_is_known() {
        let index = Index::default();
        index.apply(0, Change::Applied(batch_in_doubt("a", "x", "1", "k")));
        assert_eq!(names(&index.find_marked("k.1")), ["x"]);
        assert!(index.find_marked("k.2").is_empty() && index.find_marked("k").is_empty());
        index.apply(0, Change::Applied(batch("a", "x", "1", &["batches/1"])));
        assert!(index.find_marked("k.1").is_empty());
        index.apply(0, Change::Applied(batch_in_doubt("a", "x", "1", "k")));
        index.apply(0, Change::Deleted(batch_in_doubt("a", "x", "1", "k")));
        assert!(index.state.read().unwrap().by_marker.is_empty());
    }

    /// Read from text, as the client does: a tree would hide the limit.
    #[test]
    fn an_object_that_is_nested_too_deep_is_read_all_the_same() {
        let deep = format!("{}{}", r#"{"f:deeper":"#.repeat(500), "1".to_owned() + &"}".repeat(500));
        let text = format!(
            r#"{{"metadata":{{"managedFields":[{{"fieldsV1":{deep}}}],"namespace":"a","name":"x","uid":"1"}},"spec":{deep},
                "status":{{"runs":[{{"remoteName":"batches/1"}}]}}}}"#
        );
        let batch = serde_json::from_str::<SlimBatch>(&text).unwrap().into_batch().unwrap();
        assert_eq!(batch.remote_names, ["batches/1".into()]);
    }

    #[test]
    fn broken_objects_lose_only_what_is_broken() {
        let object: SlimBatch = serde_json::from_value(json!({
            "metadata": {"namespace": "a", "name": "x", "uid": "1"},
            "status": {"lastEvent": 3, "runs": [{"remoteName": 4}, {"remoteName": "batches/1"}, "?", {}]},
        }))
        .unwrap();
        let batch = object.into_batch().unwrap();
        assert_eq!(batch.remote_names, ["batches/1".into()]);
        assert_eq!(batch.last_event, None);
    }
}
