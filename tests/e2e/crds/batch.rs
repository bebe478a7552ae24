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
            "ambiguity": "ResubmitAfterProof",
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
        (
            "256 KiB of JSON Lines",
            json!({"spec": {"input": {"inline": {"requests": null, "jsonl": long(262_144)}}}}),
        ),
        ("no failed row allowed", spec(json!({"successPolicy": {"maxFailedPercent": 0}}))),
        ("all rows may fail", spec(json!({"successPolicy": {"maxFailedPercent": 100}}))),
        ("suspended", spec(json!({"suspend": true}))),
        ("cancelled from the start", spec(json!({"cancelled": true}))),
        ("webhook Static by name", spec(json!({"webhook": {"mode": "Static", "name": "main"}}))),
        ("webhook None", spec(json!({"webhook": {"mode": "None"}}))),
        ("a named sink", spec(json!({"output": {"sink": {"configMap": {"name": "my-results.v1"}}}}))),
        ("deletionPolicy Cancel", spec(json!({"deletionPolicy": "Cancel", "deletionTimeout": "1h30m"}))),
        ("deletionPolicy Orphan", spec(json!({"deletionPolicy": "Orphan", "deletionTimeout": "90s"}))),
        (
            "another key of the Secret",
            spec(json!({"apiKeySecretRef": {"name": "s", "key": "GEMINI_API_KEY"}})),
        ),
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
            (
                "a name of 64 characters",
                json!({"metadata": {"name": long(64)}}),
                "<nil>: Invalid value: metadata.name must have at most 63 characters",
            ),
            ("no model", spec(json!({"model": null})), "spec.model: Required value"),
            (
                "a model with a space",
                spec(json!({"model": "gemini 3.5"})),
                "spec.model: Invalid value: \"gemini 3.5\": spec.model must be the name of a \
                 model, such as gemini-3.5-flash or tunedModels/my-model",
            ),
            (
                "a model in capitals",
                spec(json!({"model": "Gemini-3.5-Flash"})),
                "spec.model: Invalid value: \"Gemini-3.5-Flash\": spec.model must be the name of \
                 a model, such as gemini-3.5-flash or tunedModels/my-model",
            ),
            (
                "a model under another prefix",
                spec(json!({"model": "publishers/google/models/x"})),
                "spec.model: Invalid value: \"publishers/google/models/x\": spec.model must be \
                 the name of a model, such as gemini-3.5-flash or tunedModels/my-model",
            ),
            (
                "a model of 141 characters",
                spec(json!({"model": format!("models/{}", long(134))})),
                "spec.model: Too long: may not be more than 140 bytes",
            ),
            (
                "an operation that is not there yet",
                spec(json!({"operation": "EmbedContent"})),
                "spec.operation: Unsupported value: \"EmbedContent\": supported values: \
                 \"GenerateContent\"",
            ),
            ("no Secret", spec(json!({"apiKeySecretRef": null})), "spec.apiKeySecretRef: Required value"),
            (
                "a Secret without a name",
                spec(json!({"apiKeySecretRef": {"name": ""}})),
                "spec.apiKeySecretRef.name: Invalid value: \"\": spec.apiKeySecretRef.name in \
                 body should be at least 1 chars long",
            ),
            (
                "a Secret without a key",
                spec(json!({"apiKeySecretRef": {"name": "a", "key": ""}})),
                "spec.apiKeySecretRef.key: Invalid value: \"\": spec.apiKeySecretRef.key in body \
                 should be at least 1 chars long",
            ),
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
            ("no input", spec(json!({"input": null})), "spec.input: Required value"),
            (
                "no source",
                input(json!({"inline": null})),
                "spec.input: Invalid value: spec.input needs exactly one of: inline, configMapRef",
            ),
            (
                "two sources",
                input(json!({"configMapRef": {"name": "rows"}})),
                "spec.input: Invalid value: spec.input needs exactly one of: inline, configMapRef",
            ),
            (
                "an empty inline",
                input(json!({"inline": {"requests": null, "x": null}})),
                "spec.input.inline: Invalid value: spec.input.inline needs exactly one of: \
                 requests, jsonl",
            ),
            (
                "requests and JSON Lines",
                input(json!({"inline": {"jsonl": "{}"}})),
                "spec.input.inline: Invalid value: spec.input.inline needs exactly one of: \
                 requests, jsonl",
            ),
            (
                "no requests",
                requests(json!([])),
                "spec.input.inline.requests: Invalid value: 0: spec.input.inline.requests in \
                 body should have at least 1 items",
            ),
            (
                "501 requests",
                requests(json!(many)),
                "spec.input.inline.requests: Too many: 501: must have at most 500 items",
            ),
            (
                "a key twice",
                requests(json!([{"key": "a", "prompt": "1"}, {"key": "a", "prompt": "2"}])),
                "spec.input.inline.requests[1]: Duplicate value: {\"key\":\"a\"}",
            ),
            (
                "a request without a key",
                requests(json!([{"prompt": "1"}])),
                "spec.input.inline.requests[0].key: Required value",
            ),
            (
                "an empty key",
                requests(json!([{"key": "", "prompt": "1"}])),
                "spec.input.inline.requests[0].key: Invalid value: \"\": \
                 spec.input.inline.requests[0].key in body should be at least 1 chars long",
            ),
            (
                "a key of 257 characters",
                requests(json!([{"key": long(257), "prompt": "1"}])),
                "spec.input.inline.requests[0].key: Too long: may not be more than 256 bytes",
            ),
            (
                "a request without a prompt",
                requests(json!([{"key": "a"}])),
                "spec.input.inline.requests[0].prompt: Required value",
            ),
            (
                "an empty prompt",
                requests(json!([{"key": "a", "prompt": ""}])),
                "spec.input.inline.requests[0].prompt: Invalid value: \"\": \
                 spec.input.inline.requests[0].prompt in body should be at least 1 chars long",
            ),
            (
                "a prompt over 32 KiB",
                requests(json!([{"key": "a", "prompt": long(32_769)}])),
                "spec.input.inline.requests[0].prompt: Too long: may not be more than 32768 bytes",
            ),
            (
                "an empty system instruction",
                requests(json!([{"key": "a", "prompt": "1", "system": ""}])),
                "spec.input.inline.requests[0].system: Invalid value: \"\": \
                 spec.input.inline.requests[0].system in body should be at least 1 chars long",
            ),
            (
                "a generationConfig that is text",
                requests(json!([{"key": "a", "prompt": "1", "generationConfig": "hot"}])),
                "spec.input.inline.requests[0].generationConfig: Invalid value: \"string\": \
                 spec.input.inline.requests[0].generationConfig in body must be of type object: \
                 \"string\"",
            ),
            (
                "empty JSON Lines",
                input(json!({"inline": {"requests": null, "jsonl": ""}})),
                "spec.input.inline.jsonl: Invalid value: \"\": spec.input.inline.jsonl in body \
                 should be at least 1 chars long",
            ),
            (
                "JSON Lines over 256 KiB",
                input(json!({"inline": {"requests": null, "jsonl": long(262_145)}})),
                "spec.input.inline.jsonl: Too long: may not be more than 262144 bytes",
            ),
            (
                "a ConfigMap without a name",
                input(json!({"inline": null, "configMapRef": {"name": ""}})),
                "spec.input.configMapRef.name: Invalid value: \"\": spec.input.configMapRef.name \
                 in body should be at least 1 chars long",
            ),
            (
                "a ConfigMap without a key",
                input(json!({"inline": null, "configMapRef": {"name": "a", "key": ""}})),
                "spec.input.configMapRef.key: Invalid value: \"\": spec.input.configMapRef.key \
                 in body should be at least 1 chars long",
            ),
        ])
        .await;
}

#[tokio::test]
async fn bad_policies_are_refused() {
    Applicant::batch()
        .await
        .refuses(vec![
            (
                "a negative share",
                spec(json!({"successPolicy": {"maxFailedPercent": -1}})),
                "spec.successPolicy.maxFailedPercent: Invalid value: -1: \
                 spec.successPolicy.maxFailedPercent in body should be greater than or equal to 0",
            ),
            (
                "more than all",
                spec(json!({"successPolicy": {"maxFailedPercent": 101}})),
                "spec.successPolicy.maxFailedPercent: Invalid value: 101: \
                 spec.successPolicy.maxFailedPercent in body should be less than or equal to 100",
            ),
            (
                "a fraction",
                spec(json!({"successPolicy": {"maxFailedPercent": 2.5}})),
                "spec.successPolicy.maxFailedPercent: Invalid value: \"float64\": \
                 spec.successPolicy.maxFailedPercent in body must be of type int32: \"float64\", \
                 <nil>: Invalid value: \"\": Checked value must be of type integer with format \
                 int32 in spec.successPolicy.maxFailedPercent",
            ),
            (
                "another webhook mode",
                spec(json!({"webhook": {"mode": "Manual"}})),
                "spec.webhook.mode: Unsupported value: \"Manual\": supported values: \"Auto\", \
                 \"Static\", \"Dynamic\", \"None\"",
            ),
            (
                "a webhook with an empty name",
                spec(json!({"webhook": {"name": ""}})),
                "spec.webhook.name: Invalid value: \"\": spec.webhook.name in body should be at \
                 least 1 chars long",
            ),
            (
                "a webhook's name without a use",
                spec(json!({"webhook": {"mode": "None", "name": "main"}})),
                "spec.webhook: Invalid value: spec.webhook.name has no use with mode None; leave \
                 one of them out",
            ),
            (
                "a sink with an empty name",
                spec(json!({"output": {"sink": {"configMap": {"name": ""}}}})),
                "spec.output.sink.configMap.name: Invalid value: \"\": a ConfigMap's name has \
                 lower-case letters, digits, '-' and '.', a letter or digit at both ends",
            ),
            (
                "a sink in capitals",
                spec(json!({"output": {"sink": {"configMap": {"name": "Results"}}}})),
                "spec.output.sink.configMap.name: Invalid value: \"Results\": a ConfigMap's name \
                 has lower-case letters, digits, '-' and '.', a letter or digit at both ends",
            ),
            (
                "a sink that is too long",
                spec(json!({"output": {"sink": {"configMap": {"name": "r".repeat(251)}}}})),
                "spec.output.sink.configMap.name: Too long: may not be more than 250 bytes",
            ),
            (
                "another deletion policy",
                spec(json!({"deletionPolicy": "Retain"})),
                "spec.deletionPolicy: Unsupported value: \"Retain\": supported values: \
                 \"Delete\", \"Cancel\", \"Orphan\"",
            ),
            (
                "a time-out without a unit",
                spec(json!({"deletionTimeout": "20"})),
                "spec.deletionTimeout: Invalid value: \"20\": must be a duration in hours, \
                 minutes and seconds, such as 20m or 1h30m",
            ),
            (
                "a time-out in days",
                spec(json!({"deletionTimeout": "1d"})),
                "spec.deletionTimeout: Invalid value: \"1d\": must be a duration in hours, \
                 minutes and seconds, such as 20m or 1h30m",
            ),
            (
                "suspend as text",
                spec(json!({"suspend": "yes"})),
                "spec.suspend: Invalid value: \"string\": spec.suspend in body must be of type \
                 boolean: \"string\"",
            ),
        ])
        .await;
}

#[tokio::test]
async fn unknown_fields_are_refused() {
    Applicant::batch()
        .await
        .refuses(vec![
            ("in spec", spec(json!({"modle": "x"})), "unknown field \"spec.modle\""),
            ("of a later release", spec(json!({"priority": 3})), "unknown field \"spec.priority\""),
            (
                "in a request",
                requests(json!([{"key": "a", "prompt": "1", "temperature": 1}])),
                "unknown field \"spec.input.inline.requests[0].temperature\"",
            ),
            (
                "in the sink",
                spec(json!({"output": {"sink": {"objectStore": {"url": "s3://b"}}}})),
                "unknown field \"spec.output.sink.objectStore\"",
            ),
        ])
        .await;
}
