//! The accept loop: HTTP/1.1, plain or TLS, with the time-outs and bounds that ready-made servers leave out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits;
use super::metrics::Metrics;
use crate::runtime::tls::Tls;

/// The bounds of the accept loop; tests shrink them.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub linger: Duration,
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS,
            header_timeout: limits::HEADER_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            linger: limits::LINGER,
            drain: limits::DRAIN,
        }
    }
}

/// What a connection has shown of itself, for the moment when there are too many. Comes along with each request.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Shown>);

#[derive(Debug, Default)]
struct Shown {
    proven: AtomicBool,
    working: AtomicBool,
}

/// Whom to close for a newcomer, the first of them first; `None` = nobody may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Has brought nothing but bytes so far, headers or a body: anybody can.
    Stranger,
    /// Has brought an authentic delivery before, as the kept connections of an Ingress have.
    Known,
}

impl Standing {
    /// An authentic delivery is being worked on.
    pub fn prove(&self) {
        self.0.proven.store(true, Ordering::Relaxed);
        self.0.working.store(true, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.0.working.store(false, Ordering::Relaxed);
    }

    fn rank(&self) -> Option<Rank> {
        match (self.0.working.load(Ordering::Relaxed), self.0.proven.load(Ordering::Relaxed)) {
            (true, _) => None,
            (false, true) => Some(Rank::Known),
            (false, false) => Some(Rank::Stranger),
        }
    }
}

/// What answers requests. Their extensions hold the connection's [`Standing`].
pub trait Service: Send + Sync + 'static {
    fn answer(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

/// The server.
pub struct Server<S> {
    pub service: Arc<S>,
    pub tls: Option<Arc<Tls>>,
    pub metrics: Metrics,
    pub bounds: Bounds,
}

impl<S: Service> Server<S> {
    /// Serves until `stop`, and a little longer, so that whoever keeps a connection is told with his next answer that it
    /// ends. Then takes no more connections, lets the open ones end, and returns when they have or the time is up.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let connections = Arc::new(Connections::default());
        let tasks = TaskTracker::new();
        let end = CancellationToken::new();
        let lingered = async {
            stop.cancelled().await;
            tokio::time::sleep(self.bounds.linger).await;
        };
        tokio::pin!(lingered);
        loop {
            let accepted = tokio::select! {
                () = &mut lingered => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.take(stream, &connections, &tasks, [&stop, &end]),
                Err(error) => pause(&error).await,
            }
        }
        drop(listener);
        end.cancel();
        tasks.close();
        if tokio::time::timeout(self.bounds.drain, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "closing connections that did not end in time");
            connections.close_all();
            tasks.wait().await;
        }
    }

    fn take(
        &self,
        stream: TcpStream,
        connections: &Arc<Connections>,
        tasks: &TaskTracker,
        [stop, end]: [&CancellationToken; 2],
    ) {
        let Some(place) = connections.enter(self.bounds.connections, &self.metrics) else {
            // All are busy with authentic deliveries: the newcomer goes, and its sender comes again.
            return;
        };
        let connection = Connection {
            service: self.service.clone(),
            place,
            bounds: self.bounds,
            stop: stop.clone(),
            end: end.clone(),
            deadline: Instant::now() + self.bounds.header_timeout,
        };
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
        tasks.spawn(async move {
            // Answers are one small packet each; waiting to fill it up gains nothing. If it fails, they are late.
            let _ = stream.set_nodelay(true);
            match acceptor {
                None => connection.speak(stream).await,
                Some(acceptor) => {
                    let killed = connection.place.killed.clone();
                    let handshake = tokio::time::timeout_at(connection.deadline, acceptor.accept(stream));
                    tokio::select! {
                        () = killed.cancelled() => {}
                        done = handshake => {
                            if let Ok(Ok(stream)) = done {
                                connection.speak(stream).await;
                            }
                        }
                    }
                }
            }
        });
    }
}

/// Errors of `accept` belong to one connection, or mean that there are no file descriptors left.
async fn pause(error: &io::Error) {
    let harmless =
        [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionRefused];
    if !harmless.contains(&error.kind()) {
        tracing::error!(error = error as &dyn std::error::Error, "accepting a connection failed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Connection<S> {
    service: Arc<S>,
    place: Place,
    bounds: Bounds,
    /// From then on each answer is the last one of its connection.
    stop: CancellationToken,
    /// From then on nothing new is read.
    end: CancellationToken,
    /// By when the first request's headers must be there.
    deadline: Instant,
}

impl<S: Service> Connection<S> {
    async fn speak<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(self, io: I) {
        let Self { service, place, bounds, stop, end, deadline } = self;
        let standing = place.standing.clone();
        let begun = Arc::new(AtomicBool::new(false));
        let service = {
            let begun = begun.clone();
            service_fn(move |request: Request<hyper::body::Incoming>| {
                begun.store(true, Ordering::Relaxed);
                let (service, standing, stop) = (service.clone(), standing.clone(), stop.clone());
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(standing.clone());
                async move {
                    let mut response = service.answer(request).await;
                    standing.answered();
                    if stop.is_cancelled() {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(response)
                }
            })
        };
        let connection = http1::Builder::new()
            // Without a timer hyper's own time-out would never fire. It also runs while a connection is idle, so it is
            // the idle time-out; the stricter one for the first request is below.
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.idle_timeout)
            .max_buf_size(limits::ALL_HEADERS_BYTES)
            .max_headers(limits::HEADERS)
            .serve_connection(TokioIo::new(io), service);
        tokio::pin!(connection);
        let (mut stopping, mut first) = (false, true);
        loop {
            tokio::select! {
                // An error is the peer's: a broken request, or a broken connection.
                _ = connection.as_mut() => return,
                () = place.killed.cancelled() => return,
                () = end.cancelled(), if !stopping => {
                    connection.as_mut().graceful_shutdown();
                    stopping = true;
                }
                () = tokio::time::sleep_until(deadline), if first => {
                    if !begun.load(Ordering::Relaxed) {
                        return;
                    }
                    first = false;
                }
            }
        }
    }
}

/// The open connections, the oldest first.
#[derive(Default)]
struct Connections {
    state: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    places: BTreeMap<u64, (CancellationToken, Standing)>,
}

/// The place of one connection; given up when dropped.
struct Place {
    number: u64,
    killed: CancellationToken,
    standing: Standing,
    connections: Arc<Connections>,
    metrics: Metrics,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. When all are taken, the oldest stranger goes for it, whether it is slow with its
    /// headers or with its body; if there is none, the oldest that waits for its next request; `None` if all are busy.
    fn enter(self: &Arc<Self>, most: usize, metrics: &Metrics) -> Option<Place> {
        let mut open = self.lock();
        if open.places.len() >= most {
            metrics.connections_refused.inc();
            let ranked = open.places.iter().filter_map(|(number, (_, it))| Some((it.rank()?, *number)));
            let (_, number) = ranked.min()?;
            if let Some((killed, _)) = open.places.remove(&number) {
                killed.cancel();
            }
        }
        let number = open.next;
        open.next += 1;
        let (killed, standing) = (CancellationToken::new(), Standing::default());
        open.places.insert(number, (killed.clone(), standing.clone()));
        metrics.connections.inc();
        Some(Place { number, killed, standing, connections: self.clone(), metrics: metrics.clone() })
    }

    fn close_all(&self) {
        self.lock().places.values().for_each(|(killed, _)| killed.cancel());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().places.remove(&self.number);
        self.metrics.connections.dec();
    }
}

#[cfg(test)]
mod tests;
