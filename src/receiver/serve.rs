//! The accept loop: HTTP/1.1, plain or TLS, with the time-outs and bounds that ready-made servers leave out.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Connections of one webhook, above which it comes before fresh strangers when one must be closed.
    pub per_webhook: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub linger: Duration,
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS,
            per_webhook: limits::DELIVERIES_PER_WEBHOOK,
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
    /// The webhook of its last authentic delivery, as a number; 0 = it has brought none.
    whose: AtomicU64,
    working: AtomicBool,
}

/// A connection, as it is judged when there are too many.
#[derive(Clone, Copy, Debug)]
struct Judged {
    number: u64,
    whose: u64,
    working: bool,
    /// Has just come: what it brings may be on its way.
    fresh: bool,
}

impl Standing {
    /// An authentic delivery of this webhook is being worked on.
    pub fn prove(&self, webhook_uid: &str) {
        let mut hasher = DefaultHasher::new();
        webhook_uid.hash(&mut hasher);
        self.0.whose.store(hasher.finish() | 1, Ordering::Relaxed);
        self.0.working.store(true, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.0.working.store(false, Ordering::Relaxed);
    }

    fn judged(&self, number: u64, age: Duration) -> Judged {
        Judged {
            number,
            whose: self.0.whose.load(Ordering::Relaxed),
            working: self.0.working.load(Ordering::Relaxed),
            fresh: age < limits::FRESH,
        }
    }
}

/// Whom to close for a newcomer, out of all from the oldest to the newest; `None` = nobody, for all are busy.
///
/// The oldest stranger, whether it is slow with its headers or with its body: it has brought nothing but bytes, as anybody
/// can. If there is none, the oldest that waits for its next request, as the kept connections of an Ingress do, of the
/// webhook that has the most: nobody makes room for himself at the cost of others. A webhook with more than `per_webhook`
/// comes before a stranger who is fresh, and may be a neighbour's delivery.
fn superfluous(open: &[Judged], per_webhook: usize) -> Option<u64> {
    let oldest = |fits: &dyn Fn(&Judged) -> bool| open.iter().find(|it| fits(it)).map(|it| it.number);
    // The usual one in a flood, without counting.
    if let Some(slow) = oldest(&|it| it.whose == 0 && !it.fresh) {
        return Some(slow);
    }
    let mut count = HashMap::<u64, usize>::new();
    for it in open {
        *count.entry(it.whose).or_default() += 1;
    }
    let waits = |it: &Judged| it.whose != 0 && !it.working;
    let most = open.iter().filter(|it| waits(it)).map(|it| count[&it.whose]).max();
    let greedy = oldest(&|it| waits(it) && Some(count[&it.whose]) == most);
    if most.is_some_and(|most| most > per_webhook) {
        return greedy;
    }
    oldest(&|it| it.whose == 0).or(greedy)
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
        let Some(place) = connections.enter(self.bounds, &self.metrics) else {
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
    places: BTreeMap<u64, Taken>,
}

struct Taken {
    killed: CancellationToken,
    standing: Standing,
    since: Instant,
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

    /// A place for a new connection. When all are taken, another one goes for it; `None` if all are busy.
    fn enter(self: &Arc<Self>, bounds: Bounds, metrics: &Metrics) -> Option<Place> {
        let (mut open, now) = (self.lock(), Instant::now());
        if open.places.len() >= bounds.connections {
            metrics.connections_refused.inc();
            let judged = open.places.iter().map(|(number, it)| it.standing.judged(*number, now - it.since));
            let number = superfluous(&judged.collect::<Vec<_>>(), bounds.per_webhook)?;
            if let Some(taken) = open.places.remove(&number) {
                taken.killed.cancel();
            }
        }
        let number = open.next;
        open.next += 1;
        let (killed, standing) = (CancellationToken::new(), Standing::default());
        let taken = Taken { killed: killed.clone(), standing: standing.clone(), since: now };
        open.places.insert(number, taken);
        metrics.connections.inc();
        Some(Place { number, killed, standing, connections: self.clone(), metrics: metrics.clone() })
    }

    fn close_all(&self) {
        self.lock().places.values().for_each(|taken| taken.killed.cancel());
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
