//! The wire form of the one write, against an API server of canned answers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::http::{Request, Response};
use futures::future::BoxFuture;
use kube::client::Body as KubeBody;
use prometheus_client::registry::Registry;

use super::*;

#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    requests: Arc<Mutex<Vec<(String, String, Value)>>>,
}

impl tower::Service<Request<KubeBody>> for Server {
    type Response = Response<KubeBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<KubeBody>) -> Self::Future {
        let (answers, requests) = (self.answers.clone(), self.requests.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap();
            let types = ["content-type", "accept"].map(|name| parts.headers[name].to_str().unwrap());
            let media_type = types.join(", for ");
            requests.lock().unwrap().push((format!("{} {}", parts.method, parts.uri), media_type, body));
            let answer = answers.lock().unwrap().pop_front();
            let Some((code, answer)) = answer else { return std::future::pending().await };
            let answer = KubeBody::from(serde_json::to_vec(&answer).unwrap());
            Ok(Response::builder().status(code).body(answer).unwrap())
        })
    }
}

fn target(kind: Kind) -> Target {
    Target { kind, namespace: "a".into(), name: "x".into(), uid: "uid-x".into() }
}

fn status(code: u16, reason: &str, causes: &Value) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
            "message": reason, "details": {"causes": causes}}),
    )
}

fn object() -> (u16, Value) {
    (
        200,
        json!({"kind": "PartialObjectMetadata", "metadata": {"name": "x", "namespace": "a", "uid": "uid-x"}}),
    )
}

async fn apply(
    kind: Kind,
    answers: Vec<(u16, Value)>,
) -> (Result<(), PatchError>, Vec<(String, String, Value)>) {
    let server = Server::default();
    server.answers.lock().unwrap().extend(answers);
    let patch =
        KubePatch::new(Client::new(server.clone(), "default"), Metrics::register(&mut Registry::default()));
    let result = patch.apply_status(&target(kind), json!({"lastEvent": {"id": "1"}})).await;
    (result, std::mem::take(&mut server.requests.lock().unwrap()))
}

#[tokio::test]
async fn wire_form() {
    for (kind, name, plural) in
        [(Kind::Batch, "GeminiBatch", "geminibatches"), (Kind::Webhook, "GeminiWebhook", "geminiwebhooks")]
    {
        let (result, requests) = apply(kind, vec![object()]).await;
        assert_eq!(result, Ok(()));
        let [(line, media_type, body)] = &requests[..] else { panic!("{requests:?}") };
        let path = format!("/apis/gemini-operator.io/v1alpha1/namespaces/a/{plural}/x/status");
        assert_eq!(line, &format!("PATCH {path}?&fieldManager=gemini-operator%2Freceiver"));
        let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(media_type, &format!("application/apply-patch+yaml, for {metadata}"));
        let wanted = json!({
            "apiVersion": "gemini-operator.io/v1alpha1", "kind": name,
            "metadata": {"name": "x", "namespace": "a", "uid": "uid-x"},
            "status": {"lastEvent": {"id": "1"}},
        });
        assert_eq!(body, &wanted);
    }
}

#[tokio::test]
async fn answers() {
    let none = json!([]);
    for (answer, wanted) in [
        (status(404, "NotFound", &none), Err(PatchError::Gone)),
        ((200, json!({"metadata": {"name": "x", "namespace": "a", "uid": "newer"}})), Err(PatchError::Gone)),
        (status(403, "Forbidden", &none), Err(PatchError::Unavailable)),
        (status(422, "Invalid", &none), Err(PatchError::Unavailable)),
        (status(500, "InternalError", &none), Err(PatchError::Unavailable)),
        ((200, json!("not an object")), Err(PatchError::Unavailable)),
    ] {
        let (result, requests) = apply(Kind::Batch, vec![answer.clone()]).await;
        assert_eq!(result, wanted, "{answer:?}");
        assert_eq!(requests.len(), 1);
    }
}

#[tokio::test]
async fn force_only_against_another_owner_of_our_field() {
    let taken = status(
        409,
        "Conflict",
        &json!([{"reason": "FieldManagerConflict", "field": ".status.lastEvent.id"}]),
    );
    let (result, requests) = apply(Kind::Batch, vec![taken, object()]).await;
    assert_eq!(result, Ok(()));
    assert!(!requests[0].0.contains("force") && requests[1].0.contains("force=true"), "{requests:?}");
}

#[tokio::test]
async fn a_busy_object_is_not_a_missing_one() {
    let busy = || status(409, "Conflict", &json!([]));
    let (result, requests) = apply(Kind::Batch, vec![busy(), busy(), object()]).await;
    assert_eq!((result, requests.len()), (Ok(()), 3));
    let (result, _) = apply(Kind::Batch, vec![busy(), busy(), busy(), busy(), object()]).await;
    assert_eq!(result, Err(PatchError::Unavailable));
}

#[tokio::test]
async fn a_server_that_does_not_answer() {
    let silent = Client::new(Server::default(), "default");
    let patch = KubePatch {
        write_timeout: Duration::from_millis(20),
        ..KubePatch::new(silent, Metrics::register(&mut Registry::default()))
    };
    let result = patch.apply_status(&target(Kind::Batch), json!({})).await;
    assert_eq!(result, Err(PatchError::Unavailable));
}

/// Counts what is under way at once.
#[derive(Clone, Default)]
struct Counting {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl tower::Service<Request<KubeBody>> for Counting {
    type Response = Response<KubeBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<KubeBody>) -> Self::Future {
        let Self { now, most } = self.clone();
        Box::pin(async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Long enough for all others to come.
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            let (code, answer) = object();
            let answer = KubeBody::from(serde_json::to_vec(&answer).unwrap());
            Ok(Response::builder().status(code).body(answer).unwrap())
        })
    }
}

/// More at once would make an API server slower that is slow already, and each costs it a connection.
#[tokio::test]
async fn writes_of_many_objects_take_turns() {
    for (namespaces, most) in [(1, limits::WRITES_PER_NAMESPACE), (3, limits::WRITES_AT_ONCE)] {
        let server = Counting::default();
        let client = Client::new(server.clone(), "default");
        let patch = KubePatch::new(client, Metrics::register(&mut Registry::default()));
        let targets: Vec<Target> = (0..4 * limits::WRITES_AT_ONCE)
            .map(|number| Target {
                namespace: format!("tenant-{}", number % namespaces).into(),
                ..target(Kind::Batch)
            })
            .collect();
        let writes = targets.iter().map(|target| patch.apply_status(target, json!({})));
        let written = futures::future::join_all(writes).await;
        assert!(written.iter().all(Result::is_ok));
        assert_eq!(server.most.load(Ordering::SeqCst), most, "{namespaces} namespaces");
    }
}
