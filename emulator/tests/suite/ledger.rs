//! What the ledger tells of requests for a job: when each came, what it asked for, what it made, also while it is held.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Emulator, jsonl, until};

fn creates(ledger: &Value) -> Vec<&Value> {
    ledger["requests"].as_array().unwrap().iter().filter(|entry| entry["call"] == "batches.create").collect()
}

fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap_or_else(|| panic!("no time: {value}")).parse().unwrap()
}

async fn plan(emulator: &Emulator, fault: Value) {
    let rule = json!({"match": {"call": "batches.create"}, "do": fault, "times": 1});
    emulator.faults(json!({"rules": [rule]})).await;
}

#[tokio::test]
async fn a_request_is_there_from_its_arrival_on() {
    let emulator = &Emulator::start(&["--job-time", "0"]);
    emulator.upload("files/in", &jsonl(&["a"])).await;
    emulator.advance(3600).await;
    let before = jiff::Timestamp::now();
    plan(emulator, json!({"hold": "request"})).await;
    let look = async {
        let open = until("it is held", || async {
            let ledger = emulator.ledger().await;
            let open = ledger["open"].as_array().unwrap().clone();
            open.into_iter().find(|entry| entry["call"] == "batches.create")
        })
        .await;
        assert_eq!((&open["display_name"], &open["input_file"]), (&json!("one"), &json!("files/in")));
        assert_eq!(open["late"], false);
        assert_eq!(creates(&emulator.ledger().await).len(), 0, "it has not ended");
        // Other logs of this machine know nothing of a clock that was moved.
        let arrived = time(&open["arrived"]);
        assert!(before <= arrived && arrived <= jiff::Timestamp::now(), "{arrived}");
        emulator.admin(Method::POST, "calls/release", Value::Null).await;
        open
    };
    let (open, (status, job)) = tokio::join!(look, emulator.create("one", "files/in"));
    assert_eq!(status, 200);
    let ledger = emulator.ledger().await;
    let entry = creates(&ledger)[0];
    assert_eq!((&entry["arrival"], &entry["arrived"]), (&open["arrival"], &open["arrived"]));
    assert!(time(&entry["arrived"]) <= time(&entry["ended"]));
    assert!(time(&entry["ended"]) <= time(&ledger["taken"]));
    assert_eq!((&entry["display_name"], &entry["job"]), (&json!("one"), &job["name"]));
    assert_eq!(ledger["open"], json!([]));
    // What is refused tells what it asked for as well, and made nothing.
    assert_eq!(emulator.create("two", "files/nothing").await.0, 403);
    let ledger = emulator.ledger().await;
    let entry = creates(&ledger)[1];
    assert_eq!((&entry["input_file"], &entry["job"]), (&json!("files/nothing"), &Value::Null));
}

#[tokio::test]
async fn a_late_execution_belongs_to_its_request() {
    let emulator = Emulator::start(&["--job-time", "0"]);
    emulator.upload("files/in", &jsonl(&["a"])).await;
    plan(&emulator, json!({"status": 503, "execute_late_calls": 1})).await;
    assert_eq!(emulator.create("late", "files/in").await.0, 503);
    let ledger = emulator.ledger().await;
    let answered = creates(&ledger)[0].clone();
    assert_eq!((&answered["status"], &answered["job"]), (&json!(503), &Value::Null));
    let open = &ledger["open"][0];
    assert_eq!(
        (&open["arrival"], &open["late"]),
        (&answered["arrival"], &json!(true)),
        "it is still to come"
    );
    emulator.get("/v1/batches").await;
    let ledger = until("it is executed", || async {
        let ledger = emulator.ledger().await;
        (creates(&ledger).len() == 2).then_some(ledger)
    })
    .await;
    let late = creates(&ledger)[1];
    assert_eq!((&late["arrival"], &late["arrived"]), (&answered["arrival"], &answered["arrived"]));
    assert_eq!((&late["late"], &late["job"]), (&json!(true), &ledger["jobs"][0]["name"]));
    assert_eq!((&answered["late"], &ledger["open"]), (&Value::Null, &json!([])));
}

#[tokio::test]
async fn jobs_and_files_tell_how_they_went() {
    let emulator = Emulator::start(&["--job-time", "1h"]);
    let job = async |name: &str| {
        let created = emulator.job(name, &["a"]).await;
        let find = async || {
            let ledger = emulator.ledger().await;
            ledger["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .find(|job| job["name"] == created.as_str())
                .unwrap()
                .clone()
        };
        let before = find().await;
        assert_eq!((&before["billable"], &before["cancel_asked"]), (&json!(true), &json!(false)));
        assert!(before["cancel_time"].is_null() && before["delete_time"].is_null());
        created
    };
    let of = async |name: &str| {
        let ledger = emulator.ledger().await;
        ledger["jobs"].as_array().unwrap().iter().find(|job| job["name"] == name).unwrap().clone()
    };
    // While it is PENDING, too.
    let cancelled = job("cancelled").await;
    emulator.post(&format!("/v1/{cancelled}:cancel"), json!({})).await;
    let seen = of(&cancelled).await;
    assert_eq!((&seen["cancel_asked"], &seen["billable"]), (&json!(true), &json!(true)));
    assert!(time(&seen["cancel_time"]) >= time(&seen["create_time"]));
    let deleted = job("deleted").await;
    emulator.delete(&format!("/v1/{deleted}")).await;
    assert!(time(&of(&deleted).await["delete_time"]) >= time(&seen["create_time"]));

    // Its input goes before it runs.
    let starved = job("starved").await;
    emulator.delete("/v1/files/in-starved").await;
    emulator.advance(7200).await;
    let seen = of(&starved).await;
    assert_eq!((&seen["state"], &seen["billable"]), (&json!("BATCH_STATE_FAILED"), &json!(false)));
    let ledger = emulator.ledger().await;
    let file = &ledger["deleted_files"][0];
    assert_eq!(file["name"], "files/in-starved");
    assert!(time(&file["deleted"]) <= time(&ledger["taken"]));
    // It was never there, and the API makes a job all the same.
    emulator.faults(json!({"options": {"missing_file": "fail_at_run"}})).await;
    let (status, made) = emulator.create("never", "files/never").await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(of(made["name"].as_str().unwrap()).await["billable"], false);
}
