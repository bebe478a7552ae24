//! Deliveries: which event goes where, when it is tried again, and when an endpoint is given up.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{HOUR, Nanos, SECOND};
use crate::faults::{DeliveryFault, Forgery};
use crate::ledger::DeliveryEntry;
use crate::matcher::{DeliveryFacts, Fired};
pub use crate::sender::Sender;
use crate::sender::{Parcel, Sent, Signing};
use crate::senders;
use crate::state::App;

/// Seconds before the second, third, … attempt; the last one stays.
const DELAYS: &[i64] = &[1, 2, 5, 10, 30, 60, 300, 900, 1_800, 3_600];
/// So long an event is tried.
const PATIENCE: Nanos = 24 * HOUR;
/// A reordered delivery waits at most so long for the next one.
const REORDER_WAIT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Event {
    pub event_type: String,
    pub batch: Option<String>,
    pub body: String,
    /// The job's own addresses, which replace the registered webhooks.
    pub dynamic: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
enum Target {
    Webhook(String),
    Dynamic(String),
    /// Somebody's own program, beside the API.
    Sender(String),
}

impl Target {
    fn webhook(&self) -> Option<&str> {
        match self {
            Self::Webhook(id) => Some(id),
            Self::Dynamic(_) | Self::Sender(_) => None,
        }
    }
}

struct Delivery {
    target: Target,
    project: String,
    event: Event,
    message_id: String,
}

/// Sends an event to everybody of a project who wants it.
pub fn emit(app: &Arc<App>, project: &str, event: &Event) {
    let targets: Vec<Target> = if let Some(uris) = &event.dynamic {
        uris.iter().cloned().map(Target::Dynamic).collect()
    } else {
        let state = app.state();
        let wants = state.webhooks.values().filter(|webhook| {
            webhook.project == project && webhook.enabled() && webhook.events.contains(&event.event_type)
        });
        wants.map(|webhook| Target::Webhook(webhook.id.clone())).collect()
    };
    for target in targets {
        start(app, target, project, event.clone());
    }
    for (sender, told) in senders::tell(app, project, event) {
        start(app, Target::Sender(sender), project, told);
    }
}

/// Sends one ping, once, whatever the webhook's state.
pub fn ping(app: &Arc<App>, project: &str, webhook: &str, event: Event) {
    start(app, Target::Webhook(webhook.to_owned()), project, event);
}

fn start(app: &Arc<App>, target: Target, project: &str, event: Event) {
    let message_id = format!("msg_{}", app.state().fresh(app.settings.seed, "message", 27));
    let delivery = Delivery { target, project: project.to_owned(), event, message_id };
    tokio::spawn(deliver(Arc::clone(app), delivery));
}

/// How an attempt goes on.
enum Next {
    Stop,
    Again,
}

async fn deliver(app: Arc<App>, delivery: Delivery) {
    let first = app.now();
    let mut attempt = 0_u64;
    loop {
        attempt += 1;
        match one_attempt(&app, &delivery, attempt).await {
            Next::Stop => return,
            Next::Again => {}
        }
        let position = usize::try_from(attempt - 1).unwrap_or(usize::MAX).min(DELAYS.len() - 1);
        let delay = DELAYS[position] * SECOND / i64::from(app.settings.retry_scale.max(1));
        let next = app.now().saturating_add(delay);
        if next.saturating_sub(first) > PATIENCE {
            give_up(&app, &delivery, attempt);
            return;
        }
        app.clock.until(next).await;
    }
}

/// The address and the keys as they are now; None: nobody wants it any more.
fn destination(app: &App, delivery: &Delivery, fault: Option<&DeliveryFault>) -> Option<(String, Signing)> {
    match &delivery.target {
        Target::Dynamic(uri) => Some((uri.clone(), Signing::Dynamic(fault.and_then(|fault| fault.dynamic)))),
        Target::Sender(id) => {
            let state = app.state();
            let sender = state.senders.get(id)?;
            Some((sender.url.clone(), Signing::XGoog(sender.secret.clone().into_bytes())))
        }
        Target::Webhook(id) => {
            let now = app.now();
            let state = app.state();
            let webhook = state.webhooks.get(id)?;
            if !webhook.enabled() && delivery.event.event_type != "ping" {
                return None;
            }
            let mode = fault.and_then(|fault| fault.sign).unwrap_or(state.faults.options.sign);
            Some((webhook.uri.clone(), Signing::Static(webhook.signing_keys(mode, now))))
        }
    }
}

fn match_fault(app: &App, delivery: &Delivery, url: &str, attempt: u64) -> Option<Fired<DeliveryFault>> {
    app.state().faults.delivery(&DeliveryFacts {
        event_type: &delivery.event.event_type,
        webhook: delivery.target.webhook(),
        batch: delivery.event.batch.as_deref(),
        url,
        project: &delivery.project,
        attempt,
    })
}

async fn one_attempt(app: &Arc<App>, delivery: &Delivery, attempt: u64) -> Next {
    let Some((url, _)) = destination(app, delivery, None) else {
        record(app, delivery, attempt, "", "disabled", None, None);
        return Next::Stop;
    };
    let fired = match_fault(app, delivery, &url, attempt);
    let label = fired.as_ref().map(|fired| fired.label.clone());
    let fault = fired.as_ref().map(|fired| &fired.action);
    if fault.is_some_and(|fault| fault.lose) {
        record(app, delivery, attempt, &url, "lost", None, label);
        return Next::Stop;
    }
    if let Some(fired) = &fired
        && let Some(delay) = fired.action.delay_ms
    {
        app.clock.until(app.now().saturating_add(delay.pick_nanos(fired.seed, &fired.word))).await;
    }
    if fault.is_some_and(|fault| fault.reorder) {
        let mut others = app.delivered.subscribe();
        let _ = tokio::time::timeout(REORDER_WAIT, others.changed()).await;
    }
    // Looked up again: a rotation or a deletion may have come in between.
    let Some((url, signing)) = destination(app, delivery, fault) else {
        record(app, delivery, attempt, &url, "disabled", None, label);
        return Next::Stop;
    };
    let sent = send(app, delivery, &url, &signing, fault).await;
    app.delivered.send_modify(|count| *count = count.wrapping_add(1));
    let good = sent.good();
    record(
        app,
        delivery,
        attempt,
        &url,
        if good { "delivered" } else { "failed" },
        Some(&sent),
        label.clone(),
    );
    for _ in 0..fault.and_then(|fault| fault.duplicate).unwrap_or(0) {
        let again = send(app, delivery, &url, &signing, fault).await;
        record(app, delivery, attempt, &url, "extra", Some(&again), label.clone());
    }
    note(app, delivery, good);
    if good || delivery.event.event_type == "ping" { Next::Stop } else { Next::Again }
}

async fn send(
    app: &App,
    delivery: &Delivery,
    url: &str,
    signing: &Signing,
    fault: Option<&DeliveryFault>,
) -> Sent {
    if let Some(status) = fault.and_then(|fault| fault.status) {
        return Sent::Answered { status, micros: 0 };
    }
    if fault.is_some_and(|fault| fault.unreachable) {
        return Sent::Failed("unreachable (fault plan)".into());
    }
    let body = fault.and_then(|fault| fault.body.clone()).unwrap_or_else(|| delivery.event.body.clone());
    let parcel = Parcel {
        id: delivery.message_id.clone(),
        body,
        signing: signing.clone(),
        forge: fault.and_then(|fault| fault.forge),
    };
    app.sender.send(url, &parcel, &app.keys).await
}

/// Books of success and failure; too many failures disable the webhook. Pings do not count.
fn note(app: &App, delivery: &Delivery, good: bool) {
    let Target::Webhook(id) = &delivery.target else { return };
    if delivery.event.event_type == "ping" {
        return;
    }
    let now = app.now();
    let mut state = app.state();
    let (attempts, seconds) =
        (state.faults.options.disable_after_attempts, state.faults.options.disable_after_seconds);
    let Some(webhook) = state.webhooks.get_mut(id) else { return };
    if good {
        webhook.rearm();
        return;
    }
    webhook.failed_attempts += 1;
    let since = *webhook.failing_since.get_or_insert(now);
    let long = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(SECOND);
    if webhook.failed_attempts >= attempts && now.saturating_sub(since) >= long && webhook.enabled() {
        webhook.state = "disabled_due_to_failed_deliveries";
    }
}

fn give_up(app: &App, delivery: &Delivery, attempt: u64) {
    record(app, delivery, attempt, "", "given_up", None, None);
    let Target::Webhook(id) = &delivery.target else { return };
    let mut state = app.state();
    let most = state.faults.options.disable_after_events;
    if let Some(webhook) = state.webhooks.get_mut(id) {
        webhook.failed_events += 1;
        if webhook.failed_events >= most && webhook.enabled() {
            webhook.state = "disabled_due_to_failed_deliveries";
        }
    }
}

fn record(
    app: &App,
    delivery: &Delivery,
    attempt: u64,
    url: &str,
    outcome: &'static str,
    sent: Option<&Sent>,
    fault: Option<String>,
) {
    let now = app.now();
    let (status, error, micros) = match sent {
        None => (None, None, None),
        Some(Sent::Answered { status, micros }) => (Some(*status), None, Some(*micros)),
        Some(Sent::Failed(error)) => (None, Some(error.clone()), None),
    };
    let entry = DeliveryEntry {
        seq: 0,
        time: String::new(),
        ended: String::new(),
        event_type: delivery.event.event_type.clone(),
        batch: delivery.event.batch.clone(),
        webhook: delivery.target.webhook().map(str::to_owned),
        url: url.to_owned(),
        webhook_id: delivery.message_id.clone(),
        attempt,
        status,
        error,
        fault,
        outcome,
        micros,
    };
    app.state().ledger.delivery(now, entry);
}

/// What a forgery does to a signed delivery's time, in seconds.
pub fn forged_offset(forge: Option<Forgery>) -> i64 {
    match forge {
        Some(Forgery::Stale) => -600,
        Some(Forgery::Future) => 600,
        _ => 0,
    }
}
