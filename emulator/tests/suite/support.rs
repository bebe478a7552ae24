//! The test bed: the emulator's process, an HTTP client, and an endpoint that receives deliveries.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub const KEY: &str = "TEST_API_KEY";

/// One TLS provider for the process, whoever comes first.
pub fn provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub struct Emulator {
    child: Child,
    pub url: String,
    pub client: Client,
}

impl Emulator {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, Client::builder())
    }

    pub fn start_with(arguments: &[&str], client: reqwest::ClientBuilder) -> Self {
        provider();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gemini-emulator"))
            .args(["serve", "--listen", "127.0.0.1:0", "--seed", "1"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line:?}"));
        assert!(ready["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")));
        let url = ready["url"].as_str().unwrap().to_owned();
        Self { child, url, client: client.no_proxy().build().unwrap() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).header("x-goog-api-key", KEY)
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.request(method, path);
        let request = match body {
            None => request,
            Some(body) => request.json(&body),
        };
        answer(request).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, None).await
    }

    /// An admin call that must work.
    pub async fn admin(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, &format!("/_emulator/{path}"), Some(body)).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub async fn faults(&self, plan: Value) {
        self.admin(Method::PUT, "faults", plan).await;
    }

    pub async fn advance(&self, seconds: u64) {
        self.admin(Method::POST, "clock", json!({"advance_seconds": seconds})).await;
    }

    pub async fn ledger(&self) -> Value {
        let (status, ledger) = self.get("/_emulator/ledger").await;
        assert_eq!(status, 200);
        ledger
    }

    /// Uploads in one chunk; the file, or the error of whichever step failed.
    pub async fn upload(&self, name: &str, content: &[u8]) -> (u16, Value) {
        let start = self
            .request(Method::POST, "/upload/v1/files")
            .header("x-goog-upload-protocol", "resumable")
            .header("x-goog-upload-command", "start")
            .header("x-goog-upload-header-content-length", content.len())
            .json(&json!({"file": {"name": name, "displayName": "input.jsonl", "mimeType": "application/jsonl"}}))
            .send()
            .await
            .unwrap();
        let status = start.status().as_u16();
        let Some(url) = start.headers().get("x-goog-upload-url").cloned() else {
            return (status, start.json().await.unwrap());
        };
        answer(
            self.client
                .post(url.to_str().unwrap())
                .header("x-goog-upload-command", "upload, finalize")
                .header("x-goog-upload-offset", 0)
                .body(content.to_vec()),
        )
        .await
    }

    /// A file job of these prompts with keys k0, k1, …; its name.
    pub async fn job(&self, display_name: &str, prompts: &[&str]) -> String {
        let file = format!("files/in-{display_name}");
        let (status, answer) = self.upload(&file, &jsonl(prompts)).await;
        assert_eq!(status, 200, "{answer}");
        let (status, job) = self.create(display_name, &file).await;
        assert_eq!(status, 200, "{job}");
        job["name"].as_str().unwrap().to_owned()
    }

    pub async fn create(&self, display_name: &str, file: &str) -> (u16, Value) {
        let batch = json!({"batch": {"displayName": display_name, "inputConfig": {"fileName": file}}});
        self.post("/v1/models/gemini-3.8-flash:batchGenerateContent", batch).await
    }

    pub async fn state(&self, job: &str) -> String {
        let (_, job) = self.get(&format!("/v1/{job}")).await;
        job["metadata"]["state"].as_str().unwrap_or_default().to_owned()
    }

    pub async fn ended(&self, job: &str) -> Value {
        until(&format!("{job} ends"), || async {
            let (_, job) = self.get(&format!("/v1/{job}")).await;
            (job["done"] == true).then_some(job)
        })
        .await
    }

    /// Lines of a job's result file.
    pub async fn results(&self, job: &Value) -> Vec<Value> {
        let file = job["metadata"]["output"]["responsesFile"].as_str().unwrap();
        let answer =
            self.request(Method::GET, &format!("/v1/{file}:download?alt=media")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect()
    }

    pub async fn webhook(&self, uri: &str) -> (String, String) {
        let events = ["batch.succeeded", "batch.failed", "batch.expired"];
        let (status, hook) =
            self.post("/v1/webhooks", json!({"uri": uri, "subscribed_events": events, "name": "hook"})).await;
        assert_eq!(status, 200, "{hook}");
        let text = |name: &str| hook[name].as_str().unwrap().to_owned();
        (text("id"), text("new_signing_secret"))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub fn request(prompt: &str) -> Value {
    json!({"contents": [{"parts": [{"text": prompt}]}]})
}

pub fn jsonl(prompts: &[&str]) -> Vec<u8> {
    let lines: Vec<String> = prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| json!({"key": format!("k{index}"), "request": request(prompt)}).to_string())
        .collect();
    lines.join("\n").into_bytes()
}

/// Looks again and again until there is something, or fails after 20 s.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: axum::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether one of its signatures was made with this secret, by the published scheme.
    pub fn signed_with(&self, secret: &str) -> bool {
        let key = data_encoding::BASE64.decode(secret.trim_start_matches("whsec_").as_bytes()).unwrap();
        let content = self.content();
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key), &content);
        let wanted = format!("v1,{}", data_encoding::BASE64.encode(tag.as_ref()));
        self.header("webhook-signature").split(' ').any(|entry| entry == wanted)
    }

    /// Whether it was signed by the tutorial's scheme with this secret.
    pub fn signed_by_tutorial(&self, secret: &str) -> bool {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, &self.body);
        self.header("x-goog-signature") == data_encoding::HEXLOWER.encode(tag.as_ref())
    }

    pub fn content(&self) -> Vec<u8> {
        let start = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        [start.as_bytes(), &self.body].concat()
    }
}

/// An endpoint that keeps what it gets, and answers 204 or the statuses that it was told to.
#[derive(Clone)]
pub struct Endpoint {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
    default: u16,
}

impl Endpoint {
    pub async fn start() -> Self {
        Self::with(None, 204).await
    }

    pub async fn with(tls: Option<TlsAcceptor>, default: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            port: listener.local_addr().unwrap().port(),
            received: Arc::default(),
            answers: Arc::default(),
            default,
        };
        let this = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (this, tls) = (this.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let this = this.clone();
                        async move { this.receive(request).await }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        endpoint
    }

    async fn receive(&self, request: Request<Incoming>) -> Result<Response<Body>, axum::Error> {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(Body::new(body), 1 << 20).await?.to_vec();
        let received = Received { path: parts.uri.path().to_owned(), headers: parts.headers, body };
        self.received.lock().unwrap().push(received);
        let status = self.answers.lock().unwrap().pop_front().unwrap_or(self.default);
        Ok(Response::builder().status(status).body(Body::empty()).unwrap())
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub fn answers(&self, statuses: &[u16]) {
        self.answers.lock().unwrap().extend(statuses);
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until so many have come.
    pub async fn wait(&self, count: usize) -> Vec<Received> {
        until(&format!("{count} deliveries"), || async {
            Some(self.received()).filter(|all| all.len() >= count)
        })
        .await
    }
}
