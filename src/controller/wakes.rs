//! Wakes that no event of the API server is the cause of: something that many objects go by has become worse.

use std::collections::HashSet;

use futures::{Stream, StreamExt, stream};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;

use super::unreadable::Guarded;
use crate::api::condition::{is_true, webhook_type};
use crate::api::{GeminiBatch, GeminiWebhook};

/// The objects of `store` that `concerns` is true of, with each item of `calls`.
pub fn woken<K>(
    calls: impl Stream<Item = ()> + Send,
    store: Store<Guarded<K>>,
    concerns: impl Fn(&K) -> bool + Send,
) -> impl Stream<Item = watcher::Result<ObjectRef<Guarded<K>>>> + Send
where
    Guarded<K>: kube::Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    calls.flat_map(move |()| {
        let all = store.state().into_iter();
        let concerned = all.filter(|object| object.0.as_ref().is_ok_and(&concerns));
        stream::iter(concerned.map(|object| Ok(ObjectRef::from_obj(&*object))).collect::<Vec<_>>())
    })
}

/// Whether a sweep is waited for.
pub fn is_open(batch: &GeminiBatch) -> bool {
    !batch.is_finished() && batch.status.as_ref().is_some_and(|status| !status.runs.is_empty())
}

/// Whether a webhook that was ready is not any more; `ready` are the uids of those that were.
pub fn has_fallen(ready: &mut HashSet<String>, webhook: &GeminiWebhook) -> bool {
    let uid = webhook.metadata.uid.clone().unwrap_or_default();
    let conditions = webhook.status.as_ref().map_or(&[][..], |status| &status.conditions);
    if webhook.metadata.deletion_timestamp.is_none() && is_true(conditions, webhook_type::READY) {
        ready.insert(uid);
        return false;
    }
    ready.remove(&uid)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::runtime::reflector;
    use serde_json::{Value, json};

    use super::*;

    fn batch(name: &str, status: &Value) -> GeminiBatch {
        let run = json!({"name": "run-1", "attempt": 1, "submission": "Recorded", "nonce": "n", "holder": "h",
            "marker": "m", "inputFile": "files/a", "keyFingerprint": "fp", "intentTime": "2026-01-01T00:00:00Z", "rows": 1});
        let status = match status {
            Value::Null => Value::Null,
            status => json!({"runs": [run], "conditions": status}),
        };
        let spec = json!({"apiKeySecretRef": {"name": "gemini"}, "model": "m", "input": {"inline": {"jsonl": "{}"}}});
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    fn condition(type_: &str, status: &str) -> Value {
        json!({"type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[tokio::test]
    async fn a_call_wakes_all_batches_that_wait_for_a_sweep() {
        let (store, mut writer) = reflector::store();
        for (name, status) in [
            ("new", Value::Null),
            ("waiting", json!([])),
            ("also-waiting", json!([condition("WebhookTracked", "True")])),
            ("complete", json!([condition("Complete", "True")])),
        ] {
            writer.apply_watcher_event(&watcher::Event::Apply(Guarded(Ok(batch(name, &status)))));
        }
        let calls = woken(stream::iter([(), ()]), store, is_open);
        let mut names: Vec<String> = calls.map(|object| object.unwrap().name).collect().await;
        names.sort();
        assert_eq!(names, ["also-waiting", "also-waiting", "waiting", "waiting"]);
    }

    #[test]
    fn a_webhook_falls_once() {
        let webhook = |ready: &str, deleted: bool| {
            let mut webhook: GeminiWebhook = serde_json::from_value(json!({
                "metadata": {"name": "main", "uid": "1"},
                "spec": {"apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": "https://hooks.test"}},
                "status": {"conditions": [condition("Ready", ready)]},
            }))
            .unwrap();
            webhook.metadata.deletion_timestamp = deleted.then_some(Time(Timestamp::UNIX_EPOCH));
            webhook
        };
        let mut ready = HashSet::new();
        for (state, deleted, expected) in [
            ("False", false, false),
            ("True", false, false),
            ("True", false, false),
            ("False", false, true),
            ("False", false, false),
            ("True", false, false),
            ("True", true, true),
            ("True", true, false),
        ] {
            assert_eq!(has_fallen(&mut ready, &webhook(state, deleted)), expected, "{state} {deleted}");
        }
    }
}
