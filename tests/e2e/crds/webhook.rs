//! Every rule of a GeminiWebhook.

use serde_json::{Value, json};

use super::Applicant;

fn url(url: &str) -> Value {
    json!({"spec": {"endpoint": {"url": url}}})
}

fn spec(spec: Value) -> Value {
    Value::Object([("spec".to_owned(), spec)].into_iter().collect())
}

#[tokio::test]
async fn defaults_are_filled_in() {
    let object = Applicant::webhook().await.accepts("the good webhook", json!({})).await;
    assert_eq!(
        object["spec"],
        json!({
            "apiKeySecretRef": {"name": "gemini", "key": "apiKey"},
            "endpoint": {"url": "https://hooks.example.com"},
            "mode": "Static",
            "signature": "StandardWebhooks",
            "events": ["batch.succeeded", "batch.failed", "batch.expired"],
            "enabled": true,
            "rotation": {"revocation": "After24h"},
            "selfTest": {"interval": "6h"},
            "onDisabled": "Reenable",
            "deletionPolicy": "Delete",
            "deletionTimeout": "20m",
        })
    );
}

#[tokio::test]
async fn good_objects_are_accepted() {
    let webhook = Applicant::webhook().await;
    for (what, change) in [
        ("a path", url("https://example.com/gemini")),
        ("a path that ends with a slash", url("https://example.com/a/b/")),
        ("a port", url("https://hooks.example.com:8443")),
        ("a host of one label", url("https://hooks")),
        ("a host that begins with digits", url("https://10.example.com")),
        ("one event", spec(json!({"events": ["batch.succeeded"]}))),
        ("an event that Gemini may invent", spec(json!({"events": ["video.generated", "batch.failed"]}))),
        ("disabled", spec(json!({"enabled": false}))),
        ("a self-test every five minutes", spec(json!({"selfTest": {"interval": "5m"}}))),
        ("a self-test by its default", spec(json!({"selfTest": {}}))),
        ("rotated every day", spec(json!({"rotation": {"interval": "24h"}}))),
        ("rotated by hand only", spec(json!({"rotation": {"revocation": "Immediately"}}))),
        ("told of only", spec(json!({"onDisabled": "Report"}))),
        ("orphaned", spec(json!({"deletionPolicy": "Orphan", "deletionTimeout": "5m"}))),
    ] {
        webhook.accepts(what, change).await;
    }
}

#[tokio::test]
async fn bad_endpoints_are_refused() {
    Applicant::webhook()
        .await
        .refuses(vec![
            ("no endpoint", spec(json!({"endpoint": null})), "spec.endpoint: Required value"),
            (
                "http",
                url("http://hooks.example.com"),
                "spec.endpoint.url: Invalid value: \"http://hooks.example.com\": \
                 spec.endpoint.url must start with https:// (Gemini delivers to nothing else)",
            ),
            (
                "no scheme",
                url("hooks.example.com"),
                "spec.endpoint.url: Invalid value: \"hooks.example.com\": spec.endpoint.url must \
                 start with https:// (Gemini delivers to nothing else)",
            ),
            (
                "empty",
                url(""),
                "spec.endpoint.url: Invalid value: \"\": spec.endpoint.url must start with \
                 https:// (Gemini delivers to nothing else)",
            ),
            (
                "a query",
                url("https://hooks.example.com/?a=b"),
                "spec.endpoint.url: Invalid value: \"https://hooks.example.com/?a=b\": \
                 spec.endpoint.url must have neither a query (?) nor a fragment (#)",
            ),
            (
                "a fragment",
                url("https://hooks.example.com/#a"),
                "spec.endpoint.url: Invalid value: \"https://hooks.example.com/#a\": \
                 spec.endpoint.url must have neither a query (?) nor a fragment (#)",
            ),
            (
                "user information",
                url("https://me:secret@hooks.example.com"),
                "spec.endpoint.url: Invalid value: \"https://me:secret@hooks.example.com\": \
                 spec.endpoint.url must not contain user information (@)",
            ),
            (
                "an IPv4 address",
                url("https://192.0.2.1/x"),
                "spec.endpoint.url: Invalid value: \"https://192.0.2.1/x\": spec.endpoint.url \
                 must name a host, not an IP address",
            ),
            (
                "an IPv6 address",
                url("https://[2001:db8::1]:8443"),
                "spec.endpoint.url: Invalid value: \"https://[2001:db8::1]:8443\": \
                 spec.endpoint.url must name a host, not an IP address",
            ),
            (
                "no host",
                url("https:///x"),
                "spec.endpoint.url: Invalid value: \"https:///x\": spec.endpoint.url must look \
                 like https://hooks.example.com or https://example.com/gemini",
            ),
            (
                "a space",
                url("https://hooks.example.com/a b"),
                "spec.endpoint.url: Invalid value: \"https://hooks.example.com/a b\": \
                 spec.endpoint.url must look like https://hooks.example.com or \
                 https://example.com/gemini",
            ),
            (
                "an escape",
                url("https://hooks.example.com/%2e%2e"),
                "spec.endpoint.url: Invalid value: \"https://hooks.example.com/%2e%2e\": \
                 spec.endpoint.url must look like https://hooks.example.com or \
                 https://example.com/gemini",
            ),
            (
                "too long",
                url(&format!("https://hooks.example.com/{}", "a".repeat(1000))),
                "spec.endpoint.url: Too long: may not be more than 1024 bytes",
            ),
        ])
        .await;
}

#[tokio::test]
async fn bad_choices_are_refused() {
    let seventeen: Vec<String> = (0..17).map(|i| format!("batch.{}", char::from(b'a' + i))).collect();
    Applicant::webhook()
        .await
        .refuses(vec![
            ("no Secret", spec(json!({"apiKeySecretRef": null})), "spec.apiKeySecretRef: Required value"),
            (
                "a mode that is not there yet",
                spec(json!({"mode": "Dynamic"})),
                "spec.mode: Unsupported value: \"Dynamic\": supported values: \"Static\"",
            ),
            (
                "a scheme that is not there yet",
                spec(json!({"signature": "DynamicJwt"})),
                "spec.signature: Unsupported value: \"DynamicJwt\": supported values: \
                 \"StandardWebhooks\"",
            ),
            (
                "no events",
                spec(json!({"events": []})),
                "spec.events: Invalid value: 0: spec.events in body should have at least 1 items",
            ),
            (
                "an event twice",
                spec(json!({"events": ["batch.failed", "batch.failed"]})),
                "spec.events[1]: Duplicate value: \"batch.failed\"",
            ),
            (
                "17 events",
                spec(json!({"events": seventeen})),
                "spec.events: Too many: 17: must have at most 16 items",
            ),
            (
                "an event in capitals",
                spec(json!({"events": ["batch.Failed"]})),
                "spec.events: Invalid value: every event must be of the form batch.succeeded",
            ),
            (
                "an event of 65 characters",
                spec(json!({"events": [format!("batch.{}", "x".repeat(59))]})),
                "spec.events[0]: Too long: may not be more than 64 bytes",
            ),
            (
                "another deletion policy",
                spec(json!({"deletionPolicy": "Cancel"})),
                "spec.deletionPolicy: Unsupported value: \"Cancel\": supported values: \
                 \"Delete\", \"Orphan\"",
            ),
            (
                "a time-out in words",
                spec(json!({"deletionTimeout": "soon"})),
                "spec.deletionTimeout: Invalid value: \"soon\": must be a duration in hours, \
                 minutes and seconds, such as 20m or 1h30m",
            ),
            (
                "rotated too often",
                spec(json!({"rotation": {"interval": "23h59m"}})),
                "spec.rotation.interval: Invalid value: \"23h59m\": spec.rotation.interval must be at least 24h",
            ),
            (
                "another revocation",
                spec(json!({"rotation": {"revocation": "Never"}})),
                "spec.rotation.revocation: Unsupported value: \"Never\": supported values: \"After24h\", \
                 \"Immediately\"",
            ),
            (
                "self-tests without a pause",
                spec(json!({"selfTest": {"interval": "299s"}})),
                "spec.selfTest.interval: Invalid value: \"299s\": spec.selfTest.interval must be at least 5m",
            ),
            (
                "an unknown field",
                spec(json!({"uri": "https://hooks.example.com"})),
                "unknown field \"spec.uri\"",
            ),
            (
                "a path of one's own",
                spec(json!({"endpoint": {"path": "/hooks"}})),
                "unknown field \"spec.endpoint.path\"",
            ),
        ])
        .await;
}
