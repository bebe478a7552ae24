//! Batches as the API shows them: create, get, list, cancel, delete.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::clock::{Nanos, rfc3339};
use crate::errors::ApiError;
use crate::faults::{FinalState, MissingFile};
use crate::http::{Answer, Context, Reply};
use crate::jobs::{self, DynamicHook, Input, Job, Output, Phase};
use crate::json::{field, get as member, int, snake, text};
use crate::ledger::Creates;
use crate::models;
use crate::page;
use crate::rows::Kind;
use crate::run;
use crate::state::{App, State};
use crate::webhooks;

/// The limit for a create with inline requests.
const INLINE_LIMIT: usize = 20 * 1024 * 1024;
const PREFIX: &str = "type.googleapis.com/google.ai.generativelanguage.v1main";

/// What a create asks for.
struct Wanted {
    model: String,
    kind: Kind,
    display_name: Option<String>,
    priority: Option<i64>,
    input: Input,
    hook: Option<DynamicHook>,
}

pub fn create(app: &Arc<App>, ctx: &Context, verb: &str) -> Answer {
    if ctx.body.len() > INLINE_LIMIT {
        return Err(ApiError::invalid(format!(
            "Request payload size exceeds the limit: {INLINE_LIMIT} bytes."
        )));
    }
    let kind = if verb == "asyncBatchEmbedContent" { Kind::Embed } else { Kind::Generate };
    models::supports(&ctx.id, ctx.version, verb)?;
    let wanted = wanted(app, ctx, kind)?;
    let now = app.now();
    let mut state = app.state();
    admit(&state, ctx, &wanted, now)?;
    let id = state.fresh(app.settings.seed, "job", 36);
    let job = job(app, &mut state, ctx, wanted, id.clone(), now);
    let answer = operation(&job);
    state.jobs.insert(id.clone(), job);
    state.schedule(&id);
    app.wake.notify_one();
    Ok(Reply::ok(&answer))
}

/// The limits that are known before a job exists.
fn admit(state: &State, ctx: &Context, wanted: &Wanted, now: Nanos) -> Result<(), ApiError> {
    let options = &state.faults.options;
    if let Input::File(name) = &wanted.input
        && options.missing_file == MissingFile::Reject
        && state.file(&ctx.project, name, now).is_none()
    {
        return Err(ApiError::no_file(name));
    }
    let open = || state.jobs.values().filter(|job| job.project == ctx.project && job.is_open()).count();
    if options.max_concurrent_batches.is_some_and(|most| open() >= most) {
        return Err(ApiError::quota());
    }
    Ok(())
}

fn job(app: &App, state: &mut State, ctx: &Context, wanted: Wanted, id: String, now: Nanos) -> Job {
    let fired =
        state.faults.job(wanted.display_name.as_deref().unwrap_or_default(), &wanted.model, &ctx.project);
    let rows = match &wanted.input {
        Input::Inline(items) => items.len() as u64,
        Input::File(name) => {
            state.file(&ctx.project, name, now).map_or(0, |file| run::count_rows(&file.bytes))
        }
    };
    let is_missing = |name: &String| state.file(&ctx.project, name, now).is_none();
    let without_input = matches!(&wanted.input, Input::File(name) if is_missing(name));
    let job_lag = fired
        .as_ref()
        .and_then(|fired| fired.action.list_lag_ms.map(|lag| lag.pick_nanos(fired.seed, &fired.word)));
    let job_time = jobs::job_time(app, fired.as_ref());
    let fault = fired.map(|fired| fired.action).unwrap_or_default();
    let mut job = Job {
        id,
        project: ctx.project.clone(),
        model: wanted.model,
        kind: wanted.kind,
        display_name: wanted.display_name,
        priority: wanted.priority,
        input: wanted.input,
        hook: wanted.hook,
        created: now,
        updated: now,
        visible: now.saturating_add(ctx.list_lag.or(job_lag).unwrap_or(0)),
        run_at: now,
        end_at: now,
        ended: None,
        phase: Phase::Pending,
        hold: fault.hold,
        fault,
        cancelled_at: None,
        cancel_asked: None,
        deleted_at: None,
        without_input,
        bytes: None,
        rows,
        successful: 0,
        failed: 0,
        error: None,
        output: Output::None,
        deleted: false,
        executed_late: ctx.late,
        ledger_rows: Vec::new(),
        paid: 0,
    };
    job.plan_times(job_time);
    job
}

fn wanted(app: &App, ctx: &Context, kind: Kind) -> Result<Wanted, ApiError> {
    let body = ctx.object()?;
    known(&body, &["batch"], "")?;
    let Some(Value::Object(batch)) = field(&body, "batch") else {
        return Err(ApiError::invalid("Invalid value at 'batch': it is required."));
    };
    known(batch, &["name", "displayName", "inputConfig", "priority", "webhookConfig", "model"], "batch")?;
    let display_name = match field(batch, "displayName") {
        None => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(_) => return Err(ApiError::invalid("Invalid value at 'batch.display_name' (TYPE_STRING)")),
    };
    let priority = match field(batch, "priority") {
        None => None,
        Some(value) => Some(
            int(value).ok_or_else(|| ApiError::invalid("Invalid value at 'batch.priority' (TYPE_INT64)"))?,
        ),
    };
    Ok(Wanted {
        model: ctx.id.clone(),
        kind,
        display_name,
        priority,
        input: input(batch)?,
        hook: hook(app, batch)?,
    })
}

fn input(batch: &Map<String, Value>) -> Result<Input, ApiError> {
    let Some(Value::Object(config)) = field(batch, "inputConfig") else {
        return Err(ApiError::invalid("Invalid value at 'batch.input_config': it is required."));
    };
    known(config, &["fileName", "requests"], "batch.input_config")?;
    match (field(config, "fileName"), field(config, "requests")) {
        (Some(Value::String(name)), None) => match name.strip_prefix("files/") {
            Some(id) if !id.is_empty() => Ok(Input::File(id.to_owned())),
            _ => Err(ApiError::invalid(format!("Invalid file name `{name}`: it must be files/{{file}}."))),
        },
        (None, Some(Value::Object(outer))) => match field(outer, "requests") {
            Some(Value::Array(items)) if !items.is_empty() => inline(items),
            _ => Err(ApiError::invalid("batch.input_config.requests.requests must not be empty.")),
        },
        _ => {
            Err(ApiError::invalid("batch.input_config: exactly one of file_name and requests must be given."))
        }
    }
}

fn inline(items: &[Value]) -> Result<Input, ApiError> {
    for (index, item) in items.iter().enumerate() {
        let at = format!("batch.input_config.requests.requests[{index}]");
        let Value::Object(item) = item else {
            return Err(ApiError::invalid(format!("Invalid value at '{at}'")));
        };
        known(item, &["request", "metadata"], &at)?;
        if !item.get("request").is_some_and(Value::is_object) {
            return Err(ApiError::invalid(format!("Invalid value at '{at}.request': it is required.")));
        }
        if item.get("metadata").is_some_and(|metadata| !metadata.is_object()) {
            return Err(ApiError::invalid(format!("Invalid value at '{at}.metadata'")));
        }
    }
    Ok(Input::Inline(Arc::new(items.to_vec())))
}

fn hook(app: &App, batch: &Map<String, Value>) -> Result<Option<DynamicHook>, ApiError> {
    let config = match field(batch, "webhookConfig") {
        None => return Ok(None),
        Some(Value::Object(config)) => config,
        Some(_) => return Err(ApiError::invalid("Invalid value at 'batch.webhook_config'")),
    };
    known(config, &["uris", "userMetadata"], "batch.webhook_config")?;
    let uris: Vec<String> = match field(config, "uris") {
        Some(Value::Array(uris)) => uris.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    if uris.is_empty() {
        return Err(ApiError::invalid("batch.webhook_config.uris must not be empty."));
    }
    for uri in &uris {
        webhooks::check_uri(app, uri).map_err(|error| ApiError::invalid(error.message))?;
    }
    Ok(Some(DynamicHook { uris, user_metadata: field(config, "userMetadata").cloned() }))
}

/// What a create asks for, for the ledger: it may be wrong in every other way.
pub fn creates(body: &[u8]) -> Creates {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Creates::default() };
    let batch = member(&body, "batch").unwrap_or(&Value::Null);
    let input = member(batch, "inputConfig").unwrap_or(&Value::Null);
    let owned = |value: Option<&str>| value.map(str::to_owned);
    Creates { display_name: owned(text(batch, "displayName")), input_file: owned(text(input, "fileName")) }
}

/// ProtoJSON refuses fields that it does not know, in either spelling.
fn known(object: &Map<String, Value>, names: &[&str], at: &str) -> Result<(), ApiError> {
    for key in object.keys() {
        if !names.iter().any(|name| key == name || *key == snake(name)) {
            let at = if at.is_empty() { String::new() } else { format!(" at '{at}'") };
            return Err(ApiError::invalid(format!(
                "Invalid JSON payload received. Unknown name \"{key}\"{at}: Cannot find field."
            )));
        }
    }
    Ok(())
}

/// The operation that stands for a job.
pub fn operation(job: &Job) -> Value {
    let message = match job.kind {
        Kind::Generate => "GenerateContentBatch",
        Kind::Embed => "EmbedContentBatch",
    };
    let mut metadata = json!({
        "@type": format!("{PREFIX}.{message}"),
        "name": job.name(),
        "model": format!("models/{}", job.model),
        "createTime": rfc3339(job.created),
        "updateTime": rfc3339(job.updated),
        "batchStats": stats(job),
        "state": job.state_name(),
    });
    if let Some(name) = &job.display_name {
        metadata["displayName"] = json!(name);
    }
    if let Some(priority) = job.priority.filter(|priority| *priority != 0) {
        metadata["priority"] = json!(priority.to_string());
    }
    if let Input::File(name) = &job.input {
        metadata["inputConfig"] = json!({"fileName": format!("files/{name}")});
    }
    if let Some(ended) = job.ended {
        metadata["endTime"] = json!(rfc3339(ended));
    }
    let output = match &job.output {
        Output::None => None,
        Output::File(id) => Some(json!({"responsesFile": format!("files/{id}")})),
        Output::Inline(items) => Some(json!({"inlinedResponses": {"inlinedResponses": items.as_slice()}})),
    };
    let mut operation = json!({"name": job.name()});
    if let Some(mut output) = output {
        metadata["output"] = output.clone();
        output["@type"] = json!(format!("{PREFIX}.{message}Output"));
        operation["response"] = output;
    }
    operation["metadata"] = metadata;
    if matches!(job.phase, Phase::Ended(_)) {
        operation["done"] = json!(true);
    }
    if let Some(error) = &job.error {
        operation["error"] = error.clone();
    }
    operation
}

/// Decimal strings, zeros left out.
fn stats(job: &Job) -> Value {
    let pending = if matches!(job.phase, Phase::Ended(_)) { 0 } else { job.rows };
    let mut stats = Map::new();
    for (name, value) in [
        ("requestCount", job.rows),
        ("successfulRequestCount", job.successful),
        ("failedRequestCount", job.failed),
        ("pendingRequestCount", pending),
    ] {
        if value > 0 {
            stats.insert(name.into(), json!(value.to_string()));
        }
    }
    Value::Object(stats)
}

fn find<'a>(state: &'a State, ctx: &Context) -> Result<&'a Job, ApiError> {
    state
        .jobs
        .get(&ctx.id)
        .filter(|job| job.project == ctx.project && !job.deleted)
        .ok_or_else(ApiError::not_found)
}

pub fn get(app: &App, ctx: &Context) -> Answer {
    Ok(Reply::ok(&operation(find(&app.state(), ctx)?)))
}

pub fn list(app: &App, ctx: &Context) -> Answer {
    let size = ctx.page_size(["pageSize", "page_size"], 50, 100)?;
    let after = page::cursor(ctx.query("pageToken").or_else(|| ctx.query("page_token")))?;
    let now = app.now();
    let lag = ctx.list_lag.unwrap_or(0);
    let state = app.state();
    let mut jobs: Vec<&Job> = state
        .jobs
        .values()
        .filter(|job| job.project == ctx.project && !job.deleted)
        .filter(|job| job.visible <= now && job.created.saturating_add(lag) <= now)
        .collect();
    jobs.sort_unstable_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    let (shown, next) = page::cut(jobs, after.as_ref(), size, |job| (job.created, job.id.clone()));
    let items = shown.into_iter().map(operation).collect();
    Ok(page::answer("operations", items, "nextPageToken", ctx.next_page_token.clone().or(next)))
}

pub fn cancel(app: &App, ctx: &Context) -> Answer {
    let now = app.now();
    let mut state = app.state();
    let phase = find(&state, ctx)?.phase;
    let Some(job) = state.jobs.get_mut(&ctx.id) else { return Err(ApiError::not_found()) };
    match phase {
        Phase::Ended(_) => {
            return Err(ApiError {
                status: "FAILED_PRECONDITION".into(),
                ..ApiError::invalid("The batch has already ended and cannot be cancelled.")
            });
        }
        Phase::Pending => {
            job.cancel_asked = Some(now);
            job.phase = Phase::Ended(FinalState::Cancelled);
            job.error = Some(jobs::cancel_error());
            job.ended = Some(now);
            job.updated = now;
        }
        Phase::Running => {
            job.cancelled_at.get_or_insert(now);
            job.cancel_asked.get_or_insert(now);
        }
    }
    state.schedule(&ctx.id);
    app.wake.notify_one();
    Ok(Reply::empty_object())
}

/// Stops and forgets a job. What was served by then is paid all the same, and nobody gets it.
pub fn delete(app: &App, ctx: &Context) -> Answer {
    let now = app.now();
    let mut guard = app.state();
    let state = &mut *guard;
    find(state, ctx)?;
    let Some(job) = state.jobs.get_mut(&ctx.id) else { return Err(ApiError::not_found()) };
    let paid = job.forget(now);
    state.ledger.rows_paid += paid;
    state.schedule(&ctx.id);
    Ok(Reply::empty_object())
}
