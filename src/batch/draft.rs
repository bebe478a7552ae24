//! PURE: a status in the making.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Plan, Step};
use crate::api::batch::{GeminiBatch, GeminiBatchStatus, Phase, Run, Submission};
use crate::api::condition::{self, Is, batch_type};
use crate::controller::Next;

/// A copy of the status, with the words that planning needs.
pub struct Draft {
    pub status: GeminiBatchStatus,
    generation: Option<i64>,
    now: Timestamp,
}

impl Draft {
    /// Goes on from the status as it stands.
    pub fn new(batch: &GeminiBatch, now: Timestamp) -> Self {
        let status = batch.status.clone().unwrap_or_default();
        Self::of(status, batch.metadata.generation, now)
    }

    /// Starts from nothing, but for the receiver's field.
    pub fn empty(batch: &GeminiBatch, now: Timestamp) -> Self {
        let last_event = batch.status.as_ref().and_then(|s| s.last_event.clone());
        let status = GeminiBatchStatus { last_event, ..GeminiBatchStatus::default() };
        Self::of(status, batch.metadata.generation, now)
    }

    fn of(mut status: GeminiBatchStatus, generation: Option<i64>, now: Timestamp) -> Self {
        status.observed_generation = generation;
        Self { status, generation, now }
    }

    pub fn set(&mut self, type_: &str, is: Is, reason: &str, message: &str) {
        condition::set(&mut self.status.conditions, type_, is, reason, message, self.generation, self.now);
    }

    pub fn has(&self, type_: &str) -> bool {
        condition::get(&self.status.conditions, type_).is_some()
    }

    /// Whether the last try failed, and says so.
    pub fn is_retrying(&self) -> bool {
        condition::get(&self.status.conditions, batch_type::RECONCILING)
            .is_some_and(|c| c.status == Is::True.as_str() && c.reason == "Retrying")
    }

    pub fn phase(&mut self, phase: Phase) {
        self.status.phase = Some(phase);
    }

    /// K.
    pub fn key(&self) -> &str {
        self.status.identity.as_ref().map_or("", |i| i.submit_key.as_str())
    }

    /// Changes the newest run.
    pub fn run(&mut self, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.status.runs.last_mut() {
            change(run);
        }
    }

    /// The job of the newest attempt was found by its marker.
    pub fn adopt(&mut self, name: &str) {
        let now = Time(self.now);
        let mut attempt = 0;
        self.run(|run| {
            run.remote_name = Some(name.to_owned());
            run.submission = Submission::Recorded;
            run.submit_time = Some(now.clone());
            run.message = None;
            attempt = run.attempt;
        });
        self.status.submitted_time = Some(now);
        let message = format!("found the job of attempt {attempt} in a listing: {name}");
        self.set(batch_type::SUBMITTED, Is::True, "Adopted", &message);
        self.phase(Phase::Pending);
        self.progressing("Pending", "");
    }

    /// kstatus: work goes on.
    pub fn progressing(&mut self, reason: &str, message: &str) {
        self.set(batch_type::RECONCILING, Is::True, reason, message);
        self.unstall();
    }

    /// kstatus: a person has to do something.
    pub fn stalled(&mut self, reason: &str, message: &str) {
        self.set(batch_type::STALLED, Is::True, reason, message);
        self.set(batch_type::RECONCILING, Is::False, reason, "");
    }

    /// kstatus: nothing to do, and nothing wrong.
    pub fn settled(&mut self, reason: &str) {
        self.set(batch_type::RECONCILING, Is::False, reason, "");
        self.unstall();
    }

    fn unstall(&mut self) {
        if condition::is_true(&self.status.conditions, batch_type::STALLED) {
            self.set(batch_type::STALLED, Is::False, "Progressing", "");
        }
    }

    /// The end, well.
    pub fn complete(&mut self, phase: Phase, reason: &str, message: &str) {
        self.phase(phase);
        self.set(batch_type::COMPLETE, Is::True, reason, message);
        self.status.completion_time = Some(Time(self.now));
        self.settled(reason);
    }

    /// The end, not well.
    pub fn failed(&mut self, phase: Phase, reason: &str, message: &str) {
        self.phase(phase);
        self.set(batch_type::FAILED, Is::True, reason, message);
        self.status.completion_time = Some(Time(self.now));
        self.settled(reason);
        self.set(batch_type::STALLED, Is::True, reason, message);
    }

    /// The end, not well, as a whole plan.
    pub fn fail(mut self, phase: Phase, reason: &str, message: &str) -> Plan {
        self.failed(phase, reason, message);
        self.plan(Step::None, Next::Await)
    }

    pub fn plan(self, step: Step, next: Next) -> Plan {
        Plan { status: self.status, step, next }
    }
}
