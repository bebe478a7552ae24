//! The API server's part in filling a cache, and nothing else of it: pages of a list, a watch in which nothing happens.
//! It answers both sides alike, as fast as loopback takes it, so what is measured is the cache and not the server.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use gemini_operator::api::keyring::KEYRING_SECRET;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::world;

/// What stands in the text of an object for its number; none of them is in JSON text.
const NAME: char = '\u{1}';
const UID: char = '\u{2}';
const JOB: char = '\u{3}';
/// Of the one webhook.
const WEBHOOK: &str = "00000000-0000-4000-8000-00000000beef";

/// A list of as many objects as one wants.
pub struct List {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    object: String,
    count: AtomicUsize,
    /// When the first watch of the batches began: the list before it has been worked up by then.
    watched: watch::Sender<Option<Instant>>,
    /// The batch whose status was last written.
    written: watch::Sender<String>,
}

/// The name of a batch.
pub fn name(number: usize) -> String {
    format!("job-{number:07}")
}

/// The job of a batch.
pub fn job(number: usize) -> String {
    format!("batches/cached{number:014}")
}

impl List {
    /// Copies of this object, which is one of a cluster's.
    pub async fn open(object: &Value) -> Self {
        let own =
            |path: &str| object.pointer(path).and_then(Value::as_str).expect("a batch has it").to_owned();
        let (name, uid) = (own("/metadata/name"), own("/metadata/uid"));
        let job = own("/status/runs/0/remoteName");
        let text = object.to_string();
        let text = text.replace(&uid, &UID.to_string()).replace(&job, &JOB.to_string());
        let object = text.replace(&name, &NAME.to_string());
        let shared = Arc::new(Shared {
            object,
            count: AtomicUsize::new(0),
            watched: watch::Sender::new(None),
            written: watch::Sender::new(String::new()),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { address, shared }
    }

    /// From now on there are so many; nobody has followed them yet.
    pub fn hold(&self, count: usize) {
        self.shared.count.store(count, Ordering::Relaxed);
        self.shared.watched.send_replace(None);
    }

    /// When somebody has taken in all of them, and goes on with a watch.
    pub async fn followed(&self) -> Instant {
        let mut watched = self.shared.watched.subscribe();
        let at = watched.wait_for(Option::is_some).await.expect("the list stays open");
        at.expect("that was waited for")
    }

    /// The batch whose status was last written.
    pub fn written(&self) -> String {
        self.shared.written.borrow().clone()
    }

    /// The size of one object as text.
    pub fn bytes(&self) -> usize {
        self.shared.object(0).len()
    }
}

impl Shared {
    fn object(&self, number: usize) -> String {
        let mut text = String::with_capacity(self.object.len() + 256);
        self.append(number, &mut text);
        text
    }

    fn append(&self, number: usize, text: &mut String) {
        for piece in self.object.split_inclusive([NAME, UID, JOB]) {
            let mark = piece.chars().next_back().filter(|last| [NAME, UID, JOB].contains(last));
            text.push_str(&piece[..piece.len() - mark.map_or(0, char::len_utf8)]);
            match mark {
                Some(NAME) => text.push_str(&name(number)),
                Some(UID) => {
                    write!(text, "{number:08x}-0000-4000-8000-000000000000").expect("a String takes it");
                }
                Some(_) => text.push_str(&job(number)),
                None => {}
            }
        }
    }

    fn page(&self, from: usize, limit: usize) -> String {
        let count = self.count.load(Ordering::Relaxed);
        let to = count.min(from + limit);
        let next = if to < count { to.to_string() } else { String::new() };
        let meta = json!({"resourceVersion": "1", "continue": next});
        let mut text = format!(
            "{{\"apiVersion\":\"gemini-operator.io/v1alpha1\",\"kind\":\"GeminiBatchList\",\"metadata\":{meta},\"items\":["
        );
        for number in from..to {
            if number > from {
                text.push(',');
            }
            self.append(number, &mut text);
        }
        text + "]}"
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut all = query.split('&').filter_map(|pair| pair.split_once('='));
        all.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let number = |name: &str| parameter(name).and_then(|value| value.parse::<usize>().ok());
    let batches = path.ends_with("/geminibatches");
    if parameter("watch").is_some_and(|watch| watch == "true" || watch == "1") {
        if batches {
            shared.watched.send_if_modified(|at| at.is_none() && at.replace(Instant::now()).is_none());
        }
        let nothing = futures::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>();
        return Body::from_stream(nothing).into_response();
    }
    let list = |item: Value| {
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": [item]})
            .to_string()
    };
    let webhook = || {
        json!({
            "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiWebhook",
            "metadata": {"name": "main", "namespace": "bench", "uid": WEBHOOK},
            "status": {"path": world::PATH},
        })
    };
    let body = if request.method() == Method::PATCH && path.ends_with("/status") {
        let name = path.rsplit('/').nth(1).unwrap_or_default().to_owned();
        let number = name.strip_prefix("job-").and_then(|number| number.parse().ok());
        let object = number.map_or_else(|| webhook().to_string(), |number| shared.object(number));
        if number.is_some() {
            shared.written.send_replace(name);
        }
        object
    } else if batches {
        shared.page(number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX))
    } else if path.ends_with("/geminiwebhooks") {
        list(webhook())
    } else if path.ends_with("/secrets") {
        let entry = data_encoding::BASE64.encode(world::entry().as_bytes());
        list(json!({"metadata": {"name": KEYRING_SECRET, "namespace": "bench"}, "data": {WEBHOOK: entry}}))
    } else {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404});
        return (StatusCode::NOT_FOUND, status.to_string()).into_response();
    };
    ([("content-type", "application/json")], body).into_response()
}
