//! What becomes of a registration behind our back: changed, deleted, disabled. Noticed by the next self-test, healed, said.

use gemini_operator::api::GeminiWebhook;
use gemini_operator::api::condition::webhook_type;
use serde_json::{Value, json};

use super::{
    EVENTS, assert_holds_the_secret, bed_with, condition, id_of, is_ready, options, wait, wait_event,
};
use crate::support::{Bed, PATIENCE, poll};

/// Five minutes of self-test interval become fifteen seconds.
const DIVISOR: u32 = 20;

/// The GeminiWebhook `main`, with these fields besides, when it is ready.
async fn ready_with(bed: &Bed, more: Value) -> GeminiWebhook {
    let mut spec = json!({
        "apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": "https://hooks.test"}, "events": EVENTS,
        "selfTest": {"interval": "5m"},
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let object = json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiWebhook", "metadata": {"name": "main"}, "spec": spec,
    });
    bed.apply(&object.to_string()).await;
    bed.wait_webhook("main", "ready", is_ready).await
}

async fn set_state(bed: &Bed, id: &str, state: &str) {
    let path = format!("/_emulator/webhooks/{id}/state");
    bed.emulator.call(&bed.options.api_key, "POST", &path, Some(json!({ "state": state }))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_is_put_right_by_the_next_self_test() {
    let bed = bed_with("hook-drift", options(DIVISOR, json!({}))).await;
    let before = ready_with(&bed, json!({})).await;
    let path = format!("/v1beta/webhooks/{}", id_of(&before));
    let change = json!({"uri": "https://elsewhere.test/x", "subscribed_events": ["batch.failed"], "state": "disabled"});
    bed.emulator.call(&bed.options.api_key, "PATCH", &path, Some(change)).await;

    let registered = poll(PATIENCE, async || {
        let all = bed.emulator.registrations(&bed.options.api_key).await;
        let [one] = &all[..] else { return Err(all) };
        let url = before.status.as_ref().and_then(|s| s.url.as_deref());
        let as_before = one["uri"].as_str() == url && one["state"] == "enabled";
        if as_before && one["subscribed_events"] == json!(EVENTS) { Ok(()) } else { Err(all) }
    });
    registered.await.unwrap_or_else(|all| panic!("not repaired: {all:?}\n{}", bed.log_tails()));
    wait_event(&bed, "Drifted", "uri and subscribed_events and state").await;
    let after = bed.wait_webhook("main", "ready again", is_ready).await;
    assert_eq!(id_of(&after), id_of(&before));
    assert_holds_the_secret(&bed, &after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_deleted_is_registered_again() {
    let bed = bed_with("hook-gone", options(DIVISOR, json!({}))).await;
    let before = id_of(&ready_with(&bed, json!({})).await);
    bed.emulator.call(&bed.options.api_key, "DELETE", &format!("/v1beta/webhooks/{before}"), None).await;
    let again = |w: &GeminiWebhook| is_ready(w) && id_of(w) != before;
    let after = bed.wait_webhook("main", "ready as another one", again).await;
    assert_holds_the_secret(&bed, &after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gemini_disabled_is_enabled_again_and_tested() {
    let bed = bed_with("hook-reenabled", options(DIVISOR, json!({}))).await;
    let id = id_of(&ready_with(&bed, json!({})).await);
    set_state(&bed, &id, "disabled_due_to_failed_deliveries").await;
    wait_event(&bed, "DisabledByProvider", "failed").await;
    let healed = |w: &GeminiWebhook| {
        let status = w.status.as_ref().unwrap();
        is_ready(w) && status.reenabled.as_ref().is_some_and(|r| r.count == 1)
    };
    let after = bed.wait_webhook("main", "ready again", healed).await;
    assert_eq!(after.status.as_ref().unwrap().state.as_deref(), Some("enabled"));
    assert_holds_the_secret(&bed, &after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_report_it_is_left_to_a_person() {
    let bed = bed_with("hook-reported", options(DIVISOR, json!({}))).await;
    let id = id_of(&ready_with(&bed, json!({"onDisabled": "Report"})).await);
    set_state(&bed, &id, "disabled_due_to_failed_deliveries").await;
    let told = wait(&bed, "told", webhook_type::DELIVERY_HEALTHY, "False", "DisabledByProvider").await;
    assert!(!is_ready(&told));
    let message = &condition(&told, webhook_type::READY).unwrap().message;
    assert!(message.contains("spec.onDisabled"), "{message}");
    assert_eq!(bed.ledger().await.calls("webhooks.patch"), 0, "it was left alone");

    // The person enables it; that is seen, and proven.
    set_state(&bed, &id, "enabled").await;
    bed.wait_webhook("main", "ready again", is_ready).await;
    assert_eq!(bed.ledger().await.calls("webhooks.patch"), 0);
}

/// A ping that is lost costs `Ready` only when it is due, and the next one that arrives gives it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_self_test_that_fails_is_told_and_passed_again() {
    let bed = bed_with("hook-selftest", options(DIVISOR, json!({}))).await;
    ready_with(&bed, json!({})).await;
    let stale =
        json!({"deliveries": [{"match": {"event_type": "ping"}, "do": {"forge": "stale"}, "times": 1}]});
    bed.emulator.add_faults(&stale).await;
    let failed = wait(&bed, "failed", webhook_type::ENDPOINT_REACHABLE, "False", "ClockSkew").await;
    assert!(!is_ready(&failed));
    bed.wait_webhook("main", "ready by itself", is_ready).await;
    let ledger = bed.ledger().await;
    assert_eq!(ledger.calls("webhooks.rotate"), 0, "a clock is no reason for another secret");
}
