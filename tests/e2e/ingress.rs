//! Deliveries that come in as in a cluster: over TLS, through a real ingress controller that reads the chart's objects. The
//! receiver speaks plain HTTP here, so what arrives by https has come that way.

mod verdicts;

use gemini_operator::api::{GeminiBatch, GeminiWebhook};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::objects::tickets;
use crate::sender::sign;
use crate::support::bed::HOOKS_HOST;
use crate::support::ingress::{Route, WayIn, bed_behind, lead_to, receiver_of, show};
use crate::support::{Bed, BedOptions, PATIENCE, poll};

/// Of a type that is not ours: verified, counted, and nothing follows from it.
const BODY: &str = r#"{"type":"video.generated","version":"v1","data":{"id":"nobody"}}"#;

/// Undivided windows: nothing is due by a timer while a test runs, so what happens has happened by a delivery.
fn undivided() -> BedOptions {
    BedOptions { job_time: "600s".into(), timing_divisor: 1, ..BedOptions::default() }
}

/// A GeminiWebhook whose ping came in that way, and the path of its deliveries.
async fn webhook(bed: &Bed) -> (GeminiWebhook, String) {
    bed.make_api_key().await;
    let webhook = bed.make_webhook().await;
    let url = webhook.status.clone().unwrap().url.unwrap();
    let path =
        url.strip_prefix(&format!("https://{HOOKS_HOST}")).expect("the URL is the Ingress's").to_owned();
    (webhook, path)
}

/// A batch whose job runs until the emulator's clock is moved. The look that follows the recording has been made, so only
/// an event can tell of its end.
async fn submitted(bed: &Bed, name: &str) {
    bed.apply(&tickets(name, 3, "Auto")).await;
    let looked_at = |batch: &GeminiBatch| {
        batch.status.as_ref().and_then(|status| status.runs.last()).is_some_and(|run| run.state.is_some())
    };
    bed.wait_batch(name, "looked at", looked_at).await;
}

/// The batch is complete, and by an event: no listing has told of its end.
async fn complete_by_event(bed: &Bed, name: &str) {
    let status = bed.wait_complete(name).await.status.unwrap();
    assert_eq!(status.progress.as_deref(), Some("3/3"));
    assert!(status.last_event.is_some(), "{name}: no event was stored");
    let rescues = bed.metric("gemini_operator_sweep_rescues_total").await;
    assert_eq!(rescues, Some(0.0), "no sweep had to help");
}

/// Everything but the webhook's path of its one host is answered by Traefik.
async fn nothing_else_is_routed(bed: &Bed, way: &WayIn, token: &str) {
    let client = way.client(bed);
    for path in
        ["/", "/metrics", "/livez", "/readyz", "/healthz", "/v1", "/v1/h", "/v1/hx/nobody", "/V1/H/nobody"]
    {
        let status = client.get(way.url(path)).send().await.expect("Traefik answers").status();
        // The prefix itself is routed, and no delivery.
        let wanted = if path == "/v1/h" { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND };
        assert_eq!(status, wanted, "{path}");
    }
    // The receiver itself takes any prefix before its own.
    let prefixed = client.post(way.url(&format!("/gemini{token}"))).body(BODY).send().await;
    assert_eq!(prefixed.expect("Traefik answers").status(), StatusCode::NOT_FOUND);
    // Out of the prefix by dots, which a client of its own mind does not resolve.
    for path in ["/v1/h/../../metrics", "/v1/h/%2e%2e/%2e%2e/metrics", "/v1/h/..%2f..%2fmetrics", "//metrics"]
    {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOOKS_HOST}\r\nConnection: close\r\n\r\n");
        let answer = String::from_utf8_lossy(&way.raw(bed, request.as_bytes()).await).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(!answer.contains("gemini_operator"), "{path}: {answer}");
    }
    for host in ["other.test", &format!("{HOOKS_HOST}.other.test"), "gemini-operator-receiver-metrics"] {
        let request = format!("GET {token} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(status_of(&way.raw(bed, request.as_bytes()).await), 404, "{host}");
    }
}

async fn completes_through(route: Route, name: &str) {
    let (bed, way) = bed_behind(route, name, undivided()).await;
    let (_, path) = webhook(&bed).await;
    submitted(&bed, "tickets").await;
    bed.emulator.advance_clock(600).await;
    complete_by_event(&bed, "tickets").await;
    // However often it was tried: a slow API server makes the receiver ask for it again.
    assert_eq!(bed.ledger().await.delivered("batch.succeeded"), 1);
    nothing_else_is_routed(&bed, &way, &path).await;
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_completes_through_the_charts_ingress() {
    completes_through(Route::Ingress, "ingress").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_completes_through_the_charts_http_route() {
    completes_through(Route::HttpRoute, "http-route").await;
}

fn status_of(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let status =
        text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    status.unwrap_or_else(|| panic!("no answer but {text:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_loses_no_delivery() {
    let (bed, way) = bed_behind(Route::Ingress, "renewed", undivided()).await;
    let (webhook, path) = webhook(&bed).await;
    let secret = bed.signing_secret(&webhook).await;
    submitted(&bed, "during").await;

    // A new connection for each, and the certificate that it was shown.
    let mut sent = 0;
    let mut deliver = async || {
        sent += 1;
        let id = format!("msg_{sent}");
        let time = jiff::Timestamp::now().as_second();
        let request = way.client(&bed).post(way.url(&path)).body(BODY);
        let request = request.header("webhook-timestamp", time.to_string());
        let request = request.header("webhook-signature", sign(&secret, &id, time, BODY));
        let answer =
            request.header("webhook-id", &id).send().await.expect("a trusted certificate, and an answer");
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "delivery {sent}");
        let info = answer.extensions().get::<reqwest::tls::TlsInfo>().expect("it came by TLS");
        info.peer_certificate().expect("with a certificate").to_vec()
    };
    let old = deliver().await;
    let dir = bed.dir.join("renewed");
    std::fs::create_dir_all(&dir).unwrap();
    let renewed = bed.authority.issue(&dir, HOOKS_HOST);
    let load = async {
        let (mut of_the_old, mut of_the_new) = (0, 0);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while of_the_new < 50 {
            assert!(tokio::time::Instant::now() < deadline, "{of_the_old} old ones, {of_the_new} new ones");
            *if deliver().await == old { &mut of_the_old } else { &mut of_the_new } += 1;
        }
        (of_the_old, of_the_new)
    };
    let change = async {
        // In the middle of the load, and of a batch.
        bed.emulator.advance_clock(600).await;
        show(&bed, &renewed).await;
    };
    let ((of_the_old, _), ()) = tokio::join!(load, change);
    assert!(of_the_old > 0, "there was load before the change");
    complete_by_event(&bed, "during").await;
    submitted(&bed, "after").await;
    bed.emulator.advance_clock(600).await;
    complete_by_event(&bed, "after").await;
    let ledger = bed.ledger().await;
    let lost = |delivery: &&Value| delivery["outcome"] != "delivered";
    assert_eq!(ledger.entries("deliveries").iter().find(lost), None, "at the first attempt, all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_finds_no_receiver_comes_again() {
    let (mut bed, mut way) = bed_behind(Route::Ingress, "gone", undivided()).await;
    webhook(&bed).await;
    submitted(&bed, "tickets").await;
    bed.kill_receiver();
    way.wait_for(&bed, StatusCode::BAD_GATEWAY).await;
    bed.emulator.advance_clock(600).await;
    let refused = poll(PATIENCE, async || {
        let ledger = bed.ledger().await;
        let attempts = ledger.deliveries("batch.succeeded");
        if attempts.iter().any(|attempt| attempt["status"] == json!(502)) {
            Ok(())
        } else {
            Err(format!("{attempts:?}"))
        }
    });
    refused.await.expect("Traefik answers for the receiver");

    bed.start_receiver().await;
    lead_to(&bed, receiver_of(&bed)).await;
    way.wait_for(&bed, StatusCode::METHOD_NOT_ALLOWED).await;
    // The pause before the next attempt is over.
    bed.emulator.advance_clock(60).await;
    complete_by_event(&bed, "tickets").await;
    let ledger = bed.ledger().await;
    let attempts = ledger.deliveries("batch.succeeded");
    let (last, before) = attempts.split_last().expect("there were some");
    assert_eq!((&last["outcome"], &last["status"]), (&json!("delivered"), &json!(204)));
    assert!(before.iter().all(|attempt| attempt["status"] == json!(502)), "{before:?}");
    bed.assert_invariants().await;
}
