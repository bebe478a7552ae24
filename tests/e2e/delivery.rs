//! From the end of the job to the results in the cluster, when something is in the way: they arrive all the same, soon,
//! and nobody is hammered meanwhile.

use std::time::{Duration, Instant};

use gemini_operator::api::GeminiBatch;
use serde_json::{Value, json};

use crate::objects::{jsonl, line, tickets};
use crate::support::{Bed, BedOptions, PATIENCE, batch_condition, poll};

async fn bed_with(name: &str, faults: Value) -> Bed {
    let bed = Bed::with(name, BedOptions { faults: Some(faults), ..BedOptions::default() }).await;
    bed.make_api_key().await;
    bed
}

/// One line of JSON Lines that asks for this.
fn asking(key: &str, prompt: &str) -> String {
    json!({"key": key, "request": {"contents": [{"parts": [{"text": prompt}]}]}}).to_string()
}

fn keys(lines: &str) -> Vec<String> {
    let key = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of results is JSON");
        line["key"].as_str().expect("a line of results has a key").to_owned()
    };
    lines.lines().map(key).collect()
}

async fn wait_calls(bed: &Bed, call: &str, at_least: usize) {
    let seen = poll(PATIENCE, async || {
        let calls = bed.ledger().await.calls(call);
        if calls >= at_least { Ok(()) } else { Err(calls) }
    });
    seen.await.unwrap_or_else(|calls| panic!("{call}: {calls} calls, not {at_least}\n{}", bed.log_tails()));
}

async fn counter(bed: &Bed, name: &str) -> u64 {
    let metrics = bed.metrics().await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("the metric is there");
    line.trim().parse().expect("a counter is a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_is_fetched_again_at_once() {
    // The first breaks off, the second looks whole and is not.
    let bed = bed_with(
        "cut",
        json!({"rules": [
            {"match": {"call": "files.download"}, "do": {"truncate_body_at": 100}, "times": 1},
            {"match": {"call": "files.download"}, "do": {"shorten_body_to": 100}, "times": 1},
        ]}),
    )
    .await;
    bed.make_webhook().await;
    bed.apply(&tickets("tickets", 3, "Auto")).await;
    let batch = bed.wait_complete("tickets").await;
    assert_eq!(batch.status.unwrap().progress.as_deref(), Some("3/3"));
    let ledger = bed.ledger().await;
    assert_eq!(ledger.calls("files.download"), 3, "two that failed, one that was whole");
    // One after recording, one for the event, one with each further try.
    assert!(ledger.calls("batches.get") <= 4, "{:?}", ledger.sequence());
    assert_eq!(counter(&bed, "gemini_operator_sweep_rescues_total").await, 0, "no sweep had to help");
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_line_is_missing_and_holds_nobody_up() {
    let bed = bed_with("missing", json!({})).await;
    let lines = [line("a"), asking("b", "[[emulate:missing]]"), line("c")].join("\n");
    let batch = |name: &str| {
        let mut batch = jsonl(name, &lines);
        batch["spec"]["successPolicy"] = json!({"maxFailedPercent": 50});
        batch.to_string()
    };
    let check = async |name: &str| {
        let status = bed.wait_complete(name).await.status.unwrap();
        assert_eq!(status.progress.as_deref(), Some("2/3"));
        assert_eq!(status.rows.unwrap().by_class["Missing"], 1);
        let results = bed.results(name).await;
        assert_eq!(
            (keys(&results.answers), keys(&results.errors)),
            (vec!["a".into(), "c".into()], vec!["b".into()])
        );
    };
    bed.apply(&batch("sized")).await;
    check("sized").await;
    assert_eq!(bed.ledger().await.calls("files.download"), 1, "its size says that it is whole");

    // Without a size, a short output is believed when it comes again and again.
    let plan = json!({"rules": [
        {"match": {"call": "files.get", "path_contains": "files/batch-"}, "do": {"status": 404}},
    ]});
    bed.emulator.set_faults(&plan).await;
    bed.apply(&batch("unsized")).await;
    check("unsized").await;
    assert_eq!(bed.ledger().await.calls("files.download"), 1 + 3);
    bed.assert_invariants().await;
}

/// The job's output as it is at Gemini.
async fn output(bed: &Bed, batch: &GeminiBatch) -> String {
    let job = batch.status.as_ref().unwrap().runs[0].remote_name.clone().unwrap();
    let file = job.replace("batches/", "files/batch-");
    let url = format!("{}/v1beta/{file}:download?alt=media", bed.emulator.url);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(&url).header("x-goog-api-key", &bed.options.api_key).send().await;
    let answer = answer.expect("the emulator answers").error_for_status().expect("the output is there");
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_delivered_when_the_input_changed_or_went() {
    // The job ends when the test moves the emulator's clock, and its output is in another order than its input.
    let options = BedOptions {
        job_time: "600s".into(),
        faults: Some(json!({"jobs": [{"do": {"shuffle": true}}]})),
        ..BedOptions::default()
    };
    let bed = Bed::with("drift", options).await;
    bed.make_api_key().await;
    let names = ["replaced", "deleted"];
    for name in names {
        let mut lines: Vec<String> = (0..12).map(|i| line(&format!("row-{i}"))).collect();
        lines.push(asking("bad", "[[emulate:blocked]]"));
        lines.push(asking("lost", "[[emulate:missing]]"));
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                         "data": {"requests.jsonl": lines.join("\n")}});
        bed.apply(&map.to_string()).await;
        let mut batch = jsonl(name, "");
        batch["spec"]["input"] = json!({"configMapRef": {"name": name}});
        batch["spec"]["successPolicy"] = json!({"maxFailedPercent": 50});
        bed.apply(&batch.to_string()).await;
        bed.wait_condition(name, "Submitted", "True", "Submitted").await;
    }
    let lines = [line("row-3"), line("new")].join("\n");
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "replaced"},
                       "data": {"requests.jsonl": lines}});
    bed.apply(&other.to_string()).await;
    bed.kubectl().run(&["delete", "configmap", "deleted"]).await.expect();
    bed.emulator.advance_clock(600).await;

    for name in names {
        let batch = bed.wait_complete(name).await;
        let condition = batch_condition(&batch, "InputReady").unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "InputDrift"), "{name}");
        let given = output(&bed, &batch).await;
        let status = batch.status.unwrap();
        let rows = status.rows.unwrap();
        assert_eq!((rows.total, rows.succeeded, rows.by_class["Missing"]), (14, 12, 1), "{name}");
        assert!(status.usage.unwrap().discarded_tokens > 0, "{name}: the blocked row was paid");

        let results = bed.results(name).await;
        let mut order = keys(&given);
        assert_ne!(order.first().map(String::as_str), Some("row-0"), "the emulator shuffled");
        order.retain(|key| key != "bad");
        assert_eq!(keys(&results.answers), order, "{name}: all answers, in the order of the output");
        let error: Value = serde_json::from_str(results.errors.trim()).unwrap();
        assert_eq!((&error["key"], &error["class"]), (&json!("bad"), &json!("Blocked")), "{name}");
        assert!(error.get("request").is_none(), "{name}: the request is not known any more");
        let manifest: Value = serde_json::from_str(&results.manifest).unwrap();
        assert_eq!((&manifest["order"], &manifest["inputDrift"]), (&json!("output"), &json!(true)));
        assert_eq!(manifest["rows"]["missingUnnamed"], 1);
    }
    bed.assert_invariants().await;
}

/// How long it takes until this call was made so often.
async fn time_of_calls(bed: &Bed, call: &str, calls: usize) -> Duration {
    wait_calls(bed, call, 1).await;
    let begin = Instant::now();
    wait_calls(bed, call, calls).await;
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_tried_again_slower_and_slower() {
    let refuse = |action: Value| json!({"rules": [{"match": {"call": "files.upload_start"}, "do": action}]});
    let bed = bed_with("refused-upload", refuse(json!({"status": 429, "retry_after": "3"}))).await;
    bed.apply(&tickets("limited", 3, "None")).await;
    let taken = time_of_calls(&bed, "files.upload_start", 3).await;
    // Twice three seconds, less what passed before the first was seen.
    assert!(
        taken >= Duration::from_secs(5),
        "three calls in {taken:?}, though Gemini asked for 3 s between them"
    );
    let said = bed.wait_condition("limited", "Reconciling", "True", "Retrying").await;
    let message = &batch_condition(&said, "Reconciling").unwrap().message;
    assert!(message.contains("Gemini"), "{message}");
    bed.emulator.set_faults(&json!({})).await;
    bed.wait_complete("limited").await;

    let before = bed.ledger().await.calls("files.upload_start");
    bed.emulator.set_faults(&refuse(json!({"status": 503}))).await;
    bed.apply(&tickets("failing", 3, "None")).await;
    wait_calls(&bed, "files.upload_start", before + 1).await;
    // 5 s / 60, doubling: the seventh comes 63 times the first pause after the first.
    let taken = time_of_calls(&bed, "files.upload_start", before + 7).await;
    assert!(taken >= Duration::from_secs(4), "seven calls in {taken:?}");
    bed.emulator.set_faults(&json!({})).await;
    bed.wait_complete("failing").await;
    assert_eq!(bed.ledger().await.rows_paid(), 6);
    bed.assert_invariants().await;
}

/// A batch whose job has ended, and whose results have no place.
async fn refused_by_the_sink(bed: &Bed, name: &str) {
    bed.apply(&tickets(name, 3, "None")).await;
    bed.wait_condition(name, "Submitted", "True", "Submitted").await;
    let map = format!("{name}-results");
    bed.kubectl().run(&["create", "configmap", &map, "--from-literal=a=b"]).await.expect();
    bed.emulator.advance_clock(600).await;
    bed.wait_condition(name, "ResultsDelivered", "False", "SinkForbidden").await;
    bed.wait_condition(name, "Stalled", "True", "SinkForbidden").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_wait_for_a_sink_that_is_not_ours() {
    let bed = Bed::with("sink", BedOptions { job_time: "600s".into(), ..BedOptions::default() }).await;
    bed.make_api_key().await;
    refused_by_the_sink(&bed, "freed").await;
    let downloads = bed.ledger().await.calls("files.download");
    let looks = bed.ledger().await.calls("batches.get");
    wait_calls(&bed, "batches.get", looks + 3).await;
    let batch = bed.batches().get("freed").await.unwrap();
    let stalled = batch_condition(&batch, "Stalled").unwrap();
    assert_eq!(
        (stalled.status.as_str(), stalled.reason.as_str()),
        ("True", "SinkForbidden"),
        "it stays said"
    );
    assert!(!batch.is_finished());
    let version = batch.metadata.resource_version.clone();
    wait_calls(&bed, "batches.get", looks + 4).await;
    let later = bed.batches().get("freed").await.unwrap();
    assert_eq!(later.metadata.resource_version, version, "the same again is not written again");
    bed.kubectl().run(&["delete", "configmap", "freed-results"]).await.expect();
    let done = bed.wait_complete("freed").await;
    assert_eq!(keys(&bed.results("freed").await.answers).len(), 3);
    assert_eq!(batch_condition(&done, "Stalled").unwrap().status, "False");
    assert!(downloads <= 2, "{downloads} downloads for a sink that takes nothing");

    refused_by_the_sink(&bed, "moved").await;
    let patch = r#"{"spec":{"output":{"sink":{"configMap":{"name":"elsewhere"}}}}}"#;
    bed.kubectl().run(&["patch", "gb", "moved", "--type=merge", "-p", patch]).await.expect();
    let done = bed.wait_complete("moved").await;
    let uri = done.status.unwrap().output.unwrap().results_uri;
    assert_eq!(uri, format!("configmap://{}/elsewhere/results.jsonl", bed.namespace));

    refused_by_the_sink(&bed, "removed").await;
    bed.kubectl().run(&["delete", "geminibatch", "removed", "--wait=false"]).await.expect();
    bed.wait_gone(bed.batches(), "removed").await;
    let seen = poll(PATIENCE, async || {
        let events = bed.events("removed").await;
        let told = |e: &&(String, String, String)| {
            e.1 == "UndeliveredResultsRemoved" && e.2.contains("files/batch-")
        };
        if events.iter().any(|e| told(&e)) { Ok(()) } else { Err(events) }
    });
    seen.await.expect("an Event tells of paid results that went with the batch");
    assert_eq!(bed.ledger().await.rows_paid(), 9);
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_too_large_for_the_sink_are_given_up_only_when_gemini_has_them_no_more() {
    let text = "x".repeat(950_000);
    let large = json!({"key": "ticket-1", "response": {
        "candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]}});
    let bed = bed_with(
        "too-large",
        json!({"rules": [
            {"match": {"call": "files.download"}, "do": {"body": format!("{large}\n")}},
            {"match": {"call": "files.get", "path_contains": "files/batch-"}, "do": {"status": 404}},
        ]}),
    )
    .await;
    bed.apply(&tickets("tickets", 1, "None")).await;
    let batch = bed.wait_condition("tickets", "Stalled", "True", "SinkUnavailable").await;
    assert!(!batch.is_finished());
    let message = &batch_condition(&batch, "ResultsDelivered").unwrap().message;
    assert!(message.contains("line 1 of results.jsonl") && message.contains("stay at Gemini"), "{message}");
    let tries = bed.ledger().await.calls("files.download");
    wait_calls(&bed, "files.download", tries + 2).await;
    assert!(
        !bed.batches().get("tickets").await.unwrap().is_finished(),
        "they are there, so nothing is given up"
    );
    let gone =
        json!({"rules": [{"match": {"call": ["files.download", "files.get"]}, "do": {"status": 404}}]});
    bed.emulator.set_faults(&gone).await;
    bed.wait_condition("tickets", "Failed", "True", "SinkFailed").await;
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_by_others_during_the_delivery_costs_no_second_fetch() {
    let bed = bed_with(
        "conflict",
        json!({"rules": [{"match": {"call": "files.download"}, "do": {"drip_bytes": 100, "drip_ms": 300}}]}),
    )
    .await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    wait_calls(&bed, "files.download", 1).await;
    bed.kubectl().run(&["label", "gb", "tickets", "touched=yes"]).await.expect();
    let batch = bed.wait_complete("tickets").await;
    assert_eq!(batch.metadata.labels.unwrap()["touched"], "yes");
    assert_eq!(bed.ledger().await.calls("files.download"), 1);
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_without_end_does_not_keep_an_object_from_going() {
    let bed = bed_with(
        "drip",
        json!({"rules": [
            {"match": {"call": "files.download"}, "do": {"drip_bytes": 1, "drip_ms": 5_000}},
        ]}),
    )
    .await;
    bed.apply(&tickets("downloading", 3, "None")).await;
    wait_calls(&bed, "files.download", 1).await;
    let delete = async |name: &str| {
        bed.kubectl().run(&["delete", "geminibatch", name, "--wait=false"]).await.expect();
        bed.wait_gone(bed.batches(), name).await;
        for collection in ["batches", "files"] {
            let left = bed.emulator.list(collection).await;
            assert!(left.is_empty(), "{collection} left after {name}: {left:?}");
        }
    };
    delete("downloading").await;

    let hang = json!({"rules": [{"match": {"call": "files.upload_chunk"}, "do": {"delay_ms": 600_000}}]});
    bed.emulator.set_faults(&hang).await;
    let before = bed.ledger().await.calls("files.upload_start");
    bed.apply(&tickets("uploading", 3, "None")).await;
    wait_calls(&bed, "files.upload_start", before + 1).await;
    delete("uploading").await;
    bed.assert_invariants().await;
}
