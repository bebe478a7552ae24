//! The custom resources on a real API server: what it accepts, what it refuses and in which words, and what
//! a person sees.

mod batch;
mod lifecycle;
mod user;
mod webhook;

use std::fmt::Write;

use axum::http::Request;
use kube::Client;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::support::cluster::cluster;

/// Creates objects the way `kubectl create --dry-run=server --validate=strict` does.
pub struct Applicant {
    pub client: Client,
    pub namespace: String,
    plural: &'static str,
    good: Value,
}

impl Applicant {
    pub async fn batch() -> Self {
        Self::new("geminibatches", good_batch()).await
    }

    pub async fn webhook() -> Self {
        Self::new("geminiwebhooks", good_webhook()).await
    }

    async fn new(plural: &'static str, good: Value) -> Self {
        let cluster = cluster().await;
        let client = cluster.admin().await;
        let namespace = cluster.make_namespace(&client, "crds").await;
        Self { client, namespace, plural, good }
    }

    /// The good object with a merge patch (RFC 7386) on top.
    fn changed(&self, change: &Value) -> Value {
        let mut object = self.good.clone();
        merge(&mut object, change);
        object
    }

    async fn create(&self, change: &Value) -> Result<DynamicObject, String> {
        let path = format!("/apis/gemini-operator.io/v1alpha1/namespaces/{}/{}", self.namespace, self.plural);
        let body = serde_json::to_vec(&self.changed(change)).expect("JSON can be written");
        let request = Request::post(format!("{path}?dryRun=All&fieldValidation=Strict"))
            .header("content-type", "application/json")
            .body(body)
            .expect("the request is well formed");
        match self.client.request(request).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err(status.message),
            Err(error) => panic!("the API server did not answer: {error}"),
        }
    }

    /// The object with this change is accepted; returned as the API server would store it.
    pub async fn accepts(&self, what: &str, change: Value) -> Value {
        match self.create(&change).await {
            Ok(object) => serde_json::to_value(object).expect("an object is JSON"),
            Err(message) => panic!("{what} was refused: {message}"),
        }
    }

    /// Every change is refused with exactly its message. All differences are shown at once.
    pub async fn refuses(&self, cases: Vec<(&str, Value, &str)>) {
        let mut wrong = String::new();
        for (what, change, expected) in cases {
            let message = match self.create(&change).await {
                Ok(_) => "(accepted)".to_owned(),
                Err(message) => message,
            };
            let said = essence(&message);
            if said != expected {
                let _ = writeln!(wrong, "{what}\n  expected: {expected}\n  said:     {said}");
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}

/// The message without what the API server says in all cases: which object it is, and that an object which
/// does not fit its schema was not looked at any further.
fn essence(message: &str) -> &str {
    const NOT_CHECKED: &str = ", <nil>: Invalid value: null: some validation rules were not checked because the \
                               object was invalid; correct the existing errors to complete validation]";
    let said = message.split_once(" is invalid: ").map_or(message, |(_, said)| said);
    match said.strip_suffix(NOT_CHECKED) {
        Some(said) => said.strip_prefix('[').unwrap_or(said),
        None => said.split_once("strict decoding error: ").map_or(said, |(_, said)| said),
    }
}

/// A complete, small batch.
pub fn good_batch() -> Value {
    json!({
        "apiVersion": "gemini-operator.io/v1alpha1",
        "kind": "GeminiBatch",
        "metadata": {"name": "good"},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"},
            "model": "gemini-3.5-flash",
            "input": {"inline": {"requests": [{"key": "a", "prompt": "Hello"}]}},
        },
    })
}

/// A complete, small webhook.
pub fn good_webhook() -> Value {
    json!({
        "apiVersion": "gemini-operator.io/v1alpha1",
        "kind": "GeminiWebhook",
        "metadata": {"name": "good"},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"},
            "endpoint": {"url": "https://hooks.example.com"},
        },
    })
}

fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in change {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[test]
fn a_merge_replaces_adds_and_removes() {
    let mut object = json!({"a": {"b": 1, "c": 2}, "d": [1]});
    merge(&mut object, &json!({"a": {"b": null, "e": {"f": 3}}, "d": [2]}));
    assert_eq!(object, json!({"a": {"c": 2, "e": {"f": 3}}, "d": [2]}));
}
