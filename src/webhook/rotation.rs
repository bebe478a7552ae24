//! PURE: the rotation of a signing secret: when it is due, who does it, and which secrets are good afterwards.
//!
//! A new secret is shown once and a rotation cannot be taken back, but it can be repeated: whoever rotates says so in the
//! status first, and as long as no younger secret stands in the keyring, it is done again. The keyring keeps the time of
//! its secret, so that only an answer that was lost costs another rotation, and not a status that was not written.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use super::memory::Memory;
use super::plan::{Env, FRACTION, Stored};
use super::proof::{is_busy, renewing_since};
use crate::api::ROTATE_AT_ANNOTATION;
use crate::api::condition::{Is, get, is_true, webhook_type};
use crate::api::keyring::{KeyringEntry, PreviousSecret};
use crate::api::webhook::{GeminiWebhook, GeminiWebhookStatus, RevocationBehavior};
use crate::controller::after;
use crate::gemini::Revocation;

/// In the words of a condition: Gemini is asked for another secret.
pub const ROTATING: &str = "Rotating";
/// In the words of a condition: nobody can tell when to rotate.
const INVALID_ROTATE_AT: &str = "InvalidRotateAt";
/// In the words of a condition: too many secrets are alive.
const ROTATION_WAITS: &str = "RotationWaits";

/// So long Gemini goes on signing with a secret that was rotated out. It is Gemini's own time and no window of ours, so
/// nothing divides it.
const GRACE: Duration = Duration::from_hours(24);
/// Gemini's clock is not ours, and what it signed last arrives later.
const GRACE_MARGIN: Duration = Duration::from_mins(10);
/// Each secret that is alive costs an HMAC for every delivery.
const MAX_PREVIOUS: usize = 3;

/// What a pass does about rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Rotate(Revocation),
    /// Nothing now; then again, if that is known.
    Later(Option<Timestamp>),
}

/// The decision, about a registration whose secret is stored. The intent is part of the draft: of two controllers one gets
/// to write it.
pub fn turn(
    webhook: &GeminiWebhook,
    draft: &mut Draft,
    stored: &Stored,
    memory: &Memory,
    env: &Env<'_>,
) -> Turn {
    let revocation = match webhook.spec.rotation.revocation {
        RevocationBehavior::After24h => Revocation::After24h,
        RevocationBehavior::Immediately => Revocation::Immediately,
    };
    if renewing_since(&draft.status).is_some() {
        // It is replaced already, because it verifies nothing.
        return Turn::Later(None);
    }
    let busy = is_busy(webhook, &draft.status, stored, memory, env);
    if let Some(begun) = begun(&draft.status) {
        if let Some(since) = stored.since.filter(|since| since.as_second() >= begun.as_second()) {
            // Done; only the word of it was lost.
            finished(draft, since);
        } else {
            draft.rotating();
            let ours = memory.rotating == Some(begun);
            let deadline = after(begun, env.timing.ping_timeout + FRACTION);
            if busy || !(ours || deadline <= env.now) {
                return Turn::Later(Some(deadline));
            }
            if !ours {
                draft.restart(webhook_type::SECRET_READY);
            }
            return Turn::Rotate(revocation);
        }
    }
    let asked = asked(webhook);
    let wished = wished_at(webhook, &draft.status, asked.as_ref().ok().copied().flatten(), stored, env);
    let free = (revocation == Revocation::After24h).then(|| free_at(stored, env)).flatten();
    let due = wished.map(|at| free.map_or(at, |free| free.max(at)));
    draft.status.next_rotation_time = due.map(Time);
    explain(
        draft,
        asked.err(),
        wished.zip(free).filter(|(at, free)| at < free && *at <= env.now).map(|w| w.1),
    );
    if due.is_some_and(|at| at <= env.now) && !busy {
        draft.rotating();
        return Turn::Rotate(revocation);
    }
    Turn::Later(due)
}

/// When the rotation was begun that status tells of, and of which no end is recorded.
pub fn begun(status: &GeminiWebhookStatus) -> Option<Timestamp> {
    let rotating = get(&status.conditions, webhook_type::SECRET_READY).filter(|c| c.reason == ROTATING)?;
    Some(rotating.last_transition_time.0)
}

/// A younger secret is stored. What was proven of the way from Gemini to here stands while it is tested.
pub fn finished(draft: &mut Draft, since: Timestamp) {
    draft.set(webhook_type::SECRET_READY, Is::True, "Stored", "rotated");
    draft.status.last_rotation_time = Some(Time(since));
    draft.status.last_ping = None;
}

/// What the annotation asks for.
fn asked(webhook: &GeminiWebhook) -> Result<Option<Timestamp>, String> {
    let annotations = webhook.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|a| a.get(ROTATE_AT_ANNOTATION)) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| {
        format!(
            "metadata.annotations[{ROTATE_AT_ANNOTATION}]: {text:?} is not a time such as 2026-01-31T12:00:00Z, so no \
             rotation is planned by it"
        )
    })
}

/// When spec and annotation want the next one. A secret that is younger than what the annotation asks for will do.
fn wished_at(
    webhook: &GeminiWebhook,
    status: &GeminiWebhookStatus,
    asked: Option<Timestamp>,
    stored: &Stored,
    env: &Env<'_>,
) -> Option<Timestamp> {
    let told = status.last_rotation_time.as_ref().or(status.registered_time.as_ref()).map(|time| time.0);
    let born = stored.since.or(told).unwrap_or(Timestamp::UNIX_EPOCH);
    let asked = asked.filter(|at| at.as_second() > born.as_second());
    let routine = webhook.spec.rotation.interval.map(|every| after(born, every.0 / env.timing.divisor));
    asked.into_iter().chain(routine).min()
}

/// When a secret may be rotated out without one too many being alive; `None`: at any time.
fn free_at(stored: &Stored, env: &Env<'_>) -> Option<Timestamp> {
    let mut ends: Vec<Timestamp> =
        stored.previous.iter().map(|(_, end)| *end).filter(|end| *end > env.now).collect();
    ends.sort_unstable();
    ends.len().checked_sub(MAX_PREVIOUS).and_then(|first| ends.get(first)).copied()
}

/// Says what keeps a rotation from being planned or made, where nothing worse is said of the secret.
fn explain(draft: &mut Draft, invalid: Option<String>, waits: Option<Timestamp>) {
    if !is_true(&draft.status.conditions, webhook_type::SECRET_READY) {
        return;
    }
    if let Some(message) = invalid {
        draft.set(webhook_type::SECRET_READY, Is::True, INVALID_ROTATE_AT, &message);
    } else if let Some(until) = waits {
        let message = format!(
            "a rotation is due, but Gemini still signs with {MAX_PREVIOUS} secrets that were rotated out; it waits until \
             {until:.0}. With spec.rotation.revocation: Immediately it does not wait"
        );
        draft.set(webhook_type::SECRET_READY, Is::True, ROTATION_WAITS, &message);
    } else if matches!(draft.reason(webhook_type::SECRET_READY), Some(INVALID_ROTATE_AT | ROTATION_WAITS)) {
        draft.set(webhook_type::SECRET_READY, Is::True, "Stored", "");
    }
}

/// The entry of a new secret. After an ordinary rotation Gemini may sign with the ones before it for a while.
pub fn entry(
    before: Option<KeyringEntry>,
    made: KeyringEntry,
    revocation: Revocation,
    now: Timestamp,
) -> KeyringEntry {
    // Those of another registration verify nothing of this one.
    let before = before.filter(|b| revocation == Revocation::After24h && b.registration == made.registration);
    let Some(before) = before else { return KeyringEntry { previous: vec![], ..made } };
    let end = after(now, GRACE + GRACE_MARGIN);
    let newest = PreviousSecret { secret: before.current, expire_time: end };
    let alive = before.previous.into_iter().filter(|previous| previous.expire_time > now);
    let mut previous: Vec<PreviousSecret> = std::iter::once(newest).chain(alive).collect();
    previous.truncate(MAX_PREVIOUS);
    KeyringEntry { previous, ..made }
}

/// Names of the secrets that were rotated out, and until when they are good; for the plan.
pub fn previous(entry: &KeyringEntry) -> Vec<(String, Timestamp)> {
    let name = |p: &PreviousSecret| (crate::api::keyring::fingerprint(&p.secret), p.expire_time);
    entry.previous.iter().map(name).collect()
}
