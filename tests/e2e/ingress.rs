//! Deliveries that come in as in a cluster: over TLS, through a real ingress controller that reads the chart's objects. The
//! receiver speaks plain HTTP here, so what arrives by https has come that way.

use std::collections::BTreeMap;
use std::fmt::Write;

use gemini_operator::api::GeminiWebhook;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::abuse::sign;
use crate::objects::tickets;
use crate::support::bed::HOOKS_HOST;
use crate::support::ingress::{Route, WayIn, bed_behind, exchange, lead_to, receiver_of, show};
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

/// A batch whose job runs until the emulator's clock is moved.
async fn submitted(bed: &Bed, name: &str) {
    bed.apply(&tickets(name, 3, "Auto")).await;
    bed.wait_condition(name, "Submitted", "True", "Submitted").await;
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
    let ledger = bed.ledger().await;
    let attempts: Vec<_> =
        ledger.deliveries("batch.succeeded").iter().map(|d| d["outcome"].clone()).collect();
    assert_eq!(attempts, ["delivered"], "at the first attempt");
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

/// The head of a POST.
fn head(path: &str, headers: &[(&str, String)]) -> Vec<u8> {
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: {HOOKS_HOST}\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a String takes it");
    }
    (head + "\r\n").into_bytes()
}

/// What one delivery may look like; `id` is used once.
struct Forge<'a> {
    path: &'a str,
    secret: &'a str,
    id: &'a str,
}

impl Forge<'_> {
    /// Rightly signed `age` seconds ago, under these names.
    fn signed(&self, names: [&'static str; 3], age: i64, body: &str) -> Vec<(&'static str, String)> {
        let time = jiff::Timestamp::now().as_second() - age;
        let [id, timestamp, signature] = names;
        let length = ("content-length", body.len().to_string());
        let signed = sign(self.secret, self.id, time, body);
        vec![length, (id, self.id.to_owned()), (timestamp, time.to_string()), (signature, signed)]
    }

    fn post(&self, headers: &[(&'static str, String)], body: &str) -> Vec<u8> {
        [&head(self.path, headers), body.as_bytes()].concat()
    }
}

const LOWER: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// One kind of delivery, the answer to it, and how it is made.
type Case = (&'static str, u16, fn(&Forge<'_>) -> Vec<u8>);

/// Deliveries, right and wrong ones.
fn cases() -> Vec<Case> {
    vec![
        ("names in lower case", 204, |f| f.post(&f.signed(LOWER, 0, BODY), BODY)),
        ("names in canonical case", 204, |f| {
            f.post(&f.signed(["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"], 0, BODY), BODY)
        }),
        ("names in any case", 204, |f| {
            f.post(&f.signed(["WEBHOOK-ID", "wEbHoOk-TiMeStAmP", "webhook-SIGNATURE"], 0, BODY), BODY)
        }),
        ("headers of other proxies", 204, |f| {
            let mut headers = f.signed(LOWER, 0, BODY);
            for name in
                ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "forwarded", "via"]
            {
                headers.push((name, "10.0.0.1".into()));
            }
            f.post(&headers, BODY)
        }),
        ("the right signature is one of several", 204, |f| {
            let mut headers = f.signed(LOWER, 0, BODY);
            let right = std::mem::take(&mut headers[3].1);
            headers[3].1 = format!("v1,AAAA v2,BBBB {right}");
            f.post(&headers, BODY)
        }),
        ("in chunks", 204, |f| {
            let mut headers = f.signed(LOWER, 0, BODY);
            headers[0] = ("transfer-encoding", "chunked".into());
            let (first, second) = BODY.split_at(10);
            let chunks =
                format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
            f.post(&headers, &chunks)
        }),
        ("not JSON", 204, |f| f.post(&f.signed(LOWER, 0, "no JSON"), "no JSON")),
        ("white space around a value", 204, |f| {
            let mut headers = f.signed(LOWER, 0, BODY);
            headers[1].1 = format!("  {} \t", f.id);
            f.post(&headers, BODY)
        }),
        ("a changed body", 401, |f| f.post(&f.signed(LOWER, 0, BODY), &BODY.replace("v1", "v2"))),
        ("of another secret", 401, |f| {
            let other = Forge { secret: "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ..*f };
            other.post(&other.signed(LOWER, 0, BODY), BODY)
        }),
        ("stale", 401, |f| f.post(&f.signed(LOWER, 400, BODY), BODY)),
        ("from the future", 401, |f| f.post(&f.signed(LOWER, -400, BODY), BODY)),
        ("without a signature", 401, |f| f.post(&f.signed(LOWER, 0, BODY)[..3], BODY)),
        ("without an id", 401, |f| {
            let mut headers = f.signed(LOWER, 0, BODY);
            headers.remove(1);
            f.post(&headers, BODY)
        }),
        ("two ids", 401, |f| {
            let mut headers = f.signed(LOWER, 0, BODY);
            headers.push(("Webhook-Id", "another".into()));
            f.post(&headers, BODY)
        }),
        ("two signatures in two headers", 401, |f| {
            let mut headers = f.signed(LOWER, 0, BODY);
            headers.push(("Webhook-Signature", "v1,AAAA".into()));
            f.post(&headers, BODY)
        }),
        ("names with underscores", 401, |f| {
            f.post(&f.signed(["webhook_id", "webhook_timestamp", "webhook_signature"], 0, BODY), BODY)
        }),
        ("an id that is not ASCII", 401, |f| {
            let mut headers = f.signed(LOWER, 0, BODY);
            headers[1].1 = "m\u{fc}ll".into();
            f.post(&headers, BODY)
        }),
        ("of no route", 401, |f| {
            let other = Forge { path: "/v1/h/nobody", ..*f };
            other.post(&other.signed(LOWER, 0, BODY), BODY)
        }),
        ("below a route", 401, |f| {
            let path = format!("{}/more", f.path);
            let other = Forge { path: &path, ..*f };
            other.post(&other.signed(LOWER, 0, BODY), BODY)
        }),
        ("packed", 415, |f| {
            let mut headers = f.signed(LOWER, 0, BODY);
            headers.push(("content-encoding", "gzip".into()));
            f.post(&headers, BODY)
        }),
        ("too large", 413, |f| {
            let body = "x".repeat(256 * 1024 + 1);
            f.post(&f.signed(LOWER, 0, &body), &body)
        }),
    ]
}

/// What the receiver counted: deliveries by outcome, refusals by reason.
async fn verdicts(bed: &Bed) -> BTreeMap<String, f64> {
    let counted = ["gemini_operator_receiver_deliveries_total", "gemini_operator_receiver_rejections_total"];
    let metrics = bed.metrics().await;
    let lines = metrics.lines().filter(|line| counted.iter().any(|name| line.starts_with(name)));
    let number = |text: &str| text.parse().expect("a metric is a number");
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), number(value)))
        .collect()
}

/// What was counted since, without what was not.
fn since(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let grown = after.iter().map(|(name, value)| (name.clone(), value - before.get(name).unwrap_or(&0.0)));
    grown.filter(|(_, by)| *by != 0.0).collect()
}

/// What Traefik passes on of a request: a recorder takes the receiver's place for one.
async fn passed_on(bed: &Bed, way: &mut WayIn, request: &[u8]) -> String {
    let recorder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lead_to(bed, recorder.local_addr().unwrap()).await;
    let taken = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = recorder.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(BODY.as_bytes()) {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await.unwrap();
            assert_ne!(read, 0, "the request ends early: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&part[..read]);
        }
        stream.write_all(b"HTTP/1.1 299 Recorded\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(seen).unwrap()
    });
    // Until Traefik has heard of it, the receiver answers.
    let led = poll(PATIENCE, async || match status_of(&way.raw(bed, request).await) {
        299 => Ok(()),
        other => Err(other),
    });
    led.await.expect("the recorder is reached");
    lead_to(bed, receiver_of(bed)).await;
    way.wait_for(bed, StatusCode::METHOD_NOT_ALLOWED).await;
    taken.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_ingress_changes_in_a_delivery_changes_no_verdict() {
    let (bed, mut way) = bed_behind(Route::Ingress, "verdicts", undivided()).await;
    let (webhook, path) = webhook(&bed).await;
    let secret = bed.signing_secret(&webhook).await;

    // It does change deliveries; else the rest would show nothing.
    let forge = Forge { path: &path, secret: &secret, id: "msg_recorded" };
    let mut headers = forge.signed(LOWER, 0, BODY);
    headers.push(("x-forwarded-for", "10.1.2.3".into()));
    let seen = passed_on(&bed, &mut way, &forge.post(&headers, BODY)).await;
    for wanted in
        ["\r\nWebhook-Id: msg_recorded\r\n", "\r\nWebhook-Signature: v1,", "\r\nX-Forwarded-Proto: https\r\n"]
    {
        assert!(seen.contains(wanted), "no {wanted:?} in {seen}");
    }
    assert!(!seen.contains("10.1.2.3"), "a sender may not say where he is: {seen}");

    for (number, (what, status, make)) in cases().into_iter().enumerate() {
        let mut counted = Vec::new();
        for side in ["direct", "through"] {
            let id = format!("msg_{number}_{side}");
            let request = make(&Forge { path: &path, secret: &secret, id: &id });
            let before = verdicts(&bed).await;
            let answer = if side == "through" {
                way.raw(&bed, &request).await
            } else {
                exchange(TcpStream::connect(receiver_of(&bed)).await.unwrap(), &request).await
            };
            assert_eq!(status_of(&answer), status, "{what}, {side}: {}", String::from_utf8_lossy(&answer));
            counted.push(since(&before, &verdicts(&bed).await));
        }
        assert_eq!(counted[0], counted[1], "{what}: counted for another reason");
    }
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
