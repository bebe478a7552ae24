//! I/O in: what a pass over a webhook looks at.

use super::keyring;
use super::plan::{Env, Observed, Stored, needs_listing, registration_name};
use super::rotation::previous;
use crate::api::GeminiWebhook;
use crate::api::keyring::fingerprint;
use crate::controller::{Context, Credentials, Error};
use crate::gemini::{self, ApiKey, Class, Webhook};

/// Looks at the Secret, at the keyring, and at Gemini's registrations where the plan needs them.
pub async fn observe(
    ctx: &Context,
    webhook: &GeminiWebhook,
    env: &Env<'_>,
) -> Result<(Observed, Option<ApiKey>), Error> {
    let namespace = webhook.metadata.namespace.as_deref().unwrap_or_default();
    let reference = &webhook.spec.api_key_secret_ref;
    let mut seen = Observed::default();
    let (credentials, key) = ctx.credentials.get(namespace, reference).await?.split();
    let (Credentials::Ready { fingerprint: key_fingerprint }, Some(key)) = (&credentials, key) else {
        seen.credentials = Some(credentials);
        return Ok((seen, None));
    };
    let uid = webhook.metadata.uid.as_deref().unwrap_or_default();
    seen.stored = keyring::load(ctx, uid).await?.map(|entry| Stored {
        fingerprint: fingerprint(&entry.current),
        since: entry.since,
        previous: previous(&entry),
        registration: entry.registration,
    });
    if needs_listing(webhook, key_fingerprint, &ctx.webhook_memory.get(uid), env) {
        match registrations(ctx, webhook, &key).await {
            Ok((found, remote)) => {
                ctx.webhook_memory.update(uid, |m| {
                    m.listed = Some(env.now);
                    m.empty_listings = if found.is_empty() { m.empty_listings.saturating_add(1) } else { 0 };
                });
                (seen.found, seen.remote) = (Some(found), remote);
            }
            Err(e) if is_about_the_key(&e) => {
                seen.credentials =
                    Some(ctx.credentials.refuse(namespace, reference, key_fingerprint, &e.message));
                return Ok((seen, None));
            }
            Err(e) => return Err(e.into()),
        }
    }
    seen.credentials = Some(credentials);
    Ok((seen, Some(key)))
}

/// Whether Gemini refuses the key as such. A 403 may be about webhooks alone: batches go on with that key.
pub fn is_about_the_key(error: &gemini::Error) -> bool {
    error.class == Class::Auth && error.http_status != Some(403)
}

/// Ids of our registrations, and the one that status knows as it is now. A listing may lag behind: what status knows is
/// asked for by its id before it counts as gone.
async fn registrations(
    ctx: &Context,
    webhook: &GeminiWebhook,
    key: &ApiKey,
) -> Result<(Vec<String>, Option<Webhook>), gemini::Error> {
    let name = registration_name(webhook);
    let known = webhook.status.as_ref().and_then(|s| s.id.clone());
    let (mut found, mut remote) = (vec![], None);
    for listed in ctx.gemini.list_webhooks(key).await? {
        // Somebody may have given it another name.
        let is_known = known.as_ref() == Some(&listed.id);
        if is_known || listed.name == name {
            found.push(listed.id.clone());
        }
        if is_known {
            remote = Some(listed);
        }
    }
    if let Some(id) = known.filter(|id| !found.contains(id)) {
        match ctx.gemini.get_webhook(key, &id).await {
            Ok(shown) => {
                found.push(id);
                remote = Some(shown);
            }
            Err(e) if e.class == Class::NotFound => {}
            // The key has just listed, so this is how another project's registration looks.
            Err(e) if e.http_status == Some(403) => {}
            Err(e) => return Err(e),
        }
    }
    Ok((found, remote))
}
