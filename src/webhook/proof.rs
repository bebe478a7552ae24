//! PURE: the self-test. When Gemini is asked for a delivery, what answers it, and which stage failed if nothing does.
//!
//! That Gemini takes the wish says nothing; only what the receiver saw and verified does. A proof stands until the next
//! self-test has failed: while that one is under way, nothing is known to be wrong.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use super::health::ENABLED;
use super::memory::Memory;
use super::plan::{Env, FRACTION, Plan, Step, Stored};
use super::rotation::begun;
use crate::api::condition::{Is, get, is_true, webhook_type};
use crate::api::webhook::{GeminiWebhook, GeminiWebhookStatus, LastDelivery, LastPing, RejectedDelivery};
use crate::controller::{Next, after, until};
use crate::submit::Timing;

/// In the words of a condition: deliveries are refused for their signature, and a controller replaces the stored secret.
pub const REFUSED: &str = "Refused";
/// In the words of a condition: the receiver's clock and Gemini's are too far apart.
const CLOCK_SKEW: &str = "ClockSkew";
const VERIFIES_NOTHING: &str =
    "the stored signing secret does not verify deliveries; getting a new one by rotation";
pub const OVERTAKEN: &str = "two controllers had the signing secret rotated, and which one holds is not known; getting a new one by rotation";
/// In the words of the receiver: the stored secret has not made this signature.
const NO_MATCHING_SIGNATURE: &str = "no_matching_signature";
/// A delivery that is further in the future than this is a broken clock, and nothing to wait for.
const CLOCKS_APART: Duration = Duration::from_secs(10);
/// Clocks that differ by more than this are told of, long before the receiver refuses deliveries for it.
const SKEW_SECONDS: u64 = 60;

/// Registered, stored, in line: does a delivery arrive?
pub fn tested(
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
        let Some(told) = renewing_since(&draft.status) else { return ping(draft, id, env) };
        if let Some(since) = stored.since.filter(|since| since.as_second() >= told.as_second()) {
            // Done; only the word of it was lost.
            draft.set(webhook_type::SECRET_READY, Is::True, "Recovered", "");
            draft.status.last_rotation_time = Some(Time(since));
            return ping(draft, id, env);
        }
        // Whoever wrote that it renews the secret does so now, and a ping could meet the old one.
        let deadline = after(told, env.timing.ping_timeout + FRACTION);
        if env.now < deadline {
            return draft.plan(Step::None, Next::After(until(deadline, env.now)));
        }
        draft.restart(webhook_type::SECRET_READY);
        return renew(draft, id, VERIFIES_NOTHING);
    };
    let delivery = draft.status.last_delivery.clone().unwrap_or_default();
    let received = ping.received_time.clone().or_else(|| answer(&ping, &delivery, stored));
    if received.is_some() {
        draft.status.last_ping = Some(LastPing { received_time: received, ..ping });
        // Also where the answer to its rotation was not recorded. One that is still going on is another matter.
        if !is_true(&draft.status.conditions, webhook_type::SECRET_READY) && begun(&draft.status).is_none() {
            draft.set(webhook_type::SECRET_READY, Is::True, "Stored", "");
        }
        draft.set(webhook_type::ENDPOINT_REACHABLE, Is::True, "PingVerified", "a signed delivery arrived");
        reachable(webhook, &mut draft, &delivery);
        return match self_test_at(webhook, &draft.status, Some(stored), env) {
            Some(due) if due <= env.now => self::ping(draft, id, env),
            due => draft.plan(Step::None, routine.or_at(due, env.now)),
        };
    }
    let deadline = ping_deadline(&ping, env);
    if env.now < deadline && !memory.ping_lost {
        if is_true(&draft.status.conditions, webhook_type::ENDPOINT_REACHABLE) {
            reachable(webhook, &mut draft, &delivery);
        } else {
            let failed = draft.reason(webhook_type::ENDPOINT_REACHABLE) != Some("NotTested");
            draft.not_ready(if failed { "EndpointUnreachable" } else { "NotTested" });
        }
        return draft.plan(Step::None, Next::After(until(deadline, env.now)));
    }
    if !memory.ping_lost {
        unreachable(&mut draft, Stage::of(refused(&ping, &delivery)));
    }
    match ping_again_at(&draft.status, memory, env).filter(|at| env.now < *at) {
        Some(at) => draft.plan(Step::None, Next::After(until(at, env.now))),
        // Another ping would be signed with the same secret.
        None if !memory.ping_lost
            && refused(&ping, &delivery).is_some_and(|r| r.reason == NO_MATCHING_SIGNATURE) =>
        {
            renew(draft, id, VERIFIES_NOTHING)
        }
        None => self::ping(draft, id, env),
    }
}

/// When a delivery that answers this ping arrived: one that was signed with a secret that is good now, in a later second,
/// or in the same second if it is a ping itself. See [`ping`] for why that second holds no older one.
///
/// After an ordinary rotation Gemini may sign with the secret before it alone; that proves the way as well. Where a
/// rotation has revoked the others, only the new one is good.
fn answer(ping: &LastPing, delivery: &LastDelivery, stored: &Stored) -> Option<Time> {
    let fingerprint = delivery.key_fingerprint.as_deref()?;
    let at = sent_or_received(delivery).filter(|at| stored.is_good(fingerprint, at.0))?;
    let (sent, arrived) = (ping.sent_time.0.as_second(), at.0.as_second());
    let is_ping = delivery.type_.as_deref() == Some("ping");
    (arrived > sent || (arrived == sent && is_ping)).then_some(at)
}

/// When the newest delivery arrived. A receiver whose clock is behind saw it earlier than it was sent, and there the sender's
/// clock is the better one: that its own is wrong is said elsewhere, and the way is good.
fn sent_or_received(delivery: &LastDelivery) -> Option<Time> {
    let behind = delivery.skew_seconds.filter(|skew| *skew < 0).map_or(0, i64::unsigned_abs);
    delivery.time.as_ref().map(|at| Time(after(at.0, Duration::from_secs(behind))))
}

fn ping_deadline(ping: &LastPing, env: &Env<'_>) -> Timestamp {
    after(ping.sent_time.0, env.timing.ping_timeout + FRACTION)
}

/// When the next ping is due, if the last one was sent and did not arrive.
pub fn ping_again_at(status: &GeminiWebhookStatus, memory: &Memory, env: &Env<'_>) -> Option<Timestamp> {
    let ping = status.last_ping.as_ref().filter(|ping| ping.received_time.is_none())?;
    if memory.ping_lost {
        return Some(env.now);
    }
    let failures = memory.ping_failures.saturating_add(memory.renewals);
    let pause = Timing::pause(env.timing.ping_pause, env.timing.ping_pause_max, failures);
    Some(after(ping_deadline(ping, env), pause))
}

/// Whether a self-test is under way or due, so that nothing should begin that changes what it would meet.
pub fn is_busy(
    webhook: &GeminiWebhook,
    status: &GeminiWebhookStatus,
    stored: &Stored,
    memory: &Memory,
    env: &Env<'_>,
) -> bool {
    if !webhook.spec.enabled || status.state.as_deref() != Some(ENABLED) {
        return false;
    }
    let Some(ping) = &status.last_ping else { return true };
    let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= env.now);
    if ping.received_time.is_some() {
        return is_due(self_test_at(webhook, status, Some(stored), env));
    }
    env.now < ping_deadline(ping, env) || is_due(ping_again_at(status, memory, env))
}

/// When the next self-test is due, if the last one was passed.
pub fn self_test_at(
    webhook: &GeminiWebhook,
    status: &GeminiWebhookStatus,
    stored: Option<&Stored>,
    env: &Env<'_>,
) -> Option<Timestamp> {
    let ping = status.last_ping.as_ref().filter(|ping| ping.received_time.is_some())?;
    let mut interval = self_test_interval(webhook, env);
    if status.last_delivery.as_ref().is_some_and(|delivery| skewed(webhook, delivery).is_some()) {
        // Somebody will set the clock, and wants to see that it helped.
        interval = interval.min(env.timing.ping_pause_max);
    }
    // It may have been proven with a secret that is not good any more by then.
    let ends = stored.into_iter().flat_map(|stored| stored.previous.iter().map(|(_, end)| *end));
    let next = ends.filter(|end| *end > ping.sent_time.0).min();
    Some(after(ping.sent_time.0, interval).min(next.unwrap_or(Timestamp::MAX)))
}

/// Between two self-tests.
pub fn self_test_interval(webhook: &GeminiWebhook, env: &Env<'_>) -> Duration {
    env.timing.self_test(webhook.spec.self_test.interval.0)
}

/// A delivery that was refused since this ping. One that seemed to come from the future was refused by a clock that is
/// behind, so that its time says nothing; the next verified delivery takes it away.
fn refused<'a>(ping: &LastPing, delivery: &'a LastDelivery) -> Option<&'a RejectedDelivery> {
    let counts = |rejected: &&RejectedDelivery| {
        rejected.time >= ping.sent_time || rejected.reason == "timestamp_too_new"
    };
    delivery.rejected.as_ref().filter(counts)
}

/// When a controller told that it replaces the stored secret, if it has not said that it is done.
pub fn renewing_since(status: &GeminiWebhookStatus) -> Option<Timestamp> {
    let renewing = get(&status.conditions, webhook_type::SECRET_READY).filter(|c| c.reason == REFUSED)?;
    Some(renewing.last_transition_time.0)
}

/// Replaces a stored secret that verifies nothing. Told first: of two controllers that see it, one gets to write that.
pub fn renew(mut draft: Draft, id: String, why: &str) -> Plan {
    draft.set(webhook_type::SECRET_READY, Is::False, REFUSED, why);
    draft.untested();
    draft.plan(Step::Renew { id }, Next::Now)
}

/// Whether the clocks are too far apart: in the words of a condition, if they are.
pub fn skewed(webhook: &GeminiWebhook, delivery: &LastDelivery) -> Option<String> {
    let tolerance = webhook.spec.tolerance.0.as_secs();
    // Told of before deliveries are refused, however little is tolerated.
    let most = SKEW_SECONDS.min(tolerance / 2);
    let skew = delivery.skew_seconds.filter(|skew| skew.unsigned_abs() > most)?;
    let (far, side) = (skew.unsigned_abs(), if skew > 0 { "ahead of" } else { "behind" });
    Some(format!(
        "the receiver's clock is {far} s {side} the sender's; from {tolerance} s on (spec.tolerance) every delivery is \
         refused. Check the time synchronisation of the nodes that run the receiver"
    ))
}

/// Deliveries arrive and are verified. A clock that is about to end that is told of, but does not end it yet.
fn reachable(webhook: &GeminiWebhook, draft: &mut Draft, delivery: &LastDelivery) {
    match skewed(webhook, delivery) {
        Some(message) => draft.set(webhook_type::DELIVERY_HEALTHY, Is::False, CLOCK_SKEW, &message),
        None => draft.set(webhook_type::DELIVERY_HEALTHY, Is::True, "Healthy", ""),
    }
    draft.set(webhook_type::READY, Is::True, "Ready", "");
}

/// How far a self-test came.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing reached the receiver.
    Way,
    /// It arrived, and its time stamp was refused.
    Clock(String),
    /// It arrived, and the receiver had no secret to verify it with.
    Keyring(String),
    /// It arrived, and was not what the stored secret signs.
    Signature(String),
}

impl Stage {
    fn of(refused: Option<&RejectedDelivery>) -> Self {
        let Some(refused) = refused else { return Self::Way };
        let reason = refused.reason.clone();
        match &*reason {
            "timestamp_too_old" | "timestamp_too_new" => Self::Clock(reason),
            "no_usable_key" | "empty_secret" | "malformed" => Self::Keyring(reason),
            _ => Self::Signature(reason),
        }
    }
}

fn unreachable(draft: &mut Draft, stage: Stage) {
    let (reason, message) = match stage {
        Stage::Way => (
            "PingTimeout",
            "the ping did not arrive: check that status.url is reachable from the internet, that its certificate is \
             valid, and that the Ingress passes the path to the receiver's Service"
                .to_owned(),
        ),
        Stage::Clock(verdict) => (
            CLOCK_SKEW,
            format!(
                "the ping arrived, but the receiver's clock and Gemini's are too far apart ({verdict}): check the time \
                 synchronisation of the nodes that run the receiver"
            ),
        ),
        Stage::Keyring(verdict) => (
            "BadSignature",
            format!(
                "the ping arrived, but the receiver had no signing secret to verify it with ({verdict}): check that it \
                 may read the keyring Secret in the operator's namespace"
            ),
        ),
        Stage::Signature(verdict) => (
            "BadSignature",
            format!(
                "deliveries arrive, but were refused ({verdict}): is another registration of Gemini sending to this \
                 URL, or does a proxy change the body?"
            ),
        ),
    };
    draft.set(webhook_type::ENDPOINT_REACHABLE, Is::False, reason, &message);
    match reason {
        "PingTimeout" => draft.set(webhook_type::DELIVERY_HEALTHY, Is::Unknown, "NotTested", ""),
        CLOCK_SKEW => draft.set(webhook_type::DELIVERY_HEALTHY, Is::False, CLOCK_SKEW, &message),
        _ => draft.set(webhook_type::DELIVERY_HEALTHY, Is::False, "RejectingSignatures", &message),
    }
    draft.not_ready("EndpointUnreachable");
}

/// Asks for a ping; not in a second in which a delivery was seen, for its answer could not be told from that one.
fn ping(mut draft: Draft, id: String, env: &Env<'_>) -> Plan {
    // What was proven before a rotation stands.
    if draft.status.last_ping.is_none()
        && !is_true(&draft.status.conditions, webhook_type::ENDPOINT_REACHABLE)
    {
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
