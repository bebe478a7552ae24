//! The accept loop over real sockets, with bounds small enough to reach.

use super::*;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const REQUEST: &[u8] = b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi";
const QUICK: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi";

const BODY_TO_COME: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n";

/// Answers `/slow` only when told to, and takes a whole body for the proof of an authentic delivery.
#[derive(Default)]
struct Echo {
    begun: Notify,
    go: Notify,
}

impl Service for Echo {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 10).await.unwrap_or_default();
        parts.extensions.get::<Standing>().unwrap().prove("uid");
        if parts.uri.path() == "/slow" {
            self.begun.notify_one();
            self.go.notified().await;
        }
        Response::new(Body::from(body))
    }
}

struct Running {
    address: std::net::SocketAddr,
    echo: Arc<Echo>,
    metrics: Metrics,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

async fn start(bounds: Bounds, tls: Option<Arc<Tls>>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (echo, stop) = (Arc::new(Echo::default()), CancellationToken::new());
    let metrics = Metrics::register(&mut Registry::default());
    let server = Server { service: echo.clone(), tls, metrics: metrics.clone(), bounds };
    let server = tokio::spawn(server.run(listener, stop.clone()));
    Running { address, echo, metrics, stop, server }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Reads one answer, which echoes two bytes.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\nhi") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

/// Resolves when the peer closes.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn keeps_connections_and_speaks_only_http_1() {
    let running = start(Bounds::default(), None).await;
    let mut stream = running.connect().await;
    for _ in 0..2 {
        stream.write_all(QUICK).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    let mut second = running.connect().await;
    second.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    closed(&mut second).await;

    let mut large = running.connect().await;
    large.write_all(format!("POST / HTTP/1.1\r\nx: {}\r\n", "x".repeat(20_000)).as_bytes()).await.unwrap();
    assert!(answer(&mut large).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn slow_headers_end_the_connection() {
    let bounds = Bounds { header_timeout: Duration::from_millis(50), ..Bounds::default() };
    let running = start(bounds, None).await;
    let mut silent = running.connect().await;
    let mut slow = running.connect().await;
    let mut quick = running.connect().await;
    slow.write_all(b"POST / HTTP/1.1\r\nhost:").await.unwrap();
    quick.write_all(QUICK).await.unwrap();
    answer(&mut quick).await;
    closed(&mut silent).await;
    closed(&mut slow).await;
    // The bound is for the first request: one that has proved itself is not cut off by it.
    quick.write_all(QUICK).await.unwrap();
    assert!(answer(&mut quick).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn idle_connections_end() {
    let bounds = Bounds { idle_timeout: Duration::from_millis(50), ..Bounds::default() };
    let running = start(bounds, None).await;
    let mut stream = running.connect().await;
    stream.write_all(QUICK).await.unwrap();
    answer(&mut stream).await;
    closed(&mut stream).await;
}

#[test]
fn nobody_makes_room_for_himself_at_the_cost_of_others() {
    // A letter for each: a stranger (s; S is fresh), or of webhook 1 to 3 (+: is being worked on).
    let judge = |open: &str| {
        let judged = (0..).zip(open.split(' ')).map(|(number, it)| Judged {
            number,
            whose: it[..1].parse().unwrap_or(0),
            working: it.ends_with('+'),
            fresh: it == "S",
        });
        superfluous(&judged.collect::<Vec<_>>(), 3)
    };
    for (what, open, wanted) in [
        ("the oldest stranger", "1 s s", Some(1)),
        ("a slow stranger before a fresh one", "1 S s", Some(2)),
        ("a stranger before all others", "1 1 2 s", Some(3)),
        ("a fresh one too", "1 1 2 S", Some(3)),
        ("the oldest of who has the most", "1 2 2", Some(1)),
        ("busy ones count, and stay", "1 2+ 2", Some(2)),
        ("who has the most is busy", "1 2+ 2+", Some(0)),
        ("all are busy", "1+ 2+", None),
        ("who has too many, before a fresh stranger", "1 2 2 2+ 2 S", Some(1)),
        ("but not before a slow one", "1 2 2 2 2 s", Some(5)),
        ("who has too many is busy", "1 2+ 2+ 2+ 2+ S", Some(5)),
    ] {
        assert_eq!(judge(open), wanted, "{what}");
    }
}

#[tokio::test]
async fn at_the_cap_the_oldest_stranger_goes_and_then_the_oldest_that_waits() {
    let running = start(Bounds { connections: 5, ..Bounds::default() }, None).await;
    // As an Ingress keeps its connections: the oldest of all, and idle.
    let mut kept = running.connect().await;
    kept.write_all(QUICK).await.unwrap();
    answer(&mut kept).await;
    let mut busy = running.connect().await;
    busy.write_all(REQUEST).await.unwrap();
    running.echo.begun.notified().await;
    let mut slow_header = running.connect().await;
    slow_header.write_all(b"POST").await.unwrap();
    let mut slow_body = running.connect().await;
    slow_body.write_all(BODY_TO_COME).await.unwrap();
    let mut second = running.connect().await;
    second.write_all(QUICK).await.unwrap();
    answer(&mut second).await;

    let mut newcomers = Vec::new();
    for victim in [&mut slow_header, &mut slow_body, &mut kept] {
        let mut newcomer = running.connect().await;
        newcomer.write_all(QUICK).await.unwrap();
        assert!(answer(&mut newcomer).await.starts_with("HTTP/1.1 200"));
        closed(victim).await;
        newcomers.push(newcomer);
    }
    assert_eq!(running.metrics.connections_refused.get(), 3);
    // The younger one that waits was spared, and the busy one gets its answer.
    second.write_all(QUICK).await.unwrap();
    assert!(answer(&mut second).await.starts_with("HTTP/1.1 200"));
    running.echo.go.notify_one();
    assert!(answer(&mut busy).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn when_all_are_busy_the_newcomer_goes() {
    let running = start(Bounds { connections: 1, ..Bounds::default() }, None).await;
    let mut busy = running.connect().await;
    busy.write_all(REQUEST).await.unwrap();
    running.echo.begun.notified().await;
    closed(&mut running.connect().await).await;
    running.echo.go.notify_one();
    assert!(answer(&mut busy).await.starts_with("HTTP/1.1 200"));
}

/// Otherwise its next request and our close could cross, and nobody would know what became of the request.
#[tokio::test]
async fn who_keeps_a_connection_is_told_that_it_ends() {
    let running = start(Bounds { linger: Duration::from_secs(2), ..Bounds::default() }, None).await;
    let mut kept = running.connect().await;
    kept.write_all(QUICK).await.unwrap();
    assert!(!answer(&mut kept).await.contains("connection: close"));
    running.stop.cancel();
    for mut stream in [kept, running.connect().await] {
        stream.write_all(QUICK).await.unwrap();
        let last = answer(&mut stream).await;
        assert!(last.starts_with("HTTP/1.1 200") && last.contains("connection: close"), "{last}");
        closed(&mut stream).await;
    }
    running.server.await.unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn a_shutdown_lets_requests_end_and_nothing_else() {
    let running = start(Bounds { linger: Duration::ZERO, ..Bounds::default() }, None).await;
    let mut idle = running.connect().await;
    idle.write_all(QUICK).await.unwrap();
    answer(&mut idle).await;
    let mut busy = running.connect().await;
    busy.write_all(REQUEST).await.unwrap();
    running.echo.begun.notified().await;

    running.stop.cancel();
    closed(&mut idle).await;
    assert!(!running.server.is_finished());
    running.echo.go.notify_one();
    assert!(answer(&mut busy).await.starts_with("HTTP/1.1 200"));
    running.server.await.unwrap();
    assert_eq!(running.metrics.connections.get(), 0);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let short = Bounds { linger: Duration::ZERO, drain: Duration::from_millis(20), ..Bounds::default() };
    let running = start(short, None).await;
    let mut busy = running.connect().await;
    busy.write_all(REQUEST).await.unwrap();
    running.echo.begun.notified().await;
    running.stop.cancel();
    running.server.await.unwrap();
    closed(&mut busy).await;
}

#[tokio::test]
async fn new_connections_get_the_new_certificate() {
    use rustls::pki_types::{CertificateDer, ServerName};

    let directory = std::env::temp_dir().join(format!("serve-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    let write = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    };
    let connect = async |address, trusted: &CertificateDer<'static>| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };

    let first = write();
    let tls = Arc::new(Tls::load(certificate.clone(), key.clone()).await.unwrap());
    let running = start(Bounds::default(), Some(tls.clone())).await;
    let mut old = connect(running.address, &first).await.unwrap();
    let second = write();
    tls.reload().await.unwrap();
    assert!(connect(running.address, &first).await.is_err());
    let mut new = connect(running.address, &second).await.unwrap();
    // Open connections go on.
    for stream in [&mut old, &mut new] {
        stream.write_all(QUICK).await.unwrap();
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Whoever opens a connection and says nothing in TLS either.
#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up() {
    let directory = std::env::temp_dir().join(format!("serve-handshake-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (certificate, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Arc::new(Tls::load(certificate, key).await.unwrap());
    std::fs::remove_dir_all(&directory).unwrap();

    let bounds = Bounds { header_timeout: Duration::from_millis(50), ..Bounds::default() };
    let running = start(bounds, Some(tls)).await;
    let mut silent = running.connect().await;
    let mut begun = running.connect().await;
    begun.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    closed(&mut silent).await;
    closed(&mut begun).await;
}
