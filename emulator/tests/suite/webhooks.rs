//! Registered webhooks: snake_case, checks, the secret shown once, rotation.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Emulator;

fn events() -> Value {
    json!(["batch.succeeded", "batch.failed", "batch.expired"])
}

#[tokio::test]
async fn the_secret_is_shown_once() {
    let emulator = Emulator::start(&[]);
    let body =
        json!({"uri": "https://hooks.example.com/x", "subscribed_events": events(), "name": "my-hook"});
    let (status, made) = emulator.post("/v1beta/webhooks", body).await;
    assert_eq!(status, 200);
    let secret = made["new_signing_secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"));
    assert_eq!(
        made["signing_secrets"][0]["truncated_secret"],
        format!("whsec_...{}", &secret[secret.len() - 4..])
    );
    let id = made["id"].as_str().unwrap();
    assert!(id.len() >= 36 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    let (_, got) = emulator.get(&format!("/v1/webhooks/{id}")).await;
    assert_eq!(got.get("new_signing_secret"), None);
    assert_eq!((&got["name"], &got["state"]), (&json!("my-hook"), &json!("enabled")));
    let (_, list) = emulator.get("/v1/webhooks").await;
    assert_eq!(list, json!({"webhooks": [got]}));
    // Nothing that is kept for judges holds the secret or the key.
    let everything = format!("{} {}", emulator.ledger().await, emulator.get("/_emulator/state").await.1);
    assert!(!everything.contains(secret) && !everything.contains(crate::support::KEY));
}

#[tokio::test]
async fn wrong_requests_get_the_short_form() {
    let emulator = Emulator::start(&[]);
    let good = "https://h.example.com";
    for (body, part) in [
        (
            json!({"uri": good, "subscribed_events": ["batch.cancelled"]}),
            "'batch.cancelled' at 'subscribed_events[0]'",
        ),
        (json!({"uri": good, "subscribed_events": ["batch.completed"]}), "batch.completed"),
        (json!({"uri": good, "subscribedEvents": events()}), "Did you mean 'subscribed_events'?"),
        (json!({"uri": "http://h.example.com", "subscribed_events": events()}), "HTTPS"),
        (json!({"uri": "nonsense", "subscribed_events": events()}), "HTTPS"),
        (json!({"subscribed_events": events()}), "uri"),
        (json!({"uri": good}), "subscribed_events"),
        (json!({"uri": good, "subscribed_events": []}), "subscribed_events"),
        (json!({"uri": 7, "subscribed_events": events()}), "uri"),
    ] {
        let (status, error) = emulator.post("/v1/webhooks", body.clone()).await;
        assert_eq!((status, &error["error"]["code"]), (400, &json!("invalid_request")), "{body}");
        assert_eq!(error["error"].get("status"), None);
        assert!(error["error"]["message"].as_str().unwrap().contains(part), "{error}");
    }
    let (status, error) = emulator.get("/v1/webhooks/nope").await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("not_found")));
    // The prefix is no part of the handle; that path is unknown, which is the other form.
    let (status, error) = emulator.get("/v1/webhooks/webhooks/nope").await;
    assert_eq!((status, &error["error"]["status"]), (404, &json!("NOT_FOUND")));
}

#[tokio::test]
async fn patches_change_what_they_hold() {
    let emulator = Emulator::start(&[]);
    let (id, _) = emulator.webhook("https://h.example.com").await;
    let path = format!("/v1/webhooks/{id}?update_mask=uri%2Cstate");
    let change = json!({"uri": "https://other.example.com", "state": "disabled"});
    let (status, hook) = emulator.call(Method::PATCH, &path, Some(change)).await;
    assert_eq!(status, 200);
    assert_eq!((&hook["uri"], &hook["state"]), (&json!("https://other.example.com"), &json!("disabled")));
    assert_eq!((&hook["name"], &hook["subscribed_events"]), (&json!("hook"), &events()));
    let wrong = emulator.call(Method::PATCH, &path, Some(json!({"state": "ENABLED"}))).await;
    assert_eq!(wrong.0, 400);
    assert_eq!(emulator.delete(&format!("/v1/webhooks/{id}")).await, (200, json!({})));
    assert_eq!(emulator.delete(&format!("/v1/webhooks/{id}")).await.0, 404);
}

#[tokio::test]
async fn rotations_overlap_for_a_day_or_not_at_all() {
    let emulator = Emulator::start(&[]);
    let (id, first) = emulator.webhook("https://h.example.com").await;
    let rotate = format!("/v1/webhooks/{id}:rotateSigningSecret");
    let secrets = || async {
        let (_, hook) = emulator.get(&format!("/v1/webhooks/{id}")).await;
        hook["signing_secrets"].as_array().unwrap().clone()
    };
    let (_, second) = emulator.post(&rotate, json!({})).await;
    assert_ne!(second["secret"], json!(first));
    let both = secrets().await;
    assert_eq!(both.len(), 2);
    assert!(both[0]["expire_time"].is_string() && both[1].get("expire_time").is_none(), "{both:?}");
    emulator.advance(24 * 3600 + 1).await;
    assert_eq!(secrets().await.len(), 1);
    let now = json!({"revocation_behavior": "revoke_previous_secrets_immediately"});
    assert_eq!(emulator.post(&rotate, now).await.0, 200);
    assert_eq!(secrets().await.len(), 1);
    let loud = json!({"revocation_behavior": "REVOKE_PREVIOUS_SECRETS_IMMEDIATELY"});
    assert_eq!(emulator.post(&rotate, loud).await.0, 400);
}

#[tokio::test]
async fn lists_have_pages() {
    let emulator = Emulator::start(&[]);
    assert_eq!(emulator.get("/v1/webhooks").await, (200, json!({})));
    for _ in 0..3 {
        emulator.webhook("https://h.example.com").await;
    }
    let (_, first) = emulator.get("/v1/webhooks?page_size=2").await;
    assert_eq!(first["webhooks"].as_array().unwrap().len(), 2);
    let token = first["next_page_token"].as_str().unwrap();
    let (_, second) = emulator.get(&format!("/v1/webhooks?page_size=2&page_token={token}")).await;
    assert_eq!(second["webhooks"].as_array().unwrap().len(), 1);
    assert_eq!(second.get("next_page_token"), None);
}
