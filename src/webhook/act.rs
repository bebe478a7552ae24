//! I/O out: one step of a webhook's plan, and what its outcome does to the status.

use data_encoding::BASE32_NOPAD;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use secrecy::SecretString;

use super::keyring;
use super::plan::{Draft, Step};
use crate::api::condition::{Is, webhook_type};
use crate::api::keyring::KeyringEntry;
use crate::api::webhook::{GeminiWebhook, GeminiWebhookStatus, SigningSecretStatus};
use crate::controller::{Context, Error, claim};
use crate::gemini::{ApiKey, Class, Revocation, Webhook, WebhookChange, WebhookState};

/// 128 random bits in base32: the part of a route that nobody can guess.
pub fn token() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::Keyring(format!("no random numbers: {e}")))?;
    Ok(BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

/// Does one step. `None`: the step has no outcome to record.
pub async fn act(
    ctx: &Context,
    api: &Api<GeminiWebhook>,
    webhook: &mut GeminiWebhook,
    key: Option<&ApiKey>,
    step: Step,
) -> Result<Option<GeminiWebhookStatus>, Error> {
    if step == Step::Claim {
        *webhook = claim(api, webhook, None).await?;
        return Ok(None);
    }
    // Every other step is planned with a key in hand.
    let Some(key) = key else { return Ok(None) };
    match step {
        Step::None | Step::Claim => Ok(None),
        Step::Register { name } => register(ctx, webhook, key, &name).await.map(Some),
        Step::Adopt { id, twins } => adopt(ctx, webhook, key, &id, &twins).await.map(Some),
        Step::Update { id } => update(ctx, webhook, key, &id).await.map(Some),
        Step::Ping { id } => {
            ctx.gemini.ping_webhook(key, &id).await?;
            Ok(None)
        }
    }
}

/// The one POST. Its secret is shown once, so the keyring is proven writable first, and written before the status.
async fn register(
    ctx: &Context,
    webhook: &GeminiWebhook,
    key: &ApiKey,
    name: &str,
) -> Result<GeminiWebhookStatus, Error> {
    let uid = webhook.metadata.uid.clone().unwrap_or_default();
    keyring::probe(ctx).await?;
    let mut draft = Draft::new(webhook, Timestamp::now());
    let uri = draft.status.url.clone().unwrap_or_default();
    ctx.webhook_memory.update(&uid, |m| m.registering = true);
    let made = ctx.gemini.create_webhook(key, name, &uri, &webhook.spec.events).await;
    ctx.webhook_memory.update(&uid, |m| (m.registering, m.empty_listings) = (false, 0));
    match made {
        Ok(made) => {
            keep(ctx, &uid, webhook, &made.webhook.id, made.signing_secret).await?;
            draft.set(webhook_type::SECRET_READY, Is::True, "Stored", "");
            registered(&mut draft, &made.webhook, "Registered");
        }
        Err(e) if e.class == Class::Ambiguous => {
            let message = format!("it is not known whether Gemini took the registration: {e}");
            draft.set(webhook_type::REGISTERED, Is::Unknown, "OutcomeUnknown", &message);
        }
        Err(e) if matches!(e.class, Class::Rejected | Class::NotFound) => {
            let message =
                format!("Gemini rejected the registration; check spec.endpoint.url and spec.events: {e}");
            draft.set(webhook_type::REGISTERED, Is::False, "Rejected", &message);
            draft.not_ready("Rejected");
        }
        // A definite no that may pass: the intent is this process's own, so it may try again at once.
        Err(e) => {
            ctx.webhook_memory.update(&uid, |m| m.registering = true);
            return Err(e.into());
        }
    }
    Ok(draft.status)
}

/// Takes over a registration whose secret is lost: only a rotation shows a new one.
async fn adopt(
    ctx: &Context,
    webhook: &GeminiWebhook,
    key: &ApiKey,
    id: &str,
    twins: &[String],
) -> Result<GeminiWebhookStatus, Error> {
    let uid = webhook.metadata.uid.clone().unwrap_or_default();
    let mut draft = Draft::new(webhook, Timestamp::now());
    keyring::probe(ctx).await?;
    let secret = match ctx.gemini.rotate_webhook(key, id, Revocation::Immediately).await {
        Ok(secret) => secret,
        Err(e) if e.class == Class::NotFound => {
            // Deleted behind our back: register again.
            draft.status.id = None;
            draft.set(
                webhook_type::REGISTERED,
                Is::False,
                "Registering",
                "the registration was gone at Gemini",
            );
            ctx.webhook_memory.update(&uid, |m| m.registering = true);
            return Ok(draft.status);
        }
        Err(e) => return Err(e.into()),
    };
    let known = webhook.status.as_ref().is_some_and(|s| s.id.as_deref() == Some(id));
    keep(ctx, &uid, webhook, id, secret).await?;
    for twin in twins {
        match ctx.gemini.delete_webhook(key, twin).await {
            Ok(()) => {}
            Err(e) if e.class == Class::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    let remote = ctx.gemini.get_webhook(key, id).await?;
    draft.set(webhook_type::SECRET_READY, Is::True, if known { "Recovered" } else { "Stored" }, "");
    // What is deliverable must be proven again with the new secret.
    draft.status.last_ping = None;
    if !known {
        registered(&mut draft, &remote, "Adopted");
        // Its URL and events may be of an older spec: the next pass brings them in line.
        if remote.uri != draft.status.url.clone().unwrap_or_default()
            || !same(&remote.events, &webhook.spec.events)
        {
            draft.set(
                webhook_type::REGISTERED,
                Is::False,
                "Registering",
                "bringing the adopted registration in line",
            );
        }
    }
    Ok(draft.status)
}

/// Brings URL, events and state in line with the spec.
async fn update(
    ctx: &Context,
    webhook: &GeminiWebhook,
    key: &ApiKey,
    id: &str,
) -> Result<GeminiWebhookStatus, Error> {
    let mut draft = Draft::new(webhook, Timestamp::now());
    let wanted = WebhookChange {
        name: None,
        uri: draft.status.url.clone(),
        events: Some(webhook.spec.events.clone()),
        enabled: Some(webhook.spec.enabled),
    };
    match ctx.gemini.update_webhook(key, id, &wanted).await {
        Ok(remote) => {
            registered(&mut draft, &remote, "Registered");
            draft.status.last_ping = None;
        }
        Err(e) if e.class == Class::NotFound => {
            draft.status.id = None;
            draft.set(
                webhook_type::REGISTERED,
                Is::False,
                "Registering",
                "the registration was gone at Gemini",
            );
            let uid = webhook.metadata.uid.clone().unwrap_or_default();
            ctx.webhook_memory.update(&uid, |m| m.registering = true);
        }
        Err(e) if e.class == Class::Rejected => {
            let message = format!("Gemini rejected the change; check spec.endpoint.url and spec.events: {e}");
            // Of this generation, so that it is not sent again until the spec changes.
            draft.set(webhook_type::REGISTERED, Is::True, "Rejected", &message);
        }
        Err(e) => return Err(e.into()),
    }
    Ok(draft.status)
}

fn registered(draft: &mut Draft, remote: &Webhook, reason: &str) {
    draft.status.id = Some(remote.id.clone());
    draft.status.state = Some(
        match &remote.state {
            WebhookState::Enabled => "enabled",
            WebhookState::Disabled => "disabled",
            WebhookState::DisabledDueToFailedDeliveries => "disabled_due_to_failed_deliveries",
            WebhookState::Unknown(raw) => raw,
        }
        .to_owned(),
    );
    draft.status.signing_secrets = remote
        .signing_secrets
        .iter()
        .map(|s| SigningSecretStatus { truncated: s.truncated.clone(), expire_time: s.expire_time.map(Time) })
        .collect();
    draft.status.registered_time.get_or_insert(Time(Timestamp::now()));
    draft.set(webhook_type::REGISTERED, Is::True, reason, &remote.id);
}

async fn keep(
    ctx: &Context,
    uid: &str,
    webhook: &GeminiWebhook,
    id: &str,
    secret: SecretString,
) -> Result<(), Error> {
    let entry = KeyringEntry {
        registration: id.to_owned(),
        scheme: webhook.spec.signature,
        current: secret,
        previous: vec![],
    };
    keyring::store(ctx, uid, &entry).await
}

fn same(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().all(|e| b.contains(e))
}
