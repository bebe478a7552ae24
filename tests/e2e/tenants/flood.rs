//! The neighbour floods the receiver with what is rightly signed: news about his own batches, events of jobs that nobody
//! knows, the same again, and more connections than there are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{JOBS, Neighbours, TYPES, is_hint, news};
use crate::objects::is_large;
use crate::sender::{Line, Sender, succeeded};
use crate::support::{PATIENCE, poll};

/// Batches of ours.
const OURS: usize = 8;
/// How much of it there is. The small one shares its machine with other tests, and its receiver is not optimised.
struct Size {
    /// His batches: how much of what he says is news.
    theirs: usize,
    lasts: Duration,
    /// His connections for each kind of flood. All together are more than the receiver takes.
    news: usize,
    early: usize,
    again: usize,
    idle: usize,
    /// An idle one that was closed comes again after this long.
    pause: Duration,
}

fn size() -> Size {
    if is_large() {
        let (lasts, pause) = (Duration::from_secs(30), Duration::from_millis(200));
        Size { theirs: 400, lasts, news: 400, early: 8, again: 8, idle: 800, pause }
    } else {
        let (lasts, pause) = (Duration::from_secs(5), Duration::from_secs(5));
        Size { theirs: 120, lasts, news: 120, early: 2, again: 2, idle: 900, pause }
    }
}

/// What he was answered.
#[derive(Debug, Default)]
struct Tally {
    news: Count,
    early: Count,
    again: Count,
    idle: AtomicUsize,
    closed: AtomicUsize,
}

/// Deliveries that were taken, and those that were not.
#[derive(Debug, Default)]
struct Count {
    taken: AtomicUsize,
    refused: AtomicUsize,
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
    kind: fn(&Tally) -> &Count,
) {
    let mut number = 0;
    loop {
        let Ok(mut line) = Line::open(target).await else { continue };
        loop {
            let delivery = who.delivery(&format!("{name}-{number}"), &event(number));
            number += 1;
            match line.exchange(&delivery).await {
                Ok(204) => one_more(&kind(&tally).taken),
                Ok(_) => one_more(&kind(&tally).refused),
                Err(_) => {
                    one_more(&tally.closed);
                    break;
                }
            }
        }
    }
}

/// One delivery, so that the connection is known, and then nothing until it is closed.
async fn idle(target: SocketAddr, who: Sender, number: usize, pause: Duration, tally: Arc<Tally>) {
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
        tokio::time::sleep(pause).await;
    }
}

fn intruders(target: SocketAddr, who: &Sender, size: &Size, tally: &Arc<Tally>) -> JoinSet<()> {
    let mut all = JoinSet::new();
    let next = Arc::new(AtomicUsize::new(0));
    for number in 0..size.news {
        let (next, theirs) = (next.clone(), size.theirs);
        let event = move |_| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            news(&format!("theirs-{}", number % theirs), number / theirs)
        };
        all.spawn(flood(target, who.clone(), format!("news-{number}"), event, tally.clone(), |t| &t.news));
    }
    for number in 0..size.early {
        let event = move |event| succeeded(&format!("batches/early-{number}-{event}"));
        all.spawn(flood(target, who.clone(), format!("early-{number}"), event, tally.clone(), |t| &t.early));
    }
    for number in 0..size.again {
        // Each is remembered by its id.
        let event = |_| r#"{"type":"ping","version":"v1","data":{}}"#.to_owned();
        all.spawn(flood(target, who.clone(), format!("again-{number}"), event, tally.clone(), |t| &t.again));
    }
    for number in 0..size.idle {
        all.spawn(idle(target, who.clone(), number, size.pause, tally.clone()));
    }
    all
}

/// What an honest sender saw: how long each took that was accepted at once, and why others were not.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    refused: Vec<String>,
}

/// News about one of our batches. What is refused comes again, with the same id, as Gemini does it.
async fn honest(both: &Neighbours, batch: usize, kept: bool, lasts: Duration) -> Seen {
    let (mut seen, mut line) = (Seen::default(), None);
    let name = format!("ours-{batch}");
    let mut tick = tokio::time::interval(lasts / u32::try_from(JOBS * TYPES.len()).unwrap());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..JOBS * TYPES.len() {
        let (id, event, mut first) = (format!("{name}-{number}"), news(&name, number), true);
        let begin = Instant::now();
        loop {
            tick.tick().await;
            let delivery = both.honest.delivery(&id, &event);
            let sent = Instant::now();
            let outcome = async {
                let mut open = match line.take() {
                    Some(open) => open,
                    None => Line::open(both.replica.listen).await?,
                };
                let status = open.exchange(&delivery).await?;
                Ok::<_, std::io::Error>((status, open))
            };
            let why = match outcome.await {
                Ok((204, open)) => {
                    line = kept.then_some(open);
                    if first {
                        seen.times.push(sent.elapsed());
                    }
                    break;
                }
                Ok((status, _)) => status.to_string(),
                Err(error) => error.to_string(),
            };
            first = false;
            seen.refused.push(format!("{id}: {why} after {:?}", sent.elapsed()));
            assert!(begin.elapsed() < PATIENCE, "{id} is never accepted: {:?}", seen.refused);
        }
        let last = both.last_event(&name).await.map(|event| event.id);
        assert_eq!(last.as_ref(), Some(&id), "accepted, and not stored");
    }
    seen
}

async fn all_honest(both: &Neighbours, lasts: Duration) -> Seen {
    let all = futures::stream::iter(0..OURS).map(|batch| honest(both, batch, batch % 2 == 0, lasts));
    let all: Vec<_> = all.buffer_unordered(OURS).collect().await;
    let mut sum = Seen::default();
    for seen in all {
        sum.times.extend(seen.times);
        sum.refused.extend(seen.refused);
    }
    sum.times.sort_unstable();
    sum
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
    let mut intruders = intruders(both.replica.listen, &both.intruder, &size, &tally);
    // From when all of them are there.
    let there = poll(PATIENCE, async || {
        let idle = tally.idle.load(Ordering::Relaxed);
        if idle >= size.idle && tally.closed.load(Ordering::Relaxed) > 0 { Ok(()) } else { Err(idle) }
    });
    assert_eq!(there.await, Ok(()), "{tally:?}");
    let begin = Instant::now();
    let seen = all_honest(&both, size.lasts).await;
    let took = begin.elapsed();
    intruders.abort_all();
    while intruders.join_next().await.is_some() {}

    let at = |percent: usize| seen.times.get(seen.times.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "beside a flood of {took:.1?}: {} accepted at once and {} attempts refused, p50 {:.1?}, p99 {:.1?}; {tally:?}",
        seen.times.len(),
        seen.refused.len(),
        at(50),
        at(99)
    );
    // He did come, and in the large one with more of each than there is room for.
    let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    for count in [&tally.news, &tally.early, &tally.again].map(|kind| count(&kind.taken)) {
        assert!(count > 0, "{tally:?}");
    }
    if is_large() {
        assert_eq!(seen.refused, [""; 0], "our deliveries that were not accepted at once");
        let early = count(&tally.early.taken) + count(&tally.early.refused);
        assert!(count(&tally.news.refused) > 0 && early > 1_000, "{tally:?}");
    }
    // On a machine that has no time for anybody, he is who comes off worse. In one line for both it would be equal.
    let (ours, theirs) = (seen.refused.len(), count(&tally.news.refused));
    let (all_of_ours, all_of_theirs) = (ours + seen.times.len(), theirs + count(&tally.news.taken));
    assert!(
        2 * ours * all_of_theirs <= theirs * all_of_ours,
        "refused are {ours} of {all_of_ours} of ours, and {theirs} of {all_of_theirs} of theirs: {:?}",
        seen.refused
    );
    if let Some(all) = both.bed.audit_up_to_now().await {
        let hints = all.iter().filter(|it| is_hint(it) && it.name.starts_with("ours-") && it.code == 200);
        assert_eq!(hints.count(), OURS * JOBS * TYPES.len(), "one write for each event");
    }
}
