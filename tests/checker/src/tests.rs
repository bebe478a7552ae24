//! Each rule on a run that holds, and on the same run with one thing broken: a check that cannot fail shows nothing.

mod effects;

use std::time::Duration;

use serde_json::{Value, json};

use crate::sample::{Sample, at};

const A: &str = "files/gb-k-a";
const B: &str = "files/gb-k-b";

/// A whole run, changed.
fn whole(change: impl FnOnce(&mut Sample)) -> Sample {
    let mut sample = Sample::whole();
    change(&mut sample);
    sample
}

fn doubtful(change: impl FnOnce(&mut Sample)) -> Sample {
    let mut sample = Sample::doubtful();
    change(&mut sample);
    sample
}

/// All writes of statuses, in order.
fn statuses(sample: &mut Sample) -> impl Iterator<Item = &mut Value> {
    let all = sample.evidence.audit.as_mut().unwrap().iter_mut();
    all.filter(|event| event["verb"] == "update").map(|event| &mut event["requestObject"]["status"])
}

fn posts(sample: &mut Sample) -> impl Iterator<Item = &mut Value> {
    let all = sample.evidence.ledger["requests"].as_array_mut().unwrap().iter_mut();
    all.filter(|entry| entry["call"] == "batches.create")
}

#[test]
fn good_runs_hold_and_are_counted() {
    Sample::whole().holds();
    let facts = Sample::whole().check().facts;
    assert_eq!((facts.batches, facts.submissions, facts.ambiguous, facts.jobs), (1, 1, 0, 1));
    Sample::doubtful().holds();
    let facts = Sample::doubtful().check().facts;
    assert_eq!(
        (facts.submissions, facts.ambiguous, facts.jobs, facts.duplicates, facts.lost),
        (2, 1, 1, 0, 0)
    );
    // The request came at 4, and at 9.1 it stood that it can do nothing any more.
    assert_eq!(facts.recoveries, [Duration::from_millis(5100)]);
    assert_eq!(facts.recovery(99), Some(Duration::from_millis(5100)));
}

#[test]
fn what_the_log_does_not_tell_is_said() {
    let mut sample = Sample::whole();
    sample.evidence.audit = None;
    sample.holds();
    assert_eq!(sample.check().unjudged.len(), 1);
}

#[test]
fn i1_a_request_has_a_durable_intent() {
    whole(|s| {
        s.evidence.audit.as_mut().unwrap().retain(|e| e["requestObject"]["status"]["phase"] != "Submitting");
    })
    .breaks("I1", "no status ever held its intent");
    whole(|s| posts(s).for_each(|p| p["arrived"] = json!(at(2.9))))
        .breaks("I1", "before the write of its intent");
    whole(|s| posts(s).for_each(|p| p["input_file"] = json!(B)))
        .breaks("I1", "no status ever held its intent");
    // A refused write is none, and one whose answer was lost is one only if the status went on from it.
    let with_code = |code: u64| {
        let mut sample = Sample::new();
        sample.stage(2.0).intend(3.0, 1, A);
        sample.evidence.audit.as_mut().unwrap().last_mut().unwrap()["responseStatus"]["code"] = json!(code);
        sample.post(4.0, 1, A, Some(200), Some("batches/a")).job("batches/a", 1, "BATCH_STATE_SUCCEEDED");
        sample
    };
    with_code(409).breaks("I1", "no status");
    with_code(504).breaks("I1", "no status");
    let mut applied = with_code(504);
    applied.record(5.0, "batches/a");
    assert!(applied.check().violations.iter().all(|v| v.invariant != "I1"), "{}", applied.check());
}

#[test]
fn i1_an_attempt_has_one_request_and_a_file_one_that_may_run() {
    whole(|s| {
        s.post(4.5, 1, A, Some(403), None);
    })
    .breaks("I1", "two requests for one attempt");
    whole(|s| {
        s.post_held(4.5, 1, A);
    })
    .breaks("I1", "two requests for one attempt");
    let again = |status: Option<u16>| {
        let mut sample = Sample::new();
        sample.stage(2.0).intend(3.0, 1, A).post(4.0, 1, A, status, None).submission(5.0, "Abandoned");
        sample.intend(6.0, 2, A).post(7.0, 2, A, Some(200), Some("batches/b"));
        sample.job("batches/b", 2, "BATCH_STATE_SUCCEEDED").record(8.0, "batches/b");
        sample
            .call(9.0, "batches.get", "/v1/batches/b", 200)
            .state(10.0, "SUCCEEDED", "Delivering")
            .deliver(11.0);
        sample
    };
    again(Some(429)).holds();
    again(Some(503)).breaks("I1", "which was not refused before (answered 503");
    again(Some(409)).breaks("I1", "which was not refused before");
    again(None).breaks("I1", "left without an answer");
    // A status that was taken away takes the count along.
    let mut wiped = Sample::whole();
    wiped.wipe(20.0).intend(21.0, 1, B).post(22.0, 1, B, Some(403), None);
    assert!(wiped.check().violations.iter().all(|v| v.invariant != "I1"), "{}", wiped.check());
    assert_eq!(wiped.check().facts.resets, 1);
}

#[test]
fn i2_attempts_only_grow_one_after_the_other() {
    doubtful(|s| statuses(s).nth(4).unwrap()["runs"][0]["attempt"] = json!(3)).breaks("I2", "attempt 3");
    doubtful(|s| statuses(s).nth(4).unwrap()["runs"][0]["submission"] = json!("Fenced"))
        .breaks("I2", "attempt 2 began while attempt 1 was Fenced");
    doubtful(|s| statuses(s).nth(3).unwrap()["runs"][0]["nonce"] = json!("other"))
        .breaks("I2", "is another one");
    doubtful(|s| {
        let runs = statuses(s).nth(2).unwrap()["runs"].as_array_mut().unwrap();
        let mut second = runs[0].clone();
        second["name"] = json!("run-2");
        runs.push(second);
    })
    .breaks("I2", "2 open attempts");
    whole(|s| {
        s.submission(20.0, "Pending");
    })
    .breaks("I2", "from Recorded to Pending");
    let closed = |then: &str| {
        let mut sample = Sample::new();
        sample.stage(2.0).intend(3.0, 1, A).submission(4.0, "Abandoned").submission(5.0, then);
        sample
    };
    // What stood in between is known as little as whether it stood.
    let between = |code: u64| {
        let mut sample = Sample::new();
        sample.stage(2.0).intend(3.0, 1, A).submission(4.0, "Abandoned");
        sample.evidence.audit.as_mut().unwrap().last_mut().unwrap()["responseStatus"]["code"] = json!(code);
        sample.intend(5.0, 2, B);
        sample
    };
    between(504).holds();
    between(409).breaks("I2", "attempt 2 began while attempt 1 was Pending");
    closed("Recorded").holds();
    closed("Fenced").breaks("I2", "from Abandoned to Fenced");
    whole(|s| {
        s.change(20.0, |status| status["runs"] = json!([]));
    })
    .breaks("I2", "has lost run-1");
}

/// What was written after the backup is not bound by what was written before.
#[test]
fn i2_i3_a_state_that_was_put_back_begins_anew() {
    let mut sample = Sample::whole();
    sample.change(30.0, |s| {
        (s["phase"], s["conditions"]) = (json!("Pending"), json!([]));
        s["output"] = Value::Null;
        s["runs"][0]["state"] = Value::Null;
    });
    sample.state(31.0, "SUCCEEDED", "Delivering").deliver(32.0);
    sample.breaks("I3", "back from PartiallySucceeded to Pending");
    sample.bounds.restored_at = vec![at(33.0).parse().unwrap()];
    sample.breaks("I3", "back from PartiallySucceeded to Pending");
    sample.bounds.restored_at = vec![at(20.0).parse().unwrap()];
    sample.holds();
}

#[test]
fn i3_what_is_written_once_stays() {
    whole(|s| statuses(s).last().unwrap()["runs"][0]["remoteName"] = json!("batches/z"))
        .breaks("I3", "the recorded job batches/a became batches/z");
    whole(|s| statuses(s).last().unwrap()["runs"][0]["remoteName"] = Value::Null)
        .breaks("I3", "became nothing");
    whole(|s| statuses(s).nth(5).unwrap()["phase"] = json!("Pending"))
        .breaks("I3", "back from Running to Pending");
    whole(|s| statuses(s).nth(5).unwrap()["phase"] = json!("Queued"))
        .breaks("I3", "back from Running to Queued");
    let later = |change: fn(&mut Value)| {
        whole(|s| {
            s.change(20.0, change);
        })
    };
    later(|s| s["phase"] = json!("Failed")).breaks("I3", "phase left its end");
    later(|s| s["conditions"] = json!([])).breaks("I3", "taken back");
    later(|s| s["completionTime"] = json!(at(20.0))).breaks("I3", "completionTime was written twice");
    later(|s| {
        let failed = json!({"type": "Failed", "status": "True", "reason": "RemoteGone"});
        s["conditions"].as_array_mut().unwrap().push(failed);
    })
    .breaks("I3", "both Complete and Failed");
    // Told of a late job it is still the same end.
    later(|s| {
        let told = json!({"type": "DuplicateJobs", "status": "True", "reason": "Cancelled"});
        s["conditions"].as_array_mut().unwrap().push(told);
    })
    .holds();
}

#[test]
fn i3_writes_that_overlap_are_put_in_the_order_of_their_versions() {
    let mut sample = Sample::whole();
    // The answer to the write that came last was logged before that of the one that it was made on top of.
    let all = sample.evidence.audit.as_mut().unwrap();
    let before = all.iter().position(|e| e["requestObject"]["status"]["phase"] == "Running").unwrap();
    all[before]["stageTimestamp"] = json!(at(13.0));
    sample.holds();
    sample.evidence.audit.as_mut().unwrap()[before]["requestObject"]["metadata"]["resourceVersion"] =
        json!("99");
    sample.breaks("I3", "back from Delivering to Running");
}

#[test]
fn i4_a_run_has_one_billable_job() {
    let twice = |change: fn(&mut Sample)| {
        doubtful(|s| {
            s.job("batches/a", 1, "BATCH_STATE_SUCCEEDED");
            change(s);
        })
    };
    twice(|_| {}).breaks("I4", "2 jobs for run-1");
    assert_eq!(twice(|_| {}).check().facts.duplicates, 1);
    // Its input was not there: it can never be paid for.
    twice(|s| {
        s.job_with("billable", json!(false));
    })
    .holds();
    // Ended since is a duplicate all the same, unless the run broke A1 or A4 on purpose.
    twice(|s| {
        s.job_with("deleted", json!(true));
    })
    .breaks("I4", "deleted since");
    twice(|s| {
        s.job_with("deleted", json!(true));
        s.bounds.late_jobs = 1;
    })
    .holds();
    twice(|s| s.bounds.late_jobs = 1).breaks("I4", "2 jobs");
}

#[test]
fn i4_the_next_request_comes_when_the_last_one_is_harmless() {
    doubtful(|s| s.evidence.ledger["deleted_files"] = json!([])).breaks("I4", "its file was there");
    doubtful(|s| s.evidence.ledger["deleted_files"][0]["deleted"] = json!(at(11.5)))
        .breaks("I4", "its file was there");
    doubtful(|s| s.evidence.ledger["deleted_files"][0]["deleted"] = json!(at(8.5)))
        .breaks("I4", "after the file of request 40");
    // One that comes after its successor is late, and does no harm where its file is gone.
    doubtful(|s| {
        let first = posts(s).next().unwrap();
        (first["arrived"], first["arrival"]) = (json!(at(30.0)), json!(300));
        (first["status"], first["ended"]) = (json!(403), json!(at(30.1)));
    })
    .holds();
    // It is refused in the end, but nobody could know that by then.
    doubtful(|s| {
        s.evidence.ledger["deleted_files"] = json!([]);
        let first = posts(s).next().unwrap();
        (first["status"], first["ended"]) = (json!(403), json!(at(20.0)));
    })
    .breaks("I4", "answered 403");
    doubtful(|s| {
        s.evidence.ledger["deleted_files"] = json!([]);
        posts(s).next().unwrap()["status"] = json!(400);
    })
    .holds();
}

/// The next attempt may come at once, as that job did nothing: but not a moment before, and not if it did.
#[test]
fn i2_i3_i4_a_job_that_had_no_input_is_followed_by_another() {
    Sample::without_input().holds();
    let facts = Sample::without_input().check().facts;
    assert_eq!((facts.submissions, facts.jobs, facts.duplicates), (2, 2, 0));

    let with = |change: fn(&mut Value)| {
        let mut sample = Sample::without_input();
        change(&mut sample.evidence.ledger["jobs"][0]);
        sample
    };
    let paid = with(|job| job["billable"] = json!(true));
    paid.breaks("I2", "from Recorded to Abandoned");
    paid.breaks("I3", "back from Pending to Submitting");
    paid.breaks("I3", "the recorded job batches/a became nothing");
    paid.breaks("I4", "only 2.5s after the file");
    paid.breaks("I4", "2 jobs for run-1");
    let runs = with(|job| job["state"] = json!("BATCH_STATE_RUNNING"));
    runs.breaks("I2", "from Recorded to Abandoned");
    with(|job| job["end_time"] = json!(at(8.5))).breaks("I4", "only 2.5s after the file");

    let later = |change: fn(&mut Value)| {
        let mut sample = Sample::without_input();
        change(statuses(&mut sample).nth(5).unwrap());
        sample
    };
    later(|s| s["phase"] = json!("Queued")).holds();
    later(|s| s["runs"][0]["submission"] = json!("Pending")).breaks("I2", "from Recorded to Pending");
    later(|s| s["runs"][0]["remoteName"] = Value::Null).breaks("I3", "the recorded job batches/a became");
}

#[test]
fn i5_every_job_is_accounted_for() {
    let left = |change: fn(&mut Sample)| {
        whole(|s| {
            s.delete(20.0);
            change(s);
            s.release(21.0);
        })
    };
    left(|_| {}).breaks("I5", "the orphan ledger does not know it");
    assert_eq!(left(|_| {}).check().facts.lost, 1);
    left(|s| {
        s.job_with("deleted", json!(true));
    })
    .holds();
    left(|s| s.evidence.orphans = Some(json!({"data": {"k": "{}"}}))).holds();
    left(|s| s.evidence.orphans = Some(json!({"data": {"other": "{}"}}))).breaks("I5", "the orphan ledger");
    left(|s| s.bounds.forgotten = vec!["b".into()]).holds();
    // What the object itself says is to stay.
    left(|s| {
        s.policy("Orphan").change(20.5, |s| s["note"] = json!(1));
    })
    .holds();
    left(|s| {
        s.policy("Cancel")
            .change(20.5, |s| s["note"] = json!(1))
            .job_with("state", json!("BATCH_STATE_RUNNING"));
    })
    .breaks("I5", "the orphan ledger");
    // A job of attempt 1 that nobody ever saw, beside the recorded one.
    doubtful(|s| {
        s.job("batches/a", 1, "BATCH_STATE_RUNNING");
    })
    .breaks("I5", "recorded nowhere");
    whole(|s| {
        s.job("batches/x", 1, "BATCH_STATE_RUNNING").job_with("display_name", json!("gb1.x.1.t"));
    })
    .breaks("I5", "no object ever had this key");
    whole(|s| {
        s.job("batches/x", 1, "BATCH_STATE_RUNNING").job_with("display_name", json!("foreign"));
    })
    .holds();
}
