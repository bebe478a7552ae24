//! Durable answers: the API server has stored the hint before its sender hears so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::load::{Load, Measured, cpu_of, run, summary};
use crate::support::{Bed, Replica};
use crate::{Line, Size, Wanted, median, world};

/// Deliveries, each of which says something new of one of `objects` batches as long as there is something.
fn news(objects: usize, round: usize) -> Arc<Load> {
    // Events that were news less than a minute ago are none now: each round begins where none was for long.
    let begin = round * 11_000;
    let request = move |number: usize| {
        let number = begin + number;
        world::delivery(&format!("msg-{objects}-{number}"), &world::news(number, objects), false)
    };
    Arc::new(Load { wanted: 204, request: Box::new(request) })
}

async fn ours(
    replica: &Replica,
    turn: Duration,
    connections: usize,
    objects: usize,
    round: usize,
) -> Measured {
    run(replica.listen, replica.process.pid(), connections, turn, &news(objects, round)).await
}

/// The bare loop: so many writes under way, and no receiver.
async fn bare(bed: &Bed, turn: Duration, connections: usize, objects: usize) -> Measured {
    let (cpu, begin, next) = (cpu_of(std::process::id()), Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut all = JoinSet::new();
    for _ in 0..connections {
        let (client, namespace, next) = (bed.client.clone(), bed.namespace.clone(), next.clone());
        all.spawn(async move {
            let mut times = Vec::new();
            while begin.elapsed() < turn {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let sent = Instant::now();
                world::patch(&client, &namespace, number % objects, number / objects).await;
                times.push(sent.elapsed());
            }
            times
        });
    }
    let mut times: Vec<_> = all.join_all().await.into_iter().flatten().collect();
    summary(&mut times, begin.elapsed(), cpu_of(std::process::id()).saturating_sub(cpu))
}

pub async fn lines(bed: &Bed, size: &Size) -> Vec<Line> {
    let replica = bed.spawn_replica("stores").await;
    let mut lines = Vec::new();
    let mut round = 0;
    for connections in [1, 16, 64] {
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..size.rounds {
            round += 1;
            mine.push(ours(&replica, size.turn, connections, size.batches, round).await);
            theirs.push(bare(bed, size.turn, connections, size.batches).await);
        }
        let line = |what: &str, ratio: &dyn Fn(&Measured, &Measured) -> f64, wanted, figures: String| Line {
            bar: "P3",
            what: format!("durable answers, {connections} connections: {what}, of the bare loop"),
            value: median(mine.iter().zip(&theirs).map(|(a, b)| ratio(a, b)).collect()),
            wanted,
            figures,
        };
        let (a, b) = (&mine[0], &theirs[0]);
        if connections > 1 {
            let figures = format!("{:.0}/s and {:.0}/s", a.per_second, b.per_second);
            lines.push(line("a second", &|a, b| a.per_second / b.per_second, Wanted::AtLeast(0.9), figures));
        }
        let bar = if connections == 1 { 1.3 } else { 1.15 };
        let figures = format!("{:?} and {:?}", a.p50, b.p50);
        let p50 = |a: &Measured, b: &Measured| a.p50.as_secs_f64() / b.p50.as_secs_f64();
        lines.push(line("p50", &p50, Wanted::AtMost(bar), figures));
        let figures = format!("{:?} and {:?}", a.cpu, b.cpu);
        let cpu = |a: &Measured, b: &Measured| a.cpu.as_secs_f64() / b.cpu.as_secs_f64();
        lines.push(line("own CPU", &cpu, Wanted::AtMost(1.5), figures));
    }
    for (objects, bar) in [(1, 300.0), (10, 10.0), (size.batches, 0.95)] {
        let (mut ratios, mut figures) = (Vec::new(), String::new());
        for _ in 0..size.rounds {
            round += 1;
            let (a, b) = (
                ours(&replica, size.turn, 64, objects, round).await,
                bare(bed, size.turn, 64, objects).await,
            );
            ratios.push(a.per_second / b.per_second);
            figures = format!("{:.0}/s and {:.0}/s", a.per_second, b.per_second);
        }
        lines.push(Line {
            bar: "P4",
            what: format!("64 deliveries under way for {objects} objects, of one write for each"),
            value: median(ratios),
            wanted: Wanted::AtLeast(bar),
            figures,
        });
    }
    lines
}
