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
            ("no endpoint", spec(json!({"endpoint": null})), "?"),
            ("http", url("http://hooks.example.com"), "?"),
            ("no scheme", url("hooks.example.com"), "?"),
            ("empty", url(""), "?"),
            ("a query", url("https://hooks.example.com/?a=b"), "?"),
            ("a fragment", url("https://hooks.example.com/#a"), "?"),
            ("user information", url("https://me:secret@hooks.example.com"), "?"),
            ("an IPv4 address", url("https://192.0.2.1/x"), "?"),
            ("an IPv6 address", url("https://[2001:db8::1]:8443"), "?"),
            ("no host", url("https:///x"), "?"),
            ("a space", url("https://hooks.example.com/a b"), "?"),
            ("an escape", url("https://hooks.example.com/%2e%2e"), "?"),
            ("too long", url(&format!("https://hooks.example.com/{}", "a".repeat(1000))), "?"),
        ])
        .await;
}

#[tokio::test]
async fn bad_choices_are_refused() {
    let seventeen: Vec<String> = (0..17).map(|i| format!("batch.{}", char::from(b'a' + i))).collect();
    Applicant::webhook()
        .await
        .refuses(vec![
            ("no Secret", spec(json!({"apiKeySecretRef": null})), "?"),
            ("a mode that is not there yet", spec(json!({"mode": "Dynamic"})), "?"),
            ("a scheme that is not there yet", spec(json!({"signature": "DynamicJwt"})), "?"),
            ("no events", spec(json!({"events": []})), "?"),
            ("an event twice", spec(json!({"events": ["batch.failed", "batch.failed"]})), "?"),
            ("17 events", spec(json!({"events": seventeen})), "?"),
            ("an event in capitals", spec(json!({"events": ["batch.Failed"]})), "?"),
            ("an event of 65 characters", spec(json!({"events": [format!("batch.{}", "x".repeat(59))]})), "?"),
            ("another deletion policy", spec(json!({"deletionPolicy": "Cancel"})), "?"),
            ("a time-out in words", spec(json!({"deletionTimeout": "soon"})), "?"),
            ("an unknown field", spec(json!({"uri": "https://hooks.example.com"})), "?"),
            ("a path of one's own", spec(json!({"endpoint": {"path": "/hooks"}})), "?"),
        ])
        .await;
}
