//! The life of a GeminiWebhook: registered once, proven, followed through changes of its key, removed.

mod deletion;
mod external;
mod health;
mod load;
mod rotation;
mod secrets;

use gemini_operator::api::GeminiWebhook;
use gemini_operator::api::condition::{self, webhook_type};
use gemini_operator::api::keyring::KEYRING_SECRET;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::objects::tickets;
use crate::support::cluster::from_json;
use crate::support::hooks::registration_name;
use crate::support::{Bed, BedOptions, PATIENCE, PROJECT, batch_condition, poll};

const EVENTS: [&str; 3] = ["batch.succeeded", "batch.failed", "batch.expired"];

fn options(timing_divisor: u32, faults: Value) -> BedOptions {
    BedOptions { timing_divisor, faults: Some(faults), ..BedOptions::default() }
}

async fn bed_with(name: &str, options: BedOptions) -> Bed {
    let bed = Bed::with(name, options).await;
    bed.make_api_key().await;
    bed
}

fn manifest(path: &str, events: &[&str]) -> String {
    let spec = json!({
        "apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": format!("https://hooks.test{path}")}, "events": events,
    });
    json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiWebhook", "metadata": {"name": "main"}, "spec": spec,
    })
    .to_string()
}

fn condition<'a>(webhook: &'a GeminiWebhook, type_: &str) -> Option<&'a Condition> {
    condition::get(&webhook.status.as_ref()?.conditions, type_)
}

fn is_ready(webhook: &GeminiWebhook) -> bool {
    condition(webhook, webhook_type::READY).is_some_and(|c| c.status == "True")
}

fn id_of(webhook: &GeminiWebhook) -> String {
    webhook.status.as_ref().and_then(|s| s.id.clone()).expect("it is registered")
}

async fn wait(bed: &Bed, what: &str, type_: &str, status: &str, reason: &str) -> GeminiWebhook {
    let done =
        |w: &GeminiWebhook| condition(w, type_).is_some_and(|c| (&*c.status, &*c.reason) == (status, reason));
    bed.wait_webhook("main", what, done).await
}

async fn ids(bed: &Bed) -> Vec<String> {
    let all = bed.emulator.registrations(&bed.options.api_key).await;
    all.iter().map(|w| w["id"].as_str().unwrap().to_owned()).collect()
}

/// Registers by hand under this name.
async fn register(bed: &Bed, name: &str) -> String {
    let body = json!({"uri": "https://hooks.test/elsewhere", "subscribed_events": EVENTS, "name": name});
    let made = bed.emulator.call(&bed.options.api_key, "POST", "/v1beta/webhooks", Some(body)).await;
    made["id"].as_str().expect("it is registered").to_owned()
}

async fn has_keyring_entry(bed: &Bed, uid: &str) -> bool {
    bed.keyring_entry(uid).await.is_some()
}

/// Waits for as many registrations as `wanted` says, in these ids.
async fn wait_ids(bed: &Bed, wanted: &[String]) {
    let seen = poll(PATIENCE, async || {
        let ids = ids(bed).await;
        if ids == wanted { Ok(()) } else { Err(ids) }
    });
    seen.await.unwrap_or_else(|ids| panic!("{ids:?} instead of {wanted:?}\n{}", bed.log_tails()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_whose_answer_was_lost_is_adopted() {
    let faults =
        json!({"rules": [{"match": {"call": "webhooks.create"}, "do": {"drop": "answer"}, "times": 1}]});
    let bed = bed_with("hook-lost", options(60, faults)).await;
    let webhook = bed.make_webhook().await;
    assert_eq!(condition(&webhook, webhook_type::REGISTERED).unwrap().reason, "Adopted");

    let ledger = bed.ledger().await;
    assert_eq!((ledger.calls("webhooks.create"), ledger.calls("webhooks.rotate")), (1, 1));
    assert_holds_the_secret(&bed, &webhook).await;
}

/// There is one registration with one secret, which is the one in the keyring; and an event of a batch is verified.
async fn assert_holds_the_secret(bed: &Bed, webhook: &GeminiWebhook) {
    let all = bed.emulator.registrations(&bed.options.api_key).await;
    let [left] = &all[..] else { panic!("one registration: {all:?}") };
    assert_eq!(left["id"], *id_of(webhook));
    let secret = bed.signing_secret(webhook).await;
    let shown: Vec<&str> = left["signing_secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["truncated_secret"].as_str().unwrap())
        .collect();
    let [shown] = shown[..] else { panic!("one secret: {shown:?}") };
    assert!(secret.ends_with(shown.rsplit("...").next().unwrap()), "{shown} is not what the keyring holds");

    bed.apply(&tickets("tickets", 2, "Auto")).await;
    bed.wait_complete("tickets").await;
    let ledger = bed.ledger().await;
    let delivered = ledger.deliveries("batch.succeeded");
    assert!(!delivered.is_empty() && delivered.iter().all(|d| d["status"] == 204), "{delivered:?}");
}

/// Refuses every write of the keyring that holds an entry for `uid`, for as long as the policy is there.
struct Blockade {
    policies: Api<ValidatingAdmissionPolicy>,
    bindings: Api<ValidatingAdmissionPolicyBinding>,
    name: String,
}

impl Blockade {
    async fn raise(bed: &Bed, uid: &str) -> Self {
        let name = format!("no-secret-for-{uid}");
        let policy = json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"],
            }]},
            "matchConditions": [{"name": "keyring", "expression": format!("object.metadata.name == '{KEYRING_SECRET}'")}],
            "validations": [{"expression": format!("!has(object.data) || !('{uid}' in object.data)"), "message": "full"}],
        }});
        let binding =
            json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
        let blockade =
            Self { policies: Api::all(bed.client.clone()), bindings: Api::all(bed.client.clone()), name };
        let params = PostParams::default();
        blockade.policies.create(&params, &from_json(policy)).await.expect("a policy can be made");
        blockade.bindings.create(&params, &from_json(binding)).await.expect("a binding can be made");
        blockade.wait(bed, uid, true).await;
        blockade
    }

    async fn lift(self, bed: &Bed, uid: &str) {
        let params = DeleteParams::default();
        self.bindings.delete(&self.name, &params).await.expect("the binding can be deleted");
        self.policies.delete(&self.name, &params).await.expect("the policy can be deleted");
        self.wait(bed, uid, false).await;
    }

    /// The API server learns of its policies a little later: waits until it does as it should.
    async fn wait(&self, bed: &Bed, uid: &str, refused: bool) {
        let entry: Value = json!({"data": {uid: "e30="}});
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let seen = poll(PATIENCE, async || {
            let written = bed.keyring().patch(KEYRING_SECRET, &params, &Patch::Merge(&entry)).await;
            if written.is_err() == refused { Ok(()) } else { Err(written) }
        });
        seen.await.unwrap_or_else(|last| panic!("refused should be {refused}: {last:?}"));
    }
}

/// A secret that is shown once must stand in the keyring before status says that there is a registration.
#[tokio::test(flavor = "multi_thread")]
async fn the_keyring_comes_before_the_status() {
    let options = BedOptions { operator: false, ..BedOptions::default() };
    let mut bed = bed_with("hook-keyring", options).await;
    bed.apply(&manifest("", &EVENTS)).await;
    let uid = bed.webhooks().get("main").await.unwrap().uid().unwrap();
    // Whoever comes first makes it; here nobody has yet, perhaps.
    let empty: Secret = from_json(json!({"metadata": {"name": KEYRING_SECRET}}));
    let _ = bed.keyring().create(&PostParams::default(), &empty).await;
    let blockade = Blockade::raise(&bed, &uid).await;
    bed.start_receiver().await;
    bed.start_controller().await;

    let told = |w: &GeminiWebhook| {
        assert_eq!(w.status.as_ref().and_then(|s| s.id.as_ref()), None, "no id before its secret is stored");
        condition(w, webhook_type::READY).is_some_and(|c| c.message.contains("keyring"))
    };
    bed.wait_webhook("main", "told that the keyring is refused", told).await;
    let ledger = bed.ledger().await;
    assert_eq!(ledger.executed("webhooks.create"), 1, "it was registered");
    assert!(!has_keyring_entry(&bed, &uid).await);

    blockade.lift(&bed, &uid).await;
    let webhook = bed.wait_webhook("main", "ready", is_ready).await;
    assert_eq!(ids(&bed).await, [id_of(&webhook)], "one registration, adopted");
    assert!(has_keyring_entry(&bed, &uid).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_registrations_one_stays() {
    let mut bed = bed_with("hook-several", BedOptions { operator: false, ..BedOptions::default() }).await;
    bed.apply(&manifest("", &EVENTS)).await;
    let webhook = bed.webhooks().get("main").await.unwrap();
    let mut ours = [
        register(&bed, &registration_name(&webhook)).await,
        register(&bed, &registration_name(&webhook)).await,
    ];
    ours.sort();
    let foreign = register(&bed, "gw-somebody-elses").await;
    bed.start_receiver().await;
    bed.start_controller().await;
    let webhook = bed.wait_webhook("main", "ready", is_ready).await;
    assert_eq!(id_of(&webhook), ours[0], "the smallest id");
    let mut left = vec![foreign.clone(), ours[0].clone()];
    left.sort();
    let mut seen = ids(&bed).await;
    seen.sort();
    assert_eq!(seen, left, "the twin is deleted, what is not ours is not");
    assert_eq!(bed.ledger().await.calls("webhooks.create"), 3, "none was made");

    // The id in status is kept, also beside a smaller one.
    bed.kill_controller();
    let twin = register(&bed, &registration_name(&webhook)).await;
    bed.start_controller().await;
    let gone = poll(PATIENCE, async || {
        let ids = ids(&bed).await;
        if ids.contains(&twin) { Err(ids) } else { Ok(ids) }
    });
    let mut seen = gone.await.expect("the twin is deleted");
    seen.sort();
    assert_eq!(seen, left);
    assert!(is_ready(&bed.webhooks().get("main").await.unwrap()), "it was ready all the time");
}

/// The first registration is in no list while it is looked for, so a second one is made; the first shows later.
#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_is_listed_late_is_deleted_when_it_is_seen() {
    let late = json!({"drop": "answer", "list_lag_ms": 5000});
    let faults = json!({"rules": [{"match": {"call": "webhooks.create"}, "do": late, "times": 1}]});
    let bed = bed_with("hook-twin", options(120, faults)).await;
    let webhook = bed.make_webhook().await;
    assert_eq!(bed.ledger().await.executed("webhooks.create"), 2, "the first was not seen in time");
    let two = poll(PATIENCE, async || {
        let ids = ids(&bed).await;
        if ids.len() == 2 { Ok(()) } else { Err(ids) }
    });
    two.await.expect("the twin is listed at last");
    wait_ids(&bed, &[id_of(&webhook)]).await;
    assert!(is_ready(&bed.webhooks().get("main").await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_of_the_same_project_changes_nothing_for_batches() {
    let second = "AIza-second-key-of-the-bed";
    let options = BedOptions {
        job_time: "12s".into(),
        more_api_keys: vec![(second.into(), PROJECT.into())],
        ..BedOptions::default()
    };
    let bed = bed_with("hook-rotated", options).await;
    let webhook = bed.make_webhook().await;
    let first = webhook.status.clone().unwrap().key_fingerprint.expect("it says with which key");
    bed.apply(&tickets("before", 2, "Auto")).await;
    bed.wait_condition("before", "WebhookTracked", "True", "Static").await;

    bed.make_api_key_as("gemini", second).await;
    let followed = |w: &GeminiWebhook| {
        assert!(is_ready(w), "a rotation is no reason not to be ready");
        w.status.as_ref().and_then(|s| s.key_fingerprint.as_deref()).is_some_and(|key| key != first)
    };
    let rotated = bed.wait_webhook("main", "following the key", followed).await;
    assert_eq!(id_of(&rotated), id_of(&webhook));
    bed.apply(&tickets("after", 2, "Auto")).await;
    // Something moves it while it waits: the passes without a look at Gemini compare keys too.
    bed.kubectl().run(&["annotate", "geminibatch", "before", "moved=yes"]).await.expect();
    for name in ["before", "after"] {
        let tracked = |batch: &gemini_operator::api::GeminiBatch| {
            let tracked = batch_condition(batch, "WebhookTracked");
            assert!(tracked.is_none_or(|c| c.status == "True"), "{name}: {tracked:?}");
            batch.is_finished()
        };
        bed.wait_batch(name, "finished", tracked).await;
    }
    let ledger = bed.ledger().await;
    assert_eq!(ledger.calls("webhooks.create"), 1);
    assert_eq!(ledger.deliveries("batch.succeeded").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_project_takes_the_registration_along() {
    let other = "AIza-key-of-another-project";
    let options =
        BedOptions { more_api_keys: vec![(other.into(), "elsewhere".into())], ..BedOptions::default() };
    let mut bed = bed_with("hook-moved", options).await;
    let first = id_of(&bed.make_webhook().await);
    let (here, there) = (bed.options.api_key.clone(), other.to_owned());

    bed.make_api_key_as("gemini", &there).await;
    let moved = |before: String| move |w: &GeminiWebhook| is_ready(w) && id_of(w) != before;
    let second = id_of(&bed.wait_webhook("main", "ready in the other project", moved(first)).await);
    let in_project = async |bed: &Bed, key: &str| bed.emulator.registrations(key).await.len();
    assert_eq!((in_project(&bed, &here).await, in_project(&bed, &there).await), (0, 1));

    // A new process does not know the key that could remove it: then a person must.
    bed.kill_controller();
    bed.make_api_key_as("gemini", &here).await;
    bed.start_controller().await;
    bed.wait_webhook("main", "ready in the first project again", moved(second.clone())).await;
    assert_eq!((in_project(&bed, &here).await, in_project(&bed, &there).await), (1, 1));
    wait_event(&bed, "RegistrationLeft", &second).await;
}

/// Waits for an Event about the webhook that names `word`.
async fn wait_event(bed: &Bed, reason: &str, word: &str) {
    let seen = poll(PATIENCE, async || {
        let events = bed.events("main").await;
        if events.iter().any(|(_, r, note)| r == reason && note.contains(word)) {
            Ok(())
        } else {
            Err(events)
        }
    });
    seen.await.unwrap_or_else(|events| panic!("no Event {reason} with {word}: {events:#?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_url_is_not_ready_before_its_ping_arrives() {
    let slow = json!({"deliveries": [{"match": {"event_type": "ping", "url_contains": "/moved"}, "do": {"delay_ms": 3000}}]});
    let bed = bed_with("hook-url", options(10, slow)).await;
    let before = bed.make_webhook().await;
    bed.apply(&manifest("/moved", &EVENTS)).await;
    let ready = poll(PATIENCE, async || {
        let webhook = bed.webhooks().get("main").await.unwrap();
        let moved =
            webhook.status.as_ref().and_then(|s| s.url.as_deref()).is_some_and(|url| url.contains("/moved"));
        if !(moved && is_ready(&webhook)) {
            return Err(webhook);
        }
        // What is seen as ready now was proven before, or it never is: read after the object.
        let ledger = bed.ledger().await;
        let proven = ledger.deliveries("ping").iter().any(|d| {
            d["outcome"] == "delivered" && d["url"].as_str().is_some_and(|url| url.contains("/moved"))
        });
        assert!(proven, "ready without a ping to the new URL: {:?}", ledger.deliveries("ping"));
        Ok(webhook)
    });
    let after = ready.await.unwrap_or_else(|w| panic!("not ready: {w:#?}"));
    assert_eq!(
        (id_of(&after), &after.status.as_ref().unwrap().path),
        (id_of(&before), &before.status.unwrap().path)
    );

    // A change that Gemini refuses: what is wanted is not what is registered.
    bed.apply(&manifest("/refused", &["batch.cancelled"])).await;
    let refused = wait(&bed, "refused", webhook_type::REGISTERED, "False", "Rejected").await;
    assert!(!is_ready(&refused));
    let message = &condition(&refused, webhook_type::REGISTERED).unwrap().message;
    assert!(message.contains("spec.events"), "{message}");
    assert!(refused.status.unwrap().url.unwrap().contains("/moved"), "the URL that is registered");
    bed.apply(&manifest("/moved", &EVENTS)).await;
    bed.wait_webhook("main", "ready again", is_ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ping_is_seen_and_sent_again() {
    let faults = json!({"deliveries": [{"match": {"event_type": "ping"}, "do": {"lose": true}, "times": 1}]});
    let bed = bed_with("hook-ping", options(20, faults)).await;
    bed.apply(&manifest("", &EVENTS)).await;
    let lost = wait(&bed, "timed out", webhook_type::ENDPOINT_REACHABLE, "False", "PingTimeout").await;
    assert!(!is_ready(&lost));
    bed.wait_webhook("main", "ready by itself", is_ready).await;
    assert_eq!(bed.ledger().await.calls("webhooks.ping"), 2);
}

/// With windows undivided: waiting for a ping that nobody was asked for would take two minutes.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_and_tried_again_soon() {
    let faults = json!({"rules": [
        {"match": {"call": "webhooks.create"}, "do": {"status": 429, "message": "no more of them"}, "times": 1},
        {"match": {"call": "webhooks.ping"}, "do": {"status": 503}, "times": 1},
    ]});
    let bed = bed_with("hook-refused", options(1, faults)).await;
    bed.apply(&manifest("", &EVENTS)).await;
    let told = |w: &GeminiWebhook| {
        [webhook_type::REGISTERED, webhook_type::READY]
            .iter()
            .all(|type_| condition(w, type_).is_some_and(|c| c.message.contains("no more of them")))
    };
    bed.wait_webhook("main", "told what Gemini said", told).await;
    let ready = bed.wait_webhook("main", "ready", is_ready).await;
    assert_eq!(condition(&ready, webhook_type::READY).unwrap().message, "");
    let ledger = bed.ledger().await;
    assert_eq!((ledger.calls("webhooks.create"), ledger.calls("webhooks.ping")), (2, 2));
}
