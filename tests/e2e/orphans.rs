//! What a deletion had to leave at Gemini is written down, looked for, and removed when the API key is there again.

use std::collections::BTreeMap;

use gemini_operator::api::GeminiBatch;
use gemini_operator_checker::Bounds;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};

use crate::objects::{jsonl, line, tickets};
use crate::support::{Bed, BedOptions, OPERATOR_NAMESPACE, PATIENCE, poll};

const LEDGER: &str = "gemini-operator-orphans";
/// Only the entries of the bed's own namespace: the ledger is that of all beds.
const GAUGE: &str = "gemini_operator_orphans";

async fn bed(name: &str, faults: Value) -> Bed {
    let options = BedOptions { timing_divisor: 300, faults: Some(faults), ..BedOptions::default() };
    let bed = Bed::with(name, options).await;
    bed.make_api_key().await;
    bed
}

/// Entries about objects of the bed's namespace, by the object's name.
async fn entries(bed: &Bed) -> BTreeMap<String, Value> {
    let api: Api<ConfigMap> = Api::namespaced(bed.client.clone(), OPERATOR_NAMESPACE);
    let data = api.get_opt(LEDGER).await.unwrap().and_then(|map| map.data).unwrap_or_default();
    let all = data.into_iter().map(|(key, text)| (key, serde_json::from_str::<Value>(&text).unwrap()));
    let ours = all.filter(|(_, entry)| entry["namespace"] == bed.namespace.as_str());
    ours.map(|(key, entry)| {
        assert_eq!(entry["submitKey"], key.as_str());
        (entry["name"].as_str().unwrap().to_owned(), entry)
    })
    .collect()
}

/// Deletes a batch whose API key nobody has any more: the Secret is gone, and the process that knew it.
async fn delete_without_key(bed: &mut Bed, name: &str) {
    bed.kubectl().run(&["delete", "secret", "gemini"]).await.expect();
    bed.kill_controller();
    bed.start_controller().await;
    bed.kubectl().run(&["delete", "geminibatch", name, "--wait=false"]).await.expect();
    bed.wait_gone(bed.batches(), name).await;
}

async fn wait_state(bed: &Bed, jobs: u64, files: u64) {
    let seen = poll(PATIENCE, async || {
        let state = bed.emulator.state().await;
        if (state["jobs"].as_u64(), state["files"].as_u64()) == (Some(jobs), Some(files)) {
            Ok(())
        } else {
            Err(state)
        }
    });
    seen.await
        .unwrap_or_else(|state| panic!("not {jobs} jobs and {files} files: {state}\n{}", bed.log_tails()));
}

async fn wait_settled(bed: &Bed) {
    let seen = poll(PATIENCE, async || {
        let (entries, gauge) = (entries(bed).await, bed.metric(GAUGE).await);
        if entries.is_empty() && gauge == Some(0.0) { Ok(()) } else { Err((entries, gauge)) }
    });
    seen.await.unwrap_or_else(|left| panic!("the ledger still has {left:?}\n{}", bed.log_tails()));
}

async fn wait_gauge(bed: &Bed, expected: f64) {
    let seen = poll(PATIENCE, async || match bed.metric(GAUGE).await {
        Some(value) if (value - expected).abs() < 0.5 => Ok(()),
        other => Err(other),
    });
    seen.await.unwrap_or_else(|value| panic!("{GAUGE} is {value:?}, not {expected}\n{}", bed.log_tails()));
}

fn remote_name(batch: &GeminiBatch) -> String {
    batch.status.as_ref().and_then(|s| s.runs.last()?.remote_name.clone()).expect("its job is recorded")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_left_is_removed_when_the_key_is_back() {
    let mut bed = bed("orphans", json!({"jobs": [{"do": {"hold": "running"}}]})).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    let batch = bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    let job = remote_name(&batch);
    delete_without_key(&mut bed, "tickets").await;

    // Written before the finalizer goes, so it is there as soon as the object is not.
    let entry = entries(&bed).await.remove("tickets").expect("the ledger has an entry");
    let uid = batch.metadata.uid.as_deref().unwrap();
    assert_eq!((&entry["remoteName"], &entry["uid"]), (&json!(job), &json!(uid)));
    assert_eq!(entry["apiKeySecretRef"], json!({"name": "gemini", "key": "apiKey"}));
    assert!(!entry.to_string().contains(&bed.emulator.api_key), "the key itself is nowhere");
    let note = bed.wait_event("tickets", "DeletionTimeout").await;
    assert!(note.contains(&job) && note.contains("72 h") && note.contains(LEDGER), "{note}");

    // A process that knows of it by the ledger alone.
    bed.kill_controller();
    bed.start_controller().await;
    wait_gauge(&bed, 1.0).await;
    wait_state(&bed, 1, 1).await;

    bed.make_api_key().await;
    wait_state(&bed, 0, 0).await;
    let ledger = bed.ledger().await;
    assert!(ledger.calls_about("batches.cancel", &job) >= 1, "{:?}", ledger.sequence());
    assert_eq!(ledger.calls_about("batches.delete", &job), 1, "{:?}", ledger.sequence());
    wait_settled(&bed).await;
    assert_eq!(bed.metric("gemini_operator_orphans_given_up_total").await, Some(0.0));
    bed.assert_invariants().await;
}

/// The request never arrived. What is left is the file with which it could arrive yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_that_was_left_loses_its_file() {
    let faults = json!({"rules": [{"match": {"call": "batches.create"}, "do": {"hold": "request"}}]});
    let mut bed = bed("orphan-doubt", faults).await;
    // Even where jobs and files are left to expire.
    let mut batch = jsonl("doubtful", &format!("{}\n", line("a")));
    batch["spec"]["deletionPolicy"] = json!("Cancel");
    bed.apply(&batch.to_string()).await;
    bed.emulator.wait_held(1).await;
    delete_without_key(&mut bed, "doubtful").await;
    let entry = entries(&bed).await.remove("doubtful").expect("the ledger has an entry");
    assert_eq!((&entry["inDoubt"], &entry["remoteName"]), (&json!(true), &Value::Null));
    wait_state(&bed, 0, 1).await;

    bed.make_api_key().await;
    wait_state(&bed, 0, 0).await;
    // It arrives after all, and finds nothing.
    bed.emulator.release_calls().await;
    bed.emulator.wait_held(0).await;
    wait_settled(&bed).await;
    assert_eq!(bed.ledger().await.jobs().len(), 0);
    bed.assert_invariants().await;
}

/// The same object comes back from a backup: the job is its own again, and nobody's orphan.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_object_takes_its_job_over() {
    let mut bed = bed("orphan-restored", json!({"jobs": [{"do": {"hold": "running"}}]})).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    let mut backup = bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    delete_without_key(&mut bed, "tickets").await;
    assert_eq!(entries(&bed).await.len(), 1);
    backup.metadata = ObjectMeta {
        name: backup.metadata.name,
        annotations: backup.metadata.annotations,
        ..ObjectMeta::default()
    };
    backup.status = None;
    bed.batches().create(&PostParams::default(), &backup).await.expect("it can be made again");
    wait_settled(&bed).await;

    bed.make_api_key().await;
    bed.wait_condition("tickets", "Submitted", "True", "Adopted").await;
    bed.emulator.release_jobs().await;
    bed.wait_complete("tickets").await;
    let ledger = bed.ledger().await;
    assert_eq!((ledger.jobs().len(), ledger.calls("batches.cancel")), (1, 0), "{:?}", ledger.sequence());
    bed.assert_invariants().await;
}

/// Nobody can write it down: the object waits a little longer, goes all the same, and its Event says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_cannot_be_written_holds_nothing_for_long() {
    let mut bed = bed("orphan-refused", json!({"jobs": [{"do": {"hold": "running"}}]})).await;
    bed.apply(&tickets("tickets", 2, "None")).await;
    bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    let name = format!("no-orphans-of-{}", bed.namespace);
    refuse_entries_of(&bed, &name).await;
    delete_without_key(&mut bed, "tickets").await;
    bed.kubectl()
        .run(&["delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", &name])
        .await
        .expect();
    let note = bed.wait_event("tickets", "DeletionTimeout").await;
    assert!(
        note.contains("delete it there") && note.contains("not looked for") && note.contains(&name),
        "{note}"
    );
    assert!(bed.logs().contains("deletion waits until it is written down"), "it was tried before");
    assert_eq!(entries(&bed).await, BTreeMap::new());
    bed.assert_holds(&Bounds { forgotten: vec!["tickets".into()], ..bed.bounds() }).await;
}

/// A policy that refuses entries of the bed's namespace, and nobody else's; returns when it does.
async fn refuse_entries_of(bed: &Bed, name: &str) {
    let words = format!("\"namespace\":\"{}\"", bed.namespace);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["configmaps"],
            }]},
            "validations": [{
                "expression": format!("!has(object.data) || !object.data.exists(k, object.data[k].contains('{words}'))"),
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": OPERATOR_NAMESPACE},
        }}},
    });
    bed.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]}).to_string()).await;
    let probe = serde_json::from_value(json!({"metadata": {"name": "probe"}, "data": {"k": words}})).unwrap();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let api: Api<ConfigMap> = Api::namespaced(bed.client.clone(), OPERATOR_NAMESPACE);
    let refused = poll(PATIENCE, async || match api.create(&params, &probe).await {
        Err(kube::Error::Api(status)) if status.message.contains(name) => Ok(()),
        other => Err(other),
    });
    refused.await.expect("the policy is in force");
}
