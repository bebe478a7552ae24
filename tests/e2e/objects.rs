//! Objects that several tests apply.

use serde_json::{Value, json};

/// Whether the load is to be of full size: `make load`.
pub fn is_large() -> bool {
    std::env::var_os("LOAD").is_some_and(|size| size == "full")
}

/// The tutorial's job: `rows` tickets to summarise.
pub fn tickets(name: &str, rows: usize, webhook: &str) -> String {
    let requests: Vec<Value> = (1..=rows)
        .map(|i| json!({"key": format!("ticket-{i}"), "prompt": format!("Summarize ticket #{i}")}))
        .collect();
    json!({
        "apiVersion": "gemini-operator.io/v1alpha1",
        "kind": "GeminiBatch",
        "metadata": {"name": name},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"},
            "model": "gemini-3.5-flash",
            "input": {"inline": {"requests": requests}},
            "webhook": {"mode": webhook},
        },
    })
    .to_string()
}

/// A batch with these requests as JSON Lines.
pub fn jsonl(name: &str, lines: &str) -> Value {
    json!({
        "apiVersion": "gemini-operator.io/v1alpha1",
        "kind": "GeminiBatch",
        "metadata": {"name": name},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"},
            "model": "gemini-3.5-flash",
            "input": {"inline": {"jsonl": lines}},
            "webhook": {"mode": "None"},
        },
    })
}

/// One valid line of JSON Lines.
pub fn line(key: &str) -> String {
    json!({"key": key, "request": {"contents": [{"parts": [{"text": "hello"}]}]}}).to_string()
}
