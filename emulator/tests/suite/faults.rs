//! The fault plan about calls, rows and jobs: what the caller sees, what was really done, what the ledger says.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Emulator, jsonl, until};

const NOW: &[&str] = &["--job-time", "0"];

/// A create whose answer may never come.
async fn try_create(emulator: &Emulator, name: &str) -> Option<u16> {
    let batch = json!({"batch": {"displayName": name, "inputConfig": {"fileName": "files/in"}}});
    let request = emulator.request(Method::POST, "/v1/models/gemini-3.8-flash:batchGenerateContent");
    request.json(&batch).send().await.ok().map(|answer| answer.status().as_u16())
}

async fn jobs(emulator: &Emulator) -> usize {
    emulator.ledger().await["jobs"].as_array().unwrap().len()
}

async fn with_input(arguments: &[&str]) -> Emulator {
    let emulator = Emulator::start(arguments);
    assert_eq!(emulator.upload("files/in", &jsonl(&["a", "b", "c"])).await.0, 200);
    emulator
}

fn create_fault(fault: &Value) -> Value {
    json!({"rules": [{"name": "f", "match": {"call": "batches.create"}, "do": fault, "times": 1}]})
}

#[tokio::test]
async fn answers_get_lost_before_or_after_the_work() {
    let emulator = with_input(NOW).await;
    for (fault, answer, made) in [
        (json!({"drop": "request"}), None, 0),
        (json!({"drop": "answer"}), None, 1),
        (json!({"status": 503}), Some(503), 0),
        (json!({"status": 503, "executed": true}), Some(503), 1),
        (json!({"status": 504, "executed": true, "form": "html"}), Some(504), 1),
        (json!({"status": 429}), Some(429), 0),
        (json!({"status": 307, "headers": {"location": "/elsewhere"}}), Some(307), 0),
        (json!({"delay_ms": 30, "drop": "answer"}), None, 1),
    ] {
        let before = jobs(&emulator).await;
        emulator.faults(create_fault(&fault)).await;
        let got = if fault["status"] == 307 {
            let client =
                reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
            let url = format!("{}/v1/models/gemini-3.8-flash:batchGenerateContent", emulator.url);
            let request = client.post(url).header("x-goog-api-key", "k").body("{}");
            request.send().await.ok().map(|answer| answer.status().as_u16())
        } else {
            try_create(&emulator, "lost").await
        };
        assert_eq!(got, answer, "{fault}");
        assert_eq!(jobs(&emulator).await - before, made, "{fault}");
        let ledger = emulator.ledger().await;
        let creates = ledger["requests"].as_array().unwrap();
        let last = creates.iter().rfind(|entry| entry["call"] == "batches.create").unwrap();
        assert_eq!((&last["fault"], &last["executed"]), (&json!("f"), &json!(made == 1)), "{fault}");
        assert_eq!(last["status"], json!(answer));
    }
    assert_eq!(try_create(&emulator, "fine").await, Some(200), "`times` is over");
}

/// Calls wait at the door or with their answer in hand.
#[tokio::test]
async fn calls_are_held_until_they_are_released() {
    let emulator = &with_input(NOW).await;
    let held = |count: u64| async move {
        let state = emulator.admin(Method::GET, "state", Value::Null).await;
        (state["held_calls"] == count).then_some(())
    };
    for (fault, made) in [(json!({"hold": "request"}), 0), (json!({"hold": "answer"}), 1)] {
        let before = jobs(emulator).await;
        emulator.faults(create_fault(&fault)).await;
        let release = async {
            until("the call is held", || held(1)).await;
            assert_eq!(jobs(emulator).await - before, made, "{fault}");
            let released = emulator.admin(Method::POST, "calls/release", Value::Null).await;
            assert_eq!(released, json!({"released": 1}));
        };
        let (answer, ()) = tokio::join!(try_create(emulator, "held"), release);
        assert_eq!((answer, jobs(emulator).await - before), (Some(200), 1), "{fault}");
    }
    until("nobody is held any more", || held(0)).await;
}

#[tokio::test]
async fn work_may_be_done_late() {
    let emulator = with_input(NOW).await;
    emulator.faults(create_fault(&json!({"execute_late_ms": [20, 60]}))).await;
    assert_eq!(try_create(&emulator, "late").await, None);
    until("the job comes late", || async { (jobs(&emulator).await == 1).then_some(()) }).await;
    assert_eq!(emulator.ledger().await["jobs"][0]["executed_late"], true);
    emulator.faults(create_fault(&json!({"execute_late_calls": 2, "status": 503}))).await;
    assert_eq!(try_create(&emulator, "late").await, Some(503));
    emulator.get("/v1/batches").await;
    assert_eq!(jobs(&emulator).await, 1);
    emulator.get("/v1/batches").await;
    until("two calls later", || async { (jobs(&emulator).await == 2).then_some(()) }).await;
    // Late, and its file is gone: the fence holds.
    emulator.faults(create_fault(&json!({"execute_late_calls": 1}))).await;
    assert_eq!(try_create(&emulator, "fenced").await, None);
    emulator.delete("/v1/files/in").await;
    until("it is refused", || async {
        let ledger = emulator.ledger().await;
        let refused = |entry: &Value| entry["call"] == "batches.create" && entry["status"] == 403;
        ledger["requests"].as_array().unwrap().iter().any(refused).then_some(())
    })
    .await;
    assert_eq!(jobs(&emulator).await, 2);
}

#[tokio::test]
async fn quota_errors_may_say_when_to_come_back() {
    let emulator = with_input(NOW).await;
    let list = |fault: Value| {
        let emulator = &emulator;
        async move {
            emulator.faults(json!({"rules": [{"match": {"call": "batches.list"}, "do": fault}]})).await;
            let answer = emulator.request(Method::GET, "/v1/batches").send().await.unwrap();
            let after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            (answer.status().as_u16(), after, answer.text().await.unwrap())
        }
    };
    let (status, after, body) = list(json!({"status": 429})).await;
    assert_eq!((status, after), (429, None));
    assert!(body.contains("google.rpc.Help") && body.contains("RESOURCE_EXHAUSTED"));
    assert_eq!(list(json!({"status": 429, "retry_after": "30"})).await.1.as_deref(), Some("30"));
    let date = list(json!({"status": 429, "retry_after": "date:30"})).await.1.unwrap();
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    assert!(list(json!({"status": 429, "retry_info_s": 7})).await.2.contains("\"retryDelay\":\"7s\""));
    assert!(list(json!({"status": 400, "reason": "API_KEY_INVALID"})).await.2.contains("API_KEY_INVALID"));
    assert_eq!(list(json!({"status": 503, "form": "empty"})).await.2, "");
    assert!(list(json!({"status": 502, "form": "html"})).await.2.starts_with("<!DOCTYPE html>"));
    assert!(list(json!({"status": 409, "form": "short"})).await.2.contains("\"code\":\"already_exists\""));
    assert_eq!(list(json!({"body": "{\"trunc"})).await.2, "{\"trunc");
}

#[tokio::test]
async fn an_answer_may_say_something_else() {
    let emulator = with_input(&["--job-time", "1h"]).await;
    let faults = |set: Value| json!({"rules": [{"match": {"call": "batches.list"}, "do": {"set": set}}]});
    emulator.faults(faults(json!({"/operations/-": {"name": "?"}}))).await;
    assert_eq!(emulator.get("/v1/batches").await.1, json!({"operations": [{"name": "?"}]}), "a list is made");
    assert_eq!(try_create(&emulator, "one").await, Some(200));
    let set = json!({"/operations/-": 7, "/operations/0/metadata/state": "BATCH_STATE_X", "/operations/0/a~1b/c": 1});
    emulator.faults(faults(set)).await;
    let list = emulator.get("/v1/batches").await.1;
    assert_eq!(list["operations"].as_array().map(Vec::len), Some(2));
    assert_eq!(list["operations"][0]["metadata"]["displayName"], "one", "the rest is as it was");
    assert_eq!(list["operations"][0]["metadata"]["state"], "BATCH_STATE_X");
    assert_eq!((&list["operations"][0]["a/b"]["c"], &list["operations"][1]), (&json!(1), &json!(7)));
    let wrong = emulator.call(Method::PUT, "/_emulator/faults", Some(faults(json!({"state": 1})))).await;
    assert_eq!(wrong.0, 400, "{wrong:?}");
}

#[tokio::test]
async fn lists_may_lag() {
    let emulator = with_input(&["--job-time", "1h"]).await;
    emulator
        .faults(json!({"rules": [
            {"match": {"call": "batches.create", "nth": [1]}, "do": {"list_lag_ms": 60_000}},
            {"match": {"call": "files.list"}, "do": {"list_lag_ms": 10_000}},
        ]}))
        .await;
    assert_eq!(try_create(&emulator, "hidden").await, Some(200));
    assert_eq!(try_create(&emulator, "shown").await, Some(200));
    let listed = || async {
        let (_, page) = emulator.get("/v1/batches").await;
        page["operations"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(listed().await, 1);
    assert_eq!(emulator.get("/v1/files").await.1, json!({}));
    emulator.advance(61).await;
    assert_eq!(listed().await, 2);
    assert_eq!(emulator.get("/v1/files").await.1["files"].as_array().unwrap().len(), 1);
    emulator
        .faults(json!({"rules": [{"match": {"call": "batches.list"}, "do": {"next_page_token": "bogus"}}]}))
        .await;
    assert_eq!(emulator.get("/v1/batches").await.1["nextPageToken"], "bogus");
}

#[tokio::test]
async fn downloads_break_shrink_rot_and_drip() {
    let emulator = Emulator::start(NOW);
    let job = emulator.job("d", &["one", "two", "three"]).await;
    let job = emulator.ended(&job).await;
    let path =
        format!("/v1/{}:download?alt=media", job["metadata"]["output"]["responsesFile"].as_str().unwrap());
    let download = |fault: Value| {
        let (emulator, path) = (&emulator, &path);
        async move {
            emulator.faults(json!({"rules": [{"match": {"call": "files.download"}, "do": fault}]})).await;
            let answer = emulator.request(Method::GET, path).send().await.unwrap();
            let announced = answer.content_length().unwrap();
            (announced, answer.bytes().await)
        }
    };
    let (length, whole) = download(json!({})).await;
    let whole = whole.unwrap();
    assert_eq!(length, whole.len() as u64);
    let (announced, broken) = download(json!({"truncate_body_at": 40})).await;
    assert!(broken.is_err() && announced == length);
    let (announced, short) = download(json!({"shorten_body_to": 40})).await;
    assert_eq!((announced, &short.unwrap()[..]), (40, &whole[..40]));
    let rotten = download(json!({"flip_byte_at": 7})).await.1.unwrap();
    assert_eq!(rotten[7], whole[7] ^ 1);
    let slow = download(json!({"drip_bytes": 200, "drip_ms": 1})).await.1.unwrap();
    assert_eq!(slow, whole);
    let ledger = emulator.ledger().await;
    let served: Vec<u64> = ledger["requests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["call"] == "files.download")
        .map(|entry| entry["bytes_out"].as_u64().unwrap())
        .collect();
    assert_eq!(served, [length, 40, 40, length, length]);
}

#[tokio::test]
async fn rows_fail_by_key_index_chance_and_attempt() {
    let emulator = with_input(NOW).await;
    emulator
        .faults(json!({"rows": [
            {"match": {"key": "k0", "first_attempt_only": true}, "do": {"fail": 8}},
            {"match": {"index": [1]}, "do": "blocked"},
            {"match": {"prompt_contains": "c"}, "do": {"fail_with": {"code": 3, "message": "no"}}},
        ]}))
        .await;
    let run = || async {
        let (_, job) = emulator.create("rows", "files/in").await;
        let done = emulator.ended(job["name"].as_str().unwrap()).await;
        emulator.results(&done).await
    };
    let lines = run().await;
    assert_eq!(lines[0]["error"]["code"], 8);
    assert!(lines[1]["response"]["promptFeedback"].is_object());
    assert_eq!(lines[2]["error"], json!({"code": 3, "message": "no"}));
    assert!(run().await[0]["response"].is_object(), "the second time k0 works");
    // Chance goes by key and seed: the same rows every time.
    emulator.faults(json!({"seed": 3, "rows": [{"match": {"probability": 0.5}, "do": {"fail": 13}}]})).await;
    let names: Vec<String> = (0..40).map(|index| format!("prompt {index}")).collect();
    let prompts: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(emulator.upload("files/many", &jsonl(&prompts)).await.0, 200);
    let mut failed = Vec::new();
    for _ in 0..2 {
        let (_, job) = emulator.create("many", "files/many").await;
        let lines = emulator.results(&emulator.ended(job["name"].as_str().unwrap()).await).await;
        failed.push(lines.iter().filter(|line| line["error"].is_object()).cloned().collect::<Vec<_>>());
    }
    assert_eq!(failed[0], failed[1]);
    assert!((8..=32).contains(&failed[0].len()));
}

#[tokio::test]
async fn jobs_end_as_the_plan_says() {
    let emulator = with_input(NOW).await;
    emulator.faults(json!({
        "jobs": [
            {"match": {"display_name_contains": "fail"}, "do": {"state": "FAILED", "error": {"code": 8, "message": "q"}}},
            {"match": {"display_name_contains": "expire"}, "do": {"state": "EXPIRED"}},
            {"match": {"display_name_contains": "cancel"}, "do": {"state": "CANCELLED"}},
            {"match": {"display_name_contains": "gone"}, "do": {"lose_result": true}},
            {"match": {"display_name_contains": "mixed"}, "do": {"shuffle": true}},
        ],
        "options": {"missing_file": "fail_at_run"},
    }))
    .await;
    let mut ends = Vec::new();
    for (name, file) in
        [("fail", "in"), ("expire", "in"), ("cancel", "in"), ("gone", "in"), ("none", "nothing")]
    {
        let (status, job) = emulator.create(name, &format!("files/{file}")).await;
        assert_eq!(status, 200);
        ends.push(emulator.ended(job["name"].as_str().unwrap()).await);
    }
    let states: Vec<&str> = ends
        .iter()
        .map(|end| end["metadata"]["state"].as_str().unwrap().trim_start_matches("BATCH_STATE_"))
        .collect();
    assert_eq!(states, ["FAILED", "EXPIRED", "CANCELLED", "SUCCEEDED", "FAILED"]);
    assert_eq!(ends[0]["error"], json!({"code": 8, "message": "q"}));
    let file = ends[3]["metadata"]["output"]["responsesFile"].as_str().unwrap();
    assert_eq!(emulator.get(&format!("/v1/{file}:download?alt=media")).await.0, 403);
    assert_eq!(emulator.ledger().await["rows_paid"], 3, "only what succeeded is paid");
    let (_, job) = emulator.create("mixed", "files/in").await;
    let lines = emulator.results(&emulator.ended(job["name"].as_str().unwrap()).await).await;
    let mut keys: Vec<&str> = lines.iter().map(|line| line["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["k0", "k1", "k2"]);
}

#[tokio::test]
async fn rules_choose_by_count_project_and_content() {
    let emulator = with_input(&["--job-time", "1h", "--api-key", "TEST_API_KEY=one"]).await;
    emulator.faults(json!({"rules": [
        {"match": {"call": ["batches.get", "batches.list"], "every": 2}, "do": {"status": 500}},
        {"match": {"call": "batches.create", "body_contains": "poison", "project": "one"}, "do": {"status": 503}},
        {"match": {"call": "batches.create", "key": "TEST_API_KEY", "nth": [2]}, "do": {"status": 504}},
        {"match": {"call": "models.list", "probability": 0.0}, "do": {"status": 500}},
        {"match": {"call": "models.get", "from": 2}, "do": {"status": 403}},
    ]}))
    .await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(emulator.get("/v1/batches").await.0);
    }
    assert_eq!(seen, [200, 500, 200, 500]);
    assert_eq!(try_create(&emulator, "poison").await, Some(503));
    assert_eq!(try_create(&emulator, "one").await, Some(200));
    assert_eq!(try_create(&emulator, "two").await, Some(504));
    assert_eq!(emulator.get("/v1/models").await.0, 200);
    for wanted in [200, 403, 403] {
        assert_eq!(emulator.get("/v1/models/gemini-3.8-flash").await.0, wanted);
    }
    let (_, plan) = emulator.get("/_emulator/faults").await;
    assert_eq!((&plan["rules"][0]["seen"], &plan["rules"][0]["fired"]), (&json!(4), &json!(2)));
    assert!(!plan.to_string().contains("TEST_API_KEY"), "keys in a plan are not shown");
    emulator.admin(Method::POST, "faults", json!({"rules": [{"do": {"status": 501}}]})).await;
    assert_eq!(emulator.get("/v1/models").await.0, 501);
    emulator.admin(Method::DELETE, "faults", json!({})).await;
    assert_eq!(emulator.get("/v1/models").await.0, 200);
}

#[tokio::test]
async fn more_open_jobs_than_allowed_meet_the_quota() {
    let emulator = with_input(&["--job-time", "1h"]).await;
    emulator.faults(json!({"options": {"max_concurrent_batches": 1}})).await;
    assert_eq!(try_create(&emulator, "one").await, Some(200));
    assert_eq!(try_create(&emulator, "two").await, Some(429));
}

#[tokio::test]
async fn misspelt_plans_are_refused() {
    let emulator = Emulator::start(&[]);
    for (plan, part) in [
        (json!({"rules": [{"do": {"dely_ms": 5}}]}), "dely_ms"),
        (json!({"rules": [{"match": {"call": "batches.creat"}, "do": {}}]}), "batches.creat"),
        (json!({"rule": []}), "rule"),
        (json!({"rules": [{"do": {"status": 99}}]}), "99"),
        (json!({"rows": [{"match": {"probability": 2.0}, "do": "blocked"}]}), "probability"),
        (json!({"rows": [{"do": "explode"}]}), "explode"),
        (json!({"rules": [{"match": {}}]}), "do"),
    ] {
        let (status, error) = emulator.call(Method::PUT, "/_emulator/faults", Some(plan.clone())).await;
        assert_eq!(status, 400, "{plan}");
        assert!(error["error"].as_str().unwrap().contains(part), "{error}");
    }
}

#[tokio::test]
async fn the_ledger_counts_and_continues() {
    let emulator = with_input(NOW).await;
    emulator.get("/v1/batches").await;
    let ledger = emulator.ledger().await;
    assert_eq!(
        ledger["counts"],
        json!({"files.upload_start": 1, "files.upload_chunk": 1, "batches.list": 1})
    );
    let last = ledger["last"].as_u64().unwrap();
    emulator.get("/v1/models").await;
    let (_, news) = emulator.get(&format!("/_emulator/ledger?since={last}")).await;
    let news = news["requests"].as_array().unwrap();
    assert_eq!(news.len(), 1);
    assert_eq!((&news[0]["call"], &news[0]["path"]), (&json!("models.list"), &json!("/v1/models")));
    assert_eq!(emulator.get("/_emulator/ledger?since=x").await.0, 400);
}
