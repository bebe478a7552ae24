//! Every rule of a GeminiBatch: a good object passes, a bad one is refused with words that help.

use serde_json::{Value, json};

use super::Applicant;

fn requests(requests: Value) -> Value {
    let mut change = json!({"spec": {"input": {"inline": {}}}});
    change["spec"]["input"]["inline"]["requests"] = requests;
    change
}

fn spec(spec: Value) -> Value {
    Value::Object([("spec".to_owned(), spec)].into_iter().collect())
}

#[tokio::test]
async fn defaults_are_filled_in() {
    let object = Applicant::batch().await.accepts("the good batch", json!({})).await;
    assert_eq!(
        object["spec"],
        json!({
            "apiKeySecretRef": {"name": "gemini", "key": "apiKey"},
            "model": "gemini-3.5-flash",
            "operation": "GenerateContent",
            "input": {"inline": {"requests": [{"key": "a", "prompt": "Hello"}]}},
            "successPolicy": {"maxFailedPercent": 5},
            "suspend": false,
            "cancelled": false,
            "webhook": {"mode": "Auto"},
            "output": {"sink": {}},
            "deletionPolicy": "Delete",
            "deletionTimeout": "20m",
        })
    );
    let from_config_map = json!({"spec": {"input": {"inline": null, "configMapRef": {"name": "rows"}}}});
    let object = Applicant::batch().await.accepts("a ConfigMap", from_config_map).await;
    assert_eq!(object["spec"]["input"], json!({"configMapRef": {"name": "rows", "key": "requests.jsonl"}}));
}

#[tokio::test]
async fn good_objects_are_accepted() {
    let batch = Applicant::batch().await;
    let long = |n: usize| "x".repeat(n);
    let many: Vec<Value> = (0..500).map(|i| json!({"key": format!("{i}"), "prompt": "p"})).collect();
    let full = json!([{
        "key": long(256), "prompt": long(32_768), "system": long(32_768),
        "generationConfig": {"temperature": 0.25, "stopSequences": ["a"], "responseSchema": {"type": "OBJECT"}},
    }]);
    for (what, change) in [
        ("a name of 63 characters", json!({"metadata": {"name": long(63)}})),
        ("models/ prefix", spec(json!({"model": "models/gemini-3.5-flash"}))),
        ("tunedModels/ prefix", spec(json!({"model": "tunedModels/my-tuned.model_1"}))),
        ("500 requests", requests(json!(many))),
        ("a request with everything at its limit", requests(full)),
        ("JSON Lines", json!({"spec": {"input": {"inline": {"requests": null, "jsonl": "{}"}}}})),
        ("256 KiB of JSON Lines", json!({"spec": {"input": {"inline": {"requests": null, "jsonl": long(262_144)}}}})),
        ("no failed row allowed", spec(json!({"successPolicy": {"maxFailedPercent": 0}}))),
        ("all rows may fail", spec(json!({"successPolicy": {"maxFailedPercent": 100}}))),
        ("suspended", spec(json!({"suspend": true}))),
        ("cancelled from the start", spec(json!({"cancelled": true}))),
        ("webhook Static by name", spec(json!({"webhook": {"mode": "Static", "name": "main"}}))),
        ("webhook None", spec(json!({"webhook": {"mode": "None"}}))),
        ("a named sink", spec(json!({"output": {"sink": {"configMap": {"name": "my-results.v1"}}}}))),
        ("deletionPolicy Cancel", spec(json!({"deletionPolicy": "Cancel", "deletionTimeout": "1h30m"}))),
        ("deletionPolicy Orphan", spec(json!({"deletionPolicy": "Orphan", "deletionTimeout": "90s"}))),
        ("another key of the Secret", spec(json!({"apiKeySecretRef": {"name": "s", "key": "GEMINI_API_KEY"}}))),
    ] {
        batch.accepts(what, change).await;
    }
}

#[tokio::test]
async fn bad_identity_and_model_are_refused() {
    let long = |n: usize| "x".repeat(n);
    Applicant::batch()
        .await
        .refuses(vec![
            ("a name of 64 characters", json!({"metadata": {"name": long(64)}}), "?"),
            ("no model", spec(json!({"model": null})), "?"),
            ("a model with a space", spec(json!({"model": "gemini 3.5"})), "?"),
            ("a model in capitals", spec(json!({"model": "Gemini-3.5-Flash"})), "?"),
            ("a model under another prefix", spec(json!({"model": "publishers/google/models/x"})), "?"),
            ("a model of 141 characters", spec(json!({"model": format!("models/{}", long(134))})), "?"),
            ("an operation that is not there yet", spec(json!({"operation": "EmbedContent"})), "?"),
            ("no Secret", spec(json!({"apiKeySecretRef": null})), "?"),
            ("a Secret without a name", spec(json!({"apiKeySecretRef": {"name": ""}})), "?"),
            ("a Secret without a key", spec(json!({"apiKeySecretRef": {"name": "a", "key": ""}})), "?"),
        ])
        .await;
}

#[tokio::test]
async fn bad_input_is_refused() {
    let long = |n: usize| "x".repeat(n);
    let many: Vec<Value> = (0..501).map(|i| json!({"key": format!("{i}"), "prompt": "p"})).collect();
    let input = |input: Value| json!({"spec": {"input": input}});
    Applicant::batch()
        .await
        .refuses(vec![
            ("no input", spec(json!({"input": null})), "?"),
            ("no source", input(json!({"inline": null})), "?"),
            ("two sources", input(json!({"configMapRef": {"name": "rows"}})), "?"),
            ("an empty inline", input(json!({"inline": {"requests": null, "x": null}})), "?"),
            ("requests and JSON Lines", input(json!({"inline": {"jsonl": "{}"}})), "?"),
            ("no requests", requests(json!([])), "?"),
            ("501 requests", requests(json!(many)), "?"),
            ("a key twice", requests(json!([{"key": "a", "prompt": "1"}, {"key": "a", "prompt": "2"}])), "?"),
            ("a request without a key", requests(json!([{"prompt": "1"}])), "?"),
            ("an empty key", requests(json!([{"key": "", "prompt": "1"}])), "?"),
            ("a key of 257 characters", requests(json!([{"key": long(257), "prompt": "1"}])), "?"),
            ("a request without a prompt", requests(json!([{"key": "a"}])), "?"),
            ("an empty prompt", requests(json!([{"key": "a", "prompt": ""}])), "?"),
            ("a prompt over 32 KiB", requests(json!([{"key": "a", "prompt": long(32_769)}])), "?"),
            ("an empty system instruction", requests(json!([{"key": "a", "prompt": "1", "system": ""}])), "?"),
            ("a generationConfig that is text", requests(json!([{"key": "a", "prompt": "1", "generationConfig": "hot"}])), "?"),
            ("empty JSON Lines", input(json!({"inline": {"requests": null, "jsonl": ""}})), "?"),
            ("JSON Lines over 256 KiB", input(json!({"inline": {"requests": null, "jsonl": long(262_145)}})), "?"),
            ("a ConfigMap without a name", input(json!({"inline": null, "configMapRef": {"name": ""}})), "?"),
            ("a ConfigMap without a key", input(json!({"inline": null, "configMapRef": {"name": "a", "key": ""}})), "?"),
        ])
        .await;
}

#[tokio::test]
async fn bad_policies_are_refused() {
    Applicant::batch()
        .await
        .refuses(vec![
            ("a negative share", spec(json!({"successPolicy": {"maxFailedPercent": -1}})), "?"),
            ("more than all", spec(json!({"successPolicy": {"maxFailedPercent": 101}})), "?"),
            ("a fraction", spec(json!({"successPolicy": {"maxFailedPercent": 2.5}})), "?"),
            ("a webhook mode that is not there yet", spec(json!({"webhook": {"mode": "Dynamic"}})), "?"),
            ("a webhook with an empty name", spec(json!({"webhook": {"name": ""}})), "?"),
            ("a webhook's name without a use", spec(json!({"webhook": {"mode": "None", "name": "main"}})), "?"),
            ("a sink with an empty name", spec(json!({"output": {"sink": {"configMap": {"name": ""}}}})), "?"),
            ("a sink in capitals", spec(json!({"output": {"sink": {"configMap": {"name": "Results"}}}})), "?"),
            ("a sink that is too long", spec(json!({"output": {"sink": {"configMap": {"name": "r".repeat(251)}}}})), "?"),
            ("another deletion policy", spec(json!({"deletionPolicy": "Retain"})), "?"),
            ("a time-out without a unit", spec(json!({"deletionTimeout": "20"})), "?"),
            ("a time-out in days", spec(json!({"deletionTimeout": "1d"})), "?"),
            ("suspend as text", spec(json!({"suspend": "yes"})), "?"),
        ])
        .await;
}

#[tokio::test]
async fn unknown_fields_are_refused() {
    Applicant::batch()
        .await
        .refuses(vec![
            ("in spec", spec(json!({"modle": "x"})), "?"),
            ("of a later release", spec(json!({"priority": 3})), "?"),
            ("in a request", requests(json!([{"key": "a", "prompt": "1", "temperature": 1}])), "?"),
            ("in the sink", spec(json!({"output": {"sink": {"objectStore": {"url": "s3://b"}}}})), "?"),
        ])
        .await;
}
