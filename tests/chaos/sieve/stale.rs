//! Stale states: a controller that goes on from an older view of the world than another one has made since.

use std::collections::BTreeMap;
use std::fmt;

use gemini_operator_kproxy::{Fault, Go, Point, Rule, Verb};
use serde_json::json;

use super::end::{End, assert_leaves_nothing};
use super::stage::{Stage, is_full, side_by_side};
use super::writes::{NAME, Way};
use crate::support::{PATIENCE, poll};

/// Writes of the object on its way to a running job; the view is that before one of them.
const WRITES: std::ops::RangeInclusive<u64> = 1..=7;

/// What is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// The cache. What is read live is new.
    Cache,
    /// Whatever is read, as from a follower that lags behind.
    Everything,
}

/// What the other controller has seen done meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Submitted,
    Deleted,
    /// Under the same name.
    MadeAnew,
}

struct Case {
    before: u64,
    view: View,
    meanwhile: Meanwhile,
    learned: &'static End,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} as before write {}, {:?} meanwhile", self.view, self.before, self.meanwhile)
    }
}

async fn run(case: Case) {
    let faults = json!({"jobs": [{"do": {"hold": "running", "job_time_ms": 0}}]});
    let stage = Stage::new("stale", faults).await;
    let bed = &stage.bed;
    let objects = ["geminibatches", "geminibatches/status"];
    let mut breakpoint = stage.proxy.breakpoint(Point::BeforeApplied, |fault| {
        Rule::new(fault).verbs(&Verb::MUTATING).resources(&objects).nth(&[case.before])
    });
    let mut first = stage.controller().await;
    stage.make(NAME).await;
    let hit = tokio::time::timeout(PATIENCE, breakpoint.hit()).await;
    assert!(hit.is_ok(), "write {} never came: {:#?}", case.before, stage.writes());
    let path = format!("/apis/gemini-operator.io/v1alpha1/namespaces/{}/geminibatches", bed.namespace);
    let then = stage.proxy.remember(&path).await.expect("the batches can be listed");
    first.kill();
    breakpoint.go(Go::Drop);
    stage.proxy.clear();

    let second = stage.direct_controller().await;
    match case.meanwhile {
        Meanwhile::Submitted => {}
        Meanwhile::Deleted | Meanwhile::MadeAnew => {
            stage.delete(NAME).await;
            bed.wait_gone(bed.batches(), NAME).await;
        }
    }
    if case.meanwhile == Meanwhile::MadeAnew {
        stage.make(NAME).await;
    }
    if case.meanwhile != Meanwhile::Deleted {
        stage.wait_running(NAME).await;
    }
    drop(second);
    let created = bed.ledger().await.calls("batches.create");

    let verbs: &[Verb] = match case.view {
        View::Cache => &[Verb::List, Verb::Watch],
        View::Everything => &[Verb::Get, Verb::List, Verb::Watch],
    };
    stage.proxy.add(Rule::new(Fault::Stale(then)).verbs(verbs).resources(&["geminibatches"]));
    let before = stage.proxy.log().requests.len();
    let _first = stage.controller().await;
    acted(&stage, before, case.view).await;
    assert_eq!(bed.ledger().await.calls("batches.create"), created, "nothing is submitted from an old view");
    stage.proxy.clear();

    bed.emulator.release_jobs().await;
    if case.meanwhile == Meanwhile::Deleted {
        assert!(
            bed.batches().get_opt(NAME).await.expect("the API server answers").is_none(),
            "it is there again"
        );
    } else {
        let batch = bed.wait_complete(NAME).await;
        let found = End::of(&stage, &batch).await.differences(case.learned);
        assert!(found.is_empty(), "another end: {found:#?}");
        stage.delete(NAME).await;
    }
    assert_leaves_nothing(&stage, NAME).await;
    let mut jobs: BTreeMap<String, usize> = BTreeMap::new();
    for job in bed.ledger().await.jobs() {
        *jobs.entry(job["display_name"].to_string()).or_default() += 1;
    }
    let objects = if case.meanwhile == Meanwhile::MadeAnew { 2 } else { 1 };
    assert!(
        jobs.len() <= objects && jobs.values().all(|count| *count == 1),
        "one job for each object: {jobs:?}"
    );
    bed.assert_invariants().await;
}

/// Returns when the controller has acted on its old view.
async fn acted(stage: &Stage, before: usize, view: View) {
    let seen = poll(PATIENCE, async || {
        let log = stage.proxy.log().requests.split_off(before);
        let of_objects = log.into_iter().filter(|r| r.target.resource.starts_with("geminibatches"));
        let mut answered = of_objects.filter(|r| r.code.is_some());
        let acted = answered.clone().any(|r| match view {
            View::Cache => r.target.verb == Verb::Get,
            // It tried to go on, and was refused.
            View::Everything => r.target.verb.is_mutating() && matches!(r.forwarded, Some(404 | 409)),
        });
        if acted { Ok(()) } else { Err(answered.by_ref().map(|r| r.target.to_string()).collect::<Vec<_>>()) }
    });
    if let Err(log) = seen.await {
        panic!("nothing was done on the old view: {log:?}\n{}", stage.bed.log_tails());
    }
}

async fn every_view(meanwhile: Meanwhile) {
    let learned = Way::Main.learned().await.end.as_ref().expect("a batch that was not deleted has an end");
    // Whatever is cached, what is read live decides: a single new read makes an old cache harmless.
    let views = if is_full() { vec![View::Cache, View::Everything] } else { vec![View::Everything] };
    let case = |before: u64, view: &View| Case { before, view: *view, meanwhile, learned };
    let cases: Vec<Case> =
        WRITES.flat_map(|before| views.iter().map(move |view| case(before, view))).collect();
    side_by_side(cases, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn submitted_by_another_meanwhile() {
    every_view(Meanwhile::Submitted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_meanwhile() {
    every_view(Meanwhile::Deleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_made_anew_meanwhile() {
    every_view(Meanwhile::MadeAnew).await;
}
