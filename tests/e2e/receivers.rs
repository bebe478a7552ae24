//! Receivers that come and go, and what changes under them: no restart is needed, and no delivery fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gemini_operator::api::keyring::KEYRING_SECRET;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::objects::{is_large, tickets};
use crate::sender::{Line, Sender, succeeded};
use crate::support::front::Front;
use crate::support::{Bed, BedOptions, OPERATOR_NAMESPACE, PATIENCE, Replica, poll};

/// What changed is to be in force after this long.
const HOT: Duration = Duration::from_secs(2);

/// Waits until a delivery gets this answer, and says if that took too long.
async fn soon(replica: &Replica, sender: &Sender, what: &str, wanted: u16) {
    let begin = Instant::now();
    let seen = poll(PATIENCE, async || {
        let id = format!("{}-{}", what.replace(' ', "-"), begin.elapsed().as_nanos());
        let delivery = sender.delivery(&id, &succeeded("batches/none"));
        let answer = Line::open(replica.listen).await.unwrap().exchange(&delivery).await.unwrap();
        if answer == wanted { Ok(()) } else { Err(answer) }
    });
    let answer = seen.await;
    assert!(answer.is_ok(), "{what}: {answer:?}, not {wanted}");
    assert!(begin.elapsed() <= HOT, "{what}: it took {:?}", begin.elapsed());
}

/// Writes one entry of the keyring.
async fn write_key(bed: &Bed, uid: &str, secret: &str) {
    let entry = json!({"registration": "r", "scheme": "StandardWebhooks", "current": secret}).to_string();
    let patch = json!({"data": {uid: data_encoding::BASE64.encode(entry.as_bytes())}});
    let secrets: Api<Secret> = Api::namespaced(bed.client.clone(), OPERATOR_NAMESPACE);
    secrets.patch(KEYRING_SECRET, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_routes_change_without_a_restart() {
    let mut bed = Bed::with("hot", BedOptions { timing_divisor: 1, ..BedOptions::default() }).await;
    bed.make_api_key().await;
    let webhook = bed.make_webhook().await;
    // From now on what it would write, the test does.
    bed.kill_controller();
    let replica = bed.spawn_replica("plain").await;
    let old = Sender::of(&bed, &webhook).await;
    soon(&replica, &old, "before", 204).await;

    let new = Sender { secret: "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXc=".into(), ..old.clone() };
    write_key(&bed, &webhook.metadata.uid.clone().unwrap(), &new.secret).await;
    soon(&replica, &new, "the new key", 204).await;
    soon(&replica, &old, "the old key", 401).await;

    let second = Sender { path: "/v1/h/abcdefghijklmnopqrstuvwxyz".into(), ..new.clone() };
    soon(&replica, &second, "a route that is not there yet", 401).await;
    let mut twin = serde_json::to_value(&webhook).unwrap();
    twin["metadata"] = json!({"name": "second"});
    bed.apply(&twin.to_string()).await;
    let status = json!({"status": {"path": second.path}});
    let params = PatchParams::default();
    let made: Value = serde_json::to_value(
        bed.webhooks().patch_status("second", &params, &Patch::Merge(&status)).await.unwrap(),
    )
    .unwrap();
    // Its key comes later than its route: nothing can be said about a delivery until then.
    soon(&replica, &second, "a route without a key", 503).await;
    write_key(&bed, made["metadata"]["uid"].as_str().unwrap(), &second.secret).await;
    soon(&replica, &second, "a new route", 204).await;
    bed.kubectl().run(&["delete", "geminiwebhook", "second"]).await.expect();
    soon(&replica, &second, "a deleted route", 401).await;
    soon(&replica, &new, "the first one", 204).await;
}

/// Delivers until it is told to stop, and counts what was accepted; returns what was not.
async fn deliver(
    front: SocketAddr,
    sender: Sender,
    jobs: Vec<String>,
    name: String,
    accepted: Arc<AtomicUsize>,
    stop: watch::Receiver<bool>,
) -> Vec<String> {
    const TYPES: [&str; 4] = ["batch.succeeded", "batch.failed", "batch.expired", "batch.cancelled"];
    let keeps = name.starts_with("kept");
    let (mut failed, mut line) = (Vec::new(), None);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0.. {
        tick.tick().await;
        if *stop.borrow() {
            break;
        }
        // Each says something new for a minute the first time, and has to be stored before it is answered.
        let event = succeeded(&jobs[number % jobs.len()]);
        let event = event.replace(TYPES[0], TYPES[number / jobs.len() % TYPES.len()]);
        let delivery = sender.delivery(&format!("{name}-{number}"), &event);
        let outcome = async {
            let mut open = match line.take() {
                Some(open) => open,
                None => Line::open(front).await?,
            };
            let status = open.exchange(&delivery).await?;
            Ok::<_, std::io::Error>((status, open))
        };
        match outcome.await {
            Ok((204, open)) => {
                accepted.fetch_add(1, Ordering::Relaxed);
                line = (keeps && !open.ends).then_some(open);
            }
            Ok((status, _)) => failed.push(format!("{name}-{number}: {status}")),
            Err(error) => failed.push(format!("{name}-{number}: {error}")),
        }
    }
    failed
}

/// `make load` has 10 000 deliveries of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_delivery() {
    let (batches, wanted) = if is_large() { (30, 10_000) } else { (3, 100) };
    let options = BedOptions { timing_divisor: 1, job_time: "3600s".into(), ..BedOptions::default() };
    let bed = Bed::with("rolling", options).await;
    bed.make_api_key().await;
    let webhook = bed.make_webhook().await;
    let sender = Sender::of(&bed, &webhook).await;
    let names: Vec<String> = (0..batches).map(|number| format!("tickets-{number}")).collect();
    for name in &names {
        bed.apply(&tickets(name, 1, "Auto")).await;
    }
    let mut jobs = Vec::new();
    for name in &names {
        let batch = bed.wait_condition(name, "Submitted", "True", "Submitted").await;
        jobs.push(batch.status.unwrap().runs[0].remote_name.clone().unwrap());
    }
    let mut replicas = vec![bed.spawn_replica("plain-0").await, bed.spawn_replica("plain-1").await];
    let front = Front::open().await;
    front.lead_to(replicas.iter().map(|replica| replica.listen));
    let (stop, stopped) = watch::channel(false);
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for number in 0..3 {
        for kind in ["kept", "fresh"] {
            let (sender, jobs, name) = (sender.clone(), jobs.clone(), format!("{kind}-{number}"));
            senders.spawn(deliver(front.address(), sender, jobs, name, accepted.clone(), stopped.clone()));
        }
    }
    let mut restarts = 0;
    while restarts < 2 || accepted.load(Ordering::Relaxed) < wanted {
        // As a Deployment does: the new one is ready, the old one is told of to nobody any more, and then ends.
        replicas.push(bed.spawn_replica(&format!("plain-{}", restarts + 2)).await);
        let mut old = replicas.remove(0);
        front.lead_to(replicas.iter().map(|replica| replica.listen));
        let status = old.process.terminate(PATIENCE).await;
        assert!(status.success(), "{status}\n{}", old.process.tail(20));
        restarts += 1;
    }
    stop.send_replace(true);
    let failed: Vec<String> = senders.join_all().await.into_iter().flatten().collect();
    println!("{} accepted in {restarts} restarts", accepted.load(Ordering::Relaxed));
    assert_eq!(failed, [""; 0]);
}
