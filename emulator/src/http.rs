//! What a handler sees of a request, and what it answers.

use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::calls::{Call, Version};
use crate::clock::Nanos;
use crate::errors::ApiError;

/// One API call, after routing and authentication.
#[derive(Clone, Debug)]
pub struct Context {
    pub call: Call,
    pub version: Version,
    /// The identifier in the path, without its collection (`abc` of `files/abc:download`).
    pub id: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub project: String,
    /// `http://host:port` as the caller wrote it: links stay on the host that he uses.
    pub base: String,
    /// From the fault plan: how old something must be to be listed, or how late a new job shows in lists.
    pub list_lag: Option<Nanos>,
    /// From the fault plan: what to put for the next page's token.
    pub next_page_token: Option<String>,
    /// From the fault plan: executed after its time.
    pub late: bool,
}

impl Context {
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as a JSON object; an empty body is an empty object.
    pub fn object(&self) -> Result<Map<String, Value>, ApiError> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(ApiError::invalid(
                "Invalid JSON payload received. Unknown name \"\": Root element must be a message.",
            )),
            Err(error) => Err(ApiError::invalid(format!("Invalid JSON payload received. {error}"))),
        }
    }

    /// A page size out of the query: absent or 0 is the default, too many are cut to `max`.
    pub fn page_size(&self, names: [&str; 2], default: usize, max: usize) -> Result<usize, ApiError> {
        let Some(text) = names.iter().find_map(|name| self.query(name)) else { return Ok(default) };
        match text.parse::<i64>() {
            Ok(0) => Ok(default),
            Ok(size) if size > 0 => Ok(usize::try_from(size).unwrap_or(max).min(max)),
            _ => Err(ApiError::invalid(format!("Invalid value at 'page_size': {text}"))),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Reply {
    pub fn new(status: u16, content_type: &'static str, body: Bytes) -> Self {
        Self { status, content_type, headers: Vec::new(), body }
    }

    pub fn json(status: u16, value: &Value) -> Self {
        Self::new(status, "application/json; charset=UTF-8", value.to_string().into())
    }

    pub fn ok(value: &Value) -> Self {
        Self::json(200, value)
    }

    pub fn empty_object() -> Self {
        Self::new(200, "application/json; charset=UTF-8", Bytes::from_static(b"{}"))
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

pub type Answer = Result<Reply, ApiError>;
