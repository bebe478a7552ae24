//! Errors, classified once: whoever gets one acts on its class and shows its message.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::http::ApiKey;

/// Longest message that is kept.
const MAX_MESSAGE_BYTES: usize = 512;
/// Longest wait that Gemini may impose on us; more is a mistake or a joke.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Back off and try again.
    Transient,
    /// Try again, after that time if Gemini named one (at most an hour).
    RateLimited(Option<Duration>),
    /// The API key is missing, bad, or has no right to the call.
    Auth,
    /// Gemini refused the call; trying it again as it is changes nothing.
    Rejected,
    /// It is not there, and the API itself says so: a front end's 404 is `Transient`. For files also HTTP 403, which is
    /// how Gemini answers for a file that is gone: see `http_status`.
    NotFound,
    /// Only for calls that create something (webhooks) or hand out a secret once: it may have happened.
    Ambiguous,
}

impl Class {
    /// The name alone, for metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "Transient",
            Self::RateLimited(_) => "RateLimited",
            Self::Auth => "Auth",
            Self::Rejected => "Rejected",
            Self::NotFound => "NotFound",
            Self::Ambiguous => "Ambiguous",
        }
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub class: Class,
    /// `None` when there was no complete answer.
    pub http_status: Option<u16>,
    /// `ErrorInfo.reason`, for example `API_KEY_INVALID`.
    pub reason: Option<String>,
    /// The answer is longer than is read: less at a time may work.
    pub is_too_large: bool,
    /// The provider's words, or ours about the transport; at most 512 bytes, without the API key and without URLs.
    pub message: String,
}

/// What a call is, as far as its errors are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be repeated.
    Plain,
    /// On one file: 403 is how a missing one looks.
    File,
    /// On a webhook: its service has an error form of its own.
    Webhook,
    /// Creates a webhook, or shows its secret once.
    Once,
}

impl Error {
    /// An answer that makes no sense now and may make sense later.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::local(Class::Transient, message)
    }

    /// An error that did not come from an answer.
    pub(super) fn local(class: Class, message: impl Into<String>) -> Self {
        Self { class, http_status: None, reason: None, is_too_large: false, message: clean(&message.into()) }
    }

    /// No complete answer.
    pub(super) fn transport(kind: Kind, error: reqwest::Error, key: &ApiKey) -> Self {
        // Connecting comes before the first byte of the request: nothing can have happened.
        let class =
            if kind == Kind::Once && !error.is_connect() { Class::Ambiguous } else { Class::Transient };
        Self { class, http_status: None, reason: None, is_too_large: false, message: describe(error, key) }
    }

    /// An answer with success status that cannot be used. The body is not quoted: it may hold a secret.
    pub(super) fn unusable(kind: Kind, status: u16, what: &str) -> Self {
        let class = if kind == Kind::Once { Class::Ambiguous } else { Class::Transient };
        let message = format!("Gemini's answer cannot be used: {what}");
        Self { http_status: Some(status), ..Self::local(class, message) }
    }

    /// An answer that is longer than is read.
    pub(super) fn too_large(kind: Kind, status: u16, what: &str) -> Self {
        Self { is_too_large: true, ..Self::unusable(kind, status, what) }
    }

    /// An answer without success status.
    pub(super) fn answer(kind: Kind, status: u16, headers: &HeaderMap, body: &[u8], key: &ApiKey) -> Self {
        let parsed = parse_error(status, body);
        let class = match status {
            429 => Class::RateLimited(retry_after(headers, &parsed)),
            _ => classify(kind, status, &parsed),
        };
        let message = redact(&parsed.message, key);
        Self { class, http_status: Some(status), reason: parsed.reason, is_too_large: false, message }
    }
}

fn classify(kind: Kind, status: u16, error: &ParsedError) -> Class {
    let is_own_word = match kind {
        Kind::Plain | Kind::File => error.is_google_rpc,
        Kind::Webhook | Kind::Once => error.is_google_rpc || error.is_short_form,
    };
    match status {
        400 | 401 | 403 if error.is_about_the_key() => Class::Auth,
        // Only the API knows what it has and what it refuses for good. What stands before it may say the same of a job
        // that runs and is paid.
        400..=499 if !is_own_word => {
            if kind == Kind::Once {
                Class::Ambiguous
            } else {
                Class::Transient
            }
        }
        403 if kind == Kind::File => Class::NotFound,
        401 | 403 => Class::Auth,
        404 => Class::NotFound,
        // A front end may answer while the back end creates.
        300..=399 | 408 | 409 | 499 | 500.. if kind == Kind::Once => Class::Ambiguous,
        300..=399 | 408 | 499 | 500.. => Class::Transient,
        _ => Class::Rejected,
    }
}

/// An error answer, whatever its form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedError {
    /// It is a `google.rpc.Status` whose code is the HTTP status: the API itself spoke, no front end.
    pub is_google_rpc: bool,
    /// It has the form of the webhook service, with a text as `code`. Only there it is the API's own word: proxies for
    /// language models have taken to the same form.
    pub is_short_form: bool,
    /// `error.status`, for example `INVALID_ARGUMENT`.
    pub status_text: Option<String>,
    /// `ErrorInfo.reason`.
    pub reason: Option<String>,
    /// At most 512 bytes.
    pub message: String,
    /// `RetryInfo.retryDelay`.
    pub retry_delay: Option<Duration>,
}

impl ParsedError {
    /// A bad key is HTTP 400 here, not 401; on a file, 403 with one of these reasons is about the key, not the file.
    fn is_about_the_key(&self) -> bool {
        let by_reason = self.reason.as_deref().is_some_and(|r| {
            r.starts_with("API_KEY_")
                || matches!(
                    r,
                    "SERVICE_DISABLED" | "CONSUMER_INVALID" | "CONSUMER_SUSPENDED" | "BILLING_DISABLED"
                )
        });
        by_reason
            || self.message.starts_with("API key not valid")
            || self.message.starts_with("API key expired")
    }
}

/// Reads the body of an answer with an error status, in all the forms that have been seen: `google.rpc.Status`, the
/// webhook service's form with a text as `code`, and whatever front ends send.
pub fn parse_error(status: u16, body: &[u8]) -> ParsedError {
    let mut value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    // Streaming endpoints wrap the object in a list of one.
    if let Value::Array(items) = &mut value
        && items.len() == 1
    {
        value = items.swap_remove(0);
    }
    let Some(error) = value.get("error").filter(|e| e.is_object()) else {
        return ParsedError { message: front_end_message(status, body), ..ParsedError::default() };
    };
    let text =
        |name: &str| error.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let details = error.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let detail = |kind: &str| {
        details.iter().find(|d| d.get("@type").and_then(Value::as_str).is_some_and(|t| t.ends_with(kind)))
    };
    let status_text = text("status");
    let is_google_rpc =
        status_text.is_some() && error.get("code").and_then(Value::as_u64) == Some(u64::from(status));
    let message = match (text("message"), status_text.clone().or_else(|| text("code"))) {
        (Some(message), _) => clean(&message),
        (None, Some(word)) => clean(&format!("HTTP {status}: {word}")),
        (None, None) => format!("HTTP {status} without a message"),
    };
    ParsedError {
        is_google_rpc,
        is_short_form: status_text.is_none() && text("code").is_some(),
        status_text,
        reason: detail("google.rpc.ErrorInfo")
            .and_then(|d| d.get("reason"))
            .and_then(Value::as_str)
            .map(clean),
        message,
        retry_delay: detail("google.rpc.RetryInfo")
            .and_then(|d| d.get("retryDelay"))
            .and_then(Value::as_str)
            .and_then(proto_duration),
    }
}

fn front_end_message(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let text = text.trim();
    if text.is_empty() {
        format!("HTTP {status} with an empty body")
    } else if text.starts_with(['<', '{', '[']) {
        // A page of HTML says less than its status.
        format!("HTTP {status} from a front end, not from the API")
    } else {
        clean(&format!("HTTP {status}: {text}"))
    }
}

/// ProtoJSON: seconds with a fraction and an `s`, as in `37.5s`.
fn proto_duration(text: &str) -> Option<Duration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// How long to wait: the header, else the error's `RetryInfo`.
pub(super) fn retry_after(headers: &HeaderMap, error: &ParsedError) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| parse_retry_after(text, Timestamp::now()))
        .or(error.retry_delay)
        .map(|wait| wait.min(MAX_RETRY_AFTER))
}

/// Seconds or an HTTP date.
fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // HTTP dates are those of mail, always in GMT. A wrong weekday is no reason to come back too early.
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let date = parser.parse_timestamp(text).ok()?;
    // In the past means now.
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// A transport error with its causes, without the URL: an upload's URL is a credential.
pub(super) fn describe(error: reqwest::Error, key: &ApiKey) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    redact(&text, key)
}

/// The provider sometimes quotes what it was sent.
fn redact(text: &str, key: &ApiKey) -> String {
    let key = key.expose_secret();
    if key.is_empty() { clean(text) } else { clean(&text.replace(key, "<API key>")) }
}

/// The same for a whole body whose words will be shown: the outcome of the POST is judged, and told, elsewhere.
pub(super) fn redact_body(body: Vec<u8>, key: &ApiKey) -> Vec<u8> {
    let key = key.expose_secret();
    match std::str::from_utf8(&body) {
        Ok(text) if !key.is_empty() && text.contains(key) => text.replace(key, "<API key>").into_bytes(),
        _ => body,
    }
}

/// One line, at most 512 bytes.
fn clean(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
    text
}
