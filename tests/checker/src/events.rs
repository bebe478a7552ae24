//! I6 and I8: what events did.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::history::{Life, Who};
use crate::ledger::Delivery;
use crate::read::{after, between};
use crate::{Case, Report};

/// An event costs at most one look at a job in this time, before it is divided.
const LOOK_WINDOW: Duration = Duration::from_secs(30);
/// An event for a job that no batch has recorded yet is kept for so long.
const EARLY: Duration = Duration::from_mins(1);
/// So long after it was recorded the receiver may not have heard of it, and longer where the API server is slow: its
/// watches are as late as its answers.
const WATCH_LAG: Duration = Duration::from_secs(10);

pub fn check(case: &Case<'_>, report: &mut Report) {
    receiver(case, report);
    truth(case, report);
    looks(case, report);
    if case.evidence.audit.is_some() {
        deliveries(case, report);
    }
}

/// I6: the receiver writes its one field, and nothing else anywhere.
fn receiver(case: &Case<'_>, report: &mut Report) {
    for write in case.history.writes.iter().filter(|w| w.who == Who::Receiver && w.is_done()) {
        let field = match write.resource.as_str() {
            "geminibatches/status" => "lastEvent",
            "geminiwebhooks/status" => "lastDelivery",
            "events" | "leases" => continue,
            _ => "",
        };
        let whole = write.body["status"].as_object();
        let bare = whole.is_some_and(|status| status.keys().all(|key| key == field));
        if write.verb != "patch" || !bare || write.body.get("spec").is_some() {
            let fields: Vec<&String> = whole.into_iter().flatten().map(|(key, _)| key).collect();
            let object = format!("{}/{}", write.namespace, write.name);
            let text =
                format!("the receiver's {} of {} at {} {fields:?}", write.verb, write.resource, write.ended);
            report.add("I6", object, text);
        }
    }
}

/// I6: what a status says of a job is what Gemini says of it, and was asked for.
fn truth(case: &Case<'_>, report: &mut Report) {
    let looks = Looks::read(case);
    let states: BTreeMap<&str, &str> =
        case.ledger.jobs.iter().map(|job| (job.name.as_str(), job.state.as_str())).collect();
    for life in &case.history.lives {
        for written in &life.statuses {
            for run in &written.runs {
                let (Some(job), Some(state)) = (&run.job, &run.state) else { continue };
                if !looks.any(job, written.received) {
                    let text =
                        format!("{job} is {state} at {}, and nobody had looked at Gemini", written.ended);
                    report.add("I6", life.path(), text);
                }
                let ended = matches!(state.as_str(), "SUCCEEDED" | "FAILED" | "CANCELLED" | "EXPIRED");
                let known =
                    states.get(job.as_str()).filter(|known| ended && !known.ends_with(state.as_str()));
                if let Some(known) = known {
                    let text = format!("{job} is {state} at {}, and at Gemini it is {known}", written.ended);
                    report.add("I6", life.path(), text);
                }
            }
        }
    }
}

/// When Gemini was asked about a job.
struct Looks<'a> {
    /// The first time that it was asked about this very job.
    gets: BTreeMap<&'a str, Timestamp>,
    /// Since when there was something to list.
    sent: BTreeMap<&'a str, Timestamp>,
    lists: Vec<Timestamp>,
}

impl<'a> Looks<'a> {
    fn read(case: &'a Case<'_>) -> Self {
        let done = |name: &'static str| {
            case.ledger.calls.iter().filter(move |call| call.name == name && call.status == Some(200))
        };
        let mut gets = BTreeMap::new();
        for call in done("batches.get") {
            if let (Some(job), Some(at)) = (job_of(&call.path), call.arrived) {
                gets.entry(job).or_insert(at);
            }
        }
        let mut lists: Vec<Timestamp> = done("batches.list").filter_map(|call| call.arrived).collect();
        lists.sort_unstable();
        let sent = case.ledger.posts.iter();
        let sent = sent.flat_map(|post| post.jobs.iter().map(|job| (job.as_str(), post.arrived))).collect();
        Self { gets, sent, lists }
    }

    fn any(&self, job: &str, until: Timestamp) -> bool {
        let sent = self.sent.get(job).copied().unwrap_or(Timestamp::MIN);
        let next = self.lists.get(self.lists.partition_point(|at| *at < sent));
        self.gets.get(job).into_iter().chain(next).any(|at| *at <= until)
    }
}

/// `batches/…` of a path.
fn job_of(path: &str) -> Option<&str> {
    path.find("batches/").map(|at| &path[at..])
}

/// I6: however many events come, looks at a job are few. One that is to be cancelled or deleted is watched more closely.
fn looks(case: &Case<'_>, report: &mut Report) {
    let window = case.bounds.window(LOOK_WINDOW);
    let mut of_job: BTreeMap<&str, Vec<(Timestamp, u64)>> = BTreeMap::new();
    for call in case.ledger.calls.iter().filter(|call| call.name == "batches.get") {
        let Some(job) = job_of(&call.path) else { continue };
        of_job.entry(job).or_default().extend(call.arrived.map(|at| (at, call.seq)));
    }
    for (job, mut looks) in of_job {
        let Some(life) = case.history.of_job(job).last() else { continue };
        if life.deleted.is_some() || life.spec["cancelled"] == true {
            continue;
        }
        looks.sort_unstable();
        let most = case.bounds.looks_per_window.max(1);
        if let Some(dense) = looks.windows(most + 1).find(|some| between(some[0].0, some[most].0) < window) {
            let text = format!(
                "{} looks at {job} from {} (call {}) to {} (call {}): at most {most} in {window:?}",
                most + 1,
                dense[0].0,
                dense[0].1,
                dense[most].0,
                dense[most].1
            );
            report.add("I6", life.path(), text);
        }
    }
}

/// I8: who was told that an event was taken may forget it.
fn deliveries(case: &Case<'_>, report: &mut Report) {
    let taken = |d: &&Delivery| {
        d.event_type.starts_with("batch.") && d.status.is_some_and(|status| (200..300).contains(&status))
    };
    for delivery in case.ledger.deliveries.iter().filter(taken) {
        let Some(at) = delivery.ended else { continue };
        // A job that no batch has recorded is somebody else's.
        let lives = case.history.of_job(&delivery.job);
        let lives = lives.filter_map(|life| Some((life, life.recorded(&delivery.job)?)));
        for (life, recorded) in lives {
            if recorded > after(at, EARLY) {
                continue;
            }
            let lag = WATCH_LAG + slowest(case, recorded, at) + longest_stop(case, at);
            let known = after(recorded, lag) <= at;
            // Kept in memory, it is stored when the name shows, unless the look that follows the recording was sooner.
            let until = if known { at } else { after(at, EARLY + WATCH_LAG) };
            let kept_until = after(recorded.max(at), lag);
            let lost = |killed: &Timestamp| *killed >= at && *killed <= kept_until;
            if !known && case.bounds.receivers_lost.iter().any(lost) {
                continue;
            }
            let hints = life.hints.iter().filter(|hint| hint.job == delivery.job && hint.received <= until);
            let hinted = hints.into_iter().any(|hint| life.stands(hint));
            if !hinted && !is_over(life, until) && !is_seen(life, delivery, until) {
                let text = format!(
                    "{} of {} was answered {} at {at} (delivery {}, {}), and neither was it stored nor did anything \
                     make it needless",
                    delivery.event_type,
                    delivery.job,
                    delivery.status.unwrap_or_default(),
                    delivery.seq,
                    delivery.id
                );
                report.add("I8", life.path(), text);
            }
        }
    }
}

/// How long the slowest answer took that the API server worked on between these two.
fn slowest(case: &Case<'_>, from: Timestamp, to: Timestamp) -> Duration {
    let then = case.history.writes.iter().filter(|w| w.received <= to && w.ended >= from);
    then.map(|w| between(w.received, w.ended)).max().unwrap_or_default()
}

/// How long a receiver had been stopped that had not caught up with its watches by then.
fn longest_stop(case: &Case<'_>, at: Timestamp) -> Duration {
    let near =
        case.bounds.receivers_stopped.iter().filter(|(from, to)| *from <= at && at <= after(*to, WATCH_LAG));
    near.map(|(from, to)| between(*from, *to)).max().unwrap_or_default()
}

/// Its batch had come to its end, or was to go.
fn is_over(life: &Life, at: Timestamp) -> bool {
    life.end().is_some_and(|end| end.ended <= at)
        || life.deleted.is_some_and(|deleted| deleted <= at)
        || life.released.is_some_and(|released| released <= at)
}

/// The status had the end that it tells of already.
fn is_seen(life: &Life, delivery: &Delivery, at: Timestamp) -> bool {
    let ended = |run: &crate::history::Run| {
        run.job.as_deref() == Some(delivery.job.as_str())
            && run.state.as_deref().is_some_and(|state| !matches!(state, "PENDING" | "RUNNING"))
    };
    life.statuses.iter().any(|w| w.received <= at && w.runs.iter().any(ended))
}
