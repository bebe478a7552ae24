//! Holding a batch back, and calling it off.

use serde_json::json;

use crate::objects::tickets;
use crate::support::{Bed, BedOptions, batch_condition};

async fn set(bed: &Bed, name: &str, spec: serde_json::Value) {
    let patch = json!({ "spec": spec }).to_string();
    bed.kubectl().run(&["patch", "geminibatch", name, "--type=merge", "-p", &patch]).await.expect();
}

fn suspended(name: &str) -> String {
    let mut batch: serde_json::Value = serde_json::from_str(&tickets(name, 3, "None")).unwrap();
    batch["spec"]["suspend"] = json!(true);
    batch.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_batch_is_cancelled_once_and_delivers_what_was_answered() {
    let bed = Bed::with("cancel", BedOptions { job_time: "600s".into(), ..BedOptions::default() }).await;
    bed.make_api_key().await;
    bed.apply(&tickets("tickets", 10, "None")).await;
    bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    // Pending for a minute; then half of the nine minutes in which it answers its ten rows one by one.
    bed.emulator.advance_clock(60 + 275).await;
    set(&bed, "tickets", json!({"cancelled": true})).await;
    let batch = bed.wait_condition("tickets", "Failed", "True", "Cancelled").await;

    let status = batch.status.as_ref().unwrap();
    assert_eq!(format!("{:?}", status.phase), "Some(Cancelled)");
    assert_eq!(batch_condition(&batch, "ResultsDelivered").unwrap().reason, "Delivered");
    let rows = status.rows.as_ref().unwrap();
    let by_class: Vec<_> = rows.by_class.iter().map(|(class, count)| (class.as_str(), *count)).collect();
    assert_eq!(by_class, [("OK", 5), ("Transient", 5)]);
    let results = bed.results("tickets").await;
    assert_eq!((results.answers.lines().count(), results.errors.lines().count()), (5, 5));

    let back = ["patch", "geminibatch", "tickets", "--type=merge", "-p", r#"{"spec":{"cancelled":false}}"#];
    let refusal = bed.kubectl().run(&back).await.expect_refused();
    assert!(refusal.contains("spec.cancelled cannot be set back"), "{refusal}");
    let ledger = bed.ledger().await;
    assert_eq!((ledger.calls("batches.create"), ledger.calls("batches.cancel")), (1, 1));
    assert_eq!(ledger.rows_paid(), 5);
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_did_not_run_yet_is_cancelled_for_nothing() {
    let faults = json!({"jobs": [{"do": {"hold": "pending"}}]});
    let bed = Bed::with("cancel-early", BedOptions { faults: Some(faults), ..BedOptions::default() }).await;
    bed.make_api_key().await;
    bed.apply(&suspended("held")).await;
    bed.wait_condition("held", "Admitted", "False", "Suspended").await;
    set(&bed, "held", json!({"cancelled": true})).await;
    bed.wait_condition("held", "Failed", "True", "Cancelled").await;
    assert_eq!(bed.ledger().await.sequence(), [], "Gemini never heard of it");

    bed.apply(&tickets("pending", 3, "None")).await;
    bed.wait_condition("pending", "Submitted", "True", "Submitted").await;
    set(&bed, "pending", json!({"cancelled": true})).await;
    bed.wait_condition("pending", "Failed", "True", "Cancelled").await;
    let ledger = bed.ledger().await;
    assert_eq!((ledger.calls("batches.cancel"), ledger.rows_paid()), (1, 0));
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_batch_does_nothing_until_it_is_resumed() {
    let bed = Bed::new("suspend").await;
    bed.make_api_key().await;
    bed.apply(&suspended("tickets")).await;
    let batch = bed.wait_condition("tickets", "Suspended", "True", "SuspendedByUser").await;
    assert_eq!(format!("{:?}", batch.status.unwrap().phase), "Some(Suspended)");
    assert_eq!(batch.metadata.finalizers, None, "there is nothing to clean up");
    // Another batch goes all the way meanwhile.
    bed.apply(&tickets("other", 1, "None")).await;
    bed.wait_complete("other").await;
    assert_eq!(bed.ledger().await.jobs().len(), 1);

    set(&bed, "tickets", json!({"suspend": false})).await;
    let batch = bed.wait_complete("tickets").await;
    assert_eq!(batch_condition(&batch, "Suspended").unwrap().reason, "Resumed");
    assert_eq!(bed.ledger().await.jobs().len(), 2);
    bed.assert_invariants().await;
}
