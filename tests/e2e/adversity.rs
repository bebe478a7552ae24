//! Killed processes, lost answers, lost and repeated events: one paid job all the same.

use serde_json::json;

use crate::objects::tickets;
use crate::support::{Bed, BedOptions, PATIENCE, batch_condition, poll};

async fn bed_with_faults(name: &str, faults: serde_json::Value) -> Bed {
    let bed = Bed::with(name, BedOptions { faults: Some(faults), ..BedOptions::default() }).await;
    bed.make_api_key().await;
    bed
}

async fn assert_one_job(bed: &Bed, rows: u64) {
    let ledger = bed.ledger().await;
    assert_eq!(ledger.0["jobs"].as_array().map(Vec::len), Some(1), "one job was made");
    assert_eq!(ledger.rows_paid(), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_found_in_a_listing() {
    let bed = bed_with_faults(
        "lost-answer",
        json!({"rules": [{"match": {"call": "batches.create"}, "do": {"drop": "answer"}, "times": 1}]}),
    )
    .await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    let batch = bed.wait_complete("tickets").await;
    let submitted = batch_condition(&batch, "Submitted").unwrap();
    assert_eq!(submitted.reason, "Adopted");
    assert_eq!(bed.ledger().await.calls("batches.create"), 1, "one request left");
    assert_one_job(&bed, 3).await;
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_after_the_post_adopts_its_job() {
    let mut bed = bed_with_faults(
        "killed",
        json!({"rules": [{"match": {"call": "batches.create"}, "do": {"hold": "answer"}, "times": 1}]}),
    )
    .await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    // The job is made, and nobody was told.
    bed.emulator.wait_held(1).await;
    bed.kill_controller();
    bed.start_controller().await;
    let batch = bed.wait_complete("tickets").await;
    assert_eq!(batch_condition(&batch, "Submitted").unwrap().reason, "Adopted");
    assert_one_job(&bed, 3).await;
    bed.assert_invariants().await;
}

/// An orderly end waits for the answer and writes it down, so that nobody has to look for the job.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_during_the_post_finishes_it_and_its_record() {
    let mut bed = bed_with_faults(
        "sigterm",
        json!({"rules": [{"match": {"call": "batches.create"}, "do": {"hold": "answer"}, "times": 1}]}),
    )
    .await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.emulator.wait_held(1).await;
    let before = bed.ledger().await.calls("batches.list");
    let mut controller = bed.controller.take().unwrap();
    controller.signal("TERM");
    poll(PATIENCE, async || if controller.logs().contains("shutting down") { Ok(()) } else { Err(()) })
        .await
        .expect("the controller is asked to stop");
    assert!(controller.ended().is_none(), "it waits for its POST");
    bed.emulator.release_calls().await;
    let status = poll(PATIENCE, async || controller.ended().ok_or(())).await.expect("it ends");
    assert!(status.success(), "{status}: {}", controller.tail(20));

    // Nobody is there to write it now: it stands already.
    let batch = bed.batches().get("tickets").await.unwrap();
    assert_eq!(batch_condition(&batch, "Submitted").unwrap().reason, "Submitted");
    let run = batch.status.as_ref().and_then(|s| s.runs.last()).unwrap();
    assert_eq!(run.remote_name.as_deref(), bed.ledger().await.jobs()[0]["name"].as_str());
    assert_eq!(bed.ledger().await.calls("batches.list"), before, "nothing had to be looked for");
    bed.start_controller().await;
    bed.wait_complete("tickets").await;
    assert_one_job(&bed, 3).await;
    bed.assert_invariants().await;
}

/// Nothing shows in listings: the attempt's file is deleted, the window passes, and one more request is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_arrived_is_made_again_without_a_person() {
    let faults =
        json!({"rules": [{"match": {"call": "batches.create"}, "do": {"drop": "request"}, "times": 1}]});
    let options = BedOptions { faults: Some(faults), timing_divisor: 300, ..BedOptions::default() };
    let bed = Bed::with("fenced", options).await;
    bed.make_api_key().await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    let batch = bed.wait_complete("tickets").await;
    let run = &batch.status.unwrap().runs[0];
    assert_eq!(run.attempt, 2);
    let ledger = bed.ledger().await;
    assert_eq!((ledger.calls("batches.create"), ledger.executed("batches.create")), (2, 1));
    let files = bed.emulator.list("files").await;
    let inputs: Vec<_> =
        files.iter().filter(|f| f["name"].as_str().unwrap().starts_with("files/gb-")).collect();
    assert_eq!(inputs.len(), 1, "the first attempt's file is gone: {inputs:?}");
    assert_one_job(&bed, 3).await;
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_arrived_ends_in_quarantine_with_a_way_out() {
    let faults =
        json!({"rules": [{"match": {"call": "batches.create"}, "do": {"drop": "request"}, "times": 1}]});
    let options = BedOptions { faults: Some(faults), timing_divisor: 300, ..BedOptions::default() };
    let bed = Bed::with("quarantine", options).await;
    bed.make_api_key().await;
    let mut batch: serde_json::Value = serde_json::from_str(&tickets("tickets", 3, "None")).unwrap();
    batch["spec"]["ambiguity"] = json!("Quarantine");
    bed.apply(&batch.to_string()).await;
    let batch = bed.wait_condition("tickets", "Submitted", "Unknown", "Quarantined").await;
    let message = &batch_condition(&batch, "Submitted").unwrap().message;
    let command = message.split("run: kubectl ").nth(1).expect("the message says what to run");
    assert_eq!(bed.ledger().await.calls("batches.create"), 1, "nothing is sent again by itself");

    let arguments: Vec<&str> = command.split_whitespace().collect();
    bed.kubectl().run(&arguments).await.expect();
    bed.wait_complete("tickets").await;
    assert_one_job(&bed, 3).await;
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_lost_at_first_or_sent_twice_complete_once() {
    let mut bed = bed_with_faults(
        "events",
        json!({"deliveries": [{"match": {"event_type": "batch.succeeded"}, "do": {"duplicate": 1}}]}),
    )
    .await;
    bed.make_webhook().await;
    bed.apply(&tickets("twice", 3, "Auto")).await;
    bed.wait_complete("twice").await;

    bed.kill_receiver();
    bed.apply(&tickets("late", 3, "Auto")).await;
    poll(PATIENCE, async || {
        let failed = bed.ledger().await.deliveries("batch.succeeded").len();
        if failed >= 3 { Ok(()) } else { Err(failed) }
    })
    .await
    .expect("a delivery is tried while the receiver is away");
    bed.start_receiver().await;
    bed.wait_complete("late").await;
    assert_eq!(bed.ledger().await.calls("batches.create"), 2);
    bed.assert_invariants().await;
}
