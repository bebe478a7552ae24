//! The neighbour floods the receiver with what is rightly signed: news about his own batches, events of jobs that nobody
//! knows, the same again, and more connections than there are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::task::JoinSet;

use super::{JOBS, Neighbours, TYPES, is_hint, news};
use crate::objects::is_large;
use crate::sender::{Line, Sender, succeeded};
use crate::support::{PATIENCE, poll};

/// Batches of ours.
const OURS: usize = 8;
/// His connections for each kind of flood; the receiver takes 1 024 in all.
const NEWS: usize = 400;
const EARLY: usize = 8;
const AGAIN: usize = 8;
const IDLE: usize = 800;

struct Size {
    /// His batches: how much of what he says is news.
    theirs: usize,
    lasts: Duration,
}

fn size() -> Size {
    if is_large() {
        Size { theirs: 400, lasts: Duration::from_secs(30) }
    } else {
        Size { theirs: 60, lasts: Duration::from_secs(5) }
    }
}

/// What he was answered.
#[derive(Debug, Default)]
struct Tally {
    taken: AtomicUsize,
    later: AtomicUsize,
    early: AtomicUsize,
    again: AtomicUsize,
    idle: AtomicUsize,
    closed: AtomicUsize,
}

fn one_more(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Deliveries one after the other, each with an id of its own, for ever.
async fn flood(
    target: SocketAddr,
    who: Sender,
    name: String,
    event: impl Fn(usize) -> String,
    tally: Arc<Tally>,
    taken: fn(&Tally) -> &AtomicUsize,
) {
    let mut number = 0;
    loop {
        let Ok(mut line) = Line::open(target).await else { continue };
        loop {
            let delivery = who.delivery(&format!("{name}-{number}"), &event(number));
            number += 1;
            match line.exchange(&delivery).await {
                Ok(204) => one_more(taken(&tally)),
                Ok(_) => one_more(&tally.later),
                Err(_) => {
                    one_more(&tally.closed);
                    break;
                }
            }
        }
    }
}

/// One delivery, so that the connection is known, and then nothing until it is closed.
async fn idle(target: SocketAddr, who: Sender, number: usize, tally: Arc<Tally>) {
    loop {
        if let Ok(mut line) = Line::open(target).await {
            let delivery = who.delivery(&format!("idle-{number}"), &succeeded("batches/nobodys"));
            if line.exchange(&delivery).await.is_ok() {
                one_more(&tally.idle);
                // Ends with the connection: the receiver says nothing of its own accord.
                let _ = line.answer().await;
            }
            one_more(&tally.closed);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn intruders(target: SocketAddr, who: &Sender, theirs: usize, tally: &Arc<Tally>) -> JoinSet<()> {
    let mut all = JoinSet::new();
    let next = Arc::new(AtomicUsize::new(0));
    for number in 0..NEWS {
        let next = next.clone();
        let event = move |_| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            news(&format!("theirs-{}", number % theirs), number / theirs)
        };
        all.spawn(flood(target, who.clone(), format!("news-{number}"), event, tally.clone(), |t| &t.taken));
    }
    for number in 0..EARLY {
        let event = move |event| succeeded(&format!("batches/early-{number}-{event}"));
        all.spawn(flood(target, who.clone(), format!("early-{number}"), event, tally.clone(), |t| &t.early));
    }
    for number in 0..AGAIN {
        // Each is remembered by its id.
        let event = |_| r#"{"type":"ping","version":"v1","data":{}}"#.to_owned();
        all.spawn(flood(target, who.clone(), format!("again-{number}"), event, tally.clone(), |t| &t.again));
    }
    for number in 0..IDLE {
        all.spawn(idle(target, who.clone(), number, tally.clone()));
    }
    all
}

/// What an honest sender saw of one of our batches: how long each took, and each that was not accepted at once.
async fn honest(
    both: &Neighbours,
    batch: usize,
    kept: bool,
    lasts: Duration,
) -> (Vec<Duration>, Vec<String>) {
    let (mut times, mut failed, mut line) = (Vec::new(), Vec::new(), None);
    let name = format!("ours-{batch}");
    let begin = Instant::now();
    let mut tick = tokio::time::interval(lasts / u32::try_from(JOBS * TYPES.len()).unwrap());
    for number in 0..JOBS * TYPES.len() {
        tick.tick().await;
        let id = format!("{name}-{number}-{}", begin.elapsed().as_nanos());
        let delivery = both.honest.delivery(&id, &news(&name, number));
        let sent = Instant::now();
        let outcome = async {
            let mut open = match line.take() {
                Some(open) => open,
                None => Line::open(both.replica.listen).await?,
            };
            let status = open.exchange(&delivery).await?;
            Ok::<_, std::io::Error>((status, open))
        };
        match outcome.await {
            Ok((204, open)) => {
                times.push(sent.elapsed());
                line = kept.then_some(open);
                let last = both.last_event(&name).await.map(|event| event.id);
                if last.as_ref() != Some(&id) {
                    failed.push(format!("{id}: accepted, but {last:?} is stored"));
                }
            }
            Ok((status, _)) => failed.push(format!("{id}: {status} after {:?}", sent.elapsed())),
            Err(error) => failed.push(format!("{id}: {error} after {:?}", sent.elapsed())),
        }
    }
    (times, failed)
}

async fn all_honest(both: &Neighbours, lasts: Duration) -> (Vec<Duration>, Vec<String>) {
    let all = futures::stream::iter(0..OURS).map(|batch| honest(both, batch, batch % 2 == 0, lasts));
    let all: Vec<_> = all.buffer_unordered(OURS).collect().await;
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    for (took, lost) in all {
        times.extend(took);
        failed.extend(lost);
    }
    times.sort_unstable();
    (times, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_who_floods_starves_nobody() {
    let size = size();
    let both = Neighbours::new("starve").await;
    for (namespace, who, batches) in [(&both.ours, "ours", OURS), (&both.theirs, "theirs", size.theirs)] {
        let made = futures::stream::iter(0..batches);
        let both = &both;
        let made =
            made.map(|number| async move { both.recorded(namespace, &format!("{who}-{number}")).await });
        made.buffer_unordered(16).collect::<Vec<()>>().await;
    }
    // Whoever knows the last ones knows all of them.
    both.recorded(&both.theirs, "their-last").await;
    both.known(&both.intruder, &both.theirs, "their-last").await;
    both.recorded(&both.ours, "our-last").await;
    both.known(&both.honest, &both.ours, "our-last").await;

    let tally = Arc::new(Tally::default());
    let mut intruders = intruders(both.replica.listen, &both.intruder, size.theirs, &tally);
    // From when all of them are there.
    let there = poll(PATIENCE, async || {
        let idle = tally.idle.load(Ordering::Relaxed);
        if idle >= IDLE && tally.closed.load(Ordering::Relaxed) > 0 { Ok(()) } else { Err(idle) }
    });
    assert_eq!(there.await, Ok(()), "{tally:?}");
    let (times, failed) = all_honest(&both, size.lasts).await;
    intruders.abort_all();
    while intruders.join_next().await.is_some() {}

    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "beside a flood of {:?}: {} accepted and stored, p50 {:?}, p99 {:?}; {tally:?}",
        size.lasts,
        times.len(),
        at(50),
        at(99)
    );
    assert_eq!(failed, [""; 0], "our deliveries that were not accepted, or not stored");
    assert_eq!(times.len(), OURS * JOBS * TYPES.len());
    // He did come, with more of each than there is room for.
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    assert!(count(&tally.taken) > 0 && count(&tally.later) > 0, "{tally:?}");
    assert!(count(&tally.early) > 1_000 && count(&tally.again) > 0, "{tally:?}");
    if let Some(all) = both.bed.audit_up_to_now().await {
        let hints = all.iter().filter(|it| is_hint(it) && it.name.starts_with("ours-") && it.code == 200);
        assert_eq!(hints.count(), times.len(), "one write for each event");
    }
}
