//! An object of a list or a watch that may be unreadable without taking the others with it.
//!
//! kube's own `Guarded` reads the object into a tree first, and a tree has a greatest depth: one object that is
//! nested deeper, which anybody who may create a batch can write into a field that the schema leaves open, would be an
//! error of the whole list, again and again. Here the object is text first, and text has no depth.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object, or what can be said of it if it is not one.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Unreadable>);

/// An object that does not fit its type.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Why.
    pub error: String,
    /// Which object, and which version of it.
    pub metadata: ObjectMeta,
}

/// What is read of an unreadable object.
#[derive(Deserialize)]
struct Outline {
    #[serde(deserialize_with = "crate::api::meta::outline")]
    metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(match serde_json::from_str(text.get()) {
            Ok(object) => Ok(object),
            Err(error) => {
                let Outline { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                Err(Unreadable { error: error.to_string(), metadata })
            }
        }))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::GeminiBatch;
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    fn batch(name: &str, config: &Value) -> Value {
        json!({
            "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiBatch",
            "metadata": {
                "name": name, "namespace": "team", "uid": "u", "resourceVersion": "7",
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": config}}],
            },
            "spec": {
                "apiKeySecretRef": {"name": "gemini"}, "model": "gemini-3.5-flash",
                "input": {"inline": {"requests": [{"key": "a", "prompt": "p", "generationConfig": config}]}},
            },
        })
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!({}), |inner, _| json!({ "deeper": inner }))
    }

    /// Parsed from text, as the client does: a tree would hide the limit.
    fn listed(items: &[Value]) -> Vec<Guarded<GeminiBatch>> {
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}).to_string();
        serde_json::from_str::<ObjectList<Guarded<GeminiBatch>>>(&list).unwrap().items
    }

    #[test]
    fn one_bad_object_leaves_the_others_readable() {
        let mut wrong = batch("wrong", &json!({}));
        wrong["spec"]["suspend"] = json!("perhaps");
        let objects = listed(&[wrong, batch("deep", &nested(500)), batch("good", &nested(3))]);
        let seen: Vec<_> = objects
            .iter()
            .map(|object| {
                (object.meta().name.as_deref().unwrap(), object.0.as_ref().err().map(|e| &*e.error))
            })
            .collect();
        assert!(matches!(seen[0], ("wrong", Some(error)) if error.contains("perhaps")), "{seen:?}");
        assert!(matches!(seen[1], ("deep", Some(error)) if error.contains("recursion limit")), "{seen:?}");
        assert_eq!(seen[2], ("good", None));
        let meta = objects[1].meta();
        assert_eq!((meta.uid.as_deref(), meta.resource_version.as_deref()), (Some("u"), Some("7")));
    }

    #[test]
    fn events_of_a_watch_are_read_the_same_way() {
        let text = json!({"type": "ADDED", "object": batch("deep", &nested(500))});
        // The API server writes the type first.
        let text = format!(r#"{{"type":"ADDED","object":{}}}"#, text["object"]);
        let event = serde_json::from_str::<WatchEvent<Guarded<GeminiBatch>>>(&text).unwrap();
        assert!(
            matches!(event, WatchEvent::Added(Guarded(Err(unreadable))) if unreadable.metadata.name.as_deref() == Some("deep"))
        );
    }
}
