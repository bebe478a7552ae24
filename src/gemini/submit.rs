//! The one call that spends money.
//!
//! Its client differs from the general one: no proxy from the environment, no connection that was used before, one
//! time limit over everything. Neither client follows redirects or retries.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::error::{describe, parse_error, redact_body, retry_after};
use super::http::{ApiKey, Gemini, key_header, key_header_name};
use super::wire::{id_in, model_path};

/// Largest answer that is kept. A created job is 1 KiB; what is larger is not the API's answer.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How the POST ended. Whether that means a job, none, or doubt is decided in the `submit` room, not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostEnd {
    /// No byte of the request left this process: refused connection, DNS, TLS handshake, or arguments that cannot be
    /// sent.
    NotSent(String),
    /// A complete answer.
    Answer {
        status: u16,
        /// `Retry-After`, else `RetryInfo`; at most an hour.
        retry_after: Option<Duration>,
        /// At most 64 KiB.
        body: Vec<u8>,
    },
    /// Sent, at least in part, and no complete answer: there may be a job.
    Broken(String),
}

/// An address of the job's own, which takes the place of all registered webhooks.
#[derive(Clone, Debug)]
pub struct Hook<'a> {
    pub uri: &'a str,
    /// Comes back with each event.
    pub user_metadata: BTreeMap<&'static str, String>,
}

impl Gemini {
    /// Sends exactly one request to create a job, or none.
    pub async fn create_batch(
        &self,
        key: &ApiKey,
        model: &str,
        display_name: &str,
        input_file: &str,
        hook: Option<Hook<'_>>,
    ) -> PostEnd {
        let (path, header) = match (model_path(model), id_in("files", input_file), key_header(key)) {
            (Ok(path), Ok(_), Ok(header)) => (path, header),
            (Err(e), _, _) | (_, Err(e), _) | (_, _, Err(e)) => return PostEnd::NotSent(e.message),
        };
        let mut batch = json!({ "displayName": display_name, "inputConfig": { "fileName": input_file } });
        if let Some(Hook { uri, user_metadata }) = hook {
            batch["webhookConfig"] = json!({ "uris": [uri], "userMetadata": user_metadata });
        }
        let body = json!({ "batch": batch });
        let request = self
            .submit
            .request(Method::POST, self.url(&format!("{path}:batchGenerateContent")))
            .header(key_header_name(), header)
            .json(&body);
        let mut response = match request.send().await {
            Ok(response) => response,
            // Only these two come before the first byte of the request.
            Err(e) if e.is_connect() || e.is_builder() => return PostEnd::NotSent(describe(e, key)),
            Err(e) => return PostEnd::Broken(describe(e, key)),
        };
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_BODY_BYTES => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => return PostEnd::Broken("the answer is over 64 KiB".into()),
                Ok(None) => break,
                Err(e) => return PostEnd::Broken(describe(e, key)),
            }
        }
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), &parse_error(status, &body));
        PostEnd::Answer { status, retry_after, body: redact_body(body, key) }
    }
}
