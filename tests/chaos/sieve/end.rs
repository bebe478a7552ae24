//! How a case ended, without what is another thing in every run.

use std::collections::BTreeSet;

use gemini_operator::api::GeminiBatch;
use serde_json::{Map, Value, json};

use super::stage::{ROWS, Stage};
use crate::support::{PATIENCE, poll};

/// Times, random numbers, names that others give, and how many tries it took.
const OF_THE_RUN: [&str; 21] = [
    "createTime",
    "startTime",
    "submittedTime",
    "completionTime",
    "resultsExpireTime",
    "expireTime",
    "lastTransitionTime",
    "intentTime",
    "submitTime",
    "endTime",
    "fencedTime",
    "fencedFiles",
    "fencedKeyFingerprint",
    "keyFingerprint",
    "listings",
    "nonce",
    "holder",
    "marker",
    "uid",
    "submitKey",
    "attempt",
];

/// What must be the same with and without a fault.
#[derive(Clone, Debug)]
pub struct End {
    pub spec: Value,
    pub status: Value,
    pub answers: String,
    pub errors: String,
    pub manifest: Value,
}

impl End {
    /// Of a batch that has ended.
    pub async fn of(stage: &Stage, batch: &GeminiBatch) -> Self {
        let name = batch.metadata.name.clone().unwrap_or_default();
        let results = stage.bed.results(&name).await;
        let object = serde_json::to_value(batch).expect("an object is JSON");
        let words = words(&stage.bed.namespace, &object);
        let mut status = object["status"].clone();
        by_type(&mut status["conditions"]);
        for run in status["runs"].as_array_mut().into_iter().flatten() {
            // It speaks of the attempts.
            run.as_object_mut().and_then(|run| run.remove("message"));
        }
        let manifest = serde_json::from_str(&results.manifest).unwrap_or_default();
        Self {
            spec: object["spec"].clone(),
            status: normal(status, &words),
            answers: results.answers,
            errors: results.errors,
            manifest: normal(manifest, &words),
        }
    }

    /// Where it differs from another end.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let whole = |end: &Self| {
            json!({
                "spec": end.spec, "status": end.status, "answers": end.answers, "errors": end.errors,
                "manifest": end.manifest,
            })
        };
        let mut found = vec![];
        differ("", &whole(self), &whole(other), &mut found);
        found
    }
}

fn differ(place: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let of = |fields: &Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                differ(&format!("{place}/{name}"), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{place}/{i}"), a, b, found);
            }
        }
        _ if a != b => found.push(format!("{place}: {a} instead of {b}")),
        _ => {}
    }
}

/// Names of this run, and what stands for them.
fn words(namespace: &str, object: &Value) -> Vec<(String, &'static str)> {
    let run = object["status"]["runs"].as_array().and_then(|runs| runs.last()).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let mut words = vec![
        (text(&run["remoteName"]), "batches/JOB"),
        (text(&run["remoteName"]).replace("batches/", ""), "JOB"),
        (text(&run["inputFile"]), "files/INPUT"),
        (text(&object["status"]["input"]["file"]["name"]), "files/INPUT"),
        (text(&metadata["uid"]), "UID"),
        (namespace.to_owned(), "NAMESPACE"),
        (text(&metadata["name"]), "BATCH"),
    ];
    words.retain(|(word, _)| !word.is_empty());
    words
}

fn by_type(conditions: &mut Value) {
    for condition in conditions.as_array_mut().into_iter().flatten() {
        // Found in a listing or told by the answer: the same job.
        if condition["type"] == "Submitted" && condition["reason"] == "Adopted" {
            condition["reason"] = json!("Submitted");
            let message = condition["message"].as_str().unwrap_or_default();
            let job = message.rsplit(' ').next().unwrap_or_default().to_owned();
            condition["message"] = json!(job);
        }
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.sort_by_key(|condition| condition["type"].to_string());
    }
}

fn normal(value: Value, words: &[(String, &str)]) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, _)| !is_of_the_run(name));
            Value::Object(kept.map(|(name, value)| (name, normal(value, words))).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(|item| normal(item, words)).collect(),
        Value::String(text) => {
            Value::String(words.iter().fold(text, |text, (word, with)| text.replace(word, with)))
        }
        other => other,
    }
}

fn is_of_the_run(field: &str) -> bool {
    OF_THE_RUN.contains(&field)
}

/// One job was made and paid for once.
pub async fn assert_one_job(stage: &Stage) {
    let ledger = stage.bed.ledger().await;
    let made = (ledger.jobs().len(), ledger.rows_paid());
    assert_eq!(made, (1, ROWS), "one job: {:?}\n{}", ledger.sequence(), stage.bed.log_tails());
}

/// Deleted, the batch takes along all that it had at Gemini.
pub async fn assert_leaves_nothing(stage: &Stage, name: &str) {
    stage.bed.wait_gone(stage.bed.batches(), name).await;
    let events = stage.bed.events(name).await;
    assert!(events.iter().all(|(_, reason, _)| reason != "DeletionTimeout"), "{events:?}");
    // A controller with an old view may just be tidying up behind itself.
    let left = poll(PATIENCE, async || {
        let there = stage.bed.emulator.state().await;
        let left = (there["jobs"].as_u64(), there["files"].as_u64());
        if left == (Some(0), Some(0)) { Ok(()) } else { Err(left) }
    });
    if let Err(left) = left.await {
        let files = stage.bed.emulator.list("files").await;
        panic!("jobs and files are left at Gemini: {left:?} {files:#?}\n{}", stage.bed.log_tails());
    }
}
