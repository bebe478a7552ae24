//! Webhooks that somebody else has told a sender of: the tutorial's scheme end to end, and Gemini's own with a secret that
//! a user brings.

use std::time::{Duration, Instant};

use gemini_operator::api::GeminiWebhook;
use gemini_operator::api::condition::{batch_type, webhook_type};
use hmac::{Hmac, KeyInit, Mac};
use kube::ResourceExt;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{EVENTS, bed_with, condition, has_keyring_entry, is_ready, options};
use crate::objects::tickets;
use crate::support::{Bed, BedOptions, PATIENCE, PROJECT, RECEIVER, batch_condition, poll};

const SECRET: &str = "the tutorial's secret, canary and long";

const SIGNING: &str = "whsec_RSiskZV2N0hvfooFgHFmXMLUi4foU7ACKP+6PNClWGI=";

fn external(name: &str, signature: &str) -> Value {
    json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiWebhook", "metadata": {"name": name},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": "https://hooks.test"},
            "mode": "External", "signature": signature, "signingSecret": {"name": name},
        },
    })
}

async fn admin(bed: &Bed, path: &str, body: Value) -> Value {
    bed.emulator.call(&bed.options.api_key, "POST", &format!("/_emulator/{path}"), Some(body)).await
}

fn url_of(webhook: &GeminiWebhook) -> String {
    webhook.status.as_ref().and_then(|s| s.url.clone()).expect("it has an address")
}

fn x_goog(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
}

/// Delivers this by the tutorial's scheme; the status of the answer.
async fn deliver(bed: &Bed, url: &str, secret: &str, body: &str) -> Value {
    let headers = json!({
        "webhook-id": null, "webhook-timestamp": null, "webhook-signature": null, "x-goog-signature": x_goog(secret, body),
    });
    admin(bed, "deliveries", json!({"url": url, "body": body, "headers": headers})).await["status"].clone()
}

/// Calls that were made to Gemini about webhooks.
async fn webhook_calls(bed: &Bed) -> Vec<String> {
    let calls = bed.ledger().await.sequence().into_iter().map(|(call, _)| call);
    calls.filter(|call| call.starts_with("webhooks.")).collect()
}

async fn count_writes(bed: &Bed) -> Option<usize> {
    bed.audit_up_to_now().await?;
    Some(bed.writes_by(RECEIVER)?.len())
}

async fn wait_reason(bed: &Bed, type_: &str, status: &str, reason: &str) -> GeminiWebhook {
    super::wait(bed, &format!("{type_}={status}/{reason}"), type_, status, reason).await
}

/// With windows undivided: the sweep comes in ten minutes, so it is the event that ends the wait.
#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_s_scheme_end_to_end() {
    let mut bed = bed_with("hook-tutorial", options(1, json!({}))).await;
    bed.make_secret("main", "secret", SECRET).await;
    bed.apply(&external("main", "XGoogSignature").to_string()).await;
    let webhook = bed.wait_webhook("main", "ready", is_ready).await;
    for (type_, status, reason) in [
        (webhook_type::REGISTERED, "True", "NotRequired"),
        (webhook_type::SECRET_READY, "True", "Stored"),
        (webhook_type::ENDPOINT_REACHABLE, "Unknown", "NotTested"),
        (webhook_type::REPLAYABLE_SIGNATURE, "True", "XGoogSignature"),
    ] {
        let shown = condition(&webhook, type_).unwrap();
        assert_eq!((&*shown.status, &*shown.reason), (status, reason), "{type_}");
    }
    let url = url_of(&webhook);
    let sender = json!({"project": PROJECT, "url": url, "scheme": "XGoogSignature", "secret": SECRET});
    admin(&bed, "senders", sender).await;

    bed.apply(&tickets("tickets", 2, "Static")).await;
    let batch = bed.wait_complete("tickets").await;
    assert_eq!(batch_condition(&batch, batch_type::WEBHOOK_TRACKED).unwrap().reason, "Static");
    let event = batch.status.as_ref().unwrap().last_event.clone().expect("an event");
    assert!(event.type_ == "batch.succeeded" && event.id.starts_with("sha256:"), "{event:?}");
    assert_eq!(bed.metric("gemini_operator_sweep_rescues_total").await, Some(0.0), "no sweep had to help");
    wait_reason(&bed, webhook_type::ENDPOINT_REACHABLE, "True", "DeliveryVerified").await;
    wait_reason(&bed, webhook_type::DELIVERY_HEALTHY, "True", "Healthy").await;

    // The very same delivery again, as whoever overheard it would send it.
    let body = json!({"eventType": "batch.completed", "operation": event.remote_name}).to_string();
    let looks = async || {
        let ledger = bed.ledger().await;
        (ledger.calls("batches.get"), ledger.calls("batches.list"), ledger.calls("files.download"))
    };
    let before = (count_writes(&bed).await, looks().await);
    for _ in 0..20 {
        assert_eq!(deliver(&bed, &url, SECRET, &body).await, 204);
    }
    assert_eq!(deliver(&bed, &url, "another secret that is just as long", &body).await, 401);
    assert_eq!((count_writes(&bed).await, looks().await), before, "a replay changes nothing");
    assert_eq!(webhook_calls(&bed).await, [""; 0], "Gemini is not asked about it");

    // A receiver that has not seen the first of them finds it in the status.
    bed.kill_receiver();
    bed.start_receiver().await;
    let looks_before = before.1;
    let answered = poll(PATIENCE, async || match deliver(&bed, &url, SECRET, &body).await {
        status if status == 204 => Ok(()),
        other => Err(other),
    });
    answered.await.expect("the receiver is back");
    let again = bed.batches().get("tickets").await.unwrap();
    assert_eq!(again.status, batch.status);
    let ledger = bed.ledger().await;
    assert_eq!((ledger.calls("batches.get"), ledger.calls("batches.list")), (looks_before.0, looks_before.1));
    assert!(!bed.logs().contains("canary and long"), "a secret in a log");
    bed.assert_invariants().await;
}

/// The time is what is promised, so nothing is divided.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_is_in_force_within_a_minute() {
    let bed = bed_with("hook-elsewhere", options(1, json!({}))).await;
    bed.apply(&external("main", "StandardWebhooks").to_string()).await;
    let webhook = wait_reason(&bed, webhook_type::SECRET_READY, "False", "SecretNotFound").await;
    assert!(!is_ready(&webhook));

    // Its address is there before its secret: who registers it needs the one to get the other.
    let url = url_of(&webhook);
    let body = json!({"uri": url, "subscribed_events": EVENTS, "name": "by-hand"});
    let key = bed.options.api_key.clone();
    let made = bed.emulator.call(&key, "POST", "/v1beta/webhooks", Some(body)).await;
    let id = made["id"].as_str().expect("it is registered").to_owned();
    let first = made["new_signing_secret"].as_str().expect("its secret is shown").to_owned();
    bed.make_secret("main", "secret", &first).await;
    bed.wait_webhook("main", "ready by itself", is_ready).await;
    bed.apply(&tickets("tickets", 1, "Static")).await;
    bed.wait_complete("tickets").await;
    wait_reason(&bed, webhook_type::ENDPOINT_REACHABLE, "True", "DeliveryVerified").await;
    let made_by_hand = webhook_calls(&bed).await;
    assert_eq!(made_by_hand, ["webhooks.create"], "by hand");

    let rotate = json!({"revocation_behavior": "revoke_previous_secrets_immediately"});
    let path = format!("/v1beta/webhooks/{id}:rotateSigningSecret");
    let second =
        bed.emulator.call(&key, "POST", &path, Some(rotate)).await["secret"].as_str().unwrap().to_owned();
    let hand = async |secret: &str| {
        let wish = json!({"url": url, "secret": secret, "body": {"type": "ping"}});
        admin(&bed, "deliveries", wish).await["status"].clone()
    };
    assert_eq!(hand(&second).await, 401);
    bed.make_secret("main", "secret", &second).await;
    let begin = Instant::now();
    let accepted = poll(PATIENCE, async || match hand(&second).await {
        status if status == 204 => Ok(begin.elapsed()),
        other => Err(other),
    });
    let took = accepted.await.expect("the new secret is accepted");
    assert!(took <= Duration::from_mins(1), "{took:?}");
    // The one before stays good until its user says otherwise.
    assert_eq!(hand(&first).await, 204);
    let mut at_once = external("main", "StandardWebhooks");
    at_once["spec"]["rotation"] = json!({"revocation": "Immediately"});
    bed.apply(&at_once.to_string()).await;
    let refused = poll(PATIENCE, async || match hand(&first).await {
        status if status == 401 => Ok(()),
        other => Err(other),
    });
    refused.await.expect("the old secret is worth nothing");
    assert_eq!(hand(&second).await, 204);
}

async fn entry_of(bed: &Bed, webhook: &GeminiWebhook) -> Value {
    let keyring = bed.keyring().get(gemini_operator::api::keyring::KEYRING_SECRET).await.unwrap();
    let entry = keyring.data.unwrap_or_default().remove(&webhook.uid().unwrap());
    entry.map_or(Value::Null, |bytes| serde_json::from_slice(&bytes.0).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_secret_is_told_and_the_last_good_one_stays() {
    let bed = bed_with("hook-bad-secret", BedOptions::default()).await;
    // The bytes of a key of another scheme, which a second webhook has.
    let shared = "0123456789abcdef0123456789abcdef";
    bed.make_secret("other", "secret", &format!("whsec_{}", data_encoding::BASE64.encode(shared.as_bytes())))
        .await;
    bed.apply(&external("other", "StandardWebhooks").to_string()).await;
    bed.wait_webhook("other", "ready", is_ready).await;

    bed.make_secret("main", "secret", "short").await;
    bed.apply(&external("main", "XGoogSignature").to_string()).await;
    let bad = wait_reason(&bed, webhook_type::SECRET_READY, "False", "InvalidSecret").await;
    assert_eq!(entry_of(&bed, &bad).await, Value::Null, "nothing of it is stored");
    let url = url_of(&bad);
    let body = json!({"eventType": "batch.failed", "operation": "batches/foreign"}).to_string();
    assert_eq!(deliver(&bed, &url, SECRET, &body).await, 503, "its sender is to come again");

    bed.make_secret("main", "secret", SECRET).await;
    let good = bed.wait_webhook("main", "ready", is_ready).await;
    for (secret, reason, words) in [
        ("", "InvalidSecret", "is empty"),
        (SIGNING, "InvalidSecret", "begins with whsec_"),
        (shared, "KeyReused", "another GeminiWebhook"),
    ] {
        bed.make_secret("main", "secret", secret).await;
        let is_told = |webhook: &GeminiWebhook| {
            let ready = condition(webhook, webhook_type::SECRET_READY);
            ready.is_some_and(|c| c.status == "False" && c.reason == reason && c.message.contains(words))
        };
        let told = bed.wait_webhook("main", words, is_told).await;
        let message = &condition(&told, webhook_type::SECRET_READY).unwrap().message;
        assert!(message.starts_with("spec.signingSecret") && !is_ready(&told), "{message}");
        assert!(secret.is_empty() || !message.contains(secret), "{message}");
        assert!(bed.wait_event("main", reason).await.starts_with("spec.signingSecret"));
        assert_eq!(deliver(&bed, &url, SECRET, &body).await, 204, "{reason}: the last good one stays");
    }
    bed.kubectl().run(&["delete", "secret", "main"]).await.expect();
    wait_reason(&bed, webhook_type::SECRET_READY, "False", "SecretNotFound").await;
    assert_eq!(deliver(&bed, &url, SECRET, &body).await, 204, "nor does it go with the Secret");

    // Another scheme, and so another secret: the entry follows.
    bed.make_secret("main", "secret", SIGNING).await;
    bed.apply(&external("main", "StandardWebhooks").to_string()).await;
    let moved = bed.wait_webhook("main", "of the other scheme", |webhook| {
        is_ready(webhook) && condition(webhook, webhook_type::REPLAYABLE_SIGNATURE).is_none()
    });
    let entry = entry_of(&bed, &moved.await).await;
    assert_eq!((&entry["scheme"], entry.get("previous")), (&json!("StandardWebhooks"), None));

    let uid = good.uid().unwrap();
    assert!(has_keyring_entry(&bed, &uid).await);
    bed.kubectl().run(&["delete", "geminiwebhook", "main", "--wait=false"]).await.expect();
    bed.wait_gone(bed.webhooks(), "main").await;
    assert!(!has_keyring_entry(&bed, &uid).await, "its entry goes with it");
    assert_eq!(webhook_calls(&bed).await, [""; 0], "Gemini was never asked");
    let events = format!("{:?}", bed.events("main").await);
    assert!(!events.contains("canary") && !bed.logs().contains("canary and long"), "a secret is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dynamic_webhook_is_ready_without_a_registration() {
    let bed = bed_with("hook-dynamic", BedOptions::default()).await;
    let mut manifest = external("main", "DynamicV1a");
    manifest["spec"]["mode"] = json!("Dynamic");
    manifest["spec"].as_object_mut().unwrap().remove("signingSecret");
    bed.apply(&manifest.to_string()).await;
    let webhook = bed.wait_webhook("main", "ready", is_ready).await;
    assert_eq!(condition(&webhook, webhook_type::SECRET_READY).unwrap().reason, "NotRequired");
    assert!(url_of(&webhook).starts_with("https://hooks.test/v1/h/"));
    assert_eq!(entry_of(&bed, &webhook).await, Value::Null);
    bed.kubectl().run(&["delete", "geminiwebhook", "main", "--wait=false"]).await.expect();
    bed.wait_gone(bed.webhooks(), "main").await;
    assert_eq!(webhook_calls(&bed).await, [""; 0], "Gemini was never asked");
}
