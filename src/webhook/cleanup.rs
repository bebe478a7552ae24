//! Deletion of a webhook: the registration goes, if the operator has made one, its keyring entry goes, then the finalizer.

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource};

use super::keyring;
use super::memory::Memory;
use super::plan::{is_in_doubt, registration_name};
use super::points::Point;
use crate::api::webhook::{GeminiWebhook, RegistrationDeletionPolicy, RegistrationMode};
use crate::controller::points::around;
use crate::controller::{Context, Error, Found, Note, after, is_claimed, publish, release, until};
use crate::gemini::{ApiKey, Class};

pub async fn pass(ctx: &Context, api: &Api<GeminiWebhook>, webhook: &GeminiWebhook) -> Result<Action, Error> {
    if !is_claimed(webhook) {
        return Ok(Action::await_change());
    }
    let deleted = webhook.metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |t| t.0);
    let patience = webhook.spec.deletion_timeout.0 / ctx.timing.divisor;
    let deadline = after(deleted, patience);
    let now = Timestamp::now();
    let is_registered = webhook.spec.mode == RegistrationMode::Static;
    if is_registered && webhook.spec.deletion_policy == RegistrationDeletionPolicy::Delete {
        let left = until(deadline, now);
        match deregister(ctx, webhook).await {
            Ok(0) if is_in_doubt(webhook, &memory(ctx, webhook)) => {
                // What a lost answer has made may not be listed yet. The intent is older than the deletion.
                let hidden = until(after(deleted, ctx.timing.listing_lag), now);
                if !hidden.is_zero() && !left.is_zero() {
                    tracing::info!(
                        "webhook deleted while its registration is in doubt; looking for it by name"
                    );
                    return Ok(Action::requeue(hidden.min(left).min(ctx.timing.listing_spacing / 5)));
                }
                if !hidden.is_zero() {
                    give_up(
                        ctx,
                        webhook,
                        "the answer to its registration was lost, and it is not listed yet",
                    )
                    .await;
                }
            }
            Ok(_) => {}
            Err(problem) if !left.is_zero() => {
                tracing::warn!(%problem, "webhook not deleted at Gemini yet");
                return Ok(Action::requeue(left.min(ctx.timing.secret_reread / 6)));
            }
            Err(problem) => give_up(ctx, webhook, &problem).await,
        }
    }
    let uid = webhook.metadata.uid.as_deref().unwrap_or_default();
    around(Point::Forget, keyring::remove(ctx, uid)).await?;
    around(Point::Release, release(api, webhook)).await?;
    ctx.webhook_memory.forget(uid);
    Ok(Action::await_change())
}

fn memory(ctx: &Context, webhook: &GeminiWebhook) -> Memory {
    ctx.webhook_memory.get(webhook.metadata.uid.as_deref().unwrap_or_default())
}

/// Deletes every registration that carries our name, and the one that status knows. Returns how many there were.
async fn deregister(ctx: &Context, webhook: &GeminiWebhook) -> Result<usize, String> {
    let key = key(ctx, webhook).await?;
    let name = registration_name(webhook);
    let all = ctx.gemini.list_webhooks(&key).await.map_err(|e| e.to_string())?;
    let known = webhook.status.as_ref().and_then(|s| s.id.clone());
    let mut ids: Vec<String> = all.into_iter().filter(|w| w.name == name).map(|w| w.id).collect();
    ids.extend(known.filter(|id| !ids.contains(id)));
    for id in &ids {
        match around(Point::Deregister, ctx.gemini.delete_webhook(&key, id)).await {
            Ok(()) => {}
            Err(e) if e.class == Class::NotFound => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(ids.len())
}

async fn key(ctx: &Context, webhook: &GeminiWebhook) -> Result<ApiKey, String> {
    let namespace = webhook.metadata.namespace.as_deref().unwrap_or_default();
    let reference = &webhook.spec.api_key_secret_ref;
    match ctx.credentials.get(namespace, reference).await {
        Ok(Found::Ready { key, .. }) => Ok(key),
        Ok(Found::NotFound(message) | Found::Refused(message)) => {
            ctx.credentials.last_known(namespace, reference).ok_or(message)
        }
        Err(e) => Err(e.to_string()),
    }
}

async fn give_up(ctx: &Context, webhook: &GeminiWebhook, problem: &str) {
    let id = webhook.status.as_ref().and_then(|s| s.id.clone()).unwrap_or_else(|| registration_name(webhook));
    let message = format!(
        "spec.deletionTimeout passed; the registration {id} may be left at Gemini, delete it there ({problem})"
    );
    let note = Note { warning: true, reason: "DeletionTimeout".into(), message };
    publish(&ctx.recorder, &webhook.object_ref(&()), &[note]).await;
}
