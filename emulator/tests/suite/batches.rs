//! Batches: states, results, limits, cancel and delete; what is paid.

use gemini_emulator::rows;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Emulator, jsonl, request, until};

fn ledger_job<'a>(ledger: &'a Value, name: &str) -> &'a Value {
    ledger["jobs"].as_array().unwrap().iter().find(|job| job["name"] == name).unwrap()
}

#[tokio::test]
async fn a_file_job_lives_and_answers_by_the_published_function() {
    let emulator = Emulator::start(&["--job-time", "20m"]);
    let job = emulator.job("life", &["one", "two", "three"]).await;
    let (_, pending) = emulator.get(&format!("/v1/{job}")).await;
    assert_eq!(pending["metadata"]["state"], "BATCH_STATE_PENDING");
    assert_eq!(pending["metadata"]["batchStats"], json!({"requestCount": "3", "pendingRequestCount": "3"}));
    assert_eq!(pending["metadata"]["inputConfig"], json!({"fileName": "files/in-life"}));
    assert_eq!(pending.get("done"), None);
    emulator.advance(119).await;
    assert_eq!(emulator.state(&job).await, "BATCH_STATE_PENDING");
    emulator.advance(2).await;
    assert_eq!(emulator.state(&job).await, "BATCH_STATE_RUNNING");
    emulator.advance(1080).await;
    let done = emulator.ended(&job).await;
    assert_eq!(done["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
    assert_eq!(done["metadata"]["batchStats"], json!({"requestCount": "3", "successfulRequestCount": "3"}));
    assert_eq!(done["metadata"]["displayName"], "life");
    assert_eq!(done["response"]["responsesFile"], done["metadata"]["output"]["responsesFile"]);
    let lines = emulator.results(&done).await;
    for (index, prompt) in ["one", "two", "three"].iter().enumerate() {
        let mut wanted = rows::answer(&request(prompt));
        wanted["modelVersion"] = json!("gemini-3.8-flash");
        assert_eq!(lines[index], json!({"key": format!("k{index}"), "response": wanted}));
    }
    assert_eq!(emulator.ledger().await["rows_paid"], 3);
}

#[tokio::test]
async fn inline_jobs_return_metadata_and_both_result_forms() {
    let emulator = Emulator::start(&["--job-time", "0"]);
    // snake_case is ProtoJSON too.
    let (status, job) = emulator
        .post(
            "/v1beta/models/gemini-3.5-pro:batchGenerateContent",
            json!({"batch": {"display_name": "inline", "priority": "5", "input_config": {"requests": {"requests": [
                {"request": request("a"), "metadata": {"key": "r1"}},
                {"request": request("[[emulate:error:13]]"), "metadata": {"key": "r2"}},
            ]}}}}),
        )
        .await;
    assert_eq!(status, 200, "{job}");
    let done = emulator.ended(job["name"].as_str().unwrap()).await;
    let items = &done["metadata"]["output"]["inlinedResponses"]["inlinedResponses"];
    assert_eq!(&done["response"]["inlinedResponses"]["inlinedResponses"], items);
    assert_eq!(items[0]["metadata"], json!({"key": "r1"}));
    assert_eq!(items[1]["error"], json!({"code": 13, "message": "Internal error encountered."}));
    assert_eq!(items[1]["metadata"], json!({"key": "r2"}));
    let counts = json!({"requestCount": "2", "successfulRequestCount": "1", "failedRequestCount": "1"});
    assert_eq!(done["metadata"]["batchStats"], counts);
    assert_eq!(done["metadata"]["priority"], "5");
    assert_eq!(emulator.ledger().await["rows_paid"], 1, "a row that failed costs nothing");
}

#[tokio::test]
async fn embeddings_have_jobs_of_their_own() {
    let emulator = Emulator::start(&["--job-time", "0"]);
    let row = json!({"content": {"parts": [{"text": "hello"}]}, "outputDimensionality": 4});
    let body = json!({"batch": {"inputConfig": {"requests": {"requests": [{"request": row}]}}}});
    let (_, job) = emulator.post("/v1/models/gemini-embedding-2:asyncBatchEmbedContent", body.clone()).await;
    let done = emulator.ended(job["name"].as_str().unwrap()).await;
    assert!(done["metadata"]["@type"].as_str().unwrap().ends_with(".EmbedContentBatch"));
    let item = &done["metadata"]["output"]["inlinedResponses"]["inlinedResponses"][0];
    assert_eq!(item["response"], rows::embedding(&row));
    let (status, _) = emulator.post("/v1/models/gemini-embedding-2:batchGenerateContent", body.clone()).await;
    assert_eq!(status, 404, "a model without the method");
    let (status, _) = emulator.post("/v1/models/gemini-unknown:asyncBatchEmbedContent", body).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn creates_are_checked() {
    let emulator = Emulator::start(&[]);
    let create = |batch: Value| emulator.post("/v1/models/gemini-3.8-flash:batchGenerateContent", batch);
    let (status, error) = create(json!({"batch": {"inputConfig": {"fileName": "files/none"}}})).await;
    assert_eq!((status, &error["error"]["status"]), (403, &json!("PERMISSION_DENIED")));
    for bad in [
        json!({}),
        json!({"batch": {}}),
        json!({"batch": 7}),
        json!({"batch": {"notification": {}, "inputConfig": {"fileName": "files/a"}}}),
        json!({"batch": {"inputConfig": {"fileName": "a"}}}),
        json!({"batch": {"inputConfig": {"requests": {"requests": []}}}}),
        json!({"batch": {"inputConfig": {"requests": {"requests": [{"metadata": {}}]}}}}),
        json!({"batch": {"inputConfig": {"requests": {"requests": [7]}}}}),
        json!({"batch": {"priority": "high", "inputConfig": {"fileName": "files/a"}}}),
        json!({"batch": {"webhookConfig": {"uris": []}, "inputConfig": {"fileName": "files/a"}}}),
    ] {
        let (status, error) = create(bad.clone()).await;
        assert_eq!((status, &error["error"]["status"]), (400, &json!("INVALID_ARGUMENT")), "{bad}");
    }
    let big = json!({"batch": {"displayName": "x".repeat(21 << 20)}});
    let (status, error) = create(big).await;
    assert_eq!(status, 400);
    assert_eq!(error["error"]["message"], "Request payload size exceeds the limit: 20971520 bytes.");
    assert_eq!(emulator.ledger().await["jobs"], json!([]));
}

#[tokio::test]
async fn lists_are_complete_and_newest_first() {
    let emulator = Emulator::start(&[]);
    assert_eq!(emulator.get("/v1/batches").await, (200, json!({})));
    assert_eq!(emulator.upload("files/in", &jsonl(&["x"])).await.0, 200);
    for index in 0..7 {
        assert_eq!(emulator.create(&format!("job-{index}"), "files/in").await.0, 200);
    }
    let mut names = Vec::new();
    let mut path = "/v1/batches?pageSize=3".to_owned();
    loop {
        let (_, page) = emulator.get(&path).await;
        let jobs = page["operations"].as_array().unwrap().clone();
        names.extend(jobs.iter().map(|job| job["metadata"]["displayName"].as_str().unwrap().to_owned()));
        // A job that appears meanwhile does not disturb the pages that follow.
        emulator.create("later", "files/in").await;
        match page["nextPageToken"].as_str() {
            Some(token) => path = format!("/v1/batches?pageSize=3&pageToken={token}"),
            None => break,
        }
    }
    assert_eq!(names, ["job-6", "job-5", "job-4", "job-3", "job-2", "job-1", "job-0"]);
}

#[tokio::test]
async fn cancel_before_the_start_pays_nothing() {
    let emulator = Emulator::start(&["--job-time", "1h"]);
    let job = emulator.job("c", &["a", "b"]).await;
    assert_eq!(emulator.call(Method::POST, &format!("/v1/{job}:cancel"), None).await, (200, json!({})));
    let done = emulator.ended(&job).await;
    assert_eq!(done["metadata"]["state"], "BATCH_STATE_CANCELLED");
    assert_eq!(done["error"], json!({"code": 13, "message": "Batch was cancelled."}));
    assert_eq!(emulator.post(&format!("/v1/{job}:cancel"), json!({})).await.0, 400);
    assert_eq!(emulator.post("/v1/batches/none:cancel", json!({})).await.0, 404);
    assert_eq!(emulator.ledger().await["rows_paid"], 0);
}

#[tokio::test]
async fn cancel_while_running_ends_in_success_with_unserved_rows() {
    let emulator = Emulator::start(&["--job-time", "1000s"]);
    let job = emulator.job("c", &["a", "b", "c", "d"]).await;
    emulator.advance(560).await;
    assert_eq!(emulator.state(&job).await, "BATCH_STATE_RUNNING");
    emulator.post(&format!("/v1/{job}:cancel"), json!({})).await;
    let done = emulator.ended(&job).await;
    assert_eq!(done["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
    let lines = emulator.results(&done).await;
    let codes: Vec<&Value> = lines.iter().map(|line| &line["error"]["code"]).collect();
    assert_eq!(codes, [&Value::Null, &Value::Null, &json!(1), &json!(1)]);
    let ledger = emulator.ledger().await;
    assert_eq!(ledger["rows_paid"], 2);
    assert_eq!(ledger_job(&ledger, &job)["paid_rows"], 2);
}

#[tokio::test]
async fn delete_forgets_and_pays_what_was_served() {
    let emulator = Emulator::start(&["--job-time", "1000s"]);
    let job = emulator.job("d", &["a", "b", "c", "d"]).await;
    emulator.advance(560).await;
    assert_eq!(emulator.state(&job).await, "BATCH_STATE_RUNNING");
    assert_eq!(emulator.delete(&format!("/v1/{job}")).await, (200, json!({})));
    assert_eq!(emulator.get(&format!("/v1/{job}")).await.0, 404);
    assert_eq!(emulator.delete(&format!("/v1/{job}")).await.0, 404);
    assert_eq!(emulator.get("/v1/batches").await, (200, json!({})));
    emulator.advance(1000).await;
    let ledger = emulator.ledger().await;
    assert_eq!(ledger["rows_paid"], 2);
    assert_eq!(ledger_job(&ledger, &job)["deleted"], true);
    let (_, state) = emulator.get("/_emulator/state").await;
    assert_eq!((&state["jobs"], &state["files"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn a_fenced_file_means_an_unpaid_failure() {
    let emulator = Emulator::start(&["--job-time", "1000s"]);
    let early = emulator.job("early", &["a"]).await;
    let late = emulator.job("late", &["a"]).await;
    emulator.delete("/v1/files/in-early").await;
    emulator.advance(101).await;
    emulator.delete("/v1/files/in-late").await;
    let failed = emulator.ended(&early).await;
    assert_eq!(failed["metadata"]["state"], "BATCH_STATE_FAILED");
    assert_eq!(failed["error"]["code"], 5);
    emulator.advance(1000).await;
    assert_eq!(emulator.ended(&late).await["metadata"]["state"], "BATCH_STATE_SUCCEEDED", "it had begun");
    assert_eq!(emulator.ledger().await["rows_paid"], 1);
}

#[tokio::test]
async fn bad_input_files_fail_whole_and_unpaid() {
    let emulator = Emulator::start(&["--job-time", "0"]);
    for (name, content) in [
        ("files/garbage", &b"\xff\xfe not json"[..]),
        ("files/empty", b""),
        ("files/norequest", b"{\"key\":\"a\"}"),
        ("files/list", b"[]\n{}"),
    ] {
        assert_eq!(emulator.upload(name, content).await.0, 200);
        let (status, job) = emulator.create("bad", name).await;
        assert_eq!(status, 200, "{job}");
        let done = emulator.ended(job["name"].as_str().unwrap()).await;
        assert_eq!(done["metadata"]["state"], "BATCH_STATE_FAILED", "{name}");
        assert_eq!(done["error"]["code"], 3);
    }
    assert_eq!(emulator.ledger().await["rows_paid"], 0);
}

#[tokio::test]
async fn held_jobs_expire_after_48_hours() {
    let emulator = Emulator::start(&["--job-time", "0"]);
    emulator
        .faults(json!({"jobs": [{"match": {"display_name_contains": "stuck"}, "do": {"hold": "pending"}}]}))
        .await;
    let stuck = emulator.job("stuck", &["a"]).await;
    let free = emulator.job("free", &["a"]).await;
    emulator.ended(&free).await;
    assert_eq!(emulator.state(&stuck).await, "BATCH_STATE_PENDING");
    emulator.advance(48 * 3600).await;
    let done = emulator.ended(&stuck).await;
    assert_eq!(done["metadata"]["state"], "BATCH_STATE_EXPIRED");
    assert_eq!(done.get("error"), None);
    assert_eq!(emulator.ledger().await["rows_paid"], 1);
}

#[tokio::test]
async fn markers_and_limits_shape_rows() {
    let emulator = Emulator::start(&["--job-time", "0"]);
    let prompts = [
        "[[emulate:blocked]]",
        "[[emulate:truncated]] and some more",
        "[[emulate:empty]]",
        "[[emulate:missing]]",
        "[[emulate:duplicate]]",
        "[[emulate:badjson]]",
        "[[emulate:once:error:14]]",
        "[[emulate:finish:SAFETY]]",
    ];
    let job = emulator.job("m", &prompts).await;
    let done = emulator.ended(&job).await;
    let lines = emulator.results(&done).await;
    let at = |key: &str| lines.iter().filter(|line| line["key"] == key).collect::<Vec<_>>();
    assert_eq!(at("k0")[0]["response"]["promptFeedback"]["blockReason"], "SAFETY");
    assert_eq!(at("k1")[0]["response"]["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!(at("k2")[0]["response"]["candidates"][0]["content"], json!({"role": "model"}));
    assert!(at("k3").is_empty());
    assert_eq!(at("k4").len(), 2);
    assert_eq!(at("k5").len(), 0);
    assert_eq!(lines.iter().filter(|line| line.is_null()).count(), 1, "the line that is no JSON");
    assert_eq!(at("k6")[0]["error"]["code"], 14);
    assert_eq!(at("k7")[0]["response"]["candidates"][0]["finishReason"], "SAFETY");
    // The same row a second time is served.
    let (_, again) = emulator.create("again", "files/in-m").await;
    let done = emulator.ended(again["name"].as_str().unwrap()).await;
    let lines = emulator.results(&done).await;
    assert!(lines.iter().any(|line| line["key"] == "k6" && line["response"].is_object()));
    let (_, rows) = emulator.get(&format!("/_emulator/rows?job={job}")).await;
    assert_eq!(rows["rows"].as_array().unwrap().len(), 8);
    assert_eq!(rows["rows"][3]["outcome"], "missing");
    assert_eq!(rows["rows"][3]["paid"], true);
}

#[tokio::test]
async fn admins_finish_and_release_jobs() {
    let emulator = Emulator::start(&["--job-time", "1h"]);
    emulator.faults(json!({"jobs": [{"match": {"display_name_contains": "held"}, "do": {"hold": "running", "job_time_ms": 0}}]})).await;
    let one = emulator.job("one", &["a"]).await;
    let held = emulator.job("held", &["a"]).await;
    let wish = json!({"state": "FAILED", "error": {"code": 8, "message": "quota"}});
    emulator.admin(Method::POST, &format!("jobs/{}/finish", one.trim_start_matches("batches/")), wish).await;
    let done = emulator.ended(&one).await;
    assert_eq!(done["metadata"]["state"], "BATCH_STATE_FAILED");
    assert_eq!(done["error"], json!({"code": 8, "message": "quota"}));
    until("held is running", || async {
        (emulator.state(&held).await == "BATCH_STATE_RUNNING").then_some(())
    })
    .await;
    assert_eq!(emulator.admin(Method::POST, "jobs/release", json!({})).await["released"], 1);
    assert_eq!(emulator.ended(&held).await["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
}

#[tokio::test]
async fn models_are_served() {
    let emulator = Emulator::start(&[]);
    let (_, model) = emulator.get("/v1/models/gemini-3.8-flash").await;
    assert!(model["supportedGenerationMethods"].as_array().unwrap().contains(&json!("batchGenerateContent")));
    let (status, error) = emulator.get("/v1/models/gemini-0").await;
    assert_eq!((status, &error["error"]["status"]), (404, &json!("NOT_FOUND")));
    let (_, first) = emulator.get("/v1/models?pageSize=1").await;
    let token = first["nextPageToken"].as_str().unwrap();
    let (_, rest) = emulator.get(&format!("/v1/models?pageToken={token}")).await;
    let names: Vec<&Value> = rest["models"].as_array().unwrap().iter().map(|model| &model["name"]).collect();
    assert!(!names.contains(&&first["models"][0]["name"]));
    assert!(names.len() > 5);
    // Aliases are on v1beta only.
    assert_eq!(emulator.get("/v1/models/gemini-flash-latest").await.0, 404);
    assert_eq!(emulator.get("/v1beta/models/gemini-flash-latest").await.0, 200);
    let body = json!({"contents": [{"parts": [{"text": "hello world!"}]}]});
    let (_, count) = emulator.post("/v1/models/gemini-3.8-flash:countTokens", body).await;
    assert_eq!(count["totalTokens"], 3);
}
