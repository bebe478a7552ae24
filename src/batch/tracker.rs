//! The webhook that should tell the end of a batch's job, and what is done when it did not.

use std::sync::Arc;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::Subject;
use super::memory::Found;
use super::pace::{Health, Signs, Verdict, health, interval, verdict};
use super::plan::newest_run;
use crate::api::GeminiWebhook;
use crate::api::batch::{Submission, WebhookMode};
use crate::api::condition::{is_true, webhook_type};
use crate::api::webhook::RegistrationMode;
use crate::controller::{Context, Next, Note, publish};
use crate::gemini::Batch;

/// A webhook out of the cache: one that can be read.
#[derive(Clone)]
pub struct Candidate(Arc<crate::controller::Guarded<GeminiWebhook>>);

impl Candidate {
    fn new(cached: Arc<crate::controller::Guarded<GeminiWebhook>>) -> Option<Self> {
        cached.0.is_ok().then_some(Self(cached))
    }

    pub fn webhook(&self) -> Option<&GeminiWebhook> {
        self.0.0.as_ref().ok()
    }
}

/// Webhooks that may serve this batch, by their place and by its own choice.
pub fn candidates(subject: &Subject<'_>) -> Vec<Candidate> {
    let choice = &subject.batch.spec.webhook;
    let places = [Some(subject.namespace()), Some(subject.ctx.operator_namespace.as_str())];
    let is_one = |w: &GeminiWebhook| {
        places.contains(&w.metadata.namespace.as_deref())
            && (choice.name.is_none() || choice.name == w.metadata.name)
    };
    let all = subject.ctx.webhooks().into_iter().filter_map(Candidate::new);
    all.filter(|candidate| candidate.webhook().is_some_and(is_one)).collect()
}

/// Fingerprints of the keys whose webhooks tell of this batch's job: that of the job, and the one of today. Whichever of
/// the two the webhook was last seen with, it is of the project that the job's event comes from. In a rotation the webhook
/// follows a little later.
pub fn keys<'a>(subject: &'a Subject<'_>, today: Option<&'a str>) -> [Option<&'a str>; 2] {
    let submitted = newest_run(&subject.batch).filter(|run| run.submission == Submission::Recorded);
    [today, submitted.map(|run| run.key_fingerprint.as_str())]
}

/// The webhook that should tell, ready or not: one that was ready yesterday is what the batch relied on. Nothing is read
/// for it.
fn tracker(subject: &Subject<'_>) -> Option<Candidate> {
    let spec = &subject.batch.spec;
    if spec.webhook.mode == WebhookMode::None {
        return None;
    }
    let today = subject.ctx.credentials.last_fingerprint(subject.namespace(), &spec.api_key_secret_ref);
    let keys = keys(subject, today.as_deref());
    let rank = |candidate: &Candidate| {
        let webhook = candidate.webhook()?;
        let status = webhook.status.as_ref()?;
        let key = status.key_fingerprint.as_deref();
        (webhook.spec.enabled && key.is_some() && keys.contains(&key)).then(|| {
            let is_ready = is_true(&status.conditions, webhook_type::READY);
            (!is_ready, webhook.namespace(), webhook.metadata.name.clone())
        })
    };
    let ranked = candidates(subject).into_iter().filter_map(|c| Some((rank(&c)?, c)));
    ranked.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, candidate)| candidate)
}

/// How often the sweep passes for this batch.
pub fn pace(subject: &Subject<'_>, now: Timestamp) -> std::time::Duration {
    let tracker = tracker(subject);
    let signs = tracker.as_ref().and_then(Candidate::webhook).map(|webhook| signs(subject.ctx, webhook));
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
    let tracker = tracker(subject)?;
    let webhook = tracker.webhook()?;
    let ended = job.end_time.unwrap_or(now);
    let event = format!("batch.{}", job.state.as_str().to_lowercase());
    let registered = webhook.status.as_ref().and_then(|s| s.registered_time.as_ref());
    let is_told = webhook.spec.events.contains(&event) && registered.is_none_or(|at| at.0 <= ended);
    is_told.then(|| Found {
        remote: job.name.clone(),
        ended,
        seen: now,
        webhook: webhook.metadata.uid.clone().unwrap_or_default(),
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
