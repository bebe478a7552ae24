//! Intermediate states: the controller dies at each write that it makes, one run per write, before it is applied and after.
//! The same with answers that are lost or say something else, without a death.

use std::fmt;
use std::time::Duration;

use gemini_operator::api::GeminiBatch;
use gemini_operator_kproxy::{Fault, Go, Point, Rule, Verb};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, oneshot};
use tokio::time::timeout;

use super::end::{End, assert_leaves_nothing, assert_one_job};
use super::stage::{COUNTED, DIVISOR, Stage, describe, is_full, side_by_side};
use crate::support::{PATIENCE, batch_condition, poll};

pub const NAME: &str = "tickets";
/// Seconds until a listing shows a job of doubt: until the emulator's clock is moved on.
const LAG: u64 = 3600;

/// Ways of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From nothing to delivered results.
    Main,
    /// The one request is lost: fence, wait, second attempt.
    Resubmitted,
    /// Deleted while its job runs.
    Deleted,
    /// Deleted while it is not known whether there is a job; there is one.
    DeletedInDoubt,
}

/// What happens at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    KilledBefore,
    KilledAfter,
    AnswerLost,
    Answered504,
}

/// One run.
#[derive(Clone)]
struct Case {
    way: Way,
    write: Write,
    at: At,
    learned: &'static Learned,
}

/// One of the writes of a way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    /// What it is about, and which of those that are about the same, from 1.
    what: String,
    nth: u64,
    /// Of all, from 1.
    number: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, write {} ({}), {:?}", self.way, self.write.number, self.write.what, self.at)
    }
}

/// What is so without a fault.
pub struct Learned {
    writes: Vec<Write>,
    /// Of an object that is not deleted.
    pub end: Option<End>,
}

impl Way {
    fn faults(self) -> Value {
        let running = json!([{"do": {"hold": "running", "job_time_ms": 0}}]);
        let create = |fault: Value| json!([{"match": {"call": "batches.create"}, "do": fault, "times": 1}]);
        match self {
            Self::Main | Self::Deleted => json!({ "jobs": running }),
            Self::Resubmitted => json!({ "jobs": running, "rules": create(json!({"drop": "request"})) }),
            Self::DeletedInDoubt => json!({
                "jobs": [{"do": {"hold": "running", "job_time_ms": 0, "list_lag_ms": LAG * 1000}}],
                "rules": create(json!({"drop": "answer"})),
            }),
        }
    }

    /// Where the clock decides what comes first, it goes slower than machines do.
    fn divisor(self) -> u32 {
        match self {
            Self::Main | Self::Deleted => DIVISOR,
            Self::Resubmitted => DIVISOR / 3,
            // The wait after the fence leaves time to let the job show.
            Self::DeletedInDoubt => DIVISOR / 10,
        }
    }

    fn is_deleted(self) -> bool {
        matches!(self, Self::Deleted | Self::DeletedInDoubt)
    }

    /// What people and Gemini do meanwhile; the object in the end, unless it is gone.
    async fn goes(self, stage: &Stage) -> Option<GeminiBatch> {
        let bed = &stage.bed;
        stage.make(NAME).await;
        match self {
            Self::Main | Self::Resubmitted => {
                stage.wait_running(NAME).await;
                bed.emulator.release_jobs().await;
                Some(bed.wait_complete(NAME).await)
            }
            Self::Deleted => {
                stage.wait_running(NAME).await;
                stage.delete(NAME).await;
                bed.wait_gone(bed.batches(), NAME).await;
                None
            }
            Self::DeletedInDoubt => {
                bed.wait_batch(NAME, "in doubt or found", |batch| {
                    batch_condition(batch, "Submitted").is_some_and(|c| c.reason != "Submitting")
                })
                .await;
                stage.delete(NAME).await;
                let fenced = poll(PATIENCE, async || match bed.batches().get_opt(NAME).await {
                    Ok(Some(batch)) if !is_fenced(&batch) => Err(()),
                    Ok(_) => Ok(()),
                    Err(_) => Err(()),
                });
                assert!(fenced.await.is_ok(), "its attempt is fenced");
                bed.emulator.advance_clock(LAG).await;
                bed.wait_gone(bed.batches(), NAME).await;
                None
            }
        }
    }

    /// How it goes without a fault; found out once.
    pub async fn learned(self) -> &'static Learned {
        static LEARNED: [OnceCell<Learned>; 4] = [const { OnceCell::const_new() }; 4];
        LEARNED[self as usize]
            .get_or_init(async || {
                let stage = Stage::divided("learn", self.faults(), self.divisor()).await;
                let _controller = stage.controller().await;
                let batch = self.goes(&stage).await;
                if batch.is_some() {
                    stage.bed.wait_event(NAME, "Succeeded").await;
                }
                let described = stage.writes();
                println!(
                    "{self:?} without a fault: {} writes\n  {}",
                    described.len(),
                    described.join("\n  ")
                );
                let writes = numbered(&described);
                let end = match &batch {
                    Some(batch) => Some(End::of(&stage, batch).await),
                    None => None,
                };
                settle(&stage, self, end.is_some()).await;
                Learned { writes, end }
            })
            .await
    }
}

/// Whether the input file of the newest attempt is proven gone.
fn is_fenced(batch: &GeminiBatch) -> bool {
    batch.status.as_ref().and_then(|status| status.runs.last()).is_some_and(|run| run.fenced_time.is_some())
}

/// One job in all, and nothing is left of it once the batch is gone.
async fn settle(stage: &Stage, way: Way, is_there: bool) {
    if way.is_deleted() {
        let jobs = stage.bed.ledger().await.jobs().len();
        assert!(jobs <= 1, "{jobs} jobs were made");
    } else {
        assert_one_job(stage).await;
    }
    if is_there {
        stage.bed.assert_invariants().await;
        stage.delete(NAME).await;
    }
    assert_leaves_nothing(stage, NAME).await;
    stage.bed.assert_invariants().await;
}

fn numbered(described: &[String]) -> Vec<Write> {
    let nth = |i: usize| described[..=i].iter().filter(|other| **other == described[i]).count();
    let write = |(i, what): (usize, &String)| Write {
        what: what.clone(),
        nth: u64::try_from(nth(i)).unwrap_or_default(),
        number: i + 1,
    };
    described.iter().enumerate().map(write).collect()
}

/// The clock decides how many listings are counted: a write that counts one may not come. Any other must.
async fn run(case: Case) {
    let is_certain = !case.write.what.contains(COUNTED);
    for _ in 0..if is_certain { 1 } else { 4 } {
        if once(&case).await {
            return;
        }
    }
    panic!("this write never came");
}

/// False: the write did not come, and all went as without a fault.
async fn once(case: &Case) -> bool {
    let stage = Stage::divided("sieve", case.way.faults(), case.way.divisor()).await;
    let rule = |fault| {
        let what = case.write.what.clone();
        let rule = Rule::new(fault).verbs(&Verb::MUTATING).namespace(&stage.bed.namespace);
        rule.only_if(move |target, body| describe(target, body) == what).nth(&[case.write.nth])
    };
    // A write that need not come is not waited for once all is over.
    let last_words = if case.write.what.contains(COUNTED) { Duration::ZERO } else { PATIENCE };
    let mut controller = stage.controller().await;
    let (batch, seen) = match case.at {
        At::KilledBefore | At::KilledAfter => {
            let point = if case.at == At::KilledBefore { Point::BeforeApplied } else { Point::AfterApplied };
            let mut breakpoint = stage.proxy.breakpoint(point, rule);
            let (over, is_over) = oneshot::channel();
            let goes = async {
                let batch = case.way.goes(&stage).await;
                // Nobody waits for it when the write has come.
                let _ = over.send(());
                batch
            };
            let kill = async {
                let hit = tokio::select! {
                    hit = breakpoint.hit() => hit.is_some(),
                    _ = is_over => timeout(last_words, breakpoint.hit()).await.is_ok(),
                };
                if !hit {
                    return None;
                }
                controller.kill();
                breakpoint.go(Go::Drop);
                stage.proxy.clear();
                let seen = stage.writes();
                controller = stage.controller().await;
                Some(seen)
            };
            tokio::join!(goes, kill)
        }
        At::AnswerLost | At::Answered504 => {
            let fault = if case.at == At::AnswerLost {
                Fault::DropAnswer
            } else {
                Fault::ApplyThenAnswer { code: 504 }
            };
            let id = stage.proxy.add(rule(fault));
            let batch = case.way.goes(&stage).await;
            let fired =
                poll(last_words, async || if stage.proxy.fired(id) == 1 { Ok(()) } else { Err(()) }).await;
            let seen = fired.ok().and_then(|()| case.write.and_before(stage.writes()));
            (batch, seen)
        }
    };
    assert!(seen.is_some() || last_words.is_zero(), "this write never came: {:#?}", stage.writes());
    if let Some(seen) = &seen {
        let learned: Vec<String> = case.learned.writes.iter().map(|write| write.what.clone()).collect();
        let learned = certain(&learned[..case.write.number]);
        // Else another write was hit than the one that was meant.
        assert_eq!(certain(seen), learned, "other writes than without a fault");
    }
    let is_there = batch.is_some();
    if let (Some(batch), Some(learned)) = (&batch, &case.learned.end) {
        let found = End::of(&stage, batch).await.differences(learned);
        assert!(found.is_empty(), "another end: {found:#?}");
    }
    settle(&stage, case.way, is_there).await;
    seen.is_some()
}

impl Write {
    /// The writes up to this one.
    fn and_before(&self, mut writes: Vec<String>) -> Option<Vec<String>> {
        let nth = usize::try_from(self.nth).unwrap_or_default();
        let (place, _) = writes.iter().enumerate().filter(|(_, what)| **what == self.what).nth(nth - 1)?;
        writes.truncate(place + 1);
        Some(writes)
    }
}

/// Those that come in each run.
fn certain(writes: &[String]) -> Vec<&String> {
    writes.iter().filter(|what| !what.contains(COUNTED)).collect()
}

/// All writes of a way, from where it leaves the main one.
async fn every_write(way: Way, ats: &[At]) {
    let learned = way.learned().await;
    let main = if way == Way::Main { &[][..] } else { &Way::Main.learned().await.writes };
    let shared = learned.writes.iter().zip(main).take_while(|(a, b)| a == b).count();
    let writes = learned.writes[shared..].iter();
    let case = |write: &Write, at: &At| Case { way, write: write.clone(), at: *at, learned };
    let cases: Vec<Case> = writes.flat_map(|write| ats.iter().map(move |at| case(write, at))).collect();
    println!("{way:?}: {} cases, from write {} on", cases.len(), shared + 1);
    side_by_side(cases, run).await;
}

const DEATHS: [At; 2] = [At::KilledBefore, At::KilledAfter];
const LIES: [At; 2] = [At::AnswerLost, At::Answered504];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_write() {
    every_write(Way::Main, &DEATHS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_is_lost_or_wrong() {
    every_write(Way::Main, &LIES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_write_of_a_second_attempt() {
    every_write(Way::Resubmitted, &DEATHS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_a_second_attempt_is_lost_or_wrong() {
    if is_full() {
        every_write(Way::Resubmitted, &LIES).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_write_until_a_running_batch_is_gone() {
    every_write(Way::Deleted, &DEATHS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_write_until_a_doubtful_batch_is_gone() {
    every_write(Way::DeletedInDoubt, &DEATHS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_until_a_doubtful_batch_is_gone_is_lost_or_wrong() {
    if is_full() {
        every_write(Way::DeletedInDoubt, &LIES).await;
    }
}
