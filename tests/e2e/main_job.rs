//! The main job: `kubectl apply`, one paid job, one signed event, results in the cluster.

use serde_json::{Value, json};

use crate::objects::tickets;
use crate::support::Bed;

/// What the emulator answers to the rendered request of this prompt.
pub fn answer(prompt: &str) -> Value {
    let request = json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]});
    let mut answer = gemini_emulator::rows::answer(&request);
    // Which model answers is not a property of the request.
    answer["modelVersion"] = json!("gemini-3.5-flash");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_rows_end_to_end() {
    let bed = Bed::new("main-job").await;
    bed.make_api_key().await;
    bed.make_webhook().await;
    bed.apply(&tickets("tickets", 500, "Auto")).await;
    let batch = bed.wait_complete("tickets").await;

    let status = batch.status.unwrap();
    assert_eq!(status.progress.as_deref(), Some("500/500"));
    let results = bed.results("tickets").await;
    let lines: Vec<Value> = results.answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 500);
    let (mut total, mut output) = (0, 0);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["key"], format!("ticket-{}", i + 1), "results are in the order of the input");
        assert_eq!(line["response"], answer(&format!("Summarize ticket #{}", i + 1)), "row {}", i + 1);
        total += line["response"]["usageMetadata"]["totalTokenCount"].as_i64().unwrap();
        output += line["response"]["usageMetadata"]["candidatesTokenCount"].as_i64().unwrap();
    }
    let usage = status.usage.unwrap();
    assert_eq!((usage.total_tokens, usage.output_tokens), (total, output));

    let ledger = bed.ledger().await;
    assert_eq!(ledger.calls("batches.create"), 1);
    assert_eq!(ledger.rows_paid(), 500);
    assert!(ledger.calls("batches.get") <= 2, "at most two GETs in all: {:?}", ledger.sequence());
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completes_by_the_sweep_alone() {
    let bed = Bed::new("sweep").await;
    bed.make_api_key().await;
    bed.apply(&tickets("tickets", 3, "None")).await;
    bed.wait_complete("tickets").await;
    let ledger = bed.ledger().await;
    assert_eq!(ledger.calls("batches.create"), 1);
    assert_eq!(ledger.deliveries("batch.succeeded").len(), 0);
    bed.assert_invariants().await;
}
