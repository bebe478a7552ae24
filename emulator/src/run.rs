//! Running a job's rows: the part that takes time, done outside the lock.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::digest::{hex, sha256, word};
use crate::jobs::{Input, Job};
use crate::json::get;
use crate::matcher::RowFacts;
use crate::rows::{Kind, Outcome, Produced, Row, marker, produce, prompt};
use crate::state::App;

/// What a run needs to know of its job.
#[derive(Debug)]
pub struct RunInput {
    pub job: String,
    kind: Kind,
    model: String,
    project: String,
    display_name: String,
    rows: RunRows,
    /// Rows after this many were not served (cancelled).
    served: Option<u64>,
    shuffle: bool,
    seed: u64,
}

#[derive(Debug)]
enum RunRows {
    File(Bytes),
    Inline(std::sync::Arc<Vec<Value>>),
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct LedgerRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub index: u64,
    pub outcome: &'static str,
    pub paid: bool,
    /// First eight hexadecimal characters of the request's digest, as in the answer.
    pub digest: String,
}

#[derive(Debug)]
pub enum RunOutput {
    File(Bytes),
    Inline(Vec<Value>),
}

#[derive(Debug)]
pub struct Results {
    pub output: RunOutput,
    pub successful: u64,
    pub failed: u64,
    pub paid: u64,
    pub ledger: Vec<LedgerRow>,
}

impl RunInput {
    pub fn of(app: &App, job: &Job, served: Option<u64>) -> Self {
        let rows = match &job.input {
            Input::Inline(items) => RunRows::Inline(std::sync::Arc::clone(items)),
            Input::File(_) => RunRows::File(job.bytes.clone().unwrap_or_default()),
        };
        Self {
            job: job.id.clone(),
            kind: job.kind,
            model: job.model.clone(),
            project: job.project.clone(),
            display_name: job.display_name.clone().unwrap_or_default(),
            rows,
            served,
            shuffle: job.fault.shuffle,
            seed: app.settings.seed,
        }
    }
}

/// Lines that are not blank.
pub fn count_rows(bytes: &[u8]) -> u64 {
    lines(bytes).count() as u64
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace))
}

/// All rows of a job, or why its input cannot be read.
pub fn results(app: &App, input: &RunInput) -> Result<Results, String> {
    match &input.rows {
        RunRows::Inline(items) => Ok(inline(app, input, items)),
        RunRows::File(bytes) => file(app, input, bytes),
    }
}

fn inline(app: &App, input: &RunInput, items: &[Value]) -> Results {
    let mut results = Results {
        output: RunOutput::Inline(Vec::new()),
        successful: 0,
        failed: 0,
        paid: 0,
        ledger: Vec::new(),
    };
    let mut out = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let metadata = get(item, "metadata");
        let key = metadata.and_then(|metadata| metadata.get("key")).and_then(Value::as_str);
        let request = get(item, "request").cloned().unwrap_or(Value::Null);
        let row = row(app, input, &mut results, key, index as u64, &request);
        let mut body = row.body;
        if let (Some(metadata), Some(object)) = (metadata, body.as_object_mut()) {
            object.insert("metadata".into(), metadata.clone());
        }
        out.extend(std::iter::repeat_n(body, row.copies));
    }
    if input.shuffle {
        let mut keyed: Vec<(String, Value)> = shuffled(input, out);
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        out = keyed.into_iter().map(|(_, item)| item).collect();
    }
    results.output = RunOutput::Inline(out);
    results
}

fn file(app: &App, input: &RunInput, bytes: &[u8]) -> Result<Results, String> {
    let mut results = Results {
        output: RunOutput::Inline(Vec::new()),
        successful: 0,
        failed: 0,
        paid: 0,
        ledger: Vec::new(),
    };
    let mut parsed: Vec<Map<String, Value>> = Vec::new();
    for (index, line) in lines(bytes).enumerate() {
        match serde_json::from_slice(line) {
            Ok(Value::Object(object)) if object.get("request").is_some_and(Value::is_object) => {
                parsed.push(object);
            }
            _ => {
                return Err(format!(
                    "Batch input file is invalid: row {} is not an object with a `request`.",
                    index + 1
                ));
            }
        }
    }
    if parsed.is_empty() {
        return Err("Batch input file is invalid: it has no rows.".into());
    }
    let mut out: Vec<Vec<u8>> = Vec::with_capacity(parsed.len());
    for (index, object) in parsed.into_iter().enumerate() {
        let key = object.get("key").and_then(Value::as_str);
        let request = object.get("request").cloned().unwrap_or(Value::Null);
        let row = row(app, input, &mut results, key, index as u64, &request);
        let mut line = Map::new();
        if let Some(key) = object.get("key") {
            line.insert("key".into(), key.clone());
        }
        if let Value::Object(body) = row.body {
            line.extend(body);
        }
        let mut text = Value::Object(line).to_string().into_bytes();
        if row.corrupt {
            text.truncate(text.len() / 2);
        }
        text.push(b'\n');
        out.extend(std::iter::repeat_n(text, row.copies));
    }
    if input.shuffle {
        let mut keyed = shuffled(input, out);
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        out = keyed.into_iter().map(|(_, line)| line).collect();
    }
    results.output = RunOutput::File(out.concat().into());
    Ok(results)
}

fn shuffled<T>(input: &RunInput, items: Vec<T>) -> Vec<(String, T)> {
    let place = |index: usize| word(input.seed, &["shuffle", &input.job, &index.to_string()], 12);
    items.into_iter().enumerate().map(|(index, item)| (place(index), item)).collect()
}

/// One row: who wishes what of it, what comes of it, and the books.
fn row(
    app: &App,
    input: &RunInput,
    results: &mut Results,
    key: Option<&str>,
    index: u64,
    request: &Value,
) -> Produced {
    let subject = Row::new(request);
    let outcome = if input.served.is_some_and(|served| index >= served) {
        Outcome::Error { code: 1, message: None }
    } else {
        wish(app, input, key, index, request, &subject.digest)
    };
    let row = produce(input.kind, &input.model, &subject, &outcome);
    results.paid += u64::from(row.paid);
    if row.successful() {
        results.successful += 1;
    } else {
        results.failed += 1;
    }
    results.ledger.push(LedgerRow {
        key: key.map(str::to_owned),
        index,
        outcome: outcome_name(&outcome),
        paid: row.paid,
        digest: hex(&subject.digest[..4]),
    });
    row
}

fn wish(
    app: &App,
    input: &RunInput,
    key: Option<&str>,
    index: u64,
    request: &Value,
    digest: &[u8; 32],
) -> Outcome {
    let marker = marker(request);
    let prompt = prompt(request);
    let mut state = app.state();
    let first = state.seen_rows.insert(row_mark(&input.project, key, digest));
    let facts = RowFacts {
        key,
        index,
        prompt: &prompt,
        display_name: &input.display_name,
        project: &input.project,
        first,
    };
    if let Some(outcome) = state.faults.row(&facts) {
        return outcome;
    }
    match marker {
        Some(marker) if first || !marker.once => marker.outcome,
        _ => Outcome::Answer,
    }
}

fn row_mark(project: &str, key: Option<&str>, digest: &[u8; 32]) -> [u8; 16] {
    let whole = sha256(json!([project, key, hex(digest)]).to_string().as_bytes());
    let mut mark = [0; 16];
    mark.copy_from_slice(&whole[..16]);
    mark
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answer => "answer",
        Outcome::Error { code: 1, .. } => "unserved",
        Outcome::Error { .. } => "error",
        Outcome::Blocked => "blocked",
        Outcome::Finish(_) => "finish",
        Outcome::Truncated => "truncated",
        Outcome::Empty => "empty",
        Outcome::Missing => "missing",
        Outcome::Duplicate => "duplicate",
        Outcome::BadJson => "badjson",
    }
}
