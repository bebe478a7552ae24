//! The three error forms of the API (gemini-wire: google.rpc.Status, the short form of webhooks, HTML or nothing).

use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::Reply;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `{"error":{"code":404,"message":…,"status":"NOT_FOUND"}}`
    #[default]
    Rpc,
    /// `{"error":{"message":…,"code":"not_found"}}`
    Short,
    /// What a front end answers.
    Html,
    Empty,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    pub http: u16,
    pub form: Form,
    pub status: String,
    pub message: String,
    pub details: Vec<Value>,
}

impl ApiError {
    pub fn rpc(http: u16, message: impl Into<String>) -> Self {
        Self {
            http,
            form: Form::Rpc,
            status: status_of(http).into(),
            message: message.into(),
            details: Vec::new(),
        }
    }

    pub fn short(http: u16, message: impl Into<String>) -> Self {
        Self { form: Form::Short, ..Self::rpc(http, message) }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::rpc(400, message)
    }

    pub fn not_found() -> Self {
        Self::rpc(404, "Requested entity was not found.")
    }

    /// Missing, expired and foreign files look the same.
    pub fn no_file(id: &str) -> Self {
        Self::rpc(403, format!("You do not have permission to access the File {id} or it may not exist."))
    }

    pub fn bad_key() -> Self {
        let detail = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        });
        Self { details: vec![detail], ..Self::rpc(400, "API key not valid. Please pass a valid API key.") }
    }

    pub fn no_key() -> Self {
        Self::rpc(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). \
             Please use API Key or other form of API consumer identity to call this API.",
        )
    }

    pub fn quota() -> Self {
        let detail = json!({
            "@type": "type.googleapis.com/google.rpc.Help",
            "links": [{
                "description": "Learn more about Gemini API quotas",
                "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
            }],
        });
        Self {
            details: vec![detail],
            ..Self::rpc(429, "You exceeded your current quota, please check your plan and billing details.")
        }
    }

    pub fn reply(&self) -> Reply {
        match self.form {
            Form::Rpc => {
                let mut error = json!({"code": self.http, "message": self.message, "status": self.status});
                if !self.details.is_empty()
                    && let Some(object) = error.as_object_mut()
                {
                    object.insert("details".into(), Value::Array(self.details.clone()));
                }
                Reply::json(self.http, &json!({ "error": error }))
            }
            Form::Short => Reply::json(
                self.http,
                &json!({"error": {"message": self.message, "code": short_code(self.http)}}),
            ),
            Form::Html => {
                let page = format!("<!DOCTYPE html>\n<html><title>Error {0}</title>{0}.</html>\n", self.http);
                Reply::new(self.http, "text/html; charset=UTF-8", page.into())
            }
            Form::Empty => Reply::new(self.http, "", bytes::Bytes::new()),
        }
    }
}

/// The canonical name that goes with an HTTP status.
pub fn status_of(http: u16) -> &'static str {
    match http {
        400 | 413 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ALREADY_EXISTS",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        500 => "INTERNAL",
        502 | 503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "UNKNOWN",
    }
}

/// What the front end says when a fault plan gives no message.
pub fn default_message(http: u16) -> &'static str {
    match http {
        500 => {
            "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting"
        }
        503 => "The model is overloaded. Please try again later.",
        504 => "The request timed out. Please try again.",
        404 => "Requested entity was not found.",
        _ => "The request failed.",
    }
}

fn short_code(http: u16) -> &'static str {
    match http {
        400 => "invalid_request",
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        409 => "already_exists",
        429 => "resource_exhausted",
        503 => "unavailable",
        _ => "internal",
    }
}
