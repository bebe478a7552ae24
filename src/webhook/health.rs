//! PURE: what Gemini shows of the registration, and what is done about it: drift is repaired, a registration that Gemini
//! has disabled is enabled again, but not so often that the two work against each other.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use super::memory::Memory;
use super::plan::{Env, Step, conforms, registration_name};
use super::proof::self_test_interval;
use crate::api::condition::{Is, get, webhook_type};
use crate::api::webhook::{GeminiWebhook, GeminiWebhookStatus, OnDisabled, Reenabled, SigningSecretStatus};
use crate::controller::{Next, after, until};
use crate::gemini::{Webhook, WebhookState};
use crate::submit::Timing;

/// A registration that delivers, in the words of a status.
pub const ENABLED: &str = "enabled";
/// One that Gemini has stopped delivering to.
const DISABLED_BY_GEMINI: &str = "disabled_due_to_failed_deliveries";
/// In the words of a condition.
const DISABLED_BY_PROVIDER: &str = "DisabledByProvider";

/// So many the schema of the status allows.
const SECRETS_SHOWN: usize = 8;
const DAY: Duration = Duration::from_hours(24);
/// So many times in a day.
const REENABLED_A_DAY: u32 = 24;

/// Takes over what Gemini shows of the registration in use. What differs from the spec is told, and so made right by the
/// same step as a change of the spec.
pub fn take_over(draft: &mut Draft, webhook: &GeminiWebhook, remote: &Webhook) {
    let was_enabled = draft.status.state.as_deref() == Some(ENABLED);
    show(draft, remote);
    if remote.state == WebhookState::Enabled && !was_enabled {
        // Somebody has enabled it at Gemini; whether deliveries arrive now is not known.
        draft.untested();
    }
    let differs = differences(webhook, draft.wanted_url.as_deref(), remote);
    if differs.contains(&"uri") || differs.contains(&"state") {
        draft.untested();
    }
    // What the spec of another generation wanted is no drift; it is brought in line anyway.
    if !differs.is_empty() && conforms(webhook, &draft.status) {
        let message =
            format!("at Gemini {} is not what the spec says; bringing it in line", differs.join(" and "));
        draft.set(webhook_type::REGISTERED, Is::False, "Drifted", &message);
    }
}

/// What a status tells of a registration.
pub fn show(draft: &mut Draft, remote: &Webhook) {
    // Gemini promises none of the fields.
    let shown = Some(remote.uri.clone()).filter(|uri| !uri.is_empty());
    draft.status.url = shown.or_else(|| draft.wanted_url.clone());
    draft.status.state = Some(
        match &remote.state {
            WebhookState::Enabled => ENABLED,
            WebhookState::Disabled => "disabled",
            WebhookState::DisabledDueToFailedDeliveries => DISABLED_BY_GEMINI,
            WebhookState::Unknown(raw) => raw,
        }
        .to_owned(),
    );
    show_secrets(draft, remote);
}

/// The secrets that Gemini may sign with.
pub fn show_secrets(draft: &mut Draft, remote: &Webhook) {
    draft.status.signing_secrets = remote
        .signing_secrets
        .iter()
        .take(SECRETS_SHOWN)
        .map(|s| SigningSecretStatus { truncated: s.truncated.clone(), expire_time: s.expire_time.map(Time) })
        .collect();
}

/// In which fields, in Gemini's words, a registration differs from the spec. What it does not show does not differ; that
/// Gemini has disabled it is no drift.
pub fn differences(webhook: &GeminiWebhook, wanted_url: Option<&str>, remote: &Webhook) -> Vec<&'static str> {
    let spec = &webhook.spec;
    let state = match remote.state {
        WebhookState::Enabled => !spec.enabled,
        WebhookState::Disabled => spec.enabled,
        WebhookState::DisabledDueToFailedDeliveries | WebhookState::Unknown(_) => false,
    };
    let uri = !remote.uri.is_empty() && wanted_url.is_some_and(|wanted| !remote.is_at(wanted));
    let events = !remote.events.is_empty() && !same(&remote.events, &spec.events);
    let name = !remote.name.is_empty() && remote.name != registration_name(webhook);
    [(uri, "uri"), (events, "subscribed_events"), (state, "state"), (name, "name")]
        .into_iter()
        .filter_map(|(differs, field)| differs.then_some(field))
        .collect()
}

fn same(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().all(|e| b.contains(e))
}

/// Whether Gemini is known to have disabled what should be enabled.
fn is_disabled(webhook: &GeminiWebhook, status: &GeminiWebhookStatus) -> bool {
    webhook.spec.enabled && status.state.as_deref() == Some(DISABLED_BY_GEMINI)
}

/// When the registration must be looked at although no self-test asks for it.
pub fn look_at(
    webhook: &GeminiWebhook,
    status: &GeminiWebhookStatus,
    memory: &Memory,
    env: &Env<'_>,
) -> Option<Timestamp> {
    let listed = memory.listed?;
    if !webhook.spec.enabled {
        return Some(after(listed, self_test_interval(webhook, env)));
    }
    if !is_disabled(webhook, status) {
        return None;
    }
    Some(match webhook.spec.on_disabled {
        OnDisabled::Reenable => reenable_at(status, env),
        OnDisabled::Report => {
            // The longer it is so, the rarer: a minute after a minute, an hour after an hour.
            let since = get(&status.conditions, webhook_type::DELIVERY_HEALTHY)
                .filter(|c| c.reason == DISABLED_BY_PROVIDER)
                .map_or(listed, |c| c.last_transition_time.0);
            let age = until(listed, since);
            after(listed, age.clamp(env.timing.ping_pause, env.timing.ping_pause_max))
        }
    })
}

/// When the registration must be looked at because a delivery was lost: Gemini may have disabled it long before the next
/// self-test would show that. Each loss is worth a look, many of them at once one; and as long as the webhook is not
/// healthy, another one now and then.
pub fn rescue_look_at(memory: &Memory, env: &Env<'_>) -> Option<Timestamp> {
    let (rescued, listed) = (env.rescued?, memory.listed?);
    if listed < rescued {
        return Some(after(listed, env.timing.ping_pause).max(rescued));
    }
    let end = after(rescued, env.timing.rescue_memory);
    let age = until(listed, rescued);
    let again = after(listed, age.clamp(env.timing.ping_pause, env.timing.ping_pause_max));
    (env.now < end && again < end).then_some(again)
}

/// When a registration may be enabled once more: after pauses that double, at most 24 times in a day.
fn reenable_at(status: &GeminiWebhookStatus, env: &Env<'_>) -> Timestamp {
    let day = DAY / env.timing.divisor;
    let Some(past) = status.reenabled.as_ref().filter(|past| env.now < after(past.time.0, day)) else {
        return Timestamp::MIN;
    };
    let count = u32::try_from(past.count).unwrap_or_default();
    let pause = Timing::pause(env.timing.ping_pause, env.timing.ping_pause_max, count.saturating_sub(1));
    let quota = after(past.since.0, day.saturating_mul(count / REENABLED_A_DAY));
    after(past.time.0, pause).max(quota)
}

/// The decision about a registration that Gemini has disabled; `None`: it has not. `looked`: that was seen in this pass.
pub fn disabled(
    webhook: &GeminiWebhook,
    draft: &mut Draft,
    id: &str,
    looked: bool,
    memory: &Memory,
    env: &Env<'_>,
) -> Option<(Step, Next)> {
    if !is_disabled(webhook, &draft.status) {
        return None;
    }
    let routine = Next::After(env.timing.secret_reread);
    let told = |draft: &mut Draft, then: &str| {
        let message = format!("Gemini has disabled the registration because deliveries failed; {then}");
        draft.set(webhook_type::DELIVERY_HEALTHY, Is::False, DISABLED_BY_PROVIDER, &message);
        draft.set(webhook_type::READY, Is::False, DISABLED_BY_PROVIDER, &message);
    };
    if webhook.spec.on_disabled == OnDisabled::Report {
        told(
            draft,
            "spec.onDisabled is Report, so it stays so until somebody enables it at Gemini or sets spec.onDisabled to \
             Reenable",
        );
        return Some((Step::None, routine.or_at(look_at(webhook, &draft.status, memory, env), env.now)));
    }
    let at = reenable_at(&draft.status, env);
    if env.now < at {
        told(draft, &format!("it was enabled again {} times, next time at {at:.0}", count(&draft.status)));
        return Some((Step::None, routine.or_at(Some(at), env.now)));
    }
    if !looked {
        // Somebody may have enabled it meanwhile.
        return Some((Step::None, Next::After(env.timing.retry)));
    }
    told(draft, "enabling it again");
    let day = DAY / env.timing.divisor;
    let recent = draft.status.reenabled.take().filter(|past| env.now < after(past.time.0, day));
    let before = recent.unwrap_or(Reenabled { count: 0, since: Time(env.now), time: Time(env.now) });
    draft.status.reenabled =
        Some(Reenabled { count: before.count.saturating_add(1), since: before.since, time: Time(env.now) });
    Some((Step::Update { id: id.to_owned() }, Next::Now))
}

fn count(status: &GeminiWebhookStatus) -> i32 {
    status.reenabled.as_ref().map_or(0, |past| past.count)
}
