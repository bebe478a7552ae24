//! The admin API under `/_emulator/`: for tests and on loopback, without a key.

use std::sync::Arc;

use axum::http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clock::{SECOND, rfc3339};
use crate::faults::{FinalState, JobError, Plan};
use crate::http::Reply;
use crate::jobs::{self, Input, Job, Output};
use crate::jwks::Signature;
use crate::matcher::Faults;
use crate::run::LedgerRow;
use crate::sender::Sent;
use crate::senders;
use crate::state::App;

type Query = [(String, String)];

pub async fn handle(app: &Arc<App>, method: &Method, path: &str, query: &Query, body: &[u8]) -> Reply {
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let done = match (method.as_str(), segments.as_slice()) {
        ("GET", ["healthz"]) => Ok(json!({"ok": true})),
        ("GET", ["ledger"]) => ledger(app, query),
        ("GET", ["rows"]) => Ok(rows(app, query)),
        ("GET", ["state"]) => Ok(state(app)),
        ("GET", ["faults"]) => Ok(app.state().faults.show()),
        ("PUT", ["faults"]) => plan(app, body).map(|plan| {
            app.state().faults = Faults::new(plan, app.settings.seed);
            app.state().faults.show()
        }),
        ("POST", ["faults"]) => plan(app, body).map(|plan| {
            app.state().faults.append(plan);
            app.state().faults.show()
        }),
        ("DELETE", ["faults"]) => {
            app.state().faults = Faults::new(Plan::default(), app.settings.seed);
            Ok(json!({}))
        }
        ("GET", ["clock"]) => Ok(clock(app)),
        ("POST", ["clock"]) => advance(app, body).await,
        ("POST", ["calls", "release"]) => {
            let released = app.held.count();
            app.held.release();
            Ok(json!({ "released": released }))
        }
        ("POST", ["jobs", "release"]) => release(app, body).await,
        ("POST", ["jobs", id, "finish"]) => finish(app, id, body).await,
        ("POST", ["files", id, "expire"]) => expire(app, id),
        ("POST", ["webhooks", id, "state"]) => webhook_state(app, id, body),
        ("POST", ["senders"]) => senders::add(app, body),
        ("POST", ["senders", id]) => senders::change(app, id, body),
        ("DELETE", ["senders", id]) => senders::remove(app, id),
        ("POST", ["deliveries"]) => deliver(app, body).await,
        ("POST", ["jwks", "rotate"]) => rotate(app, body),
        _ => {
            return Reply::json(
                404,
                &json!({"error": format!("no such admin call: {method} /_emulator/{path}")}),
            );
        }
    };
    match done {
        Ok(answer) => Reply::ok(&answer),
        Err(message) => Reply::json(400, &json!({"error": message})),
    }
}

pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    let body = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn parameter<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn plan(app: &App, body: &[u8]) -> Result<Plan, String> {
    let plan = Plan::parse(body)?;
    app.keys.check(&plan).map(|()| plan)
}

fn rotate(app: &App, body: &[u8]) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        /// Which kind of keys; else the usual one.
        #[serde(default)]
        signature: Option<Signature>,
    }
    let wish: Wish = parse(body)?;
    app.keys.rotate(wish.signature).map(|()| app.keys.document())
}

/// Accepts `abc`, and `batches/abc` with its slash escaped or not.
fn bare(id: &str) -> &str {
    let id = id.trim_start_matches("batches/").trim_start_matches("files/");
    id.trim_start_matches("batches%2F").trim_start_matches("files%2F")
}

fn ledger(app: &App, query: &Query) -> Result<Value, String> {
    let since: u64 = match parameter(query, "since") {
        None => 0,
        Some(text) => text.parse().map_err(|_| format!("since: `{text}` is not a number"))?,
    };
    let state = app.state();
    let ledger = &state.ledger;
    let from = |seqs: &dyn Fn(usize) -> u64, length: usize| {
        let (mut low, mut high) = (0, length);
        while low < high {
            let middle = usize::midpoint(low, high);
            if seqs(middle) <= since { low = middle + 1 } else { high = middle }
        }
        low
    };
    let requests = from(&|at| ledger.requests[at].seq, ledger.requests.len());
    let deliveries = from(&|at| ledger.deliveries[at].seq, ledger.deliveries.len());
    let deleted = from(&|at| ledger.deleted_files[at].seq, ledger.deleted_files.len());
    let open: Vec<_> = ledger.open.values().collect();
    let jobs: Vec<Value> = state.jobs.values().map(job).collect();
    let counts: Map<String, Value> =
        ledger.counts.iter().map(|(call, count)| (call.name().to_owned(), json!(count))).collect();
    Ok(json!({
        "last": ledger.last(),
        "taken": rfc3339(crate::clock::real()),
        "requests": &ledger.requests[requests..],
        "open": open,
        "deleted_files": &ledger.deleted_files[deleted..],
        "jobs": jobs,
        "rows_paid": ledger.rows_paid,
        "bytes_served": ledger.bytes_served,
        "deliveries": &ledger.deliveries[deliveries..],
        "counts": counts,
    }))
}

fn job(job: &Job) -> Value {
    let mut entry = json!({
        "name": job.name(),
        "display_name": job.display_name,
        "model": job.model,
        "project": job.project,
        "create_time": rfc3339(job.created),
        "state": job.state_name(),
        "rows": job.rows,
        "paid_rows": job.paid,
        "successful_rows": job.successful,
        "failed_rows": job.failed,
        "deleted": job.deleted,
        "cancel_asked": job.cancel_asked.is_some(),
        "billable": !job.without_input,
        "executed_late": job.executed_late,
    });
    if let Input::File(id) = &job.input {
        entry["input_file"] = json!(format!("files/{id}"));
    }
    if let Output::File(id) = &job.output {
        entry["output_file"] = json!(format!("files/{id}"));
    }
    if let Some(ended) = job.ended {
        entry["end_time"] = json!(rfc3339(ended));
    }
    for (name, at) in [("cancel_time", job.cancel_asked), ("delete_time", job.deleted_at)] {
        if let Some(at) = at {
            entry[name] = json!(rfc3339(at));
        }
    }
    if let Some(metadata) = job.hook.as_ref().and_then(|hook| hook.user_metadata.as_ref()) {
        entry["user_metadata"] = metadata.clone();
    }
    entry
}

/// Every row that was worked on, with what came of it and whether it was paid.
fn rows(app: &App, query: &Query) -> Value {
    #[derive(serde::Serialize)]
    struct Entry<'a> {
        job: String,
        #[serde(flatten)]
        row: &'a LedgerRow,
    }
    let only = parameter(query, "job").map(bare);
    let state = app.state();
    let jobs = state.jobs.values().filter(|job| only.is_none_or(|only| only == job.id));
    let rows: Vec<Value> = jobs
        .flat_map(|job| job.ledger_rows.iter().map(|row| json!(Entry { job: job.name(), row })))
        .collect();
    json!({ "rows": rows })
}

/// What is still there, for "nothing left" checks.
fn state(app: &App) -> Value {
    let now = app.now();
    let state = app.state();
    let jobs: Vec<String> = state.jobs.values().filter(|job| !job.deleted).map(Job::name).collect();
    let open = state.jobs.values().filter(|job| job.is_open()).count();
    let files: Vec<String> = state
        .files
        .iter()
        .filter(|(_, file)| file.expires > now)
        .map(|(id, _)| format!("files/{id}"))
        .collect();
    let webhooks: Vec<Value> = state
        .webhooks
        .values()
        .map(|webhook| json!({"id": webhook.id, "name": webhook.name, "uri": webhook.uri, "state": webhook.state}))
        .collect();
    json!({
        "jobs": jobs.len(),
        "open_jobs": open,
        "held_calls": app.held.count(),
        "files": files.len(),
        "webhooks": webhooks.len(),
        "job_names": jobs,
        "file_names": files,
        "webhook_list": webhooks,
    })
}

fn clock(app: &App) -> Value {
    json!({"now": rfc3339(app.now()), "ahead_seconds": app.clock.offset() / SECOND})
}

async fn advance(app: &Arc<App>, body: &[u8]) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Advance {
        advance_seconds: u32,
    }
    let wish: Advance = parse(body)?;
    app.clock.advance(i64::from(wish.advance_seconds).saturating_mul(SECOND));
    // What became due is done when the answer comes.
    jobs::settle(app).await;
    app.wake.notify_one();
    Ok(clock(app))
}

async fn finish(app: &Arc<App>, id: &str, body: &[u8]) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Finish {
        #[serde(default)]
        state: Option<FinalState>,
        #[serde(default)]
        error: Option<JobError>,
    }
    let wish: Finish = parse(body)?;
    let id = bare(id);
    if !jobs::force(app, id, wish.state.unwrap_or(FinalState::Succeeded), wish.error) {
        return Err(format!("no open job batches/{id}"));
    }
    jobs::settle(app).await;
    let state = app.state();
    state.jobs.get(id).map(job).ok_or_else(|| format!("no job batches/{id}"))
}

async fn release(app: &Arc<App>, body: &[u8]) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Release {
        #[serde(default)]
        job: Option<String>,
    }
    let wish: Release = parse(body)?;
    let released = jobs::release(app, wish.job.as_deref().map(bare));
    jobs::settle(app).await;
    app.wake.notify_one();
    Ok(json!({ "released": released }))
}

fn expire(app: &App, id: &str) -> Result<Value, String> {
    let id = bare(id);
    let now = app.now();
    app.state().remove_file(id, now).then(|| json!({})).ok_or_else(|| format!("no file files/{id}"))
}

fn webhook_state(app: &App, id: &str, body: &[u8]) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        state: String,
    }
    let wish: Wish = parse(body)?;
    let state =
        crate::webhooks::known_state(&wish.state).ok_or_else(|| format!("no such state: {}", wish.state))?;
    let mut all = app.state();
    let webhook = all.webhooks.get_mut(id).ok_or_else(|| format!("no webhook {id}"))?;
    webhook.state = state;
    webhook.rearm();
    Ok(json!({"id": id, "state": state}))
}

/// Sends whatever is wished, honest or forged, once, and says what the endpoint answered.
async fn deliver(app: &Arc<App>, body: &[u8]) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        /// Where to, and whose secret signs.
        #[serde(default)]
        webhook: Option<String>,
        /// Another address.
        #[serde(default)]
        url: Option<String>,
        /// A JSON value, or a string that is sent as it is.
        #[serde(default)]
        body: Value,
        #[serde(default)]
        id: Option<String>,
        /// Unix seconds, or any text.
        #[serde(default)]
        timestamp: Option<Value>,
        /// `whsec_…` to sign with instead.
        #[serde(default)]
        secret: Option<String>,
        /// Replaces what was computed; null takes a header away.
        #[serde(default)]
        headers: Map<String, Value>,
    }
    let wish: Wish = parse(body)?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (registered, mut keys) = crate::webhooks::destination(app, wish.webhook.as_deref());
    let url = wish.url.or(registered).ok_or("webhook or url is needed")?;
    if let Some(secret) = &wish.secret {
        let bytes = data_encoding::BASE64
            .decode(secret.trim_start_matches("whsec_").as_bytes())
            .map_err(|error| format!("secret: {error}"))?;
        keys = vec![bytes];
    }
    let payload = if wish.body.is_null() { String::new() } else { text(&wish.body) };
    let id =
        wish.id.unwrap_or_else(|| format!("msg_{}", app.state().fresh(app.settings.seed, "message", 27)));
    let timestamp =
        wish.timestamp.as_ref().map_or_else(|| (crate::clock::real() / SECOND).to_string(), &text);
    let content = format!("{id}.{timestamp}.{payload}");
    let entries: Vec<String> =
        keys.iter().map(|key| format!("v1,{}", crate::sender::mac(key, content.as_bytes()))).collect();
    let mut headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("webhook-id".to_owned(), id),
        ("webhook-timestamp".to_owned(), timestamp),
        ("webhook-signature".to_owned(), entries.join(" ")),
    ];
    for (name, value) in wish.headers {
        headers.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
        if !value.is_null() {
            headers.push((name, text(&value)));
        }
    }
    match app.sender.post(&url, headers, payload.into_bytes()).await {
        Sent::Answered { status, .. } => Ok(json!({ "status": status })),
        Sent::Failed(error) => Ok(json!({ "error": error })),
    }
}
