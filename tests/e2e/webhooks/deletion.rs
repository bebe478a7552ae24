//! The end of a GeminiWebhook: nothing is left at Gemini, nothing in the keyring, nothing Terminating.

use kube::ResourceExt;
use serde_json::json;

use super::{EVENTS, bed_with, has_keyring_entry, id_of, ids, manifest, options, wait_event};
use crate::support::{Bed, BedOptions, PATIENCE, poll};

async fn delete(bed: &Bed) {
    bed.kubectl().run(&["delete", "geminiwebhook", "main", "--wait=false"]).await.expect();
    bed.wait_gone(bed.webhooks(), "main").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_removes_the_registration_and_the_secret() {
    let bed = bed_with("hook-deleted", BedOptions::default()).await;
    let webhook = bed.make_webhook().await;
    let uid = webhook.uid().unwrap();
    assert!(has_keyring_entry(&bed, &uid).await);
    delete(&bed).await;
    assert_eq!(ids(&bed).await, [""; 0]);
    assert!(!has_keyring_entry(&bed, &uid).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_without_the_api_key_ends_with_its_timeout() {
    let mut bed = bed_with("hook-keyless", options(120, json!({}))).await;
    let webhook = bed.make_webhook().await;
    bed.kubectl().run(&["delete", "secret", "gemini"]).await.expect();
    // A new process does not remember the key.
    bed.kill_controller();
    bed.start_controller().await;
    delete(&bed).await;
    wait_event(&bed, "DeletionTimeout", &id_of(&webhook)).await;
    assert!(!has_keyring_entry(&bed, &webhook.uid().unwrap()).await);
}

/// Killed while the registration was under way, deleted while it was in no list.
#[tokio::test(flavor = "multi_thread")]
async fn deletion_in_doubt_looks_for_what_may_still_appear() {
    let doubt = json!({"answer_delay_ms": 20_000, "list_lag_ms": 6000});
    let faults = json!({"rules": [{"match": {"call": "webhooks.create"}, "do": doubt, "times": 1}]});
    let mut bed = bed_with("hook-doubt", options(120, faults)).await;
    bed.apply(&manifest("", &EVENTS)).await;
    let made = poll(PATIENCE, async || {
        let state = bed.emulator.call(&bed.options.api_key, "GET", "/_emulator/state", None).await;
        if state["webhooks"] == 1 { Ok(()) } else { Err(state) }
    });
    made.await.expect("it is registered");
    bed.kill_controller();
    bed.kubectl().run(&["delete", "geminiwebhook", "main", "--wait=false"]).await.expect();
    assert_eq!(ids(&bed).await, [""; 0], "not listed yet");
    bed.start_controller().await;
    bed.wait_gone(bed.webhooks(), "main").await;
    let state = bed.emulator.call(&bed.options.api_key, "GET", "/_emulator/state", None).await;
    assert_eq!(state["webhooks"], 0, "nothing is left");
}
