//! `make model`: explores every state that the submission protocol can get into, with the operator's own decisions, and
//! shows that each of its rules is needed by breaking them one by one.
//!
//! ```text
//! gemini-operator-model [--full] [--write FILE]
//! ```
//! `--full` adds the explorations that take minutes and gigabytes; `--write` puts the table into FILE between its markers.
//! Ends with status 1 if a verdict is not the expected one.

// Compiled in as it stands: what is checked is what the operator runs.
#[allow(dead_code, unused_imports)]
#[path = "../../../src/submit/mod.rs"]
mod submit;

mod control;
mod events;
mod protocol;
mod variants;
mod world;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use protocol::Protocol;
use variants::{Expected, Variant};

/// The longest that an exploration may take which is too large to come to its end.
const PATIENCE: Duration = Duration::from_mins(30);
const BEGIN: &str = "<!-- written by `make model FULL=1`: begin -->\n";
const END: &str = "<!-- written by `make model FULL=1`: end -->\n";

/// What an exploration found.
struct Verdict {
    states: usize,
    took: Duration,
    /// The property that does not hold, and what happens on the way there.
    broken: Option<(&'static str, Vec<String>)>,
    exhausted: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|a| a == "--full");
    let file = arguments.iter().position(|a| a == "--write").and_then(|at| arguments.get(at + 1));
    let (mut table, mut wrong) = (header(), 0);
    say(&table);
    for variant in variants::all().into_iter().filter(|variant| full || !variant.full) {
        let verdict = explore(&variant);
        let line = row(&variant, &verdict);
        say(&line);
        table += &line;
        if !is_expected(&variant, &verdict) {
            wrong += 1;
            say(&explain(&variant, &verdict));
        }
    }
    if let Some(file) = file
        && let Err(problem) = put(file, &table)
    {
        say(&format!("{file}: {problem}\n"));
        return ExitCode::FAILURE;
    }
    say(&format!("{wrong} unexpected\n"));
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(words: &str) {
    // Nowhere to say it if stdout is gone.
    let mut out = std::io::stdout();
    let _ = out.write_all(words.as_bytes()).and_then(|()| out.flush());
}

fn explore(variant: &Variant) -> Verdict {
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut checker = variant.protocol.clone().checker().threads(threads);
    checker = checker.finish_when(HasDiscoveries::AnyFailures);
    if let Some(most) = variant.most {
        checker = checker.timeout(PATIENCE).target_state_count(most);
    }
    // Depth first keeps few states waiting; breadth first finds the shortest way to a failure.
    let (states, visits, broken) = match variant.expected {
        Expected::Holds => found(&checker.spawn_dfs().join()),
        Expected::Fails => found(&checker.spawn_bfs().join()),
    };
    let took = started.elapsed();
    let ended_early = variant.most.is_some_and(|most| visits >= most || took >= PATIENCE);
    Verdict { states, took, exhausted: broken.is_none() && !ended_early, broken }
}

/// States, visits of them, and the property that does not hold.
fn found(checker: &impl Checker<Protocol>) -> (usize, usize, Option<(&'static str, Vec<String>)>) {
    let broken = checker.discoveries().into_iter().next().map(|(property, path)| {
        (property, path.into_actions().iter().map(|action| format!("{action:?}")).collect())
    });
    (checker.unique_state_count(), checker.state_count(), broken)
}

fn is_expected(variant: &Variant, verdict: &Verdict) -> bool {
    match variant.expected {
        // How far the largest one gets depends on the machine; the table says it.
        Expected::Holds => verdict.broken.is_none() && (verdict.exhausted || variant.most.is_some()),
        Expected::Fails => verdict.broken.is_some(),
    }
}

fn header() -> String {
    "| what | controllers | states | verdict |\n|---|---:|---:|---|\n".to_owned()
}

fn row(variant: &Variant, verdict: &Verdict) -> String {
    let said = match &verdict.broken {
        Some((property, path)) => format!("**broken** after {} steps: not “{property}”", path.len()),
        None if verdict.exhausted => "holds in every reachable state".to_owned(),
        None => format!("holds in these states ({} min); not exhausted", verdict.took.as_secs().div_ceil(60)),
    };
    format!(
        "| {} | {} | {} | {said} |\n",
        variant.name,
        variant.protocol.controllers,
        thousands(verdict.states)
    )
}

fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(" ")
}

fn explain(variant: &Variant, verdict: &Verdict) -> String {
    let mut words = format!("UNEXPECTED: {}\n", variant.name);
    for step in verdict.broken.iter().flat_map(|(_, path)| path) {
        let _ = writeln!(words, "    {step}");
    }
    words
}

/// Replaces what stands between the markers.
fn put(file: &str, table: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let (before, rest) = text.split_once(BEGIN).ok_or("it has no marker of a beginning")?;
    let (_, after) = rest.split_once(END).ok_or("it has no marker of an end")?;
    std::fs::write(file, format!("{before}{BEGIN}{table}{END}{after}")).map_err(|e| e.to_string())
}
