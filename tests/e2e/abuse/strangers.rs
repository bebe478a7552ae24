//! What strangers send. Each of them goes on until it is aborted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::sender::{Line, Sender};

/// A slow sender sends a byte this often: well below every time-out that is about pauses.
const DRIP: Duration = Duration::from_secs(1);
/// Whoever was closed comes again after this long.
const AGAIN: Duration = Duration::from_secs(3);
/// A pause between two large bodies, so that they do not take the whole machine.
const BREATH: Duration = Duration::from_millis(50);
const GIBIBYTE: u64 = 1 << 30;

/// What they saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Slow sockets that were opened, and those that the receiver closed.
    pub opened: AtomicU64,
    pub closed: AtomicU64,
    pub forged: AtomicU64,
    pub odd: AtomicU64,
    pub large: AtomicU64,
    /// The most that was taken of one body of 1 GiB.
    pub swallowed: AtomicU64,
    /// Answers that nobody of them should have got.
    pub wrong: AtomicU64,
}

impl Tally {
    pub fn of(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// They run on threads of their own, which come after everybody else's when there is too little of the machine: what an
/// honest sender sees is to be the receiver's doing, and not that this program is busy with strangers.
pub struct Strangers {
    runtime: tokio::runtime::Runtime,
    all: JoinSet<()>,
}

/// Threads of strangers, by their name.
const THREADS: &str = "strangers";

impl Strangers {
    /// Lets them loose.
    pub fn come(
        target: SocketAddr,
        route: &Sender,
        sockets: usize,
        forgers: usize,
        tally: &Arc<Tally>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(THREADS)
            .enable_all()
            .build()
            .expect("a runtime");
        let on = runtime.handle();
        let mut all = JoinSet::new();
        for number in 0..sockets {
            all.spawn_on(slow(target, route.clone(), number, tally.clone()), on);
        }
        for _ in 0..forgers {
            all.spawn_on(forge(target, route.clone(), tally.clone()), on);
        }
        for announced in [true, false] {
            all.spawn_on(flood(target, route.clone(), announced, tally.clone()), on);
        }
        all.spawn_on(odd(target, route.clone(), tally.clone()), on);
        step_back();
        Self { runtime, all }
    }

    /// Ends them.
    pub async fn leave(mut self) {
        self.all.shutdown().await;
        self.runtime.shutdown_background();
    }
}

/// Gives the strangers' threads the last place at the processor. Where that cannot be done, the figures are worse.
fn step_back() {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ours = tasks.filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == THREADS)
    });
    for task in ours {
        let thread = task.file_name();
        let _ = std::process::Command::new("renice").args(["-n", "19", "-p"]).arg(thread).output();
    }
}

/// Opens a connection and takes its time, each in one of four ways.
async fn slow(target: SocketAddr, route: Sender, number: usize, tally: Arc<Tally>) {
    let unfinished = b"POST /v1/h/a HTTP/1.1\r\nhost: hooks.test\r\nx-slow: ".to_vec();
    let body_to_come = route.request(&[("content-length", b"200000")]);
    let begin = match number % 16 {
        // The most that may wait in memory before it is judged.
        0 => [&body_to_come[..], &vec![b'x'; 199_000]].concat(),
        1..=5 => Vec::new(),
        6..=10 => unfinished,
        _ => body_to_come,
    };
    let drips = number % 16 > 5;
    // Not all in the same moment.
    tokio::time::sleep(DRIP * u32::try_from(number % 97).unwrap_or(0) / 97).await;
    loop {
        if let Ok(mut stream) = TcpStream::connect(target).await {
            one_more(&tally.opened);
            if stream.write_all(&begin).await.is_ok() {
                drip(&mut stream, drips).await;
            }
            one_more(&tally.closed);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Until the other side has had enough.
async fn drip(stream: &mut TcpStream, drips: bool) {
    let (mut read, mut write) = stream.split();
    let mut rest = [0; 1024];
    let over = async { while read.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    let bytes = async {
        if !drips {
            std::future::pending::<()>().await;
        }
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
    };
    tokio::select! { () = over => {}, () = bytes => {} }
}

/// As many forged deliveries as go through one connection.
async fn forge(target: SocketAddr, route: Sender, tally: Arc<Tally>) {
    let wrong = Sender { secret: "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(), ..route };
    let delivery = wrong.delivery("msg_forged", &crate::sender::succeeded("batches/forged"));
    loop {
        let Ok(mut line) = Line::open(target).await else { continue };
        while let Ok(status) = line.exchange(&delivery).await {
            one_more(if status == 401 { &tally.forged } else { &tally.wrong });
        }
    }
}

/// A body of 1 GiB, announced or in chunks.
async fn flood(target: SocketAddr, route: Sender, announced: bool, tally: Arc<Tally>) {
    let length = GIBIBYTE.to_string();
    let header: (&str, &[u8]) =
        if announced { ("content-length", length.as_bytes()) } else { ("transfer-encoding", b"chunked") };
    let head = route.request(&[header]);
    let piece = [&b"10000\r\n"[..], &vec![b'x'; 0x1_0000], b"\r\n"].concat();
    loop {
        let Ok(mut line) = Line::open(target).await else { continue };
        let (mut sent, mut sending) = (0_u64, line.stream.write_all(&head).await);
        while sending.is_ok() && sent < GIBIBYTE {
            sending = line.stream.write_all(&piece).await;
            sent += piece.len() as u64;
        }
        tally.swallowed.fetch_max(sent, Ordering::Relaxed);
        // Closed with bytes unread: the answer may be lost with them.
        match line.answer().await {
            Ok(413) | Err(_) => one_more(&tally.large),
            Ok(_) => one_more(&tally.wrong),
        }
        tokio::time::sleep(BREATH).await;
    }
}

/// Requests that no well-behaved client sends.
async fn odd(target: SocketAddr, route: Sender, tally: Arc<Tally>) {
    let thousand = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= ".repeat(1_000);
    let (id, time) = (("webhook-id", &b"m"[..]), ("webhook-timestamp", &b"1787256625"[..]));
    let signature = ("webhook-signature", &b"v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="[..]);
    let length = ("content-length", &b"4"[..]);
    let requests = [
        route.request(&[id, time, ("webhook-signature", thousand.as_bytes())]),
        route.request(&[id, id, time, time, signature, signature]),
        // As many as fit, which is more than are looked at.
        route.request(&[id, time, ("webhook-signature", &thousand.as_bytes()[..300 * 48])]),
        [
            &route.request(&[id, time, signature, ("content-encoding", b"gzip"), ("content-length", b"26")])
                [..],
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00AAAA",
        ]
        .concat(),
        route.request(&[("webhook-id", b"\xc3\x28"), time, ("webhook-signature", b"v1,\xff\xfe")]),
        route.request(&[id, time, signature, ("x-other", b"\x80\x81\xff")]),
        [&route.request(&[id, time, signature, length])[..], b"\xff\xfe\x80\xc0"].concat(),
        route.request(&[id, time, signature, ("content-length", b"4"), ("content-length", b"5")]),
        b"\x00\x00\xff\xff GET nothing\r\n\r\n".to_vec(),
    ];
    for request in requests.iter().cycle() {
        if let Ok(mut line) = Line::open(target).await {
            match line.exchange(request).await {
                Ok(400 | 401 | 413 | 415 | 431) => one_more(&tally.odd),
                Ok(_) => one_more(&tally.wrong),
                Err(_) => {}
            }
        }
        tokio::task::yield_now().await;
    }
}
