//! The WebhookService: registrations of the key's project. Its JSON is snake_case and its handle the bare `id`.

use jiff::Timestamp;
use secrecy::SecretString;

use super::error::Error;
use super::http::{ApiKey, Gemini};

/// A registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The handle; made by Gemini.
    pub id: String,
    /// A free label of ours.
    pub name: String,
    pub uri: String,
    pub events: Vec<String>,
    pub state: WebhookState,
    /// During a rotation's overlap the old one has an expiry.
    pub signing_secrets: Vec<SigningSecret>,
}

/// A signing secret as Gemini shows it after it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSecret {
    pub truncated: String,
    pub expire_time: Option<Timestamp>,
}

/// State of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookState {
    Enabled,
    Disabled,
    DisabledDueToFailedDeliveries,
    Unknown(String),
}

/// A new registration, with the secret that is shown this once.
#[derive(Clone, Debug)]
pub struct CreatedWebhook {
    pub webhook: Webhook,
    pub signing_secret: SecretString,
}

/// Changes to a registration; only what is `Some` is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookChange {
    pub name: Option<String>,
    pub uri: Option<String>,
    pub events: Option<Vec<String>>,
    /// `true` re-arms a registration that Gemini disabled.
    pub enabled: Option<bool>,
}

/// What happens to the old secret at a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    After24h,
    Immediately,
}

impl Gemini {
    /// Registers. Not idempotent: `Ambiguous` means that there may be a registration whose secret nobody has.
    pub async fn create_webhook(
        &self,
        key: &ApiKey,
        name: &str,
        uri: &str,
        events: &[String],
    ) -> Result<CreatedWebhook, Error> {
        let _ = (key, name, uri, events);
        todo!()
    }

    /// All registrations of the project, over all pages.
    pub async fn list_webhooks(&self, key: &ApiKey) -> Result<Vec<Webhook>, Error> {
        let _ = key;
        todo!()
    }

    pub async fn get_webhook(&self, key: &ApiKey, id: &str) -> Result<Webhook, Error> {
        let _ = (key, id);
        todo!()
    }

    pub async fn update_webhook(
        &self,
        key: &ApiKey,
        id: &str,
        change: &WebhookChange,
    ) -> Result<Webhook, Error> {
        let _ = (key, id, change);
        todo!()
    }

    pub async fn delete_webhook(&self, key: &ApiKey, id: &str) -> Result<(), Error> {
        let _ = (key, id);
        todo!()
    }

    /// Asks for a test delivery. `Ok` says nothing about the endpoint: only the delivery does.
    pub async fn ping_webhook(&self, key: &ApiKey, id: &str) -> Result<(), Error> {
        let _ = (key, id);
        todo!()
    }

    /// Makes a new secret. `Ambiguous` means that Gemini may already sign with one that nobody has: rotate again.
    pub async fn rotate_webhook(
        &self,
        key: &ApiKey,
        id: &str,
        revocation: Revocation,
    ) -> Result<SecretString, Error> {
        let _ = (key, id, revocation);
        todo!()
    }
}
