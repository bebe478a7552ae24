//! Deletion in each phase leaves nothing at Gemini and nothing Terminating.

use serde_json::{Value, json};

use crate::objects::{jsonl, line, tickets};
use crate::support::{Bed, BedOptions, PATIENCE, poll};

/// A batch of two rows with a model of its own, by which the fault plan knows its calls: they do not carry its name.
fn batch(name: &str, model: &str) -> Value {
    let mut batch = jsonl(name, &format!("{}\n{}\n", line("a"), line("b")));
    batch["spec"]["model"] = json!(model);
    // Divided as all windows are, and never what ends a deletion here.
    batch["spec"]["deletionTimeout"] = json!("10h");
    batch
}

fn create_of(model: &str) -> Value {
    json!({"call": "batches.create", "path_contains": format!("{model}:")})
}

async fn apply_all(bed: &Bed, batches: &[Value]) {
    bed.apply(&json!({"apiVersion": "v1", "kind": "List", "items": batches}).to_string()).await;
}

async fn delete_all(bed: &Bed) {
    bed.kubectl().run(&["delete", "geminibatch", "--all", "--wait=false"]).await.expect();
}

/// Every batch goes, and takes along what it had.
async fn expect_nothing_left(bed: &Bed, names: &[&str]) {
    for name in names {
        bed.wait_gone(bed.batches(), name).await;
        let events = bed.events(name).await;
        assert!(events.iter().all(|(_, reason, _)| reason != "DeletionTimeout"), "{name}: {events:?}");
    }
    let state = bed.emulator.state().await;
    assert_eq!((&state["jobs"], &state["files"]), (&json!(0), &json!(0)), "{state}");
}

async fn wait_phase(bed: &Bed, name: &str, phase: &str) {
    bed.wait_batch(name, phase, |batch| {
        batch.status.as_ref().and_then(|s| s.phase).is_some_and(|p| format!("{p:?}") == phase)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_nothing_behind_in_any_phase() {
    let faults = json!({
        "rules": [
            {"match": {"call": "files.upload_start", "body_contains": ".staging\""}, "do": {"hold": "request"}},
            {"match": create_of("gemini-2.5-flash"), "do": {"hold": "answer"}},
            // There is a job, nobody was told, and no list shows it for an hour.
            {"match": create_of("gemini-2.5-pro"), "do": {"drop": "answer", "list_lag_ms": 3_600_000}},
        ],
        "jobs": [
            {"match": {"model": "gemini-3.5-pro"}, "do": {"hold": "pending"}},
            {"match": {"model": "gemini-3.8-flash"}, "do": {"hold": "running", "job_time_ms": 0}},
            {"match": {"model": "gemini-3.5-flash-lite"}, "do": {"state": "FAILED"}},
        ],
    });
    let options = BedOptions { faults: Some(faults), job_time: "0".into(), ..BedOptions::default() };
    let bed = Bed::with("deletion", options).await;
    bed.make_api_key().await;
    let plain = "gemini-3.5-flash";
    let mut suspended = batch("suspended", plain);
    suspended["spec"]["suspend"] = json!(true);
    let mut queued = batch("queued", plain);
    queued["spec"]["apiKeySecretRef"]["name"] = json!("nothing");
    let batches = [
        suspended,
        queued,
        batch("staging", plain),
        batch("submitting", "gemini-2.5-flash"),
        batch("doubtful", "gemini-2.5-pro"),
        batch("pending", "gemini-3.5-pro"),
        batch("running", "gemini-3.8-flash"),
        batch("succeeded", plain),
        batch("failed", "gemini-3.5-flash-lite"),
    ];
    apply_all(&bed, &batches).await;
    for (name, phase) in [
        ("suspended", "Suspended"),
        ("queued", "Queued"),
        ("staging", "Staging"),
        ("submitting", "Submitting"),
        ("pending", "Pending"),
        ("succeeded", "Succeeded"),
        ("failed", "Failed"),
    ] {
        wait_phase(&bed, name, phase).await;
    }
    bed.wait_condition("running", "Submitted", "True", "Submitted").await;
    bed.wait_condition("queued", "Admitted", "False", "CredentialsNotFound").await;
    // Only now: everybody else's results would be held too.
    bed.emulator
        .add_faults(&json!({"rules": [{"match": {"call": "files.download"}, "do": {"hold": "request"}}]}))
        .await;
    apply_all(&bed, &[batch("delivering", plain)]).await;
    wait_phase(&bed, "delivering", "Delivering").await;
    // The upload, the POST and the download.
    bed.emulator.wait_held(3).await;
    bed.wait_condition("doubtful", "Submitted", "Unknown", "OutcomeUnknown").await;

    delete_all(&bed).await;
    bed.emulator.set_faults(&json!({})).await;
    bed.emulator.release_calls().await;
    bed.emulator.advance_clock(3_600).await;
    let names: Vec<String> =
        batches.iter().map(|b| b["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["delivering"]).collect();
    expect_nothing_left(&bed, &names).await;
    assert_eq!(bed.ledger().await.jobs().len(), 7, "each phase had what it says");
    bed.assert_invariants().await;
}

/// A request that never arrived: there is no job, and nobody can know.
#[tokio::test(flavor = "multi_thread")]
async fn leaves_nothing_behind_where_the_outcome_stays_unknown() {
    let faults = json!({"rules": [{"match": {"call": "batches.create"}, "do": {"drop": "request"}}]});
    let options = BedOptions { faults: Some(faults), timing_divisor: 300, ..BedOptions::default() };
    let bed = Bed::with("unknown", options).await;
    bed.make_api_key().await;
    let mut quarantined = batch("quarantined", "gemini-3.5-flash");
    quarantined["spec"]["ambiguity"] = json!("Quarantine");
    apply_all(&bed, &[quarantined]).await;
    bed.wait_condition("quarantined", "Submitted", "Unknown", "Quarantined").await;
    apply_all(&bed, &[batch("unknown", "gemini-3.5-flash")]).await;
    bed.wait_condition("unknown", "Submitted", "Unknown", "OutcomeUnknown").await;
    assert_eq!(bed.emulator.state().await["files"], 2, "their inputs are there");
    delete_all(&bed).await;
    expect_nothing_left(&bed, &["quarantined", "unknown"]).await;
    assert_eq!(bed.ledger().await.jobs().len(), 0);
    bed.assert_invariants().await;
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
    bed.assert_invariants().await;
}
