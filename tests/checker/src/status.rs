//! I3, and what I7 says about the status alone: written once, forward only, and the end is the end.

use serde_json::Value;

use crate::history::{Life, Run};
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
                let anew = before.runs.iter().any(|run| was_closed(case, run, &now.runs));
                for (invariant, text) in step(&before.status, &now.status, anew) {
                    report.add(invariant, life.path(), format!("at {}: {text}", now.ended));
                }
            }
        }
        names(case, life, report);
    }
}

/// Whether this write gives the run's job up, which did nothing as it had not found its input.
fn was_closed(case: &Case<'_>, old: &Run, now: &[Run]) -> bool {
    let closed = now.iter().any(|run| run.name == old.name && run.submission == "Abandoned");
    closed
        && old.submission == "Recorded"
        && old.job.as_ref().is_some_and(|job| case.ledger.had_no_input(job))
}

/// `anew`: the write begins a submission again that has ended in nothing.
fn step(old: &Value, new: &Value, anew: bool) -> Vec<(&'static str, String)> {
    let mut found = vec![];
    let (from, to) = (text(old, "phase"), text(new, "phase"));
    let submits_again = anew && rank(to) == 0 && rank(from) != END;
    if from != to && rank(to) < rank(from) && !submits_again {
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

/// I3: the name of a run's job is written once, and for a further attempt again if that job did nothing.
fn names(case: &Case<'_>, life: &Life, report: &mut Report) {
    for (before, now) in life.steps() {
        let Some(before) = before else { continue };
        for old in before.runs.iter().filter(|run| run.job.is_some()) {
            let run = now.runs.iter().find(|run| run.name == old.name);
            let new = run.and_then(|run| run.job.as_deref());
            let follows = run.is_some_and(|run| run.attempt > old.attempt)
                && old.job.as_ref().is_some_and(|job| case.ledger.had_no_input(job));
            if new != old.job.as_deref() && !follows {
                let (old, new) = (old.job.as_deref().unwrap_or_default(), new.unwrap_or("nothing"));
                let text = format!("at {}: the recorded job {old} became {new}", now.ended);
                report.add("I3", life.path(), text);
            }
        }
    }
}
