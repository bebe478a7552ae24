//! Senders that take their time, or too much, and an API server that does.

use super::*;
use crate::receiver::serve::{Bounds, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A sender who is still writing when the connection closes would never see the answer.
#[tokio::test]
async fn a_body_that_is_too_large_is_poured_away_up_to_a_point() {
    let world = World::new();
    for (announced, chunks, taken) in [(true, 8, 8), (false, 8, 8), (true, 1_000, 17), (false, 1_000, 22)] {
        let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = seen.clone();
        let stream = futures::stream::iter((0..chunks).map(move |_| {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 64 * 1024]))
        }));
        let mut request = signed("t-a", "m", NOW, "").map(|_| Body::from_stream(stream));
        if announced {
            request = with(request, "content-length", "524288");
        }
        assert_eq!(world.send(request).await, 413);
        let seen = seen.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(seen, taken, "announced: {announced}, {chunks} chunks");
    }
}

#[tokio::test]
async fn a_body_that_does_not_end() {
    let mut world = World::new();
    Arc::get_mut(&mut world.handler).unwrap().body_timeout = Duration::from_millis(20);
    let endless = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let request = signed("t-a", "m", NOW, "").map(|_| Body::from_stream(endless));
    assert_eq!(world.send(request).await, 408);
    let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
    let request = signed("t-a", "m", NOW, "").map(|_| Body::from_stream(broken));
    assert_eq!(world.send(request).await, 400);
}

#[tokio::test]
async fn all_large_bodies_together_are_bounded() {
    let mut world = World::new();
    Arc::get_mut(&mut world.handler).unwrap().body_grants = Semaphore::new(4);
    let stopped = || {
        let most = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 100 * 1024]))]);
        signed("t-x", "m", NOW, "").map(|_| Body::from_stream(most.chain(futures::stream::pending())))
    };
    let handler = world.handler.clone();
    let first = tokio::spawn(async move { handler.handle(stopped()).await });
    world.settle().await;
    assert_eq!(world.send(stopped()).await, 503);
    // Real deliveries do not suffer.
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 204);
    first.abort();
    assert!(first.await.is_err());
    let whole = signed("t-x", "m", NOW, &"x".repeat(100 * 1024));
    assert_eq!(world.send(whole).await, 401);
}

/// It would wait for ever for what never answers.
#[tokio::test]
async fn the_answer_does_not_wait_for_ever() {
    let world = World::new();
    world.patch.hang();
    let deliveries = (0..3).map(|_| world.deliver("t-a", "m", SUCCEEDED));
    assert!(futures::future::join_all(deliveries).await.iter().all(|status| *status == 503));
}

/// Its sender has given up waiting, and comes again: by then it is done, and nothing is written twice.
#[tokio::test]
async fn a_write_that_is_late_makes_the_next_attempt_redundant() {
    let world = World::new();
    world.patch.together(2);
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 503);
    // The API server is quick again when the second write is there.
    assert_eq!(world.deliver("t-op", "n", &SUCCEEDED.replace("batches/1", "batches/2")).await, 204);
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 204);
    assert_eq!((world.counted(Outcome::Redundant), world.events().len()), (1, 2));
}

/// The handler behind its accept loop, over sockets.
struct Served {
    address: std::net::SocketAddr,
    _server: tokio_util::task::AbortOnDropHandle<()>,
}

impl Served {
    async fn new(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = world.handler.metrics.clone();
        let server = Server { service: world.handler.clone(), tls: None, metrics, bounds: Bounds::default() };
        let running = tokio::spawn(server.run(listener, CancellationToken::new()));
        Self { address, _server: tokio_util::task::AbortOnDropHandle::new(running) }
    }

    /// Writes this, byte for byte, and reads until the server closes, or has answered and waits for more.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may have answered and closed before all of it is sent.
        let _ = stream.write_all(bytes).await;
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            let one = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut byte)).await.unwrap();
            if one.unwrap_or(0) == 0 {
                break;
            }
            read.push(byte[0]);
        }
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// `POST` to a route that is there, with these headers, each with its line end, and this body.
fn post(headers: &[&[u8]], body: &[u8]) -> Vec<u8> {
    [b"POST /v1/h/t-a HTTP/1.1\r\nhost: x\r\n", &headers.concat()[..], b"\r\n", body].concat()
}

#[tokio::test]
async fn a_body_that_drips_in_is_given_up_by_a_total() {
    let mut world = World::new();
    Arc::get_mut(&mut world.handler).unwrap().body_timeout = Duration::from_millis(200);
    let served = Served::new(&world).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&post(&[b"content-length: 100000\r\n"], b"")).await.unwrap();
    let (mut read, mut write) = stream.split();
    let drip = async {
        // Never a pause as long as the bound: a bound for pauses would let it go on.
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = async {
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::pin!(drip, answer);
    let answer = tokio::select! {
        () = &mut drip => answer.await,
        answer = &mut answer => answer,
    };
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

/// Bytes that no well-behaved client sends: each has one answer, and none of them causes a write.
#[tokio::test]
async fn odd_requests_over_sockets() {
    let world = World::new();
    let served = Served::new(&world).await;
    let signature = signature("m", NOW, SUCCEEDED);
    let [id, time, signature] =
        ["webhook-id: m", &format!("webhook-timestamp: {NOW}"), &format!("webhook-signature: {signature}")]
            .map(|line| [line.as_bytes(), b"\r\n"].concat());
    let length = format!("content-length: {}\r\n", SUCCEEDED.len()).into_bytes();
    let with = |more: &[u8]| post(&[&id, &time, &signature, &length, more], SUCCEEDED.as_bytes());
    let thousand = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= ".repeat(1_000);
    let thousand = format!("webhook-signature: {thousand}\r\n").into_bytes();
    let dozens = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= ".repeat(60);
    let dozens = format!("webhook-signature: {dozens}\r\n").into_bytes();
    let many: Vec<u8> = (0..100).flat_map(|n| format!("x-{n}: y\r\n").into_bytes()).collect();
    let gibibyte = b"content-length: 1073741824\r\n";
    let chunked = b"transfer-encoding: chunked\r\n";
    let chunk = [&b"10000\r\n"[..], &vec![b'x'; 0x1_0000], b"\r\n"].concat();
    let mut wrong = Vec::new();
    for (what, bytes, wanted) in [
        ("a thousand signatures", post(&[&id, &time, &thousand, &length], SUCCEEDED.as_bytes()), "431"),
        ("dozens of signatures", post(&[&id, &time, &dozens, &length], SUCCEEDED.as_bytes()), "401"),
        ("a hundred headers", with(&many), "431"),
        ("a header twice", with(&signature), "401"),
        ("an 8-bit signature", post(&[&id, &time, b"webhook-signature: v1,\xff\xfe\r\n"], b""), "401"),
        ("an 8-bit id", post(&[b"webhook-id: \xc3\x28\r\n", &time, &signature], b""), "401"),
        ("an 8-bit header that is nobody's", with(b"x-other: \x80\xff\r\n"), "204"),
        (
            "a body that is no UTF-8",
            post(&[&id, &time, &signature, b"content-length: 3\r\n"], b"\xff\xfe\x80"),
            "401",
        ),
        ("a control character in a header", with(b"x-other: a\x01b\r\n"), "400"),
        ("1 GiB announced", post(&[&id, &time, &signature, gibibyte], b"x"), "413"),
        ("too much in chunks", post(&[&id, &time, &signature, chunked], &[&chunk[..]; 20].concat()), "413"),
        ("a packed body", with(b"content-encoding: gzip\r\n"), "415"),
        ("two lengths", with(b"content-length: 5\r\n"), "400"),
        ("a length that is no number", post(&[b"content-length: -1\r\n"], b""), "400"),
        ("another version", b"POST /v1/h/t-a HTTP/3.0\r\nhost: x\r\n\r\n".to_vec(), "400"),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "400"),
        ("as it should be", with(b""), "204"),
    ] {
        let answer = served.exchange(&bytes).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        if status != wanted {
            wrong.push(format!("{what}: {wanted} expected: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(world.events().len(), 1);
}

/// A neighbour who is flooded leaves room for the others.
#[tokio::test]
async fn one_webhook_does_not_take_all_places() {
    let mut world = World::new();
    Arc::get_mut(&mut world.handler).unwrap().shares = Shares::new(2);
    world.patch.hang();
    let waiting: Vec<_> = (0..2)
        .map(|number| {
            let (handler, request) =
                (world.handler.clone(), signed("t-a", &number.to_string(), NOW, SUCCEEDED));
            tokio::spawn(async move { handler.handle(request).await })
        })
        .collect();
    world.settle().await;
    let begun = Instant::now();
    assert_eq!(world.deliver("t-a", "m", SUCCEEDED).await, 503);
    assert!(begun.elapsed() < limits::STORE_BUDGET, "it is told at once");
    let other = r#"{"type":"video.generated","data":{}}"#;
    assert_eq!(world.deliver("t-op", "m", other).await, 204);
    for one in waiting {
        assert_eq!(one.await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(world.deliver("t-a", "m", other).await, 204, "its share is free again");
}
