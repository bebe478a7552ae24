//! Rotation: which secrets are good afterwards, and what is done when one got lost on the way.

use gemini_operator::api::GeminiWebhook;
use gemini_operator::api::condition::webhook_type;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{assert_holds_the_secret, bed_with, condition, id_of, ids, is_ready, options, wait_event};
use crate::support::Bed;
use crate::support::hooks::is_rotated_since;
use kube::ResourceExt;

pub async fn revoke(bed: &Bed, revocation: &str) {
    let patch = json!({"spec": {"rotation": {"revocation": revocation}}}).to_string();
    bed.kubectl().run(&["patch", "geminiwebhook", "main", "--type=merge", "-p", &patch]).await.expect();
}

/// Asks for a rotation now, and waits until it was made and the ping after it has arrived.
pub async fn rotate(bed: &Bed, name: &str) -> GeminiWebhook {
    let at = bed.rotate_now(name).await;
    let done = |w: &GeminiWebhook| {
        let tested =
            w.status.as_ref().and_then(|s| s.last_ping.as_ref()).is_some_and(|p| p.received_time.is_some());
        is_rotated_since(w, at) && tested && is_ready(w)
    };
    bed.wait_webhook(name, "rotated and tested", done).await
}

async fn entry(bed: &Bed, webhook: &GeminiWebhook) -> Value {
    bed.keyring_entry(&webhook.uid().unwrap()).await.expect("the keyring has the webhook")
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
    bed.rotate_at("main", now).await;
    wait_event(&bed, "RotationWaits", "Immediately").await;
    assert_eq!(bed.ledger().await.calls("webhooks.rotate"), 3);
    revoke(&bed, "Immediately").await;
    let done = |w: &GeminiWebhook| is_rotated_since(w, now) && is_ready(w);
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
    bed.rotate_now("main").await;
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
    assert_eq!(bed.emulator.registrations(&bed.options.api_key).await.len(), 1);
    let newest = bed.signing_secret(&webhook).await;
    let shown = webhook.status.unwrap().signing_secrets;
    assert!(shown.iter().any(|s| newest.ends_with(s.truncated.rsplit("...").next().unwrap())), "{shown:?}");
}
