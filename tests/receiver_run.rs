//! The whole receiver in one process: real sockets in front, an API server of a few lines behind. What the real API
//! server makes of its requests is tested elsewhere; here it is that all parts are wired and end together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body as AxumBody;
use axum::http::{Method, Request, Response};
use futures::StreamExt;
use futures::future::BoxFuture;
use gemini_operator::receiver::{self, Settings};
use hmac::{Hmac, KeyInit, Mac};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const SECRET: &[u8] = b"twenty-four random bytes";

/// Serves lists, watches that say what the test tells them, and patches.
#[derive(Clone, Default)]
struct Api {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Objects by the path of their list.
    lists: HashMap<String, Vec<Value>>,
    watches: HashMap<String, mpsc::UnboundedSender<Value>>,
    patches: Vec<(String, Value)>,
    /// All requests but patches: method, path and query.
    reads: Vec<String>,
    down: bool,
}

impl tower::Service<Request<Body>> for Api {
    type Response = Response<AxumBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let state = self.state.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let mut state = state.lock().unwrap();
            let path = parts.uri.path().to_owned();
            let query = parts.uri.query().unwrap_or_default();
            if state.down {
                return Ok(answer(500, &json!({"kind": "Status", "code": 500, "status": "Failure"})));
            }
            if parts.method == Method::PATCH {
                let applied: Value = serde_json::from_slice(&body).unwrap();
                state.patches.push((path, applied.clone()));
                return Ok(answer(200, &applied));
            }
            state.reads.push(format!("{path}?{query}"));
            if query.contains("watch=true") {
                let (sender, receiver) = mpsc::unbounded_channel::<Value>();
                state.watches.insert(path, sender);
                let lines = futures::stream::unfold(receiver, |mut receiver| async {
                    let event = receiver.recv().await?;
                    // As an API server writes it, the type first.
                    let line = format!("{{\"type\":{},\"object\":{}}}\n", event["type"], event["object"]);
                    Some((Ok::<_, Infallible>(line), receiver))
                });
                return Ok(Response::new(AxumBody::from_stream(lines)));
            }
            let items = state.lists.get(&path).cloned().unwrap_or_default();
            Ok(answer(200, &json!({"metadata": {"resourceVersion": "1"}, "items": items})))
        })
    }
}

fn answer(code: u16, body: &Value) -> Response<AxumBody> {
    Response::builder().status(code).body(AxumBody::from(body.to_string())).unwrap()
}

fn meta(namespace: &str, name: &str) -> Value {
    json!({"namespace": namespace, "name": name, "uid": format!("uid-{name}"), "resourceVersion": "1"})
}

fn batch(name: &str, remote_name: &str) -> Value {
    json!({"metadata": meta("a", name), "spec": {}, "status": {"runs": [{"remoteName": remote_name}]}})
}

const BATCHES: &str = "/apis/gemini-operator.io/v1alpha1/namespaces/a/geminibatches";
const WEBHOOKS: &str = "/apis/gemini-operator.io/v1alpha1/namespaces/a/geminiwebhooks";
const OPERATOR_WEBHOOKS: &str = "/apis/gemini-operator.io/v1alpha1/namespaces/op/geminiwebhooks";
const SECRETS: &str = "/api/v1/namespaces/op/secrets";

fn api() -> Api {
    let api = Api::default();
    let entry = json!({
        "registration": "r", "scheme": "StandardWebhooks",
        "current": format!("whsec_{}", data_encoding::BASE64.encode(SECRET)),
    });
    let entry = data_encoding::BASE64.encode(entry.to_string().as_bytes());
    let now = jiff::Timestamp::now();
    let webhook = json!({
        "metadata": meta("op", "main"), "spec": {},
        "status": {"path": "/v1/h/token", "lastDelivery": {"time": now.to_string()}},
    });
    let lists = [
        (BATCHES, vec![json!({"metadata": meta("a", "broken"), "status": []}), batch("x", "batches/1")]),
        (OPERATOR_WEBHOOKS, vec![webhook]),
        (
            SECRETS,
            vec![json!({
                "metadata": {"name": "gemini-operator-signing", "namespace": "op"}, "data": {"uid-main": entry},
            })],
        ),
    ];
    api.state.lock().unwrap().lists = lists.map(|(path, items)| (path.to_owned(), items)).into();
    api
}

/// A free port: the receiver prints the ones it chose on stdout, which this program cannot read back.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn exchange(address: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut read = String::new();
    stream.read_to_string(&mut read).await.ok()?;
    Some(read)
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    exchange(address, &request).await.unwrap_or_default()
}

async fn deliver(address: SocketAddr, id: &str, remote_name: &str) -> String {
    let body = json!({"type": "batch.succeeded", "data": {"id": remote_name}}).to_string();
    let timestamp = jiff::Timestamp::now().as_second();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    let signature = data_encoding::BASE64.encode(&mac.finalize().into_bytes());
    let request = format!(
        "POST /v1/h/token HTTP/1.1\r\nhost: x\r\nconnection: close\r\nwebhook-id: {id}\r\n\
         webhook-timestamp: {timestamp}\r\nwebhook-signature: v1,{signature}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(address, &request).await.unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

async fn until<F: AsyncFnMut() -> bool>(what: &str, mut condition: F) {
    for _ in 0..500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came: {what}");
}

fn settings() -> Settings {
    gemini_operator::runtime::crypto::install();
    Settings {
        listen: free(),
        admin_listen: free(),
        operator_namespace: "op".into(),
        watch_namespaces: vec!["a".into()],
        tls: None,
        jwks_url: receiver::jwks_fetch::GOOGLES.into(),
        ca_file: None,
    }
}

#[tokio::test]
async fn from_start_to_shutdown() {
    let api = api();
    api.state.lock().unwrap().down = true;
    let (settings, stop) = (settings(), CancellationToken::new());
    let (listen, admin) = (settings.listen, settings.admin_listen);
    let running = tokio::spawn(receiver::run(settings, Client::new(api.clone(), "op"), stop.clone()));

    until("liveness", async || get(admin, "/livez").await.contains(" 200 ")).await;
    let waiting = get(admin, "/readyz").await;
    for missing in ["keyring", "webhook cache", "batch cache"] {
        assert!(waiting.contains(&format!("waiting for {missing}\n")), "{waiting}");
    }
    assert_eq!(deliver(listen, "0", "batches/1").await, "503");
    api.state.lock().unwrap().down = false;
    until("readiness", async || get(admin, "/readyz").await.contains(" 200 ")).await;

    assert_eq!(deliver(listen, "1", "batches/1").await, "204");
    let patches = api.state.lock().unwrap().patches.clone();
    let [(path, applied)] = &patches[..] else { panic!("{patches:?}") };
    assert_eq!(path, &format!("{BATCHES}/x/status"));
    assert_eq!(applied["status"]["lastEvent"]["remoteName"], "batches/1");

    // An event that comes before its batch has recorded the job.
    assert_eq!(deliver(listen, "2", "batches/2").await, "204");
    until("batch watch", async || api.state.lock().unwrap().watches.contains_key(BATCHES)).await;
    let changed = json!({"type": "ADDED", "object": batch("y", "batches/2")});
    api.state.lock().unwrap().watches[BATCHES].send(changed).unwrap();
    until("the early event", async || {
        let patches = &api.state.lock().unwrap().patches;
        patches.iter().any(|(path, _)| path == &format!("{BATCHES}/y/status"))
    })
    .await;

    api.state.lock().unwrap().down = true;
    assert_eq!(deliver(listen, "3", "batches/2x").await, "204");
    let metrics = get(admin, "/metrics").await;
    for line in [
        r#"gemini_operator_receiver_deliveries_total{outcome="accepted"} 1"#,
        r#"gemini_operator_receiver_deliveries_total{outcome="early"} 2"#,
        r#"gemini_operator_receiver_early_events_total{outcome="applied"} 1"#,
        r#"gemini_operator_receiver_patch_duration_seconds_count{kind="GeminiBatch",outcome="stored"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
    assert!(!metrics.contains("token"));

    // Only the keyring, only the watched namespaces, and the operator's for its webhooks.
    let reads = api.state.lock().unwrap().reads.clone();
    for read in reads {
        let (path, query) = read.split_once('?').unwrap();
        assert!([BATCHES, WEBHOOKS, OPERATOR_WEBHOOKS, SECRETS].contains(&path), "{read}");
        let selected = query.contains("fieldSelector=metadata.name%3Dgemini-operator-signing");
        assert_eq!(selected, path == SECRETS, "{read}");
    }

    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(TcpStream::connect(listen).await.is_err() && TcpStream::connect(admin).await.is_err());
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings { listen: taken.local_addr().unwrap(), ..settings() };
    let ended = receiver::run(settings, Client::new(api(), "op"), CancellationToken::new()).await;
    let message = ended.unwrap_err().to_string();
    assert!(
        message.starts_with("--listen 127.0.0.1:") && message.contains("choose another address"),
        "{message}"
    );
}

#[tokio::test]
async fn many_deliveries_at_once() {
    let api = api();
    let (settings, stop) = (settings(), CancellationToken::new());
    let (listen, admin) = (settings.listen, settings.admin_listen);
    let running = tokio::spawn(receiver::run(settings, Client::new(api.clone(), "op"), stop.clone()));
    until("readiness", async || get(admin, "/readyz").await.contains(" 200 ")).await;

    let ids: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let deliveries = futures::stream::iter(&ids).map(|id| deliver(listen, id, "batches/1"));
    let answers: Vec<String> = deliveries.buffer_unordered(50).collect().await;
    assert!(answers.iter().all(|answer| answer == "204"));
    // One, and one that was waiting while it was written.
    assert!(api.state.lock().unwrap().patches.len() <= 2);
    stop.cancel();
    running.await.unwrap().unwrap();
}
