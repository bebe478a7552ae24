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
    let field = "spec.input.inline.jsonl";
    let cases = [
        ("row", format!("{two}{{not json\n"), "InvalidRow", vec![field, "row 3", "one line holds one"]),
        ("twice", format!("{two}{}\n", line("a")), "DuplicateKey", vec![field, "row 3", "\"a\"", "unique"]),
        ("empty", "\n".to_owned(), "InvalidRow", vec![field, "write at least one line"]),
    ];
    for (name, lines, reason, words) in cases {
        refused(&bed, name, jsonl(name, &lines), "InputReady", "False", reason, &words).await;
        refused(&bed, name, jsonl(name, &lines), "Failed", "True", "InvalidInput", &[]).await;
    }

    let mut missing = jsonl("no-map", &two);
    missing["spec"]["input"] = json!({"configMapRef": {"name": "nowhere"}});
    let words = ["spec.input.configMapRef.name", "nowhere", "create it"];
    refused(&bed, "no-map", missing, "InputReady", "False", "SourceNotFound", &words).await;

    let mut secretless = jsonl("no-secret", &two);
    secretless["spec"]["apiKeySecretRef"]["name"] = json!("nothing");
    let words = ["spec.apiKeySecretRef", "nothing", "kubectl create secret"];
    refused(&bed, "no-secret", secretless, "Admitted", "False", "CredentialsNotFound", &words).await;

    let mut model = jsonl("no-model", &two);
    model["spec"]["model"] = json!("gemini-0-none");
    let words = ["spec.model", "gemini-0-none", "create a new GeminiBatch"];
    refused(&bed, "no-model", model, "Failed", "True", "Rejected", &words).await;

    let large = json!({"key": "a", "request": {
        "contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 20_000_000}}});
    let large = jsonl("too-large", &large.to_string());
    refused(&bed, "too-large", large, "InputReady", "False", "TooLarge", &["maxOutputTokens"]).await;

    bed.kubectl().run(&["create", "configmap", "theirs-results", "--from-literal=a=b"]).await.expect();
    let theirs = jsonl("theirs", &two);
    let words = ["spec.output.sink.configMap.name", "theirs-results", "choose another name, delete it"];
    refused(&bed, "theirs", theirs, "ResultsDelivered", "False", "SinkForbidden", &words).await;

    let ledger = bed.ledger().await;
    assert_eq!(
        (ledger.calls("files.upload_start"), ledger.calls("batches.create")),
        (0, 0),
        "nothing was spent"
    );
}

/// A person does what the message says, and nothing else has to be touched.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_good_goes_on_by_itself() {
    let bed = Bed::new("made-good").await;
    bed.make_api_key().await;
    let kubectl = bed.kubectl();
    let mut from_map = jsonl("no-map", &line("a"));
    from_map["spec"]["input"] = json!({"configMapRef": {"name": "later"}});
    let mut secretless = jsonl("no-secret", &line("a"));
    secretless["spec"]["apiKeySecretRef"]["name"] = json!("later");
    kubectl.run(&["create", "configmap", "theirs-results", "--from-literal=a=b"]).await.expect();
    for (name, batch, type_, reason) in [
        ("no-map", from_map, "InputReady", "SourceNotFound"),
        ("no-secret", secretless, "Admitted", "CredentialsNotFound"),
        ("theirs", jsonl("theirs", &line("a")), "ResultsDelivered", "SinkForbidden"),
    ] {
        refused(&bed, name, batch, type_, "False", reason, &[]).await;
        let seen = bed.wait_condition(name, "Stalled", "True", reason).await;
        assert!(!seen.is_finished(), "{name} waits");
    }
    // Half of the way is not enough, and the message says what is missing now.
    kubectl.run(&["create", "configmap", "later", "--from-literal=other.jsonl=x"]).await.expect();
    let half = bed.wait_batch("no-map", "told of the key", |batch| {
        batch_condition(batch, "InputReady")
            .is_some_and(|c| c.message.contains("spec.input.configMapRef.key"))
    });
    assert!(batch_condition(&half.await, "InputReady").unwrap().message.contains("it has: other.jsonl"));
    assert_eq!(bed.ledger().await.calls("files.upload_start"), 0, "nothing is spent meanwhile");

    let patch = json!({"data": {"requests.jsonl": line("a")}}).to_string();
    kubectl.run(&["patch", "configmap", "later", "-p", &patch]).await.expect();
    bed.make_api_key_as("later", &bed.options.api_key).await;
    kubectl.run(&["delete", "configmap", "theirs-results"]).await.expect();
    for name in ["no-map", "no-secret", "theirs"] {
        let batch = bed.wait_complete(name).await;
        assert_eq!(batch_condition(&batch, "Stalled").unwrap().status, "False", "{name}");
    }
    assert_eq!(bed.ledger().await.calls("batches.create"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_waited_out() {
    let bed = Bed::new("wrong-key").await;
    bed.make_api_key_as("gemini", "AIza-not-the-key").await;
    bed.apply(&tickets("tickets", 2, "None")).await;
    let batch = bed.wait_condition("tickets", "Admitted", "False", "CredentialsInvalid").await;
    let message = &batch_condition(&batch, "Admitted").unwrap().message;
    assert!(message.contains("spec.apiKeySecretRef") && message.contains("Put a valid key"), "{message}");
    bed.make_api_key().await;
    bed.wait_complete("tickets").await;
    assert_eq!(bed.ledger().await.calls("batches.create"), 1);
}
