//! What the demo shows.

use std::time::{Duration, Instant};

use gemini_operator::api::GeminiBatch;
use kube::api::ListParams;
use serde_json::Value;

use crate::current::Current;
use crate::objects::tickets;
use crate::say;
use crate::support::{Account, Bed, POLL, batch_condition, tools};

/// The demo gives up after this time; it takes a fraction of it.
const PATIENCE: Duration = Duration::from_mins(2);
const TICKETS: usize = 500;
const FEW: usize = 3;

/// Webhook, two batches, answers, account.
pub async fn main_job(bed: &Bed) -> Result<(), String> {
    say(
        "kubectl apply: the Secret with the API key, and GeminiWebhook main (Ready = a signed ping has arrived)",
    );
    bed.make_api_key().await;
    bed.make_webhook().await;
    print(&table(bed, "geminiwebhooks").await);

    say(&format!("kubectl apply: GeminiBatch tickets ({TICKETS} rows) and GeminiBatch few ({FEW} rows)"));
    println!("    a job takes {} at the emulator; in between the operator is silent", bed.options.job_time);
    bed.apply(&tickets("tickets", TICKETS, "Auto")).await;
    bed.apply(&tickets("few", FEW, "Auto")).await;
    until_both_have_succeeded(bed).await?;

    say("the first answers in ConfigMap tickets-results");
    for line in bed.results("tickets").await.answers.lines().take(3) {
        let line: Value =
            serde_json::from_str(line).map_err(|error| format!("a result is no JSON: {error}"))?;
        let text = &line["response"]["candidates"][0]["content"]["parts"][0]["text"];
        println!("    {}: {}", line["key"].as_str().unwrap_or_default(), text.as_str().unwrap_or_default());
    }
    account(bed).await
}

async fn table(bed: &Bed, kind: &str) -> String {
    bed.kubectl().run(&["get", kind]).await.expect()
}

fn print(table: &str) {
    for line in table.lines() {
        println!("    {line}");
    }
}

/// A table without its last column, the age, which always changes.
fn without_age(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.map(|mut cells| {
        cells.pop();
        cells
    })
    .collect()
}

/// Shows `kubectl get geminibatches` whenever a phase changes, until both batches have ended.
async fn until_both_have_succeeded(bed: &Bed) -> Result<(), String> {
    let (mut phases, mut shown, started) = (vec![], String::new(), Instant::now());
    loop {
        let batches =
            bed.batches().list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        let now: Vec<_> = batches.iter().map(|b| b.status.as_ref().and_then(|s| s.phase)).collect();
        if phases != now {
            phases = now;
            // It may be newer than what was listed, and then it comes again.
            let table = table(bed, "geminibatches").await;
            if without_age(&table) != without_age(&shown) {
                println!("    $ kubectl get geminibatches     (after {} s)", started.elapsed().as_secs());
                print(&table);
                shown = table;
            }
        }
        if batches.iter().all(GeminiBatch::is_finished) {
            let succeeded =
                |b: &GeminiBatch| batch_condition(b, "Complete").is_some_and(|c| c.status == "True");
            return batches.iter().all(succeeded).then_some(()).ok_or_else(|| "a batch has failed".into());
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("the batches have not ended after {PATIENCE:?}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What the emulator has seen, from its own ledger, and whether it is what it has to be.
async fn account(bed: &Bed) -> Result<(), String> {
    let Account { jobs, rows, gets, gets_by_timer, lists, events } = Account::of(&bed.ledger().await);
    say("the emulator's account");
    println!("    jobs created   {jobs}");
    println!("    rows paid      {rows}");
    println!("    GETs by timer  {gets_by_timer}   (of {gets}; the others follow a creation or an event)");
    println!("    events         {events}");
    println!("    listings       {lists}   (the sweep: one for all jobs of a key)");
    let due = (2, (TICKETS + FEW) as u64, 0, 2);
    if (jobs, rows, gets_by_timer, events) == due {
        return Ok(());
    }
    let (jobs, rows, gets, events) = due;
    Err(format!(
        "the account is wrong: it has to be jobs created {jobs}, rows paid {rows}, GETs by timer {gets}, events {events}"
    ))
}

/// For `KEEP=1`.
pub fn how_to_use(bed: Option<&Bed>, current: Option<&Current>) {
    let Some(bed) = bed else { return };
    let kubectl = tools::kubectl().display();
    say("left running, because KEEP=1. In another terminal, in this folder:");
    // Somebody else's cluster is where kubectl looks anyway.
    if current.is_none() {
        println!("    export KUBECONFIG={}", bed.cluster.kubeconfig.display());
    }
    println!("    alias k='{kubectl} --namespace {}'", bed.namespace);
    println!("    k get geminibatches,geminiwebhooks,configmaps");
    println!("    k delete geminibatch tickets       # the name is the next one's");
    println!("    k apply -f deploy/samples/batch-inline.yaml");
    println!("    k explain geminibatches.spec");
    println!("    curl {}/_emulator/ledger", bed.emulator.url);
    say(&format!("to stop it and everything that belongs to it: Ctrl-C, or kill {}", std::process::id()));
}
