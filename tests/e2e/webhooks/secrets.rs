//! A signing secret is shown once, and a rotation revokes the one before: who holds the newest, and what if nobody does.

use gemini_operator::api::GeminiWebhook;
use gemini_operator::api::condition::webhook_type;
use serde_json::json;

use super::{EVENTS, assert_holds_the_secret, bed_with, condition, id_of, is_ready, manifest, options, wait};

/// Ready, and the registration is in line with the spec as it is now.
fn is_in_line(webhook: &GeminiWebhook) -> bool {
    let registered = condition(webhook, webhook_type::REGISTERED);
    let conforms = registered
        .is_some_and(|c| c.status == "True" && c.observed_generation == webhook.metadata.generation);
    is_ready(webhook) && conforms
}

/// The answer with the first secret comes when another controller has found the registration and rotated it.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_secret_does_not_take_the_place_of_a_newer_one() {
    let faults =
        json!({"rules": [{"match": {"call": "webhooks.create"}, "do": {"hold": "answer"}, "times": 1}]});
    let bed = bed_with("hook-late", options(60, faults)).await;
    bed.apply(&manifest("", &EVENTS)).await;
    bed.emulator.wait_held(1).await;
    let (other, _) = bed.spawn_controller("controller-b", &[]).await;
    bed.wait_webhook("main", "ready by the other", is_ready).await;
    drop(other);

    bed.emulator.release_calls().await;
    // Only the first is left, and it takes up a change when it has done with the answer.
    bed.apply(&manifest("", &EVENTS[..1])).await;
    let webhook = bed.wait_webhook("main", "in line", is_in_line).await;
    assert_holds_the_secret(&bed, &webhook).await;
}

/// Both answers at once: whoever stores first, the newest secret is stored last.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_secrets_at_once_the_newer_one_is_kept() {
    let hold = |call: &str| json!({"match": {"call": call}, "do": {"hold": "answer"}, "times": 1});
    let faults = json!({"rules": [hold("webhooks.create"), hold("webhooks.rotate")]});
    let bed = bed_with("hook-both", options(60, faults)).await;
    bed.apply(&manifest("", &EVENTS)).await;
    bed.emulator.wait_held(1).await;
    let (other, _) = bed.spawn_controller("controller-b", &[]).await;
    bed.emulator.wait_held(2).await;

    bed.emulator.release_calls().await;
    bed.wait_webhook("main", "ready", is_ready).await;
    // What either has still in hand is done before it takes up a change.
    drop(other);
    bed.apply(&manifest("", &EVENTS[..1])).await;
    let webhook = bed.wait_webhook("main", "in line", is_in_line).await;
    assert_holds_the_secret(&bed, &webhook).await;
}

/// However the stored secret came to be no good: a ping that is refused for it leads to a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_does_not_verify_is_replaced() {
    let faults =
        json!({"rules": [{"match": {"call": "webhooks.ping"}, "do": {"hold": "request"}, "times": 1}]});
    let bed = bed_with("hook-revoked", options(60, faults)).await;
    bed.apply(&manifest("", &EVENTS)).await;
    bed.emulator.wait_held(1).await;
    let id = id_of(&bed.webhooks().get("main").await.unwrap());
    let rotate = format!("/v1beta/webhooks/{id}:rotateSigningSecret");
    let body = json!({"revocation_behavior": "revoke_previous_secrets_immediately"});
    bed.emulator.call(&bed.options.api_key, "POST", &rotate, Some(body)).await;

    bed.emulator.release_calls().await;
    wait(&bed, "refused", webhook_type::ENDPOINT_REACHABLE, "False", "BadSignature").await;
    let webhook = bed.wait_webhook("main", "ready by itself", is_ready).await;
    assert_eq!(condition(&webhook, webhook_type::SECRET_READY).unwrap().reason, "Recovered");
    assert_eq!(bed.ledger().await.calls("webhooks.rotate"), 2, "by hand, and once by the controller");
    assert_holds_the_secret(&bed, &webhook).await;
}
