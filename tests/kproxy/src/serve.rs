//! From connection to answer.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::breakpoint::{Go, Point};
use crate::log::Logbook;
use crate::request::{Target, Verb};
use crate::rules::{Fault, Rules, Stage};
use crate::upstream::Upstream;
use crate::{status, watching};

/// Larger than any object that the API server takes.
const BODY_LIMIT: usize = 16 * 1024 * 1024;
/// Of one connection; or they would speak of another.
const HOP_BY_HOP: [header::HeaderName; 5] =
    [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::UPGRADE];

/// The connection is closed without an answer.
#[derive(Debug)]
pub(crate) struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed without an answer")
    }
}

impl std::error::Error for Closed {}

/// What every connection shares.
pub(crate) struct Shared {
    pub upstream: Upstream,
    pub rules: Arc<Rules>,
    pub log: Arc<Logbook>,
    /// All that runs for this proxy; `None` after its end.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Shared {
    pub fn new(upstream: Upstream) -> Self {
        let tasks = Mutex::new(Some(JoinSet::new()));
        Self { upstream, rules: Arc::new(Rules::new()), log: Arc::default(), tasks }
    }

    /// Runs on its own, until the proxy ends.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = tasks.as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(work);
        }
    }

    /// Ends all of it.
    pub fn end(&self) {
        drop(self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        // Only latency is lost.
        let _ = stream.set_nodelay(true);
        shared.spawn(connection(Arc::clone(&shared), stream));
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let (done, answer) = oneshot::channel();
            let exchange = exchange(Arc::clone(&shared), request);
            // On its own: what the API server was asked is not taken back when the client goes away.
            shared.spawn(async move {
                // Nobody may be there to hear it.
                let _ = done.send(exchange.await);
            });
            answer.await.unwrap_or(Err(Closed))
        }
    });
    // Ends with either side.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn exchange(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), BODY_LIMIT).await.map_err(|_| Closed)?;
    let target = Target::of(&parts.method, &parts.uri, &parts.headers, &body);
    let number = shared.log.arrived(&target, &body);
    let exchange = Exchange { shared: &shared, parts, body, target, number };
    let answer = exchange.run().await;
    let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
    shared.log.note(number, |request| request.code = code);
    answer
}

struct Exchange<'a> {
    shared: &'a Shared,
    parts: Parts,
    body: Bytes,
    target: Target,
    number: usize,
}

impl Exchange<'_> {
    async fn run(self) -> Result<Response<Body>, Closed> {
        match self.shared.rules.fault(&self.target, &self.body, Stage::Request) {
            Some(Fault::Delay(pause)) => {
                tokio::time::sleep(pause).await;
                self.forward().await
            }
            Some(Fault::DropRequest) => Err(Closed),
            Some(Fault::DropAnswer) => {
                self.apply().await?;
                Err(Closed)
            }
            Some(Fault::Answer { code, retry_after }) => Ok(refusal(code, retry_after)),
            Some(Fault::ApplyThenAnswer { code }) => {
                self.apply().await?;
                Ok(refusal(code, None))
            }
            Some(Fault::Hold(hold)) if hold.point == Point::BeforeApplied => {
                match hold.wait(&self.target).await {
                    Go::On => self.forward().await,
                    Go::Drop => Err(Closed),
                }
            }
            Some(Fault::Hold(hold)) => {
                let answer = self.forward().await?;
                match hold.wait(&self.target).await {
                    Go::On => Ok(answer),
                    Go::Drop => Err(Closed),
                }
            }
            Some(Fault::Stale(snapshot)) => match snapshot.answer(&self.target) {
                Some((code, answer)) => Ok(json(code, &answer)),
                None => self.forward().await,
            },
            Some(Fault::FreezeWatch | Fault::DropEvent | Fault::EndWatch) | None => self.forward().await,
        }
    }

    /// Done at the API server, to the last byte of its answer.
    async fn apply(&self) -> Result<(), Closed> {
        let answer = self.send().await?;
        answer.bytes().await.map(drop).map_err(|_| Closed)
    }

    async fn send(&self) -> Result<reqwest::Response, Closed> {
        let path = self.parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.shared.upstream.base);
        let mut headers = self.parts.headers.clone();
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
        let request = self.shared.upstream.http.request(self.parts.method.clone(), url);
        let answer = request.headers(headers).body(self.body.clone()).send().await.map_err(|_| Closed)?;
        let code = answer.status().as_u16();
        self.shared.log.note(self.number, |request| request.forwarded = Some(code));
        Ok(answer)
    }

    async fn forward(&self) -> Result<Response<Body>, Closed> {
        let answer = self.send().await?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        for name in HOP_BY_HOP {
            response.headers_mut().remove(name);
        }
        *response.body_mut() = if self.target.verb == Verb::Watch && answer.status().is_success() {
            let (rules, log) = (Arc::clone(&self.shared.rules), Arc::clone(&self.shared.log));
            Body::from_stream(watching::pass_on(self.target.clone(), rules, log, answer.bytes_stream()))
        } else {
            Body::from(answer.bytes().await.map_err(|_| Closed)?)
        };
        Ok(response)
    }
}

fn refusal(code: u16, retry_after: Option<u32>) -> Response<Body> {
    let mut response = json(code, &status::body(code, retry_after));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn json(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
