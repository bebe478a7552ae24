//! Deletion in each phase leaves nothing at Gemini and nothing Terminating.

use serde_json::json;

use crate::objects::{jsonl, line, tickets};
use crate::support::{Bed, BedOptions, PATIENCE, poll};

async fn delete_and_expect_nothing_left(bed: &Bed, name: &str) {
    bed.kubectl().run(&["delete", "geminibatch", name, "--wait=false"]).await.expect();
    bed.wait_gone(bed.batches(), name).await;
    for collection in ["batches", "files"] {
        let left = bed.emulator.list(collection).await;
        assert!(left.is_empty(), "{collection} left after {name}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_nothing_behind_in_any_phase() {
    let bed = Bed::with("deletion", BedOptions { job_time: "4s".into(), ..BedOptions::default() }).await;
    bed.make_api_key().await;

    let mut suspended = jsonl("suspended", &line("a"));
    suspended["spec"]["suspend"] = json!(true);
    bed.apply(&suspended.to_string()).await;
    bed.wait_condition("suspended", "Admitted", "False", "Suspended").await;
    delete_and_expect_nothing_left(&bed, "suspended").await;

    bed.apply(&tickets("running", 3, "None")).await;
    bed.wait_condition("running", "Submitted", "True", "Submitted").await;
    delete_and_expect_nothing_left(&bed, "running").await;

    bed.apply(&tickets("done", 3, "None")).await;
    bed.wait_complete("done").await;
    delete_and_expect_nothing_left(&bed, "done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_does_not_hold_it_longer_than_its_timeout() {
    let options = BedOptions { job_time: "600s".into(), timing_divisor: 120, ..BedOptions::default() };
    let mut bed = Bed::with("no-secret", options).await;
    bed.make_api_key().await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_condition("tickets", "Submitted", "True", "Submitted").await;
    bed.kubectl().run(&["delete", "secret", "gemini"]).await.expect();
    // A new process does not remember the key.
    bed.kill_controller();
    bed.start_controller().await;
    bed.kubectl().run(&["delete", "geminibatch", "tickets", "--wait=false"]).await.expect();
    bed.wait_gone(bed.batches(), "tickets").await;
    poll(PATIENCE, async || {
        let events = bed.events("tickets").await;
        let told =
            events.iter().any(|(_, reason, note)| reason == "DeletionTimeout" && note.contains("batches/"));
        if told { Ok(()) } else { Err(events) }
    })
    .await
    .expect("an Event names the job that may be left");
}
