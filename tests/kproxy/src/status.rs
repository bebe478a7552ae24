//! Errors as the API server words them.

use serde_json::{Value, json};

/// A Status with the reason that belongs to the code.
pub(crate) fn body(code: u16, retry_after: Option<u32>) -> Value {
    let (reason, message) = match code {
        404 => ("NotFound", "not found"),
        409 => ("Conflict", "the object has been modified; please apply your changes to the latest version"),
        410 => ("Expired", "too old resource version"),
        429 => ("TooManyRequests", "too many requests, please try again later"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => ("Timeout", "request did not complete within the allotted timeout"),
        _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
    };
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("kproxy: {message}"), "reason": reason, "code": code,
    });
    if let Some(seconds) = retry_after {
        status["details"] = json!({ "retryAfterSeconds": seconds });
    }
    status
}
