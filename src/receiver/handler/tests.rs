//! Requests against a handler whose API server is a fake.

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::*;
use crate::api::keyring::{KEYRING_SECRET, fingerprint};
use crate::receiver::fake::FakePatch;
use crate::receiver::index::tests::batch;
use crate::receiver::keys::tests::{NEW, OLD, entry, secret};
use crate::receiver::patch::{Kind, PatchError};
use crate::receiver::public_keys::tests::FakeSource;
use crate::receiver::routes::SlimWebhook;
use crate::receiver::watch::Change;
use prometheus_client::registry::Registry;

mod dynamic;
mod self_test;
mod slow;
mod tutorial;

const NOW: i64 = 1_787_256_625;
const SUCCEEDED: &str =
    r#"{"type":"batch.succeeded","timestamp":"2026-08-20T20:10:25Z","data":{"id":"batches/1"}}"#;

struct World {
    handler: Arc<Handler<FakePatch>>,
    patch: Arc<FakePatch>,
    source: FakeSource,
}

fn webhook(namespace: &str, uid: &str, token: &str, status: &serde_json::Value) -> Route {
    webhook_with(namespace, uid, token, &json!({}), status)
}

fn webhook_with(
    namespace: &str,
    uid: &str,
    token: &str,
    spec: &serde_json::Value,
    status: &serde_json::Value,
) -> Route {
    let mut status = status.clone();
    status["path"] = json!(format!("/v1/h/{token}"));
    let object: SlimWebhook = serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": "main", "uid": uid}, "spec": spec, "status": status,
    }))
    .unwrap();
    object.into_route("operator").unwrap()
}

impl World {
    /// Webhooks `t-a` of namespace a, `t-op` of the operator's, and `t-none` without a secret; batch `batches/1` in
    /// namespace a, `batches/2` in namespace b.
    fn new() -> Self {
        let patch = Arc::new(FakePatch::default());
        let (tasks, source) = (TaskTracker::new(), FakeSource::default());
        let metrics = Metrics::register(&mut Registry::default());
        let handler = Handler {
            readiness: Readiness::new(),
            synced: false.into(),
            routes: Arc::default(),
            keyring: Arc::default(),
            public_keys: PublicKeys::new(Box::new(source.clone()), metrics.clone()),
            index: Arc::default(),
            early: Arc::default(),
            dedupe: Arc::default(),
            store: Store::new(patch.clone(), tasks.clone()),
            deliveries: Deliveries::new(patch.clone(), tasks),
            metrics,
            log: RejectionLog::default(),
            dummy: Key::dummy().unwrap(),
            clock: || Timestamp::from_second(NOW).unwrap(),
            body_timeout: Duration::from_secs(10),
            body_grants: Semaphore::new(limits::BODY_GRANTS),
            shares: Shares::new(limits::DELIVERIES_PER_WEBHOOK),
        };
        // Reported half a minute ago, so that no test is disturbed by a routine report.
        let quiet = json!({"lastDelivery": {"time": "2026-08-20T20:09:55Z"}});
        let webhooks = vec![
            webhook("a", "uid-a", "t-a", &quiet),
            webhook("operator", "uid-op", "t-op", &quiet),
            webhook("a", "uid-none", "t-none", &quiet),
        ];
        handler.routes.apply(0, Change::All(webhooks), (handler.clock)());
        let entries = [("uid-a", &*entry(NEW)), ("uid-op", &*entry(NEW))];
        handler.keyring.apply(Change::All(vec![secret(KEYRING_SECRET, &entries)]));
        handler.index.apply(
            0,
            Change::All(vec![
                batch("a", "x", "uid-x", &["batches/1"]),
                batch("b", "y", "uid-y", &["batches/2"]),
            ]),
        );
        Self { handler: Arc::new(handler), patch, source }
    }

    async fn send(&self, request: Request<Body>) -> u16 {
        self.handler.handle(request).await.status().as_u16()
    }

    /// Takes over a webhook as it is now.
    fn webhook(&self, route: Route) {
        let uid = route.uid.clone();
        self.handler.routes.apply(0, Change::Applied(route), (self.handler.clock)());
        self.handler.deliveries.changed(&self.handler.routes.get(&uid).unwrap());
    }

    async fn deliver(&self, token: &str, id: &str, body: &str) -> u16 {
        self.send(signed(token, id, NOW, body)).await
    }

    fn counted(&self, outcome: Outcome) -> u64 {
        self.handler.metrics.count(outcome)
    }

    fn events(&self) -> Vec<serde_json::Value> {
        let writes = self.patch.writes().into_iter();
        writes.filter(|(target, _)| target.kind == Kind::Batch).map(|(_, status)| status).collect()
    }

    fn reports(&self) -> Vec<serde_json::Value> {
        let writes = self.patch.writes().into_iter();
        let reports = writes.filter(|(target, _)| target.kind == Kind::Webhook);
        reports.map(|(_, status)| status["lastDelivery"].clone()).collect()
    }

    /// Lets background writes happen.
    async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

/// Signed with the webhooks' secret by a second implementation, not by the verifier's own parts.
fn signature(id: &str, timestamp: i64, body: &str) -> String {
    let key = data_encoding::BASE64.decode(NEW.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", data_encoding::BASE64.encode(&mac.finalize().into_bytes()))
}

fn signed(token: &str, id: &str, timestamp: i64, body: &str) -> Request<Body> {
    Request::post(format!("/hooks/v1/h/{token}"))
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature(id, timestamp, body))
        .body(Body::from(body.to_owned()))
        .unwrap()
}

fn with(mut request: Request<Body>, name: &'static str, value: &'static str) -> Request<Body> {
    request.headers_mut().append(name, HeaderValue::from_static(value));
    request
}

fn streamed(chunks: usize) -> Request<Body> {
    let chunk = Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 64 * 1024]));
    let chunks =
        (0..chunks).map(move |_| chunk.as_ref().map(Clone::clone).map_err(|_| std::io::Error::other("")));
    let chunks: Vec<_> = chunks.collect();
    signed("t-a", "m", NOW, "").map(|_| Body::from_stream(futures::stream::iter(chunks)))
}

#[tokio::test]
async fn statuses() {
    let good = || signed("t-a", "m", NOW, SUCCEEDED);
    let get = |method: Method| {
        let mut request = good();
        *request.method_mut() = method;
        request
    };
    let tampered = || good().map(|_| Body::from(SUCCEEDED.replace('1', "2")));
    for (what, request, wanted) in [
        ("good", good(), 204),
        ("GET", get(Method::GET), 405),
        ("HEAD", get(Method::HEAD), 405),
        ("PUT", get(Method::PUT), 405),
        ("GET of an unknown route", Request::get("/").body(Body::empty()).unwrap(), 405),
        ("announced size", with(good(), "content-length", "262145"), 413),
        (
            "announced size, unknown route",
            with(signed("x", "m", NOW, ""), "content-length", "999999999999"),
            413,
        ),
        ("counted size", streamed(5), 413),
        ("the largest size, wrongly signed", streamed(4), 401),
        ("packed", with(good(), "content-encoding", "gzip"), 415),
        ("packed twice", with(with(good(), "content-encoding", "identity"), "content-encoding", "br"), 415),
        ("not packed", with(good(), "content-encoding", "Identity"), 204),
        ("unknown route", signed("t-x", "m", NOW, SUCCEEDED), 401),
        ("no route", Request::post("/").body(Body::empty()).unwrap(), 401),
        ("bad signature", tampered(), 401),
        ("no headers", Request::post("/v1/h/t-a").body(Body::empty()).unwrap(), 401),
        ("duplicate header", with(good(), "webhook-id", "m"), 401),
        ("other scheme beside", with(good(), "x-goog-signature", "00"), 401),
        ("300 s old", signed("t-a", "m", NOW - 300, SUCCEEDED), 204),
        ("301 s old", signed("t-a", "m", NOW - 301, SUCCEEDED), 401),
        ("301 s ahead", signed("t-a", "m", NOW + 301, SUCCEEDED), 401),
        ("no secret yet", signed("t-none", "m", NOW, SUCCEEDED), 503),
        ("foreign job", signed("t-a", "m", NOW, &SUCCEEDED.replace("batches/1", "batches/9")), 204),
        (
            "batch of another namespace",
            signed("t-a", "m", NOW, &SUCCEEDED.replace("batches/1", "batches/2")),
            204,
        ),
        ("unknown type", signed("t-a", "m", NOW, r#"{"type":"video.generated"}"#), 204),
        ("ping", signed("t-a", "m", NOW, r#"{"type":"ping"}"#), 204),
        ("empty ping", signed("t-a", "m", NOW, ""), 204),
        ("not JSON", signed("t-a", "m", NOW, "hello"), 204),
    ] {
        let world = World::new();
        assert_eq!(world.send(request).await, wanted, "{what}");
        world.settle().await;
        let written = ["good", "not packed", "300 s old", "ping", "empty ping"];
        let writes = usize::from(written.contains(&what));
        assert_eq!(world.patch.writes().len(), writes, "{what}");
    }
}

#[tokio::test]
async fn the_hint_is_stored_as_it_was_read() {
    let world = World::new();
    assert_eq!(world.deliver("t-a", "msg_1", SUCCEEDED).await, 204);
    let wanted = json!({"lastEvent": {
        "id": "msg_1", "type": "batch.succeeded", "remoteName": "batches/1",
        "time": "2026-08-20T20:10:25Z", "receivedTime": "2026-08-20T20:10:25Z",
    }});
    assert_eq!(world.events(), [wanted]);
    let (target, _) = world.patch.writes().pop().unwrap();
    assert_eq!((&*target.namespace, &*target.name, &*target.uid), ("a", "x", "uid-x"));
}

#[tokio::test]
async fn answers_do_not_tell_routes_apart() {
    let world = World::new();
    let mut answers = Vec::new();
    for request in [signed("t-x", "m", NOW, ""), signed("t-a", "m", NOW, "").map(|_| Body::from("x"))] {
        let (parts, body) = world.handler.handle(request).await.into_parts();
        let body = axum::body::to_bytes(body, 10).await.unwrap();
        answers.push((parts.status.as_u16(), format!("{:?}", parts.headers), body.len()));
    }
    assert_eq!(answers[0], (401, "{}".into(), 0));
    assert_eq!(answers[0], answers[1]);
    // Even a signature with the key for unknown routes opens nothing.
    assert_eq!(world.handler.metrics.rejected(Rejection::UnknownRoute), 1);
    assert_eq!(world.handler.metrics.rejected(Rejection::NoMatchingSignature), 1);
}

#[tokio::test]
async fn answers_say_what_to_do() {
    let world = World::new();
    let answer = world.handler.handle(Request::get("/").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers()[ALLOW], "POST");
    world.patch.fail(Some(PatchError::Unavailable));
    let answer = world.handler.handle(signed("t-a", "m", NOW, SUCCEEDED)).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[RETRY_AFTER]),
        (503, &HeaderValue::from_static("30"))
    );
}

#[tokio::test]
async fn a_duplicate_is_known_only_when_the_first_was_stored() {
    let world = World::new();
    world.patch.fail(Some(PatchError::Unavailable));
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 503);
    world.patch.fail(None);
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 204);
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 204);
    assert_eq!(world.deliver("t-a", "m2", SUCCEEDED).await, 204);
    assert_eq!(world.events().len(), 1);
    let counts = [Outcome::Unavailable, Outcome::Accepted, Outcome::Duplicate, Outcome::Redundant];
    assert_eq!(counts.map(|outcome| world.counted(outcome)), [1, 1, 1, 1]);
}

#[tokio::test]
async fn duplicates_in_flight_wait_for_the_first() {
    let world = World::new();
    let deliveries = (0..20).map(|_| world.deliver("t-a", "m", SUCCEEDED));
    assert!(futures::future::join_all(deliveries).await.iter().all(|status| *status == 204));
    assert_eq!(world.events().len(), 1);
    assert_eq!((world.counted(Outcome::Accepted), world.counted(Outcome::Duplicate)), (1, 19));

    // None of them is told that all is well while nothing is stored.
    world.patch.fail(Some(PatchError::Unavailable));
    let other = SUCCEEDED.replace("succeeded", "failed");
    let deliveries = (0..5).map(|_| world.deliver("t-a", "n", &other));
    assert!(futures::future::join_all(deliveries).await.iter().all(|status| *status == 503));
}

/// Somebody has copied the path of `t-a` into the status of a webhook of his own, which comes before it.
#[tokio::test]
async fn a_copied_path_takes_nobodys_deliveries() {
    let world = World::new();
    world.webhook(webhook("b", "uid-0", "t-a", &json!({})));
    let entries = [("uid-a", &*entry(NEW)), ("uid-0", &*entry(OLD))];
    world.handler.keyring.apply(Change::Applied(secret(KEYRING_SECRET, &entries)));
    assert_eq!(&*world.handler.routes.find("t-a")[0].uid, "uid-0");
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 204);
    assert_eq!((world.counted(Outcome::Accepted), world.events().len()), (1, 1));
    let mut forged = signed("t-a", "n", NOW, SUCCEEDED);
    *forged.body_mut() = Body::from("other words");
    assert_eq!(world.send(forged).await, 401);
}

#[tokio::test]
async fn whom_a_webhook_serves() {
    let world = World::new();
    let second = SUCCEEDED.replace("batches/1", "batches/2");
    assert_eq!(world.deliver("t-a", "1", &second).await, 204);
    assert_eq!((world.counted(Outcome::Foreign), world.events().len()), (1, 0));
    assert_eq!(world.deliver("t-op", "1", &second).await, 204);
    assert_eq!((world.counted(Outcome::Accepted), world.events().len()), (1, 1));
    // Gone at the very moment: not ours any more.
    world.patch.fail(Some(PatchError::Gone));
    assert_eq!(world.deliver("t-op", "2", SUCCEEDED).await, 204);
    assert_eq!(world.counted(Outcome::Foreign), 2);
}

#[tokio::test]
async fn an_early_event_is_applied_when_its_batch_appears() {
    let world = World::new();
    let third = SUCCEEDED.replace("batches/1", "batches/3");
    assert_eq!(world.deliver("t-a", "1", &third).await, 204);
    assert_eq!(world.deliver("t-op", "2", &third).await, 204);
    assert_eq!((world.counted(Outcome::Early), world.events().len()), (2, 0));

    let new = world.handler.index.apply(0, Change::Applied(batch("b", "z", "uid-z", &["batches/3"])));
    world.patch.fail(Some(PatchError::Unavailable));
    assert_eq!(world.handler.appeared(&new).await, new, "the one that is served must be tried again");
    world.patch.fail(None);
    assert!(world.handler.appeared(&new).await.is_empty());
    let (target, status) = world.patch.writes().pop().unwrap();
    assert_eq!((&*target.uid, &status["lastEvent"]["id"]), ("uid-z", &json!("2")));
    assert_eq!(world.events().len(), 1);
    assert!(world.handler.appeared(&new).await.is_empty());
    assert_eq!(world.events().len(), 1);
}

#[tokio::test]
async fn early_events_do_not_wait_for_each_other() {
    let world = World::new();
    let (appeared, names) = tokio::sync::mpsc::unbounded_channel();
    for job in (10..30).map(|n| format!("batches/{n}")) {
        assert_eq!(world.deliver("t-a", &job, &SUCCEEDED.replace("batches/1", &job)).await, 204);
        let new = world.handler.index.apply(0, Change::Applied(batch("a", &job, &job, &[&job])));
        appeared.send(new).unwrap();
    }
    drop(appeared);
    world.patch.together(20);
    crate::receiver::early_events(world.handler.clone(), names).await;
    assert_eq!(world.events().len(), 20);
}

#[tokio::test]
async fn nothing_is_judged_before_the_tables_are_there() {
    let world = World::new();
    let gate = world.handler.readiness.gate("webhook cache");
    assert_eq!(world.deliver("t-x", "m", SUCCEEDED).await, 503);
    gate.done();
    assert_eq!(world.deliver("t-x", "m", SUCCEEDED).await, 401);
    // Later gates, such as that of the shutdown, turn nobody away.
    let _shutdown = world.handler.readiness.gate("shutdown");
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 204);
}

#[tokio::test]
async fn a_ping_that_comes_before_its_self_test_is_seen_is_reported_at_once() {
    let world = World::new();
    world.patch.fail(Some(PatchError::Unavailable));
    assert_eq!(world.deliver("t-a", "ping_1", "").await, 503, "it is stored before it is answered");
    world.patch.fail(None);
    assert_eq!(world.deliver("t-a", "ping_1", "").await, 204);
    assert_eq!(world.reports().pop().unwrap()["id"], "ping_1");
}

#[tokio::test]
async fn without_a_self_test_abuse_causes_no_writes() {
    let world = World::new();
    for n in 0..50 {
        let tampered = signed("t-a", &n.to_string(), NOW, "{}").map(|_| Body::from("x"));
        assert_eq!(world.send(tampered).await, 401);
    }
    world.settle().await;
    assert!(world.patch.writes().is_empty());
}
