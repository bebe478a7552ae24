//! PURE: what to do next with a webhook. Total over its inputs; one step a pass.
//!
//! Registration is not idempotent either, but a twin costs nothing, so it converges: intent, one POST, and on doubt
//! find by name, rotate (the secret is shown once), store, ping.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::memory::Memory;
use crate::api::condition::get;
use crate::api::condition::{self, Is, webhook_type};
use crate::api::webhook::{GeminiWebhook, GeminiWebhookStatus, LastPing};
use crate::controller::{Credentials, Next, after, is_claimed, until};
use crate::submit::{self, Timing};

/// What a pass has seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub credentials: Option<Credentials>,
    /// The registration that the stored signing secret belongs to, if one is stored.
    pub stored_for: Option<String>,
    /// Ids of registrations that carry our name, from a complete listing, if one was made.
    pub found: Option<Vec<String>>,
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

/// Whether this pass has to list the registrations.
pub fn needs_listing(webhook: &GeminiWebhook) -> bool {
    webhook.status.as_ref().is_some_and(|s| s.path.is_some() && s.id.is_none())
}

/// The decision about a webhook that is not being deleted.
pub fn plan(webhook: &GeminiWebhook, seen: &Observed, memory: &Memory, env: &Env<'_>) -> Plan {
    let mut draft = Draft::new(webhook, env.now);
    if draft.status.path.is_none() {
        draft.status.path = Some(format!("/v1/h/{}", env.token));
    }
    if webhook.status.as_ref().is_none_or(|s| s.path.is_none()) {
        draft.set(webhook_type::READY, Is::False, "Registering", "");
        return draft.plan(Step::None, Next::Now);
    }
    if !is_claimed(webhook) {
        return draft.plan(Step::Claim, Next::Now);
    }
    let fingerprint = match &seen.credentials {
        Some(Credentials::Ready { fingerprint }) => fingerprint.clone(),
        Some(Credentials::NotFound(message)) => return no_key(draft, "CredentialsNotFound", message, env),
        Some(Credentials::Refused(message)) => return no_key(draft, "CredentialsInvalid", message, env),
        None => return draft.plan(Step::None, Next::Now),
    };
    let Some(id) = draft.status.id.clone() else { return register(webhook, draft, seen, memory, env) };
    if seen.stored_for.as_ref() != Some(&id) {
        draft.set(
            webhook_type::SECRET_READY,
            Is::False,
            "Lost",
            "the keyring holds no signing secret for this registration; getting a new one by rotation",
        );
        draft.not_ready("SecretLost");
        return draft.plan(Step::Adopt { id, twins: vec![] }, Next::Now);
    }
    draft.status.key_fingerprint = Some(fingerprint);
    if conforms(webhook, &draft.status) {
        tested(webhook, draft, id, memory, env)
    } else {
        draft.plan(Step::Update { id }, Next::Now)
    }
}

fn no_key(mut draft: Draft, reason: &str, message: &str, env: &Env<'_>) -> Plan {
    if draft.status.id.is_none() {
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

fn register(
    webhook: &GeminiWebhook,
    mut draft: Draft,
    seen: &Observed,
    memory: &Memory,
    env: &Env<'_>,
) -> Plan {
    let Some(found) = &seen.found else { return draft.plan(Step::None, Next::Now) };
    if let Some(id) = found.iter().min() {
        let twins = found.iter().filter(|twin| *twin != id).cloned().collect();
        return draft.plan(Step::Adopt { id: id.clone(), twins }, Next::Now);
    }
    let reason = get(&draft.status.conditions, webhook_type::REGISTERED).map(|c| c.reason.clone());
    match reason.as_deref() {
        Some("Rejected") if rejected_for(webhook, &draft.status) => draft.plan(Step::None, Next::Await),
        // An intent that is not ours to go on with: its request may be under way, and its registration not listed
        // yet. A twin would do no harm, but three looks make it rare.
        Some("Registering" | "OutcomeUnknown")
            if !memory.registering && memory.empty_listings < env.timing.listings_required =>
        {
            let message = "the answer to the registration was lost; looking for it by name";
            draft.set(webhook_type::REGISTERED, Is::Unknown, "OutcomeUnknown", message);
            draft.not_ready("OutcomeUnknown");
            draft.plan(Step::None, Next::After(env.timing.listing_spacing / 30))
        }
        _ => {
            draft.set(webhook_type::REGISTERED, Is::False, "Registering", "");
            draft.not_ready("Registering");
            draft.plan(Step::Register { name: registration_name(webhook) }, Next::Now)
        }
    }
}

/// A refusal stands until the spec changes.
fn rejected_for(webhook: &GeminiWebhook, status: &GeminiWebhookStatus) -> bool {
    get(&status.conditions, webhook_type::REGISTERED)
        .is_some_and(|c| c.observed_generation == webhook.metadata.generation)
}

/// Registered, stored, in line: does a delivery arrive?
fn tested(webhook: &GeminiWebhook, mut draft: Draft, id: String, memory: &Memory, env: &Env<'_>) -> Plan {
    if !webhook.spec.enabled {
        draft.set(webhook_type::DELIVERY_HEALTHY, Is::False, "DisabledByUser", "spec.enabled is false");
        draft.set(webhook_type::READY, Is::False, "DisabledByUser", "spec.enabled is false");
        return draft.plan(Step::None, Next::Await);
    }
    let Some(ping) = draft.status.last_ping.clone() else { return ping_now(draft, id, env) };
    let delivery = draft.status.last_delivery.clone().unwrap_or_default();
    // Kubernetes keeps whole seconds: the same second counts as after.
    if let Some(at) = delivery.time.filter(|at| *at >= ping.sent_time) {
        draft.status.last_ping = Some(LastPing { received_time: Some(at), ..ping });
        draft.set(webhook_type::ENDPOINT_REACHABLE, Is::True, "PingVerified", "a signed delivery arrived");
        draft.set(webhook_type::DELIVERY_HEALTHY, Is::True, "Healthy", "");
        draft.set(webhook_type::READY, Is::True, "Ready", "");
        return draft.plan(Step::None, Next::Await);
    }
    let deadline = after(ping.sent_time.0, env.timing.ping_timeout);
    if env.now < deadline {
        if !draft.has(webhook_type::ENDPOINT_REACHABLE) {
            draft.set(webhook_type::ENDPOINT_REACHABLE, Is::Unknown, "NotTested", "a ping is under way");
            draft.not_ready("NotTested");
        }
        return draft.plan(Step::None, Next::After(until(deadline, env.now)));
    }
    match delivery.rejected.filter(|r| r.time >= ping.sent_time) {
        Some(rejected) => draft.set(
            webhook_type::ENDPOINT_REACHABLE,
            Is::False,
            "BadSignature",
            &format!(
                "deliveries arrive, but were refused ({}): is another registration of Gemini sending to this URL, or \
                 does a proxy change the body?",
                rejected.reason
            ),
        ),
        None => draft.set(
            webhook_type::ENDPOINT_REACHABLE,
            Is::False,
            "PingTimeout",
            "the ping did not arrive: check that status.url is reachable from the internet, that its certificate is \
             valid, and that the Ingress passes the path to the receiver's Service",
        ),
    }
    draft.set(webhook_type::DELIVERY_HEALTHY, Is::Unknown, "NotTested", "");
    draft.not_ready("EndpointUnreachable");
    let pause = Timing::pause(env.timing.ping_pause, env.timing.ping_pause_max, memory.ping_failures);
    let next = after(deadline, pause);
    if env.now < next {
        return draft.plan(Step::None, Next::After(until(next, env.now)));
    }
    ping_now(draft, id, env)
}

fn ping_now(mut draft: Draft, id: String, env: &Env<'_>) -> Plan {
    draft.status.last_ping = Some(LastPing { sent_time: Time(env.now), received_time: None });
    if !draft.has(webhook_type::ENDPOINT_REACHABLE) {
        draft.set(webhook_type::ENDPOINT_REACHABLE, Is::Unknown, "NotTested", "a ping is under way");
        draft.not_ready("NotTested");
    }
    draft.plan(Step::Ping { id }, Next::Now)
}

/// A status in the making.
pub struct Draft {
    pub status: GeminiWebhookStatus,
    generation: Option<i64>,
    now: Timestamp,
}

impl Draft {
    pub fn new(webhook: &GeminiWebhook, now: Timestamp) -> Self {
        let generation = webhook.metadata.generation;
        let mut status = webhook.status.clone().unwrap_or_default();
        status.observed_generation = generation;
        if let Some(path) = &status.path {
            status.url = Some(full_url(webhook, path));
        }
        Self { status, generation, now }
    }

    pub fn set(&mut self, type_: &str, is: Is, reason: &str, message: &str) {
        // `Registered` keeps the generation that the registration conforms to.
        condition::set(&mut self.status.conditions, type_, is, reason, message, self.generation, self.now);
    }

    pub fn has(&self, type_: &str) -> bool {
        get(&self.status.conditions, type_).is_some()
    }

    pub fn not_ready(&mut self, reason: &str) {
        self.set(webhook_type::READY, Is::False, reason, "");
    }

    fn plan(self, step: Step, next: Next) -> Plan {
        Plan { status: self.status, step, next }
    }
}
