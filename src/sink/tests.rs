//! What is published, how it is laid out, and that only what is ours is written.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::http::{Request, Response};
use kube::client::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::rows::{Collector, Harvest, Row, parse_jsonl};

fn rows(keys: &[&str]) -> Vec<Row> {
    let line =
        |k: &&str| format!(r#"{{"key":"{k}","request":{{"contents":[{{"parts":[{{"text":"q {k}"}}]}}]}}}}"#);
    let text = keys.iter().map(line).collect::<Vec<_>>().join("\n");
    parse_jsonl(text.as_bytes()).unwrap()
}

fn names(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|r| r.key.clone()).collect()
}

fn harvest(keys: &[String], output: &str) -> Harvest {
    let mut collector = Collector::new(keys);
    collector.push(output.as_bytes());
    collector.finish()
}

fn good(key: &str) -> String {
    // Spaces and the order of fields are the provider's and stay.
    format!(
        "{{\"response\": {{\"candidates\": [{{\"finishReason\": \"STOP\", \"content\": {{\"parts\": [{{\"text\": \"a {key}\"}}]}}}}]}}, \"key\": \"{key}\"}}\n"
    )
}

fn facts() -> Facts {
    Facts { namespace: "ns".into(), batch: "tickets".into(), input_sha256: "00".into(), ..Facts::default() }
}

fn sample() -> Publication {
    let rows = rows(&["a", "b", "c"]);
    let output = format!(
        "{}{}{}",
        good("c"),
        "{\"key\":\"b\",\"error\":{\"code\":13,\"message\":\"m\"}}\n",
        good("a")
    );
    compose(Some(&rows), &harvest(&names(&rows), &output), &facts())
}

#[test]
fn answers_stand_in_the_order_of_the_input_byte_for_byte() {
    let publication = sample();
    let response = |k: &str| {
        format!(
            "{{\"candidates\": [{{\"finishReason\": \"STOP\", \"content\": {{\"parts\": [{{\"text\": \"a {k}\"}}]}}}}]}}"
        )
    };
    assert_eq!(
        publication.results,
        [
            format!("{{\"key\":\"a\",\"response\":{}}}", response("a")),
            format!("{{\"key\":\"c\",\"response\":{}}}", response("c")),
        ]
    );
}

#[test]
fn failures_can_be_submitted_again_as_they_are() {
    let publication = sample();
    let line: Value = serde_json::from_str(&publication.errors[0]).unwrap();
    assert_eq!(
        line,
        json!({ "key": "b", "request": { "contents": [{ "parts": [{ "text": "q b" }] }] }, "class": "Transient",
                "code": "13", "error": { "message": "m" } })
    );
    let again = parse_jsonl(publication.errors.join("\n").as_bytes()).unwrap();
    assert_eq!(again, rows(&["b"]));
}

#[test]
fn a_source_that_drifted_costs_the_request_only() {
    let rows = rows(&["a"]);
    let publication = compose(None, &harvest(&names(&rows), ""), &facts());
    let line: Value = serde_json::from_str(&publication.errors[0]).unwrap();
    assert_eq!(line["class"], "Missing");
    assert!(line.get("request").is_none());
}

#[test]
fn without_the_input_the_manifest_says_whose_order_it_is() {
    let mut collector = Collector::open(4);
    collector.push(format!("{}{}", good("b"), good("a")).as_bytes());
    let publication = compose(None, &collector.finish(), &facts());
    let keys: Vec<Value> =
        publication.results.iter().map(|l| serde_json::from_str::<Value>(l).unwrap()["key"].take()).collect();
    assert_eq!(keys, ["b", "a"]);
    assert!(publication.errors.is_empty(), "what has no key cannot be named");
    let manifest = &publication.manifest;
    assert_eq!((&manifest["order"], &manifest["inputDrift"]), (&json!("output"), &json!(true)));
    assert_eq!(
        manifest["rows"],
        json!({ "total": 4, "succeeded": 2, "failed": 2, "byClass": { "OK": 2, "Missing": 2 },
                "missingUnnamed": 2 })
    );
    let usual = sample().manifest;
    assert_eq!((&usual["order"], &usual["inputDrift"]), (&json!("input"), &json!(false)));
}

#[test]
fn a_truncated_answer_is_a_failure_that_keeps_the_answer() {
    let rows = rows(&["a"]);
    let output = good("a").replace("STOP", "MAX_TOKENS");
    let publication = compose(Some(&rows), &harvest(&names(&rows), &output), &facts());
    assert!(publication.results.is_empty());
    let line: Value = serde_json::from_str(&publication.errors[0]).unwrap();
    assert_eq!((&line["class"], &line["code"]), (&json!("Truncated"), &json!("MAX_TOKENS")));
    assert_eq!(line["error"]["response"]["candidates"][0]["finishReason"], "MAX_TOKENS");
}

#[test]
fn the_manifest_says_what_is_where() {
    let layout = layout("out", &sample()).unwrap();
    assert_eq!((layout.parts.len(), layout.lines, layout.errors_part.as_deref()), (1, 2, Some("out")));
    let manifest: Value = serde_json::from_str(&layout.parts[0].data[MANIFEST_KEY]).unwrap();
    assert_eq!((&manifest["schemaVersion"], &manifest["batch"]), (&json!(1), &json!("tickets")));
    assert_eq!(
        manifest["rows"],
        json!({ "total": 3, "succeeded": 2, "failed": 1, "byClass": { "OK": 2, "Transient": 1 } })
    );
    assert_eq!(manifest["results"], json!({ "lines": 2, "bytes": layout.bytes, "sha256": layout.sha256 }));
    assert_eq!(manifest["parts"][1]["key"], "errors.jsonl");
    assert_eq!(manifest["parts"][0]["sha256"], layout.sha256.as_str());
}

fn lines(sizes: &[usize]) -> Vec<String> {
    sizes.iter().enumerate().map(|(i, n)| format!("{i:06}{}", "x".repeat(n.saturating_sub(6)))).collect()
}

fn publication(results: &[usize], errors: &[usize]) -> Publication {
    Publication { results: lines(results), errors: lines(errors), manifest: serde_json::Map::new() }
}

#[test]
fn what_cannot_fit_is_refused_and_never_cut() {
    let one = layout("out", &publication(&[MAX_PART_BYTES], &[])).unwrap_err();
    assert!(one.0.contains("line 1 of results.jsonl"), "{one}");
    assert!(layout("out", &publication(&[MAX_PART_BYTES - 1], &[])).is_ok());
    let half = MAX_PART_BYTES / 2 + 1;
    assert_eq!(layout("out", &publication(&[half; 15], &[])).unwrap().parts.len(), 15);
    assert_eq!(layout("out", &publication(&[half; 16], &[])).unwrap().parts.len(), 16);
    let all = layout("out", &publication(&[half; 16], &[half])).unwrap_err();
    assert!(all.0.contains("full at line 1 of errors.jsonl"), "{all}");
    let full = MAX_PART_BYTES as u64;
    assert_eq!(layout::parts_for(0), Ok(1));
    assert_eq!(layout::parts_for(full + 1), Ok(2));
    assert!(layout::parts_for(16 * full).is_ok() && layout::parts_for(16 * full + 1).is_err());
}

#[test]
fn an_empty_publication_is_still_readable() {
    let layout = layout("out", &publication(&[], &[])).unwrap();
    assert_eq!(layout.parts[0].data[RESULTS_KEY], "");
    assert_eq!((layout.lines, layout.bytes, layout.errors_part), (0, 0, None));
}

proptest! {
    // Megabytes a case, digested by unoptimised code.
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn parts_put_together_are_the_whole(
        results in prop::collection::vec(1_usize..400_000, 0..20),
        errors in prop::collection::vec(1_usize..400_000, 0..10),
    ) {
        let publication = publication(&results, &errors);
        let layout = layout("out", &publication).unwrap();
        prop_assert_eq!(&layout, &super::layout("out", &publication).unwrap());
        for (key, lines) in [(RESULTS_KEY, &publication.results), (ERRORS_KEY, &publication.errors)] {
            let whole: String = layout.parts.iter().filter_map(|p| p.data.get(key)).map(String::as_str).collect();
            let expected: String = lines.iter().flat_map(|l| [l.as_str(), "\n"]).collect();
            prop_assert!(whole == expected);
        }
        for (index, part) in layout.parts.iter().enumerate() {
            prop_assert_eq!(&part.name, &layout::part_name("out", index));
            prop_assert!(part.data.values().map(String::len).sum::<usize>() <= MAX_PART_BYTES);
        }
    }
}

/// An API server that knows ConfigMaps, resourceVersions and nothing else.
#[derive(Clone, Default)]
pub(crate) struct FakeApi {
    pub objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Writes that were made, as `METHOD name`.
    pub writes: Arc<Mutex<Vec<String>>>,
    /// Status code to refuse with, for requests of this method.
    pub refuse: Option<(&'static str, u16)>,
    /// Each answer makes whoever waits for it panic.
    pub is_poison: bool,
}

impl FakeApi {
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "ns")
    }

    fn put(&self, name: &str, object: Value) {
        self.objects.lock().unwrap().insert(name.to_owned(), object);
    }

    fn data(&self, name: &str) -> Value {
        self.objects.lock().unwrap()[name]["data"].clone()
    }

    fn writes(&self) -> Vec<String> {
        std::mem::take(&mut *self.writes.lock().unwrap())
    }

    fn answer(&self, method: &str, path: &str, query: &str, body: &Value) -> (u16, Value) {
        assert!(!self.is_poison, "poison");
        if let Some((_, code)) = self.refuse.filter(|(refused, _)| *refused == method) {
            return failure(code);
        }
        let name = path.rsplit('/').next().unwrap().to_owned();
        let mut objects = self.objects.lock().unwrap();
        let version = |v: &Value| v["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        let (name, mut object) = match method {
            "GET" => return objects.get(&name).map_or_else(|| failure(404), |o| (200, o.clone())),
            "POST" => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                if objects.contains_key(&name) {
                    return failure(409);
                }
                (name, body.clone())
            }
            _ => match objects.get(&name) {
                None => return failure(404),
                Some(stored) if version(stored) != version(body) => return failure(409),
                Some(_) => (name, body.clone()),
            },
        };
        if !query.contains("dryRun=All") {
            let mut writes = self.writes.lock().unwrap();
            writes.push(format!("{method} {name}"));
            object["metadata"]["resourceVersion"] = writes.len().to_string().into();
            objects.insert(name, object.clone());
        }
        (200, object)
    }
}

fn failure(code: u16) -> (u16, Value) {
    (code, json!({ "kind": "Status", "status": "Failure", "code": code, "reason": "x", "message": "no" }))
}

impl tower::Service<Request<Body>> for FakeApi {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (code, answer) = api.answer(
                parts.method.as_str(),
                parts.uri.path(),
                parts.uri.query().unwrap_or_default(),
                &body,
            );
            let answer = serde_json::to_vec(&answer).unwrap();
            Ok(Response::builder().status(code).body(Body::from(answer)).unwrap())
        })
    }
}

fn foreign(labels: &Value, annotations: &Value) -> Value {
    json!({ "metadata": { "name": "out", "resourceVersion": "1", "labels": labels, "annotations": annotations },
            "data": { "precious": "x" } })
}

#[tokio::test]
async fn publishing_twice_writes_once() {
    let api = FakeApi::default();
    let published = publish(&api.client(), "ns", "out", "tickets", &sample()).await.unwrap();
    assert_eq!(published.results_uri, "configmap://ns/out/results.jsonl");
    assert_eq!(published.errors_uri.as_deref(), Some("configmap://ns/out/errors.jsonl"));
    assert_eq!(published.manifest_uri, "configmap://ns/out/manifest.json");
    assert_eq!(published.lines, 2);
    assert_eq!(api.writes(), ["POST out"]);
    let stored = api.objects.lock().unwrap()["out"].clone();
    assert_eq!(stored["metadata"]["labels"]["app.kubernetes.io/managed-by"], "gemini-operator");
    assert_eq!(stored["metadata"]["annotations"]["gemini-operator.io/batch"], "tickets");
    assert!(stored["metadata"].get("ownerReferences").is_none(), "results outlive their batch");

    assert_eq!(publish(&api.client(), "ns", "out", "tickets", &sample()).await.unwrap(), published);
    assert!(api.writes().is_empty());
}

#[tokio::test]
async fn the_manifest_comes_last_and_what_an_interrupted_attempt_left_is_completed() {
    let half = MAX_PART_BYTES / 2 + 1;
    let publication = publication(&[half; 3], &[]);
    let api = FakeApi::default();
    publish(&api.client(), "ns", "out", "tickets", &publication).await.unwrap();
    assert_eq!(api.writes(), ["POST out-2", "POST out-1", "POST out"]);

    let crashed = FakeApi::default();
    crashed.put("out-2", api.objects.lock().unwrap()["out-2"].clone());
    publish(&crashed.client(), "ns", "out", "tickets", &publication).await.unwrap();
    assert_eq!(crashed.writes(), ["POST out-1", "POST out"]);
}

#[tokio::test]
async fn parts_of_an_earlier_larger_publication_are_emptied() {
    let half = MAX_PART_BYTES / 2 + 1;
    let api = FakeApi::default();
    publish(&api.client(), "ns", "out", "tickets", &publication(&[half; 3], &[])).await.unwrap();
    api.writes();
    publish(&api.client(), "ns", "out", "tickets", &sample()).await.unwrap();
    assert_eq!(api.writes(), ["PUT out", "PUT out-1", "PUT out-2"]);
    assert_eq!(api.data("out-1"), json!({}));
    publish(&api.client(), "ns", "out", "tickets", &sample()).await.unwrap();
    assert!(api.writes().is_empty());
}

#[tokio::test]
async fn what_is_not_ours_is_neither_written_nor_accepted_before_submission() {
    let label = json!({ "app.kubernetes.io/managed-by": "gemini-operator" });
    let owner = json!({ "gemini-operator.io/batch": "tickets" });
    let other = json!({ "gemini-operator.io/batch": "other" });
    for (labels, annotations) in [
        (Value::Null, Value::Null),
        (label.clone(), other),
        (Value::Null, owner.clone()),
        (label.clone(), Value::Null),
    ] {
        let api = FakeApi::default();
        api.put("out", foreign(&labels, &annotations));
        let checked = check(&api.client(), "ns", "out", "tickets", 1).await;
        assert!(matches!(checked, Err(SinkError::Forbidden(m)) if m.contains("ConfigMap \"out\"")));
        let written = publish(&api.client(), "ns", "out", "tickets", &sample()).await;
        assert!(matches!(written, Err(SinkError::Forbidden(_))));
        assert_eq!((api.data("out"), api.writes().len()), (json!({ "precious": "x" }), 0));
    }
    let api = FakeApi::default();
    api.put("out", foreign(&label, &owner));
    check(&api.client(), "ns", "out", "tickets", 1).await.unwrap();
    publish(&api.client(), "ns", "out", "tickets", &sample()).await.unwrap();
    assert!(api.data("out").get("precious").is_none());
}

#[tokio::test]
async fn a_later_part_that_is_not_ours_is_found_before_submission() {
    let api = FakeApi::default();
    api.put("out-1", foreign(&Value::Null, &Value::Null));
    check(&api.client(), "ns", "out", "tickets", 1).await.unwrap();
    let two_parts = MAX_PART_BYTES as u64 + 1;
    let checked = check(&api.client(), "ns", "out", "tickets", two_parts).await;
    assert!(matches!(checked, Err(SinkError::Forbidden(m)) if m.contains("ConfigMap \"out-1\"")));
    assert!(api.writes().is_empty());
}

#[tokio::test]
async fn refusals_have_their_class() {
    for (method, code, is_expected) in [
        ("POST", 403, (|e| matches!(e, SinkError::Forbidden(_))) as fn(&SinkError) -> bool),
        ("GET", 403, |e| matches!(e, SinkError::Forbidden(_))),
        ("POST", 422, |e| matches!(e, SinkError::Forbidden(_))),
        ("POST", 413, |e| matches!(e, SinkError::TooLarge(_))),
        ("POST", 500, |e| matches!(e, SinkError::Unavailable(_))),
        ("POST", 409, |e| matches!(e, SinkError::Unavailable(_))),
        ("GET", 401, |e| matches!(e, SinkError::Unavailable(_))),
    ] {
        let api = FakeApi { refuse: Some((method, code)), ..FakeApi::default() };
        let error = publish(&api.client(), "ns", "out", "tickets", &sample()).await.unwrap_err();
        assert!(is_expected(&error), "{method} {code}: {error:?}");
        assert!(check(&api.client(), "ns", "out", "tickets", 1).await.is_err(), "{method} {code}");
    }
    let api = FakeApi::default();
    let too_large = check(&api.client(), "ns", "out", "tickets", u64::MAX).await;
    assert!(matches!(too_large, Err(SinkError::TooLarge(_))));
}
