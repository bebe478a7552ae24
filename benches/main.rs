//! Speed of the receiver beside its peers: `make bench`. All sides of a line run in turns, in one run, on one machine, so
//! that only their ratios are compared; the figures go into docs/benchmarks.md.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/support/mod.rs"]
mod support;

mod acks;
mod load;
mod page;
mod peers;
mod verify;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use support::{Bed, BedOptions};

/// How much of it there is.
pub struct Size {
    /// How long one side runs at a time, and how many rounds there are.
    pub turn: Duration,
    pub rounds: usize,
    /// Batches that are there.
    pub batches: usize,
    /// How long a hint that was stored is no news.
    pub redundant: Duration,
}

const FULL: Size =
    Size { turn: Duration::from_secs(3), rounds: 5, batches: 900, redundant: Duration::from_mins(1) };
/// Shows that all of it works; its figures mean nothing.
const QUICK: Size =
    Size { turn: Duration::from_millis(500), rounds: 1, batches: 20, redundant: Duration::ZERO };

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

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let (Ok(secret), Ok(listen)) = (std::env::var(peers::SECRET), std::env::var(peers::LISTEN)) {
        return runtime.block_on(peers::serve_axum(&listen, &secret));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let page = arguments
        .iter()
        .position(|argument| argument == "--page")
        .map(|at| PathBuf::from(&arguments[at + 1]));
    if arguments.iter().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let size = if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { FULL };
    let lines = runtime.block_on(async {
        let bed = Bed::with("bench", BedOptions { operator: false, ..BedOptions::default() }).await;
        println!("making {} batches", size.batches);
        world::make(&bed, size.batches).await;
        let mut lines = verify::lines(&bed, &size).await;
        lines.extend(acks::lines(&bed, &size).await);
        support::cluster::cluster().await.end().await.expect("the cluster ends");
        lines
    });
    let table = page::table(&lines);
    println!("{table}");
    if let Some(page) = page {
        page::write(&page, &table);
    }
}
