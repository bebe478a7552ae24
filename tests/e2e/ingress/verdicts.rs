//! An ingress controller changes deliveries. None of it changes what the receiver thinks of them: each is sent to the
//! receiver itself and through Traefik, and is answered and counted alike.

use std::collections::BTreeMap;
use std::fmt::Write;

use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{BODY, status_of, undivided, webhook};
use crate::sender::sign;
use crate::support::bed::HOOKS_HOST;
use crate::support::ingress::{Route, WayIn, bed_behind, exchange, lead_to, receiver_of};
use crate::support::{Bed, PATIENCE, poll};

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
            headers[3].1 = format!("v1,{}= v1a,BBBB {right}", "A".repeat(43));
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
async fn verdicts(bed: &Bed, http: &reqwest::Client) -> BTreeMap<String, f64> {
    let counted = ["gemini_operator_receiver_deliveries_total", "gemini_operator_receiver_rejections_total"];
    let answer = http.get(format!("http://{}/metrics", bed.receiver_admin)).send().await;
    let metrics = answer.expect("metrics are served").text().await.expect("metrics are text");
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

    // One for all: each new one reads the system's certificates.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut before = verdicts(&bed, &http).await;
    for (number, (what, status, make)) in cases().into_iter().enumerate() {
        let mut counted = Vec::new();
        for side in ["direct", "through"] {
            let id = format!("msg_{number}_{side}");
            let request = make(&Forge { path: &path, secret: &secret, id: &id });
            let answer = if side == "through" {
                way.raw(&bed, &request).await
            } else {
                exchange(TcpStream::connect(receiver_of(&bed)).await.unwrap(), &request).await
            };
            assert_eq!(status_of(&answer), status, "{what}, {side}: {}", String::from_utf8_lossy(&answer));
            let after = verdicts(&bed, &http).await;
            counted.push(since(&before, &after));
            before = after;
        }
        assert_eq!(counted[0], counted[1], "{what}: counted for another reason");
    }
}
