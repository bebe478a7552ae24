//! I/O out: one step of a webhook's plan, and what its outcome does to the status.

use data_encoding::BASE32_NOPAD;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Resource};
use secrecy::SecretString;

use super::draft::Draft;
use super::health::{ENABLED, differences, show, show_secrets};
use super::keyring;
use super::plan::{Step, registration_name};
use super::points::Point;
use super::rotation;
use crate::api::condition::{Is, webhook_type};
use crate::api::keyring::KeyringEntry;
use crate::api::webhook::{GeminiWebhook, GeminiWebhookStatus};
use crate::controller::points::around;
use crate::controller::{Context, Error, Note, claim, publish};
use crate::gemini::{self, ApiKey, Class, Revocation, Webhook, WebhookChange, WebhookState};

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
        *webhook = around(Point::Claim, claim(api, webhook, None)).await?;
        return Ok(None);
    }
    // Every other step is planned with a key in hand.
    let Some(key) = key else { return Ok(None) };
    match step {
        Step::None | Step::Claim => Ok(None),
        Step::Register { name } => register(ctx, webhook, key, &name).await.map(Some),
        Step::Adopt { id, twins } => adopt(ctx, webhook, key, &id, &twins).await.map(Some),
        Step::Renew { id } => {
            ctx.webhook_memory.update(&uid(webhook), |m| m.renewals = m.renewals.saturating_add(1));
            adopt(ctx, webhook, key, &id, &[]).await.map(Some)
        }
        Step::Rotate { id, revocation } => rotate(ctx, webhook, key, &id, revocation).await.map(Some),
        Step::Prune { twins } => {
            let pruned = prune(ctx, key, &twins).await;
            if pruned.is_err() {
                // Only a listing knows of them.
                ctx.webhook_memory.update(&uid(webhook), |m| m.listed = None);
            }
            pruned.map(|()| None)
        }
        Step::Leave { id } => Ok(Some(leave(ctx, webhook, &id).await)),
        Step::Update { id } => update(ctx, webhook, key, &id).await.map(Some),
        Step::Ping { id } => ping(ctx, webhook, key, &id).await.map(|()| None),
    }
}

fn uid(webhook: &GeminiWebhook) -> String {
    webhook.metadata.uid.clone().unwrap_or_default()
}

/// A registration that should be there was not found: the next pass lists before it believes that.
fn look_again(ctx: &Context, webhook: &GeminiWebhook, error: gemini::Error) -> Error {
    if error.class == Class::NotFound {
        ctx.webhook_memory.update(&uid(webhook), |m| m.listed = None);
    }
    error.into()
}

/// The one POST. Its secret is shown once, so the keyring is proven writable first, and written before the status.
async fn register(
    ctx: &Context,
    webhook: &GeminiWebhook,
    key: &ApiKey,
    name: &str,
) -> Result<GeminiWebhookStatus, Error> {
    let uid = uid(webhook);
    let before = keyring::probe(ctx, &uid).await?;
    let mut draft = Draft::new(webhook, None, Timestamp::now());
    let uri = draft.wanted_url.clone().unwrap_or_default();
    ctx.webhook_memory.update(&uid, |m| m.registering = true);
    let made = ctx.gemini.create_webhook(key, name, &uri, &webhook.spec.events);
    let made = around(Point::Create, made).await;
    ctx.webhook_memory.update(&uid, |m| (m.registering, m.empty_listings) = (false, 0));
    match made {
        Ok(made) => {
            let kept = keep(ctx, &before, webhook, &made.webhook.id, made.signing_secret);
            around(Point::Keep, kept).await?;
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
    let uid = uid(webhook);
    let mut draft = Draft::new(webhook, None, Timestamp::now());
    let before = keyring::probe(ctx, &uid).await?;
    let rotated = ctx.gemini.rotate_webhook(key, id, Revocation::Immediately);
    let secret = around(Point::Recover, rotated).await.map_err(|e| look_again(ctx, webhook, e))?;
    let known = webhook.status.as_ref().is_some_and(|s| s.id.as_deref() == Some(id));
    let kept = around(Point::Replace, keep(ctx, &before, webhook, id, secret)).await;
    kept.map_err(|e| overtaken(ctx, &uid, e))?;
    ctx.webhook_memory.update(&uid, |m| m.overtaken = false);
    prune(ctx, key, twins).await?;
    let remote = ctx.gemini.get_webhook(key, id).await?;
    draft.set(webhook_type::SECRET_READY, Is::True, if known { "Recovered" } else { "Stored" }, "");
    draft.status.last_rotation_time = Some(Time(Timestamp::now()));
    show_secrets(&mut draft, &remote);
    // What is deliverable must be proven again with the new secret.
    draft.untested();
    if !known {
        registered(&mut draft, &remote, "Adopted");
        // It may be of an older spec: the next pass brings it in line.
        let differs = !differences(webhook, draft.wanted_url.as_deref(), &remote).is_empty();
        if differs || (remote.state == WebhookState::Enabled) != webhook.spec.enabled {
            let message = "bringing the adopted registration in line";
            draft.set(webhook_type::REGISTERED, Is::False, "Registering", message);
        }
    }
    Ok(draft.status)
}

/// Gets another secret because it is time to, and stores it. The status has the intent: if the answer is lost, it is done
/// again.
async fn rotate(
    ctx: &Context,
    webhook: &GeminiWebhook,
    key: &ApiKey,
    id: &str,
    revocation: Revocation,
) -> Result<GeminiWebhookStatus, Error> {
    let uid = uid(webhook);
    let before = keyring::probe(ctx, &uid).await?;
    let begun = webhook.status.as_ref().and_then(rotation::begun);
    ctx.webhook_memory.update(&uid, |m| m.rotating = begun);
    let rotated = ctx.gemini.rotate_webhook(key, id, revocation);
    let secret = around(Point::Rotate, rotated).await.map_err(|e| look_again(ctx, webhook, e))?;
    let now = Timestamp::now();
    let entry = rotation::entry(before.entry(), entry(webhook, id, secret, now), revocation, now);
    let stored = around(Point::Store, keyring::store(ctx, &uid, &before, &entry)).await;
    stored.map_err(|e| overtaken(ctx, &uid, e))?;
    ctx.webhook_memory.update(&uid, |m| (m.rotating, m.overtaken) = (None, false));
    let mut draft = Draft::new(webhook, None, now);
    rotation::finished(&mut draft, now);
    show_secrets(&mut draft, &ctx.gemini.get_webhook(key, id).await?);
    Ok(draft.status)
}

/// Deletes registrations that carry our name and are not the one in use.
async fn prune(ctx: &Context, key: &ApiKey, twins: &[String]) -> Result<(), Error> {
    for twin in twins {
        match around(Point::Prune, ctx.gemini.delete_webhook(key, twin)).await {
            Ok(()) => tracing::info!(registration = twin, "deleted a twin of a registration"),
            Err(e) if e.class == Class::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The key of another project has taken the place of the one that registered. Only that one could remove what it
/// made; if it is not remembered or does not work any more, a person must know. Either way life goes on there.
async fn leave(ctx: &Context, webhook: &GeminiWebhook, id: &str) -> GeminiWebhookStatus {
    let old = ctx.webhook_memory.get(&uid(webhook)).proven_key;
    let left = match &old {
        Some(old) => match around(Point::Leave, ctx.gemini.delete_webhook(old, id)).await {
            Ok(()) => None,
            Err(e) if e.class == Class::NotFound => None,
            Err(e) => Some(e.to_string()),
        },
        None => Some("the API key that made it is not known any more".to_owned()),
    };
    if let Some(problem) = left {
        let message = format!(
            "spec.apiKeySecretRef: the API key is now one of another Google project; the registration {id} may be left \
             in the project of the one before, delete it there ({problem})"
        );
        let note = Note { warning: true, reason: "RegistrationLeft".into(), message };
        publish(&ctx.recorder, &webhook.object_ref(&()), &[note]).await;
    }
    ctx.webhook_memory.update(&uid(webhook), |m| m.registering = true);
    let mut draft = Draft::new(webhook, None, Timestamp::now());
    draft.unregistered();
    draft.status
}

/// A ping that could not be asked for is asked for again, and not waited for.
async fn ping(ctx: &Context, webhook: &GeminiWebhook, key: &ApiKey, id: &str) -> Result<(), Error> {
    let asked = around(Point::Ping, ctx.gemini.ping_webhook(key, id)).await;
    ctx.webhook_memory.update(&uid(webhook), |m| m.ping_lost = asked.is_err());
    asked.map_err(Error::from)
}

/// Brings URL, events and state in line with the spec.
async fn update(
    ctx: &Context,
    webhook: &GeminiWebhook,
    key: &ApiKey,
    id: &str,
) -> Result<GeminiWebhookStatus, Error> {
    let mut draft = Draft::new(webhook, None, Timestamp::now());
    let was_enabled = draft.status.state.as_deref() == Some(ENABLED);
    let wanted = WebhookChange {
        name: Some(registration_name(webhook)),
        uri: draft.wanted_url.clone(),
        events: Some(webhook.spec.events.clone()),
        enabled: Some(webhook.spec.enabled),
    };
    match around(Point::Update, ctx.gemini.update_webhook(key, id, &wanted)).await {
        Ok(remote) => {
            registered(&mut draft, &remote, "Registered");
            // A change of the events alone does not touch what the last ping has proven.
            if !was_enabled {
                draft.untested();
            }
        }
        Err(e) if e.class == Class::Rejected => {
            let message = format!(
                "Gemini rejected the change; check spec.endpoint.url and spec.events (what was registered before still \
                 stands there): {e}"
            );
            // Of this generation, so that it is not sent again until the spec changes.
            draft.set(webhook_type::REGISTERED, Is::False, "Rejected", &message);
            draft.not_ready("Rejected");
        }
        Err(e) => return Err(look_again(ctx, webhook, e)),
    }
    Ok(draft.status)
}

fn registered(draft: &mut Draft, remote: &Webhook, reason: &str) {
    draft.status.id = Some(remote.id.clone());
    show(draft, remote);
    draft.status.registered_time.get_or_insert(Time(Timestamp::now()));
    draft.set(webhook_type::REGISTERED, Is::True, reason, &remote.id);
}

/// The secret that a rotation has shown could not be stored, as another one stands there by now: whichever Gemini made
/// last, it may have revoked the other, so the next pass gets a third.
fn overtaken(ctx: &Context, uid: &str, error: Error) -> Error {
    if matches!(error, Error::Conflict) {
        ctx.webhook_memory.update(uid, |m| m.overtaken = true);
    }
    error
}

/// Stores a new secret. A conflict where it is the first: another controller has found the registration and had its secret
/// rotated, and what it has stored is younger.
async fn keep(
    ctx: &Context,
    before: &keyring::Before,
    webhook: &GeminiWebhook,
    id: &str,
    secret: SecretString,
) -> Result<(), Error> {
    keyring::store(ctx, &uid(webhook), before, &entry(webhook, id, secret, Timestamp::now())).await
}

/// The entry of a secret that is the only one.
fn entry(webhook: &GeminiWebhook, id: &str, secret: SecretString, now: Timestamp) -> KeyringEntry {
    KeyringEntry {
        registration: id.to_owned(),
        scheme: webhook.spec.scheme(),
        current: secret,
        since: Some(now),
        previous: vec![],
        salt: None,
    }
}
