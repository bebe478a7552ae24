//! Verify and answer: forged deliveries, and such that are known already. Nothing is written.

use std::collections::HashMap;
use std::sync::Arc;

use crate::load::{Load, Measured, pin, run};
use crate::support::Bed;
use crate::{Line, Size, Wanted, median, peers, progress, world};

fn forged() -> Arc<Load> {
    let request = world::delivery("msg_forged", &world::news(0, 1), true);
    Arc::new(Load { wanted: 401, request: Box::new(move |_| request.clone()) })
}

fn forged_in_hex() -> Arc<Load> {
    let request = world::forged_in_hex(&world::news(0, 1));
    Arc::new(Load { wanted: 401, request: Box::new(move |_| request.clone()) })
}

/// The first one is stored; all others are known.
fn known() -> Arc<Load> {
    let request = world::delivery("msg_known", &world::news(0, 1), false);
    Arc::new(Load { wanted: 204, request: Box::new(move |_| request.clone()) })
}

pub async fn lines(bed: &Bed, size: &Size) -> Vec<Line> {
    let ours = bed.spawn_replica("measured").await;
    let axum = peers::axum(&bed.dir, world::SECRET).await;
    let standard = peers::uvicorn(&bed.dir, world::SECRET, "standard", ["uvloop", "httptools"]).await;
    let tutorial = peers::uvicorn(&bed.dir, world::SECRET, "tutorial", ["asyncio", "h11"]).await;
    let sides = [
        ("ours", ours.listen, ours.process.pid()),
        ("axum", axum.address, axum.process.pid()),
        ("standard", standard.address, standard.process.pid()),
        ("tutorial", tutorial.address, tutorial.process.pid()),
    ];
    // The server has one core and the load the other. What else runs is asked to do nothing meanwhile.
    pin(std::process::id(), "1");
    for (_, _, pid) in &sides {
        pin(*pid, "0");
    }

    let mut lines = Vec::new();
    let mut per_forged: Vec<f64> = Vec::new();
    for connections in [16, 64] {
        let mut measured: HashMap<(&str, bool), Vec<Measured>> = HashMap::new();
        for round in 1..=size.rounds {
            progress(&format!("P1, P2: {connections} connections, round {round} of {}", size.rounds));
            for (name, address, pid) in sides {
                let load = if name == "tutorial" { forged_in_hex() } else { forged() };
                let figures = run(address, pid, connections, size.turn, &load).await;
                measured.entry((name, true)).or_default().push(figures);
                if name != "tutorial" {
                    let figures = run(address, pid, connections, size.turn, &known()).await;
                    measured.entry((name, false)).or_default().push(figures);
                }
            }
        }
        let compare = |peer: &'static str, forged: bool, bar: f64| {
            let kind = if forged { "forged" } else { "known" };
            let (ours, theirs) = (&measured[&("ours", forged)], &measured[&(peer, forged)]);
            let pairs = || ours.iter().zip(theirs);
            let rate = |all: &[Measured]| median(all.iter().map(|one| one.per_second).collect());
            let cpu = median(pairs().map(|(a, b)| a.cpu.as_secs_f64() / b.cpu.as_secs_f64()).collect());
            Line {
                bar: "P1",
                what: format!("{kind}, {connections} connections: requests a second, of {peer}"),
                value: median(pairs().map(|(a, b)| a.per_second / b.per_second).collect()),
                wanted: Wanted::AtLeast(bar),
                figures: format!("{:.0}/s and {:.0}/s; CPU × {cpu:.2}", rate(ours), rate(theirs)),
            }
        };
        for kind in [true, false] {
            lines.push(compare("axum", kind, 0.8));
            lines.push(compare("standard", kind, 16.0));
            let (ours, theirs) = (&measured[&("ours", kind)], &measured[&("axum", kind)]);
            let ratios = ours.iter().zip(theirs).map(|(a, b)| a.p99.as_secs_f64() / b.p99.as_secs_f64());
            lines.push(Line {
                bar: "P1",
                what: format!(
                    "{}, {connections} connections: p99, of axum",
                    if kind { "forged" } else { "known" }
                ),
                value: median(ratios.collect()),
                wanted: Wanted::AtMost(1.3),
                figures: format!("{:?} and {:?}", ours[0].p99, theirs[0].p99),
            });
        }
        lines.push(compare("tutorial", true, 30.0));
        let (refused, taken) = (&measured[&("ours", true)], &measured[&("ours", false)]);
        per_forged.extend(refused.iter().zip(taken).map(|(a, b)| a.cpu.as_secs_f64() / b.cpu.as_secs_f64()));
    }
    lines.push(Line {
        bar: "P2",
        what: "CPU for refusing a forged delivery, of one that is known".into(),
        value: median(per_forged),
        wanted: Wanted::AtMost(1.0),
        figures: String::new(),
    });
    pin(std::process::id(), "0,1");
    lines
}
