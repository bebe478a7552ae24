//! Rotation under load: jobs end at the emulator all the time, and all of them are told of. `make load` is the large size.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::rotation::{revoke, rotate};
use super::{EVENTS, bed_with, id_of, is_ready, options};
use crate::objects::{is_large, tickets};
use crate::support::{Bed, PATIENCE, poll};

/// Jobs of somebody else in the same Google project: to a registration they are as good as ours, and no controller slows
/// their load down. This often one begins, until it is stopped.
async fn jobs(bed: Arc<Bed>, every: Duration, stop: watch::Receiver<bool>) -> Vec<String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1beta/models/gemini-3.5-flash:batchGenerateContent", bed.emulator.url);
    let request =
        json!({"request": {"contents": [{"parts": [{"text": "hello"}]}]}, "metadata": {"key": "a"}});
    let body =
        json!({"batch": {"displayName": "load", "inputConfig": {"requests": {"requests": [request]}}}});
    let mut names = Vec::new();
    let mut tick = tokio::time::interval(every);
    while !*stop.borrow() {
        tick.tick().await;
        let made = client.post(&url).header("x-goog-api-key", &bed.options.api_key).json(&body).send().await;
        let made: serde_json::Value = made.expect("the emulator answers").json().await.expect("JSON");
        names.push(made["name"].as_str().unwrap_or_else(|| panic!("no job but {made}")).to_owned());
    }
    names
}

/// Batches of ours beside them.
async fn batches(bed: Arc<Bed>, every: Duration, stop: watch::Receiver<bool>) -> Vec<String> {
    let mut names = Vec::new();
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        tick.tick().await;
        let name = format!("batch-{}", names.len());
        bed.apply(&tickets(&name, 1, "Auto")).await;
        names.push(name);
    }
    names
}

/// What came of the deliveries to one webhook.
#[derive(Debug, Default)]
struct Told {
    jobs: HashSet<String>,
    /// Answers that were none of 2xx, by their status; those that came again and arrived included.
    refused: Vec<u64>,
}

/// Waits until each of these jobs was told of to this webhook, however often it was tried.
async fn told(bed: &Bed, webhook: &str, jobs: &[String]) -> Told {
    let (mut told, mut seen) = (Told::default(), 0);
    let all = poll(PATIENCE, async || {
        let ledger = bed.emulator.ledger_since(seen).await;
        seen = ledger.0["last"].as_u64().expect("the ledger has a last number");
        for delivery in ledger.deliveries("batch.succeeded").into_iter().filter(|d| d["webhook"] == webhook) {
            if delivery["outcome"] == "delivered" {
                told.jobs.insert(delivery["batch"].as_str().unwrap_or_default().to_owned());
            } else {
                told.refused.push(delivery["status"].as_u64().unwrap_or_default());
            }
        }
        let missing: Vec<&String> = jobs.iter().filter(|job| !told.jobs.contains(*job)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{} of {}: {missing:?}", missing.len(), jobs.len()))
        }
    });
    all.await.unwrap_or_else(|lost| panic!("lost to {webhook}: {lost}\n{}", bed.log_tails()));
    told
}

/// Every two seconds another secret, the one before worth nothing from then on, and deliveries all the time.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_at_once_loses_no_delivery() {
    let (rotations, every) = if is_large() { (30, 20) } else { (4, 50) };
    let bed = Arc::new(bed_with("hook-revoke", options(20, json!({}))).await);
    let webhook = id_of(&bed.make_webhook().await);
    revoke(&bed, "Immediately").await;
    let (stop, stopped) = watch::channel(false);
    let load = tokio::spawn(jobs(bed.clone(), Duration::from_millis(every), stopped.clone()));
    let ours = tokio::spawn(batches(bed.clone(), Duration::from_secs(1), stopped));
    let (begin, mut tick) = (Instant::now(), tokio::time::interval(Duration::from_secs(2)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..rotations {
        tick.tick().await;
        rotate(&bed, "main").await;
    }
    stop.send_replace(true);
    let (load, ours) = (load.await.expect("the load ends"), ours.await.expect("the load ends"));
    let took = begin.elapsed();
    let told = told(&bed, &webhook, &load).await;
    println!(
        "{rotations} rotations and {} jobs in {took:.1?}: all told of, {} attempts refused before that",
        load.len(),
        told.refused.len()
    );
    assert_eq!(bed.ledger().await.executed("webhooks.rotate"), rotations);
    assert!(load.len() >= 20 * rotations, "{} jobs are no load", load.len());
    for name in ours {
        bed.wait_complete(&name).await;
    }
}

/// One webhook for each way in which Gemini may sign while several secrets are alive.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_with_grace_loses_no_delivery_whatever_signs() {
    let every = if is_large() { 20 } else { 100 };
    let bed = Arc::new(bed_with("hook-grace", options(20, json!({}))).await);
    let modes = ["newest-and-previous", "newest", "oldest", "all"];
    let mut ids = Vec::new();
    for mode in modes {
        let url = format!("https://hooks.test/{mode}");
        let webhook = json!({
            "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiWebhook", "metadata": {"name": mode},
            "spec": {"apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": url}, "events": EVENTS},
        });
        bed.apply(&webhook.to_string()).await;
    }
    for mode in modes {
        ids.push(id_of(&bed.wait_webhook(mode, "Ready", is_ready).await));
    }
    let signs = |(mode, id): (&&str, &String)| json!({"match": {"webhook": id}, "do": {"sign": mode.replace('-', "_")}});
    let plan: Vec<_> = modes.iter().zip(&ids).map(signs).collect();
    bed.emulator.set_faults(&json!({"deliveries": plan})).await;

    let (stop, stopped) = watch::channel(false);
    let load = tokio::spawn(jobs(bed.clone(), Duration::from_millis(every), stopped));
    for _ in 0..3 {
        futures::future::join_all(modes.map(|mode| rotate(&bed, mode))).await;
    }
    stop.send_replace(true);
    let load = load.await.expect("the load ends");
    for (mode, id) in modes.iter().zip(&ids) {
        let told = told(&bed, id, &load).await;
        let unproven = told.refused.iter().filter(|status| **status == 401).count();
        println!("{mode}: {} jobs, all told of; {unproven} attempts refused before that", load.len());
        // Who signs with an older secret too, or alone, is believed all the time.
        assert!(*mode == "newest" || unproven == 0, "{mode}: {unproven} refused");
    }
    assert_eq!(bed.ledger().await.executed("webhooks.rotate"), 3 * modes.len());
    assert!(load.len() >= 20, "{} jobs are no load", load.len());
}
