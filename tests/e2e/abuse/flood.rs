//! All of it at once, and honest deliveries beside it. A small one in every test run; `make abuse` the large one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::honest::{self, Course};
use super::strangers::{Strangers, Tally};
use crate::objects::tickets;
use crate::sender::Sender;
use crate::support::ingress::{Route, bed_behind, receiver_of};
use crate::support::{Bed, BedOptions, RECEIVER};

/// Memory of the receiver, as the chart limits it.
const MEMORY_KIB: u64 = 128 * 1024;

struct Size {
    sockets: usize,
    forgers: usize,
    lasts: Duration,
    /// The most that 99 of 100 honest deliveries may take at the receiver. The small one shares its machine with other
    /// tests, and only says what it was.
    p99: Option<Duration>,
}

fn size() -> Size {
    if std::env::var_os("ABUSE").is_some_and(|size| size == "full") {
        Size {
            sockets: 10_000,
            forgers: 16,
            lasts: Duration::from_secs(30),
            p99: Some(Duration::from_millis(100)),
        }
    } else {
        // More sockets than the receiver takes connections.
        Size { sockets: 1_500, forgers: 2, lasts: Duration::from_secs(6), p99: None }
    }
}

/// Jobs that are told of in its course, one after the other.
const BATCHES: usize = 5;

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
    let (bed, way) = bed_behind(Route::Ingress, "abuse", options).await;
    bed.make_api_key().await;
    let webhook = bed.make_webhook().await;
    let sender = Sender::of(&bed, &webhook).await;
    let mut jobs = Vec::new();
    for name in (0..=BATCHES).map(|number| format!("tickets-{number}")) {
        bed.apply(&tickets(&name, 1, "Auto")).await;
        let batch = bed.wait_condition(&name, "Submitted", "True", "Submitted").await;
        jobs.push(batch.status.unwrap().runs[0].remote_name.clone().unwrap());
    }
    // The Ingress stands before it; strangers have found their way to its port all the same.
    let target = receiver_of(&bed);
    let pid = bed.receiver.as_ref().expect("it runs").pid();
    // Only this one job is told of without them.
    let course = Course { jobs: vec![jobs.pop().unwrap()], lasts: Duration::from_secs(2) };
    let [quiet, quiet_by_ingress] = honest::all(target, Some((&bed, &way)), &sender, &course, "quiet").await;
    assert_eq!([&quiet.failed[..], &quiet_by_ingress.failed].concat(), [""; 0]);
    let before = (writes(&bed).await, bed.ledger().await);

    let tally = Arc::new(Tally::default());
    let strangers = Strangers::come(target, &sender, size.sockets, size.forgers, &tally);
    let course = Course { jobs, lasts: size.lasts };
    let [seen, by_ingress] = honest::all(target, Some((&bed, &way)), &sender, &course, "beside").await;
    strangers.leave().await;
    let peak = peak(pid);
    let after = (writes(&bed).await, bed.ledger().await);

    for (who, seen, quiet) in [("beside them", &seen, &quiet), ("by Ingress", &by_ingress, &quiet_by_ingress)]
    {
        println!(
            "honest, {who}: {} accepted, {} not; p50 {:.1?}, p99 {:.1?} (alone {:.1?} and {:.1?})",
            seen.times.len(),
            seen.failed.len(),
            seen.percentile(50),
            seen.percentile(99),
            quiet.percentile(50),
            quiet.percentile(99)
        );
    }
    println!("strangers in {:?}: {tally:?}", size.lasts);
    println!("forged a second: {}", Tally::of(&tally.forged) / size.lasts.as_secs());
    println!("memory of the receiver: {} MiB at most", peak / 1024);

    assert_eq!(
        [&seen.failed[..], &by_ingress.failed].concat(),
        [""; 0],
        "honest ones that were not accepted"
    );
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
        let (batches, webhooks) = (after[0] - before[0], after[1] - before[1]);
        println!("writes: {batches} of batches for {BATCHES} jobs that ended, {webhooks} of the webhook");
        assert_eq!(batches, BATCHES, "writes to batches");
        let routine = 1 + usize::try_from(size.lasts.as_secs() / 60).unwrap();
        assert!(webhooks <= routine, "writes to the webhook");
    }
    let calls = after.1.sequence().split_off(before.1.sequence().len());
    println!("calls of Gemini: {} looks", calls.len());
    assert!(calls.iter().all(|(call, _)| call == "batches.get"), "{calls:?}");
    // The jobs have not really ended, so that what was told is looked for again, after 30 s the first time.
    let looks = BATCHES * (1 + usize::try_from(size.lasts.as_secs() / 30).unwrap()) + 1;
    assert!(calls.len() <= looks, "more than {looks} looks for {BATCHES} jobs that were told of: {calls:?}");
    let p99 = seen.percentile(99);
    assert!(size.p99.is_none_or(|most| p99 <= most), "p99 is {p99:?}, not {:?}", size.p99);
}
