//! Deliveries that never come: the sweep finds the ends of the jobs, passes more often for it, and says so.

use std::time::Duration;

use gemini_operator::api::condition::{self, webhook_type};
use gemini_operator::api::{GeminiBatch, GeminiWebhook};
use gemini_operator::submit::Timing;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::objects::tickets;
use crate::support::emulator::{Ledger, time};
use crate::support::{Bed, BedOptions, PATIENCE, poll};
use crate::waiting::{is_full, record};

const RESCUES: &str = "gemini_operator_sweep_rescues_total";

/// A sweep every ten seconds, or every half second where deliveries are lost. The self-test is minutes away.
const DIVISOR: u32 = 60;

/// Jobs that run until somebody ends them, and a webhook that is ready.
pub async fn bed_with(name: &str, timing_divisor: u32) -> Bed {
    let faults = json!({"jobs": [{"do": {"hold": "running", "job_time_ms": 0}}]});
    let bed =
        Bed::with(name, BedOptions { faults: Some(faults), timing_divisor, ..BedOptions::default() }).await;
    bed.make_api_key().await;
    bed
}

/// Batches with these names, each with a job; the names of the jobs. The look that follows the recording has been made, so
/// only a delivery or a sweep can tell of the end.
pub async fn submitted(bed: &Bed, names: &[String]) -> Vec<String> {
    for name in names {
        bed.apply(&tickets(name, 1, "Auto")).await;
    }
    let mut remotes = vec![];
    for name in names {
        let looked_at = |batch: &GeminiBatch| run_state(batch).is_some();
        let batch = bed.wait_batch(name, "looked at", looked_at).await;
        remotes.extend(batch.status.and_then(|s| s.runs.last()?.remote_name.clone()));
    }
    assert_eq!(remotes.len(), names.len());
    remotes
}

fn run_state(batch: &GeminiBatch) -> Option<&str> {
    batch.status.as_ref()?.runs.last()?.state.as_deref()
}

pub fn numbered(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("batch-{n}")).collect()
}

async fn lose_everything(bed: &Bed) {
    bed.emulator.add_faults(&json!({"deliveries": [{"do": {"lose": true}}]})).await;
}

async fn wait_rescues(bed: &Bed, wanted: usize) {
    let counted = poll(PATIENCE, async || {
        let count = bed.metric(RESCUES).await;
        if count == Some(f64::from(u32::try_from(wanted).unwrap())) { Ok(()) } else { Err(count) }
    });
    counted.await.unwrap_or_else(|count| panic!("{count:?} rescues, not {wanted}\n{}", bed.log_tails()));
}

/// Waits until some of the listings satisfy `done`, which gets the times of all of them.
async fn wait_listings(bed: &Bed, what: &str, done: impl Fn(&[Timestamp]) -> bool) -> Vec<Timestamp> {
    let seen = poll(PATIENCE, async || {
        let times = bed.ledger().await.times("batches.list");
        if done(&times) { Ok(times) } else { Err(times) }
    });
    seen.await.unwrap_or_else(|times| panic!("not {what}: {times:?}\n{}", bed.log_tails()))
}

pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

struct Size {
    divisor: u32,
    /// Not more than a page of a listing holds.
    batches: usize,
    /// From one end to the next.
    pace: Duration,
    /// The most that 99 of 100 ends may take to be seen. The small one shares its machine with other tests.
    p99: Duration,
}

fn size() -> Size {
    if is_full() {
        let p99 = polled(&Timing::divided(30)) * 2;
        Size { divisor: 30, batches: 100, pace: Duration::from_millis(130), p99 }
    } else {
        let p99 = Timing::divided(DIVISOR).sweep_tracked;
        Size { divisor: DIVISOR, batches: 8, pace: Duration::from_millis(130), p99 }
    }
}

/// When 99 of 100 ends are seen that come at any time, by a GET every 30 s that takes no time itself.
pub fn polled(timing: &Timing) -> Duration {
    (Duration::from_secs(30) / timing.divisor).mul_f64(0.99)
}

/// When a job ended, and when it was looked at after that, if it was.
pub fn end_and_look(ledger: &Ledger, remote: &str) -> (Timestamp, Option<Timestamp>) {
    let job = ledger.jobs().iter().find(|job| job["name"] == *remote).expect("it is in the ledger");
    let ended = time(&job["end_time"]);
    let looks = ledger.entries("requests").iter().filter(|entry| {
        entry["call"] == "batches.get" && entry["path"].as_str().is_some_and(|path| path.ends_with(remote))
    });
    let look = looks.map(|entry| time(&entry["time"])).find(|at| *at >= ended);
    (ended, look)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_delivery_lost_all_batches_complete_by_the_sweep() {
    let size = size();
    let timing = Timing::divided(size.divisor);
    let bed = bed_with("losing", size.divisor).await;
    bed.make_webhook().await;
    let names = numbered(size.batches);
    let remotes = submitted(&bed, &names).await;
    lose_everything(&bed).await;
    assert_eq!(bed.metric(RESCUES).await, Some(0.0));

    bed.emulator.finish_job(&remotes[0]).await;
    bed.wait_complete(&names[0]).await;
    wait_rescues(&bed, 1).await;
    let note = bed.wait_event("main", "DeliveryLost").await;
    assert!(note.contains(&remotes[0]), "{note}");

    // Those that wait did not sleep until the next sweep of a healthy webhook.
    let (_, look) = end_and_look(&bed.ledger().await, &remotes[0]);
    let look = look.expect("it was looked at");
    let times = wait_listings(&bed, "woken", |all| all.iter().any(|at| *at > look)).await;
    let next = times.partition_point(|at| *at <= look);
    let gap = between(times[next - 1], times[next]);
    assert!(gap < timing.sweep_tracked * 3 / 4, "{gap:?}: {times:?}");

    // Five listings within the time from one healthy sweep to the next.
    let begun = Timestamp::now();
    let since = |all: &[Timestamp]| all.iter().copied().filter(|at| *at > begun).collect::<Vec<_>>();
    let times = since(&wait_listings(&bed, "more often", |all| since(all).len() >= 5).await);
    let span = between(times[0], times[4]);
    assert!(span < timing.sweep_tracked, "{times:?}");
    // One listing a tick, however many wait for it.
    assert!(span >= timing.sweep_rescuing * 3, "{times:?}");

    let last = size.batches - 1;
    let mut pace = tokio::time::interval(size.pace);
    for remote in &remotes[1..last] {
        pace.tick().await;
        bed.emulator.finish_job(remote).await;
    }
    for name in &names[1..last] {
        let batch = bed.wait_complete(name).await;
        assert_eq!(batch.status.and_then(|s| s.last_event), None, "nobody told");
    }
    wait_rescues(&bed, last).await;
    let ledger = bed.ledger().await;
    let ends = remotes[1..last].iter().map(|remote| end_and_look(&ledger, remote));
    let mut seen: Vec<Duration> =
        ends.map(|(ended, look)| between(ended, look.expect("it was looked at"))).collect();
    seen.sort_unstable();
    let p99 = seen[(seen.len() * 99).div_ceil(100) - 1];
    told(&timing, &seen, p99);
    assert!(p99 <= size.p99, "p99 is {p99:?}, not {:?}: {seen:?}", size.p99);

    // Deliveries arrive again. When nothing was lost for half an hour, the sweep passes as rarely as before.
    bed.emulator.set_faults(&json!({})).await;
    let healed = Timestamp::now();
    wait_listings(&bed, "rarer again", |all| {
        let is_apart = |pair: &[Timestamp]| between(pair[0], pair[1]) > timing.sweep_tracked / 2;
        all.windows(2).any(|pair| pair[0] > healed && is_apart(pair))
    })
    .await;
    bed.emulator.finish_job(&remotes[last]).await;
    bed.wait_complete(&names[last]).await;
    let is_told = |b: &GeminiBatch| b.status.as_ref().is_some_and(|s| s.last_event.is_some());
    bed.wait_batch(&names[last], "told", is_told).await;
    assert_eq!(bed.metric(RESCUES).await, Some(f64::from(u32::try_from(last).unwrap())));
    assert_eq!(bed.ledger().await.delivered("batch.succeeded"), 1);
    bed.assert_invariants().await;
}

/// The figures, in the windows of production.
fn told(timing: &Timing, seen: &[Duration], p99: Duration) {
    let seconds = |time: Duration| (time * timing.divisor).as_secs_f64();
    let (median, polled) = (seen[seen.len() / 2], polled(timing));
    let figures = format!(
        "| jobs | median | p99 | p99 of polling | is | at most |\n|---|---|---|---|---|---|\n\
         | {} | {:.1} s | {:.1} s | {:.1} s | {:.2} × | 2 × |\n",
        seen.len(),
        seconds(median),
        seconds(p99),
        seconds(polled),
        p99.as_secs_f64() / polled.as_secs_f64(),
    );
    record("losses", &figures);
}

/// The GeminiWebhook `main`; its next self-test is six minutes away.
async fn ready(bed: &Bed, on_disabled: &str) -> String {
    let spec = json!({
        "apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": "https://hooks.test"}, "onDisabled": on_disabled,
    });
    let object = json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiWebhook", "metadata": {"name": "main"}, "spec": spec,
    });
    bed.apply(&object.to_string()).await;
    let webhook = bed.wait_webhook("main", "ready", is_ready).await;
    webhook.status.and_then(|status| status.id).expect("it is registered")
}

fn is_ready(webhook: &GeminiWebhook) -> bool {
    says(webhook, webhook_type::READY, "True", "Ready")
}

fn says(webhook: &GeminiWebhook, type_: &str, status: &str, reason: &str) -> bool {
    let conditions = webhook.status.as_ref().map_or(&[][..], |s| &s.conditions);
    condition::get(conditions, type_).is_some_and(|c| (&*c.status, &*c.reason) == (status, reason))
}

/// Gemini disables the registration and sends nothing any more. The next self-test would show it; a job ends before.
async fn disabled_by_gemini(bed: &Bed, id: &str) -> Value {
    let names = numbered(2);
    let remotes = submitted(bed, &names).await;
    bed.emulator.set_webhook_state(id, "disabled_due_to_failed_deliveries").await;
    bed.emulator.finish_job(&remotes[0]).await;
    bed.wait_complete(&names[0]).await;
    let note = bed.wait_event("main", "DisabledByProvider").await;
    assert!(note.contains("deliveries failed"), "{note}");
    assert_eq!(bed.metric(RESCUES).await, Some(1.0), "it was noticed by what the sweep found");
    json!({"batch": names[1], "job": remotes[1]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_gemini_disabled_is_noticed_by_the_sweep_and_healed() {
    let bed = bed_with("disabled", DIVISOR).await;
    let id = ready(&bed, "Reenable").await;
    let waiting = disabled_by_gemini(&bed, &id).await;
    let healed = |webhook: &GeminiWebhook| {
        let status = webhook.status.as_ref();
        is_ready(webhook) && status.and_then(|s| s.reenabled.as_ref()).is_some_and(|r| r.count == 1)
    };
    let webhook = bed.wait_webhook("main", "healed", healed).await;
    assert_eq!(webhook.status.and_then(|s| s.state).as_deref(), Some("enabled"));

    let (name, remote) = (waiting["batch"].as_str().unwrap(), waiting["job"].as_str().unwrap());
    bed.emulator.finish_job(remote).await;
    bed.wait_complete(name).await;
    let told =
        bed.wait_batch(name, "told", |b| b.status.as_ref().is_some_and(|s| s.last_event.is_some())).await;
    assert_eq!(
        told.status.and_then(|s| s.last_event).map(|event| event.remote_name).as_deref(),
        Some(remote)
    );
    assert_eq!(bed.metric(RESCUES).await, Some(1.0));
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_report_the_batches_live_on_the_sweep() {
    let bed = bed_with("disabled-report", DIVISOR).await;
    let id = ready(&bed, "Report").await;
    let waiting = disabled_by_gemini(&bed, &id).await;
    let told = |w: &GeminiWebhook| says(w, webhook_type::DELIVERY_HEALTHY, "False", "DisabledByProvider");
    let webhook = bed.wait_webhook("main", "told", told).await;
    let conditions = &webhook.status.as_ref().unwrap().conditions;
    let message = &condition::get(conditions, webhook_type::READY).unwrap().message;
    assert!(message.contains("spec.onDisabled"), "{message}");

    let (name, remote) = (waiting["batch"].as_str().unwrap(), waiting["job"].as_str().unwrap());
    bed.wait_condition(name, "WebhookTracked", "False", "WebhookNotReady").await;
    bed.emulator.finish_job(remote).await;
    bed.wait_complete(name).await;
    let ledger = bed.ledger().await;
    assert_eq!((ledger.calls("webhooks.patch"), ledger.delivered("batch.succeeded")), (0, 0));
    bed.assert_invariants().await;
}
