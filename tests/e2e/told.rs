//! Ends that a delivery tells: how soon the job is looked at, while few deliveries are lost.

use std::time::Duration;

use gemini_operator::submit::Timing;
use jiff::Timestamp;
use serde_json::json;

use crate::rescues::{bed_with, between, end_and_look, numbered, polled, submitted};
use crate::support::emulator::time;
use crate::support::{PATIENCE, poll};
use crate::waiting::{is_full, record};

/// Of 200 deliveries one is lost; of few, none may be: where all are told, the worst is the measure.
fn size() -> (usize, Option<usize>) {
    if is_full() { (200, Some(50)) } else { (12, None) }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_few_deliveries_are_lost_an_end_is_seen_at_once() {
    let (batches, lost) = size();
    // Windows as in production: what is measured here is no window.
    let timing = Timing::production();
    let mut bed = bed_with("told", timing.divisor).await;
    bed.make_webhook().await;
    let names = numbered(batches);
    let remotes = submitted(&bed, &names).await;
    if let Some(lost) = lost {
        let rule = json!({"match": {"batch": remotes[lost]}, "do": {"lose": true}});
        bed.emulator.add_faults(&json!({"deliveries": [rule]})).await;
    }
    // An event has its job looked at once in so long; the look after the submission was one.
    let rested = poll(PATIENCE, async || {
        let ledger = bed.ledger().await;
        let look = ledger.times("batches.get").into_iter().max().unwrap_or(Timestamp::MIN);
        let now = time(&ledger.0["taken"]);
        if between(look, now) > timing.look_spacing { Ok(()) } else { Err(look) }
    });
    rested.await.unwrap_or_else(|look| panic!("looked at all the time, last {look}\n{}", bed.log_tails()));

    let mut pace = tokio::time::interval(Duration::from_millis(130));
    for remote in &remotes {
        pace.tick().await;
        bed.emulator.finish_job(remote).await;
    }
    let told = |number: &usize| Some(*number) != lost;
    for number in (0..batches).filter(told) {
        let batch = bed.wait_complete(&names[number]).await;
        assert!(batch.status.is_some_and(|status| status.last_event.is_some()), "{} was told", names[number]);
    }
    let ledger = bed.ledger().await;
    let mut seen: Vec<Duration> = (0..batches)
        .map(|number| {
            let (ended, look) = end_and_look(&ledger, &remotes[number]);
            // The lost one waits for a sweep, for up to ten minutes: it counts as never seen.
            look.filter(|_| told(&number)).map_or(Duration::MAX, |look| between(ended, look))
        })
        .collect();
    seen.sort_unstable();
    let p99 = seen[(seen.len() * 99).div_ceil(100) - 1];
    let (median, polling) = (seen[seen.len() / 2], polled(&timing));
    let figures = format!(
        "| jobs | not told | median | p99 | p99 of polling | is | at most |\n|---|---|---|---|---|---|---|\n\
         | {batches} | {} | {:.2} s | {:.2} s | {:.1} s | 1/{:.0} | 1/5 |\n",
        usize::from(lost.is_some()),
        median.as_secs_f64(),
        p99.as_secs_f64(),
        polling.as_secs_f64(),
        polling.as_secs_f64() / p99.as_secs_f64(),
    );
    record("told", &figures);
    // The small one shares its machine with other tests.
    assert!(!is_full() || p99 * 5 <= polling, "p99 is {p99:?}: {seen:?}");
    if let Some(lost) = lost {
        // It need not wait for its sweep: one that begins anew sweeps at once.
        bed.kill_controller();
        bed.start_controller().await;
        bed.wait_complete(&names[lost]).await;
    }
    bed.assert_invariants().await;
}
