//! PURE: what to do next with a webhook. Total over its inputs; one step a pass.
//!
//! Registration is not idempotent either, but a twin costs nothing, so it converges: intent, one POST, and on doubt
//! find by name, rotate (the secret is shown once), store, ping. A twin that shows later is deleted when it is seen.

use std::time::Duration;

use jiff::Timestamp;

use super::draft::Draft;
use super::health;
use super::memory::Memory;
use super::proof::{OVERTAKEN, is_busy, ping_again_at, renew, renewing_since, self_test_at, tested};
use super::rotation::{self, Turn};
use crate::api::condition::{Is, get, webhook_type};
use crate::api::webhook::{GeminiWebhook, GeminiWebhookStatus};
use crate::controller::{Credentials, Next, after, is_claimed};
use crate::gemini::{Revocation, Webhook};
use crate::submit::{self, Timing};

/// Kubernetes keeps whole seconds: a time may be up to this much later than it says.
pub const FRACTION: Duration = Duration::from_secs(1);

/// What a pass has seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub credentials: Option<Credentials>,
    /// The signing secret that is stored, if one is.
    pub stored: Option<Stored>,
    /// Ids of registrations that carry our name, from a complete listing, if one was made. One that status knows and
    /// that the listing does not show was asked for by its id.
    pub found: Option<Vec<String>>,
    /// The registration that status knows, as that listing showed it.
    pub remote: Option<Webhook>,
}

impl Observed {
    /// Whether the present API key is the one with which the registration of `status` was last seen.
    pub fn shows_key_of(&self, status: &GeminiWebhookStatus) -> bool {
        let known = status.key_fingerprint.as_ref().filter(|_| status.id.is_some());
        matches!(&self.credentials, Some(Credentials::Ready { fingerprint }) if Some(fingerprint) == known)
    }
}

/// A signing secret in the keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The registration that it belongs to.
    pub registration: String,
    pub fingerprint: String,
    /// Since when; those of older versions do not say.
    pub since: Option<Timestamp>,
    /// Fingerprints of those that were rotated out, and until when they are good.
    pub previous: Vec<(String, Timestamp)>,
}

impl Stored {
    /// Whether the receiver accepts what is signed with this secret.
    pub fn is_good(&self, fingerprint: &str, at: Timestamp) -> bool {
        let previous = || self.previous.iter().any(|(name, end)| name == fingerprint && at < *end);
        self.fingerprint == fingerprint || previous()
    }
}

/// What the pass itself brings along.
pub struct Env<'a> {
    pub timing: &'a Timing,
    pub now: Timestamp,
    /// 128 fresh random bits in base32, used if the route has no token yet.
    pub token: &'a str,
    /// When a delivery of this webhook was last seen to be lost.
    pub rescued: Option<Timestamp>,
}

/// One side effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    None,
    /// Set the finalizer.
    Claim,
    /// Check that the keyring can be written, then register.
    Register {
        name: String,
    },
    /// Take over registration `id`: get a new secret by rotation, store it; delete the twins.
    Adopt {
        id: String,
        twins: Vec<String>,
    },
    /// The stored secret is not, or may not be, the one that registration `id` signs with: get a new one by rotation,
    /// store it.
    Renew {
        id: String,
    },
    /// Get another secret for registration `id`, because it is time to; store it beside or in the place of the others.
    Rotate {
        id: String,
        revocation: Revocation,
    },
    /// Delete registrations of ours that are not the one in use: their deliveries could not be verified.
    Prune {
        twins: Vec<String>,
    },
    /// The API key is one of another project: remove the registration that stays behind, as far as that is possible.
    Leave {
        id: String,
    },
    /// Bring the registration in line with the spec.
    Update {
        id: String,
    },
    /// Ask for a test delivery.
    Ping {
        id: String,
    },
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub status: GeminiWebhookStatus,
    pub step: Step,
    pub next: Next,
}

/// Name of our registration at Gemini: tells it from everybody else's, also after a lost answer.
pub fn registration_name(webhook: &GeminiWebhook) -> String {
    registration_name_of(webhook.metadata.uid.as_deref().unwrap_or_default())
}

/// The same, by the object's uid.
pub fn registration_name_of(uid: &str) -> String {
    format!("gw-{}", submit::submit_key(uid))
}

/// The whole URL: what the user gave, and our path.
pub fn full_url(webhook: &GeminiWebhook, path: &str) -> String {
    format!("{}{path}", webhook.spec.endpoint.url.trim_end_matches('/'))
}

/// Whether this pass has to list the registrations. `fingerprint` is that of the present API key.
pub fn needs_listing(webhook: &GeminiWebhook, fingerprint: &str, memory: &Memory, env: &Env<'_>) -> bool {
    let Some(status) = webhook.status.as_ref().filter(|s| s.path.is_some() && is_claimed(webhook)) else {
        return false;
    };
    if status.id.is_none() {
        return !is_rejected(webhook, status);
    }
    // Once by each process, and once more when everything that was made in doubt must be visible.
    let Some(listed) = memory.listed else { return true };
    let settled = status.registered_time.as_ref().map(|t| after(t.0, env.timing.listing_lag + FRACTION));
    // A self-test begins with a look at what is registered.
    let due = |at: Option<Timestamp>| at.is_some_and(|at| listed < at && at <= env.now);
    is_other_key(status, fingerprint)
        || due(settled)
        || due(self_test_at(webhook, status, None, env))
        || health::look_at(webhook, status, memory, env).is_some_and(|at| at <= env.now)
        || health::rescue_look_at(memory, env).is_some_and(|at| at <= env.now)
        || ping_again_at(status, memory, env).is_some_and(|at| at <= env.now)
}

/// Whether the registration was last seen with another API key than the present one.
fn is_other_key(status: &GeminiWebhookStatus, fingerprint: &str) -> bool {
    status.key_fingerprint.as_deref().is_some_and(|known| known != fingerprint)
}

/// Whether a registration may stand at Gemini that is not in status.
pub fn is_in_doubt(webhook: &GeminiWebhook, memory: &Memory) -> bool {
    let status = webhook.status.as_ref().filter(|s| s.id.is_none());
    status.is_some_and(is_intent) && !memory.registering
}

/// Whether status holds an intent to register whose outcome is not recorded.
fn is_intent(status: &GeminiWebhookStatus) -> bool {
    get(&status.conditions, webhook_type::REGISTERED)
        .is_some_and(|c| c.reason == "Registering" || c.reason == "OutcomeUnknown")
}

/// The decision about a webhook that is not being deleted.
pub fn plan(webhook: &GeminiWebhook, seen: &Observed, memory: &Memory, env: &Env<'_>) -> Plan {
    let mut draft = Draft::new(webhook, memory.problem.as_deref(), env.now);
    if draft.status.path.is_none() {
        draft.status.path = Some(format!("/v1/h/{}", env.token));
        draft.not_ready("Registering");
        return draft.plan(Step::None, Next::Now);
    }
    if !is_claimed(webhook) {
        return draft.plan(Step::Claim, Next::Now);
    }
    let fingerprint = match &seen.credentials {
        Some(Credentials::Ready { fingerprint }) => fingerprint,
        Some(Credentials::NotFound(message)) => return no_key(draft, "CredentialsNotFound", message, env),
        Some(Credentials::Refused(message)) => return no_key(draft, "CredentialsInvalid", message, env),
        None => return draft.plan(Step::None, Next::Now),
    };
    let Some(id) = draft.status.id.clone() else {
        return register(webhook, draft, seen, memory.registering, memory, env);
    };
    if !conforms(webhook, &draft.status) && draft.status.url != draft.wanted_url {
        draft.untested();
    }
    let other_key = is_other_key(&draft.status, fingerprint);
    match &seen.found {
        Some(found) if found.contains(&id) => {
            draft.status.key_fingerprint = Some(fingerprint.clone());
            let twins: Vec<String> = found.iter().filter(|twin| **twin != id).cloned().collect();
            if !twins.is_empty() {
                return draft.plan(Step::Prune { twins }, Next::Now);
            }
            if let Some(remote) = &seen.remote {
                health::take_over(&mut draft, webhook, remote);
            }
        }
        Some(_) if other_key => {
            draft.not_ready("Registering");
            return draft.plan(Step::Leave { id }, Next::Now);
        }
        Some(_) => {
            draft.unregistered();
            return register(webhook, draft, seen, true, memory, env);
        }
        // What another key sees is not known yet.
        None if other_key => return draft.plan(Step::None, Next::After(env.timing.retry)),
        None => draft.status.key_fingerprint = Some(fingerprint.clone()),
    }
    let Some(stored) = seen.stored.as_ref().filter(|stored| stored.registration == id) else {
        draft.secret_lost();
        draft.untested();
        draft.not_ready("SecretLost");
        return draft.plan(Step::Adopt { id, twins: vec![] }, Next::Now);
    };
    // Whoever has told of another rotation makes it, or it is made again.
    let is_told = rotation::begun(&draft.status).is_some() || renewing_since(&draft.status).is_some();
    if memory.overtaken && !is_told {
        return renew(draft, id, OVERTAKEN);
    }
    if is_rejected(webhook, &draft.status) {
        draft.not_ready("Rejected");
        return draft.plan(Step::None, Next::After(env.timing.secret_reread));
    }
    if !conforms(webhook, &draft.status) {
        return draft.plan(Step::Update { id }, Next::Now);
    }
    let later = match rotation::turn(webhook, &mut draft, stored, memory, env) {
        Turn::Rotate(revocation) => return draft.plan(Step::Rotate { id, revocation }, Next::Now),
        Turn::Later(at) => at,
    };
    let mut planned = match health::disabled(webhook, &mut draft, &id, seen.remote.is_some(), memory, env) {
        Some((step, next)) => draft.plan(step, next),
        None => tested(webhook, draft, id, stored, memory, env),
    };
    if planned.step == Step::None {
        let (waits, busy) = match later {
            Some(at) if at <= env.now => (None, is_busy(webhook, &planned.status, stored, memory, env)),
            at => (at, true),
        };
        planned.next = if busy { planned.next.or_at(waits, env.now) } else { Next::Now };
        planned.next = planned.next.or_at(health::rescue_look_at(memory, env), env.now);
    }
    planned
}

fn no_key(mut draft: Draft, reason: &str, message: &str, env: &Env<'_>) -> Plan {
    // An intent stays: what it may have made must still be looked for.
    if draft.status.id.is_none() && !is_intent(&draft.status) {
        draft.set(webhook_type::REGISTERED, Is::False, reason, message);
    }
    draft.set(webhook_type::READY, Is::False, reason, message);
    draft.plan(Step::None, Next::After(env.timing.secret_reread))
}

/// Whether the registration was last brought in line with this very generation of the spec.
pub fn conforms(webhook: &GeminiWebhook, status: &GeminiWebhookStatus) -> bool {
    get(&status.conditions, webhook_type::REGISTERED)
        .is_some_and(|c| c.status == "True" && c.observed_generation == webhook.metadata.generation)
}

/// Whether Gemini refused this very generation of the spec. That stands until the spec changes.
fn is_rejected(webhook: &GeminiWebhook, status: &GeminiWebhookStatus) -> bool {
    get(&status.conditions, webhook_type::REGISTERED)
        .is_some_and(|c| c.reason == "Rejected" && c.observed_generation == webhook.metadata.generation)
}

/// `ours`: no request but one of this process can be under way, and it knows of none.
fn register(
    webhook: &GeminiWebhook,
    mut draft: Draft,
    seen: &Observed,
    ours: bool,
    memory: &Memory,
    env: &Env<'_>,
) -> Plan {
    if is_rejected(webhook, &draft.status) {
        draft.not_ready("Rejected");
        return draft.plan(Step::None, Next::Await);
    }
    let Some(found) = &seen.found else { return draft.plan(Step::None, Next::Now) };
    if let Some(id) = found.iter().min() {
        let twins = found.iter().filter(|twin| *twin != id).cloned().collect();
        // Written before the rotation, so that whoever made the registration cannot record it as good afterwards.
        draft.secret_lost();
        return draft.plan(Step::Adopt { id: id.clone(), twins }, Next::Now);
    }
    // An intent that is not ours to go on with: its request may be under way, and its registration not listed yet. A
    // twin would do no harm, but three looks make it rare.
    if !ours && is_intent(&draft.status) && memory.empty_listings < env.timing.listings_required {
        let message = "the answer to the registration was lost; looking for it by name";
        draft.set(webhook_type::REGISTERED, Is::Unknown, "OutcomeUnknown", message);
        draft.not_ready("OutcomeUnknown");
        return draft.plan(Step::None, Next::After(env.timing.listing_spacing / 30));
    }
    draft.registering();
    draft.plan(Step::Register { name: registration_name(webhook) }, Next::Now)
}
