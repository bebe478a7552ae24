//! PURE: a webhook that the operator does not register: `External`, which somebody else has told a sender of, and
//! `Dynamic`, whose address goes to Gemini with each job. No step of these asks Gemini for anything.
//!
//! There is no ping either, so that only a delivery proves the way. Batches may rely on the webhook before that: they are
//! the ones whose ends are delivered.

use jiff::Timestamp;

use super::draft::{Draft, STORING};
use super::plan::Env;
use super::proof::skewed;
use super::signing::Offer;
use crate::api::condition::{Is, get, is_true, webhook_type};
use crate::api::webhook::{
    GeminiWebhook, GeminiWebhookStatus, LastDelivery, RegistrationMode, RejectedDelivery, SignatureScheme,
};
use crate::controller::{Credentials, Next, is_claimed};

/// In the words of a condition: there is nothing of the kind in this mode.
const NOT_REQUIRED: &str = "NotRequired";

/// What a pass has seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Of the API key. Nothing is asked with it; it tells which batches the webhook serves.
    pub credentials: Option<Credentials>,
    /// Mode `External` only.
    pub signing: Option<Signing>,
}

/// What there is to verify deliveries with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    pub offer: Offer,
    /// The keyring holds a secret of the route's scheme, this one or an older one.
    pub held: bool,
}

/// One side effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    None,
    /// Set the finalizer: the keyring entry is to go with the object.
    Claim,
    /// Copy the user's secret to the keyring.
    Store,
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub status: GeminiWebhookStatus,
    pub step: Step,
    pub next: Next,
}

/// The decision about a webhook that is not being deleted. `problem`: what went wrong last, for people to read.
pub fn plan(webhook: &GeminiWebhook, seen: &Observed, problem: Option<&str>, env: &Env<'_>) -> Plan {
    let mut draft = Draft::new(webhook, problem, env.now);
    if draft.status.path.is_none() {
        draft.status.path = Some(format!("/v1/h/{}", env.token));
        draft.not_ready("Preparing");
        return with(draft, Step::None, Next::Now);
    }
    if !is_claimed(webhook) {
        return with(draft, Step::Claim, Next::Now);
    }
    let Some(credentials) = &seen.credentials else { return with(draft, Step::None, Next::Now) };
    if let Credentials::Ready { fingerprint } = credentials {
        draft.status.key_fingerprint = Some(fingerprint.clone());
    }
    registration(webhook, &mut draft);
    replayable(webhook, &mut draft);
    deliveries(webhook, &mut draft);
    let fresh = secret(&mut draft, seen.signing.as_ref());
    readiness(webhook, &mut draft, credentials, seen.signing.as_ref());
    if fresh {
        return with(draft, Step::Store, Next::Now);
    }
    // No change of this object tells of a change of a Secret. What is read must also be stored and reach the receivers
    // within a minute.
    with(draft, Step::None, Next::After(env.timing.secret_reread * 5 / 6))
}

fn with(draft: Draft, step: Step, next: Next) -> Plan {
    Plan { status: draft.status, step, next }
}

fn registration(webhook: &GeminiWebhook, draft: &mut Draft) {
    let message = if webhook.spec.mode == RegistrationMode::Dynamic {
        "the operator registers nothing in mode Dynamic: each batch passes status.url to Gemini with its job"
    } else {
        "the operator registers nothing in mode External: register status.url where the deliveries come from"
    };
    draft.set(webhook_type::REGISTERED, Is::True, NOT_REQUIRED, message);
}

fn replayable(webhook: &GeminiWebhook, draft: &mut Draft) {
    if webhook.spec.scheme() != SignatureScheme::XGoogSignature {
        draft.status.conditions.retain(|c| c.type_ != webhook_type::REPLAYABLE_SIGNATURE);
        return;
    }
    draft.set(
        webhook_type::REPLAYABLE_SIGNATURE,
        Is::True,
        "XGoogSignature",
        "this scheme signs neither a time nor an id, so whoever overhears a delivery can send it again for ever. It costs \
         a look at the job, and no more: what it says is always confirmed at Gemini. Use StandardWebhooks if the sender can",
    );
}

/// What the receiver's word on the newest delivery says of the way.
fn deliveries(webhook: &GeminiWebhook, draft: &mut Draft) {
    let moved = webhook.status.as_ref().and_then(|s| s.url.as_ref()) != draft.wanted_url.as_ref();
    let delivery = draft.status.last_delivery.clone().unwrap_or_default();
    let type_ = webhook_type::ENDPOINT_REACHABLE;
    // What arrived before at another address says nothing of this one. Kubernetes keeps whole seconds.
    let since = get(&draft.status.conditions, type_).filter(|c| c.status == "Unknown");
    let since = since.map_or(Timestamp::MIN, |c| c.last_transition_time.0);
    let counts = |time: Timestamp| time.as_second() >= since.as_second();
    let arrived = delivery.time.as_ref().map(|time| time.0).filter(|time| counts(*time));
    let refused = delivery.rejected.as_ref().filter(|r| counts(r.time.0) && arrived < Some(r.time.0));
    if moved || (arrived.is_none() && refused.is_none() && !is_true(&draft.status.conditions, type_)) {
        draft.set(type_, Is::Unknown, "NotTested", "no delivery has arrived at this address yet");
        draft.set(webhook_type::DELIVERY_HEALTHY, Is::Unknown, "NotTested", "");
        if moved {
            // The same state begins anew.
            draft.restart(type_);
        }
        return;
    }
    if let Some(refused) = refused {
        let (reason, message) = rejected(refused);
        draft.set(type_, Is::False, reason, &message);
        draft.set(webhook_type::DELIVERY_HEALTHY, Is::False, "RejectingSignatures", &message);
        return;
    }
    draft.set(type_, Is::True, "DeliveryVerified", "a signed delivery arrived");
    health(webhook, draft, &delivery);
}

/// A delivery that came after the newest good one, and was refused.
fn rejected(refused: &RejectedDelivery) -> (&'static str, String) {
    let verdict = &refused.reason;
    match (verdict.as_str(), &refused.observed_audience) {
        ("timestamp_too_old" | "timestamp_too_new", _) => (
            "ClockSkew",
            format!(
                "a delivery arrived, but the receiver's clock and the sender's are too far apart ({verdict}; spec.tolerance \
                 says how far they may be): check the time synchronisation of the nodes that run the receiver"
            ),
        ),
        ("aud", Some(audience)) => (
            "BadSignature",
            format!(
                "spec.jwt.audience: a delivery arrived whose token is for {audience:?}; set that, if it is what your sender \
                 means by this endpoint"
            ),
        ),
        _ => (
            "BadSignature",
            format!(
                "a delivery arrived, but was refused ({verdict}): does its sender sign by spec.signature and with the same \
                 secret, and does no proxy change the body?"
            ),
        ),
    }
}

fn health(webhook: &GeminiWebhook, draft: &mut Draft, delivery: &LastDelivery) {
    match skewed(webhook, delivery) {
        Some(message) => draft.set(webhook_type::DELIVERY_HEALTHY, Is::False, "ClockSkew", &message),
        None => draft.set(webhook_type::DELIVERY_HEALTHY, Is::True, "Healthy", ""),
    }
}

/// Whether there is a secret to be stored.
fn secret(draft: &mut Draft, signing: Option<&Signing>) -> bool {
    let type_ = webhook_type::SECRET_READY;
    let Some(signing) = signing else {
        draft.set(type_, Is::True, NOT_REQUIRED, "deliveries are verified with Gemini's public keys");
        return false;
    };
    match &signing.offer {
        Offer::Stored => draft.set(type_, Is::True, "Stored", ""),
        Offer::New => draft.storing(),
        Offer::Unusable(problem) => {
            // The last good one stays: to refuse deliveries helps nobody who is about to put the Secret right.
            let until = if signing.held {
                "; until then deliveries are verified with the secret that was stored before"
            } else {
                "; until then no delivery can be verified"
            };
            draft.set(type_, Is::False, problem.reason, &format!("{}{until}", problem.message));
        }
    }
    signing.offer == Offer::New
}

/// Batches may rely on the webhook as soon as the receiver can verify what comes.
fn readiness(
    webhook: &GeminiWebhook,
    draft: &mut Draft,
    credentials: &Credentials,
    signing: Option<&Signing>,
) {
    let type_ = webhook_type::READY;
    let (reason, message) = match (credentials, signing) {
        _ if !webhook.spec.enabled => ("DisabledByUser", "spec.enabled is false".to_owned()),
        (Credentials::NotFound(message), _) => ("CredentialsNotFound", message.clone()),
        (Credentials::Refused(message), _) => ("CredentialsInvalid", message.clone()),
        (_, Some(Signing { offer: Offer::Unusable(problem), .. })) => {
            (problem.reason, problem.message.clone())
        }
        (_, Some(Signing { offer: Offer::New, held: false })) => return draft.not_ready(STORING),
        _ => return draft.set(type_, Is::True, "Ready", ""),
    };
    draft.set(type_, Is::False, reason, &message);
}
