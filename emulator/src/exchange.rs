//! One call from its routing to the ledger: key, fault, execution, answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use axum::http::request::Parts;
use bytes::Bytes;

use crate::answer::{Closed, respond, served};
use crate::calls::{Call, Route};
use crate::clock::{SECOND, http_date, real, rfc3339};
use crate::errors::{ApiError, Form, default_message, status_of};
use crate::faults::{CallFault, Drop, HoldCall};
use crate::http::{Answer, Context, Reply};
use crate::json::put;
use crate::ledger::{Creates, OpenEntry, RequestEntry};
use crate::matcher::{CallFacts, Fired};
use crate::server::query;
use crate::state::App;
use crate::{batches, files, models, webhooks};

/// One call on its way.
pub struct Exchange {
    app: Arc<App>,
    method: String,
    path: String,
    query: String,
    route: Route,
    ctx: Context,
    refused: Option<ApiError>,
    arrival: u64,
    arrived: String,
    creates: Creates,
    /// The job that it made.
    job: Option<String>,
}

impl Exchange {
    pub fn new(app: &Arc<App>, parts: Parts, path: String, route: Route, body: Bytes) -> Self {
        let query = query(&parts);
        let host = parts.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let scheme = if app.settings.tls { "https" } else { "http" };
        let base = format!("{scheme}://{host}");
        let mut ctx = Context {
            call: route.call,
            version: route.version,
            id: route.id.clone(),
            query,
            headers: parts.headers,
            body,
            project: String::new(),
            base,
            list_lag: None,
            next_page_token: None,
            late: false,
        };
        let refused = match authenticate(app, &ctx) {
            Ok(project) => {
                ctx.project = project;
                None
            }
            Err(error) => Some(error),
        };
        let creates = match route.call {
            Call::BatchesCreate => batches::creates(&ctx.body),
            _ => Creates::default(),
        };
        let exchange = Self {
            app: Arc::clone(app),
            method: parts.method.to_string(),
            path,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            route,
            ctx,
            refused,
            arrival: app.state().ledger.arrival(),
            arrived: rfc3339(real()),
            creates,
            job: None,
        };
        exchange.open(false);
        exchange
    }

    /// From now on the ledger shows it as under way.
    fn open(&self, late: bool) {
        let entry = OpenEntry {
            arrival: self.arrival,
            arrived: self.arrived.clone(),
            call: self.route.call,
            path: self.path.clone(),
            creates: self.creates.clone(),
            late,
        };
        self.app.state().ledger.open.insert(self.arrival, entry);
    }

    pub async fn run(mut self) -> Result<Response<Body>, Closed> {
        let fired = self.fault();
        let fault = fired.as_ref().map(|fired| fired.action.clone()).unwrap_or_default();
        let label = fired.as_ref().map(|fired| fired.label.clone());
        if let Some(fired) = &fired {
            self.ctx.list_lag = fault.list_lag_ms.map(|lag| lag.pick_nanos(fired.seed, &fired.word));
            self.ctx.next_page_token.clone_from(&fault.next_page_token);
            wait(fault.delay_ms.map(|delay| delay.pick(fired.seed, &fired.word))).await;
        }
        if fault.hold == Some(HoldCall::Request) {
            self.app.held.wait().await;
        }
        if fault.drop == Some(Drop::Request) {
            self.record(None, false, label, 0);
            return Err(Closed);
        }
        if fault.execute_late_ms.is_some() || fault.execute_late_calls.is_some() {
            return self.later(fired, &fault, label);
        }
        let executes = fault.status.is_none_or(|_| fault.executed) || fault.drop == Some(Drop::Answer);
        let real = executes.then(|| self.execute());
        if let Some(fired) = &fired {
            wait(fault.answer_delay_ms.map(|delay| delay.pick(fired.seed, &fired.word))).await;
        }
        if fault.hold == Some(HoldCall::Answer) {
            self.app.held.wait().await;
        }
        if fault.drop == Some(Drop::Answer) {
            self.record(None, true, label, 0);
            return Err(Closed);
        }
        let reply = self.shape(real, &fault);
        self.record(Some(reply.status), executes, label, served(&reply, &fault));
        Ok(respond(&reply, &fault))
    }

    /// Whatever the key, this is the answer.
    #[must_use]
    pub fn refuse(mut self, error: ApiError) -> Self {
        self.refused = Some(error);
        self
    }

    /// Only the ledger hears of it.
    pub fn incomplete(&self) {
        self.record(None, false, Some("incomplete body".into()), 0);
    }

    fn fault(&self) -> Option<Fired<CallFault>> {
        let key = key_of(&self.ctx);
        self.app.state().faults.call(&CallFacts {
            call: self.route.call,
            path: &self.path,
            query: &self.query,
            body: &self.ctx.body,
            key: key.as_deref(),
            project: self.refused.is_none().then_some(self.ctx.project.as_str()),
        })
    }

    /// Executes after a time or after some calls; the caller is answered (or left) now.
    fn later(
        mut self,
        fired: Option<Fired<CallFault>>,
        fault: &CallFault,
        label: Option<String>,
    ) -> Result<Response<Body>, Closed> {
        let answer = fault.status.map(|_| self.shape(None, fault));
        let bytes = answer.as_ref().map_or(0, |reply| served(reply, fault));
        self.record(answer.as_ref().map(|reply| reply.status), false, label.clone(), bytes);
        let after = fired
            .and_then(|fired| fired.action.execute_late_ms.map(|late| late.pick(fired.seed, &fired.word)));
        let calls = fault.execute_late_calls.unwrap_or(0);
        self.ctx.late = true;
        self.open(true);
        let response = answer.map(|reply| respond(&reply, fault));
        tokio::spawn(async move {
            let mut seen = self.app.calls.subscribe();
            let goal = seen.borrow_and_update().saturating_add(calls);
            if calls > 0 {
                let _ = seen.wait_for(|count| *count >= goal).await;
            }
            wait(after).await;
            let reply = self.execute();
            let late = label.map(|label| format!("{label} (executed late)"));
            self.record(Some(reply.status), true, late, 0);
        });
        response.ok_or(Closed)
    }

    fn execute(&mut self) -> Reply {
        let answer = match &self.refused {
            Some(error) => Err(error.clone()),
            None => dispatch(&self.app, &self.ctx, &self.route),
        };
        let made = answer.as_ref().ok().filter(|_| self.route.call == Call::BatchesCreate);
        let made = made.and_then(|reply| serde_json::from_slice::<serde_json::Value>(&reply.body).ok());
        self.job = made.and_then(|job| job["name"].as_str().map(str::to_owned));
        answer.unwrap_or_else(|error| error.reply())
    }

    /// The answer that the plan makes of the real one.
    fn shape(&self, real: Option<Reply>, fault: &CallFault) -> Reply {
        let mut reply = match (fault.status, real) {
            (None, Some(real)) => real,
            (Some(status @ 200..=299), Some(mut real)) => {
                real.status = status;
                real
            }
            (status, _) => failure(status.unwrap_or(503), fault),
        };
        if let Some(body) = &fault.body {
            reply.body = body.clone().into();
        }
        if !fault.set.is_empty()
            && let Ok(mut answer) = serde_json::from_slice(&reply.body)
        {
            fault.set.iter().for_each(|(pointer, value)| put(&mut answer, pointer, value));
            reply.body = answer.to_string().into();
        }
        if let Some(value) = &fault.retry_after {
            let value = match value.strip_prefix("date:").and_then(|seconds| seconds.parse::<i64>().ok()) {
                Some(seconds) => http_date(self.app.now().saturating_add(seconds.saturating_mul(SECOND))),
                None => value.clone(),
            };
            reply = reply.header("retry-after", value);
        }
        if let Some(length) = fault.shorten_body_to {
            reply.body.truncate(length);
        }
        if let Some(at) = fault.flip_byte_at.filter(|at| *at < reply.body.len()) {
            let mut bytes = reply.body.to_vec();
            bytes[at] ^= 1;
            reply.body = bytes.into();
        }
        for (name, value) in &fault.headers {
            reply.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            reply = reply.header(name, value.clone());
        }
        reply
    }

    fn record(&self, status: Option<u16>, executed: bool, fault: Option<String>, bytes_out: usize) {
        let now = self.app.now();
        let entry = RequestEntry {
            seq: 0,
            time: String::new(),
            arrival: self.arrival,
            arrived: self.arrived.clone(),
            ended: String::new(),
            call: self.route.call,
            method: self.method.clone(),
            path: self.path.clone(),
            project: self.refused.is_none().then(|| self.ctx.project.clone()).filter(|name| !name.is_empty()),
            status,
            executed,
            fault,
            late: self.ctx.late,
            creates: self.creates.clone(),
            job: self.job.clone(),
            bytes_in: self.ctx.body.len(),
            bytes_out,
        };
        self.app.state().ledger.request(now, entry);
        self.app.calls.send_modify(|count| *count = count.wrapping_add(1));
    }
}

async fn wait(millis: Option<u64>) {
    if let Some(millis) = millis.filter(|millis| *millis > 0) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

fn failure(status: u16, fault: &CallFault) -> Reply {
    let form = fault.form.unwrap_or(Form::Rpc);
    let mut error =
        if status == 429 { ApiError::quota() } else { ApiError::rpc(status, default_message(status)) };
    error.form = form;
    error.status = status_of(status).into();
    if let Some(message) = &fault.message {
        error.message.clone_from(message);
    }
    if let Some(reason) = &fault.reason {
        error.details.push(serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "googleapis.com",
        }));
    }
    if let Some(seconds) = fault.retry_info_s {
        error.details.push(serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{seconds}s"),
        }));
    }
    if (200..400).contains(&status) {
        return Reply::new(status, "application/json; charset=UTF-8", Bytes::new());
    }
    error.reply()
}

fn key_of(ctx: &Context) -> Option<String> {
    ctx.header("x-goog-api-key").or_else(|| ctx.query("key")).filter(|key| !key.is_empty()).map(str::to_owned)
}

/// The project of a call. Chunks go by their upload's identifier, the key set is public.
fn authenticate(app: &App, ctx: &Context) -> Result<String, ApiError> {
    match ctx.call {
        Call::JwksGet => return Ok(String::new()),
        Call::FilesUploadChunk | Call::FilesUploadQuery | Call::FilesUploadCancel => {
            let state = app.state();
            let upload = state.uploads.get(ctx.query("upload_id").unwrap_or_default());
            return Ok(upload.map(|upload| upload.project.clone()).unwrap_or_default());
        }
        _ => {}
    }
    let Some(key) = key_of(ctx) else { return Err(ApiError::no_key()) };
    app.project_of(&key).ok_or_else(ApiError::bad_key)
}

fn dispatch(app: &Arc<App>, ctx: &Context, route: &Route) -> Answer {
    match ctx.call {
        Call::FilesUploadStart => files::start(app, ctx),
        Call::FilesUploadChunk => files::chunk(app, ctx),
        Call::FilesUploadQuery => files::query(app, ctx),
        Call::FilesUploadCancel => files::cancel(app, ctx),
        Call::FilesGet => files::get(app, ctx),
        Call::FilesList => files::list(app, ctx),
        Call::FilesDelete => files::delete(app, ctx),
        Call::FilesDownload => files::download(app, ctx),
        Call::BatchesCreate => batches::create(app, ctx, &route.verb),
        Call::BatchesGet => batches::get(app, ctx),
        Call::BatchesList => batches::list(app, ctx),
        Call::BatchesCancel => batches::cancel(app, ctx),
        Call::BatchesDelete => batches::delete(app, ctx),
        Call::ModelsGet => models::get_one(ctx),
        Call::ModelsList => models::list(ctx),
        Call::ModelsCountTokens => models::count_tokens(ctx),
        Call::WebhooksCreate => webhooks::create(app, ctx),
        Call::WebhooksList => webhooks::list(app, ctx),
        Call::WebhooksGet => webhooks::get(app, ctx),
        Call::WebhooksPatch => webhooks::patch(app, ctx),
        Call::WebhooksDelete => webhooks::delete(app, ctx),
        Call::WebhooksPing => webhooks::ping(app, ctx),
        Call::WebhooksRotate => webhooks::rotate(app, ctx),
        Call::JwksGet => Ok(Reply::ok(&app.keys.document()).header("cache-control", "public, max-age=600")),
        Call::Unknown if route.known_path => Err(ApiError::not_found()),
        Call::Unknown => Err(ApiError { form: Form::Html, ..ApiError::not_found() }),
    }
}
