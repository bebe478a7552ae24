//! I4 and I5: how many jobs there are, and whether each is accounted for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::history::Life;
use crate::ledger::{Job, Post};
use crate::read::{between, condition, text};
use crate::{Case, Report};

pub fn check(case: &Case<'_>, report: &mut Report) {
    report.facts.batches = case.history.lives.len();
    report.facts.submissions = case.ledger.posts.len();
    report.facts.jobs = case.ledger.jobs.iter().filter(|job| job.marker.is_some()).count();
    one_for_each_run(case, report);
    accounted(case, report);
    doubts(case, report);
}

/// I4.
fn one_for_each_run(case: &Case<'_>, report: &mut Report) {
    let mut of_run: BTreeMap<(&str, String), Vec<&Job>> = BTreeMap::new();
    for job in case.ledger.jobs.iter().filter(|job| job.billable) {
        if let Some(marker) = &job.marker {
            of_run.entry((&marker.key, run_of(case, &marker.key, marker.n))).or_default().push(job);
        }
    }
    let mut allowed = case.bounds.late_jobs;
    for ((key, run), jobs) in of_run {
        report.facts.duplicates += jobs.len() - 1;
        let ended: Vec<_> = jobs.iter().filter(|job| job.cancelled || job.deleted).collect();
        let beyond = jobs.len() - 1;
        if beyond == 0 || (beyond <= allowed && ended.len() >= beyond) {
            allowed -= beyond;
            continue;
        }
        let named: Vec<String> = jobs.iter().map(|job| describe(case, job)).collect();
        let text = format!("{} jobs for {run}: {}", jobs.len(), named.join("; "));
        report.add("I4", object(case, key), text);
    }
}

fn describe(case: &Case<'_>, job: &Job) -> String {
    let n = job.marker.as_ref().map_or(0, |marker| marker.n);
    let post = case.ledger.posts.iter().find(|post| post.jobs.contains(&job.name));
    let by = post
        .map_or("by nobody known".into(), |post| format!("by request {} of {}", post.arrival, post.arrived));
    let end = match (job.cancelled, job.deleted) {
        (_, true) => ", deleted since",
        (true, _) => ", cancelled since",
        _ => "",
    };
    format!(
        "{} of attempt {n}, made {} {by}, {}, {} rows paid{end}",
        job.name, job.created, job.state, job.paid_rows
    )
}

/// The run that an attempt belongs to; there is one if nothing says otherwise.
fn run_of(case: &Case<'_>, key: &str, n: i64) -> String {
    let statuses = case.history.of_key(key).flat_map(|life| &life.statuses);
    let mut known = statuses.flat_map(|w| &w.runs).filter(|run| run.attempt == n).map(|run| run.name.clone());
    known.next().unwrap_or_else(|| "run-1".into())
}

fn object(case: &Case<'_>, key: &str) -> String {
    case.history.of_key(key).last().map_or_else(|| key.to_owned(), Life::path)
}

/// I5.
fn accounted(case: &Case<'_>, report: &mut Report) {
    let orphans = orphans(case);
    for job in &case.ledger.jobs {
        let Some(marker) = &job.marker else { continue };
        if job.cancelled || job.deleted || !job.billable || orphans.contains(marker.key.as_str()) {
            continue;
        }
        let lives: Vec<&Life> = case.history.of_key(&marker.key).collect();
        let Some(life) = lives.last() else {
            // Without an audit log a deleted object is not known.
            if case.evidence.audit.is_some() {
                lose(report, &marker.key, describe(case, job) + ": no object ever had this key");
            }
            continue;
        };
        let recorded = lives.iter().any(|life| life.recorded(&job.name).is_some());
        let policy = text(&life.spec, "deletionPolicy");
        if life.exists {
            let looking = case.bounds.unfinished.contains(&life.name);
            if !recorded && !looking {
                lose(
                    report,
                    &life.path(),
                    describe(case, job) + ": recorded nowhere, and nobody has ended it",
                );
            }
            continue;
        }
        let may_stay = policy == "Orphan" || (policy == "Cancel" && job.has_ended());
        if !may_stay && !case.bounds.forgotten.contains(&life.name) {
            let text = describe(case, job) + ": its batch is gone, and the orphan ledger does not know it";
            lose(report, &life.path(), text);
        }
    }
}

fn lose(report: &mut Report, object: &str, text: String) {
    report.facts.lost += 1;
    report.add("I5", object, text);
}

/// K of every entry of the orphan ledger.
fn orphans<'a>(case: &'a Case<'_>) -> BTreeSet<&'a str> {
    let data = case.evidence.orphans.as_ref().and_then(|map| map["data"].as_object());
    data.into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

/// How many requests were in doubt, and how long.
fn doubts(case: &Case<'_>, report: &mut Report) {
    for post in &case.ledger.posts {
        let lives: Vec<&Life> = case.history.of_key(&post.marker.key).collect();
        if !broken(post) && !lives.iter().any(|life| doubted(life, post)) {
            continue;
        }
        report.facts.ambiguous += 1;
        let settled =
            lives.iter().flat_map(|life| &life.statuses).filter(|w| w.ended >= post.arrived).find(|w| {
                w.runs.iter().any(|run| {
                    run.attempt > post.marker.n
                        || (run.attempt == post.marker.n
                            && matches!(run.submission.as_str(), "Recorded" | "Abandoned"))
                })
            });
        // Without an audit log nothing says when.
        let settled = settled.filter(|w| w.ended < Timestamp::MAX);
        report.facts.recoveries.extend(settled.map(|w| between(post.arrived, w.ended)));
    }
}

/// Its answer was none, or did not say.
fn broken(post: &Post) -> bool {
    !post.is_refused() && !post.status.is_some_and(|s| (200..300).contains(&s))
}

/// The status shows that the operator had to find out.
fn doubted(life: &Life, post: &Post) -> bool {
    life.statuses.iter().any(|w| {
        let ours = |submissions: &[&str]| {
            w.runs
                .iter()
                .any(|run| run.marker == post.display_name && submissions.contains(&run.submission.as_str()))
        };
        let submitted = condition(&w.status, "Submitted").unwrap_or_default();
        ours(&["Fenced", "Quarantined"])
            || (submitted == ("Unknown", "OutcomeUnknown") && ours(&["Pending"]))
            || (submitted == ("True", "Adopted") && ours(&["Recorded"]))
    })
}
