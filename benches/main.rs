//! Speed of the receiver beside its peers: `make bench`. All sides of a line run in turns, in one run, on one machine, so
//! that only their ratios are compared; the figures go into docs/benchmarks.md.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
mod support;

mod acks;
mod cache;
mod list;
mod load;
mod page;
mod peers;
mod raw;
mod verify;
mod world;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use support::{Bed, BedOptions};

/// How much of it there is.
pub struct Size {
    /// How long one side runs at a time, and how many rounds there are.
    pub turn: Duration,
    pub rounds: usize,
    /// Batches that are there for the receiver's writes, and as many again for the bare loop's.
    pub batches: usize,
    /// Verifications of one turn, without a network.
    pub verifications: u32,
    /// Objects in a cache.
    pub cached: [usize; 2],
}

const FULL: Size = Size {
    turn: Duration::from_secs(3),
    rounds: 5,
    batches: 900,
    verifications: 1_000_000,
    cached: [10_000, 50_000],
};
/// Shows that all of it works; its figures mean nothing.
const QUICK: Size = Size {
    turn: Duration::from_millis(300),
    rounds: 1,
    batches: 100,
    verifications: 10_000,
    cached: [200, 1_000],
};

/// One line of the page.
pub struct Line {
    pub bar: &'static str,
    pub what: String,
    pub value: f64,
    /// What it has to be at least, or at most.
    pub wanted: Wanted,
    pub figures: String,
}

#[derive(Clone, Copy)]
pub enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Line {
    pub fn is_met(&self) -> bool {
        match self.wanted {
            Wanted::AtLeast(bar) => self.value >= bar,
            Wanted::AtMost(bar) => self.value <= bar,
        }
    }
}

/// The median of the ratios of rounds that ran one after the other.
pub fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// Says what begins now, and after how long: a whole run takes minutes.
pub fn progress(what: &str) {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    println!("[{:4} s] {what}", BEGIN.get_or_init(Instant::now).elapsed().as_secs());
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let (Ok(secret), Ok(listen)) = (std::env::var(peers::SECRET), std::env::var(peers::LISTEN)) {
        return runtime.block_on(peers::serve_axum(&listen, &secret));
    }
    if let Ok(url) = std::env::var(cache::SERVER) {
        return runtime.block_on(cache::follow_typed(&url));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} wants a value")).clone())
    };
    if arguments.iter().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let size = if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { FULL };
    let only = after("--only");
    let parts = ["raw", "cache", "verify", "acks"];
    assert!(only.as_deref().is_none_or(|only| parts.contains(&only)), "--only wants one of {parts:?}");
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let lines = runtime.block_on(async {
        let mut lines = Vec::new();
        if wanted("verify") || wanted("acks") {
            progress("a control plane");
            let bed = Bed::with("bench", BedOptions { operator: false, ..BedOptions::default() }).await;
            let world = world::make(&bed, size.batches).await;
            if wanted("verify") {
                lines.extend(verify::lines(&bed, &size).await);
            }
            if wanted("acks") {
                lines.extend(acks::lines(&world, &size).await);
            }
        }
        if wanted("raw") {
            lines.extend(raw::lines(&size));
        }
        if wanted("cache") {
            lines.extend(cache::lines(&size).await);
        }
        support::cluster::cluster().await.end().await.expect("the cluster ends");
        progress("done");
        lines
    });
    let table = page::table(&lines);
    println!("{table}");
    match (after("--page"), only) {
        (Some(page), None) => page::write(&PathBuf::from(page), &table),
        (Some(page), Some(only)) => println!("{page} is not written: that was {only} only"),
        (None, _) => {}
    }
}
