//! A controller that stops between its intent and its request for longer than all windows, while another one gives its
//! attempt up, proves it dead and makes the next: when it goes on, its request can do nothing any more.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::run::{
    BATCH, ROWS, assert_answers, create, delete, hit, nothing_left, one_job_each, room, start, terminate,
};
use crate::support::emulator::Ledger;
use crate::support::process::Process;
use crate::support::{Bed, PATIENCE, poll};

/// `submit_gate`: a process does not send on what it has read longer ago. Nothing divides it.
const GATE: Duration = Duration::from_secs(20);

/// The fence claims that it stands, and deletes nothing.
const NO_FENCE: (&str, &str) = ("GEMINI_OPERATOR_BREAK", "fence");

struct Zombie {
    bed: Bed,
    first: Process,
    second: Process,
    /// When the first one stopped.
    since: Instant,
}

/// A bed in which the first controller has stopped itself at `point`, and the second has finished its batch.
async fn stopped_and_overtaken(point: &str, env_of_second: &[(&str, &str)]) -> Zombie {
    let bed = room("zombie", json!({})).await;
    let armed = format!("{point}=stop");
    let first = start(&bed, "first", Some(&armed)).await;
    create(&bed, BATCH, ROWS).await;
    hit(&first, &armed).await;
    let since = Instant::now();
    let (second, _) = bed.spawn_controller("second", env_of_second).await;
    let batch = bed.wait_complete(BATCH).await;
    assert_eq!(batch.status.unwrap().runs[0].attempt, 2, "the first attempt was given up on");
    assert_eq!(bed.ledger().await.calls("batches.create"), 1, "the second one's");
    Zombie { bed, first, second, since }
}

/// The zombie does its work, alone, and ends in good order, with everything that it had begun; what all requests for a job
/// were answered with.
async fn in_good_health(bed: Bed, mut first: Process, mut second: Process) -> Vec<Option<u64>> {
    terminate(&mut second).await;
    assert_answers(&bed, BATCH, ROWS).await;
    create(&bed, "after", 1).await;
    bed.wait_complete("after").await;
    for name in [BATCH, "after"] {
        delete(&bed, name).await;
        bed.wait_gone(bed.batches(), name).await;
    }
    nothing_left(&bed).await;
    terminate(&mut first).await;
    one_job_each(&bed, 2, ROWS + 1).await;
    creates(&bed.ledger().await)
}

/// What the requests for a job were answered with, in order.
fn creates(ledger: &Ledger) -> Vec<Option<u64>> {
    let all = ledger.entries("requests").iter().filter(|request| request["call"] == "batches.create");
    all.map(|request| request["status"].as_u64()).collect()
}

/// It is past all its own questions, and the request leaves. Gemini refuses it, as its input file is gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_request_of_a_stopped_controller_is_refused_by_gemini() {
    let Zombie { bed, first, second, .. } = stopped_and_overtaken("c6-post.before", &[]).await;
    first.signal("CONT");
    let seen = poll(PATIENCE, async || match creates(&bed.ledger().await) {
        both if both.len() == 2 => Ok(both),
        other => Err(other),
    });
    assert_eq!(seen.await, Ok(vec![Some(200), Some(403)]), "the second one's, then the zombie's");
    let all = in_good_health(bed, first, second).await;
    assert_eq!(all, [Some(200), Some(403), Some(200)], "and one for the batch after it");
}

/// The same without the fence, by a switch that only this build has: then it is paid twice, and the bed sees it.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_the_same_is_paid_twice() {
    let Zombie { bed, first, .. } = stopped_and_overtaken("c6-post.before", &[NO_FENCE]).await;
    first.signal("CONT");
    let seen = poll(PATIENCE, async || match bed.ledger().await.jobs().len() {
        2 => Ok(()),
        other => Err(other),
    });
    seen.await.expect("both requests make a job");
}

/// It has not asked itself yet, and has been away for too long: nothing leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_was_stopped_for_too_long_does_not_send() {
    let Zombie { bed, first, second, since } = stopped_and_overtaken("c5-gate.before", &[]).await;
    // The pause itself is the fault.
    tokio::time::sleep((GATE + Duration::from_secs(1)).saturating_sub(since.elapsed())).await;
    first.signal("CONT");
    let all = in_good_health(bed, first, second).await;
    assert_eq!(all, [Some(200), Some(200)], "one for each batch, none of the zombie's");
}
