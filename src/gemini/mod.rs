//! The Gemini surface: one HTTP client, the wire's types, and errors that are classified once.
//!
//! Knows nothing of Kubernetes. The one call that spends money, `create_batch`, has a client of its own
//! (`submit`), and no layer below it ever sends it twice.

mod batches;
mod error;
mod files;
mod http;
mod submit;
#[cfg(test)]
mod tests;
mod upload;
mod webhooks;
mod wire;

pub use batches::{Batch, BatchListing, BatchStats, Model, State, parse_operation};
pub use error::{Class, Error, ParsedError, parse_error};
pub use files::{Download, File, FilePage, FileState};
pub use http::{ApiKey, Gemini, Settings, Timeouts, check_base_url, check_version};
pub use submit::{Hook, PostEnd};
pub use webhooks::{CreatedWebhook, Revocation, SigningSecret, Webhook, WebhookChange, WebhookState};
