//! Doubts on real parts: late requests, lost statuses, keys that change, two controllers. One paid job all the same.

use gemini_operator::api::GeminiBatch;
use gemini_operator_checker::Bounds;
use serde_json::{Value, json};

use crate::objects::tickets;
use crate::support::{Bed, BedOptions, PATIENCE, PROJECT, batch_condition, poll};

/// Doubts are over in seconds.
const DIVISOR: u32 = 300;
const OTHER_PROJECT: &str = "AIza-canary-of-another-project";
const OTHER_KEY: &str = "AIza-canary-of-the-same-project";

async fn bed_with(name: &str, faults: Value) -> Bed {
    let options = BedOptions {
        faults: Some(faults),
        timing_divisor: DIVISOR,
        more_api_keys: vec![(OTHER_PROJECT.into(), "elsewhere".into()), (OTHER_KEY.into(), PROJECT.into())],
        ..BedOptions::default()
    };
    let bed = Bed::with(name, options).await;
    bed.make_api_key().await;
    bed
}

fn once(call: &str, fault: &Value) -> Value {
    json!({"rules": [{"match": {"call": call}, "do": fault, "times": 1}]})
}

async fn assert_one_job(bed: &Bed) {
    let ledger = bed.ledger().await;
    assert_eq!(ledger.jobs().len(), 1, "one job was made: {:?}", ledger.sequence());
}

/// The status goes, as when a backup is restored without it; the rest of the object stays.
async fn wipe_status(bed: &Bed, name: &str) {
    let patch = r#"[{"op": "remove", "path": "/status"}]"#;
    let patch = ["patch", "geminibatch", name, "--subresource=status", "--type=json", "-p", patch];
    bed.kubectl().run(&patch).await.expect();
    assert!(bed.batches().get(name).await.unwrap().status.is_none(), "the status is gone");
}

/// A request that is under way for longer than everything else takes, from a process that is gone. When it arrives at
/// last, its input file is gone, and it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_arrives_after_its_fence_is_refused() {
    let mut bed = bed_with("late", once("batches.create", &json!({"hold": "request"}))).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.emulator.wait_held(1).await;
    bed.kill_controller();
    bed.start_controller().await;
    let batch = bed.wait_complete("tickets").await;
    assert_eq!(batch.status.unwrap().runs[0].attempt, 2, "the first attempt was given up on");
    assert_one_job(&bed).await;

    bed.emulator.release_calls().await;
    bed.emulator.wait_held(0).await;
    let ledger = bed.ledger().await;
    assert_eq!((ledger.calls("batches.create"), ledger.jobs().len()), (2, 1), "it made no job");
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_status_finds_its_job_again() {
    let mut bed = bed_with("wiped", json!({"jobs": [{"do": {"hold": "pending"}}]})).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    bed.kill_controller();
    wipe_status(&bed, "tickets").await;
    bed.start_controller().await;
    bed.wait_condition("tickets", "Submitted", "True", "Adopted").await;
    bed.emulator.release_jobs().await;
    bed.wait_complete("tickets").await;
    assert_one_job(&bed).await;
    assert_eq!(bed.ledger().await.calls("batches.create"), 1);
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_status_does_not_leave_a_job_behind_when_the_batch_is_deleted() {
    let mut bed = bed_with("wiped-deleted", json!({"jobs": [{"do": {"hold": "pending"}}]})).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    bed.kill_controller();
    wipe_status(&bed, "tickets").await;
    bed.kubectl().run(&["delete", "geminibatch", "tickets", "--wait=false"]).await.expect();
    bed.start_controller().await;
    bed.wait_gone(bed.batches(), "tickets").await;
    let left = bed.emulator.state().await;
    assert_eq!((&left["jobs"], &left["files"]), (&json!(0), &json!(0)));
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_status_without_a_job_waits_and_goes_on() {
    let mut bed = bed_with("wiped-early", once("batches.create", &json!({"drop": "request"}))).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_condition("tickets", "Submitted", "Unknown", "OutcomeUnknown").await;
    bed.kill_controller();
    wipe_status(&bed, "tickets").await;
    bed.start_controller().await;
    let batch = bed.wait_complete("tickets").await;
    assert_eq!(batch.status.unwrap().runs[0].attempt, 2);
    assert_one_job(&bed).await;
    bed.assert_invariants().await;
}

/// The copy brings the original's annotation along; it gets a job of its own and leaves the original's things alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_another_name_is_a_batch_of_its_own() {
    let bed = bed_with("copy", json!({"jobs": [{"do": {"hold": "pending"}}]})).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    let original = bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    let mut copy = serde_json::to_value(&original).unwrap();
    copy["metadata"] = json!({"name": "copy", "annotations": copy["metadata"]["annotations"]});
    copy.as_object_mut().unwrap().remove("status");
    bed.apply(&copy.to_string()).await;
    let copy = bed.wait_condition("copy", "Submitted", "True", "Submitted").await;
    let key = |b: &gemini_operator::api::GeminiBatch| b.status.clone().unwrap().identity.unwrap().submit_key;
    assert_ne!(key(&original), key(&copy));
    bed.kubectl().run(&["delete", "geminibatch", "copy", "--wait=false"]).await.expect();
    bed.wait_gone(bed.batches(), "copy").await;
    bed.emulator.release_jobs().await;
    bed.wait_complete("tickets").await;
    bed.assert_invariants().await;
}

/// A key of another project sees neither the file nor a job, and that proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_project_stops_a_doubt_and_the_right_one_ends_it() {
    let bed = bed_with("foreign", once("batches.create", &json!({"drop": "request"}))).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_condition("tickets", "Submitted", "Unknown", "OutcomeUnknown").await;
    bed.make_api_key_as("gemini", OTHER_PROJECT).await;
    let batch = bed.wait_condition("tickets", "Submitted", "Unknown", "ProjectUnproven").await;
    let message = &batch_condition(&batch, "Submitted").unwrap().message;
    assert!(
        message.contains("another Google project") && message.contains("spec.apiKeySecretRef"),
        "{message}"
    );
    assert_eq!(bed.ledger().await.calls("batches.create"), 1, "nothing else is sent");
    bed.make_api_key().await;
    bed.wait_complete("tickets").await;
    assert_one_job(&bed).await;
    bed.assert_invariants().await;
}

/// It can delete the file, so it is of the same project, and what it lists counts.
#[tokio::test(flavor = "multi_thread")]
async fn another_key_of_the_same_project_ends_a_doubt() {
    let bed = bed_with("rotated", once("batches.create", &json!({"drop": "request"}))).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_condition("tickets", "Submitted", "Unknown", "OutcomeUnknown").await;
    bed.make_api_key_as("gemini", OTHER_KEY).await;
    bed.wait_complete("tickets").await;
    assert_one_job(&bed).await;
    bed.assert_invariants().await;
}

/// Deleted and made again while its request is under way: the first one's job is found, cancelled and removed.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_made_again_in_doubt_leaves_one_live_job() {
    let mut faults = once("batches.create", &json!({"drop": "answer"}));
    // So that there is a doubt to see.
    faults["jobs"] = json!([{"do": {"list_lag_ms": 1500}}]);
    let bed = bed_with("again", faults).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_condition("tickets", "Submitted", "Unknown", "OutcomeUnknown").await;
    bed.kubectl().run(&["delete", "geminibatch", "tickets", "--wait=false"]).await.expect();
    bed.wait_gone(bed.batches(), "tickets").await;
    assert_eq!(bed.emulator.state().await["jobs"], 0, "its job is accounted for");
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_complete("tickets").await;
    assert_eq!(bed.emulator.state().await["jobs"], 1);
    bed.assert_invariants().await;
}

/// What was seen of a job before it is known to have failed.
#[derive(Clone, Copy)]
enum Seen {
    /// It was pending, in a listing and then by itself.
    LookedAt,
    /// A listing, which is older than its failure.
    Listed,
    /// Nothing.
    Nothing,
}

/// The fence deletes the input of a job that was there and only not listed yet, and had not begun. It does nothing then,
/// and the batch does not end with it.
async fn the_fence_takes_the_input_of_a_job(name: &str, seen: Seen) {
    let faults = json!({
        "rules": [
            {"match": {"call": "batches.create"}, "do": {"drop": "answer"}, "times": 1},
            {"match": {"call": "batches.list"}, "do": {"list_lag_ms": 3_600_000}},
        ],
        "jobs": [{"match": {"nth": [1]}, "do": {"hold": "pending"}}],
    });
    let bed = bed_with(name, faults).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    poll(PATIENCE, async || match bed.ledger().await.0["deleted_files"].as_array().map_or(0, Vec::len) {
        1 => Ok(()),
        other => Err(other),
    })
    .await
    .expect("the fence deletes the input");
    let fail = async || {
        bed.emulator.release_jobs().await;
        poll(PATIENCE, async || match bed.ledger().await.jobs()[0]["state"].as_str() {
            Some("BATCH_STATE_FAILED") => Ok(()),
            other => Err(other.map(str::to_owned)),
        })
        .await
        .expect("the job does not find its input");
    };
    let adopted = async || bed.wait_condition("tickets", "Submitted", "True", "Adopted").await;
    match seen {
        Seen::LookedAt => {
            bed.emulator.set_faults(&json!({})).await;
            adopted().await;
            let has_looked = |batch: &GeminiBatch| batch.status.as_ref().unwrap().runs[0].state.is_some();
            bed.wait_batch("tickets", "looked at", has_looked).await;
            fail().await;
        }
        Seen::Listed => {
            let refuse = json!({"rules": [{"match": {"call": "batches.get"}, "do": {"status": 503}}]});
            bed.emulator.set_faults(&refuse).await;
            adopted().await;
            fail().await;
            bed.emulator.set_faults(&json!({})).await;
        }
        Seen::Nothing => {
            fail().await;
            bed.emulator.set_faults(&json!({})).await;
        }
    }
    let batch = bed.wait_complete("tickets").await;
    let status = batch.status.unwrap();
    assert_eq!((status.runs.len(), status.runs[0].attempt), (1, 2), "{status:?}");
    let ledger = bed.ledger().await;
    let billable: Vec<bool> = ledger.jobs().iter().map(|job| job["billable"] == true).collect();
    assert_eq!((billable, ledger.rows_paid()), (vec![false, true], 3));
    let duplicates = bed.metric("gemini_operator_duplicate_jobs_total").await;
    assert_eq!(duplicates.filter(|told| *told > 0.0), None, "nobody paid for the first one");
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_adopted_and_then_finds_no_input_is_followed_by_another() {
    the_fence_takes_the_input_of_a_job("input-adopted", Seen::LookedAt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_listed_and_then_finds_no_input_is_followed_by_another() {
    the_fence_takes_the_input_of_a_job("input-listed", Seen::Listed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_has_found_no_input_when_it_shows_is_followed_by_another() {
    the_fence_takes_the_input_of_a_job("input-failed", Seen::Nothing).await;
}

/// A listing that lags longer than it may: the job of the first attempt turns up when the second one is done. It is the one
/// case that costs, and it is ended and told.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_turns_up_late_is_ended_and_told() {
    let mut faults = once("batches.create", &json!({"drop": "answer"}));
    faults["jobs"] = json!([{"match": {"nth": [1]}, "do": {"list_lag_ms": 9000, "hold": "pending"}}]);
    let bed = bed_with("lag", faults).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_complete("tickets").await;
    let batch = bed.wait_condition("tickets", "DuplicateJobs", "True", "Cancelled").await;
    let run = &batch.status.as_ref().unwrap().runs[0];
    let remote = run.remote_name.clone().unwrap();
    let message = &batch_condition(&batch, "DuplicateJobs").unwrap().message;
    assert!(run.attempt == 2 && !message.contains(&remote), "{remote}: {message}");
    assert!(batch_condition(&batch, "Complete").is_some_and(|c| c.status == "True"), "it stays complete");
    poll(PATIENCE, async || match bed.emulator.list("batches").await.as_slice() {
        [left] if left["name"] == remote.as_str() => Ok(()),
        other => Err(other.len()),
    })
    .await
    .expect("the one that is recorded is left");
    assert_eq!(bed.metric("gemini_operator_duplicate_jobs_total").await, Some(1.0));
    assert_eq!(bed.ledger().await.rows_paid(), 3, "it was ended before it was worked on");
    // What A1 rules out was done to it, on purpose.
    bed.assert_holds(&Bounds { late_jobs: 1, ..bed.bounds() }).await;
}

/// Nobody elects a leader: both act on everything, and each batch has one job.
#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_at_once_make_one_job_for_each_batch() {
    const BATCHES: usize = 12;
    let faults = json!({"rules": [
        {"match": {"call": "batches.create", "every": 3}, "do": {"drop": "answer"}},
        {"match": {"call": "batches.create", "every": 4}, "do": {"drop": "request"}},
        {"match": {"call": "batches.create", "every": 5}, "do": {"status": 503, "executed": true}},
    ]});
    let mut bed = bed_with("two", faults).await;
    let first = bed.controller.take();
    bed.start_controller().await;
    for i in 0..BATCHES {
        bed.apply(&tickets(&format!("tickets-{i}"), 2, "None")).await;
    }
    for i in 0..BATCHES {
        bed.wait_complete(&format!("tickets-{i}")).await;
    }
    drop(first);
    let ledger = bed.ledger().await;
    assert_eq!((ledger.jobs().len(), ledger.rows_paid()), (BATCHES, 2 * BATCHES as u64));
    assert!(ledger.calls("batches.create") > BATCHES, "some were in doubt");
    bed.assert_invariants().await;
}

/// A storm of refusals for quota: no new upload, no tight loop, and all of them come through.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_for_quota_slow_all_batches_of_the_key_down() {
    const BATCHES: usize = 10;
    let calls = async |bed: &Bed, prefix: &str| {
        for i in 0..BATCHES {
            bed.apply(&tickets(&format!("{prefix}-{i}"), 2, "None")).await;
        }
        for i in 0..BATCHES {
            bed.wait_complete(&format!("{prefix}-{i}")).await;
        }
        let ledger = bed.ledger().await;
        let of = |name: &str| ledger.calls(name);
        (of("batches.create"), of("files.upload_start"), ledger.jobs().len())
    };
    let quiet = bed_with("quota-free", json!({})).await;
    assert_eq!(calls(&quiet, "tickets").await, (BATCHES, BATCHES, BATCHES));

    // Three of ten, the first two among them.
    let refused =
        json!({"match": {"call": "batches.create", "nth": [1, 2, 5, 8, 11]}, "do": {"status": 429}});
    let bed = bed_with("quota", json!({"rules": [refused]})).await;
    let (creates, uploads, jobs) = calls(&bed, "tickets").await;
    assert_eq!((jobs, uploads), (BATCHES, BATCHES), "no file is uploaded again");
    assert!((BATCHES + 1..=BATCHES * 2).contains(&creates), "{creates} requests for {BATCHES} jobs");
    quiet.assert_invariants().await;
    bed.assert_invariants().await;
}

/// A missing file and a key without the right are both answered with 403. The file is there, so it was the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_right_is_told_and_costs_no_second_upload() {
    let bed = bed_with("no-right", once("batches.create", &json!({"status": 403}))).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    let batch = bed.wait_condition("tickets", "Admitted", "False", "CredentialsInvalid").await;
    let message = &batch_condition(&batch, "Admitted").unwrap().message;
    assert!(message.contains("spec.apiKeySecretRef"), "{message}");
    bed.wait_complete("tickets").await;
    assert_eq!(bed.ledger().await.calls("files.upload_start"), 1);
    assert_one_job(&bed).await;
    bed.assert_invariants().await;
}

/// What a key of another project does not see is not gone: the job is told of, and ended when the right key is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_with_a_key_of_another_project_forgets_no_job() {
    let mut bed = bed_with("foreign-deletion", json!({"jobs": [{"do": {"hold": "pending"}}]})).await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    // A process that runs may still have the old key in hand.
    bed.kill_controller();
    bed.make_api_key_as("gemini", OTHER_PROJECT).await;
    bed.kubectl().run(&["delete", "geminibatch", "tickets", "--wait=false"]).await.expect();
    bed.start_controller().await;
    bed.wait_gone(bed.batches(), "tickets").await;
    let note = bed.wait_event("tickets", "DeletionTimeout").await;
    assert!(note.contains("batches/"), "{note}");
    assert_eq!(bed.emulator.state().await["jobs"], 1, "it is there still");
    bed.make_api_key().await;
    poll(PATIENCE, async || match bed.emulator.state().await["jobs"].as_u64() {
        Some(0) => Ok(()),
        other => Err(other),
    })
    .await
    .expect("the operator goes on looking, and ends it");
    bed.assert_invariants().await;
}
