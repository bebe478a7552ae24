//! The webhook that should tell the end of a batch's job, and what is done when it did not.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::Subject;
use super::memory::Found;
use super::observe::tracking;
use super::observed::Tracking;
use super::pace::{Health, Signs, Verdict, health, interval, verdict};
use super::plan::newest_run;
use crate::api::GeminiWebhook;
use crate::api::condition::{is_true, webhook_type};
use crate::api::webhook::RegistrationMode;
use crate::controller::{Context, Next, Note, publish};
use crate::gemini::Batch;

/// The webhook that should tell. One that is not ready counts, too, if it could be: the batch may have relied on it until a
/// moment ago. Nothing is read for it.
fn tracker(subject: &Subject<'_>) -> Option<GeminiWebhook> {
    let (ctx, spec) = (subject.ctx, &subject.batch.spec);
    let today = ctx.credentials.last_fingerprint(subject.namespace(), &spec.api_key_secret_ref);
    let named = match tracking(subject, today.as_deref()) {
        Tracking::Static { webhook } => Some(webhook),
        Tracking::NotReady(_) => None,
        Tracking::SweepOnly(_) => return None,
    };
    let submitted = newest_run(&subject.batch).map(|run| run.key_fingerprint.as_str());
    let keys = [today.as_deref(), submitted];
    let near = [Some(subject.namespace()), Some(ctx.operator_namespace.as_str())];
    let is_it = |webhook: &GeminiWebhook| {
        let full_name = format!("{}/{}", webhook.namespace().unwrap_or_default(), webhook.name_any());
        if let Some(named) = &named {
            return *named == full_name;
        }
        let key = webhook.status.as_ref().and_then(|status| status.key_fingerprint.as_deref());
        webhook.spec.enabled
            && key.is_some()
            && keys.contains(&key)
            && near.contains(&webhook.metadata.namespace.as_deref())
            && (spec.webhook.name.is_none() || spec.webhook.name == webhook.metadata.name)
    };
    let webhooks = ctx.webhooks();
    let found = webhooks.iter().filter_map(|w| w.0.as_ref().ok()).filter(|w| is_it(w));
    found.min_by_key(|w| (w.namespace(), w.name_any())).cloned()
}

/// How often the sweep passes for this batch.
pub fn pace(subject: &Subject<'_>, now: Timestamp) -> Duration {
    let signs = tracker(subject).map(|webhook| signs(subject.ctx, &webhook));
    interval(health(signs.as_ref(), &subject.ctx.timing, now), &subject.ctx.timing)
}

fn signs(ctx: &Context, webhook: &GeminiWebhook) -> Signs {
    let status = webhook.status.as_ref();
    let ping = status.and_then(|s| s.last_ping.as_ref()?.received_time.as_ref());
    let delivery = status.and_then(|s| s.last_delivery.as_ref()?.time.as_ref());
    Signs {
        ready: status.is_some_and(|s| is_true(&s.conditions, webhook_type::READY)),
        has_pings: webhook.spec.mode == RegistrationMode::Static,
        pinged: ping.map(|at| at.0),
        delivered: delivery.map(|at| at.0),
        self_test: webhook.spec.self_test.interval.0,
        rescued: ctx.rescues.last(webhook.metadata.uid.as_deref().unwrap_or_default()),
    }
}

/// A sweep was the first to see the end of this job: who should have told it. Nobody, if there is no webhook that was
/// registered by then and is told of such ends.
pub fn found(subject: &Subject<'_>, job: &Batch, now: Timestamp) -> Option<Found> {
    let webhook = tracker(subject)?;
    let ended = job.end_time.unwrap_or(now);
    let event = format!("batch.{}", job.state.as_str().to_lowercase());
    let registered = webhook.status.as_ref().and_then(|s| s.registered_time.as_ref());
    let is_told = webhook.spec.events.contains(&event) && registered.is_none_or(|at| at.0 <= ended);
    is_told.then(|| Found {
        remote: job.name.clone(),
        ended,
        seen: now,
        webhook: webhook.metadata.uid.unwrap_or_default(),
    })
}

/// Judges an end that a sweep was the first to see, as soon as it can be judged; when to come back at the latest.
pub async fn judge(subject: &Subject<'_>, next: Next) -> Next {
    let (ctx, uid, now) = (subject.ctx, subject.uid(), Timestamp::now());
    let Some(found) = ctx.batch_memory.get(&uid).found else { return next };
    let event = subject.batch.status.as_ref().and_then(|status| status.last_event.as_ref());
    let verdict = verdict(&found, event, &ctx.timing, now);
    if let Verdict::Wait(until) = verdict {
        return next.or_at(Some(until), now);
    }
    ctx.batch_memory.update(&uid, |m| m.found = None);
    if verdict == Verdict::Rescue {
        rescued(subject, &found, now).await;
    }
    next
}

/// Counted, told to everybody whom it concerns, and said once.
async fn rescued(subject: &Subject<'_>, found: &Found, now: Timestamp) {
    let ctx = subject.ctx;
    ctx.metrics.sweep_rescues.inc();
    if !ctx.rescues.note(&found.webhook, now, ctx.timing.rescue_memory) {
        return;
    }
    let webhooks = ctx.webhooks();
    let webhook = webhooks
        .iter()
        .filter_map(|w| w.0.as_ref().ok())
        .find(|w| w.metadata.uid.as_deref() == Some(found.webhook.as_str()));
    let Some(webhook) = webhook else { return };
    let often = interval(Health::Losing, &ctx.timing);
    let message = format!(
        "{} ended at {:.0}, and no delivery said so: a list call had to find it. Until deliveries arrive again jobs are \
         listed every {often:?}; check the receiver's log and metrics, and whether Gemini shows failed deliveries",
        found.remote, found.ended,
    );
    let note = Note { warning: true, reason: "DeliveryLost".into(), message };
    publish(&ctx.recorder, &webhook.object_ref(&()), &[note]).await;
}
