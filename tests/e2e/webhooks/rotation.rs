//! Rotation: which secrets are good afterwards, and what is done when one got lost on the way.

use gemini_operator::api::condition::webhook_type;
use gemini_operator::api::{GeminiWebhook, ROTATE_AT_ANNOTATION};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    assert_holds_the_secret, bed_with, condition, id_of, ids, is_ready, keyring, options, registrations,
    wait_event,
};
use crate::support::{Bed, PATIENCE, poll};
use gemini_operator::api::keyring::KEYRING_SECRET;
use kube::ResourceExt;

/// Has the secret rotated at a time.
async fn ask(bed: &Bed, name: &str, at: Timestamp) {
    let annotation = format!("{ROTATE_AT_ANNOTATION}={at}");
    bed.kubectl().run(&["annotate", "--overwrite", "geminiwebhook", name, &annotation]).await.expect();
}

pub async fn revoke(bed: &Bed, revocation: &str) {
    let patch = json!({"spec": {"rotation": {"revocation": revocation}}}).to_string();
    bed.kubectl().run(&["patch", "geminiwebhook", "main", "--type=merge", "-p", &patch]).await.expect();
}

fn rotated_since(at: Timestamp) -> impl Fn(&GeminiWebhook) -> bool {
    move |w: &GeminiWebhook| {
        let rotated = w.status.as_ref().and_then(|s| s.last_rotation_time.as_ref());
        rotated.is_some_and(|last| last.0.as_second() >= at.as_second())
    }
}

/// Asks for a rotation now. The secret must be older than the wish, in whole seconds, or it will do.
async fn ask_now(bed: &Bed, name: &str) -> Timestamp {
    let older = poll(PATIENCE, async || {
        let now = Timestamp::now();
        let born = bed.webhooks().get(name).await.unwrap().status.unwrap();
        let born = born.last_rotation_time.or(born.registered_time).unwrap().0;
        if now.as_second() > born.as_second() { Ok(now) } else { Err(now) }
    });
    let at = older.await.expect("the secret gets older");
    ask(bed, name, at).await;
    at
}

/// Asks for a rotation now, and waits until it was made and the ping after it has arrived.
pub async fn rotate(bed: &Bed, name: &str) -> GeminiWebhook {
    let at = ask_now(bed, name).await;
    let done = |w: &GeminiWebhook| {
        let tested =
            w.status.as_ref().and_then(|s| s.last_ping.as_ref()).is_some_and(|p| p.received_time.is_some());
        rotated_since(at)(w) && tested && is_ready(w)
    };
    bed.wait_webhook(name, "rotated and tested", done).await
}

async fn entry(bed: &Bed, webhook: &GeminiWebhook) -> Value {
    let secret = keyring(&bed.client).get(KEYRING_SECRET).await.expect("the keyring is there");
    let data = secret.data.unwrap_or_default();
    serde_json::from_slice(&data[&webhook.uid().unwrap()].0).expect("an entry is JSON")
}

fn previous(entry: &Value) -> usize {
    entry["previous"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_secret_is_accepted_as_long_as_gemini_uses_it() {
    let bed = bed_with("hook-rotate", options(20, json!({}))).await;
    let webhook = bed.make_webhook().await;
    let first = bed.signing_secret(&webhook).await;
    for (number, mode) in ["newest", "newest_and_previous", "oldest"].iter().enumerate() {
        bed.emulator.set_faults(&json!({"options": {"sign": mode}})).await;
        let webhook = rotate(&bed, "main").await;
        let held = entry(&bed, &webhook).await;
        assert_eq!(previous(&held), number + 1, "{mode}");
        assert_eq!(held["previous"][number]["secret"], *first, "{mode}: the oldest is the last");
        assert_eq!(condition(&webhook, webhook_type::SECRET_READY).unwrap().reason, "Stored");
        assert_eq!(webhook.status.as_ref().unwrap().signing_secrets.len(), number + 2, "{mode}");
    }
    // Three are alive: the next one waits, and says so; one that revokes them does not wait.
    let now = Timestamp::now().checked_add(SignedDuration::from_secs(1)).unwrap();
    ask(&bed, "main", now).await;
    wait_event(&bed, "RotationWaits", "Immediately").await;
    assert_eq!(bed.ledger().await.calls("webhooks.rotate"), 3);
    revoke(&bed, "Immediately").await;
    let done = |w: &GeminiWebhook| rotated_since(now)(w) && is_ready(w);
    let webhook = bed.wait_webhook("main", "rotated at once", done).await;
    assert_eq!(previous(&entry(&bed, &webhook).await), 0);
    bed.emulator.set_faults(&json!({})).await;
    assert_holds_the_secret(&bed, &webhook).await;
    assert_eq!(ids(&bed).await, [id_of(&webhook)]);
    // Whatever signed: none was refused.
    let ledger = bed.ledger().await;
    let refused: Vec<_> = ledger.deliveries("ping").into_iter().filter(|d| d["status"] != 204).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// The answer with the new secret is lost: it is asked for once more, beside the same registration.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_lost_on_the_way_is_replaced() {
    let bed = bed_with("hook-rotlost", options(20, json!({}))).await;
    let before = bed.make_webhook().await;
    let lost =
        json!({"rules": [{"match": {"call": "webhooks.rotate"}, "do": {"drop": "answer"}, "times": 1}]});
    bed.emulator.add_faults(&lost).await;
    revoke(&bed, "Immediately").await;
    let webhook = rotate(&bed, "main").await;
    assert_eq!(id_of(&webhook), id_of(&before));
    assert_eq!(bed.ledger().await.executed("webhooks.rotate"), 2, "the lost one, and another");
    assert_holds_the_secret(&bed, &webhook).await;
}

/// Killed with the answer on its way: the next process finds the intent, and nobody else's registration.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_interrupted_is_made_again() {
    let mut bed = bed_with("hook-rotkill", options(20, json!({}))).await;
    let before = bed.make_webhook().await;
    let held =
        json!({"rules": [{"match": {"call": "webhooks.rotate"}, "do": {"hold": "answer"}, "times": 1}]});
    bed.emulator.add_faults(&held).await;
    ask_now(&bed, "main").await;
    bed.emulator.wait_held(1).await;
    let told = bed.webhooks().get("main").await.unwrap();
    assert_eq!(condition(&told, webhook_type::SECRET_READY).unwrap().reason, "Rotating");
    bed.kill_controller();
    bed.emulator.release_calls().await;
    bed.start_controller().await;
    let stored = |w: &GeminiWebhook| {
        is_ready(w)
            && condition(w, webhook_type::SECRET_READY)
                .is_some_and(|c| c.reason == "Stored" && c.message == "rotated")
    };
    let webhook = bed.wait_webhook("main", "rotated by the next process", stored).await;
    assert_eq!(id_of(&webhook), id_of(&before));
    assert_eq!(bed.ledger().await.executed("webhooks.rotate"), 2);
    assert_eq!(registrations(&bed, &bed.options.api_key).await.len(), 1);
    let newest = bed.signing_secret(&webhook).await;
    let shown = webhook.status.unwrap().signing_secrets;
    assert!(shown.iter().any(|s| newest.ends_with(s.truncated.rsplit("...").next().unwrap())), "{shown:?}");
}
