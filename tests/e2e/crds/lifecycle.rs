//! Rules about changes: what is fixed from when on. The admin plays the controller by writing the status.

use gemini_operator::api::GeminiBatch;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Applicant, essence, good_batch};
use crate::support::cluster::from_json;

/// A stored batch.
struct Stored {
    api: Api<GeminiBatch>,
}

impl Stored {
    async fn new() -> Self {
        let Applicant { client, namespace, .. } = Applicant::batch().await;
        let api: Api<GeminiBatch> = Api::namespaced(client, &namespace);
        api.create(&PostParams::default(), &from_json(good_batch()))
            .await
            .expect("the good batch is accepted");
        Self { api }
    }

    async fn status(&self, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        self.api.patch_status("good", &PatchParams::default(), &patch).await.expect("the status is accepted");
    }

    /// What the API server says to a change of the spec; nothing if it accepts.
    async fn change(&self, spec: Value) -> Option<String> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        match self.api.patch("good", &PatchParams::default(), &patch).await {
            Ok(_) => None,
            Err(kube::Error::Api(status)) => Some(essence(&status.message).to_owned()),
            Err(error) => panic!("the API server did not answer: {error}"),
        }
    }
}

/// A change of each field that is fixed from submission on, and the words of the refusal.
fn fixed_at_submission() -> [(Value, &'static str); 3] {
    [
        (
            json!({"model": "gemini-3.5-pro"}),
            "<nil>: Invalid value: spec.model cannot change once the job was submitted; \
             create a new GeminiBatch instead",
        ),
        (
            json!({"input": {"inline": {"requests": [{"key": "a", "prompt": "Good bye"}]}}}),
            "<nil>: Invalid value: spec.input cannot change once the job was submitted; \
             create a new GeminiBatch instead",
        ),
        (
            json!({"webhook": {"mode": "None"}}),
            "<nil>: Invalid value: spec.webhook cannot change once the job was submitted; \
             create a new GeminiBatch instead",
        ),
    ]
}

#[tokio::test]
async fn before_submission_everything_may_change() {
    let batch = Stored::new().await;
    batch.status(json!({"phase": "Queued"})).await;
    for (change, _) in fixed_at_submission() {
        assert_eq!(batch.change(change.clone()).await, None, "{change}");
    }
}

#[tokio::test]
async fn from_submission_on_what_was_paid_for_is_fixed() {
    let batch = Stored::new().await;
    batch.status(json!({"startTime": "2026-11-23T10:00:00Z"})).await;
    for (change, refusal) in fixed_at_submission() {
        assert_eq!(batch.change(change.clone()).await.as_deref(), Some(refusal), "{change}");
    }
    for change in [
        json!({"apiKeySecretRef": {"name": "rotated"}}),
        json!({"suspend": true}),
        json!({"successPolicy": {"maxFailedPercent": 50}}),
        json!({"deletionPolicy": "Orphan", "deletionTimeout": "1m"}),
        json!({"output": {"sink": {"configMap": {"name": "elsewhere"}}}}),
        json!({"cancelled": true}),
    ] {
        assert_eq!(batch.change(change.clone()).await, None, "{change}");
    }
}

#[tokio::test]
async fn from_delivery_on_the_sink_is_fixed() {
    let batch = Stored::new().await;
    batch
        .status(json!({
            "startTime": "2026-11-23T10:00:00Z",
            "output": {"resultsURI": "a", "manifestURI": "b", "sha256": "c", "lines": 1, "bytes": 1},
        }))
        .await;
    let change = json!({"output": {"sink": {"configMap": {"name": "elsewhere"}}}});
    let refusal =
        "<nil>: Invalid value: spec.output cannot change once the results were delivered; copy them instead";
    assert_eq!(batch.change(change).await.as_deref(), Some(refusal));
}

#[tokio::test]
async fn cancelled_is_one_way() {
    let batch = Stored::new().await;
    assert_eq!(batch.change(json!({"cancelled": true})).await, None);
    let refusal = "spec.cancelled: Invalid value: false: spec.cancelled cannot be set back to false; \
                   create a new GeminiBatch instead";
    for back in [json!(false), Value::Null] {
        assert_eq!(batch.change(json!({"cancelled": back})).await.as_deref(), Some(refusal), "{back}");
    }
}

#[tokio::test]
async fn suspend_goes_both_ways() {
    let batch = Stored::new().await;
    assert_eq!(batch.change(json!({"suspend": true})).await, None);
    assert_eq!(batch.change(json!({"suspend": false})).await, None);
}

/// The status is a subresource: who may write the one may not write the other on the way.
#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let batch = Stored::new().await;
    let both = json!({"spec": {"suspend": true}, "status": {"phase": "Failed"}});
    let params = PatchParams::default();
    let seen = batch.api.patch("good", &params, &Patch::Merge(&both)).await.expect("accepted");
    assert!(seen.spec.suspend && seen.status.is_none_or(|status| status.phase.is_none()));

    let back = json!({"spec": {"suspend": false}, "status": {"phase": "Queued"}});
    let seen = batch.api.patch_status("good", &params, &Patch::Merge(&back)).await.expect("accepted");
    assert!(seen.spec.suspend && seen.status.is_some_and(|status| status.phase.is_some()));
}
