//! Judges a run afterwards, by what others wrote down: the emulator's ledger, the API server's audit log, the objects and
//! sinks as they are in the end. It knows no type of the operator's, and does no I/O: evidence in, report out.
//!
//! The invariants are those of the project's reliability rules:
//!
//! | | what must hold | read from |
//! |---|---|---|
//! | I1 | no request without its durable intent; at most one for each attempt | ledger, audit log |
//! | I2 | attempts only grow, one after the other; at most one is open | audit log |
//! | I3 | a job's name is written once; phases lead forward; the end is the end | audit log |
//! | I4 | at most one billable job for each run; no next request before the last one was made harmless | ledger, audit log |
//! | I5 | every job is recorded, cancelled, or in the orphan ledger | all |
//! | I6 | an event alone changes nothing but the hint, and costs few looks | ledger, audit log |
//! | I7 | results are there iff the status says so, whole, and said once | audit log, sinks |
//! | I8 | a delivery that was taken had its effect | ledger, audit log |
//! | I9 | a finalizer goes in time | audit log |
//! | I12 | what has settled is silent | ledger, audit log |
//! | I13 | everything has come to its end | objects |
//!
//! What it needs is said by [`Evidence`]; what a test breaks on purpose, by [`Bounds`].

mod events;
mod history;
mod jobs;
mod ledger;
mod life;
mod read;
mod results;
#[cfg(test)]
mod sample;
mod status;
mod submission;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use history::History;
use ledger::Ledger;

/// Everything that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// `GET /_emulator/ledger`: taken after `objects` and `orphans`, before `audit`.
    pub ledger: Value,
    /// Events of the API server's audit log about the namespaces at stake. `None`: there is no such log, and what only
    /// it can tell is not judged.
    pub audit: Option<Vec<Value>>,
    /// All GeminiBatches and ConfigMaps of those namespaces, as they are in the end.
    pub objects: Vec<Value>,
    /// The orphan ledger's ConfigMap, if there is one.
    pub orphans: Option<Value>,
}

impl Evidence {
    /// Only what is about these namespaces; the emulator's ledger knows of none and stays whole.
    #[must_use]
    pub fn of_namespaces(self, namespaces: &[String]) -> Self {
        let is_in =
            |at: &Value| at.as_str().is_some_and(|name| namespaces.iter().any(|wanted| wanted == name));
        let audit = self.audit.map(|events| {
            events.into_iter().filter(|event| is_in(&event["objectRef"]["namespace"])).collect()
        });
        let objects = self.objects.into_iter().filter(|o| is_in(&o["metadata"]["namespace"])).collect();
        Self { audit, objects, ..self }
    }
}

/// How strictly, and what the run broke on purpose.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// All windows of the operator were divided by this.
    pub divisor: u32,
    /// How much longer than its timeout a deletion may take. Not divided: it is for machines, not for windows.
    pub deletion_grace: Duration,
    /// An event costs so many looks at one job in each of the operator's look windows, whatever comes in: one after the
    /// name was recorded, one for the event, one that the sweep asks for, and one more for each process that was started
    /// meanwhile and knows nothing of that.
    pub looks_per_window: usize,
    /// When receivers were killed. What one of them kept in memory went with it: events for jobs
    /// that nobody had recorded yet. The look that follows the recording makes up for them.
    pub receivers_lost: Vec<Timestamp>,
    /// From when until when a receiver was stopped. Its watches stood still, so when it goes on it may take an event
    /// before it has heard of what was recorded meanwhile.
    pub receivers_stopped: Vec<(Timestamp, Timestamp)>,
    /// From then on nothing was to happen.
    pub quiet_since: Option<Timestamp>,
    /// At these moments an older state of the API server was put back: what stood there before them does not bind.
    pub restored_at: Vec<Timestamp>,
    /// Batches that the run left on their way.
    pub unfinished: Vec<String>,
    /// Listings lagged longer than they may (A1), or a create without its file made a job (A4): so many jobs may be one
    /// too many, if they were cancelled or deleted since.
    pub late_jobs: usize,
    /// Deleted batches whose jobs could not even be written down as orphans.
    pub forgotten: Vec<String>,
    /// Batches whose sinks somebody else changed.
    pub sinks_changed: Vec<String>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            divisor: 1,
            deletion_grace: Duration::from_mins(1),
            looks_per_window: 4,
            receivers_lost: vec![],
            receivers_stopped: vec![],
            quiet_since: None,
            restored_at: vec![],
            unfinished: vec![],
            late_jobs: 0,
            forgotten: vec![],
            sinks_changed: vec![],
        }
    }
}

impl Bounds {
    /// Windows that were divided, and nothing out of the ordinary.
    #[must_use]
    pub fn divided(divisor: u32) -> Self {
        Self { divisor: divisor.max(1), ..Self::default() }
    }

    fn window(&self, production: Duration) -> Duration {
        production / self.divisor.max(1)
    }
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `I4`
    pub invariant: &'static str,
    /// `namespace/name`, or the name of a job.
    pub object: String,
    /// What happened, when.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.invariant, self.object, self.text)
    }
}

/// What can be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Objects, also deleted ones.
    pub batches: usize,
    /// Requests for a job that came to Gemini.
    pub submissions: usize,
    /// Those whose outcome the operator could not know from their answer.
    pub ambiguous: usize,
    /// Jobs that were made for our batches.
    pub jobs: usize,
    /// Jobs beyond the one billable job of their run, whether or not they were cancelled later.
    pub duplicates: usize,
    /// Batches without an end, and jobs that nothing accounts for.
    pub lost: usize,
    /// From an ambiguous request's arrival until its batch had a recorded job or a proof that there is none.
    pub recoveries: Vec<Duration>,
    /// Somebody other than the operator replaced or removed a status: its history began anew.
    pub resets: usize,
}

impl Facts {
    /// The recovery that `percent` of all were not slower than.
    #[must_use]
    pub fn recovery(&self, percent: usize) -> Option<Duration> {
        let mut all = self.recoveries.clone();
        all.sort_unstable();
        let last = all.len().checked_sub(1)?;
        all.get((all.len() * percent).div_ceil(100).saturating_sub(1).min(last)).copied()
    }
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub violations: Vec<Violation>,
    pub facts: Facts,
    /// What could not be judged, and why.
    pub unjudged: Vec<String>,
}

impl Report {
    fn add(&mut self, invariant: &'static str, object: impl Into<String>, text: impl Into<String>) {
        self.violations.push(Violation { invariant, object: object.into(), text: text.into() });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        for unjudged in &self.unjudged {
            writeln!(f, "not judged: {unjudged}")?;
        }
        let facts = &self.facts;
        writeln!(
            f,
            "batches {}, submissions {}, ambiguous {}, jobs {}, duplicates {}, lost {}, violations {}",
            facts.batches,
            facts.submissions,
            facts.ambiguous,
            facts.jobs,
            facts.duplicates,
            facts.lost,
            self.violations.len()
        )?;
        if let (Some(half), Some(most)) = (facts.recovery(50), facts.recovery(99)) {
            writeln!(f, "time to recover: p50 {half:.1?}, p99 {most:.1?}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a run.
#[must_use]
pub fn check(evidence: &Evidence, bounds: &Bounds) -> Report {
    let mut report = Report::default();
    let ledger = Ledger::read(&evidence.ledger);
    let audit = evidence.audit.as_deref().unwrap_or_default();
    let mut history = History::read(audit, &evidence.objects, read::time(&evidence.ledger, "taken"));
    bounds.restored_at.iter().for_each(|at| history.begin_anew(*at));
    let case = Case { evidence, bounds, ledger: &ledger, history: &history };
    if evidence.audit.is_none() {
        report
            .unjudged
            .push("no audit log: I1, I2, I3, I6, I8, I9 and I12 are judged in part or not at all".into());
    }
    submission::check(&case, &mut report);
    status::check(&case, &mut report);
    jobs::check(&case, &mut report);
    events::check(&case, &mut report);
    results::check(&case, &mut report);
    life::check(&case, &mut report);
    report.violations.sort_by(|a, b| (a.invariant, &a.object).cmp(&(b.invariant, &b.object)));
    report
}

/// What each rule looks at.
struct Case<'a> {
    evidence: &'a Evidence,
    bounds: &'a Bounds,
    ledger: &'a Ledger,
    history: &'a History,
}
