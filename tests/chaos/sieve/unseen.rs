//! Unobserved states: each event of a watch is lost, and each pair of them.
//!
//! No API server means to lose one. Caches on the way have, and a controller that needed each event would stand for ever;
//! what it has not seen, it must find by itself.

use std::collections::BTreeMap;
use std::sync::Mutex;

use gemini_operator::api::{GeminiWebhook, condition};
use gemini_operator_kproxy::{Fault, Rule, RuleId, Target};
use kube::api::PostParams;
use serde_json::{Value, json};

use super::end::{End, assert_leaves_nothing};
use super::stage::{ROWS, Stage};
use crate::support::PATIENCE;
use crate::support::bed::HOOKS_HOST;

/// A list shows at once what several events would have told, so in one run or another there is no event to lose.
const ROUNDS: usize = 5;

/// Events that are lost, counted from 1.
fn singles_and_pairs(count: u64) -> Vec<Vec<u64>> {
    let singles = (1..=count).map(|i| vec![i]);
    let pairs = (1..=count).flat_map(|i| (i + 1..=count).map(move |j| vec![i, j]));
    singles.chain(pairs).collect()
}

fn name(lost: &[u64], round: usize) -> String {
    let numbers: Vec<String> = lost.iter().map(ToString::to_string).collect();
    format!("lost-{}-round-{round}", numbers.join("-"))
}

/// How many events of this object came, on all watches.
fn count(stage: &Stage, resource: &str, name: &str) -> u64 {
    let log = stage.proxy.log().events;
    let count = log.iter().filter(|event| event.name == name && event.resource == resource).count();
    u64::try_from(count).unwrap_or_default()
}

fn lose(stage: &Stage, resource: &str, name: &str, lost: &[u64]) -> RuleId {
    stage.proxy.add(Rule::new(Fault::DropEvent).resources(&[resource]).name(name).nth(lost))
}

/// All in one bed: nobody wakes a batch for another one's event.
#[tokio::test(flavor = "multi_thread")]
async fn each_event_and_each_pair_of_a_batch_is_lost() {
    const BATCHES: &str = "geminibatches";
    let stage = Stage::new("unseen", json!({"jobs": [{"do": {"hold": "running", "job_time_ms": 0}}]})).await;
    let bed = &stage.bed;
    let _controller = stage.controller().await;
    stage.make("plain").await;
    stage.wait_running("plain").await;
    bed.emulator.release_jobs().await;
    let plain = bed.wait_complete("plain").await;
    let learned = End::of(&stage, &plain).await;
    let count = count(&stage, BATCHES, "plain");
    assert!(count >= 9, "a batch is written so often: {count}");

    let mut cases = singles_and_pairs(count);
    println!("{count} events without a fault, {} cases", cases.len());
    let mut made = vec!["plain".to_owned()];
    for round in 1..=ROUNDS {
        let mut rules = vec![];
        for lost in &cases {
            rules.push(lose(&stage, BATCHES, &name(lost, round), lost));
            stage.make(&name(lost, round)).await;
        }
        for lost in &cases {
            stage.wait_running(&name(lost, round)).await;
        }
        bed.emulator.release_jobs().await;
        for lost in &cases {
            let batch = bed.wait_complete(&name(lost, round)).await;
            let found = End::of(&stage, &batch).await.differences(&learned);
            assert!(found.is_empty(), "{lost:?}: another end: {found:#?}");
        }
        made.extend(cases.iter().map(|lost| name(lost, round)));
        let all_lost = |(lost, rule): (&Vec<u64>, &RuleId)| {
            (stage.proxy.fired(*rule) < u64::try_from(lost.len()).unwrap_or_default()).then(|| lost.clone())
        };
        cases = cases.iter().zip(&rules).filter_map(all_lost).collect();
        println!("round {round}: {} cases did not lose what they were to lose", cases.len());
        if cases.is_empty() {
            break;
        }
    }
    assert!(cases.is_empty(), "these were never lost: {cases:?}");
    let ledger = bed.ledger().await;
    let mut jobs: BTreeMap<String, usize> = BTreeMap::new();
    for job in ledger.jobs() {
        *jobs.entry(job["display_name"].to_string()).or_default() += 1;
    }
    assert!(jobs.len() == made.len() && jobs.values().all(|count| *count == 1), "{jobs:?}");
    assert_eq!(ledger.rows_paid(), ROWS * u64::try_from(jobs.len()).unwrap_or_default());

    // Finished batches are looked at for nothing but their deletion.
    stage.proxy.clear();
    for (lost, name) in singles_and_pairs(2).iter().zip(&made) {
        lose(&stage, BATCHES, name, lost);
    }
    for name in &made {
        stage.delete(name).await;
    }
    for name in &made {
        bed.wait_gone(bed.batches(), name).await;
    }
    assert_leaves_nothing(&stage, "plain").await;
    bed.assert_invariants().await;
}

/// Two watches follow webhooks: that of their own controller, and that by which batches know who tracks them. Both lose
/// the same events.
#[tokio::test(flavor = "multi_thread")]
async fn each_event_and_each_pair_of_a_webhook_is_lost() {
    const WEBHOOKS: &str = "geminiwebhooks";
    let mut stage = Stage::new("unheard", json!({})).await;
    stage.bed.start_receiver().await;
    let _controller = stage.controller().await;
    register(&stage, "plain").await;
    let learned = conditions(&ready(&stage, "plain").await);
    // Each came twice.
    let count = count(&stage, WEBHOOKS, "plain").div_ceil(2);
    assert!(count >= 6, "a webhook is written so often: {count}");

    let cases = singles_and_pairs(count);
    println!("{count} events without a fault, {} cases", cases.len());
    let mut rules = vec![];
    for lost in &cases {
        let (name, lost) = (name(lost, 1), lost.clone());
        let versions = Mutex::new(vec![]);
        let is_lost = move |_: &Target, event: &[u8]| {
            let event: Value = serde_json::from_slice(event).unwrap_or_default();
            let version = event["object"]["metadata"]["resourceVersion"].to_string();
            let mut versions = versions.lock().expect("nobody panics with this lock");
            let place = versions.iter().position(|known| *known == version).unwrap_or_else(|| {
                versions.push(version);
                versions.len() - 1
            });
            lost.contains(&(u64::try_from(place).unwrap_or_default() + 1))
        };
        let rule = Rule::new(Fault::DropEvent).resources(&[WEBHOOKS]).name(&name).only_if(is_lost);
        rules.push(stage.proxy.add(rule));
        register(&stage, &name).await;
    }
    for (lost, rule) in cases.iter().zip(&rules) {
        let webhook = ready(&stage, &name(lost, 1)).await;
        assert_eq!(conditions(&webhook), learned, "{lost:?}: another end");
        assert!(stage.proxy.fired(*rule) > 0, "{lost:?}: nothing was lost");
    }
    let registered = stage.bed.emulator.list("webhooks").await.len();
    assert_eq!(registered, cases.len() + 1, "one for each");
}

async fn register(stage: &Stage, name: &str) {
    let webhook = json!({
        "apiVersion": "gemini-operator.io/v1alpha1",
        "kind": "GeminiWebhook",
        "metadata": {"name": name},
        "spec": {"apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": format!("https://{HOOKS_HOST}")}},
    });
    let webhook: GeminiWebhook = serde_json::from_value(webhook).expect("the webhook is one");
    stage.bed.webhooks().create(&PostParams::default(), &webhook).await.expect("a webhook can be made");
}

async fn ready(stage: &Stage, name: &str) -> GeminiWebhook {
    let is_ready = |webhook: &GeminiWebhook| {
        let conditions = webhook.status.as_ref().map_or(&[][..], |status| &status.conditions);
        condition::is_true(conditions, condition::webhook_type::READY)
    };
    let what = format!("Ready within {PATIENCE:?}");
    stage.bed.wait_webhook(name, &what, is_ready).await
}

fn conditions(webhook: &GeminiWebhook) -> Vec<Value> {
    let conditions = webhook.status.as_ref().map_or(&[][..], |status| &status.conditions);
    // Found by its name, or told by the answer: the same registration.
    let words = |reason: &str| if reason == "Adopted" { "Registered".to_owned() } else { reason.to_owned() };
    let conditions = conditions.iter().map(|c| json!([c.type_, c.status, words(&c.reason)]));
    let mut conditions: Vec<Value> = conditions.collect();
    conditions.sort_by_key(ToString::to_string);
    conditions
}
