//! I9, I12 and I13: objects go in time, what has settled is silent, and everything comes to its end.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::history::{Life, Write};
use crate::read::{after, between, go_duration, is_final, text};
use crate::{Case, Report};

const DELETION_TIMEOUT: Duration = Duration::from_mins(20);
/// How much longer a deletion may wait until what it leaves is written down, before it is divided.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(30);
/// Calls that are made at certain times, whatever happens.
const SCHEDULED: [&str; 4] = ["batches.list", "files.list", "webhooks.get", "webhooks.list"];

pub fn check(case: &Case<'_>, report: &mut Report) {
    for life in &case.history.lives {
        goes_in_time(case, life, report);
        says_nothing_twice(life, report);
    }
    if let Some(since) = case.bounds.quiet_since {
        quiet(case, since, report);
    }
    ends(case, report);
}

/// I9.
fn goes_in_time(case: &Case<'_>, life: &Life, report: &mut Report) {
    let Some(deleted) = life.deleted else { return };
    let timeout = life.spec["deletionTimeout"].as_str().and_then(go_duration).unwrap_or(DELETION_TIMEOUT);
    let bound = case.bounds.window(timeout + ORPHAN_PATIENCE) + case.bounds.deletion_grace;
    let (gone, how) = match (life.released, life.exists) {
        (Some(released), _) => (released, "its finalizer went"),
        (None, true) => (case.history.last.unwrap_or(deleted), "it is still there"),
        // It had no finalizer of ours.
        (None, false) => return,
    };
    if gone > after(deleted, bound) {
        let text =
            format!("deleted at {deleted}, {how} {:?} later: at most {bound:?}", between(deleted, gone));
        report.add("I9", life.path(), text);
    }
}

/// I12: a write changes something. One that does not wakes its writer again, for ever.
fn says_nothing_twice(life: &Life, report: &mut Report) {
    for (before, now) in life.steps() {
        if before.is_some_and(|before| without_hint(&before.status) == without_hint(&now.status)) {
            report.add("I12", life.path(), format!("the status of {} says nothing new", now.ended));
        }
    }
}

/// The receiver's field is not the controller's, which only carries it along.
fn without_hint(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(fields) = status.as_object_mut() {
        fields.remove("lastEvent");
    }
    status
}

/// I12: nothing happens any more.
fn quiet(case: &Case<'_>, since: Timestamp, report: &mut Report) {
    let ours = |w: &&Write| w.who.is_operator() && w.is_done() && w.received > since;
    for write in case.history.writes.iter().filter(ours) {
        let object = format!("{}/{}", write.namespace, write.name);
        let text =
            format!("{} of {} at {}, after it had settled", write.verb, write.resource, write.received);
        report.add("I12", object, text);
    }
    let posts =
        case.ledger.posts.iter().filter(|post| post.arrived > since).map(|post| (post.name(), post.arrived));
    let calls = case.ledger.calls.iter().filter(|call| !SCHEDULED.contains(&call.name.as_str()));
    let calls = calls
        .filter_map(|call| Some((format!("{} {} (call {})", call.name, call.path, call.seq), call.arrived?)));
    for (what, at) in posts.chain(calls.filter(|(_, at)| *at > since)) {
        report.add("I12", "Gemini", format!("{what} at {at}, after everything had settled"));
    }
}

/// I13: who is there has come to its end, and every deletion too.
fn ends(case: &Case<'_>, report: &mut Report) {
    for object in case.evidence.objects.iter().filter(|object| object["kind"] == "GeminiBatch") {
        let metadata = &object["metadata"];
        let (name, status) = (text(metadata, "name"), &object["status"]);
        let expected = case.bounds.unfinished.iter().any(|unfinished| unfinished == name);
        if expected || (is_final(status) && metadata["deletionTimestamp"].is_null()) {
            continue;
        }
        let phase = status["phase"].as_str().unwrap_or("nothing");
        let leaving = if metadata["deletionTimestamp"].is_null() { "" } else { ", to be deleted" };
        report.facts.lost += usize::from(leaving.is_empty());
        let text = format!("it has not come to its end: {phase}{leaving}; conditions {}", short(status));
        report.add("I13", format!("{}/{name}", text_of(metadata)), text);
    }
}

fn text_of(metadata: &Value) -> &str {
    text(metadata, "namespace")
}

fn short(status: &Value) -> String {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let words =
        conditions.map(|c| format!("{}={}/{}", text(c, "type"), text(c, "status"), text(c, "reason")));
    words.collect::<Vec<_>>().join(" ")
}
