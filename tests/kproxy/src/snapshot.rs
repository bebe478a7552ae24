//! A collection as it was at one moment.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::request::{Target, Verb};
use crate::status;

/// One list of a collection, to be served again.
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<Value>);

impl Snapshot {
    pub(crate) fn new(list: Value) -> Self {
        Self(Arc::new(list))
    }

    /// The list itself.
    pub fn list(&self) -> &Value {
        &self.0
    }

    /// What a LIST or GET finds in it; `None` where only the API server can answer.
    pub(crate) fn answer(&self, target: &Target) -> Option<(u16, Value)> {
        match target.verb {
            Verb::List => Some((200, (*self.0).clone())),
            Verb::Get => {
                let named = |item: &&Value| {
                    item["metadata"]["name"] == target.name.as_str()
                        && item["metadata"]["namespace"].as_str().unwrap_or_default() == target.namespace
                };
                Some(match self.0["items"].as_array().and_then(|items| items.iter().find(named)) {
                    Some(item) if target.metadata_only => (
                        200,
                        json!({
                            "apiVersion": "meta.k8s.io/v1",
                            "kind": "PartialObjectMetadata",
                            "metadata": item["metadata"],
                        }),
                    ),
                    Some(item) => (200, item.clone()),
                    None => (404, status::body(404, None)),
                })
            }
            _ => None,
        }
    }
}
