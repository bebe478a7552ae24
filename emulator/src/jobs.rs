//! The life of a job: PENDING → RUNNING → an end, by the emulator's clock.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::clock::{HOUR, Nanos, nanos, rfc3339};
use crate::deliveries::{self, Event};
use crate::faults::{FinalState, Hold, JobFault};
use crate::files::{Source, StoredFile};
use crate::rows::Kind;
use crate::run::{self, Results, RunInput};
use crate::state::{App, State};

/// Without an end after this long, a job expires.
pub const EXPIRES_AFTER: Nanos = 48 * HOUR;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Ended(FinalState),
}

#[derive(Clone, Debug)]
pub enum Input {
    File(String),
    Inline(Arc<Vec<Value>>),
}

#[derive(Clone, Debug)]
pub struct DynamicHook {
    pub uris: Vec<String>,
    pub user_metadata: Option<Value>,
}

#[derive(Clone, Debug)]
pub enum Output {
    None,
    File(String),
    Inline(Arc<Vec<Value>>),
}

#[derive(Clone, Debug)]
pub struct Job {
    pub id: String,
    pub project: String,
    pub model: String,
    pub kind: Kind,
    pub display_name: Option<String>,
    pub priority: Option<i64>,
    pub input: Input,
    pub hook: Option<DynamicHook>,
    pub created: Nanos,
    pub updated: Nanos,
    pub visible: Nanos,
    pub run_at: Nanos,
    pub end_at: Nanos,
    pub ended: Option<Nanos>,
    pub phase: Phase,
    pub fault: JobFault,
    pub hold: Option<Hold>,
    /// When a running job was asked to stop.
    pub cancelled_at: Option<Nanos>,
    /// When it was asked to stop for the first time, whatever its phase.
    pub cancel_asked: Option<Nanos>,
    pub deleted_at: Option<Nanos>,
    /// Its input was not there when it was made or when it was to run: it can never be paid for.
    pub without_input: bool,
    /// The bytes of the input file, from RUNNING on.
    pub bytes: Option<Bytes>,
    pub rows: u64,
    pub successful: u64,
    pub failed: u64,
    pub error: Option<Value>,
    pub output: Output,
    pub deleted: bool,
    pub executed_late: bool,
    /// Key (or position) and outcome of every row that was worked on.
    pub ledger_rows: Vec<run::LedgerRow>,
    pub paid: u64,
}

impl Job {
    pub fn name(&self) -> String {
        format!("batches/{}", self.id)
    }

    pub fn is_open(&self) -> bool {
        !self.deleted && !matches!(self.phase, Phase::Ended(_))
    }

    /// When something is to happen to it next.
    fn due(&self) -> Option<Nanos> {
        let expiry = self.created.saturating_add(EXPIRES_AFTER);
        match self.phase {
            _ if self.deleted => None,
            Phase::Pending if self.hold == Some(Hold::Pending) => Some(expiry),
            Phase::Pending => Some(self.run_at.min(expiry)),
            Phase::Running if self.cancelled_at.is_some() => self.cancelled_at,
            Phase::Running if self.hold == Some(Hold::Running) => Some(expiry),
            Phase::Running => Some(self.end_at.min(expiry)),
            Phase::Ended(_) => None,
        }
    }

    pub fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Pending => "BATCH_STATE_PENDING",
            Phase::Running => "BATCH_STATE_RUNNING",
            Phase::Ended(FinalState::Succeeded) => "BATCH_STATE_SUCCEEDED",
            Phase::Ended(FinalState::Failed) => "BATCH_STATE_FAILED",
            Phase::Ended(FinalState::Cancelled) => "BATCH_STATE_CANCELLED",
            Phase::Ended(FinalState::Expired) => "BATCH_STATE_EXPIRED",
        }
    }

    /// How many rows were served at a moment, by the time that had passed.
    fn served_at(&self, at: Nanos) -> u64 {
        let whole = self.end_at.saturating_sub(self.run_at);
        if whole <= 0 {
            return self.rows;
        }
        let passed = at.saturating_sub(self.run_at).clamp(0, whole);
        let rows = i128::from(self.rows) * i128::from(passed) / i128::from(whole);
        u64::try_from(rows).unwrap_or(self.rows)
    }

    fn end(&mut self, state: FinalState, error: Option<Value>, now: Nanos) {
        self.phase = Phase::Ended(state);
        self.error = error;
        self.ended = Some(now);
        self.updated = now;
        self.bytes = None;
    }

    /// Deletes it; says how many rows were paid by now that were not in the books before.
    pub fn forget(&mut self, now: Nanos) -> u64 {
        let unpaid = if self.phase == Phase::Running { self.served_at(now) } else { 0 };
        self.paid += unpaid;
        self.deleted = true;
        self.deleted_at = Some(now);
        self.updated = now;
        self.bytes = None;
        self.output = Output::None;
        if let Input::Inline(items) = &mut self.input {
            *items = Arc::new(Vec::new());
        }
        unpaid
    }

    /// Plans the two moments; 10 % of the job's time it is PENDING.
    pub fn plan_times(&mut self, job_time: Nanos) {
        self.run_at = self.created.saturating_add(job_time / 10);
        self.end_at = self.created.saturating_add(job_time);
    }
}

impl State {
    /// Puts a job where the scheduler finds it; call after every change of its times.
    pub fn schedule(&mut self, id: &str) {
        self.due.retain(|(_, due)| due != id);
        if let Some(at) = self.jobs.get(id).and_then(Job::due) {
            self.due.insert((at, id.to_owned()));
        }
    }
}

/// Runs for ever: does what is due, sleeps until the next is.
pub async fn scheduler(app: Arc<App>) {
    loop {
        settle(&app).await;
        let next = app.state().due.first().map(|(at, _)| *at);
        let sleep = async {
            match next {
                Some(at) => app.clock.until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = app.wake.notified() => {}
        }
    }
}

/// Moves every job to where it should be now.
pub async fn settle(app: &Arc<App>) {
    let _one_at_a_time = app.settling.lock().await;
    loop {
        let work = {
            let mut state = app.state();
            let Some((at, id)) = state.due.first().cloned() else { return };
            if at > app.now() {
                return;
            }
            state.due.remove(&(at, id.clone()));
            step(app, &mut state, &id)
        };
        match work {
            Step::Done(events) => {
                for (project, event) in events {
                    deliveries::emit(app, &project, &event);
                }
            }
            Step::Compute(input) => {
                let id = input.job.clone();
                let shared = Arc::clone(app);
                let results = tokio::task::spawn_blocking(move || run::results(&shared, &input)).await;
                if let Ok(results) = results {
                    for (project, event) in commit(app, &id, results) {
                        deliveries::emit(app, &project, &event);
                    }
                }
            }
        }
    }
}

type Events = Vec<(String, Event)>;

enum Step {
    Done(Events),
    Compute(Box<RunInput>),
}

fn step(app: &App, state: &mut State, id: &str) -> Step {
    let now = app.now();
    let Some(job) = state.jobs.get(id) else { return Step::Done(Vec::new()) };
    if job.created.saturating_add(EXPIRES_AFTER) <= now && job.is_open() {
        return finish(state, id, FinalState::Expired, None, now);
    }
    match job.phase {
        Phase::Pending => start(state, id, now),
        Phase::Running => {
            let cancelled = job.cancelled_at.is_some();
            match job.fault.state {
                Some(FinalState::Failed) if !cancelled => {
                    let error = job.fault.error.clone().unwrap_or_default();
                    let code = if error.code == 0 { 13 } else { error.code };
                    let message = if error.message.is_empty() {
                        crate::rows::status_message(code).to_owned()
                    } else {
                        error.message
                    };
                    let error = json!({"code": code, "message": message});
                    finish(state, id, FinalState::Failed, Some(error), now)
                }
                Some(FinalState::Expired) if !cancelled => finish(state, id, FinalState::Expired, None, now),
                Some(FinalState::Cancelled) if !cancelled => {
                    finish(state, id, FinalState::Cancelled, Some(cancel_error()), now)
                }
                _ => Step::Compute(Box::new(RunInput::of(
                    app,
                    job,
                    job.cancelled_at.map(|at| job.served_at(at)),
                ))),
            }
        }
        Phase::Ended(_) => Step::Done(Vec::new()),
    }
}

/// PENDING → RUNNING: now the input must be there.
fn start(state: &mut State, id: &str, now: Nanos) -> Step {
    let Some(job) = state.jobs.get(id) else { return Step::Done(Vec::new()) };
    let bytes = match &job.input {
        Input::Inline(_) => None,
        Input::File(name) => {
            let Some(file) = state.file(&job.project, name, now) else {
                let message = format!("The input file files/{name} does not exist or has expired.");
                let error = json!({"code": 5, "message": message});
                if let Some(job) = state.jobs.get_mut(id) {
                    job.without_input = true;
                }
                return finish(state, id, FinalState::Failed, Some(error), now);
            };
            Some(file.bytes.clone())
        }
    };
    let Some(job) = state.jobs.get_mut(id) else { return Step::Done(Vec::new()) };
    if let Some(bytes) = &bytes {
        job.rows = run::count_rows(bytes);
    }
    job.bytes = bytes;
    job.phase = Phase::Running;
    job.updated = now;
    state.schedule(id);
    Step::Done(Vec::new())
}

fn finish(state: &mut State, id: &str, end: FinalState, error: Option<Value>, now: Nanos) -> Step {
    let mut events = Vec::new();
    if let Some(job) = state.jobs.get_mut(id) {
        job.end(end, error, now);
        if end == FinalState::Failed {
            job.failed = job.rows;
        }
        events.extend(event(job, now).map(|event| (job.project.clone(), event)));
    }
    state.schedule(id);
    Step::Done(events)
}

/// The end of a job whose rows were computed.
fn commit(app: &App, id: &str, results: Result<Results, String>) -> Events {
    let now = app.now();
    let mut guard = app.state();
    let state = &mut *guard;
    let Some(job) = state.jobs.get_mut(id) else { return Vec::new() };
    if matches!(job.phase, Phase::Ended(_)) || job.deleted {
        return Vec::new();
    }
    let results = match results {
        Ok(results) => results,
        Err(message) => {
            let error = json!({"code": 3, "message": message});
            return match finish(state, id, FinalState::Failed, Some(error), now) {
                Step::Done(events) => events,
                Step::Compute(_) => Vec::new(),
            };
        }
    };
    state.ledger.rows_paid += results.paid;
    job.paid = results.paid;
    job.ledger_rows = results.ledger;
    job.successful = results.successful;
    job.failed = results.failed;
    job.end(FinalState::Succeeded, None, now);
    match results.output {
        run::RunOutput::Inline(items) => job.output = Output::Inline(Arc::new(items)),
        run::RunOutput::File(bytes) => {
            let file_id = format!("batch-{id}");
            job.output = Output::File(file_id.clone());
            if !job.fault.lose_result {
                let name = job.display_name.clone().unwrap_or_default();
                let file = StoredFile::new(&job.project, &name, bytes, Source::Generated, now);
                state.files.insert(file_id, file);
            }
        }
    }
    event(job, now).map(|event| (job.project.clone(), event)).into_iter().collect()
}

pub fn cancel_error() -> Value {
    json!({"code": 13, "message": "Batch was cancelled."})
}

/// The event that goes with a job's end; a cancelled one has none that can be subscribed to.
fn event(job: &Job, now: Nanos) -> Option<Event> {
    let Phase::Ended(end) = job.phase else { return None };
    let mut data = json!({"id": job.name()});
    let event_type = match end {
        FinalState::Succeeded => {
            if let Output::File(id) = &job.output {
                data["output_file_uri"] = json!(format!("files/{id}"));
            }
            "batch.succeeded"
        }
        FinalState::Failed => {
            if let Some(error) = &job.error {
                data["error_code"] = error["code"].clone();
                data["error_message"] = error["message"].clone();
            }
            "batch.failed"
        }
        FinalState::Expired => "batch.expired",
        FinalState::Cancelled => return None,
    };
    let mut body = json!({"type": event_type, "version": "v1", "timestamp": rfc3339(now), "data": data});
    if let Some(metadata) = job.hook.as_ref().and_then(|hook| hook.user_metadata.clone()) {
        body["user_metadata"] = metadata;
    }
    Some(Event {
        event_type: event_type.into(),
        batch: Some(job.name()),
        body: body.to_string(),
        dynamic: job.hook.as_ref().map(|hook| hook.uris.clone()),
    })
}

/// Ends a job now, as an admin wishes. False: there is no such open job.
pub fn force(app: &App, id: &str, end: FinalState, error: Option<crate::faults::JobError>) -> bool {
    let now = app.now();
    let mut state = app.state();
    let Some(job) = state.jobs.get_mut(id).filter(|job| job.is_open()) else { return false };
    job.fault.state = Some(end);
    job.fault.error = error;
    job.hold = None;
    job.run_at = job.run_at.min(now);
    job.end_at = now;
    state.schedule(id);
    true
}

/// Lets held jobs go on; their time starts now.
pub fn release(app: &App, only: Option<&str>) -> usize {
    let now = app.now();
    let mut state = app.state();
    let held: Vec<String> = state
        .jobs
        .values()
        .filter(|job| job.is_open() && job.hold.is_some() && only.is_none_or(|only| only == job.id))
        .map(|job| job.id.clone())
        .collect();
    for id in &held {
        if let Some(job) = state.jobs.get_mut(id) {
            let whole = job.end_at.saturating_sub(job.created);
            job.hold = None;
            job.run_at = job.run_at.max(now.saturating_sub(1));
            job.end_at = now.saturating_add(whole);
        }
        state.schedule(id);
    }
    held.len()
}

pub fn job_time(app: &App, fault: Option<&crate::matcher::Fired<JobFault>>) -> Nanos {
    fault
        .and_then(|fired| fired.action.job_time_ms.map(|amount| amount.pick_nanos(fired.seed, &fired.word)))
        .unwrap_or_else(|| nanos(app.settings.job_time))
}
