//! Deliveries by keys that nobody has, as many as go: one call for keys a minute, and honest deliveries pass.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::dynamic::forger::{Forger, KID, rs256};
use crate::dynamic::{bed_with, make_webhook};
use crate::sender::{Line, succeeded};
use crate::support::{BedOptions, RECEIVER};

/// Connections of strangers, and how often each of them delivers: 1 000 a second, where the machine is not busy.
const STRANGERS: u64 = 20;
const EVERY: Duration = Duration::from_millis(20);
const HONEST_EVERY: Duration = Duration::from_millis(40);

fn lasts() -> Duration {
    let full = std::env::var_os("ABUSE").is_some_and(|size| size == "full");
    Duration::from_secs(if full { 30 } else { 6 })
}

/// Sends tokens by keys of ever new names.
async fn unknown(
    target: SocketAddr,
    forger: Forger,
    number: u64,
    refused: Arc<AtomicU64>,
    wrong: Arc<AtomicU64>,
) {
    let (claims, mut sent) = (forger.claims(), 0_u64);
    // The signature is never looked at, and would take longer to make than to refuse.
    let template = rs256("kid", &claims);
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut line = None;
    loop {
        tick.tick().await;
        sent += 1;
        let header = json!({"alg": "RS256", "kid": format!("{number}-{sent}")}).to_string();
        let (_, rest) = template.split_once('.').unwrap();
        let token = format!("{}.{rest}", data_encoding::BASE64URL_NOPAD.encode(header.as_bytes()));
        let delivery = forger.delivery(&token, "m", &succeeded("batches/none"));
        let mut open = match line.take() {
            Some(open) => open,
            None => match Line::open(target).await {
                Ok(open) => open,
                Err(_) => continue,
            },
        };
        if let Ok(status) = open.exchange(&delivery).await {
            (if status == 401 { &refused } else { &wrong }).fetch_add(1, Ordering::Relaxed);
            line = Some(open);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_cause_one_call_a_minute() {
    let options = BedOptions { timing_divisor: 1, ..BedOptions::default() };
    let bed = bed_with("unknown-keys", options).await;
    let webhook = make_webhook(&bed, "DynamicJwt").await;
    let forger = Forger::of(&webhook);
    let document = forger.document().to_string();
    let serving = json!({"rules": [{"match": {"call": "jwks.get"}, "do": {"body": document}}]});
    bed.emulator.set_faults(&serving).await;
    let replica = bed.spawn_replica("plain").await;
    let began = Instant::now();

    let (refused, wrong) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut strangers = JoinSet::new();
    for number in 0..STRANGERS {
        strangers.spawn(unknown(replica.listen, forger.clone(), number, refused.clone(), wrong.clone()));
    }
    let token = rs256(KID, &forger.claims());
    let (mut failed, mut times, lasts) = (Vec::new(), Vec::new(), lasts());
    let mut line = Line::open(replica.listen).await.unwrap();
    let mut tick = tokio::time::interval(HONEST_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while began.elapsed() < lasts {
        tick.tick().await;
        // About jobs that are not ours: each is new, and none is worth a write.
        let body = succeeded(&format!("batches/foreign-{}", times.len()));
        let started = Instant::now();
        match line.exchange(&forger.delivery(&token, "m", &body)).await {
            Ok(204) => times.push(started.elapsed()),
            other => failed.push(format!("{other:?}")),
        }
    }
    strangers.abort_all();
    while strangers.join_next().await.is_some() {}
    let minutes = began.elapsed().as_secs() / 60;
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied();
    let refused = refused.load(Ordering::Relaxed);
    println!("{refused} refused in {lasts:?}; {} honest ones accepted, p99 {p99:?}", times.len());

    assert_eq!(failed, [""; 0], "honest deliveries that were not accepted");
    assert!(!times.is_empty() && refused > 0, "both sides came");
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "answers that strangers should not get");
    let calls = u64::try_from(bed.ledger().await.calls("jwks.get")).unwrap();
    assert!((1..=1 + minutes).contains(&calls), "{calls} calls for keys in {:?}", began.elapsed());
    if let Some(all) = bed.audit_up_to_now().await {
        let by_receivers = all.iter().filter(|request| request.user == RECEIVER && request.is_write());
        // The routine report of the webhook's newest delivery, once a minute.
        let writes = u64::try_from(by_receivers.count()).unwrap();
        assert!(writes <= 1 + minutes, "{writes} writes");
    }
}
