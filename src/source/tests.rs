//! Sources: what is read, and what is said when it cannot be.

use serde_json::{Value, json};

use super::*;
use crate::rows::InputErrorKind;
use crate::sink::tests::FakeApi;

const LINE: &str = r#"{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}"#;

fn input(value: Value) -> Input {
    serde_json::from_value(value).unwrap()
}

fn with_map(object: Value) -> FakeApi {
    let api = FakeApi::default();
    api.objects.lock().unwrap().insert("requests".into(), object);
    api
}

async fn from_map(api: &FakeApi) -> Result<Vec<Row>, SourceError> {
    load(&api.client(), "ns", &input(json!({ "configMapRef": { "name": "requests" } }))).await
}

#[tokio::test]
async fn inline_requests_and_inline_lines() {
    let client = FakeApi::default().client();
    let requests = input(json!({ "inline": { "requests": [{ "key": "a", "prompt": "x" }] } }));
    assert_eq!(load(&client, "ns", &requests).await.unwrap()[0].key, "a");
    let lines = input(json!({ "inline": { "jsonl": LINE } }));
    assert_eq!(load(&client, "ns", &lines).await.unwrap().len(), 1);
    let bad = load(&client, "ns", &input(json!({ "inline": { "jsonl": "{}" } }))).await.unwrap_err();
    assert!(bad.to_string().starts_with("spec.input.inline.jsonl: row 1: field `key`"), "{bad}");
    for none in [json!({}), json!({ "inline": {} })] {
        assert!(matches!(load(&client, "ns", &input(none)).await, Err(SourceError::Invalid(_))));
    }
}

#[tokio::test]
async fn a_config_map_with_text_or_bytes() {
    let text = with_map(json!({ "metadata": {}, "data": { "requests.jsonl": LINE } }));
    assert_eq!(from_map(&text).await.unwrap().len(), 1);
    let base64 = data_encoding::BASE64.encode(LINE.as_bytes());
    let binary = with_map(json!({ "metadata": {}, "binaryData": { "requests.jsonl": base64 } }));
    assert_eq!(from_map(&binary).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_field_and_a_way_out() {
    let missing = from_map(&FakeApi::default()).await.unwrap_err();
    assert!(
        matches!(&missing, SourceError::NotFound(m) if m.starts_with("spec.input.configMapRef.name: there is no"))
    );
    let other =
        from_map(&with_map(json!({ "metadata": {}, "data": { "other.jsonl": "" } }))).await.unwrap_err();
    assert!(
        matches!(&other, SourceError::NotFound(m) if m.contains("configMapRef.key") && m.contains("it has: other.jsonl"))
    );
    let bad = from_map(&with_map(json!({ "metadata": {}, "data": { "requests.jsonl": "\n[]" } })))
        .await
        .unwrap_err();
    assert!(
        matches!(&bad, SourceError::Invalid(e) if e.kind == InputErrorKind::InvalidRow && e.row == Some(2))
    );
    assert!(bad.to_string().starts_with("ConfigMap \"requests\", key \"requests.jsonl\": row 2"), "{bad}");
    for (code, is_forbidden) in [(403, true), (401, false), (503, false)] {
        let api = FakeApi { refuse: Some(("GET", code)), ..FakeApi::default() };
        let error = from_map(&api).await.unwrap_err();
        assert_eq!(matches!(error, SourceError::Forbidden(_)), is_forbidden, "{error:?}");
        assert_eq!(matches!(error, SourceError::Unavailable(_)), !is_forbidden, "{error:?}");
    }
}
