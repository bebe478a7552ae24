//! An API server on a bad day: watches that stand still or end, and many calls that fail.

use std::collections::BTreeMap;

use gemini_operator_kproxy::{Fault, Rule, Verb};
use serde_json::json;
use tokio::sync::OnceCell;

use super::end::{End, assert_leaves_nothing};
use super::stage::{ROWS, Stage};
use super::writes::{NAME, Way};
use crate::support::poll;

const BATCHES: usize = 10;
/// The batches' windows are a sixtieth, so a failure costs them what it costs in production, in proportion.
const DIVISOR: u32 = 60;

async fn one_batch(rule: Rule) -> u64 {
    let stage = Stage::new("weather", json!({"jobs": [{"do": {"hold": "running", "job_time_ms": 0}}]})).await;
    let bed = &stage.bed;
    let learned = Way::Main.learned().await.end.as_ref().expect("a batch that was not deleted has an end");
    let _controller = stage.controller().await;
    let id = stage.proxy.add(rule.resources(&["geminibatches"]));
    stage.make(NAME).await;
    stage.wait_running(NAME).await;
    bed.emulator.release_jobs().await;
    let batch = bed.wait_complete(NAME).await;
    let found = End::of(&stage, &batch).await.differences(learned);
    assert!(found.is_empty(), "another end: {found:#?}");
    stage.delete(NAME).await;
    assert_leaves_nothing(&stage, NAME).await;
    bed.assert_invariants().await;
    assert_eq!(bed.ledger().await.jobs().len(), 1);
    stage.proxy.fired(id)
}

/// The connection is there, and nothing comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_stands_still_for_ever() {
    one_batch(Rule::new(Fault::FreezeWatch)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_with_each_event() {
    let ended = one_batch(Rule::new(Fault::EndWatch)).await;
    assert!(ended >= 2, "it ended {ended} times");
}

/// What ten batches cost.
struct Cost {
    /// Requests of the controller by verb and resource.
    requests: BTreeMap<String, usize>,
    /// Of them, those that write.
    writes: usize,
    /// Requests that make a job.
    creates: usize,
}

impl Cost {
    fn sum(&self) -> usize {
        self.requests.values().sum()
    }

    /// Without a fault; found out once.
    async fn calm() -> &'static Self {
        static CALM: OnceCell<Cost> = OnceCell::const_new();
        CALM.get_or_init(|| ten_batches("calm", vec![])).await
    }
}

/// Ten batches under these rules until all are complete, each with one job.
async fn ten_batches(name: &str, rules: Vec<Rule>) -> Cost {
    let stage = Stage::divided(name, json!({"jobs": [{"do": {"job_time_ms": 1000}}]}), DIVISOR).await;
    let bed = &stage.bed;
    let _controller = stage.controller().await;
    let before = stage.proxy.log().requests.len();
    let ids: Vec<_> = rules.into_iter().map(|rule| stage.proxy.add(rule)).collect();
    let names: Vec<String> = (0..BATCHES).map(|i| format!("tickets-{i}")).collect();
    for name in &names {
        stage.make(name).await;
    }
    for name in &names {
        bed.wait_complete(name).await;
    }
    let (mut requests, mut writes) = (BTreeMap::new(), 0);
    for request in &stage.proxy.log().requests[before..] {
        *requests.entry(request.target.to_string()).or_default() += 1;
        writes += usize::from(request.target.verb.is_mutating());
    }
    for id in ids {
        assert!(stage.proxy.fired(id) > 0, "a rule was never applied");
    }
    stage.proxy.clear();
    let ledger = bed.ledger().await;
    let made = (ledger.jobs().len(), ledger.rows_paid());
    assert_eq!(made, (BATCHES, ROWS * BATCHES as u64), "one job for each: {:?}", ledger.sequence());
    let creates = ledger.calls("batches.create");
    for name in &names {
        stage.delete(name).await;
    }
    for name in &names {
        bed.wait_gone(bed.batches(), name).await;
    }
    let left = poll(crate::support::PATIENCE, async || {
        let there = bed.emulator.state().await;
        let left = (there["jobs"].as_u64(), there["files"].as_u64());
        if left == (Some(0), Some(0)) { Ok(()) } else { Err(left) }
    });
    left.await.unwrap_or_else(|left| panic!("jobs and files are left at Gemini: {left:?}"));
    bed.assert_invariants().await;
    let cost = Cost { requests, writes, creates };
    println!("{name}: {} requests, {writes} writes, {creates} creates: {:?}", cost.sum(), cost.requests);
    cost
}

/// Reads are another matter: each try begins with one, and clients of Kubernetes repeat those that fail by themselves.
fn assert_cheap(cost: &Cost, calm: &Cost) {
    assert!(cost.writes <= 2 * calm.writes, "{} writes, {} without a fault", cost.writes, calm.writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_of_all_calls_fails() {
    let codes = [(409, None), (410, None), (429, Some(1)), (500, None), (504, None)];
    let rules = codes.iter().zip(1..).map(|((code, retry_after), seed)| {
        // Six or seven of a hundred each: the ones before it take their share first.
        Rule::new(Fault::Answer { code: *code, retry_after: *retry_after })
            .percent(6 + seed / 4, seed * 1_000_003)
    });
    let cost = ten_batches("storm", rules.collect()).await;
    assert_cheap(&cost, Cost::calm().await);
    assert!(cost.creates <= 2 * BATCHES, "{} creates", cost.creates);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_write_is_applied_and_answered_504() {
    let lie = Rule::new(Fault::ApplyThenAnswer { code: 504 });
    let lie = lie.verbs(&[Verb::Update]).resources(&["geminibatches/status"]);
    let cost = ten_batches("lies", vec![lie]).await;
    assert_cheap(&cost, Cost::calm().await);
    assert_eq!(cost.creates, BATCHES, "an intent that stands is not made twice");
}
