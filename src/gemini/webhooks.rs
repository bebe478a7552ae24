//! The WebhookService: registrations of the key's project. Its JSON is snake_case and its handle the bare `id`.

use jiff::Timestamp;
use reqwest::{Method, Url};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::{Class, Error, Kind};
use super::http::{Answer, ApiKey, Gemini, with_query};
use super::wire::time;

/// The service's maximum.
const PAGE_SIZE: &str = "1000";
/// A listing that does not end is a fault of the service, not a long list.
const MAX_PAGES: usize = 100;

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

impl Webhook {
    /// Whether it delivers to this address. Gemini may write one in another way: the host in small letters, for one.
    pub fn is_at(&self, uri: &str) -> bool {
        self.uri == uri
            || matches!((Url::parse(&self.uri), Url::parse(uri)), (Ok(shown), Ok(wanted)) if shown == wanted)
    }
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

#[derive(Deserialize)]
struct WebhookWire {
    id: Option<String>,
    name: Option<String>,
    uri: Option<String>,
    subscribed_events: Option<Vec<String>>,
    state: Option<String>,
    signing_secrets: Option<Vec<SigningSecretWire>>,
    new_signing_secret: Option<SecretString>,
}

#[derive(Deserialize)]
struct SigningSecretWire {
    truncated_secret: Option<String>,
    expire_time: Option<String>,
}

#[derive(Deserialize)]
struct WebhookList {
    #[serde(default)]
    webhooks: Vec<WebhookWire>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Rotated {
    secret: SecretString,
}

impl WebhookWire {
    /// The service promises no field; we need the handle.
    fn into_webhook(self) -> Option<Webhook> {
        let id = self.id.filter(|id| is_handle(id))?;
        let secrets = self.signing_secrets.unwrap_or_default();
        Some(Webhook {
            id,
            name: self.name.unwrap_or_default(),
            uri: self.uri.unwrap_or_default(),
            events: self.subscribed_events.unwrap_or_default(),
            state: match self.state.as_deref() {
                Some("enabled") => WebhookState::Enabled,
                Some("disabled") => WebhookState::Disabled,
                Some("disabled_due_to_failed_deliveries") => WebhookState::DisabledDueToFailedDeliveries,
                other => WebhookState::Unknown(other.unwrap_or_default().to_owned()),
            },
            signing_secrets: secrets
                .into_iter()
                .map(|s| SigningSecret {
                    truncated: s.truncated_secret.unwrap_or_default(),
                    expire_time: time(s.expire_time.as_deref()),
                })
                .collect(),
        })
    }
}

impl WebhookChange {
    /// The mask and a body that holds nothing else: the live service is said to ignore the mask.
    fn wire(&self) -> (String, Value) {
        let mut body = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        set("uri", self.uri.as_ref().map(|v| json!(v)));
        set("subscribed_events", self.events.as_ref().map(|v| json!(v)));
        set("name", self.name.as_ref().map(|v| json!(v)));
        set("state", self.enabled.map(|v| json!(if v { "enabled" } else { "disabled" })));
        let mask: Vec<&str> = body.keys().map(String::as_str).collect();
        (mask.join(","), Value::Object(body))
    }
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
        let body = json!({ "subscribed_events": events, "uri": uri, "name": name });
        let answer = self.send_json(Kind::Once, key, Method::POST, self.url("webhooks"), &body).await?;
        let mut wire: WebhookWire = answer.json(Kind::Once)?;
        let secret = wire.new_signing_secret.take();
        match (wire.into_webhook(), secret) {
            (Some(webhook), Some(signing_secret)) => Ok(CreatedWebhook { webhook, signing_secret }),
            _ => Err(Error::unusable(Kind::Once, answer.status, "it lacks the id or the signing secret")),
        }
    }

    /// All registrations of the project, over all pages.
    pub async fn list_webhooks(&self, key: &ApiKey) -> Result<Vec<Webhook>, Error> {
        let mut webhooks = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query = vec![("page_size", PAGE_SIZE)];
            query.extend(token.as_deref().map(|t| ("page_token", t)));
            let answer = self.get(Kind::Webhook, key, with_query(self.url("webhooks"), &query)).await?;
            let page: WebhookList = answer.json(Kind::Webhook)?;
            webhooks.extend(page.webhooks.into_iter().filter_map(WebhookWire::into_webhook));
            token = page.next_page_token.filter(|t| !t.is_empty());
            if token.is_none() {
                return Ok(webhooks);
            }
        }
        Err(Error::local(
            Class::Transient,
            format!("the listing of webhooks does not end after {MAX_PAGES} pages"),
        ))
    }

    /// One registration.
    pub async fn get_webhook(&self, key: &ApiKey, id: &str) -> Result<Webhook, Error> {
        one(&self.get(Kind::Webhook, key, self.webhook_url(id, "")?).await?)
    }

    /// Changes a registration.
    pub async fn update_webhook(
        &self,
        key: &ApiKey,
        id: &str,
        change: &WebhookChange,
    ) -> Result<Webhook, Error> {
        let (mask, body) = change.wire();
        let url = with_query(self.webhook_url(id, "")?, &[("update_mask", &mask)]);
        one(&self.send_json(Kind::Webhook, key, Method::PATCH, url, &body).await?)
    }

    /// Deletes a registration.
    pub async fn delete_webhook(&self, key: &ApiKey, id: &str) -> Result<(), Error> {
        let url = self.webhook_url(id, "")?;
        self.call(Kind::Webhook, key, self.request(Method::DELETE, url)).await.map(drop)
    }

    /// Asks for a test delivery. `Ok` says nothing about the endpoint: only the delivery does.
    pub async fn ping_webhook(&self, key: &ApiKey, id: &str) -> Result<(), Error> {
        let url = self.webhook_url(id, ":ping")?;
        self.send_json(Kind::Webhook, key, Method::POST, url, &json!({})).await.map(drop)
    }

    /// Makes a new secret. `Ambiguous` means that Gemini may already sign with one that nobody has: rotate again.
    pub async fn rotate_webhook(
        &self,
        key: &ApiKey,
        id: &str,
        revocation: Revocation,
    ) -> Result<SecretString, Error> {
        // Lower case, whatever one page of the docs says: the SDKs' and the server's own spelling.
        let behavior = match revocation {
            Revocation::After24h => "revoke_previous_secrets_after_h24",
            Revocation::Immediately => "revoke_previous_secrets_immediately",
        };
        let url = self.webhook_url(id, ":rotateSigningSecret")?;
        let body = json!({ "revocation_behavior": behavior });
        let answer = self.send_json(Kind::Once, key, Method::POST, url, &body).await?;
        answer.json::<Rotated>(Kind::Once).map(|r| r.secret)
    }

    fn webhook_url(&self, id: &str, verb: &str) -> Result<Url, Error> {
        if is_handle(id) {
            Ok(self.url(&format!("webhooks/{id}{verb}")))
        } else {
            Err(Error::local(Class::Rejected, format!("not the id of a webhook: {id:?}")))
        }
    }
}

fn one(answer: &Answer) -> Result<Webhook, Error> {
    let wire: WebhookWire = answer.json(Kind::Webhook)?;
    wire.into_webhook().ok_or_else(|| Error::unusable(Kind::Webhook, answer.status, "it lacks the id"))
}

fn is_handle(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_in_two_spellings() {
        let at = |uri: &str| {
            let wire = json!({"id": "a", "uri": uri});
            serde_json::from_value::<WebhookWire>(wire).unwrap().into_webhook().unwrap()
        };
        for (shown, wanted, same) in [
            ("https://hooks.test/v1/h/a", "https://hooks.test/v1/h/a", true),
            ("https://hooks.test:443/v1/h/a", "https://HOOKS.test/v1/h/a", true),
            ("https://hooks.test/v1/h/A", "https://hooks.test/v1/h/a", false),
            ("https://hooks.test/x/v1/h/a", "https://hooks.test/v1/h/a", false),
            ("", "https://hooks.test/v1/h/a", false),
        ] {
            assert_eq!(at(shown).is_at(wanted), same, "{shown} {wanted}");
        }
    }
}
