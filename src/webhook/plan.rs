//! PURE: what to do next with a webhook. Total over its inputs; one step a pass.
//!
//! Registration is not idempotent either, but a twin costs nothing, so it converges: intent, one POST, and on doubt
//! find by name, rotate (the secret is shown once), store, ping. A twin that shows later is deleted when it is seen.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use super::memory::Memory;
use crate::api::condition::{Is, get, is_true, webhook_type};
use crate::api::webhook::{GeminiWebhook, GeminiWebhookStatus, LastDelivery, LastPing, RejectedDelivery};
use crate::controller::{Credentials, Next, after, is_claimed, until};
use crate::submit::{self, Timing};

/// Kubernetes keeps whole seconds: a time may be up to this much later than it says.
const FRACTION: Duration = Duration::from_secs(1);
/// In the words of a condition: deliveries are refused for their signature, and a controller replaces the stored secret.
const REFUSED: &str = "Refused";
/// In the words of the receiver: the stored secret has not made this signature.
const NO_MATCHING_SIGNATURE: &str = "no_matching_signature";
/// A delivery that is further in the future than this is a broken clock, and nothing to wait for.
const CLOCKS_APART: Duration = Duration::from_secs(10);

/// What a pass has seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub credentials: Option<Credentials>,
    /// The signing secret that is stored, if one is.
    pub stored: Option<Stored>,
    /// Ids of registrations that carry our name, from a complete listing, if one was made. One that status knows and
    /// that the listing does not show was asked for by its id.
    pub found: Option<Vec<String>>,
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
}

/// What the pass itself brings along.
pub struct Env<'a> {
    pub timing: &'a Timing,
    pub now: Timestamp,
    /// 128 fresh random bits in base32, used if the route has no token yet.
    pub token: &'a str,
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
    /// The stored secret is not the one that registration `id` signs with: get a new one by rotation, store it.
    Renew {
        id: String,
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
    is_other_key(status, fingerprint)
        || settled.is_some_and(|at| listed < at && at <= env.now)
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
    let in_line = conforms(webhook, &draft.status);
    if !in_line && draft.status.url != draft.wanted_url {
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
    if in_line {
        return tested(webhook, draft, id, stored, memory, env);
    }
    if is_rejected(webhook, &draft.status) {
        draft.not_ready("Rejected");
        return draft.plan(Step::None, Next::After(env.timing.secret_reread));
    }
    draft.plan(Step::Update { id }, Next::Now)
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
fn conforms(webhook: &GeminiWebhook, status: &GeminiWebhookStatus) -> bool {
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

/// Registered, stored, in line: does a delivery arrive?
fn tested(
    webhook: &GeminiWebhook,
    mut draft: Draft,
    id: String,
    stored: &Stored,
    memory: &Memory,
    env: &Env<'_>,
) -> Plan {
    // An API key may be rotated, or its Secret be lost, without any change of this object.
    let routine = Next::After(env.timing.secret_reread);
    if !webhook.spec.enabled {
        draft.set(webhook_type::DELIVERY_HEALTHY, Is::False, "DisabledByUser", "spec.enabled is false");
        draft.set(webhook_type::READY, Is::False, "DisabledByUser", "spec.enabled is false");
        return draft.plan(Step::None, routine);
    }
    let Some(ping) = draft.status.last_ping.clone() else {
        return match renewal_deadline(&draft.status, env) {
            // Whoever wrote that it renews the secret does so now, and a ping could meet the old one.
            Some(deadline) if env.now < deadline => {
                draft.plan(Step::None, Next::After(until(deadline, env.now)))
            }
            Some(_) => renew(draft, id),
            None => ping(draft, id, env),
        };
    };
    let delivery = draft.status.last_delivery.clone().unwrap_or_default();
    let received = ping.received_time.clone().or_else(|| proof(&ping, &delivery, &stored.fingerprint));
    if received.is_some() {
        draft.status.last_ping = Some(LastPing { received_time: received, ..ping });
        // Also where the answer to its rotation was not recorded.
        if !is_true(&draft.status.conditions, webhook_type::SECRET_READY) {
            draft.set(webhook_type::SECRET_READY, Is::True, "Stored", "");
        }
        draft.set(webhook_type::ENDPOINT_REACHABLE, Is::True, "PingVerified", "a signed delivery arrived");
        draft.set(webhook_type::DELIVERY_HEALTHY, Is::True, "Healthy", "");
        draft.set(webhook_type::READY, Is::True, "Ready", "");
        return draft.plan(Step::None, routine);
    }
    let deadline = ping_deadline(&ping, env);
    if env.now < deadline && !memory.ping_lost {
        let failed = draft.reason(webhook_type::ENDPOINT_REACHABLE) != Some("NotTested");
        draft.not_ready(if failed { "EndpointUnreachable" } else { "NotTested" });
        return draft.plan(Step::None, Next::After(until(deadline, env.now)));
    }
    if !memory.ping_lost {
        unreachable(&mut draft, &ping, &delivery);
    }
    match ping_again_at(&draft.status, memory, env).filter(|at| env.now < *at) {
        Some(at) => draft.plan(Step::None, Next::After(until(at, env.now))),
        // Another ping would be signed with the same secret.
        None if !memory.ping_lost
            && refused(&ping, &delivery).is_some_and(|r| r.reason == NO_MATCHING_SIGNATURE) =>
        {
            renew(draft, id)
        }
        None => self::ping(draft, id, env),
    }
}

/// When a delivery that answers this ping arrived: one that was signed with the secret that is stored now, in a later
/// second, or in the same second if it is a ping itself. See [`ping`] for why that second holds no older one.
fn proof(ping: &LastPing, delivery: &LastDelivery, fingerprint: &str) -> Option<Time> {
    let at = delivery.time.clone().filter(|_| delivery.key_fingerprint.as_deref() == Some(fingerprint))?;
    let (sent, arrived) = (ping.sent_time.0.as_second(), at.0.as_second());
    let is_ping = delivery.type_.as_deref() == Some("ping");
    (arrived > sent || (arrived == sent && is_ping)).then_some(at)
}

fn ping_deadline(ping: &LastPing, env: &Env<'_>) -> Timestamp {
    after(ping.sent_time.0, env.timing.ping_timeout + FRACTION)
}

/// When the next ping is due, if the last one was sent and did not arrive.
fn ping_again_at(status: &GeminiWebhookStatus, memory: &Memory, env: &Env<'_>) -> Option<Timestamp> {
    let ping = status.last_ping.as_ref().filter(|ping| ping.received_time.is_none())?;
    if memory.ping_lost {
        return Some(env.now);
    }
    let failures = memory.ping_failures.saturating_add(memory.renewals);
    let pause = Timing::pause(env.timing.ping_pause, env.timing.ping_pause_max, failures);
    Some(after(ping_deadline(ping, env), pause))
}

/// A delivery that was refused since this ping.
fn refused<'a>(ping: &LastPing, delivery: &'a LastDelivery) -> Option<&'a RejectedDelivery> {
    delivery.rejected.as_ref().filter(|rejected| rejected.time >= ping.sent_time)
}

/// Until when a renewal that status tells of is left to the controller that wrote so.
fn renewal_deadline(status: &GeminiWebhookStatus, env: &Env<'_>) -> Option<Timestamp> {
    let renewing = get(&status.conditions, webhook_type::SECRET_READY).filter(|c| c.reason == REFUSED)?;
    Some(after(renewing.last_transition_time.0, env.timing.ping_timeout + FRACTION))
}

/// Replaces a stored secret that verifies nothing. Told first: of two controllers that see it, one gets to write that.
fn renew(mut draft: Draft, id: String) -> Plan {
    let message = "the stored signing secret does not verify deliveries; getting a new one by rotation";
    draft.set(webhook_type::SECRET_READY, Is::False, REFUSED, message);
    draft.untested();
    draft.plan(Step::Renew { id }, Next::Now)
}

fn unreachable(draft: &mut Draft, ping: &LastPing, delivery: &LastDelivery) {
    let (reason, message) = match refused(ping, delivery) {
        Some(rejected) => (
            "BadSignature",
            format!(
                "deliveries arrive, but were refused ({}): is another registration of Gemini sending to this URL, or \
                 does a proxy change the body?",
                rejected.reason
            ),
        ),
        None => (
            "PingTimeout",
            "the ping did not arrive: check that status.url is reachable from the internet, that its certificate is \
             valid, and that the Ingress passes the path to the receiver's Service"
                .to_owned(),
        ),
    };
    draft.set(webhook_type::ENDPOINT_REACHABLE, Is::False, reason, &message);
    draft.set(webhook_type::DELIVERY_HEALTHY, Is::Unknown, "NotTested", "");
    draft.not_ready("EndpointUnreachable");
}

/// Asks for a ping; not in a second in which a delivery was seen, for its answer could not be told from that one.
fn ping(mut draft: Draft, id: String, env: &Env<'_>) -> Plan {
    if draft.status.last_ping.is_none() {
        draft.untested();
    }
    let newest = draft.status.last_delivery.as_ref().and_then(|delivery| delivery.time.as_ref());
    let free = newest.map(|time| after(time.0, FRACTION)).filter(|free| {
        let left = until(*free, env.now);
        free.as_second() > env.now.as_second() && left <= CLOCKS_APART
    });
    if let Some(free) = free {
        return draft.plan(Step::None, Next::After(until(free, env.now)));
    }
    draft.status.last_ping = Some(LastPing { sent_time: Time(env.now), received_time: None });
    draft.plan(Step::Ping { id }, Next::Now)
}
