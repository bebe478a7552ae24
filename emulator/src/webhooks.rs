//! Registered webhooks: create, list, get, patch, delete, ping, rotate. JSON is snake_case here, on purpose.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::clock::{HOUR, Nanos, rfc3339};
use crate::deliveries::{self, Event};
use crate::errors::ApiError;
use crate::faults::SignWith;
use crate::http::{Answer, Context, Reply};
use crate::page;
use crate::state::{App, State};

/// What the server accepts (gemini-wire §2; `batch.cancelled` is documented and refused).
const EVENTS: &[&str] = &[
    "batch.succeeded",
    "batch.expired",
    "batch.failed",
    "interaction.requires_action",
    "interaction.completed",
    "interaction.failed",
    "video.generated",
];
const STATES: &[&str] = &["enabled", "disabled", "disabled_due_to_failed_deliveries"];
const GRACE: Nanos = 24 * HOUR;

#[derive(Clone, Debug)]
pub struct Secret {
    pub key: [u8; 32],
    pub expires: Option<Nanos>,
}

impl Secret {
    fn new() -> Result<Self, ApiError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| ApiError::rpc(500, "No randomness."))?;
        Ok(Self { key, expires: None })
    }

    fn text(&self) -> String {
        format!("whsec_{}", data_encoding::BASE64.encode(&self.key))
    }

    fn truncated(&self) -> String {
        let text = self.text();
        format!("whsec_...{}", &text[text.len() - 4..])
    }
}

#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: String,
    pub project: String,
    pub name: Option<String>,
    pub uri: String,
    pub events: Vec<String>,
    pub state: &'static str,
    /// Oldest first.
    pub secrets: Vec<Secret>,
    pub created: Nanos,
    /// Before this, it is in no list.
    pub visible: Nanos,
    pub failed_attempts: u64,
    pub failing_since: Option<Nanos>,
    pub failed_events: u64,
}

impl Webhook {
    pub fn enabled(&self) -> bool {
        self.state == "enabled"
    }

    /// The keys that sign now, newest first.
    pub fn signing_keys(&self, mode: SignWith, now: Nanos) -> Vec<[u8; 32]> {
        let live = self.secrets.iter().rev().filter(|secret| secret.expires.is_none_or(|at| at > now));
        let mut keys: Vec<[u8; 32]> = live.map(|secret| secret.key).collect();
        match mode {
            SignWith::All => {}
            SignWith::NewestAndPrevious => keys.truncate(2),
            SignWith::Newest => keys.truncate(1),
            SignWith::Oldest => {
                keys = keys.pop().into_iter().collect();
            }
        }
        keys
    }

    pub fn rearm(&mut self) {
        self.failed_attempts = 0;
        self.failing_since = None;
        self.failed_events = 0;
    }

    fn json(&self, now: Nanos) -> Value {
        let secrets: Vec<Value> = self
            .secrets
            .iter()
            .filter(|secret| secret.expires.is_none_or(|at| at > now))
            .map(|secret| {
                let mut shown = json!({"truncated_secret": secret.truncated()});
                if let Some(at) = secret.expires {
                    shown["expire_time"] = json!(rfc3339(at));
                }
                shown
            })
            .collect();
        let mut webhook = json!({
            "id": self.id,
            "uri": self.uri,
            "subscribed_events": self.events,
            "state": self.state,
            "signing_secrets": secrets,
        });
        if let Some(name) = &self.name {
            webhook["name"] = json!(name);
        }
        webhook
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::short(400, message)
}

fn missing() -> ApiError {
    ApiError::short(404, "Webhook not found.")
}

fn find<'a>(state: &'a mut State, ctx: &Context) -> Result<&'a mut Webhook, ApiError> {
    state.webhooks.get_mut(&ctx.id).filter(|webhook| webhook.project == ctx.project).ok_or_else(missing)
}

/// The body, all of whose fields must be known: a camelCase name gets a hint.
fn body(ctx: &Context, names: &[&str]) -> Result<Map<String, Value>, ApiError> {
    let body = ctx.object().map_err(|error| invalid(error.message))?;
    for key in body.keys() {
        if !names.contains(&key.as_str()) {
            let snake = crate::json::snake(key);
            let hint = if names.contains(&snake.as_str()) {
                format!(" Did you mean '{snake}'?")
            } else {
                String::new()
            };
            return Err(invalid(format!("Unknown parameter '{key}'.{hint}")));
        }
    }
    Ok(body)
}

/// The fields that create and patch share, checked.
struct Fields {
    uri: Option<String>,
    events: Option<Vec<String>>,
    name: Option<String>,
    state: Option<&'static str>,
}

fn fields(app: &App, body: &Map<String, Value>) -> Result<Fields, ApiError> {
    let text = |name: &str| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(invalid(format!("Invalid value at '{name}': a string is needed"))),
    };
    let uri = text("uri")?;
    if let Some(uri) = &uri {
        check_uri(app, uri)?;
    }
    let events = match body.get("subscribed_events") {
        None | Some(Value::Null) => None,
        Some(Value::Array(items)) => Some(events(items)?),
        Some(_) => return Err(invalid("Invalid value at 'subscribed_events': a list is needed")),
    };
    let state = match text("state")? {
        None => None,
        Some(wanted) => Some(
            *STATES
                .iter()
                .find(|state| **state == wanted)
                .ok_or_else(|| invalid(format!("Invalid enum value '{wanted}' at 'state'")))?,
        ),
    };
    Ok(Fields { uri, events, name: text("name")?, state })
}

/// HTTPS, unless the command line allows more.
pub fn check_uri(app: &App, uri: &str) -> Result<(), ApiError> {
    let scheme =
        reqwest::Url::parse(uri).ok().filter(reqwest::Url::has_host).map(|url| url.scheme().to_owned());
    match scheme.as_deref() {
        Some("https") => Ok(()),
        Some("http") if app.settings.allow_http_webhooks => Ok(()),
        _ => Err(invalid(format!("Invalid value '{uri}' at 'uri': an absolute HTTPS URI is needed"))),
    }
}

fn events(items: &[Value]) -> Result<Vec<String>, ApiError> {
    let mut events = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let name = item.as_str().unwrap_or_default();
        if !EVENTS.contains(&name) {
            return Err(invalid(format!("Invalid enum value '{name}' at 'subscribed_events[{index}]'")));
        }
        events.push(name.to_owned());
    }
    if events.is_empty() {
        return Err(invalid("'subscribed_events' must not be empty"));
    }
    Ok(events)
}

pub fn create(app: &App, ctx: &Context) -> Answer {
    let body = body(ctx, &["uri", "subscribed_events", "name", "state"])?;
    let fields = fields(app, &body)?;
    let uri = fields.uri.ok_or_else(|| invalid("Missing required parameter 'uri'"))?;
    let events = fields.events.ok_or_else(|| invalid("Missing required parameter 'subscribed_events'"))?;
    let secret = Secret::new()?;
    let now = app.now();
    let mut state = app.state();
    let id = state.fresh(app.settings.seed, "webhook", 36);
    let webhook = Webhook {
        id: id.clone(),
        project: ctx.project.clone(),
        name: fields.name,
        uri,
        events,
        state: fields.state.unwrap_or("enabled"),
        secrets: vec![secret.clone()],
        created: now,
        visible: now.saturating_add(ctx.list_lag.unwrap_or(0)),
        failed_attempts: 0,
        failing_since: None,
        failed_events: 0,
    };
    let mut answer = webhook.json(now);
    answer["new_signing_secret"] = json!(secret.text());
    state.webhooks.insert(id, webhook);
    Ok(Reply::ok(&answer))
}

pub fn list(app: &App, ctx: &Context) -> Answer {
    let short = |error: ApiError| invalid(error.message);
    let size = ctx.page_size(["page_size", "pageSize"], 50, 1000).map_err(short)?;
    let after = page::cursor(ctx.query("page_token").or_else(|| ctx.query("pageToken"))).map_err(short)?;
    let now = app.now();
    let lag = ctx.list_lag.unwrap_or(0);
    let state = app.state();
    let mut webhooks: Vec<&Webhook> = state
        .webhooks
        .values()
        .filter(|webhook| webhook.project == ctx.project && webhook.visible <= now)
        .filter(|webhook| webhook.created.saturating_add(lag) <= now)
        .collect();
    webhooks.sort_unstable_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    let (shown, next) =
        page::cut(webhooks, after.as_ref(), size, |webhook| (webhook.created, webhook.id.clone()));
    let items = shown.into_iter().map(|webhook| webhook.json(now)).collect();
    Ok(page::answer("webhooks", items, "next_page_token", ctx.next_page_token.clone().or(next)))
}

pub fn get(app: &App, ctx: &Context) -> Answer {
    let now = app.now();
    Ok(Reply::ok(&find(&mut app.state(), ctx)?.json(now)))
}

/// The mask is optional and ignored: what the body has is changed.
pub fn patch(app: &App, ctx: &Context) -> Answer {
    let now = app.now();
    let mut state = app.state();
    find(&mut state, ctx)?;
    let body = body(ctx, &["uri", "subscribed_events", "name", "state"])?;
    let fields = fields(app, &body)?;
    let webhook = find(&mut state, ctx)?;
    if let Some(uri) = fields.uri {
        webhook.uri = uri;
    }
    if let Some(events) = fields.events {
        webhook.events = events;
    }
    if let Some(name) = fields.name {
        webhook.name = Some(name);
    }
    if let Some(wanted) = fields.state {
        webhook.state = wanted;
        if wanted == "enabled" {
            webhook.rearm();
        }
    }
    Ok(Reply::ok(&webhook.json(now)))
}

pub fn delete(app: &App, ctx: &Context) -> Answer {
    let mut state = app.state();
    find(&mut state, ctx)?;
    state.webhooks.remove(&ctx.id);
    Ok(Reply::empty_object())
}

/// `{}` whether or not anybody listens.
pub fn ping(app: &Arc<App>, ctx: &Context) -> Answer {
    body(ctx, &[])?;
    let now = app.now();
    find(&mut app.state(), ctx)?;
    let body = json!({"type": "ping", "version": "v1", "timestamp": rfc3339(now), "data": {}});
    let event = Event { event_type: "ping".into(), batch: None, body: body.to_string(), dynamic: None };
    deliveries::ping(app, &ctx.project, &ctx.id, event);
    Ok(Reply::empty_object())
}

pub fn rotate(app: &App, ctx: &Context) -> Answer {
    let body = body(ctx, &["revocation_behavior"])?;
    let at_once = match body.get("revocation_behavior").and_then(Value::as_str) {
        None | Some("revoke_previous_secrets_after_h24") => false,
        Some("revoke_previous_secrets_immediately") => true,
        Some(other) => {
            return Err(invalid(format!(
                "Invalid enum value '{other}' at 'revocation_behavior'. Valid values: \
                 revoke_previous_secrets_after_h24, revoke_previous_secrets_immediately"
            )));
        }
    };
    let now = app.now();
    let mut state = app.state();
    let webhook = find(&mut state, ctx)?;
    let secret = Secret::new()?;
    webhook.secrets.retain(|old| !at_once && old.expires.is_none_or(|expires| expires > now));
    for old in &mut webhook.secrets {
        old.expires.get_or_insert(now.saturating_add(GRACE));
    }
    let text = secret.text();
    webhook.secrets.push(secret);
    Ok(Reply::ok(&json!({"secret": text})))
}

/// A state by its name on the wire.
pub fn known_state(name: &str) -> Option<&'static str> {
    STATES.iter().find(|state| **state == name).copied()
}

/// The address of a webhook and the keys that sign now; nothing where there is no such webhook.
pub fn destination(app: &App, id: Option<&str>) -> (Option<String>, Vec<Vec<u8>>) {
    let now = app.now();
    let state = app.state();
    match id.and_then(|id| state.webhooks.get(id)) {
        None => (None, Vec::new()),
        Some(webhook) => {
            let keys = webhook.signing_keys(SignWith::default(), now);
            (Some(webhook.uri.clone()), keys.into_iter().map(Vec::from).collect())
        }
    }
}
