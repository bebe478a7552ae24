//! Bad input: a condition that names the field and the way out, and nothing spent.

use serde_json::{Value, json};

use crate::objects::{jsonl, line, tickets};
use crate::support::{Bed, batch_condition};

/// Applies, waits for the condition, looks at its message; nothing was uploaded, nothing submitted.
async fn refused(
    bed: &Bed,
    name: &str,
    batch: Value,
    type_: &str,
    status: &str,
    reason: &str,
    words: &[&str],
) {
    bed.apply(&batch.to_string()).await;
    let seen = bed.wait_condition(name, type_, status, reason).await;
    let message = &batch_condition(&seen, type_).unwrap().message;
    for word in words {
        assert!(message.contains(word), "{name}: {message:?} does not say {word:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn is_explained_and_costs_nothing() {
    let bed = Bed::new("bad-input").await;
    bed.make_api_key().await;
    let two = format!("{}\n{}\n", line("a"), line("b"));
    let cases = [
        ("row", format!("{two}{{not json\n"), "InvalidRow", vec!["spec.input.inline.jsonl", "row 3"]),
        ("twice", format!("{two}{}\n", line("a")), "DuplicateKey", vec!["spec.input.inline.jsonl", "\"a\""]),
        ("empty", "\n".to_owned(), "InvalidRow", vec!["spec.input"]),
    ];
    for (name, lines, reason, words) in cases {
        refused(&bed, name, jsonl(name, &lines), "InputReady", "False", reason, &words).await;
        refused(&bed, name, jsonl(name, &lines), "Failed", "True", "InvalidInput", &[]).await;
    }

    let mut missing = jsonl("no-map", &two);
    missing["spec"]["input"] = json!({"configMapRef": {"name": "nowhere"}});
    let words = ["spec.input.configMapRef", "nowhere"];
    refused(&bed, "no-map", missing, "InputReady", "False", "SourceNotFound", &words).await;

    let mut secretless = jsonl("no-secret", &two);
    secretless["spec"]["apiKeySecretRef"]["name"] = json!("nothing");
    let words = ["spec.apiKeySecretRef", "nothing", "kubectl create secret"];
    refused(&bed, "no-secret", secretless, "Admitted", "False", "CredentialsNotFound", &words).await;

    let mut model = jsonl("no-model", &two);
    model["spec"]["model"] = json!("gemini-0-none");
    refused(&bed, "no-model", model, "Failed", "True", "Rejected", &["spec.model", "gemini-0-none"]).await;

    let large = json!({"key": "a", "request": {
        "contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 20_000_000}}});
    let large = jsonl("too-large", &large.to_string());
    refused(&bed, "too-large", large, "InputReady", "False", "TooLarge", &["maxOutputTokens"]).await;

    bed.kubectl().run(&["create", "configmap", "theirs-results", "--from-literal=a=b"]).await.expect();
    let theirs = jsonl("theirs", &two);
    refused(&bed, "theirs", theirs, "ResultsDelivered", "False", "SinkForbidden", &["theirs-results"]).await;

    let ledger = bed.ledger().await;
    assert_eq!(
        (ledger.calls("files.upload_start"), ledger.calls("batches.create")),
        (0, 0),
        "nothing was spent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_waited_out() {
    let bed = Bed::new("wrong-key").await;
    bed.make_api_key_as("gemini", "AIza-not-the-key").await;
    bed.apply(&tickets("tickets", 2, "None")).await;
    let batch = bed.wait_condition("tickets", "Admitted", "False", "CredentialsInvalid").await;
    let message = &batch_condition(&batch, "Admitted").unwrap().message;
    assert!(message.contains("spec.apiKeySecretRef"), "{message}");
    bed.make_api_key().await;
    bed.wait_complete("tickets").await;
    assert_eq!(bed.ledger().await.calls("batches.create"), 1);
}
