//! `make demo`: the main job on real parts. A control plane, the emulator, and the operator's own processes with tokens
//! of the chart's ServiceAccounts; two batches, until both have succeeded.

// A demo that cannot go on ends by a panic that says why, as a test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/e2e/objects.rs"]
#[allow(dead_code)]
mod objects;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use gemini_operator::api::GeminiBatch;
use kube::api::ListParams;
use serde_json::Value;

use objects::tickets;
use support::{Bed, BedOptions, POLL};

/// The demo gives up after this time; it takes a fraction of it.
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::main]
async fn main() {
    say("starting a Kubernetes control plane, the Gemini emulator, the receiver and the controller");
    let options = BedOptions { job_time: "5s".into(), ..BedOptions::default() };
    let bed = Bed::with("demo", options).await;

    say("kubectl apply: the Secret with the API key, and GeminiWebhook main");
    bed.make_api_key().await;
    bed.make_webhook().await;
    show(&bed, "geminiwebhooks").await;

    say("kubectl apply: GeminiBatch tickets (500 rows) and GeminiBatch few (3 rows)");
    bed.apply(&tickets("tickets", 500, "Auto")).await;
    bed.apply(&tickets("few", 3, "Auto")).await;
    watch(&bed).await;

    say("the first answers in ConfigMap tickets-results");
    for line in bed.results("tickets").await.answers.lines().take(3) {
        let line: Value = serde_json::from_str(line).expect("a result is JSON");
        let text = &line["response"]["candidates"][0]["content"]["parts"][0]["text"];
        println!("    {}: {}", line["key"].as_str().unwrap_or_default(), text.as_str().unwrap_or_default());
    }
    account(&bed).await;
    if std::env::var_os("KEEP").is_some_and(|keep| keep == "1") {
        keep(&bed).await;
    }
    say("done; nothing is left running");
}

fn say(words: &str) {
    println!("==> {words}");
}

async fn show(bed: &Bed, kind: &str) {
    let table = bed.kubectl().run(&["get", kind]).await.expect();
    for line in table.lines() {
        println!("    {line}");
    }
}

/// Shows `kubectl get geminibatches` whenever a phase changes, until both batches have ended.
async fn watch(bed: &Bed) {
    let (mut shown, started) = (vec![], Instant::now());
    loop {
        let batches = bed.batches().list(&ListParams::default()).await.expect("batches can be listed").items;
        let phases: Vec<_> = batches.iter().map(|b| b.status.as_ref().and_then(|s| s.phase)).collect();
        if phases != shown {
            show(bed, "geminibatches").await;
            shown = phases;
        }
        if batches.iter().all(GeminiBatch::is_finished) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the batches have not ended in time:\n{}", bed.logs());
        tokio::time::sleep(POLL).await;
    }
}

/// What the emulator has seen, from its own ledger.
async fn account(bed: &Bed) {
    let ledger = bed.ledger().await;
    let jobs = ledger.0["jobs"].as_array().map_or(0, Vec::len);
    let gets = ledger.calls("batches.get");
    say("the emulator's account");
    println!("    jobs created   {jobs}");
    println!("    rows paid      {}", ledger.rows_paid());
    // One GET follows each recorded name, one each event; whatever is above that would be a timer's.
    println!("    GETs by timer  {}", gets.saturating_sub(2 * jobs));
    println!("    events         {}", ledger.deliveries("batch.succeeded").len());
}

async fn keep(bed: &Bed) {
    say("left running, because KEEP=1; Ctrl-C stops everything");
    println!("    export KUBECONFIG={}", bed.cluster.kubeconfig.display());
    println!("    kubectl --namespace {} get geminibatches", bed.namespace);
    println!("    the emulator's ledger: {}/_emulator/ledger", bed.emulator.url);
    tokio::signal::ctrl_c().await.expect("signals can be watched");
}
