//! GeminiWebhooks of mode Dynamic: nothing is registered, each job carries its address, and the public keys of the provider
//! prove what comes there.

pub mod forger;
mod refused;
mod rotated;

use std::time::Duration;

use gemini_operator::api::{GeminiBatch, GeminiWebhook, condition};
use serde_json::{Value, json};

use crate::objects::tickets;
use crate::support::emulator::Ledger;
use crate::support::{Bed, BedOptions, PATIENCE, batch_condition, poll};

/// Undivided windows: what is told here is told by events.
fn options(jwt: bool, faults: Value) -> BedOptions {
    BedOptions { timing_divisor: 1, jwt, faults: Some(faults), ..BedOptions::default() }
}

pub async fn bed_with(name: &str, options: BedOptions) -> Bed {
    let bed = Bed::with(name, options).await;
    bed.make_api_key().await;
    bed
}

/// The GeminiWebhook `dynamic`, when it is ready.
pub async fn make_webhook(bed: &Bed, signature: &str) -> GeminiWebhook {
    make_webhook_as(bed, "dynamic", signature).await
}

async fn make_webhook_as(bed: &Bed, name: &str, signature: &str) -> GeminiWebhook {
    let webhook = json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiWebhook", "metadata": {"name": name},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": "https://hooks.test"},
            "mode": "Dynamic", "signature": signature,
        },
    });
    bed.apply(&webhook.to_string()).await;
    bed.wait_webhook(name, "Ready", |webhook| {
        let conditions = webhook.status.as_ref().map_or(&[][..], |s| &s.conditions);
        condition::is_true(conditions, condition::webhook_type::READY)
    })
    .await
}

fn url_of(webhook: &GeminiWebhook) -> String {
    webhook.status.as_ref().and_then(|status| status.url.clone()).expect("it has a URL")
}

fn job_of(batch: &GeminiBatch) -> String {
    let run = batch.status.as_ref().and_then(|status| status.runs.last());
    run.and_then(|run| run.remote_name.clone()).expect("it has a job")
}

/// Attempts to tell of this job's success.
fn of_job<'a>(ledger: &'a Ledger, job: &'a str) -> impl Iterator<Item = &'a Value> {
    ledger.deliveries("batch.succeeded").into_iter().filter(move |delivery| delivery["batch"] == job)
}

/// The batch ended, and an event at this address said so.
async fn ended_by_event(bed: &Bed, name: &str, url: &str) -> GeminiBatch {
    let batch = bed.wait_complete(name).await;
    let status = batch.status.as_ref().unwrap();
    assert_eq!(status.runs[0].webhook_uri.as_deref(), Some(url));
    let tracked = batch_condition(&batch, condition::batch_type::WEBHOOK_TRACKED).expect("it is said");
    assert_eq!(
        (tracked.status.as_str(), tracked.reason.as_str()),
        ("True", "Dynamic"),
        "{}",
        tracked.message
    );
    let event = status.last_event.as_ref().expect("there was an event");
    assert_eq!(event.remote_name, job_of(&batch));
    // What was stored in time may have been answered too late: then the sender's next attempt is the one that counts.
    let told = poll(PATIENCE, async || match bed.ledger().await {
        ledger if of_job(&ledger, &event.remote_name).any(|one| one["outcome"] == "delivered") => Ok(ledger),
        ledger => Err(ledger),
    });
    let ledger = told.await.unwrap_or_else(|ledger| ledger);
    let its: Vec<_> = of_job(&ledger, &event.remote_name).collect();
    assert!(its.iter().all(|delivery| delivery["url"] == url && delivery["webhook"].is_null()), "{its:#?}");
    assert_eq!(its.iter().filter(|delivery| delivery["outcome"] == "delivered").count(), 1, "{its:#?}");
    batch
}

/// The name of the key that proved the webhook's first delivery.
async fn first_fingerprint(bed: &Bed, name: &str) -> String {
    let reported = bed
        .wait_webhook(name, "told of a delivery", |webhook| {
            webhook.status.as_ref().is_some_and(|status| status.last_delivery.is_some())
        })
        .await;
    let delivery = reported.status.unwrap().last_delivery.unwrap();
    assert_eq!(delivery.type_.as_deref(), Some("batch.succeeded"));
    delivery.key_fingerprint.expect("a key proved it")
}

/// Thumbprints (RFC 7638) of the keys of this kind in the emulator's document, made by what the document says.
async fn thumbprints(bed: &Bed, kty: &str) -> Vec<String> {
    use sha2::{Digest, Sha256};
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let document: Value = http.get(bed.emulator.jwks_url()).send().await.unwrap().json().await.unwrap();
    let keys = document["keys"].as_array().unwrap().iter().filter(|key| key["kty"] == kty);
    let members = keys.map(|key| match kty {
        "OKP" => json!({"crv": key["crv"], "kty": kty, "x": key["x"]}),
        _ => json!({"e": key["e"], "kty": kty, "n": key["n"]}),
    });
    members.map(|key| data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(key.to_string()))).collect()
}

async fn completes(name: &str, jwt: bool, signature: &str, kty: &str) {
    let bed = bed_with(name, options(jwt, json!({}))).await;
    // A registered webhook beside it, of the same project: it is not told.
    bed.make_webhook().await;
    let webhook = make_webhook(&bed, signature).await;
    let asked = |ledger: &Ledger| ledger.calls("jwks.get");
    assert_eq!(asked(&bed.ledger().await), 0, "no delivery asked for keys yet");
    bed.apply(&tickets("tickets", 3, "Dynamic")).await;
    ended_by_event(&bed, "tickets", &url_of(&webhook)).await;
    let ledger = bed.ledger().await;
    assert_eq!(
        (asked(&ledger), ledger.calls("webhooks.create")),
        (1, 1),
        "one document; one webhook is registered"
    );
    let fetched = bed.metric("gemini_operator_receiver_jwks_fetches_total{outcome=\"fetched\"}").await;
    assert_eq!(fetched, Some(1.0));

    let fingerprint = first_fingerprint(&bed, "dynamic").await;
    assert!(thumbprints(&bed, kty).await.contains(&fingerprint), "{fingerprint}");
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ends_by_a_delivery_with_an_ed25519_signature() {
    completes("dynamic", false, "DynamicV1a", "OKP").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ends_by_a_delivery_with_a_jwt() {
    completes("dynamic-jwt", true, "DynamicJwt", "RSA").await;
}

/// Moves the emulator's clock, which its retries go by, until an event about this job is taken: an attempt every few
/// seconds, its longest pause being an hour, and all of them within the day for which it tries.
async fn retried_until_taken(bed: &Bed, job: &str) {
    let mut pace = tokio::time::interval(Duration::from_secs(5));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for _ in 0..22 {
        pace.tick().await;
        bed.emulator.advance_clock(3600).await;
        if of_job(&bed.ledger().await, job).any(|delivery| delivery["outcome"] == "delivered") {
            return;
        }
    }
    panic!("{job} was never told of: {:?}\n{}", statuses(bed, job).await, bed.log_tails());
}

/// Statuses that the emulator got for its attempts to tell of this job.
async fn statuses(bed: &Bed, job: &str) -> Vec<u64> {
    of_job(&bed.ledger().await, job).filter_map(|delivery| delivery["status"].as_u64()).collect()
}

/// Waits for the first answer to an attempt to tell of the batch's job.
async fn first_answer(bed: &Bed, name: &str) -> (String, u64) {
    let submitted = bed.wait_condition(name, "Submitted", "True", "Submitted").await;
    let job = job_of(&submitted);
    let answered = poll(PATIENCE, async || statuses(bed, &job).await.first().copied().ok_or(()));
    let status = answered.await.unwrap_or_else(|()| panic!("{job} was not told of\n{}", bed.log_tails()));
    (job, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_keys_cannot_be_had_the_sender_comes_again() {
    let down = json!({"rules": [{"match": {"call": "jwks.get"}, "do": {"status": 503}}]});
    let bed = bed_with("dynamic-down", options(false, down)).await;
    let webhook = make_webhook(&bed, "DynamicV1a").await;
    bed.apply(&tickets("tickets", 1, "Dynamic")).await;
    let (job, status) = first_answer(&bed, "tickets").await;
    assert_eq!(status, 503);
    let ready = reqwest::get(format!("http://{}/readyz", bed.receiver_admin)).await.unwrap().status();
    assert!(ready.is_success(), "the receiver is as ready as before: {ready}");
    let failed = bed.metric("gemini_operator_receiver_jwks_fetches_total{outcome=\"status\"}").await;
    assert_eq!(failed, Some(1.0));

    bed.emulator.set_faults(&json!({})).await;
    retried_until_taken(&bed, &job).await;
    ended_by_event(&bed, "tickets", &url_of(&webhook)).await;
    let statuses = statuses(&bed, &job).await;
    assert!(statuses.iter().all(|status| [204, 503].contains(status)), "{statuses:?}");
    assert_eq!(bed.ledger().await.calls("jwks.get"), 2, "one that failed, and one a minute later");
    bed.assert_invariants().await;
}

/// The answer to the create is lost, and with it the job's name: the event brings it, by what was given along.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_kept_for_a_job_whose_name_was_lost() {
    // No listing shows the job before its event is there.
    let lost = json!({"rules": [
        {"match": {"call": "batches.create"}, "do": {"drop": "answer", "list_lag_ms": 8000}, "times": 1},
    ]});
    let faults = BedOptions { timing_divisor: 60, ..options(false, lost) };
    let bed = bed_with("dynamic-lost", faults).await;
    let webhook = make_webhook(&bed, "DynamicV1a").await;
    bed.apply(&tickets("tickets", 1, "Dynamic")).await;
    let told = bed
        .wait_batch("tickets", "told of a job that it does not know", |batch| {
            let status = batch.status.as_ref();
            status.is_some_and(|s| s.last_event.is_some() && s.runs[0].remote_name.is_none())
        })
        .await;
    let event = told.status.unwrap().last_event.unwrap();
    let batch = ended_by_event(&bed, "tickets", &url_of(&webhook)).await;
    assert_eq!(event.remote_name, job_of(&batch));
    assert_eq!(bed.ledger().await.executed("batches.create"), 1);
    bed.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_goes_leaves_its_batches_to_the_sweep() {
    let hold = json!({"jobs": [{"do": {"hold": "running"}}]});
    let bed = bed_with("dynamic-gone", BedOptions { timing_divisor: 60, ..options(false, hold) }).await;
    make_webhook(&bed, "DynamicV1a").await;
    bed.apply(&tickets("tickets", 1, "Dynamic")).await;
    bed.wait_condition("tickets", "WebhookTracked", "True", "Dynamic").await;
    bed.kubectl().run(&["delete", "gwh", "dynamic"]).await.expect();
    bed.wait_condition("tickets", "WebhookTracked", "False", "SweepOnly").await;
    bed.emulator.release_jobs().await;
    bed.wait_complete("tickets").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_without_an_address_when_there_is_none_for_too_long() {
    let bed = bed_with("dynamic-none", BedOptions { timing_divisor: 60, ..options(false, json!({})) }).await;
    bed.apply(&tickets("tickets", 1, "Dynamic")).await;
    let batch = bed.wait_complete("tickets").await;
    let status = batch.status.as_ref().unwrap();
    assert_eq!(status.runs[0].webhook_uri, None);
    let tracked = batch_condition(&batch, condition::batch_type::WEBHOOK_TRACKED).expect("it is said");
    assert_eq!((tracked.status.as_str(), tracked.reason.as_str()), ("False", "WebhookNotReady"));
    bed.assert_invariants().await;
}
