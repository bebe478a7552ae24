//! The resumable protocol against a server that keeps what it gets, and breaks where it is told to.

use bytes::Bytes;
use serde_json::json;

use super::*;

const MIB: usize = 1024 * 1024;

/// What goes wrong with one request of the upload.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// It arrives, the answer does not.
    AnswerLost,
    /// It arrives, a front end answers.
    Html503,
    /// Success without the protocol's status header.
    NoStatus,
}

/// A server side of the protocol; `faults` are by request number (0 is the start).
async fn server(faults: &'static [(usize, Fault)]) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let stored = Arc::new(Mutex::new(Vec::new()));
    let is_final = Arc::new(Mutex::new(false));
    let (store, base) = (stored.clone(), Arc::new(Mutex::new(String::new())));
    let own = base.clone();
    let server = Server::start(move |n, seen| {
        let fault = faults.iter().find(|(at, _)| *at == n).map(|(_, f)| *f);
        let mut store = store.lock().unwrap();
        let mut is_final = is_final.lock().unwrap();
        let file = json!({ "name": "files/gb-k-n", "sizeBytes": store.len().to_string(), "state": "ACTIVE" });
        let answer = match seen.header("x-goog-upload-command") {
            "start" => {
                let url = format!("{}/upload/v1beta/files?upload_id=SECRET", own.lock().unwrap());
                return reply(200, &[("x-goog-upload-url", &url), ("x-goog-upload-status", "active")], "");
            }
            "query" if *is_final => reply(200, &[("x-goog-upload-status", "final")], ""),
            "query" => {
                let size = store.len().to_string();
                reply(200, &[("x-goog-upload-status", "active"), ("x-goog-upload-size-received", &size)], "")
            }
            "" => ok(&file.to_string()),
            command => {
                assert_eq!(
                    seen.header("x-goog-upload-offset"),
                    store.len().to_string(),
                    "no byte twice, none left out"
                );
                store.extend_from_slice(&seen.body);
                if command == "upload, finalize" {
                    *is_final = true;
                    reply(200, &[("x-goog-upload-status", "final")], &json!({ "file": file }).to_string())
                } else {
                    reply(200, &[("x-goog-upload-status", "active")], "")
                }
            }
        };
        match fault {
            None => answer,
            Some(Fault::AnswerLost) => Do::Reset,
            Some(Fault::Html503) => reply(503, &[], "<html>"),
            Some(Fault::NoStatus) => ok(""),
        }
    })
    .await;
    *base.lock().unwrap() = server.base.clone();
    (server, stored)
}

fn patient(base: &str) -> Gemini {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings { base_url: base.into(), api_version: "v1beta".into(), extra_ca_pem: None };
    // The size of the chunks, not their speed, is the point here.
    let timeouts = Timeouts { resume: Duration::from_millis(1), ..Timeouts::default() };
    Gemini::with_timeouts(&settings, timeouts).unwrap()
}

async fn upload(server: &Server, body: &Bytes) -> Result<File, Error> {
    patient(&server.base).upload(&key(), "files/gb-k-n", "gb1.K.1.t", body.clone()).await
}

fn content(len: usize) -> Bytes {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn chunks_of_8_mib_the_last_one_finalises() {
    for (len, chunks) in [(0, 1), (1, 1), (8 * MIB, 1), (8 * MIB + 1, 2), (19 * MIB, 3)] {
        let (server, stored) = server(&[]).await;
        let file = upload(&server, &content(len)).await.unwrap();
        assert_eq!(file.name, "files/gb-k-n");
        assert!(*stored.lock().unwrap() == content(len), "{len}");
        assert_eq!(server.requests().len(), 1 + chunks, "{len}");
    }
}

#[tokio::test]
async fn the_start_is_what_the_official_clients_send() {
    let (server, _) = server(&[]).await;
    upload(&server, &content(87)).await.unwrap();
    let start = server.request(0);
    assert_eq!((start.method.as_str(), start.target.as_str()), ("POST", "/upload/v1beta/files"));
    assert_eq!(start.header("x-goog-upload-protocol"), "resumable");
    assert_eq!(start.header("x-goog-upload-header-content-length"), "87");
    assert_eq!(start.header("x-goog-upload-header-content-type"), "application/jsonl");
    assert_eq!(
        start.json(),
        json!({ "file": { "name": "files/gb-k-n", "displayName": "gb1.K.1.t", "mimeType": "application/jsonl",
                          "sizeBytes": "87" } })
    );
    let chunk = server.request(1);
    assert_eq!(chunk.target, "/upload/v1beta/files?upload_id=SECRET");
    assert_eq!(chunk.header("x-goog-upload-command"), "upload, finalize");
    assert_eq!(chunk.header("x-goog-api-key"), "", "the upload id is the credential");
}

#[tokio::test]
async fn it_resumes_where_the_server_is() {
    let everywhere: [&[(usize, Fault)]; 6] = [
        &[(1, Fault::AnswerLost)],
        &[(2, Fault::Html503)],
        &[(2, Fault::NoStatus)],
        // The finalise arrived: a query says so, and the file is read.
        &[(3, Fault::AnswerLost)],
        // The query breaks as well.
        &[(1, Fault::AnswerLost), (2, Fault::Html503)],
        &[(1, Fault::Html503), (3, Fault::AnswerLost), (5, Fault::NoStatus)],
    ];
    for faults in everywhere {
        let (server, stored) = server(faults).await;
        let file = upload(&server, &content(19 * MIB)).await.unwrap();
        assert_eq!(file.name, "files/gb-k-n");
        assert!(*stored.lock().unwrap() == content(19 * MIB));
    }
}

#[tokio::test]
async fn it_gives_up_after_some_failures_without_progress() {
    let server = Server::start(|n, seen| {
        let url = format!("http://{}/up", seen.header("host"));
        if n == 0 { reply(200, &[("x-goog-upload-url", &url)], "") } else { reply(503, &[], "") }
    })
    .await;
    assert_eq!(upload(&server, &content(10)).await.unwrap_err().class, Class::Transient);
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn a_session_that_is_gone_is_not_resumed() {
    let server = Server::start(|n, seen| {
        let url = format!("http://{}/up", seen.header("host"));
        if n == 0 { reply(200, &[("x-goog-upload-url", &url)], "") } else { reply(404, &[], "<html>") }
    })
    .await;
    assert_eq!(upload(&server, &content(10)).await.unwrap_err().class, Class::Transient);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn prompts_go_nowhere_but_to_gemini() {
    for elsewhere in
        ["https://evil.example/up", "http://127.0.0.1:1/up", "http://127.0.0.1/up", "ftp://127.0.0.1/up"]
    {
        let server = Server::start(move |_, _| reply(200, &[("x-goog-upload-url", elsewhere)], "")).await;
        let error = upload(&server, &content(10)).await.unwrap_err();
        assert_eq!((error.class, server.requests().len()), (Class::Rejected, 1), "{elsewhere}");
    }
    let server = Server::start(|_, _| ok("{}")).await;
    assert_eq!(upload(&server, &content(10)).await.unwrap_err().class, Class::Transient);
}
