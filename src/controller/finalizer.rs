//! Setting and removing our finalizer, by patches that fail on a stale object.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::{Error, cas, is_not_found};
use crate::api::FINALIZER;

/// Whether the finalizer stands.
pub fn is_claimed(object: &impl Resource) -> bool {
    object.meta().finalizers.as_ref().is_some_and(|f| f.iter().any(|f| f == FINALIZER))
}

/// Sets the finalizer, and an annotation with it, in one patch.
pub async fn claim<K>(api: &Api<K>, object: &K, annotation: Option<(&str, &str)>) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
    if !is_claimed(object) {
        finalizers.push(FINALIZER.to_owned());
    }
    let annotations: Map<String, Value> =
        annotation.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let patch = json!({ "metadata": {
        "finalizers": finalizers,
        "annotations": annotations,
        "resourceVersion": object.meta().resource_version,
    }});
    let name = object.meta().name.clone().unwrap_or_default();
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.map_err(cas)
}

/// Lets the object go, by its metadata alone: it may be one that cannot be read. That it has gone already is fine.
pub async fn release<K>(api: &Api<K>, object: &impl Resource) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let finalizers: Vec<_> = object.meta().finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
    let patch = json!({ "metadata": {
        "finalizers": finalizers,
        "resourceVersion": object.meta().resource_version,
    }});
    let name = object.meta().name.clone().unwrap_or_default();
    match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(e) if is_not_found(&e) => Ok(()),
        Err(e) => Err(cas(e)),
    }
}
