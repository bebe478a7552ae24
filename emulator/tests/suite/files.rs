//! Files: the resumable protocol, names, expiry, download.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Emulator, answer};

async fn start(emulator: &Emulator, length: usize, file: Value) -> String {
    let reply = emulator
        .request(Method::POST, "/upload/v1beta/files")
        .header("x-goog-upload-protocol", "resumable")
        .header("x-goog-upload-command", "start")
        .header("x-goog-upload-header-content-length", length)
        .header("x-goog-upload-header-content-type", "application/jsonl")
        .json(&json!({ "file": file }))
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["x-goog-upload-status"], "active");
    reply.headers()["x-goog-upload-url"].to_str().unwrap().to_owned()
}

async fn chunk(
    emulator: &Emulator,
    url: &str,
    command: &str,
    offset: usize,
    bytes: &[u8],
) -> (u16, String, Value) {
    let request = emulator.client.post(url).header("x-goog-upload-command", command);
    let reply = request.header("x-goog-upload-offset", offset).body(bytes.to_vec()).send().await.unwrap();
    let state = reply.headers().get("x-goog-upload-status").map(|value| value.to_str().unwrap().to_owned());
    let status = reply.status().as_u16();
    let text = reply.text().await.unwrap();
    (status, state.unwrap_or_default(), serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_file_goes_up_in_chunks_and_resumes() {
    let emulator = Emulator::start(&[]);
    // As the JS SDK writes it: camelCase, the size a string.
    let url = start(&emulator, 10, json!({"displayName": "d", "mimeType": "jsonl", "sizeBytes": "10"})).await;
    assert!(url.starts_with(&emulator.url), "the upload stays on the caller's host: {url}");
    assert_eq!(chunk(&emulator, &url, "upload", 0, b"01234").await.1, "active");
    assert_eq!(chunk(&emulator, &url, "upload", 0, b"01234").await.0, 400, "a wrong offset is refused");
    let query = emulator.client.post(&url).header("x-goog-upload-command", "query").send().await.unwrap();
    assert_eq!(query.headers()["x-goog-upload-size-received"], "5");
    assert_eq!(chunk(&emulator, &url, "upload, finalize", 5, b"567").await.0, 400, "less than announced");
    let (status, state, file) = chunk(&emulator, &url, "upload, finalize", 8, b"89").await;
    assert_eq!((status, state.as_str()), (200, "final"));
    let file = &file["file"];
    assert_eq!(file["sizeBytes"], "10");
    assert_eq!(file["mimeType"], "jsonl");
    assert_eq!(file["source"], "UPLOADED");
    // base64 of the hexadecimal text of sha256("0123456789")
    let hash = "ODRkODk4NzdmMGQ0MDQxZWZiNmJmOTFhMTZmMDI0OGYyZmQ1NzNlNmFmMDVjMTlmOTZiZWRiOWY4ODJmNzg4Mg==";
    assert_eq!(file["sha256Hash"], hash);
    let (status, again) = emulator.get(&format!("/v1beta/{}", file["name"].as_str().unwrap())).await;
    assert_eq!((status, &again), (200, file));
    assert_eq!(chunk(&emulator, &url, "upload, finalize", 0, b"").await.0, 400, "an upload ends once");
}

#[tokio::test]
async fn names_are_chosen_by_the_caller_and_unique() {
    let emulator = Emulator::start(&[]);
    assert_eq!(emulator.upload("files/gb-mine-1", b"{}").await.0, 200);
    let (status, error) = emulator.upload("files/gb-mine-1", b"{}").await;
    assert_eq!((status, &error["error"]["status"]), (409, &json!("ALREADY_EXISTS")));
    for bad in ["files/UPPER", "files/-a", "files/a b", "files/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        assert_eq!(emulator.upload(bad, b"{}").await.0, 400, "{bad}");
    }
    assert_eq!(emulator.delete("/v1/files/gb-mine-1").await, (200, json!({})));
    let (status, error) = emulator.get("/v1/files/gb-mine-1").await;
    assert_eq!((status, &error["error"]["status"]), (403, &json!("PERMISSION_DENIED")));
    assert_eq!(emulator.delete("/v1/files/gb-mine-1").await.0, 403);
}

#[tokio::test]
async fn another_project_sees_nothing() {
    let emulator = Emulator::start(&[
        "--api-key",
        "TEST_API_KEY=one",
        "--api-key",
        "other=two",
        "--api-key",
        "twin=one",
    ]);
    assert_eq!(emulator.upload("files/mine", b"{}").await.0, 200);
    let as_key = |key: &str, path: &str| {
        answer(emulator.client.get(format!("{}{path}", emulator.url)).header("x-goog-api-key", key))
    };
    assert_eq!(as_key("other", "/v1/files/mine").await.0, 403);
    assert_eq!(as_key("other", "/v1/files").await, (200, json!({})));
    assert_eq!(as_key("twin", "/v1/files/mine").await.0, 200, "two keys of one project");
    let (status, error) = as_key("nobody", "/v1/files/mine").await;
    assert_eq!(status, 400);
    assert_eq!(error["error"]["details"][0]["reason"], "API_KEY_INVALID");
    assert_eq!(
        answer(emulator.client.get(format!("{}/v1/files", emulator.url))).await.0,
        403,
        "no key at all"
    );
}

#[tokio::test]
async fn files_end_after_48_hours_and_are_listed_in_pages() {
    let emulator = Emulator::start(&[]);
    for index in 0..5 {
        assert_eq!(emulator.upload(&format!("files/f{index}"), b"{}").await.0, 200);
    }
    let mut names = Vec::new();
    let mut path = "/v1/files?pageSize=2".to_owned();
    loop {
        let (_, page) = emulator.get(&path).await;
        let files = page["files"].as_array().unwrap().clone();
        assert!(files.len() <= 2);
        names.extend(files.iter().map(|file| file["name"].as_str().unwrap().to_owned()));
        match page["nextPageToken"].as_str() {
            Some(token) => path = format!("/v1/files?pageSize=2&pageToken={token}"),
            None => break,
        }
    }
    assert_eq!(names, ["files/f4", "files/f3", "files/f2", "files/f1", "files/f0"]);
    assert_eq!(emulator.get("/v1/files?pageToken=nonsense").await.0, 400);
    emulator.advance(48 * 3600 - 60).await;
    assert_eq!(emulator.get("/v1/files/f0").await.0, 200);
    emulator.advance(61).await;
    assert_eq!(emulator.get("/v1/files/f0").await.0, 403);
    assert_eq!(emulator.get("/v1/files").await, (200, json!({})));
}

#[tokio::test]
async fn results_are_downloaded_whole_or_in_parts() {
    let emulator = Emulator::start(&["--job-time", "0"]);
    let job = emulator.job("d", &["one", "two"]).await;
    let job = emulator.ended(&job).await;
    let file = job["metadata"]["output"]["responsesFile"].as_str().unwrap();
    let (_, meta) = emulator.get(&format!("/v1/{file}")).await;
    assert_eq!(meta["source"], "GENERATED");
    assert_eq!(meta["downloadUri"], format!("{}/download/v1/{file}:download?alt=media", emulator.url));
    let get = |path: String, range: &str| {
        let request = emulator.request(Method::GET, &path);
        let request = if range.is_empty() { request } else { request.header("range", range) };
        async move {
            let reply = request.send().await.unwrap();
            (reply.status().as_u16(), reply.headers().clone(), reply.bytes().await.unwrap())
        }
    };
    let (status, headers, whole) = get(format!("/v1/{file}:download?alt=media"), "").await;
    assert_eq!(status, 200);
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(meta["sizeBytes"], whole.len().to_string());
    let (_, _, other) = get(format!("/download/v1beta/{file}:download?alt=media"), "").await;
    assert_eq!(whole, other);
    let (status, headers, part) = get(format!("/v1/{file}:download?alt=media"), "bytes=5-").await;
    assert_eq!((status, &part[..]), (206, &whole[5..]));
    assert_eq!(headers["content-range"], format!("bytes 5-{}/{}", whole.len() - 1, whole.len()));
    assert_eq!(get(format!("/v1/{file}:download?alt=media"), "bytes=999999-").await.0, 416);
    assert_eq!(
        get("/v1/files/in-d:download?alt=media".into(), "").await.0,
        400,
        "uploads cannot be downloaded"
    );
}
