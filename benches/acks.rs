//! Durable answers: the API server has stored the hint before its sender hears so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::load::{Load, Measured, cpu_of, run, summary};
use crate::support::Replica;
use crate::world::World;
use crate::{Line, Size, Wanted, median, progress, world};

/// Deliveries, each of which says something new of one of `objects` batches as long as there is something.
fn news(next: Arc<AtomicUsize>, objects: usize) -> Arc<Load> {
    let request = move |_| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        world::delivery(&format!("msg-{objects}-{number}"), &world::news(number, objects), false)
    };
    Arc::new(Load { wanted: 204, request: Box::new(request) })
}

/// The receiver's side: what was measured, and how many writes there were for each answer.
async fn ours(
    replica: &Replica,
    turn: Duration,
    connections: usize,
    objects: usize,
    next: Arc<AtomicUsize>,
) -> (Measured, f64) {
    let (before, begin) = (stored(replica).await, Instant::now());
    let measured = run(replica.listen, replica.process.pid(), connections, turn, &news(next, objects)).await;
    let writes = stored(replica).await - before;
    (measured, writes / (measured.per_second * begin.elapsed().as_secs_f64()))
}

/// What an answer took of writes, and how many had none.
fn costs(writes: f64, refused: usize) -> String {
    let refused = if refused == 0 { String::new() } else { format!("; **{refused} asked to come again**") };
    format!("{writes:.4} writes an answer{refused}")
}

/// Writes to batches that the receiver says it has made.
async fn stored(replica: &Replica) -> f64 {
    const SERIES: &str =
        "gemini_operator_receiver_patch_duration_seconds_count{kind=\"GeminiBatch\",outcome=\"stored\"} ";
    let answer = reqwest::get(format!("http://{}/metrics", replica.admin)).await.expect("metrics are served");
    let text = answer.text().await.expect("metrics are text");
    let count = text.lines().find_map(|line| line.strip_prefix(SERIES));
    count.map_or(0.0, |count| count.parse().expect("a count is a number"))
}

/// The bare loop: so many writes under way, and no receiver.
async fn bare(world: &World<'_>, turn: Duration, connections: usize, objects: usize) -> Measured {
    let (cpu, begin, next) = (cpu_of(std::process::id()), Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut all = JoinSet::new();
    for _ in 0..connections {
        let (client, namespace, next) = (world.bed.client.clone(), world.bare.clone(), next.clone());
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

pub async fn lines(world: &World<'_>, size: &Size) -> Vec<Line> {
    let replica = world.bed.spawn_replica("stores").await;
    let mut lines = Vec::new();
    for connections in [1, 16, 64] {
        let (mut mine, mut theirs, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=size.rounds {
            progress(&format!("P3: {connections} connections, round {round} of {}", size.rounds));
            let (measured, each) =
                ours(&replica, size.turn, connections, size.batches, world.fresh.clone()).await;
            mine.push(measured);
            writes.push(each);
            theirs.push(bare(world, size.turn, connections, size.batches).await);
        }
        let writes = median(writes);
        let line = |what: &str, ratio: &dyn Fn(&Measured, &Measured) -> f64, wanted, figures: String| Line {
            bar: "P3",
            what: format!("durable answers, {connections} connections: {what}, of the bare loop"),
            value: median(mine.iter().zip(&theirs).map(|(a, b)| ratio(a, b)).collect()),
            wanted,
            figures,
        };
        let (a, b) = (&mine[0], &theirs[0]);
        if connections > 1 {
            let costs = costs(writes, mine.iter().map(|one| one.refused).sum());
            let figures = format!("{:.0}/s and {:.0}/s; {costs}", a.per_second, b.per_second);
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
    for (objects, bar) in [(size.batches, 0.95), (10, 10.0), (1, 300.0)] {
        let (mut ratios, mut figures, mut refused) = (Vec::new(), String::new(), 0);
        for round in 1..=size.rounds {
            progress(&format!("P4: {objects} objects, round {round} of {}", size.rounds));
            let (a, writes) = ours(&replica, size.turn, 64, objects, world.fresh.clone()).await;
            let b = bare(world, size.turn, 64, objects).await;
            ratios.push(a.per_second / b.per_second);
            refused += a.refused;
            let costs = costs(writes, refused);
            figures = format!("{:.0}/s and {:.0}/s; {costs}", a.per_second, b.per_second);
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
