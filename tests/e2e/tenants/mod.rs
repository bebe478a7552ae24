//! Two tenants under one operator, and one of them is hostile: he knows the secret of his own webhook, may write what is
//! in his own namespace, statuses included, and wants his neighbour's batches touched, starved or silenced.

mod flood;

use gemini_operator::api::batch::LastEvent;
use gemini_operator::api::{GeminiBatch, GeminiWebhook};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::sender::{Line, Sender, succeeded};
use crate::support::audit::Request;
use crate::support::cluster::from_json;
use crate::support::{Bed, BedOptions, PATIENCE, RECEIVER, Replica, poll};

/// The signing secret of the intruder's webhook, which is of mode External: he is whoever delivers there.
const SECRET: &str = "whsec_bmVpZ2hib3VyLW5laWdoYm91ci1uZWlnaGJvdXI=";
/// His API key, of a Google project of his own.
const KEY: &str = "AIza-of-the-neighbour";
/// Jobs of each batch that is made by hand, and the types of events: each of one with one is news.
const JOBS: usize = 5;
const TYPES: [&str; 4] = ["batch.succeeded", "batch.failed", "batch.expired", "batch.cancelled"];

/// Both, with a webhook each, and a receiver for both. No controller runs: nothing but the receiver changes a batch.
struct Neighbours {
    bed: Bed,
    /// The namespaces, and who delivers there.
    ours: String,
    honest: Sender,
    theirs: String,
    intruder: Sender,
    replica: Replica,
}

impl Neighbours {
    async fn new(name: &str) -> Self {
        let options = BedOptions {
            operator: false,
            timing_divisor: 1,
            more_api_keys: vec![(KEY.to_owned(), "the-neighbours".to_owned())],
            ..BedOptions::default()
        };
        let mut bed = Bed::with(name, options).await;
        let ours = bed.namespace.clone();
        let theirs = bed.cluster.make_namespace(&bed.client, "neighbour").await;
        bed.options.also_watch = vec![theirs.clone()];
        bed.start_receiver().await;
        bed.start_controller().await;
        // The intruder's is the older one: whatever goes by age is in his favour.
        bed.room.namespace.clone_from(&theirs);
        bed.make_api_key_as("gemini", KEY).await;
        bed.make_secret("signing", "secret", SECRET).await;
        let intruder = ready(&bed, json!({"mode": "External", "signingSecret": {"name": "signing"}})).await;
        bed.room.namespace.clone_from(&ours);
        bed.make_api_key().await;
        let honest = ready(&bed, json!({"mode": "Static"})).await;
        bed.kill_controller();
        let replica = bed.spawn_replica("plain").await;
        Self { bed, ours, honest, theirs, intruder, replica }
    }

    /// A batch whose jobs are recorded, as a controller would have written it.
    async fn recorded(&self, namespace: &str, name: &str) {
        let api: Api<GeminiBatch> = Api::namespaced(self.bed.client.clone(), namespace);
        let batch: GeminiBatch = from_json(json!({
            "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiBatch", "metadata": {"name": name},
            "spec": {
                "apiKeySecretRef": {"name": "gemini"}, "model": "gemini-3.5-flash",
                "input": {"inline": {"requests": [{"key": "a", "prompt": "Summarize ticket #1"}]}},
            },
        }));
        api.create(&PostParams::default(), &batch).await.unwrap();
        self.record(namespace, name, (0..JOBS).map(|number| job(name, number)).collect()).await;
    }

    async fn record(&self, namespace: &str, name: &str, jobs: Vec<String>) {
        let runs: Vec<Value> = (0..)
            .zip(jobs)
            .map(|(number, job): (u32, String)| {
                json!({
                    "name": format!("run-{number}"), "attempt": 1, "submission": "Recorded", "nonce": "n",
                    "holder": "h", "marker": "m", "inputFile": "files/f", "keyFingerprint": "k", "rows": 1,
                    "intentTime": "2026-01-01T00:00:00Z", "remoteName": job,
                })
            })
            .collect();
        let api: Api<GeminiBatch> = Api::namespaced(self.bed.client.clone(), namespace);
        let status = json!({"status": {"runs": runs}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// The answer to one delivery.
    async fn deliver(&self, who: &Sender, id: &str, body: &str) -> u16 {
        deliver_to(&self.replica, who, id, body).await
    }

    /// What stands in our batch.
    async fn last_event(&self, name: &str) -> Option<LastEvent> {
        self.bed.batches().get(name).await.unwrap().status.and_then(|status| status.last_event)
    }

    /// Waits until the receiver knows of this job: by its own sender, who is told nothing but that it is stored.
    async fn known(&self, who: &Sender, namespace: &str, name: &str) {
        let api: Api<GeminiBatch> = Api::namespaced(self.bed.client.clone(), namespace);
        let stored = poll(PATIENCE, async || {
            let id = format!("known-{name}-{}", jiff::Timestamp::now().as_nanosecond());
            assert_eq!(self.deliver(who, &id, &succeeded(&job(name, 0))).await, 204);
            let last = api.get(name).await.unwrap().status.and_then(|status| status.last_event);
            last.ok_or("nothing is stored")
        });
        stored.await.unwrap();
    }
}

/// Whoever delivers to a webhook `main` of this kind.
async fn ready(bed: &Bed, mut spec: Value) -> Sender {
    spec["apiKeySecretRef"] = json!({"name": "gemini"});
    spec["endpoint"] = json!({"url": "https://hooks.test"});
    let webhook = json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiWebhook", "metadata": {"name": "main"}, "spec": spec,
    });
    bed.apply(&webhook.to_string()).await;
    let ready = |webhook: &GeminiWebhook| {
        let conditions = webhook.status.as_ref().map_or(&[][..], |status| &status.conditions);
        gemini_operator::api::condition::is_true(conditions, "Ready")
    };
    Sender::of(bed, &bed.wait_webhook("main", "Ready", ready).await).await
}

async fn deliver_to(replica: &Replica, who: &Sender, id: &str, body: &str) -> u16 {
    let mut line = Line::open(replica.listen).await.unwrap();
    line.exchange(&who.delivery(id, body)).await.unwrap()
}

/// The name of a job of a batch that is made by hand.
fn job(batch: &str, number: usize) -> String {
    format!("batches/{batch}-{number}")
}

/// The event number `number` about a batch: each is news, until they come round again.
fn news(batch: &str, number: usize) -> String {
    let event = succeeded(&job(batch, number / TYPES.len() % JOBS));
    event.replace(TYPES[0], TYPES[number % TYPES.len()])
}

/// Whether it is a write of a receiver to a batch.
fn is_hint(request: &Request) -> bool {
    request.user == RECEIVER && request.is_write() && request.resource.starts_with("geminibatches")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_neither_touches_nor_silences_a_batch() {
    let both = Neighbours::new("touch").await;
    both.recorded(&both.ours, "victim").await;
    both.recorded(&both.theirs, "intruding").await;
    both.known(&both.intruder, &both.theirs, "intruding").await;

    // Hints about our jobs, rightly signed with his secret: foreign, and answered so. On our path they are forged.
    let on_our_path = Sender { path: both.honest.path.clone(), ..both.intruder.clone() };
    for number in 0..JOBS * TYPES.len() {
        assert_eq!(
            both.deliver(&both.intruder, &format!("hint-{number}"), &news("victim", number)).await,
            204
        );
        assert_eq!(both.deliver(&on_our_path, &format!("hint-{number}"), &news("victim", number)).await, 401);
    }
    assert_eq!(both.last_event("victim").await, None);
    if let Some(all) = both.bed.audit_up_to_now().await {
        assert_eq!(all.iter().filter(|request| is_hint(request)).count(), 0, "writes to our batches");
    }

    // The ids that our deliveries will have, remembered as his: each is of news about his own batch.
    for number in 0..4 {
        let id = format!("msg-{number}");
        assert_eq!(both.deliver(&both.intruder, &id, &news("intruding", number + 4)).await, 204);
    }
    for number in 0..4 {
        let id = format!("msg-{number}");
        assert_eq!(both.deliver(&both.honest, &id, &news("victim", number)).await, 204);
        assert_eq!(both.last_event("victim").await.unwrap().id, id, "it is stored, though its id was used");
    }

    // Before the job is recorded: his word is kept, and says nothing when the batch is there.
    for (id, who, type_) in [("his", &both.intruder, TYPES[1]), ("ours", &both.honest, TYPES[0])] {
        let event = succeeded("batches/tomorrow").replace(TYPES[0], type_);
        assert_eq!(both.deliver(who, id, &event).await, 204);
        assert_eq!(both.deliver(&both.intruder, "his-again", &event).await, 204);
    }
    both.record(&both.ours, "victim", vec!["batches/tomorrow".to_owned()]).await;
    let seen = poll(PATIENCE, async || {
        let id = both.last_event("victim").await.unwrap().id;
        if id == "ours" { Ok(()) } else { Err(id) }
    });
    assert_eq!(seen.await, Ok(()), "what came early is applied");
    early_are_settled(&both.replica, 3).await;
    assert_eq!(both.last_event("victim").await.unwrap().id, "ours");
}

/// Waits until so many events that came early were applied, or found to be foreign.
async fn early_are_settled(replica: &Replica, wanted: u64) {
    let seen = poll(PATIENCE, async || {
        let metrics = reqwest::get(format!("http://{}/metrics", replica.admin)).await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let count = |outcome: &str| {
            let series = format!("gemini_operator_receiver_early_events_total{{outcome=\"{outcome}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let settled = count("applied") + count("foreign");
        if settled >= wanted { Ok(()) } else { Err(metrics.clone()) }
    });
    if let Err(metrics) = seen.await {
        panic!("early events are not settled:\n{metrics}");
    }
}

/// He writes our path into the status of his own webhook, which is older than ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_copied_path_takes_nobodys_route() {
    let both = Neighbours::new("copied").await;
    both.recorded(&both.ours, "victim").await;
    both.recorded(&both.theirs, "intruding").await;
    both.known(&both.honest, &both.ours, "victim").await;
    both.known(&both.intruder, &both.theirs, "intruding").await;
    let webhooks: Api<GeminiWebhook> = Api::namespaced(both.bed.client.clone(), &both.theirs);
    let copy = json!({"status": {"path": both.honest.path}});
    webhooks.patch_status("main", &PatchParams::default(), &Patch::Merge(&copy)).await.unwrap();
    let moved = poll(PATIENCE, async || {
        match both.deliver(&both.intruder, "moved", &succeeded("batches/nobodys")).await {
            401 => Ok(()),
            status => Err(status),
        }
    });
    assert_eq!(moved.await, Ok(()), "the receiver has seen the copy");

    let copied = Sender { path: both.honest.path.clone(), ..both.intruder.clone() };
    // One who was there before, and one who finds both of them.
    let second = both.bed.spawn_replica("later").await;
    for (which, replica) in [&both.replica, &second].into_iter().enumerate() {
        for number in 0..4 {
            let (id, number) = (format!("ours-{which}-{number}"), 4 * (which + 1) + number);
            assert_eq!(deliver_to(replica, &both.honest, &id, &news("victim", number)).await, 204);
            assert_eq!(both.last_event("victim").await.unwrap().id, id);
            // What he sends there is his, whatever it speaks of.
            deliver_to(replica, &copied, &id, &news("victim", number + 1)).await;
            assert_eq!(both.last_event("victim").await.unwrap().id, id);
        }
        let forged = Sender { secret: "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(), ..copied.clone() };
        assert_eq!(deliver_to(replica, &forged, "forged", &news("victim", 0)).await, 401);
    }
}
