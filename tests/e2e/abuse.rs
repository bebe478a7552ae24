//! Deliveries that are not Gemini's, and secrets that must turn up nowhere.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::StatusCode;
use sha2::Sha256;

use crate::objects::tickets;
use crate::support::Bed;

const BODY: &str = r#"{"type":"batch.succeeded","version":"v1","data":{"id":"batches/none"}}"#;

/// A Standard Webhooks signature.
fn sign(secret: &str, id: &str, timestamp: i64, body: &str) -> String {
    let key = BASE64.decode(secret.trim_start_matches("whsec_").as_bytes()).expect("a secret is base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
}

/// Sends a delivery to the receiver, through the bed's front.
async fn deliver(bed: &Bed, url: &str, timestamp: i64, signature: &str, body: String) -> StatusCode {
    let host = url.trim_start_matches("https://").split('/').next().unwrap().to_owned();
    let client = reqwest::Client::builder()
        .no_proxy()
        .resolve(&host, bed.front.address())
        .tls_danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let port = bed.front.address().port();
    let request = client.post(url.replacen(&host, &format!("{host}:{port}"), 1));
    let request = request.header("webhook-id", "msg_1").header("webhook-timestamp", timestamp.to_string());
    request
        .header("webhook-signature", signature)
        .body(body)
        .send()
        .await
        .expect("the receiver answers")
        .status()
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_stale_and_oversized_deliveries_cost_nothing() {
    let bed = Bed::new("forged").await;
    bed.make_api_key().await;
    let webhook = bed.make_webhook().await;
    let url = webhook.status.clone().unwrap().url.unwrap();
    let secret = bed.signing_secret(&webhook).await;
    let now = jiff::Timestamp::now().as_second();
    let calls = bed.ledger().await.sequence().len();
    let writes = bed.audit().map(|all| all.iter().filter(|r| r.is_write()).count());

    let forged = sign("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "msg_1", now, BODY);
    assert_eq!(deliver(&bed, &url, now, &forged, BODY.into()).await, StatusCode::UNAUTHORIZED);
    let old = now - 301;
    let stale = sign(&secret, "msg_1", old, BODY);
    assert_eq!(deliver(&bed, &url, old, &stale, BODY.into()).await, StatusCode::UNAUTHORIZED);
    let large = "x".repeat(256 * 1024 + 1);
    let signed = sign(&secret, "msg_1", now, &large);
    assert_eq!(deliver(&bed, &url, now, &signed, large).await, StatusCode::PAYLOAD_TOO_LARGE);
    // The same words, rightly signed, are accepted: the refusals above were about the signature.
    let right = sign(&secret, "msg_1", now, BODY);
    assert_eq!(bed.ledger().await.sequence().len(), calls, "no call to Gemini");
    assert_eq!(bed.audit().map(|all| all.iter().filter(|r| r.is_write()).count()), writes, "no write");
    assert!(deliver(&bed, &url, now, &right, BODY.into()).await.is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_turn_up_nowhere() {
    let bed = Bed::new("canary").await;
    bed.make_api_key().await;
    let webhook = bed.make_webhook().await;
    let secret = bed.signing_secret(&webhook).await;
    bed.apply(&tickets("tickets", 3, "Auto")).await;
    bed.wait_complete("tickets").await;

    let objects = bed.kubectl().run(&["get", "gb,gwh,configmaps,events", "-o", "yaml"]).await.expect();
    let everything = [bed.logs(), bed.metrics().await, objects].concat();
    assert!(everything.contains("gemini_operator_submissions_total"), "the metrics were read");
    for canary in [bed.options.api_key.as_str(), secret.as_str(), secret.trim_start_matches("whsec_")] {
        assert!(!everything.contains(canary), "a secret turned up");
    }
}
