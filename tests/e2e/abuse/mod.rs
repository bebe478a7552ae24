//! Deliveries that are not Gemini's, and secrets that must turn up nowhere.

use reqwest::StatusCode;
use serde_json::json;

use crate::objects::tickets;
use crate::sender::sign;
use crate::support::{Bed, BedOptions, PATIENCE, RECEIVER, poll};

mod flood;
mod honest;
mod keys;
mod strangers;

const BODY: &str = r#"{"type":"batch.succeeded","version":"v1","data":{"id":"batches/none"}}"#;

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
    // Undivided windows: nothing is due by a timer while this test runs.
    let bed = Bed::with("forged", BedOptions { timing_divisor: 1, ..BedOptions::default() }).await;
    bed.make_api_key().await;
    let webhook = bed.make_webhook().await;
    let url = webhook.status.clone().unwrap().url.unwrap();
    let secret = bed.signing_secret(&webhook).await;
    let now = jiff::Timestamp::now().as_second();
    let calls = bed.ledger().await.sequence().len();
    // It has reported the ping, and nothing else.
    let writes = || bed.writes_by(RECEIVER).map(|all| all.len());
    poll(PATIENCE, async || match writes() {
        None | Some(1) => Ok(()),
        other => Err(other),
    })
    .await
    .expect("the ping was reported");

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
    assert!(writes().is_none_or(|writes| writes == 1), "no write");
    assert!(deliver(&bed, &url, now, &right, BODY.into()).await.is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_turn_up_nowhere() {
    let wrong = "AIza-canary-wrong-key";
    let right = BedOptions::default().api_key;
    // Refusals that quote the key that they were sent: of a look, of the POST, and of a page that is no answer at all.
    let quoting = |call: &str, key: &str, status: u16, form: &str| {
        json!({
            "match": {"call": call, "key": key},
            "do": {"status": status, "form": form, "message": format!("not today, {key}")},
            "times": 1,
        })
    };
    let faults = json!({"rules": [
        quoting("models.get", wrong, 403, "rpc"),
        quoting("files.upload_start", &right, 500, "rpc"),
        quoting("batches.create", &right, 429, "rpc"),
        quoting("batches.get", &right, 503, "short"),
    ]});
    let bed = Bed::with("canary", BedOptions { faults: Some(faults), ..BedOptions::default() }).await;
    bed.make_api_key_as("gemini", wrong).await;
    bed.apply(&tickets("refused", 1, "None")).await;
    bed.wait_condition("refused", "Admitted", "False", "CredentialsInvalid").await;
    bed.make_api_key().await;
    bed.wait_complete("refused").await;
    let webhook = bed.make_webhook().await;
    let secret = bed.signing_secret(&webhook).await;
    bed.apply(&tickets("tickets", 3, "Auto")).await;
    bed.wait_complete("tickets").await;

    let objects = bed.kubectl().run(&["get", "gb,gwh,configmaps,events", "-o", "yaml"]).await.expect();
    let everything = [bed.logs(), bed.metrics().await, objects].concat();
    assert!(everything.contains("gemini_operator_submissions_total"), "the metrics were read");
    assert!(everything.contains("not today, <API key>"), "the refusals were told");
    for canary in [right.as_str(), wrong, secret.as_str(), secret.trim_start_matches("whsec_")] {
        let line = everything.lines().find(|line| line.contains(canary));
        assert_eq!(line, None, "a secret turned up");
    }
}
