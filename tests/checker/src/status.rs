//! I3, and what I7 says about the status alone: written once, forward only, and the end is the end.

use serde_json::Value;

use crate::history::Life;
use crate::read::{is_final, is_true, text};
use crate::{Case, Report};

pub fn check(case: &Case<'_>, report: &mut Report) {
    for life in &case.history.lives {
        report.facts.resets += life.statuses.iter().filter(|w| w.is_reset).count();
        for (before, now) in life.steps() {
            if is_true(&now.status, "Complete") && is_true(&now.status, "Failed") {
                report.add("I3", life.path(), format!("both Complete and Failed at {}", now.ended));
            }
            if let Some(before) = before {
                for (invariant, text) in step(&before.status, &now.status) {
                    report.add(invariant, life.path(), format!("at {}: {text}", now.ended));
                }
            }
        }
        names(life, report);
    }
}

fn step(old: &Value, new: &Value) -> Vec<(&'static str, String)> {
    let mut found = vec![];
    let (from, to) = (text(old, "phase"), text(new, "phase"));
    if from != to && rank(to) < rank(from) {
        found.push(("I3", format!("phase went back from {from} to {to}")));
    } else if from != to && rank(from) == END {
        found.push(("I3", format!("phase left its end: {from} became {to}")));
    }
    if is_final(old) {
        let ends = ["Complete", "Failed"].map(|type_| (is_true(old, type_), is_true(new, type_)));
        if ends.iter().any(|(old, new)| old != new) {
            found.push(("I3", format!("the end was taken back or changed ({from}, then {to})")));
        }
        if old["completionTime"] != new["completionTime"] {
            found.push(("I3", "completionTime was written twice".into()));
        }
    }
    let output = |status: &Value| status["output"].clone();
    if !output(old).is_null() && output(old) != output(new) {
        found
            .push(("I7", format!("status.output was written twice: {} became {}", output(old), output(new))));
    }
    found
}

const END: u8 = 4;

/// Until a job is recorded a batch may go to and fro; then it leads forward.
fn rank(phase: &str) -> u8 {
    match phase {
        "" | "Queued" | "Suspended" | "Staging" | "Submitting" => 0,
        "Pending" => 1,
        "Running" | "Retrying" => 2,
        "Delivering" => 3,
        _ => END,
    }
}

/// I3: the name of a run's job is written once.
fn names(life: &Life, report: &mut Report) {
    for (before, now) in life.steps() {
        let Some(before) = before else { continue };
        for old in before.runs.iter().filter(|run| run.job.is_some()) {
            let new = now.runs.iter().find(|run| run.name == old.name).and_then(|run| run.job.as_deref());
            if new != old.job.as_deref() {
                let (old, new) = (old.job.as_deref().unwrap_or_default(), new.unwrap_or("nothing"));
                let text = format!("at {}: the recorded job {old} became {new}", now.ended);
                report.add("I3", life.path(), text);
            }
        }
    }
}
