//! The objects that the receiver needs: a webhook with its key, and batches with jobs. No controller makes them, and so none
//! stands between the figures and the receiver.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures::StreamExt;
use gemini_operator::api::GeminiBatch;
use gemini_operator::api::keyring::KEYRING_SECRET;
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::progress;
use crate::support::cluster::from_json;
use crate::support::{Bed, OPERATOR_NAMESPACE};

pub const SECRET: &str = "whsec_YmVuY2gtYmVuY2gtYmVuY2gtYmVuY2g=";
/// What the secret stands for.
pub const KEY: &[u8] = b"bench-bench-bench-bench";
pub const PATH: &str = "/v1/h/abcdefghijklmnopqrstuvwxyz";
/// Each is news for each of its jobs, in each type.
const TYPES: [&str; 4] = ["batch.succeeded", "batch.failed", "batch.expired", "batch.cancelled"];
const JOBS: usize = 5;
const SIDE_BY_SIDE: usize = 16;

pub fn batch_name(number: usize) -> String {
    format!("bench-{number}")
}

fn job(batch: usize, number: usize) -> String {
    format!("batches/bench-{batch}-{number}")
}

/// The body of the event number `number` when `objects` batches are told of in turn: each is news.
pub fn news(number: usize, objects: usize) -> String {
    let (batch, round) = (number % objects, number / objects);
    let id = job(batch, round / TYPES.len() % JOBS);
    json!({"type": TYPES[round % TYPES.len()], "version": "v1", "data": {"id": id}}).to_string()
}

/// A request as it goes over the wire; forged = signed with another key.
pub fn delivery(id: &str, body: &str, forged: bool) -> Vec<u8> {
    let timestamp = jiff::Timestamp::now().as_second();
    let key: &[u8] = if forged { b"somebody else's secret" } else { KEY };
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length will do");
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    let signature = data_encoding::BASE64.encode(&mac.finalize().into_bytes());
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: hooks.test\r\ncontent-type: application/json\r\nwebhook-id: {id}\r\n\
         webhook-timestamp: {timestamp}\r\nwebhook-signature: v1,{signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The same event with a signature that the tutorial's scheme refuses.
pub fn forged_in_hex(body: &str) -> Vec<u8> {
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: hooks.test\r\ncontent-type: application/json\r\nx-goog-signature: {}\r\n\
         content-length: {}\r\n\r\n{body}",
        "0".repeat(64),
        body.len()
    )
    .into_bytes()
}

/// What stands for a bed with its objects.
pub struct World<'a> {
    pub bed: &'a Bed,
    /// Where the bare loop writes: in a namespace of its own, so that its writes are no news for a receiver.
    pub bare: String,
    /// News that nobody has told of yet, by their numbers: what was told of less than a minute ago is none.
    pub fresh: Arc<AtomicUsize>,
}

/// The entry of the keyring for the webhook.
pub fn entry() -> String {
    json!({"registration": "r", "scheme": "StandardWebhooks", "current": SECRET}).to_string()
}

/// Makes the webhook and so many batches, and as many again for the bare loop.
pub async fn make(bed: &Bed, batches: usize) -> World<'_> {
    progress(&format!("twice {batches} batches"));
    bed.apply(
        "apiVersion: gemini-operator.io/v1alpha1\nkind: GeminiWebhook\nmetadata: {name: main}\n\
         spec:\n  apiKeySecretRef: {name: gemini}\n  endpoint: {url: 'https://hooks.test'}\n",
    )
    .await;
    // A report that is new enough: no routine one disturbs the figures at once.
    let status =
        json!({"status": {"path": PATH, "lastDelivery": {"time": jiff::Timestamp::now().to_string()}}});
    let params = PatchParams::default();
    let webhook = bed.webhooks().patch_status("main", &params, &Patch::Merge(&status)).await;
    let uid = webhook.expect("a status can be written").uid().expect("it has a uid");
    let keyring = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYRING_SECRET}, "stringData": {uid: entry()},
    });
    let secrets: Api<Secret> = Api::namespaced(bed.client.clone(), OPERATOR_NAMESPACE);
    let params = PatchParams::apply("bench").force();
    secrets
        .patch(KEYRING_SECRET, &params, &Patch::Apply(&keyring))
        .await
        .expect("the keyring can be written");

    let bare = bed.cluster.make_namespace(&bed.client, "bare").await;
    for api in [bed.batches(), Api::namespaced(bed.client.clone(), &bare)] {
        let made = futures::stream::iter(0..batches).map(|number| make_batch(api.clone(), number));
        made.buffer_unordered(SIDE_BY_SIDE).collect::<Vec<()>>().await;
    }
    // The first ones are told of by what is about other things.
    World { bed, bare, fresh: Arc::new(batches.into()) }
}

async fn make_batch(api: Api<GeminiBatch>, number: usize) {
    let name = batch_name(number);
    let batch: GeminiBatch = from_json(json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiBatch", "metadata": {"name": name},
        "spec": {
            "apiKeySecretRef": {"name": "gemini"},
            "model": "gemini-3.5-flash",
            "input": {"inline": {"requests": [{"key": "a", "prompt": "Summarize ticket #1"}]}},
        },
    }));
    api.create(&PostParams::default(), &batch).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    let runs: Vec<Value> = (0..JOBS)
        .map(|job_number| {
            json!({
                "name": format!("run-{job_number}"), "attempt": 1, "submission": "Recorded", "nonce": "n", "holder": "h",
                "marker": "m", "inputFile": "files/f", "keyFingerprint": "k", "rows": 1,
                "intentTime": "2026-01-01T00:00:00Z", "remoteName": job(number, job_number),
            })
        })
        .collect();
    let status = json!({"status": {"runs": runs}});
    let written = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await;
    written.unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// The bare loop's write: what the receiver writes, without a receiver.
pub async fn patch(client: &Client, namespace: &str, batch: usize, event: usize) {
    let api: Api<GeminiBatch> = Api::namespaced(client.clone(), namespace);
    let name = batch_name(batch);
    let body = json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiBatch", "metadata": {"name": name},
        "status": {"lastEvent": {
            "id": format!("bare-{event}"), "type": TYPES[event % TYPES.len()], "remoteName": job(batch, 0),
            "receivedTime": jiff::Timestamp::now().to_string(),
        }},
    });
    let params = PatchParams::apply("gemini-operator/receiver").force();
    let written = api.patch_status(&name, &params, &Patch::Apply(&body)).await;
    written.unwrap_or_else(|error| panic!("{name}: {error}"));
}
