//! Pods deleted at the worst moment: one paid job all the same.

use std::time::Duration;

use serde_json::json;

use crate::objects::tickets;
use crate::stay::{Stay, wait_for_processes};
use crate::support::{batch_condition, poll};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn receiver_pods_deleted_before_the_event() {
    // The job ends when the test says so.
    let stay = Stay::new("receiver-gone", &json!({"jobs": [{"do": {"hold": "running"}}]})).await;
    stay.make_webhook().await;
    stay.apply(&tickets("tickets", 3, "Auto")).await;
    stay.wait_condition("tickets", "Submitted", "True", "Submitted").await;

    // All of them, without a word of warning: the event finds new ones, or nobody and comes again.
    stay.delete_pods("receiver", &["--force", "--grace-period=0"]).await;
    assert!(stay.ledger().await.deliveries("batch.succeeded").is_empty(), "deleted before the event");
    stay.emulator.release_jobs().await;

    stay.wait_complete_by_event("tickets").await;
    assert_eq!(stay.ledger().await.jobs().len(), 1);
    stay.delete_and_expect_nothing_left().await;
}

/// The job is made, its answer is on the way, and the pod that waits for it is deleted.
async fn controller_pod_deleted_after_the_post(name: &str, how: &[&str]) {
    let slow = json!({"match": {"call": "batches.create"}, "do": {"answer_delay_ms": 60_000}, "times": 1});
    let stay = Stay::new(name, &json!({"rules": [slow]})).await;
    let old = wait_for_processes("controller", 1).await;
    stay.apply(&tickets("tickets", 3, "None")).await;
    stay.wait_for_the_job().await;
    stay.delete_pods("controller", how).await;
    // Long before the answer, and before the time in which it gives up a POST itself.
    let gone = poll(Duration::from_secs(20), async || if old[0].exists() { Err(()) } else { Ok(()) }).await;
    assert!(gone.is_ok(), "its process goes on\n{}", stay.log_tails());

    let batch = stay.wait_complete("tickets").await;
    assert_eq!(batch_condition(&batch, "Submitted").unwrap().reason, "Adopted");
    let ledger = stay.ledger().await;
    assert_eq!((ledger.jobs().len(), ledger.rows_paid()), (1, 3));
    assert_eq!(ledger.calls("batches.create"), 0, "its answer reached nobody, and nobody asked again");
    stay.delete_and_expect_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn controller_pod_killed_after_the_post() {
    // SIGTERM, and a second later SIGKILL; the new pod meets the old one.
    controller_pod_deleted_after_the_post("controller-killed", &["--grace-period=1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn controller_pod_forced_away_after_the_post() {
    // Gone from the API at once, and from the node as soon as the kubelet hears of it.
    controller_pod_deleted_after_the_post("controller-forced", &["--force", "--grace-period=0"]).await;
}
