//! Rows that do not come back as they should: classed, counted, written out to be submitted again.

use std::collections::BTreeMap;
use std::fmt::Write;

use gemini_operator::api::GeminiBatch;
use serde_json::{Value, json};

use crate::objects::{jsonl, line};
use crate::support::{Bed, BedOptions, batch_condition};

fn rows(prefix: &str, count: usize) -> String {
    (1..=count).fold(String::new(), |mut all, i| {
        let _ = writeln!(all, "{}", line(&format!("{prefix}-{i}")));
        all
    })
}

fn by_class(batch: &GeminiBatch) -> BTreeMap<&str, i64> {
    let rows = batch.status.as_ref().and_then(|s| s.rows.as_ref()).expect("rows are counted");
    rows.by_class.iter().map(|(class, count)| (class.as_str(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_class_is_counted_and_failed_rows_can_be_submitted_again() {
    let fault = |row: usize, outcome: Value| json!({"match": {"key": format!("r-{row}")}, "do": outcome});
    let faults = json!({"rows": [
        fault(1, json!({"fail": 13})),
        fault(2, json!({"fail_with": {"code": 3, "message": "no such tool"}})),
        fault(3, json!("blocked")),
        fault(4, json!({"finish": "RECITATION"})),
        fault(5, json!("truncated")),
        fault(6, json!("empty")),
        fault(7, json!("missing")),
        fault(8, json!("badjson")),
        fault(9, json!("duplicate")),
    ]});
    let bed = Bed::with("outcomes", BedOptions { faults: Some(faults), ..BedOptions::default() }).await;
    bed.make_api_key().await;
    bed.apply(&jsonl("first", &rows("r", 12)).to_string()).await;
    let batch = bed.wait_condition("first", "Failed", "True", "TooManyFailedRows").await;
    let message = &batch_condition(&batch, "Failed").unwrap().message;
    assert!(
        message.contains("8 of 12") && message.contains("spec.successPolicy.maxFailedPercent"),
        "{message}"
    );
    // The same line twice is one answer.
    let expected = [
        ("BadJSON", 1),
        ("Blocked", 2),
        ("Empty", 1),
        ("Invalid", 1),
        ("Missing", 1),
        ("OK", 4),
        ("Transient", 1),
        ("Truncated", 1),
    ];
    assert_eq!(by_class(&batch), expected.into());
    assert_eq!(batch_condition(&batch, "ResultsDelivered").unwrap().reason, "Delivered");

    let results = bed.results("first").await;
    let keys = |lines: &str| -> Vec<String> {
        lines
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap()["key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(keys(&results.answers), ["r-9", "r-10", "r-11", "r-12"]);
    let failed: Vec<String> = (1..=8).map(|i| format!("r-{i}")).collect();
    assert_eq!(keys(&results.errors), failed);
    let manifest: Value = serde_json::from_str(&results.manifest).unwrap();
    assert_eq!(manifest["providerOutput"]["duplicateLines"], 1);
    let errors = &batch.status.as_ref().unwrap().errors;
    assert!(errors.iter().any(|e| e.class == "Invalid" && e.message == "no such tool"), "{errors:?}");
    assert!(
        batch.status.as_ref().unwrap().usage.as_ref().unwrap().discarded_tokens > 0,
        "answers were paid in vain"
    );

    // errors.jsonl, as it is, is the next batch's input.
    bed.emulator.set_faults(&json!({})).await;
    bed.apply(&jsonl("second", &results.errors).to_string()).await;
    let again = bed.wait_complete("second").await;
    assert_eq!(by_class(&again), [("OK", 8)].into());
    assert_eq!(keys(&bed.results("second").await.answers), failed);
    assert_eq!(bed.ledger().await.calls("batches.create"), 2);
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_percent_may_fail_and_no_more() {
    let faults =
        json!({"rows": [{"match": {"key": ["most-20", "few-19", "few-20", "all-1"]}, "do": {"fail": 14}}]});
    let bed = Bed::with("policy", BedOptions { faults: Some(faults), ..BedOptions::default() }).await;
    bed.make_api_key().await;
    let mut strict = jsonl("all", &rows("all", 20));
    strict["spec"]["successPolicy"] = json!({"maxFailedPercent": 0});
    let batches = [jsonl("most", &rows("most", 20)), jsonl("few", &rows("few", 20)), strict];
    bed.apply(&json!({"apiVersion": "v1", "kind": "List", "items": batches}).to_string()).await;

    let batch = bed.wait_condition("most", "Complete", "True", "PartiallySucceeded").await;
    assert_eq!(format!("{:?}", batch.status.as_ref().unwrap().phase), "Some(PartiallySucceeded)");
    assert_eq!(by_class(&batch), [("OK", 19), ("Transient", 1)].into());
    let batch = bed.wait_condition("few", "Failed", "True", "TooManyFailedRows").await;
    assert_eq!(by_class(&batch), [("OK", 18), ("Transient", 2)].into());
    bed.wait_condition("all", "Failed", "True", "TooManyFailedRows").await;
    bed.assert_invariants().await;
}

/// A job that ends badly: its words reach the user, and nothing is submitted again.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_or_expires_says_so() {
    let faults = json!({"jobs": [
        {"match": {"model": "gemini-2.5-pro"}, "do": {"state": "FAILED", "error": {"code": 8, "message": "out of chips"}}},
        {"match": {"model": "gemini-2.5-flash"}, "do": {"state": "EXPIRED"}},
        {"match": {"model": "gemini-3.5-pro"}, "do": {"lose_result": true}},
    ]});
    let bed = Bed::with("job-ends", BedOptions { faults: Some(faults), ..BedOptions::default() }).await;
    bed.make_api_key().await;
    let of_model = |name: &str, model: &str| {
        let mut batch = jsonl(name, &rows("r", 2));
        batch["spec"]["model"] = json!(model);
        batch
    };
    let batches = [
        of_model("failed", "gemini-2.5-pro"),
        of_model("expired", "gemini-2.5-flash"),
        of_model("lost", "gemini-3.5-pro"),
    ];
    bed.apply(&json!({"apiVersion": "v1", "kind": "List", "items": batches}).to_string()).await;
    for (name, reason, words) in [
        ("failed", "RemoteFailed", "out of chips"),
        ("expired", "Expired", "in time"),
        ("lost", "ResultsExpired", "nothing was submitted again"),
    ] {
        let batch = bed.wait_condition(name, "Failed", "True", reason).await;
        let message = &batch_condition(&batch, "Failed").unwrap().message;
        assert!(message.contains(words), "{name}: {message}");
    }
    assert_eq!(bed.ledger().await.calls("batches.create"), 3);
    bed.assert_invariants().await;
}
