//! The main job with everything real but Gemini.

use serde_json::json;

use crate::objects::tickets;
use crate::stay::Stay;
use crate::support::ingress::Route;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn a_batch_from_apply_to_complete_and_gone_again() {
    let stay = Stay::new("main-job", &json!({})).await;
    // Its ping comes by the Ingress as well.
    stay.make_webhook().await;
    stay.apply(&tickets("tickets", 20, "Auto")).await;
    let batch = stay.wait_complete_by_event("tickets").await;

    let status = batch.status.unwrap();
    assert_eq!(status.progress.as_deref(), Some("20/20"));
    assert_eq!(stay.results("tickets").await.answers.lines().count(), 20);
    let ledger = stay.ledger().await;
    assert_eq!((ledger.jobs().len(), ledger.rows_paid()), (1, 20));

    stay.delete_and_expect_nothing_left().await;
    // The namespace ends only when nothing in it does not.
    let said = stay.kubectl().run(&["delete", "namespace", &stay.namespace, "--timeout=90s"]).await;
    assert!(said.ok, "{}\n{}", said.stderr, stay.log_tails());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn a_batch_completes_by_an_event_through_the_http_route() {
    let stay = Stay::behind(Some(Route::HttpRoute), "http-route", &json!({})).await;
    stay.make_webhook().await;
    stay.apply(&tickets("tickets", 3, "Auto")).await;
    stay.wait_complete_by_event("tickets").await;
    stay.delete_and_expect_nothing_left().await;
}

/// Nothing stands before it: deliveries come to its Service, and the certificate is a file in its pods.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside of the node bed: make e2e-node"]
async fn the_receiver_may_end_tls_itself() {
    let stay = Stay::behind(None, "own-tls", &json!({})).await;
    stay.make_webhook().await;
    stay.apply(&tickets("tickets", 3, "Auto")).await;
    stay.wait_complete_by_event("tickets").await;
    stay.delete_and_expect_nothing_left().await;
}
