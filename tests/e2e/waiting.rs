//! What waiting costs at Gemini: calls in an hour, counted in the emulator's ledger, beside a GET of each job every 30 s.
//!
//! The hour is that of the operator's windows: all of them are divided by one number, so the hour is, too, and polling with
//! it. It is measured by the emulator's clock. A small one in every test run; `make waiting` the large one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::objects::tickets;
use crate::support::audit::Request;
use crate::support::emulator::time;
use crate::support::{Bed, BedOptions, CONTROLLER, PATIENCE, RECEIVER, poll};

const HOUR: Duration = Duration::from_hours(1);
/// GETs of one job in an hour.
const POLLS: usize = 120;

/// Whether this is the run whose figures are recorded.
pub fn is_full() -> bool {
    std::env::var_os("WAITING").is_some_and(|size| size == "full")
}

/// Puts the figures between their markers of the page that `WAITING_PAGE` names.
pub fn record(name: &str, figures: &str) {
    println!("{figures}");
    let Some(page) = std::env::var_os("WAITING_PAGE") else { return };
    let page = Path::new(&page);
    let text = fs::read_to_string(page).expect("the page is there");
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- end of {name} -->"));
    let (before, rest) = text.split_once(&begin).expect("the page has a marker");
    let (_, after) = rest.split_once(&end).expect("the page has a second marker");
    let day = Timestamp::now().strftime("%F");
    fs::write(page, format!("{before}{begin}\n\n{day}\n\n{figures}\n{end}{after}"))
        .expect("it can be written");
}

/// Applies batches until there are `count`; returns when each has its job, and has been looked at.
async fn wait_for_jobs(bed: &Bed, have: usize, count: usize) {
    let names: Vec<String> = (have..count).map(|n| format!("batch-{n}")).collect();
    for some in names.chunks(100) {
        let items: Vec<Value> =
            some.iter().map(|name| serde_json::from_str(&tickets(name, 1, "Auto")).unwrap()).collect();
        bed.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).await;
    }
    let within = PATIENCE + Duration::from_secs(count as u64);
    let waiting = poll(within, async || {
        let all = bed.batches().list(&ListParams::default()).await.expect("batches can be listed");
        let waits = |batch: &&gemini_operator::api::GeminiBatch| {
            let run = batch.status.as_ref().and_then(|status| status.runs.last());
            run.is_some_and(|run| run.state.as_deref() == Some("PENDING"))
        };
        let waiting = all.iter().filter(waits).count();
        if waiting == count { Ok(()) } else { Err(waiting) }
    });
    waiting.await.unwrap_or_else(|n| panic!("{n} of {count} jobs wait\n{}", bed.log_tails()));
}

async fn emulators_now(bed: &Bed) -> Timestamp {
    time(&bed.emulator.counts().await.0["taken"])
}

/// What both parts of the operator wrote so far, and how often the controller read a batch.
async fn asked(bed: &Bed) -> [usize; 2] {
    let all = bed.audit_up_to_now().await.unwrap_or_default();
    let writes = all.iter().filter(|r| r.is_write() && [CONTROLLER, RECEIVER].contains(&r.user.as_str()));
    let is_read = |r: &&Request| r.user == CONTROLLER && r.verb == "get" && r.resource == "geminibatches";
    [writes.count(), all.iter().filter(is_read).count()]
}

/// All calls of the next hour, by their names.
async fn calls_of_an_hour(bed: &Bed, hour: Duration) -> BTreeMap<String, usize> {
    let begin = emulators_now(bed).await;
    let end = begin + jiff::SignedDuration::try_from(hour).unwrap();
    let over = poll(hour * 2, async || if emulators_now(bed).await >= end { Ok(()) } else { Err(()) });
    over.await.expect("the emulator's clock goes");
    let ledger = bed.ledger().await;
    let mut calls = BTreeMap::new();
    for entry in ledger.entries("requests") {
        if (begin..end).contains(&time(&entry["time"])) {
            *calls.entry(entry["call"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_costs_a_hundredth_of_polling_and_less() {
    let (divisor, sizes) = if is_full() { (60, &[10, 100, 1000][..]) } else { (120, &[10, 100][..]) };
    let options = BedOptions {
        faults: Some(json!({"jobs": [{"do": {"hold": "pending"}}]})),
        timing_divisor: divisor,
        ..BedOptions::default()
    };
    let bed = Bed::with("waiting", options).await;
    bed.make_api_key().await;
    bed.make_webhook().await;
    let hour = HOUR / divisor;
    let (mut table, mut have) = (String::new(), 0);
    for &jobs in sizes {
        wait_for_jobs(&bed, have, jobs).await;
        have = jobs;
        let before = asked(&bed).await;
        let calls = calls_of_an_hour(&bed, hour).await;
        let after = asked(&bed).await;
        let (written, read) = (after[0] - before[0], after[1] - before[1]);
        let (sum, polls) = (calls.values().sum::<usize>(), jobs * POLLS);
        let wanted = if jobs < 100 { 100 } else { 1000 };
        let named: Vec<String> = calls.iter().map(|(call, count)| format!("{count} {call}")).collect();
        let named = named.join(", ");
        let ratio = polls / sum.max(1);
        let line =
            format!("| {jobs} | {sum} ({named}) | {polls} | 1/{ratio} | 1/{wanted} | {written} | {read} |\n");
        print!("{line}");
        table.push_str(&line);
        assert!(sum * wanted <= polls, "{jobs} jobs: {calls:?} are more than 1/{wanted} of {polls}");
        assert!(calls.contains_key("batches.list"), "the sweep did pass");
        assert!(!calls.contains_key("batches.get"), "no job by itself: {calls:?}");
        assert_eq!(written, 0, "{jobs} jobs: writes in the cluster while they wait");
        // The last write of each wakes it once more, some of them within this hour; the sweeps read none.
        assert!(read <= jobs, "{jobs} jobs: {read} reads in the cluster while they wait");
    }
    let head = "| waiting jobs | calls in an hour | polling | is | at most | writes in the cluster | reads of batches |\n\
                |---|---|---|---|---|---|---|\n";
    record("waiting", &(head.to_owned() + &table));
}
