//! Metadata of objects that are read whatever they look like.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    name: String,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
}

/// For `deserialize_with`: which object it is, and which version of it. `managedFields` are passed over unread: they
/// repeat the shape of the object, and may be nested deeper than a parser goes.
pub fn outline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let outline = Outline::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: Some(outline.name),
        namespace: outline.namespace,
        uid: outline.uid,
        resource_version: outline.resource_version,
        generation: outline.generation,
        creation_timestamp: outline.creation_timestamp,
        deletion_timestamp: outline.deletion_timestamp,
        finalizers: outline.finalizers,
        ..ObjectMeta::default()
    })
}
