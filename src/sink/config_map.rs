//! Results in ConfigMaps of the batch's namespace.
//!
//! We write only what is ours: a ConfigMap that does not exist yet, or one that carries our label and the name of this
//! very batch (decisions TE3). Parts go first, `NAME` with the manifest last: who sees the manifest finds all that it
//! lists. A part that an earlier publication left beyond the last one is emptied, not deleted: the operator has no
//! right to delete ConfigMaps, and should not need one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::layout::{Part, layout, part_name, parts_for};
use super::{ERRORS_KEY, MANIFEST_KEY, MAX_PARTS, Publication, RESULTS_KEY, SinkError};
use crate::api::{BATCH_ANNOTATION, MANAGED_BY};

const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Somebody else may write the same object at the same moment, for example a second controller.
const MAX_CONFLICTS: usize = 5;

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

/// Before anything is spent: would the results fit, and may they be written? `estimated_bytes` says how many parts to
/// look at. Changes nothing.
pub async fn check(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    batch: &str,
    estimated_bytes: u64,
) -> Result<(), SinkError> {
    let sink = Sink::new(client, namespace, batch);
    for index in 0..parts_for(estimated_bytes)? {
        let part = part_name(name, index);
        let exists = sink.ours(&part).await?.is_some();
        if index == 0 && !exists {
            // Rights, quotas and admission policies are asked now, and not after the money is gone.
            let trial = sink.object(&Part { name: part.clone(), data: BTreeMap::new() }, None);
            let params = PostParams { dry_run: true, ..PostParams::default() };
            sink.api.create(&params, &trial).await.map_err(|e| sink.refusal(&e, &part))?;
        }
    }
    Ok(())
}

/// Writes the results. Again after a crash it finishes what is missing, and after success it writes nothing.
pub async fn publish(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    batch: &str,
    publication: &Publication,
) -> Result<Published, SinkError> {
    let layout = layout(name, publication)?;
    let sink = Sink::new(client, namespace, batch);
    for part in layout.parts.iter().rev() {
        sink.write(part).await?;
    }
    sink.empty_beyond(name, layout.parts.len()).await?;
    let uri = |part: &str, key: &str| format!("configmap://{namespace}/{part}/{key}");
    Ok(Published {
        results_uri: uri(name, RESULTS_KEY),
        errors_uri: layout.errors_part.as_deref().map(|part| uri(part, ERRORS_KEY)),
        manifest_uri: uri(name, MANIFEST_KEY),
        sha256: layout.sha256,
        lines: layout.lines,
        bytes: layout.bytes,
    })
}

struct Sink<'a> {
    api: Api<ConfigMap>,
    namespace: &'a str,
    batch: &'a str,
}

impl<'a> Sink<'a> {
    fn new(client: &kube::Client, namespace: &'a str, batch: &'a str) -> Self {
        Self { api: Api::namespaced(client.clone(), namespace), namespace, batch }
    }

    /// The ConfigMap, if it exists; an error if it is not ours.
    async fn ours(&self, name: &str) -> Result<Option<ConfigMap>, SinkError> {
        let found = match self.api.get(name).await {
            Ok(found) => found,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(e) => return Err(self.refusal(&e, name)),
        };
        let label = found.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY_LABEL));
        let owner = found.metadata.annotations.as_ref().and_then(|a| a.get(BATCH_ANNOTATION));
        if label.is_some_and(|l| l == MANAGED_BY) && owner.is_some_and(|o| o == self.batch) {
            return Ok(Some(found));
        }
        Err(SinkError::Forbidden(format!(
            "spec.output.sink.configMap.name: ConfigMap \"{name}\" in namespace \"{}\" exists and is not this batch's; \
             choose another name, delete it, or hand it over (label {MANAGED_BY_LABEL}={MANAGED_BY}, annotation \
             {BATCH_ANNOTATION}={})",
            self.namespace, self.batch
        )))
    }

    /// Creates or updates one part; does nothing when it stands as it should.
    async fn write(&self, part: &Part) -> Result<(), SinkError> {
        for _ in 0..MAX_CONFLICTS {
            let written = match self.ours(&part.name).await? {
                Some(found) if holds(&found, part) => return Ok(()),
                Some(found) => {
                    let object = self.object(part, Some(found.metadata));
                    self.api.replace(&part.name, &PostParams::default(), &object).await
                }
                None => self.api.create(&PostParams::default(), &self.object(part, None)).await,
            };
            match written {
                Ok(_) => return Ok(()),
                // Made or changed since we looked, perhaps by our own request whose answer got lost: look again.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(e) => return Err(self.refusal(&e, &part.name)),
            }
        }
        Err(SinkError::Unavailable(format!("ConfigMap \"{}\" keeps changing while it is written", part.name)))
    }

    /// An earlier publication under this name may have had more parts; readers that count instead of reading the
    /// manifest must not find them.
    async fn empty_beyond(&self, name: &str, parts: usize) -> Result<(), SinkError> {
        for index in parts..MAX_PARTS {
            let part = Part { name: part_name(name, index), data: BTreeMap::new() };
            match self.ours(&part.name).await {
                Ok(Some(_)) => self.write(&part).await?,
                // Parts are contiguous; and a name that is somebody else's was never one of ours.
                Ok(None) | Err(SinkError::Forbidden(_)) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The object to write. Of one that exists, other people's labels and annotations stay, and its resourceVersion
    /// makes the update fail if it changed meanwhile.
    fn object(&self, part: &Part, existing: Option<ObjectMeta>) -> ConfigMap {
        let mut metadata = existing.unwrap_or_else(|| ObjectMeta {
            name: Some(part.name.clone()),
            namespace: Some(self.namespace.to_owned()),
            ..ObjectMeta::default()
        });
        metadata.managed_fields = None;
        metadata.labels.get_or_insert_default().insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
        metadata
            .annotations
            .get_or_insert_default()
            .insert(BATCH_ANNOTATION.to_owned(), self.batch.to_owned());
        ConfigMap { metadata, data: Some(part.data.clone()), ..ConfigMap::default() }
    }

    fn refusal(&self, error: &kube::Error, name: &str) -> SinkError {
        let kube::Error::Api(status) = error else {
            return SinkError::Unavailable(format!("ConfigMap \"{name}\" could not be written: {error}"));
        };
        let said = format!("ConfigMap \"{name}\" in namespace \"{}\": {}", self.namespace, status.message);
        match status.code {
            403 | 422 => SinkError::Forbidden(said),
            413 => SinkError::TooLarge(said),
            _ => SinkError::Unavailable(said),
        }
    }
}

fn holds(found: &ConfigMap, part: &Part) -> bool {
    found.data.as_ref().map_or(part.data.is_empty(), |data| *data == part.data)
        && found.binary_data.as_ref().is_none_or(BTreeMap::is_empty)
}
