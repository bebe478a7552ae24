//! The emulator: its process, its admin API and what its ledger says.

use std::net::SocketAddr;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::process::{Process, command};
use super::tls::{self, Certificate};
use super::{PATIENCE, poll, tools};

/// How an emulator is started.
#[derive(Debug)]
pub struct EmulatorOptions<'a> {
    pub listen: &'a str,
    /// What it shows to clients; without it, it speaks plain HTTP.
    pub tls: Option<&'a Certificate>,
    pub api_key: &'a str,
    pub job_time: &'a str,
    /// `HOST:PORT` of webhooks, and where that is.
    pub resolve: (&'a str, SocketAddr),
    pub webhook_ca: &'a Path,
    /// A fault plan.
    pub faults: Option<&'a Value>,
    /// The project of `api_key`.
    pub project: &'a str,
    /// More keys, each with its project.
    pub more_api_keys: &'a [(String, String)],
    /// Deliveries to a job's own address are JWTs, and have no Ed25519 signatures.
    pub jwt: bool,
}

/// A running emulator.
pub struct Emulator {
    pub process: Process,
    /// Base URL, without a slash at its end.
    pub url: String,
    pub api_key: String,
    http: reqwest::Client,
}

impl Emulator {
    pub async fn start(dir: &Path, options: &EmulatorOptions<'_>) -> Self {
        let mut command = command(&tools::emulator());
        let (host, address) = options.resolve;
        command
            .args(["serve", "--listen", options.listen, "--seed", "1"])
            .args(["--api-key", &format!("{}={}", options.api_key, options.project)])
            .args(["--job-time", options.job_time])
            .args(["--resolve", &format!("{host}={address}")])
            .arg("--webhook-ca")
            .arg(options.webhook_ca);
        for (key, project) in options.more_api_keys {
            command.args(["--api-key", &format!("{key}={project}")]);
        }
        // In its document there are keys of both kinds, whichever sign.
        command.args(["--dynamic-signature", if options.jwt { "jwt" } else { "v1a" }]);
        for key in tls::rsa_keys(dir) {
            command.arg("--jwt-key").arg(key);
        }
        let mut http = reqwest::Client::builder().no_proxy();
        if let Some(tls) = options.tls {
            command.arg("--tls-cert").arg(&tls.cert).arg("--tls-key").arg(&tls.key);
            let ca = std::fs::read(&tls.ca).expect("the certificate was just made");
            http = http.add_root_certificate(reqwest::Certificate::from_pem(&ca).expect("it is one"));
        }
        if let Some(faults) = options.faults {
            let path = dir.join("faults.json");
            std::fs::write(&path, faults.to_string()).expect("the bed's folder is writable");
            command.arg("--faults").arg(path);
        }
        let mut process = Process::start("emulator", dir, command).expect("the emulator starts");
        let hello = process.hello().await;
        let url = hello["url"].as_str().expect("the emulator says its URL").trim_end_matches('/').to_owned();
        let http = http.build().expect("a client can be made");
        Self { process, url, api_key: options.api_key.to_owned(), http }
    }

    /// The ledger as it stands.
    pub async fn ledger(&self) -> Ledger {
        Ledger(self.admin("GET", "ledger", None).await)
    }

    /// What was filed in the ledger after the entry with this number.
    pub async fn ledger_since(&self, number: u64) -> Ledger {
        Ledger(self.admin("GET", &format!("ledger?since={number}"), None).await)
    }

    /// The ledger without what stands in it: how often each call was made, the calls under way, and all jobs.
    pub async fn counts(&self) -> Ledger {
        Ledger(self.admin("GET", &format!("ledger?since={}", u64::MAX), None).await)
    }

    /// Replaces the fault plan.
    pub async fn set_faults(&self, plan: &Value) {
        self.admin("PUT", "faults", Some(plan)).await;
    }

    /// Adds rules to the fault plan.
    pub async fn add_faults(&self, plan: &Value) {
        self.admin("POST", "faults", Some(plan)).await;
    }

    /// Moves the emulator's clock forward.
    pub async fn advance_clock(&self, seconds: u64) {
        self.admin("POST", "clock", Some(&json!({ "advance_seconds": seconds }))).await;
    }

    /// Lets jobs go on that the fault plan holds.
    pub async fn release_jobs(&self) {
        self.admin("POST", "jobs/release", Some(&json!({}))).await;
    }

    /// Ends a job well, at once, whatever holds it.
    pub async fn finish_job(&self, name: &str) {
        let id = name.trim_start_matches("batches/");
        self.admin("POST", &format!("jobs/{id}/finish"), Some(&json!({}))).await;
    }

    /// What Gemini does to a registration by itself.
    pub async fn set_webhook_state(&self, id: &str, state: &str) {
        self.admin("POST", &format!("webhooks/{id}/state"), Some(&json!({ "state": state }))).await;
    }

    /// Lets one job go on that the fault plan holds.
    pub async fn release_job(&self, name: &str) {
        self.admin("POST", "jobs/release", Some(&json!({ "job": name }))).await;
    }

    /// Sends an event to a webhook once, signed as the webhook is at this moment: the status of the answer, or why
    /// there was none.
    pub async fn deliver(&self, webhook: &str, id: &str, event: &Value) -> Result<u64, String> {
        let wish = json!({"webhook": webhook, "id": id, "body": event});
        let sent = self.admin("POST", "deliveries", Some(&wish)).await;
        let problem = || sent["error"].as_str().unwrap_or("no answer").to_owned();
        sent["status"].as_u64().ok_or_else(problem)
    }

    /// Where the public keys of its deliveries are.
    pub fn jwks_url(&self) -> String {
        format!("{}/.well-known/jwks.json", self.url)
    }

    /// The oldest key of this kind of signatures (`v1a`, `jwt`) goes, and a new one signs.
    pub async fn rotate_keys(&self, signature: &str) -> Value {
        self.admin("POST", "jwks/rotate", Some(&json!({ "signature": signature }))).await
    }

    /// Returns when the fault plan holds this many calls.
    pub async fn wait_held(&self, calls: u64) {
        let held = poll(PATIENCE, async || match self.state().await["held_calls"].as_u64() {
            Some(held) if held == calls => Ok(()),
            other => Err(other),
        });
        held.await.unwrap_or_else(|held| panic!("{held:?} calls are held, not {calls}"));
    }

    /// Lets calls go on that the fault plan holds.
    pub async fn release_calls(&self) {
        self.admin("POST", "calls/release", Some(&json!({}))).await;
    }

    /// What is there now: jobs, files, webhooks.
    pub async fn state(&self) -> Value {
        self.admin("GET", "state", None).await
    }

    async fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let url = format!("{}/_emulator/{path}", self.url);
        let method = method.parse().expect("the method is valid");
        let mut request = self.http.request(method, &url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        assert!(status.is_success(), "{url}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A call of the API, as somebody else with a key of the project would make it.
    pub async fn call(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Value {
        let method = method.parse().expect("the method is valid");
        let request = self.http.request(method, format!("{}{path}", self.url)).header("x-goog-api-key", key);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        request.send().await.expect("the emulator answers").json().await.expect("an answer is JSON")
    }

    /// The registrations that a key sees.
    pub async fn registrations(&self, key: &str) -> Vec<Value> {
        let answer = self.call(key, "GET", "/v1beta/webhooks?page_size=1000", None).await;
        answer["webhooks"].as_array().cloned().unwrap_or_default()
    }

    /// What the API itself lists, for a look at what is left (`batches`, `files`, `webhooks`). It stands in
    /// the ledger.
    pub async fn list(&self, collection: &str) -> Vec<Value> {
        let url = format!("{}/v1beta/{collection}?pageSize=1000", self.url);
        let answer = self.http.get(&url).header("x-goog-api-key", &self.api_key).send().await;
        let answer: Value = answer.expect("the emulator answers").json().await.expect("a list is JSON");
        let field = if collection == "batches" { "operations" } else { collection };
        answer[field].as_array().cloned().unwrap_or_default()
    }
}

/// A time in the ledger.
pub fn time(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).expect("the ledger has times")
}

/// What happened at the emulator.
#[derive(Debug)]
pub struct Ledger(pub Value);

impl Ledger {
    pub fn entries(&self, field: &str) -> &[Value] {
        self.0[field].as_array().map_or(&[], Vec::as_slice)
    }

    /// Calls by their name (`batches.create`, …), executed or not.
    pub fn calls(&self, name: &str) -> usize {
        self.entries("requests").iter().filter(|entry| entry["call"] == name).count()
    }

    /// Calls that were executed, whatever was answered.
    pub fn executed(&self, name: &str) -> usize {
        self.entries("requests")
            .iter()
            .filter(|entry| entry["call"] == name && entry["executed"] == true)
            .count()
    }

    /// When calls of this name were made, by the emulator's clock, in order.
    pub fn times(&self, name: &str) -> Vec<Timestamp> {
        self.entries("requests")
            .iter()
            .filter(|entry| entry["call"] == name)
            .map(|e| time(&e["time"]))
            .collect()
    }

    /// Calls by their name, from the counters.
    pub fn counted(&self, name: &str) -> usize {
        self.0["counts"][name].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
    }

    /// Calls by their name that are under way, or are to be executed late.
    pub fn open(&self, name: &str) -> usize {
        self.entries("open").iter().filter(|entry| entry["call"] == name).count()
    }

    /// Jobs that were made, deleted ones included.
    pub fn jobs(&self) -> &[Value] {
        self.entries("jobs")
    }

    /// Calls about one thing, by a part of their path.
    pub fn calls_about(&self, name: &str, path: &str) -> usize {
        let about = |entry: &&Value| {
            entry["call"] == name && entry["path"].as_str().is_some_and(|entry| entry.contains(path))
        };
        self.entries("requests").iter().filter(about).count()
    }

    /// All calls, as `(name, sequence number)`, in order.
    pub fn sequence(&self) -> Vec<(String, u64)> {
        let all = self.entries("requests").iter();
        all.map(|e| {
            (e["call"].as_str().unwrap_or_default().to_owned(), e["seq"].as_u64().unwrap_or_default())
        })
        .collect()
    }

    /// Attempts to deliver an event of this type.
    pub fn deliveries(&self, event_type: &str) -> Vec<&Value> {
        self.entries("deliveries").iter().filter(|entry| entry["event_type"] == event_type).collect()
    }

    /// Events of this type that an endpoint took.
    pub fn delivered(&self, event_type: &str) -> usize {
        self.deliveries(event_type).iter().filter(|entry| entry["outcome"] == "delivered").count()
    }

    /// Rows that were paid for.
    pub fn rows_paid(&self) -> u64 {
        self.0["rows_paid"].as_u64().unwrap_or_default()
    }
}
