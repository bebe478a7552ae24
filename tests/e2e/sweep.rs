//! Looking after jobs: what others have in the project, what stands between, and what cannot be read holds nothing up.

use gemini_operator_checker::Bounds;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::objects::tickets;
use crate::support::{Bed, BedOptions, OPERATOR_NAMESPACE, PATIENCE, batch_condition, poll};

async fn bed_with(name: &str, options: BedOptions) -> Bed {
    let bed = Bed::with(name, options).await;
    bed.make_api_key().await;
    bed
}

/// Every job stays RUNNING.
fn held() -> Value {
    json!({"jobs": [{"do": {"hold": "running"}}]})
}

/// Names of the calls so far, in order.
async fn calls(bed: &Bed) -> Vec<String> {
    bed.ledger().await.sequence().into_iter().map(|(name, _)| name).collect()
}

fn count(calls: &[String], name: &str) -> usize {
    calls.iter().filter(|call| *call == name).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_does_not_wait_for_the_sweep() {
    // A sweep every 30 s of a batch that a webhook tracks.
    let options = BedOptions { timing_divisor: 20, faults: Some(held()), ..BedOptions::default() };
    let bed = bed_with("cancel", options).await;
    bed.make_webhook().await;
    bed.apply(&tickets("tickets", 3, "Auto")).await;
    bed.wait_condition("tickets", "WebhookTracked", "True", "Static").await;
    let before = poll(PATIENCE, async || {
        let calls = calls(&bed).await;
        if count(&calls, "batches.list") > 0 { Ok(calls.len()) } else { Err(()) }
    })
    .await
    .expect("a sweep passes, so that the next one is far");

    let cancel = r#"{"spec":{"cancelled":true}}"#;
    bed.kubectl().run(&["patch", "geminibatch", "tickets", "--type=merge", "-p", cancel]).await.expect();
    let since = poll(PATIENCE, async || {
        let since = calls(&bed).await.split_off(before);
        if count(&since, "batches.cancel") > 0 { Ok(since) } else { Err(()) }
    })
    .await
    .expect("the job is cancelled");
    let first = since.iter().position(|call| call == "batches.cancel").unwrap();
    assert_eq!(count(&since[..first], "batches.list"), 0, "not by the sweep: {since:?}");
    bed.wait_condition("tickets", "Failed", "True", "Cancelled").await;
    assert_eq!(bed.ledger().await.calls("batches.cancel"), 1);
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_in_the_project_holds_no_batch() {
    let unreadable = json!({"rules": [
        {"match": {"call": "batches.list"}, "do": {"set": {"/operations/-": {"name": "operations/of-somebody-else"}}}},
    ]});
    let bed = bed_with("unreadable", BedOptions { faults: Some(unreadable), ..BedOptions::default() }).await;
    bed.apply(&tickets("by-listing", 3, "None")).await;
    bed.wait_complete("by-listing").await;
    let listed = bed.ledger().await.calls("batches.list");
    assert!(listed > 0, "a sweep has found its end");

    // No listing at all: each batch looks at its own job.
    let broken = json!({"rules": [{"match": {"call": "batches.list"}, "do": {"status": 503}}]});
    bed.emulator.set_faults(&broken).await;
    bed.apply(&tickets("by-itself", 3, "None")).await;
    bed.wait_complete("by-itself").await;
    assert!(bed.ledger().await.calls("batches.list") > listed, "a sweep was tried");
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_shows_that_a_job_runs() {
    let options = BedOptions { job_time: "30s".into(), faults: Some(held()), ..BedOptions::default() };
    let bed = bed_with("running", options).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_batch("tickets", "shown as running", |batch| {
        batch
            .status
            .as_ref()
            .and_then(|s| s.runs.last())
            .is_some_and(|r| r.state.as_deref() == Some("RUNNING"))
    })
    .await;
    assert_eq!(bed.ledger().await.calls("batches.get"), 1, "the listing said so, no further GET");
    bed.assert_holds(&Bounds { unfinished: vec!["tickets".into()], ..bed.bounds() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_that_nothing_bears_out_ends_no_batch() {
    let plan = json!({"rules": [
        {"match": {"call": "batches.get"}, "do": {"status": 404, "form": "html"}, "times": 1},
        {"match": {"call": "batches.get"}, "do": {"status": 404}, "times": 1},
        {"match": {"call": "models.get"}, "do": {"status": 404, "form": "html"}, "times": 1},
    ]});
    let bed = bed_with("not-found", BedOptions { faults: Some(plan), ..BedOptions::default() }).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_complete("tickets").await;
    let ledger = bed.ledger().await;
    assert_eq!((ledger.calls("batches.create"), ledger.rows_paid()), (1, 3));
    assert!(ledger.calls("batches.get") >= 3, "all faults were met: {:?}", ledger.sequence());
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_gone_is_told_so() {
    let options = BedOptions { timing_divisor: 300, faults: Some(held()), ..BedOptions::default() };
    let bed = bed_with("gone", options).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    let batch = bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    let remote = batch.status.unwrap().runs.remove(0).remote_name.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1beta/{remote}", bed.emulator.url);
    let deleted = client.delete(url).header("x-goog-api-key", &bed.options.api_key).send().await.unwrap();
    assert!(deleted.status().is_success(), "{}", deleted.status());
    let batch = bed.wait_condition("tickets", "Failed", "True", "RemoteGone").await;
    assert!(batch_condition(&batch, "Failed").unwrap().message.contains(&remote));
    assert_eq!(bed.ledger().await.calls("batches.create"), 1, "nothing is submitted again");
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_whole_and_active_file_is_paid_for() {
    let other = data_encoding::BASE64.encode("ab".repeat(32).as_bytes());
    let plan = json!({"rules": [
        {"match": {"call": "files.upload_chunk"}, "do": {"set": {"/file/sha256Hash": other}}, "times": 1},
        {"match": {"call": "files.upload_chunk"}, "do": {"set": {"/file/sizeBytes": "7"}}, "times": 1},
        {"match": {"call": "files.upload_chunk"}, "do": {"set": {"/file/state": "PROCESSING"}}, "times": 1},
        {"match": {"call": "files.get"}, "do": {"set": {"/state": "PROCESSING"}}, "times": 2},
    ]});
    let bed = bed_with("staging", BedOptions { faults: Some(plan), ..BedOptions::default() }).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_complete("tickets").await;
    let calls = calls(&bed).await;
    let create = calls.iter().position(|call| call == "batches.create").unwrap();
    let before = &calls[..create];
    assert_eq!(count(before, "files.upload_start"), 3, "damaged twice: {before:?}");
    assert_eq!(count(before, "files.delete"), 2, "what is damaged is removed: {before:?}");
    assert_eq!(count(before, "files.get"), 3, "processing twice, then active: {before:?}");
    assert_eq!(count(&calls, "batches.create"), 1);
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_of_all_watched_namespaces_survive_a_restart() {
    let options = BedOptions { operator: false, faults: Some(held()), ..BedOptions::default() };
    let mut bed = Bed::with("first", options).await;
    let first = bed.namespace.clone();
    let second = bed.cluster.make_namespace(&bed.client, "second").await;
    bed.options.also_watch = vec![second.clone()];
    bed.start_receiver().await;
    bed.start_controller().await;
    for namespace in [&first, &second] {
        bed.room.namespace.clone_from(namespace);
        bed.make_api_key().await;
        bed.make_webhook().await;
    }

    bed.room.namespace.clone_from(&first);
    bed.kill_controller();
    bed.start_controller().await;
    for namespace in [&first, &second] {
        bed.room.namespace.clone_from(namespace);
        bed.apply(&tickets("tickets", 2, "Auto")).await;
    }
    // The jobs run on, so no delivery shows a webhook to the watch anew.
    for namespace in [&first, &second] {
        bed.room.namespace.clone_from(namespace);
        let batch = bed.wait_condition("tickets", "WebhookTracked", "True", "Static").await;
        let message = &batch_condition(&batch, "WebhookTracked").unwrap().message;
        assert!(message.contains(&format!("{namespace}/main")), "{message}");
    }
}

/// A time that the API server takes for one, and nobody else.
const NO_TIME: &str = "2026-11-23T10:00:00+99:99";

/// Waits for an Event with this reason whose text contains `words`.
async fn wait_event(bed: &Bed, name: &str, reason: &str, words: &str) {
    let told = poll(PATIENCE, async || {
        let events = bed.events(name).await;
        let told = events.iter().any(|(_, other, note)| other == reason && note.contains(words));
        if told { Ok(()) } else { Err(events) }
    });
    if let Err(events) = told.await {
        panic!("no Event {reason} about {name} says {words:?}: {events:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_cannot_be_read_go_when_they_are_deleted() {
    let plan = json!({"jobs": [{"match": {"nth": [1]}, "do": {"hold": "running"}}]});
    let options = BedOptions { timing_divisor: 300, faults: Some(plan), ..BedOptions::default() };
    let bed = bed_with("malformed", options).await;
    let webhook = bed.make_webhook().await;
    bed.apply(&tickets("broken", 2, "None")).await;
    bed.wait_condition("broken", "Submitted", "True", "Submitted").await;

    for (object, field) in
        [("geminibatch/broken", "completionTime"), ("geminiwebhook/main", "registeredTime")]
    {
        let status = json!({"status": {(field): NO_TIME}}).to_string();
        let patch = ["patch", object, "--subresource=status", "--type=merge", "-p", &status];
        bed.kubectl().run(&patch).await.expect();
    }
    wait_event(&bed, "broken", "Malformed", "cannot be read").await;
    wait_event(&bed, "main", "Malformed", "cannot be read").await;
    bed.apply(&tickets("good", 2, "None")).await;
    bed.wait_complete("good").await;

    bed.kubectl().run(&["delete", "geminibatch/broken", "geminiwebhook/main", "--wait=false"]).await.expect();
    bed.wait_gone(bed.batches(), "broken").await;
    bed.wait_gone(bed.webhooks(), "main").await;
    wait_event(&bed, "broken", "DeletionTimeout", "displayName gb1.").await;
    wait_event(&bed, "main", "DeletionTimeout", "gw-").await;
    let keyring: Api<Secret> = Api::namespaced(bed.client.clone(), OPERATOR_NAMESPACE);
    let keyring = keyring.get(gemini_operator::api::keyring::KEYRING_SECRET).await.unwrap();
    assert!(!keyring.data.unwrap_or_default().contains_key(&webhook.uid().unwrap()), "its secret is gone");
    // What it left is named by its Event: nobody can read what it was.
    bed.assert_holds(&Bounds { forgotten: vec!["broken".into()], ..bed.bounds() }).await;
}
