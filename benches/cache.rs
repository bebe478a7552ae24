//! What a cache of jobs costs: the receiver's, beside a plain typed reflector of the same kind. Both are processes of their
//! own that read the same list.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use gemini_operator::api::GeminiBatch;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::list::{self, List};
use crate::load::{answer_to, pin};
use crate::support::process::{Process, command};
use crate::support::{Bed, BedOptions, PATIENCE, poll, tools};
use crate::{Line, Size, Wanted, median, progress, world};

/// The variable by which this program learns that it is the reflector, and where the list is.
pub const SERVER: &str = "BENCH_LIST";

/// A cache is filled in seconds; only a machine that does something else, too, comes near this.
const FILLED: Duration = Duration::from_mins(10);

/// So many looks at its memory that say the same: it has settled.
const SETTLED: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Typed,
}

/// What was seen of one start.
#[derive(Clone, Copy)]
struct Seen {
    ready: Duration,
    /// Bytes at the end, and at most.
    steady: f64,
    peak: f64,
}

/// The reflector, in its process: what kube's own examples do.
pub async fn follow_typed(url: &str) {
    crate::support::install_crypto();
    let client = Client::try_from(Config::new(url.parse().expect("the list has a URL"))).expect("a client");
    let (store, writer) = reflector::store::<GeminiBatch>();
    let events = watcher(Api::all(client), watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(reflector(writer, events).applied_objects());
    let followed = async { while events.next().await.is_some() {} };
    let ready = async {
        store.wait_until_ready().await.expect("the reflector lives");
        println!("{}", json!({"objects": store.state().len()}));
        std::future::pending::<()>().await;
    };
    tokio::join!(followed, ready);
}

/// A batch as a cluster has it when all is done: made with kubectl, and written by a controller and a receiver.
async fn object() -> Value {
    let bed = Bed::with("cached", BedOptions::default()).await;
    bed.make_api_key().await;
    bed.make_webhook().await;
    // No part of it may be a part of anything else in the object.
    let name = "zq-object-zq";
    let requests: Vec<Value> = (1..=3)
        .map(|i| json!({"key": format!("ticket-{i}"), "prompt": format!("Summarize ticket #{i}")}))
        .collect();
    let batch = json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiBatch", "metadata": {"name": name},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"}, "model": "gemini-3.5-flash",
            "input": {"inline": {"requests": requests}}, "webhook": {"mode": "Auto"},
        },
    });
    bed.apply(&batch.to_string()).await;
    bed.wait_complete(name).await;
    let said = bed.kubectl().run(&["get", "gb", name, "-o", "json", "--show-managed-fields"]).await;
    serde_json::from_str(&said.expect()).expect("kubectl prints JSON")
}

/// One start of one side on so many objects.
async fn start(list: &List, dir: &Path, side: Side, count: usize) -> Seen {
    list.hold(count);
    let url = format!("http://{}", list.address);
    let mut command = match side {
        Side::Ours => {
            let mut command = command(&tools::operator());
            command.args(["receiver", "--operator-namespace", "bench"]);
            command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
            command.env("KUBECONFIG", kubeconfig(dir, &url));
            command
        }
        Side::Typed => {
            let mut command = command(&std::env::current_exe().expect("this program has a path"));
            command.env(SERVER, url);
            command
        }
    };
    // The list has the other core.
    command.env("RUST_LOG", "warn");
    let begin = Instant::now();
    let name = if side == Side::Ours { "ours" } else { "typed" };
    let mut process = Process::start(name, dir, command).expect("it starts");
    pin(process.pid(), "0");
    let ready = tokio::time::timeout(FILLED, list.followed()).await;
    let ready = ready.unwrap_or_else(|_| panic!("{name} follows nothing: {}", process.tail(20))) - begin;
    let hello = process.hello().await;
    // It has them indeed.
    match side {
        Side::Typed => assert_eq!(hello["objects"], count),
        Side::Ours if count > 0 => {
            let listen: std::net::SocketAddr =
                hello["listen"].as_str().and_then(|listen| listen.parse().ok()).expect("it says where");
            // Another than what its status tells of.
            let body = json!({"type": "batch.failed", "data": {"id": list::job(count / 2)}}).to_string();
            // Its other tables may not be there yet: then it asks to come again.
            let taken = poll(PATIENCE, async || {
                match answer_to(listen, &world::delivery("msg_cached", &body, false)).await {
                    204 => Ok(()),
                    status => Err(status),
                }
            });
            taken.await.unwrap_or_else(|status| panic!("{status}: {}", process.tail(20)));
            assert_eq!(list.written(), list::name(count / 2), "no hint was stored");
        }
        Side::Ours => {}
    }
    let mut same = Vec::new();
    let settled = poll(PATIENCE, async || {
        let now = kib(process.pid(), "VmRSS:");
        same.retain(|before| *before == now);
        same.push(now);
        if same.len() >= SETTLED { Ok(now) } else { Err(now) }
    });
    let steady = settled.await.unwrap_or_else(|last| last);
    let bytes = |kib: u32| f64::from(kib) * 1024.0;
    Seen { ready, steady: bytes(steady), peak: bytes(kib(process.pid(), "VmHWM:")) }
}

fn kubeconfig(dir: &Path, url: &str) -> PathBuf {
    let path = dir.join("list.kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "list",
        "clusters": [{"name": "list", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "list", "context": {"cluster": "list", "user": "nobody"}}],
    });
    fs::write(&path, config.to_string()).expect("the run's folder is writable");
    path
}

/// A line of a process's status.
fn kib(pid: u32, line: &str) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let value = status.lines().find_map(|text| text.strip_prefix(line)).expect("Linux counts it");
    value.trim().trim_end_matches(" kB").parse().expect("it is a number")
}

/// One start of each side, and what a job takes in each.
struct Pair {
    ours: Seen,
    typed: Seen,
    each: [f64; 2],
}

pub async fn lines(size: &Size) -> Vec<Line> {
    progress("P5: an object to copy");
    let list = List::open(&object().await).await;
    let dir = crate::support::cluster::cluster().await.dir.join("cache");
    fs::create_dir_all(&dir).expect("the run's folder is writable");
    pin(std::process::id(), "1");
    let mut lines = Vec::new();
    for count in size.cached {
        let mut pairs = Vec::new();
        for round in 1..=size.rounds {
            progress(&format!("P5: {count} objects, round {round} of {}", size.rounds));
            let empty = (start(&list, &dir, Side::Ours, 0).await, start(&list, &dir, Side::Typed, 0).await);
            let full =
                (start(&list, &dir, Side::Ours, count).await, start(&list, &dir, Side::Typed, count).await);
            let many = f64::from(u32::try_from(count).expect("so many are not made"));
            let each = |full: Seen, empty: Seen| (full.steady - empty.steady) / many;
            let each = [each(full.0, empty.0), each(full.1, empty.1)];
            pairs.push(Pair { ours: full.0, typed: full.1, each });
        }
        let line = |what: &str, wanted, figures: String, ratios: Vec<f64>| Line {
            bar: "P5",
            what: format!("{count} jobs in a cache: {what}"),
            value: median(ratios),
            wanted,
            figures,
        };
        let of = |figure: &dyn Fn(&Pair) -> f64| pairs.iter().map(figure).collect::<Vec<_>>();
        let figures = format!(
            "{:.0} and {:.0} bytes, of objects of {} bytes as JSON",
            median(of(&|pair| pair.each[0])),
            median(of(&|pair| pair.each[1])),
            list.bytes()
        );
        let bytes = of(&|pair| pair.each[0] / pair.each[1]);
        lines.push(line("bytes for each, of a typed reflector", Wanted::AtMost(0.25), figures, bytes));
        let figures = format!("{:.2?} and {:.2?}", pairs[0].ours.ready, pairs[0].typed.ready);
        let ready = of(&|pair| pair.ours.ready.as_secs_f64() / pair.typed.ready.as_secs_f64());
        lines.push(line(
            "time until it is filled, of a typed reflector",
            Wanted::AtMost(1.1),
            figures,
            ready,
        ));
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let (a, b) = (pairs[0].ours, pairs[0].typed);
        let figures = format!(
            "{:.1} MiB of {:.1}; the typed one {:.1} of {:.1}",
            mib(a.peak),
            mib(a.steady),
            mib(b.peak),
            mib(b.steady)
        );
        let peak = of(&|pair| pair.ours.peak / pair.ours.steady);
        lines.push(line(
            "most memory at the start, of what it settles at",
            Wanted::AtMost(1.3),
            figures,
            peak,
        ));
    }
    pin(std::process::id(), "0,1");
    lines
}
