//! Each fault, on a small API server of one's own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long something that must not come is waited for.
const MOMENT: Duration = Duration::from_millis(200);
const THINGS: &str = "/apis/g/v1/namespaces/ns/things";

#[derive(Clone)]
struct Server {
    seen: Arc<Mutex<Vec<String>>>,
    events: broadcast::Sender<String>,
}

async fn answer(State(server): State<Server>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut seen = server.seen.lock().unwrap();
    seen.push(format!("{method} {uri} {authorization}"));
    if uri.query().is_some_and(|query| query.contains("watch=true")) {
        let events = futures::stream::unfold(server.events.subscribe(), |mut events| async {
            Some((Ok::<_, Closed>(events.recv().await.ok()?), events))
        });
        return Body::from_stream(events).into_response();
    }
    // Each list is another one: it tells how many requests came before.
    let item =
        json!({"metadata": {"name": "a", "namespace": "ns", "resourceVersion": seen.len().to_string()}});
    axum::Json(json!({"kind": "ThingList", "items": [item]})).into_response()
}

#[derive(Debug)]
struct Closed;
impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed")
    }
}
impl std::error::Error for Closed {}

struct Bed {
    server: Server,
    task: JoinHandle<()>,
    proxy: Kproxy,
    http: reqwest::Client,
    kubeconfig: PathBuf,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_dir_all(self.kubeconfig.parent().unwrap());
    }
}

impl Bed {
    async fn new(name: &str) -> Self {
        // Only the first one can.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Server { seen: Arc::default(), events: broadcast::channel(64).0 };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(server.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let dir = std::env::temp_dir().join(format!("kproxy-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (account, kubeconfig) = (dir.join("account"), dir.join("through"));
        let config = json!({
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}/")}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        });
        fs::write(&account, config.to_string()).unwrap();
        let proxy = Kproxy::start(&account).await.unwrap();
        proxy.kubeconfig(&kubeconfig, &account).unwrap();
        Self { server, task, proxy, http: reqwest::Client::builder().no_proxy().build().unwrap(), kubeconfig }
    }

    async fn send(&self, method: &str, path: &str) -> reqwest::Result<reqwest::Response> {
        let url = format!("http://{}{path}", self.proxy.address());
        self.http.request(method.parse().unwrap(), url).bearer_auth("t").send().await
    }

    async fn code(&self, method: &str, path: &str) -> Option<u16> {
        self.send(method, path).await.ok().map(|answer| answer.status().as_u16())
    }

    async fn json(&self, path: &str) -> Value {
        self.send("GET", path).await.unwrap().json().await.unwrap()
    }

    fn seen(&self) -> Vec<String> {
        self.server.seen.lock().unwrap().clone()
    }

    /// The server's next event on all watches.
    fn event(&self, type_: &str, name: &str) {
        let event = json!({"type": type_, "object": {"metadata": {"name": name, "namespace": "ns"}}});
        self.server.events.send(format!("{event}\n")).unwrap();
    }

    /// A watch, as the names of its events.
    async fn watch(&self) -> impl futures::Stream<Item = String> + use<> {
        let answer = self.send("GET", &format!("{THINGS}?watch=true&resourceVersion=1")).await.unwrap();
        Box::pin(answer.bytes_stream().map(|line| {
            let event: Value = serde_json::from_slice(&line.unwrap()).unwrap();
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            format!("{} {name}{}", event["type"].as_str().unwrap(), event["object"]["code"])
        }))
    }
}

async fn next(events: &mut (impl futures::Stream<Item = String> + Unpin)) -> Option<String> {
    timeout(PATIENCE, events.next()).await.expect("the watch goes on")
}

async fn assert_still(events: &mut (impl futures::Stream<Item = String> + Unpin)) {
    assert!(timeout(MOMENT, events.next()).await.is_err(), "nothing comes");
}

fn puts(fault: Fault) -> Rule {
    Rule::new(fault).verbs(&[Verb::Update]).resources(&["things/status"])
}

fn put() -> (&'static str, &'static str) {
    ("PUT", "/apis/g/v1/namespaces/ns/things/a/status")
}

#[tokio::test]
async fn passes_on_what_no_rule_is_for() {
    let bed = Bed::new("plain").await;
    let config: Value = serde_json::from_slice(&fs::read(&bed.kubeconfig).unwrap()).unwrap();
    assert_eq!(config["clusters"][0]["cluster"]["server"], format!("http://{}", bed.proxy.address()));
    assert_eq!(config["users"][0]["user"]["token"], "t");
    bed.proxy.add(puts(Fault::DropRequest));
    assert_eq!(bed.json(&format!("{THINGS}?limit=5")).await["kind"], "ThingList");
    assert_eq!(bed.seen(), [format!("GET {THINGS}?limit=5 Bearer t")]);
    let log = bed.proxy.log();
    let request = &log.requests[0];
    assert_eq!(
        (request.target.to_string(), request.code, request.forwarded),
        ("list things".into(), Some(200), Some(200))
    );
}

#[tokio::test]
async fn requests_and_answers_get_lost() {
    let bed = Bed::new("lost").await;
    let (method, path) = put();
    bed.proxy.add(puts(Fault::DropRequest).nth(&[1]));
    bed.proxy.add(puts(Fault::DropAnswer).nth(&[2]));
    assert_eq!((bed.code(method, path).await, bed.seen().len()), (None, 0));
    assert_eq!((bed.code(method, path).await, bed.seen().len()), (None, 1));
    assert_eq!((bed.code(method, path).await, bed.seen().len()), (Some(200), 2));
    let log = bed.proxy.log().requests;
    let ends: Vec<_> = log.iter().map(|request| (request.code, request.forwarded)).collect();
    assert_eq!(ends, [(None, None), (None, Some(200)), (Some(200), Some(200))]);
}

#[tokio::test]
async fn errors_look_as_the_api_servers_do() {
    let bed = Bed::new("errors").await;
    let (method, path) = put();
    for (code, reason) in [
        (409, "Conflict"),
        (410, "Expired"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (504, "Timeout"),
    ] {
        bed.proxy.clear();
        bed.proxy.add(puts(Fault::Answer { code, retry_after: (code == 429).then_some(7) }));
        let answer = bed.send(method, path).await.unwrap();
        assert_eq!(answer.status().as_u16(), code);
        let retry_after = answer.headers().get(header::RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
        let body: Value = answer.json().await.unwrap();
        assert_eq!(
            (&body["kind"], &body["reason"], &body["code"]),
            (&json!("Status"), &json!(reason), &json!(code))
        );
        assert_eq!(retry_after.as_deref(), (code == 429).then_some("7"));
    }
    assert!(bed.seen().is_empty());
    bed.proxy.clear();
    let rule = bed.proxy.add(puts(Fault::ApplyThenAnswer { code: 504 }));
    assert_eq!((bed.code(method, path).await, bed.seen().len(), bed.proxy.fired(rule)), (Some(504), 1, 1));
}

#[tokio::test]
async fn a_delay_delays() {
    let bed = Bed::new("delay").await;
    bed.proxy.add(puts(Fault::Delay(MOMENT)));
    let began = Instant::now();
    assert_eq!(bed.code(put().0, put().1).await, Some(200));
    assert!(began.elapsed() >= MOMENT);
}

#[tokio::test]
async fn a_request_is_held_before_or_after_it_is_applied() {
    let bed = Bed::new("held").await;
    let (method, path) = put();
    for (point, go, code, applied) in [
        (Point::BeforeApplied, Go::Drop, None, 0),
        (Point::BeforeApplied, Go::On, Some(200), 1),
        (Point::AfterApplied, Go::Drop, None, 1),
        (Point::AfterApplied, Go::On, Some(200), 1),
    ] {
        bed.server.seen.lock().unwrap().clear();
        bed.proxy.clear();
        let mut breakpoint = bed.proxy.breakpoint(point, |fault| puts(fault).nth(&[2]));
        assert_eq!(bed.code(method, path).await, Some(200), "only the second is held");
        let held = async {
            let target = timeout(PATIENCE, breakpoint.hit()).await.unwrap().unwrap();
            assert_eq!((target.to_string(), target.name.as_str()), ("update things/status".into(), "a"));
            let applied = bed.seen().len() - 1;
            breakpoint.go(go);
            applied
        };
        let (answered, held) = tokio::join!(bed.code(method, path), held);
        assert_eq!(held, usize::from(point == Point::AfterApplied));
        assert_eq!((answered, bed.seen().len() - 1), (code, applied), "{point:?} {go:?}");
    }
}

#[tokio::test]
async fn a_held_request_whose_client_is_killed_is_never_applied() {
    let bed = Bed::new("killed").await;
    let mut breakpoint = bed.proxy.breakpoint(Point::BeforeApplied, puts);
    let dies = timeout(MOMENT, bed.code(put().0, put().1));
    let (dead, target) = tokio::join!(dies, breakpoint.hit());
    assert!(dead.is_err() && target.is_some());
    drop(breakpoint);
    bed.proxy.clear();
    assert_eq!((bed.code(put().0, put().1).await, bed.seen().len()), (Some(200), 1), "only this one");
}

#[tokio::test]
async fn what_was_begun_is_applied_though_the_client_is_gone() {
    let bed = Bed::new("begun").await;
    let mut breakpoint = bed.proxy.breakpoint(Point::BeforeApplied, puts);
    let dies = timeout(MOMENT, bed.code(put().0, put().1));
    let (dead, _) = tokio::join!(dies, breakpoint.hit());
    assert!(dead.is_err());
    breakpoint.go(Go::On);
    timeout(PATIENCE, async {
        while bed.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a packet that was under way arrives");
}

#[tokio::test]
async fn events_of_a_watch_are_dropped_by_number() {
    let bed = Bed::new("events").await;
    let rule = bed.proxy.add(Rule::new(Fault::DropEvent).name("a").nth(&[1, 3]));
    let mut events = bed.watch().await;
    for (type_, name) in [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("BOOKMARK", ""),
        ("MODIFIED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
    ] {
        bed.event(type_, name);
    }
    for expected in ["ADDED bnull", "BOOKMARK null", "MODIFIED anull", "DELETED anull"] {
        assert_eq!(next(&mut events).await.as_deref(), Some(expected));
    }
    let log = bed.proxy.log().events;
    let lost: Vec<_> = log.iter().map(|event| event.passed_on).collect();
    assert_eq!((lost, bed.proxy.fired(rule)), (vec![false, true, true, true, false, true], 2));
}

#[tokio::test]
async fn a_watch_ends_with_410() {
    let bed = Bed::new("gone").await;
    bed.proxy.add(Rule::new(Fault::EndWatch).nth(&[2]));
    let mut events = bed.watch().await;
    bed.event("ADDED", "a");
    bed.event("ADDED", "b");
    assert_eq!(next(&mut events).await.as_deref(), Some("ADDED anull"));
    assert_eq!(next(&mut events).await.as_deref(), Some("ERROR 410"));
    assert_eq!(next(&mut events).await, None);
}

#[tokio::test]
async fn a_frozen_watch_goes_on_when_it_is_released() {
    let bed = Bed::new("frozen").await;
    let mut events = bed.watch().await;
    bed.event("ADDED", "a");
    assert_eq!(next(&mut events).await.as_deref(), Some("ADDED anull"));
    let rule = bed.proxy.add(Rule::new(Fault::FreezeWatch).resources(&["things"]));
    bed.event("MODIFIED", "a");
    assert_still(&mut events).await;
    bed.proxy.remove(rule);
    assert_eq!(next(&mut events).await.as_deref(), Some("MODIFIED anull"));
}

#[tokio::test]
async fn the_past_is_served_until_it_is_released() {
    let bed = Bed::new("stale").await;
    let mut events = bed.watch().await;
    let then = bed.proxy.remember(THINGS).await.unwrap();
    let now = bed.json(THINGS).await;
    assert_ne!(&now, then.list(), "the server has gone on");
    bed.proxy.add(Rule::new(Fault::Stale(then.clone())).resources(&["things"]));
    bed.event("MODIFIED", "a");
    assert_eq!(&bed.json(THINGS).await, then.list());
    assert_eq!(bed.json(&format!("{THINGS}/a")).await, then.list()["items"][0]);
    assert_eq!(bed.code("GET", &format!("{THINGS}/b")).await, Some(404));
    let metadata = bed.http.get(format!("http://{}{THINGS}/a", bed.proxy.address()));
    let metadata =
        metadata.header(header::ACCEPT, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let metadata: Value = metadata.send().await.unwrap().json().await.unwrap();
    assert_eq!(metadata["kind"], "PartialObjectMetadata");
    assert_eq!(bed.seen().len(), 3, "the server was not asked");
    assert_still(&mut events).await;
    bed.proxy.clear();
    assert_eq!(next(&mut events).await.as_deref(), Some("MODIFIED anull"));
    assert_ne!(&bed.json(THINGS).await, then.list());
}

#[tokio::test]
async fn nothing_runs_on_after_the_proxy() {
    let bed = Bed::new("end").await;
    let address = bed.proxy.address();
    let mut breakpoint = bed.proxy.breakpoint(Point::AfterApplied, puts);
    let mut events = bed.watch().await;
    let http = bed.http.clone();
    let held =
        tokio::spawn(async move { http.put(format!("http://{address}{}", put().1)).send().await.is_err() });
    timeout(PATIENCE, breakpoint.hit()).await.unwrap();
    let Bed { proxy, .. } = &bed;
    proxy.shared.end();
    assert!(timeout(PATIENCE, held).await.unwrap().unwrap(), "what was held is closed");
    let ended =
        timeout(PATIENCE, async { std::panic::AssertUnwindSafe(events.next()).catch_unwind().await }).await;
    assert!(ended.is_ok_and(|event| !matches!(event, Ok(Some(_)))), "watches end");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
}
