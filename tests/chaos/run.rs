//! One case: a batch, a fault at Gemini, and a controller that meets its crash point on the way.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::support::cluster::from_json;
use crate::support::process::Process;
use crate::support::{Bed, BedOptions, PATIENCE, Room, poll};

/// Doubts are over in seconds: 2 s of looking, a fence, 3 s of waiting.
pub const DIVISOR: u32 = 300;
/// Longer than all windows together, and shorter than the time after which a process does not send any more (20 s, which
/// nothing divides).
pub const PAUSE: Duration = Duration::from_secs(9);
pub const BATCH: &str = "tickets";
pub const ROWS: usize = 2;

/// What the process does to itself at the crash point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Kill,
    Stop,
    Panic,
    Term,
}

impl Action {
    pub const ALL: [Self; 4] = [Self::Kill, Self::Stop, Self::Panic, Self::Term];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Panic => "panic",
            Self::Term => "term",
        }
    }
}

/// How the first paid request ends at Gemini.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Post {
    Answered,
    RequestLost,
    AnswerLost,
    /// 503, and the job is made.
    Unavailable,
    /// Half of a 200.
    Truncated,
    /// The connection breaks, and the request is executed before the fence.
    Late,
    /// The same, after the fence.
    TooLate,
}

impl Post {
    fn faults(self) -> Value {
        let fault = match self {
            Self::Answered => return json!({}),
            Self::RequestLost => json!({"drop": "request"}),
            Self::AnswerLost => json!({"drop": "answer"}),
            Self::Unavailable => json!({"status": 503, "executed": true}),
            Self::Truncated => json!({"truncate_body_at": 40}),
            Self::Late => json!({"execute_late_ms": 1_000}),
            Self::TooLate => json!({"execute_late_ms": 7_000}),
        };
        json!({"rules": [{"name": "post", "match": {"call": "batches.create"}, "do": fault, "times": 1}]})
    }

    fn words(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::RequestLost => "request lost",
            Self::AnswerLost => "answer lost",
            Self::Unavailable => "503 but created",
            Self::Truncated => "truncated 200",
            Self::Late => "late",
            Self::TooLate => "later than the fence",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// `PLACE.SIDE`
    pub place: &'static str,
    pub side: &'static str,
    pub action: Action,
    /// A second one is stopped when it is ready and goes on when the first one has met its point: so its cache is as old as
    /// can be, and it acts at the very moment of the fault.
    pub controllers: usize,
    pub post: Post,
}

impl Case {
    pub fn point(&self) -> String {
        format!("{}.{}", self.place, self.side)
    }

    /// Whether its point is met only when the batch is deleted.
    fn is_of_deletion(&self) -> bool {
        self.place.starts_with('d')
    }
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let controllers = if self.controllers == 1 { "1 controller" } else { "2 controllers" };
        write!(f, "{}={}, {controllers}, {}", self.point(), self.action.name(), self.post.words())
    }
}

/// The controllers of one room.
struct Pair {
    first: Option<Process>,
    second: Option<Process>,
}

/// Runs one case; how long it took from the fault, or from the end of the pause, to the end of the batch.
pub async fn run(case: &Case) -> Duration {
    let bed = room("chaos", case.post.faults()).await;
    let armed = format!("{}={}", case.point(), case.action.name());
    let mut pair = Pair { first: Some(start(&bed, "first", Some(&armed)).await), second: None };
    if case.controllers == 2 {
        let second = start(&bed, "second", None).await;
        second.signal("STOP");
        pair.second = Some(second);
    }
    create(&bed, BATCH, ROWS).await;
    if case.is_of_deletion() {
        bed.wait_complete(BATCH).await;
        delete(&bed, BATCH).await;
    }
    hit(pair.first.as_ref().unwrap(), &armed).await;
    let mut since = Instant::now();
    if let Some(second) = &pair.second {
        second.signal("CONT");
    }
    match case.action {
        Action::Kill | Action::Term => {
            let mut first = pair.first.take().unwrap();
            let status = poll(PATIENCE, async || first.ended().ok_or(())).await;
            let status = status.expect("it ends");
            assert_eq!(status.success(), case.action == Action::Term, "{status}: {}", first.tail(20));
            pair.first = Some(start(&bed, "first", None).await);
            end_of_batch(&bed, case).await;
        }
        Action::Panic => end_of_batch(&bed, case).await,
        Action::Stop => {
            if case.controllers == 2 {
                end_of_batch(&bed, case).await;
            } else {
                // The pause itself is the fault.
                tokio::time::sleep(PAUSE).await;
                since = Instant::now();
            }
            pair.first.as_ref().unwrap().signal("CONT");
            end_of_batch(&bed, case).await;
        }
    }
    let took = since.elapsed();
    let mut batches = 1;
    if matches!(case.action, Action::Panic | Action::Stop) {
        // The very process that it happened to goes on, and does its work: alone.
        if let Some(mut second) = pair.second.take() {
            terminate(&mut second).await;
        }
        create(&bed, "after", 1).await;
        bed.wait_complete("after").await;
        batches = 2;
    }
    settled(&bed).await;
    for (name, rows) in [(BATCH, ROWS), ("after", 1)].into_iter().take(batches) {
        if !case.is_of_deletion() || name != BATCH {
            assert_answers(&bed, name, rows).await;
            delete(&bed, name).await;
        }
        bed.wait_gone(bed.batches(), name).await;
    }
    nothing_left(&bed).await;
    for mut process in [pair.first, pair.second].into_iter().flatten() {
        terminate(&mut process).await;
    }
    one_job_each(&bed, batches, if batches == 2 { ROWS + 1 } else { ROWS }).await;
    took
}

async fn end_of_batch(bed: &Bed, case: &Case) {
    if case.is_of_deletion() {
        bed.wait_gone(bed.batches(), BATCH).await;
    } else {
        bed.wait_complete(BATCH).await;
    }
}

/// A bed without an operator, and with the API key in place.
pub async fn room(name: &str, faults: Value) -> Bed {
    room_with(name, faults, vec![]).await
}

pub async fn room_with(name: &str, faults: Value, more_api_keys: Vec<(String, String)>) -> Bed {
    let options = BedOptions {
        faults: Some(faults),
        job_time: "300ms".into(),
        timing_divisor: DIVISOR,
        operator: false,
        more_api_keys,
        ..BedOptions::default()
    };
    let mut bed = Bed::with(name, options).await;
    bed.room.why = logs;
    bed.make_api_key().await;
    bed
}

pub fn logs(room: &Room) -> String {
    room.tail_of("first") + &room.tail_of("second")
}

/// A controller; `armed` says where it fails.
pub async fn start(bed: &Bed, name: &str, armed: Option<&str>) -> Process {
    let armed: Vec<_> = armed.map(|armed| ("GEMINI_OPERATOR_FAIL", armed)).into_iter().collect();
    bed.spawn_controller(name, &armed).await.0
}

/// Waits until the process has met its point.
pub async fn hit(process: &Process, armed: &str) {
    let words = format!("failpoint reached: {armed}");
    let met = poll(PATIENCE, async || if process.logs().contains(&words) { Ok(()) } else { Err(()) }).await;
    met.unwrap_or_else(|()| {
        panic!("not {words:?} in {PATIENCE:?}; its log ends with:\n{}", process.tail(20))
    });
}

/// An orderly end: what was begun is finished and written down.
pub async fn terminate(process: &mut Process) {
    let status = process.terminate(PATIENCE).await;
    assert!(status.success(), "{status}: {}", process.tail(20));
}

pub async fn create(bed: &Bed, name: &str, rows: usize) {
    let requests: Vec<Value> =
        (1..=rows).map(|i| json!({"key": format!("row-{i}"), "prompt": prompt(i)})).collect();
    let batch = from_json(json!({
        "apiVersion": "gemini-operator.io/v1alpha1",
        "kind": "GeminiBatch",
        "metadata": {"name": name},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"},
            "model": "gemini-3.5-flash",
            "input": {"inline": {"requests": requests}},
            "webhook": {"mode": "None"},
            "deletionPolicy": "Delete",
        },
    }));
    bed.batches().create(&PostParams::default(), &batch).await.expect("the batch is created");
}

fn prompt(i: usize) -> String {
    format!("Summarize ticket #{i}")
}

pub async fn delete(bed: &Bed, name: &str) {
    bed.batches().delete(name, &DeleteParams::default()).await.expect("the batch can be deleted");
}

/// Every row has the answer that the emulator gives to its prompt.
pub async fn assert_answers(bed: &Bed, name: &str, rows: usize) {
    let results = bed.results(name).await;
    let lines: Vec<Value> = results.answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wanted = (1..=rows).map(|i| {
        let request = json!({"contents": [{"role": "user", "parts": [{"text": prompt(i)}]}]});
        let mut response = gemini_emulator::rows::answer(&request);
        response["modelVersion"] = json!("gemini-3.5-flash");
        json!({"key": format!("row-{i}"), "response": response})
    });
    assert_eq!(lines, wanted.collect::<Vec<_>>(), "the answers of {name}");
}

/// A request that the plan executes late has been executed, if there was one.
async fn settled(bed: &Bed) {
    let executed = poll(PATIENCE, async || {
        let ledger = bed.ledger().await;
        let fault = |end: &str| ledger.entries("requests").iter().any(|r| r["fault"] == format!("post{end}"));
        let is_late = bed.options.faults.as_ref().is_some_and(|f| f.to_string().contains("execute_late_ms"));
        if is_late && fault("") && !fault(" (executed late)") { Err(()) } else { Ok(()) }
    });
    executed.await.expect("a late request is executed");
}

/// Deletion has removed everything at Gemini: a zombie's own file may take a moment more.
pub async fn nothing_left(bed: &Bed) {
    let left = poll(PATIENCE, async || {
        let state = bed.emulator.state().await;
        let (jobs, files) = (&state["jobs"], bed.emulator.list("files").await);
        if *jobs == 0 && files.is_empty() { Ok(()) } else { Err(format!("jobs: {jobs}, files: {files:?}")) }
    });
    left.await.expect("nothing of ours is left at Gemini");
}

/// As many jobs were ever made as there are batches, and each row was paid once; and whatever else must hold.
pub async fn one_job_each(bed: &Bed, batches: usize, rows: usize) {
    let ledger = bed.ledger().await;
    let paid = (ledger.jobs().len(), ledger.rows_paid());
    assert_eq!(paid, (batches, rows as u64), "jobs, paid rows: {:#?}", ledger.jobs());
    bed.assert_invariants().await;
}
