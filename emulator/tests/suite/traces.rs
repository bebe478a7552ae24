//! Every request that Google's SDK was recorded to send gets the documented kind of answer.
//!
//! `tests/traces/requests.jsonl` holds the recorded requests without hosts, ports and keys. Identifiers that a server
//! makes are written `{batch}`, `{webhook}`, `{upload}` and `{token}`. Answers that a healthy server does not give
//! (429, 503, …) carry the fault that makes it give them.

use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Emulator, jsonl};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trace {
    group: String,
    name: String,
    method: String,
    path: String,
    headers: std::collections::BTreeMap<String, String>,
    body: Option<Value>,
    body_len: Option<usize>,
    /// The SDK sent no API key.
    #[serde(default)]
    keyless: bool,
    status: u16,
    kind: String,
    fault: Option<Value>,
}

fn traces() -> Vec<Trace> {
    let text = include_str!("../traces/requests.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn recorded_requests_get_documented_answers() {
    let traces = traces();
    assert_eq!(traces.len(), 195);
    for group in ["v1", "v1beta", "extra", "article"] {
        let emulator =
            Emulator::start(&["--job-time", "0", "--api-key", "TEST_API_KEY=one", "--api-key", "empty=two"]);
        let mut world = World::default();
        for trace in traces.iter().filter(|trace| trace.group == group) {
            world.prepare(&emulator, trace).await;
            world.replay(&emulator, trace).await;
        }
    }
}

#[derive(Default)]
struct World {
    batch: String,
    webhook: String,
    upload: String,
    token: String,
}

impl World {
    /// What a request refers to is there before it comes.
    async fn prepare(&mut self, emulator: &Emulator, trace: &Trace) {
        emulator.faults(json!({})).await;
        if emulator.get("/v1/files/voe5u4gdj968").await.0 != 200 {
            assert_eq!(emulator.upload("files/voe5u4gdj968", &jsonl(&["a", "b"])).await.0, 200);
        }
        if trace.path.contains("{batch}") || trace.kind == "batch_list" || trace.kind == "bytes" {
            let pending = ["batches.get_pending", "batches.get_running", "batches.cancel"]
                .contains(&trace.name.as_str());
            let plan = if pending { json!({"jobs": [{"do": {"hold": "pending"}}]}) } else { json!({}) };
            emulator.faults(plan).await;
            let (status, job) = emulator.create("trace", "files/voe5u4gdj968").await;
            assert_eq!(status, 200);
            let name = job["name"].as_str().unwrap();
            if !pending {
                emulator.ended(name).await;
            }
            name.trim_start_matches("batches/").clone_into(&mut self.batch);
        }
        if trace.path.contains("/webhooks") {
            self.webhook = emulator.webhook("https://hooks.example.com/gemini").await.0;
            if trace.path.contains("{token}") {
                let (_, page) = emulator.get("/v1/webhooks?page_size=1").await;
                page["next_page_token"].as_str().unwrap().clone_into(&mut self.token);
            }
        } else if trace.path.contains("{token}") {
            let (_, page) = emulator.get("/v1/batches?pageSize=1").await;
            page["nextPageToken"].as_str().unwrap().clone_into(&mut self.token);
        }
        let plan = trace.fault.as_ref().map_or(json!({}), |fault| json!({"rules": [{"do": fault}]}));
        emulator.faults(plan).await;
    }

    fn path(&self, path: &str) -> String {
        path.replace("{batch}", &self.batch)
            .replace("{webhook}", &self.webhook)
            .replace("{upload}", &self.upload)
            .replace("{token}", &self.token)
    }

    async fn replay(&mut self, emulator: &Emulator, trace: &Trace) {
        let at = format!("{}/{}", trace.group, trace.name);
        let method: Method = trace.method.parse().unwrap();
        let mut request =
            emulator.client.request(method, format!("{}{}", emulator.url, self.path(&trace.path)));
        for (name, value) in &trace.headers {
            request = request.header(name, value);
        }
        if !trace.keyless {
            request = request.header(
                "x-goog-api-key",
                match trace.kind.as_str() {
                    "bad_key" => "wrong",
                    _ if trace.name.ends_with("list_empty") => "empty",
                    _ => "TEST_API_KEY",
                },
            );
        }
        if let Some(body) = &trace.body {
            request = request.body(body.to_string());
        } else if let Some(length) = trace.body_len {
            request = request.body(vec![b' '; length]);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(answer.status().as_u16(), trace.status, "{at}");
        if let Some(wanted) = trace.fault.as_ref().and_then(|fault| fault["retry_after"].as_str()) {
            assert_eq!(answer.headers()["retry-after"], wanted, "{at}");
        }
        self.judge(&at, &trace.kind, answer).await;
    }

    async fn judge(&mut self, at: &str, kind: &str, answer: Response) {
        let header =
            |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (content_type, upload_status) = (header("content-type"), header("x-goog-upload-status"));
        if kind == "upload_started" {
            let url = header("x-goog-upload-url");
            url.split("upload_id=").nth(1).unwrap().split('&').next().unwrap().clone_into(&mut self.upload);
            assert_eq!(upload_status, "active", "{at}");
        }
        let text = answer.text().await.unwrap();
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let good = match kind {
            "upload_started" => text.is_empty(),
            "upload_active" => upload_status == "active" && text.is_empty(),
            "upload_final" => upload_status == "final" && is_file(&json["file"]),
            "empty" => json == json!({}),
            "created" => json["metadata"]["state"] == "BATCH_STATE_PENDING" && is_batch(&json),
            "batch" => is_batch(&json),
            "batch_list" => all(&json["operations"], is_batch),
            "file" => is_file(&json),
            "file_list" => all(&json["files"], is_file),
            "bytes" => content_type == "application/octet-stream" && text.lines().count() == 2,
            "model" => {
                json["name"] == "models/gemini-3.8-flash" && json["supportedGenerationMethods"].is_array()
            }
            "tokens" => json["totalTokens"].is_u64(),
            "webhook" => is_webhook(&json),
            "webhook_created" => is_webhook(&json) && is_secret(&json["new_signing_secret"]),
            "webhook_list" => all(&json["webhooks"], is_webhook),
            "secret" => is_secret(&json["secret"]),
            "bad_key" => json["error"]["details"][0]["reason"] == "API_KEY_INVALID",
            "error_rpc" => json["error"]["code"].is_u64() && json["error"]["status"].is_string(),
            "error_short" => json["error"]["code"].is_string() && json["error"].get("status").is_none(),
            "error_html" => content_type.starts_with("text/html") && text.contains("<html"),
            other => panic!("{at}: no such kind: {other}"),
        };
        assert!(good, "{at}: not a {kind}: {text}");
    }
}

fn all(items: &Value, good: impl Fn(&Value) -> bool) -> bool {
    items.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(good))
}

/// Names, types and the rule about `done` (gemini-wire §4.2).
fn is_batch(operation: &Value) -> bool {
    let metadata = &operation["metadata"];
    let state = metadata["state"].as_str().unwrap_or_default();
    let open = ["BATCH_STATE_PENDING", "BATCH_STATE_RUNNING"].contains(&state);
    let counts = metadata["batchStats"].as_object();
    operation["name"].as_str().is_some_and(|name| name.starts_with("batches/") && name.len() >= 44)
        && metadata["name"] == operation["name"]
        && metadata["@type"].as_str().is_some_and(|name| name.ends_with("ContentBatch"))
        && metadata["model"].as_str().is_some_and(|name| name.starts_with("models/"))
        && is_time(&metadata["createTime"])
        && is_time(&metadata["updateTime"])
        && counts.is_some_and(|counts| {
            counts.values().all(|count| count.as_str().is_some_and(|count| count != "0"))
        })
        && if open {
            operation.get("done").is_none()
        } else {
            operation["done"] == true && is_time(&metadata["endTime"])
        }
        && metadata.get("output").is_some() == operation.get("response").is_some()
}

fn is_file(file: &Value) -> bool {
    file["name"].as_str().is_some_and(|name| name.starts_with("files/"))
        && file["sizeBytes"].is_string()
        && file["state"] == "ACTIVE"
        && file["source"].is_string()
        && ["createTime", "updateTime", "expirationTime"].iter().all(|name| is_time(&file[*name]))
        && data_encoding::BASE64.decode(file["sha256Hash"].as_str().unwrap_or_default().as_bytes()).is_ok()
        && file["uri"].is_string()
}

fn is_webhook(webhook: &Value) -> bool {
    webhook["id"].as_str().is_some_and(|id| id.len() == 36)
        && webhook["uri"].as_str().is_some_and(|uri| uri.starts_with("https://"))
        && webhook["subscribed_events"].is_array()
        && ["enabled", "disabled"].contains(&webhook["state"].as_str().unwrap_or_default())
        && all(&webhook["signing_secrets"], |secret| secret["truncated_secret"].is_string())
}

fn is_secret(secret: &Value) -> bool {
    secret.as_str().is_some_and(|secret| secret.starts_with("whsec_") && secret.len() == 50)
}

fn is_time(time: &Value) -> bool {
    time.as_str().is_some_and(|time| time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok())
}
