//! Every rule of a GeminiWebhook.

use gemini_operator::api::GeminiWebhook;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Applicant, essence, good_webhook};
use crate::support::cluster::from_json;

fn url(url: &str) -> Value {
    json!({"spec": {"endpoint": {"url": url}}})
}

fn spec(spec: Value) -> Value {
    Value::Object([("spec".to_owned(), spec)].into_iter().collect())
}

fn external(more: Value) -> Value {
    let mut change = json!({"spec": {"mode": "External", "signingSecret": {"name": "signing"}}});
    super::merge(&mut change, &spec(more));
    change
}

fn dynamic_jwt(more: Value) -> Value {
    let mut change = json!({"spec": {"mode": "Dynamic", "signature": "DynamicJwt"}});
    super::merge(&mut change, &spec(more));
    change
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
            "events": ["batch.succeeded", "batch.failed", "batch.expired"],
            "tolerance": "5m",
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
        ("little tolerance", spec(json!({"tolerance": "30s"}))),
        ("much tolerance", spec(json!({"tolerance": "15m"}))),
        ("its scheme by name", spec(json!({"signature": "StandardWebhooks"}))),
        ("external", external(json!({}))),
        ("external, by the tutorial's scheme", external(json!({"signature": "XGoogSignature"}))),
        ("external, rotated without a grace", external(json!({"rotation": {"revocation": "Immediately"}}))),
        ("dynamic", spec(json!({"mode": "Dynamic"}))),
        ("dynamic, by a token", dynamic_jwt(json!({}))),
        (
            "dynamic, by a token for somebody",
            dynamic_jwt(json!({"jwt": {"audience": "me", "issuer": "you"}})),
        ),
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
                "another mode",
                spec(json!({"mode": "Manual"})),
                "spec.mode: Unsupported value: \"Manual\": supported values: \"Static\", \"Dynamic\", \
                 \"External\"",
            ),
            (
                "another scheme",
                spec(json!({"signature": "HS256"})),
                "spec.signature: Unsupported value: \"HS256\": supported values: \"StandardWebhooks\", \
                 \"DynamicV1a\", \"DynamicJwt\", \"XGoogSignature\"",
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

#[tokio::test]
async fn what_does_not_go_together_is_refused() {
    const SECRET: &str = "<nil>: Invalid value: spec.signingSecret goes with mode External, and with no other: there it \
                          names the Secret of the endpoint";
    const SCHEME: &str = "<nil>: Invalid value: spec.signature does not go with spec.mode: Static has StandardWebhooks; \
                          Dynamic has DynamicV1a or DynamicJwt; External has StandardWebhooks or XGoogSignature";
    const JWT: &str = "<nil>: Invalid value: spec.jwt goes with signature DynamicJwt only";
    const ROTATION: &str = "<nil>: Invalid value: spec.rotation.interval goes with mode Static only: elsewhere the \
                            operator does not make the secret";
    const TOLERANCE: &str = "spec.tolerance must be from 30s to 15m";
    let tolerance = |given: &str| format!("spec.tolerance: Invalid value: \"{given}\": {TOLERANCE}");
    let (little, much) = (tolerance("29s"), tolerance("15m1s"));
    Applicant::webhook()
        .await
        .refuses(vec![
            ("external, no secret", spec(json!({"mode": "External"})), SECRET),
            ("static, a secret", spec(json!({"signingSecret": {"name": "signing"}})), SECRET),
            ("dynamic, a secret", spec(json!({"mode": "Dynamic", "signingSecret": {"name": "signing"}})), SECRET),
            ("static, the tutorial's scheme", spec(json!({"signature": "XGoogSignature"})), SCHEME),
            ("static, public keys", spec(json!({"signature": "DynamicV1a"})), SCHEME),
            ("dynamic, a secret's scheme", spec(json!({"mode": "Dynamic", "signature": "StandardWebhooks"})), SCHEME),
            ("dynamic, the tutorial's", spec(json!({"mode": "Dynamic", "signature": "XGoogSignature"})), SCHEME),
            ("external, public keys", external(json!({"signature": "DynamicJwt"})), SCHEME),
            ("claims without a token", spec(json!({"mode": "Dynamic", "jwt": {"audience": "me"}})), JWT),
            ("claims of a static one", spec(json!({"jwt": {"issuer": "me"}})), JWT),
            ("rotated by us, of somebody else", external(json!({"rotation": {"interval": "48h"}})), ROTATION),
            ("rotated, without a secret", spec(json!({"mode": "Dynamic", "rotation": {"interval": "48h"}})), ROTATION),
            ("too little tolerance", spec(json!({"tolerance": "29s"})), &little),
            ("too much tolerance", spec(json!({"tolerance": "15m1s"})), &much),
            (
                "tolerance in words",
                spec(json!({"tolerance": "some"})),
                "spec.tolerance: Invalid value: \"some\": must be a duration in hours, minutes and seconds, such as 20m \
                 or 1h30m",
            ),
            (
                "a secret without a name",
                external(json!({"signingSecret": {"name": ""}})),
                "spec.signingSecret.name: Invalid value: \"\": spec.signingSecret.name in body should be at least 1 \
                 chars long",
            ),
            (
                "an empty audience",
                dynamic_jwt(json!({"jwt": {"audience": ""}})),
                "spec.jwt.audience: Invalid value: \"\": spec.jwt.audience in body should be at least 1 chars long",
            ),
        ])
        .await;
}

#[tokio::test]
async fn the_mode_is_fixed_and_the_scheme_is_not() {
    let Applicant { client, namespace, .. } = Applicant::webhook().await;
    let api: Api<GeminiWebhook> = Api::namespaced(client, &namespace);
    let mut object = good_webhook();
    super::merge(&mut object, &external(json!({})));
    api.create(&PostParams::default(), &from_json(object)).await.expect("the good webhook is accepted");
    let change = async |spec: Value| {
        let patch = Patch::Merge(json!({ "spec": spec }));
        match api.patch("good", &PatchParams::default(), &patch).await {
            Ok(_) => String::new(),
            Err(kube::Error::Api(status)) => essence(&status.message).to_owned(),
            Err(error) => panic!("the API server did not answer: {error}"),
        }
    };
    let refused = change(json!({"mode": "Static", "signingSecret": null})).await;
    let expected =
        "spec.mode: Invalid value: spec.mode cannot be changed; create another GeminiWebhook instead";
    assert_eq!(refused.replace("\"Static\": ", ""), expected);
    assert_eq!(change(json!({"signature": "XGoogSignature"})).await, "");
    assert_eq!(change(json!({"signingSecret": {"name": "other"}, "tolerance": "1m"})).await, "");
}
