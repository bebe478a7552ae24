//! I1, I2, and the order in which I4 is kept: intent, request, fence, wait, next request.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::history::{Life, Run};
use crate::ledger::Post;
use crate::read::between;
use crate::{Case, Report};

/// How long a job may stay invisible to listings, before it is divided.
const LISTING_LAG: Duration = Duration::from_mins(15);

pub fn check(case: &Case<'_>, report: &mut Report) {
    for life in &case.history.lives {
        attempts(case, life, report);
    }
    for post in &case.ledger.posts {
        if case.evidence.audit.is_some() {
            intent(case, post, report);
        }
    }
    once(case, report);
    fenced(case, report);
}

/// I1: the intent stood before the request came.
fn intent(case: &Case<'_>, post: &Post, report: &mut Report) {
    let is_it =
        |run: &Run| run.marker == post.display_name && run.file == post.file && run.submission == "Pending";
    let lives = || case.history.of_key(&post.marker.key);
    let object = lives().next().map_or(post.marker.key.clone(), Life::path);
    let durable = lives().flat_map(|life| &life.statuses).find(|w| w.runs.iter().any(is_it));
    // Its answer was lost, or said nothing; that a later status goes on from it shows that it was applied.
    let uncertain = lives()
        .filter(|life| life.statuses.iter().any(|w| w.runs.iter().any(|r| r.marker == post.display_name)))
        .flat_map(|life| &life.uncertain)
        .find(|w| w.runs.iter().any(is_it));
    let first = [uncertain, durable].into_iter().flatten().min_by_key(|w| w.received);
    match first {
        None => {
            let text =
                format!("{} arrived at {}, and no status ever held its intent", post.name(), post.arrived);
            report.add("I1", object, text);
        }
        Some(written) if written.received > post.arrived => {
            let text = format!(
                "{} arrived at {}, {:?} before the write of its intent (received {})",
                post.name(),
                post.arrived,
                between(post.arrived, written.received),
                written.received
            );
            report.add("I1", object, text);
        }
        Some(_) => {}
    }
}

/// I1: one request for each attempt, and a file is used again only after a refusal.
fn once(case: &Case<'_>, report: &mut Report) {
    let mut of_attempt: BTreeMap<&str, Vec<&Post>> = BTreeMap::new();
    let mut of_file: BTreeMap<&str, Vec<&Post>> = BTreeMap::new();
    for post in &case.ledger.posts {
        of_attempt.entry(&post.display_name).or_default().push(post);
        of_file.entry(&post.file).or_default().push(post);
    }
    for pair in of_attempt.values().flat_map(|posts| posts.windows(2)) {
        let object = object(case, pair[0]);
        // A status that somebody else took away takes its count of attempts along.
        let lives = case.history.of_key(&pair[0].marker.key).collect::<Vec<_>>();
        let mut resets =
            lives.iter().flat_map(|life| &life.statuses).filter(|w| w.is_reset || w.is_anew).map(|w| w.ended);
        let renewed = resets.any(|at| at > pair[0].arrived && at < pair[1].arrived)
            || lives.windows(2).any(|l| l[0].uid != l[1].uid);
        if !renewed {
            let text = format!(
                "two requests for one attempt: {} at {} and {} at {}",
                pair[0].name(),
                pair[0].arrived,
                pair[1].name(),
                pair[1].arrived
            );
            report.add("I1", object, text);
        }
    }
    for pair in of_file.values().flat_map(|posts| posts.windows(2)) {
        let refused_first =
            pair[0].is_refused() && pair[0].ended.is_some_and(|ended| ended <= pair[1].arrived);
        if !refused_first && pair[0].display_name != pair[1].display_name {
            let text = format!(
                "{} at {} names the file of {}, which was not refused before ({})",
                pair[1].name(),
                pair[1].arrived,
                pair[0].name(),
                end_of(pair[0])
            );
            report.add("I1", object(case, pair[0]), text);
        }
    }
}

/// I4: when a request comes whose predecessor may have made a job, or may yet, that one's file is gone, for longer than
/// a listing may lag.
fn fenced(case: &Case<'_>, report: &mut Report) {
    let lag = case.bounds.window(LISTING_LAG);
    let posts = &case.ledger.posts;
    for (at, post) in posts.iter().enumerate() {
        // One of a former attempt that comes late is not a next one: it must make no job, and that is counted.
        let is_former =
            |p: &&Post| p.marker.key == post.marker.key && p.marker.n < post.marker.n && p.file != post.file;
        let earlier = posts[..at].iter().filter(is_former);
        let open =
            earlier.filter(|p| !(p.is_refused() && p.ended.is_some_and(|ended| ended <= post.arrived)));
        for before in open.filter(|before| !did_nothing(case, before, post.arrived)) {
            let what = format!("{} came at {}", post.name(), post.arrived);
            let text = match case.ledger.file_deleted(&before.file) {
                Some(gone) if gone <= post.arrived && between(gone, post.arrived) >= lag => continue,
                Some(gone) if gone <= post.arrived => format!(
                    "{what}, only {:?} after the file of {} was deleted: a listing may lag {lag:?}",
                    between(gone, post.arrived),
                    before.name()
                ),
                _ => format!(
                    "{what} while {} could still make a job: its file was there, and it was {}",
                    before.name(),
                    end_of(before)
                ),
            };
            report.add("I4", object(case, post), text);
        }
    }
}

/// Whether all that came of this request is a job that had failed by then, as it had not found its input.
fn did_nothing(case: &Case<'_>, post: &Post, by: Timestamp) -> bool {
    let made = || case.ledger.jobs.iter().filter(|job| post.jobs.contains(&job.name));
    made().next().is_some() && made().all(|job| !job.billable && job.ended.is_some_and(|ended| ended <= by))
}

fn end_of(post: &Post) -> String {
    match (post.ended, post.status) {
        (None, _) => "not answered".into(),
        (Some(at), None) => format!("left without an answer at {at}"),
        (Some(at), Some(status)) => format!("answered {status} at {at}"),
    }
}

fn object(case: &Case<'_>, post: &Post) -> String {
    case.history.of_key(&post.marker.key).next().map_or(post.marker.key.clone(), Life::path)
}

/// I2: attempts only grow, one after the other.
fn attempts(case: &Case<'_>, life: &Life, report: &mut Report) {
    for (before, now) in life.steps() {
        let runs_now = &now.runs;
        let open = runs_now.iter().filter(|r| matches!(r.submission.as_str(), "Pending" | "Fenced")).count();
        if open > 1 {
            report.add("I2", life.path(), format!("the status of {} has {open} open attempts", now.ended));
        }
        let Some(before) = before else { continue };
        for old in &before.runs {
            let Some(new) = runs_now.iter().find(|run| run.name == old.name) else {
                report.add("I2", life.path(), format!("the status of {} has lost {}", now.ended, old.name));
                continue;
            };
            if let Some(text) = step(case, old, new) {
                report.add("I2", life.path(), format!("the status of {}: {text}", now.ended));
            }
        }
    }
}

fn step(case: &Case<'_>, old: &Run, new: &Run) -> Option<String> {
    let (from, to) = (old.attempt, new.attempt);
    if to < from {
        return Some(format!("attempt {from} is followed by attempt {to}"));
    }
    if to > from {
        return (old.submission != "Abandoned")
            .then(|| format!("attempt {to} began while attempt {from} was {}", old.submission));
    }
    if old.nonce != new.nonce || old.marker != new.marker || old.file != new.file {
        return Some(format!(
            "attempt {from} is another one: nonce {} → {}, file {} → {}",
            old.nonce, new.nonce, old.file, new.file
        ));
    }
    let leads_back = match (old.submission.as_str(), new.submission.as_str()) {
        (from, to) if from == to => false,
        ("Recorded", "Abandoned") => !old.job.as_ref().is_some_and(|job| case.ledger.had_no_input(job)),
        ("Recorded", _) | (_, "Pending") => true,
        // A job that shows after all is the answer, and nothing else is.
        ("Abandoned", to) => to != "Recorded",
        _ => false,
    };
    leads_back.then(|| format!("attempt {from} went from {} to {}", old.submission, new.submission))
}
