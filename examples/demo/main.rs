//! `make demo`: the main job on real parts. A Kubernetes API, the emulator, and the operator's own processes with
//! tokens of the chart's ServiceAccounts; two batches, until both have succeeded.
//!
//! `KEEP=1` leaves it up until it is told to stop. `CLUSTER=current` takes the cluster of kubectl's current context
//! instead of a control plane of its own; `CLEAN=1` with it removes what a killed demo left there.

// The test bed, which this is made of, says by a panic why it cannot go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod current;
#[path = "../../tests/e2e/objects.rs"]
#[allow(dead_code)]
mod objects;
mod show;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use current::Current;
use support::cluster::fresh_dir;
use support::{Bed, BedOptions, Cluster};

#[tokio::main]
async fn main() -> ExitCode {
    // The words alone: where in the code they were said is of no use to who watches a demo.
    std::panic::set_hook(Box::new(|info| {
        eprintln!("demo: {}", info.payload_as_str().unwrap_or("it broke off"));
    }));
    match demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("demo: {problem}");
            ExitCode::FAILURE
        }
    }
}

pub fn say(words: &str) {
    println!("==> {words}");
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

/// What has to be ended or removed, whatever happens.
#[derive(Default)]
struct Held {
    current: Option<Current>,
    cluster: Option<&'static Cluster>,
    bed: Option<Bed>,
}

async fn demo() -> Result<(), String> {
    let mut stop = Stop::install()?;
    let mut held = Held::default();
    let started = Instant::now();
    let ended = tokio::select! {
        ended = AssertUnwindSafe(work(&mut held)).catch_unwind() => {
            ended.unwrap_or_else(|_| Err("that was the end of it".into()))
        }
        () = stop.asked() => {
            held.end().await?;
            return Err("stopped before its end; nothing is left running".into());
        }
    };
    if let (Err(_), Some(bed)) = (&ended, &held.bed) {
        eprintln!("{}", bed.log_tails());
    }
    if ended.is_ok() && is_set("KEEP") && held.bed.is_some() {
        show::how_to_use(held.bed.as_ref(), held.current.as_ref());
        stop.asked().await;
    }
    let left = held.end().await;
    ended.and(left)?;
    say(&format!("done after {} s; nothing is left running", started.elapsed().as_secs()));
    Ok(())
}

async fn work(held: &mut Held) -> Result<(), String> {
    let cluster = match std::env::var("CLUSTER").unwrap_or_default().as_str() {
        "" => {
            say(
                "starting a Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager;",
            );
            say(
                "installing crds/ and deploy/install.yaml in it (nothing runs its Deployments: it has no nodes)",
            );
            Cluster::start().await?
        }
        "current" => {
            let current = held.current.insert(Current::find().await?);
            if is_set("CLEAN") {
                return Ok(());
            }
            current.install().await?;
            current.cluster()
        }
        other => {
            return Err(format!(
                "CLUSTER={other}: only CLUSTER=current is known (kubectl's current context); without it the demo starts \
                 a control plane of its own"
            ));
        }
    };
    // For the rest of this program's life.
    let cluster: &'static Cluster = held.cluster.insert(Box::leak(Box::new(cluster)));

    say("starting the Gemini emulator, and controller and receiver as the chart's ServiceAccounts");
    // The time windows of production. Divided as in the tests, the sweep would come every 10 s, in the middle of the
    // demo, and on a busy machine it can lead to a GET of its own: rightly counted as a timer's.
    let options = BedOptions { job_time: "5s".into(), timing_divisor: 1, ..BedOptions::default() };
    let bed = held.bed.insert(Bed::on(cluster, "demo", options).await);
    show::main_job(bed).await
}

impl Held {
    /// In this order: what the controller has to let go of is deleted while it runs.
    async fn end(self) -> Result<(), String> {
        if let (Some(current), Some(bed)) = (&self.current, &self.bed) {
            current.delete_objects(&bed.namespace).await;
        }
        drop(self.bed);
        let mut ended = Ok(());
        if let Some(current) = self.current {
            ended = current.remove().await;
        }
        match self.cluster {
            Some(cluster) => ended.and(cluster.end().await),
            // It may not have come so far as to make it.
            None => {
                ended.and(fresh_dir().and_then(|dir| std::fs::remove_dir_all(dir).map_err(|e| e.to_string())))
            }
        }
    }
}

/// Ctrl-C, or `kill`.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn install() -> Result<Self, String> {
        let watch = |kind| signal(kind).map_err(|error| format!("signals cannot be watched: {error}"));
        Ok(Self { interrupt: watch(SignalKind::interrupt())?, terminate: watch(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        say("asked to stop");
    }
}
