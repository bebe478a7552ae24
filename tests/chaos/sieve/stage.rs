//! One case: a bed whose controller is led through a proxy.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

use futures::{FutureExt, StreamExt};
use gemini_operator::api::GeminiBatch;
use gemini_operator_kproxy::{Kproxy, Target};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::support::process::Process;
use crate::support::{Bed, BedOptions, CONTROLLER};

/// Doubts are over in seconds.
pub const DIVISOR: u32 = 300;
/// Cases side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 8;
pub const ROWS: u64 = 3;

pub struct Stage {
    pub proxy: Kproxy,
    pub kubeconfig: PathBuf,
    pub bed: Bed,
}

impl Stage {
    /// Without a controller; `faults` are the emulator's.
    pub async fn new(name: &str, faults: Value) -> Self {
        Self::divided(name, faults, DIVISOR).await
    }

    /// With other windows than the usual ones.
    pub async fn divided(name: &str, faults: Value, timing_divisor: u32) -> Self {
        let options = BedOptions {
            faults: Some(faults),
            timing_divisor,
            job_time: "0".into(),
            operator: false,
            ..BedOptions::default()
        };
        let bed = Bed::with(name, options).await;
        bed.make_api_key().await;
        let account = bed.dir.join(CONTROLLER);
        let proxy = Kproxy::start(&account).await.expect("a proxy starts");
        let kubeconfig = bed.dir.join("through-the-proxy");
        proxy.kubeconfig(&kubeconfig, &account).expect("the bed's folder is writable");
        Self { proxy, kubeconfig, bed }
    }

    /// A controller behind the proxy.
    pub async fn controller(&self) -> Process {
        let kubeconfig = self.kubeconfig.to_string_lossy();
        self.bed.spawn_controller("controller", &[("KUBECONFIG", &kubeconfig)]).await.0
    }

    /// A controller that the proxy knows nothing of.
    pub async fn direct_controller(&self) -> Process {
        self.bed.spawn_controller("direct", &[]).await.0
    }

    pub async fn make(&self, name: &str) -> GeminiBatch {
        let batch = batch(name);
        self.bed.batches().create(&PostParams::default(), &batch).await.expect("a batch can be made")
    }

    pub async fn wait_running(&self, name: &str) {
        let running = |batch: &GeminiBatch| {
            let phase = batch.status.as_ref().and_then(|status| status.phase);
            phase.is_some_and(|phase| format!("{phase:?}") == "Running")
        };
        self.bed.wait_batch(name, "Running", running).await;
    }

    pub async fn delete(&self, name: &str) {
        self.bed.batches().delete(name, &DeleteParams::default()).await.expect("a batch can be deleted");
    }

    /// What the controller wrote, or tried to, in this case's namespace.
    pub fn writes(&self) -> Vec<String> {
        let all = self.proxy.log().requests.into_iter();
        let ours = all.filter(|r| r.target.verb.is_mutating() && r.target.namespace == self.bed.namespace);
        ours.map(|r| describe(&r.target, &r.body)).collect()
    }
}

/// A batch of three rows that the sweep alone follows.
pub fn batch(name: &str) -> GeminiBatch {
    let requests: Vec<Value> = (1..=ROWS)
        .map(|i| json!({"key": format!("ticket-{i}"), "prompt": format!("Summarize ticket #{i}")}))
        .collect();
    let batch = json!({
        "apiVersion": "gemini-operator.io/v1alpha1",
        "kind": "GeminiBatch",
        "metadata": {"name": name},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"},
            "model": "gemini-3.5-flash",
            "input": {"inline": {"requests": requests}},
            "webhook": {"mode": "None"},
            // Divided as all windows are, and never what ends a deletion here.
            "deletionTimeout": "10h",
        },
    });
    serde_json::from_value(batch).expect("the batch is one")
}

/// `SIEVE=full`: what takes longer and says less runs too.
pub fn is_full() -> bool {
    std::env::var_os("SIEVE").is_some_and(|sieve| sieve == "full")
}

/// What a write is about, in words that are the same in every run.
pub fn describe(target: &Target, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let what = match target.resource.as_str() {
        "geminibatches/status" => {
            let status = &body["status"];
            let run = status["runs"].as_array().and_then(|runs| runs.last()).cloned().unwrap_or_default();
            let (phase, submission) = (text(&status["phase"]), text(&run["submission"]));
            let file = if status["input"]["file"].is_object() { "file" } else { "no file" };
            let proof = if run["fencedTime"].is_string() { " proven" } else { "" };
            let listings = match run["listings"]["complete"].as_u64() {
                Some(count) if ["Pending", "Fenced"].contains(&submission.as_str()) => {
                    format!("{COUNTED}{count}")
                }
                _ => String::new(),
            };
            format!(
                "{phase}, {file}, attempt {} {submission}{proof}{listings}, job {}, {}",
                run["attempt"],
                text(&run["state"]),
                reasons(status),
            )
        }
        "geminibatches" => {
            let finalizers = body["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
            format!("{finalizers} finalizers")
        }
        "events" => text(&body["reason"]),
        _ => String::new(),
    };
    format!("{target}: {what}")
}

/// In the description of a write that counts a listing. How many of them there are is the clock's to say.
pub const COUNTED: &str = ", listings ";

fn reasons(status: &Value) -> String {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let reasons = conditions.iter().map(|c| c["reason"].as_str().unwrap_or_default());
    reasons.collect::<Vec<_>>().join("/")
}

/// Runs the cases, some at a time; panics with what all of those said that failed.
pub async fn side_by_side<C, F>(cases: impl IntoIterator<Item = C>, run: impl Fn(C) -> F)
where
    C: std::fmt::Display,
    F: Future<Output = ()>,
{
    let run = &run;
    let all = futures::stream::iter(cases).map(|case| async move {
        let name = case.to_string();
        let ended = AssertUnwindSafe(run(case)).catch_unwind().await;
        ended.err().map(|panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
            format!("--- {name}\n{}", words.unwrap_or_default())
        })
    });
    let ended: Vec<Option<String>> = all.buffer_unordered(SIDE_BY_SIDE).collect().await;
    let (count, failed): (usize, Vec<String>) = (ended.len(), ended.into_iter().flatten().collect());
    assert!(failed.is_empty(), "{} of {count} cases failed\n{}", failed.len(), failed.join("\n"));
}
