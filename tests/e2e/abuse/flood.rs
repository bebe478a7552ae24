//! All of it at once, and honest deliveries beside it. A small one in every test run; `make abuse` the large one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::strangers::{self, Tally};
use crate::objects::tickets;
use crate::sender::{Line, Sender, succeeded};
use crate::support::{Bed, BedOptions, RECEIVER};

/// Memory of the receiver, as the chart limits it.
const MEMORY_KIB: u64 = 128 * 1024;

struct Size {
    sockets: usize,
    forgers: usize,
    lasts: Duration,
    /// The most that 99 of 100 honest deliveries may take. The small one shares its machine with other tests, and may
    /// take as long as the receiver gives itself: nobody is turned away.
    p99: Duration,
}

fn size() -> Size {
    if std::env::var_os("ABUSE").is_some_and(|size| size == "full") {
        Size { sockets: 10_000, forgers: 16, lasts: Duration::from_secs(30), p99: Duration::from_millis(100) }
    } else {
        // More sockets than the receiver takes connections.
        Size { sockets: 1_500, forgers: 2, lasts: Duration::from_secs(6), p99: Duration::from_secs(2) }
    }
}

/// Jobs that are told of in its course, one after the other.
const BATCHES: u32 = 5;
/// Connections that are kept, as an Ingress keeps them. As many deliveries again come on connections of their own.
const KEPT: usize = 4;
/// Each of them delivers this often.
const EVERY: Duration = Duration::from_millis(40);

/// What an honest sender saw: how long each took, and each that was not accepted.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    failed: Vec<String>,
}

/// Delivers for so long, about each job in its turn.
async fn honest(
    target: SocketAddr,
    sender: Sender,
    jobs: Vec<String>,
    name: String,
    lasts: Duration,
) -> Seen {
    let mut seen = Seen::default();
    let keeps = name.starts_with("kept");
    let (mut line, begin) = (None, Instant::now());
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while begin.elapsed() < lasts {
        tick.tick().await;
        // One job more in each part of the time; those of the past are told of again, which is worth no write.
        let due = (0_u32..).zip(&jobs).filter(|(job, _)| begin.elapsed() >= lasts / BATCHES * *job);
        let known: Vec<&String> = due.map(|(_, job)| job).collect();
        let number = seen.times.len() + seen.failed.len();
        let delivery = sender.delivery(&format!("{name}-{number}"), &succeeded(known[number % known.len()]));
        let started = Instant::now();
        let outcome = async {
            let mut open = match line.take() {
                Some(open) => open,
                None => Line::open(target).await?,
            };
            let status = open.exchange(&delivery).await?;
            Ok::<_, std::io::Error>((status, open))
        };
        match outcome.await {
            Ok((204, open)) => {
                seen.times.push(started.elapsed());
                line = keeps.then_some(open);
            }
            Ok((status, _)) => seen.failed.push(format!("{name}-{number}: {status}")),
            Err(error) => seen.failed.push(format!("{name}-{number}: {error}")),
        }
    }
    seen
}

async fn all_honest(
    target: SocketAddr,
    sender: &Sender,
    jobs: &[String],
    lasts: Duration,
    who: &str,
) -> Seen {
    let mut all = JoinSet::new();
    for number in 0..KEPT {
        for kind in ["kept", "fresh"] {
            all.spawn(honest(target, sender.clone(), jobs.to_vec(), format!("{kind}-{who}-{number}"), lasts));
        }
    }
    let mut sum = Seen::default();
    for seen in all.join_all().await {
        sum.times.extend(seen.times);
        sum.failed.extend(seen.failed);
    }
    sum.times.sort_unstable();
    sum
}

impl Seen {
    fn percentile(&self, percent: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((self.times.len() * percent / 100).min(last)).copied().unwrap_or(Duration::MAX)
    }
}

/// The most memory that a process has had, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux counts it");
    line.trim().trim_end_matches(" kB").parse().expect("it is a number")
}

/// How many files this process may have open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}

/// Status writes of the receivers: of batches, and of webhooks.
async fn writes(bed: &Bed) -> Option<[usize; 2]> {
    let all = bed.audit_up_to_now().await?;
    let count = |resource: &str| {
        let is = |request: &&crate::support::audit::Request| {
            request.user == RECEIVER && request.is_write() && request.resource.starts_with(resource)
        };
        all.iter().filter(is).count()
    };
    Some([count("geminibatches"), count("geminiwebhooks")])
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_disturb_honest_deliveries() {
    let size = size();
    let files = open_files();
    assert!(files >= size.sockets + 500, "{files} open files are too few: ulimit -n {}", size.sockets + 500);
    // Undivided windows: nothing is due by a timer while this test runs.
    let options = BedOptions { timing_divisor: 1, job_time: "3600s".into(), ..BedOptions::default() };
    let bed = Bed::with("abuse", options).await;
    bed.make_api_key().await;
    let webhook = bed.make_webhook().await;
    let sender = Sender::of(&bed, &webhook).await;
    let mut jobs = Vec::new();
    for name in (0..=BATCHES).map(|number| format!("tickets-{number}")) {
        bed.apply(&tickets(&name, 1, "Auto")).await;
        let batch = bed.wait_condition(&name, "Submitted", "True", "Submitted").await;
        jobs.push(batch.status.unwrap().runs[0].remote_name.clone().unwrap());
    }
    // Plain HTTP, as behind an Ingress: it is the one that strangers come to.
    let replica = bed.spawn_replica("plain").await;
    // Only this one job is told of without them.
    let first = jobs.pop().unwrap();
    let quiet = all_honest(replica.listen, &sender, &[first], Duration::from_secs(2), "quiet").await;
    assert_eq!(quiet.failed, [""; 0]);
    let before = (writes(&bed).await, bed.ledger().await);

    let tally = Arc::new(Tally::default());
    let mut strangers = strangers::all(replica.listen, &sender, size.sockets, size.forgers, &tally);
    let seen = all_honest(replica.listen, &sender, &jobs, size.lasts, "beside").await;
    strangers.abort_all();
    while strangers.join_next().await.is_some() {}
    let peak = peak(replica.process.pid());
    let after = (writes(&bed).await, bed.ledger().await);

    let p99 = seen.percentile(99);
    println!(
        "honest deliveries: {} accepted, {} failed, p50 {:?}, p99 {p99:?} (p99 without strangers {:?})",
        seen.times.len(),
        seen.failed.len(),
        seen.percentile(50),
        quiet.percentile(99)
    );
    println!("strangers: {tally:?} in {:?}", size.lasts);
    println!("receiver: {} MiB at most", peak / 1024);

    assert_eq!(seen.failed, [""; 0], "honest deliveries that were not accepted");
    assert!(p99 <= size.p99, "p99 is {p99:?}, not {:?}", size.p99);
    assert!(peak <= MEMORY_KIB, "{peak} KiB");
    // They did come.
    assert!(Tally::of(&tally.opened) >= size.sockets as u64 && Tally::of(&tally.closed) > 0, "{tally:?}");
    for count in [&tally.forged, &tally.odd, &tally.large] {
        assert!(Tally::of(count) > 0, "{tally:?}");
    }
    assert_eq!(Tally::of(&tally.wrong), 0, "answers that strangers should not get: {tally:?}");
    // 1 MiB is poured away, and the kernel's buffers hold some more.
    assert!(Tally::of(&tally.swallowed) < 64 << 20, "{tally:?}");

    // Each job that was told of was written once, whatever else came.
    if let (Some(before), Some(after)) = (before.0, after.0) {
        assert_eq!(after[0] - before[0], BATCHES as usize, "writes to batches");
        let routine = 1 + usize::try_from(size.lasts.as_secs() / 60).unwrap();
        assert!(after[1] - before[1] <= routine, "writes to the webhook");
    }
    let calls = after.1.sequence().split_off(before.1.sequence().len());
    assert!(calls.iter().all(|(call, _)| call == "batches.get"), "{calls:?}");
    assert!(calls.len() <= BATCHES as usize + 1, "one look for each job that was told of: {calls:?}");
}
