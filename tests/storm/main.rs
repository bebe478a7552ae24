//! A storm: many batches, two controllers without a leader and two receivers that are killed and stopped at random, and a
//! Gemini whose answers are lost, late and wrong. In the end each batch has one paid job and its results.
//!
//! `cargo test --test storm` is a small one; `make storm` the one that `docs/never-pay-twice.md` tells of. Everything that is
//! decided by chance is decided by `--seed`.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod fleet;
mod load;
mod options;
mod plan;
mod random;
mod record;
mod run;

use std::process::{Command, ExitCode};

use options::{Options, Wish};
use run::Outcome;

/// Submissions a second before the first kill that a full storm must have had.
const LEAST_LOAD: f64 = 20.0;

const DOES_NOT_HOLD: u8 = 1;
const USAGE: u8 = 2;
const INVALID: u8 = 3;

fn main() -> ExitCode {
    let options = match options::read(std::env::args().skip(1)) {
        Ok(Wish::Run(options)) => options,
        Ok(Wish::List) => {
            println!("storm: test");
            return ExitCode::SUCCESS;
        }
        Ok(Wish::Nothing) => return ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            return USAGE.into();
        }
    };
    if !options.fence && cfg!(not(feature = "failpoints")) {
        eprintln!("--fence off needs an operator that can be broken: cargo test --features failpoints");
        return USAGE.into();
    }
    println!(
        "storm: seed {}, {} batches, {} kills, windows divided by {}, fence {}; commit {}",
        options.seed,
        options.batches,
        options.kills,
        options.divisor,
        if options.fence { "on" } else { "OFF" },
        commit()
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let outcome = run::storm(&options).await;
        support::cluster::cluster().await.end().await.expect("the cluster ends");
        outcome
    });
    tell(&options, &outcome)
}

/// Prints the judgement, and says by its status what it is.
fn tell(options: &Options, outcome: &Outcome) -> ExitCode {
    let facts = &outcome.report.facts;
    let problems = [&outcome.wrong, &outcome.fallen].into_iter().flatten().cloned();
    let violations = outcome.report.violations.iter().map(ToString::to_string);
    let unjudged = outcome.report.unjudged.iter().map(|what| format!("not judged: {what}"));
    for problem in violations.chain(problems).chain(unjudged) {
        println!("WRONG {problem}");
    }
    let millis = |percent| facts.recovery(percent).map_or(0, |time| time.as_millis());
    let list = |counts: &std::collections::BTreeMap<String, usize>| {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    println!("requests that met a fault: {}", list(&outcome.faults));
    println!("events: {}", list(&outcome.events));
    println!("batches {}", facts.batches);
    println!("submissions {}", facts.submissions);
    println!("ambiguous {}", facts.ambiguous);
    println!("kills {}", outcome.kills);
    println!("stops {}", outcome.stops);
    println!("submissions a second before the first kill {:.1}", outcome.load);
    println!("time to recover p50 {} ms, p99 {} ms", millis(50), millis(99));
    println!("took {:.1} s from the first kill to the last batch", outcome.took.as_secs_f64());
    println!("right results {} of {}", outcome.right, options.batches);
    println!("seed {}", options.seed);
    println!("commit {}", commit());
    println!("violations {}", outcome.report.violations.len());
    println!("duplicates {}", facts.duplicates);
    println!("lost {}", facts.lost);
    if options.is_full() && outcome.load < LEAST_LOAD {
        println!(
            "storm INVALID: {:.1} submissions a second before the first kill; it takes {LEAST_LOAD}",
            outcome.load
        );
        return INVALID.into();
    }
    if let Some(problem) = record(options, outcome) {
        println!("{problem}");
    }
    if outcome.holds() {
        println!("storm ok");
        ExitCode::SUCCESS
    } else {
        let end = if outcome.is_over { "" } else { "; not all batches came to their end" };
        println!("storm FAILED{end}");
        DOES_NOT_HOLD.into()
    }
}

/// A full storm of a certain commit counts, whatever came of it.
fn record(options: &Options, outcome: &Outcome) -> Option<String> {
    let (file, page) = options.record.as_ref()?;
    if !options.is_full() {
        return Some("not recorded: not a full storm".into());
    }
    if commit().contains('+') {
        return Some("not recorded: the tree has changes of no commit".into());
    }
    let facts = &outcome.report.facts;
    let millis = |percent| facts.recovery(percent).map_or(0, |time| time.as_millis());
    let line = record::Line {
        date: jiff::Timestamp::now().strftime("%F").to_string(),
        commit: commit(),
        seed: options.seed,
        batches: facts.batches,
        submissions: facts.submissions,
        ambiguous: facts.ambiguous,
        kills: outcome.kills,
        duplicates: facts.duplicates,
        lost: facts.lost,
        p50: millis(50),
        p99: millis(99),
        load: outcome.load,
    };
    match record::add(file, page, &line) {
        Ok(()) => Some(format!("recorded in {}", file.display())),
        Err(problem) => Some(format!("not recorded: {problem}")),
    }
}

/// `1234567`, or `1234567+` where files differ from that commit, other than those that a storm writes.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(support::tools::root()).args(arguments).output();
        output.ok().filter(|output| output.status.success()).map(|output| output.stdout)
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]).map(text) else { return "unknown+".into() };
    let own = [":!docs/storm.tsv", ":!docs/never-pay-twice.md"];
    let changes = git(&[&["status", "--porcelain", "--", "."], &own[..]].concat()).map(text);
    if changes.is_some_and(|changes| changes.is_empty()) { commit } else { commit + "+" }
}
