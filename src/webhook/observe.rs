//! I/O in: what a pass over a webhook looks at.

use super::keyring;
use super::plan::{Observed, needs_listing, registration_name};
use crate::api::GeminiWebhook;
use crate::controller::{Context, Credentials, Error};
use crate::gemini::{self, ApiKey};

/// Looks at the Secret, at the keyring, and at Gemini's registrations where the plan needs them.
pub async fn observe(ctx: &Context, webhook: &GeminiWebhook) -> Result<(Observed, Option<ApiKey>), Error> {
    let namespace = webhook.metadata.namespace.as_deref().unwrap_or_default();
    let reference = &webhook.spec.api_key_secret_ref;
    let mut seen = Observed::default();
    let (credentials, key) = ctx.credentials.get(namespace, reference).await?.split();
    let (Credentials::Ready { fingerprint }, Some(key)) = (&credentials, key) else {
        seen.credentials = Some(credentials);
        return Ok((seen, None));
    };
    let uid = webhook.metadata.uid.as_deref().unwrap_or_default();
    seen.stored_for = keyring::load(ctx, uid).await?.map(|entry| entry.registration);
    if needs_listing(webhook) {
        let name = registration_name(webhook);
        match ctx.gemini.list_webhooks(&key).await {
            Ok(all) => {
                let found: Vec<String> = all.into_iter().filter(|w| w.name == name).map(|w| w.id).collect();
                ctx.webhook_memory.update(uid, |m| {
                    m.empty_listings = if found.is_empty() { m.empty_listings.saturating_add(1) } else { 0 };
                });
                seen.found = Some(found);
            }
            Err(e) if e.class == gemini::Class::Auth => {
                seen.credentials =
                    Some(ctx.credentials.refuse(namespace, reference, fingerprint, &e.message));
                return Ok((seen, None));
            }
            Err(e) => return Err(e.into()),
        }
    }
    seen.credentials = Some(credentials);
    Ok((seen, Some(key)))
}
