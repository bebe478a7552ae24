//! The load: connections that send the next request when they have the answer to the last one.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// CPU time of the measured process for each request.
    pub cpu: Duration,
    /// Those whose sender was asked to come again: they are no part of the other figures.
    pub refused: usize,
}

/// What a request is to be answered with, and its bytes by the number of the request.
pub struct Load {
    pub wanted: u16,
    pub request: Box<dyn Fn(usize) -> Vec<u8> + Send + Sync>,
}

/// Lets `connections` of them run for so long. Where something else keeps the machine busy, an API server may take longer
/// than a sender waits, and he is asked to come again; any other answer ends the run: a figure of failures is none.
pub async fn run(
    target: SocketAddr,
    pid: u32,
    connections: usize,
    lasts: Duration,
    load: &Arc<Load>,
) -> Measured {
    let (cpu, begin) = (cpu_of(pid), Instant::now());
    let mut all = JoinSet::new();
    for number in 0..connections {
        let load = Arc::clone(load);
        all.spawn(async move {
            let mut stream = TcpStream::connect(target).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket has options");
            let (mut times, mut refused) = (Vec::new(), 0);
            while begin.elapsed() < lasts {
                let request = (load.request)(number + (times.len() + refused) * connections);
                let sent = Instant::now();
                stream.write_all(&request).await.expect("it reads");
                match answer(&mut stream).await {
                    503 => refused += 1,
                    status => {
                        assert_eq!(status, load.wanted, "the answer");
                        times.push(sent.elapsed());
                    }
                }
            }
            (times, refused)
        });
    }
    let (times, refused): (Vec<_>, Vec<_>) = all.join_all().await.into_iter().unzip();
    let mut times: Vec<Duration> = times.into_iter().flatten().collect();
    let summary = summary(&mut times, begin.elapsed(), cpu_of(pid).saturating_sub(cpu));
    Measured { refused: refused.into_iter().sum(), ..summary }
}

/// The status of the answer to one request.
pub async fn answer_to(target: SocketAddr, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(target).await.expect("it listens");
    stream.write_all(request).await.expect("it reads");
    answer(&mut stream).await
}

/// The same figures of requests that somebody else made.
pub fn summary(times: &mut [Duration], took: Duration, cpu: Duration) -> Measured {
    times.sort_unstable();
    let count = u32::try_from(times.len()).expect("so many are not made").max(1);
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    Measured {
        per_second: f64::from(count) / took.as_secs_f64(),
        p50: at(50),
        p99: at(99),
        cpu: cpu / count,
        refused: 0,
    }
}

/// The status of an answer, which is read with its body. Our own cost counts here: the load has one core.
async fn answer(stream: &mut TcpStream) -> u16 {
    let mut read = Vec::with_capacity(512);
    loop {
        assert!(stream.read_buf(&mut read).await.expect("it answers") > 0, "it closed the connection");
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&read[..end]).expect("the head of an answer is text");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        let length = length.map_or(0, |length| length.expect("it is a number"));
        if read.len() >= end + 4 + length {
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
            return status.expect("an answer has a status");
        }
    }
}

/// CPU time of a process: stays usable on a machine that has more to do, as requests a second do not.
pub fn cpu_of(pid: u32) -> Duration {
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).expect("it runs");
    let nanos = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Puts a process, threads and all, on these cores.
pub fn pin(pid: u32, cores: &str) {
    let said = Command::new("taskset").args(["-acp", cores, &pid.to_string()]).output();
    assert!(said.is_ok_and(|said| said.status.success()), "taskset is needed (util-linux), and two cores");
}
