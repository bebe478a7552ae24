//! One storm, from its plan to its judgement.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use gemini_operator::api::GeminiBatch;
use gemini_operator_checker::{Bounds, Report};
use kube::Api;
use kube::api::ListParams;

use super::fleet::Fleet;
use super::load;
use super::options::{Options, SMALL};
use super::plan::{Act, CONTROLLERS, Plan, RECEIVERS, windows};
use crate::support::{Bed, BedOptions, PATIENCE, POLL, poll};

const CREATE: &str = "batches.create";
/// A line about how it goes.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// All batches are to be final by then: 15 minutes for a full storm, 4 for a small one.
const LONGEST: Duration = Duration::from_mins(15);
const LONGEST_SMALL: Duration = Duration::from_mins(4);
/// How long a process takes to start on a machine that is not too busy, and how much a slower one may slow the storm down.
const QUICK_START: Duration = Duration::from_millis(500);
const SLOWEST: f64 = 3.0;
/// The sweep has looked so often after the last late execution.
const SWEEPS: usize = 3;

/// What came of it.
pub struct Outcome {
    pub report: Report,
    pub kills: usize,
    pub stops: usize,
    /// Requests for a job in a second, before the first kill.
    pub load: f64,
    /// From the first kill until every batch was final.
    pub took: Duration,
    pub is_over: bool,
    /// What is wrong with results.
    pub wrong: Vec<String>,
    pub right: usize,
    /// Processes that ended by themselves.
    pub fallen: Vec<String>,
    /// How the requests for a job ended, by the fault that met them.
    pub faults: BTreeMap<String, usize>,
    /// Deliveries of events that were lost or doubled.
    pub events: BTreeMap<String, usize>,
}

pub async fn storm(options: &Options) -> Outcome {
    let plan = Plan::new(options);
    let bed = Bed::with(
        "storm",
        BedOptions {
            // As long as a doubt: a job that ends sooner takes its input file along, and with it what a late request needs.
            job_time: format!("{}ms", windows(options.divisor).as_millis()),
            timing_divisor: options.divisor,
            faults: Some(plan.faults.clone()),
            operator: false,
            ..BedOptions::default()
        },
    )
    .await;
    let mut fleet = Fleet::start(&bed, options.fence).await;
    bed.make_api_key().await;
    // Two controllers that register one webhook at the same moment are another story than this one.
    bed.make_webhook().await;
    fleet.join(&bed, [CONTROLLERS[1], RECEIVERS[1]]).await;

    let mut storm = Storm {
        bed: &bed,
        seed: options.seed,
        divisor: options.divisor,
        plan: &plan,
        submitted: 0,
        told: Instant::now(),
    };
    let load = storm.load(&mut fleet).await;
    let began = Instant::now();
    storm.strike(&mut fleet).await;
    let longest = if options.batches <= SMALL.0 { LONGEST_SMALL } else { LONGEST };
    let is_over = storm.finish(&mut fleet, began + longest).await;
    let took = began.elapsed();
    storm.settle(&mut fleet).await;

    println!("judging");
    let bounds = Bounds {
        // A process that was just started knows nothing of what others have seen.
        looks_per_window: 8,
        receivers_lost: std::mem::take(&mut fleet.receivers_lost),
        receivers_stopped: std::mem::take(&mut fleet.receivers_stopped),
        ..bed.bounds()
    };
    let report = bed.check(&bounds).await;
    let (wrong, right) = load::results(&bed, options.seed, &plan.rows).await;
    let ledger = bed.ledger().await;
    let outcome = Outcome {
        report,
        kills: fleet.kills,
        stops: fleet.stops,
        load,
        took,
        is_over,
        wrong,
        right,
        fallen: fleet.fallen,
        faults: count(ledger.entries("requests").iter().filter(|entry| entry["call"] == CREATE)),
        events: count(ledger.entries("deliveries").iter()),
    };
    if !outcome.holds() {
        keep_logs(&bed.dir, options.seed);
    }
    outcome
}

/// Entries of the ledger by the fault that fired.
fn count<'a>(entries: impl Iterator<Item = &'a serde_json::Value>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for fault in entries.filter_map(|entry| entry["fault"].as_str()) {
        *counts.entry(fault.to_owned()).or_default() += 1;
    }
    counts
}

impl Outcome {
    pub fn holds(&self) -> bool {
        self.report.violations.is_empty()
            && (self.report.facts.duplicates, self.report.facts.lost) == (0, 0)
            && self.report.unjudged.is_empty()
            && self.is_over
            && self.wrong.is_empty()
            && self.fallen.is_empty()
    }
}

struct Storm<'a> {
    bed: &'a Bed,
    seed: u64,
    divisor: u32,
    plan: &'a Plan,
    submitted: usize,
    told: Instant,
}

impl Storm<'_> {
    /// The first batches at once, until the first kill; how many requests for a job came in a second by then.
    async fn load(&mut self, fleet: &mut Fleet) -> f64 {
        let began = Instant::now();
        let submitting = self.submit(self.plan.burst);
        while self.bed.emulator.counts().await.counted(CREATE) < self.plan.first_kill {
            assert!(began.elapsed() < PATIENCE, "too few requests came:\n{}", self.bed.log_tails());
            fleet.tend(self.bed);
            self.tell(fleet).await;
            tokio::time::sleep(POLL).await;
        }
        let ledger = self.bed.ledger().await;
        let entries = ledger.entries("requests").iter().chain(ledger.entries("open"));
        let arrivals = entries.filter(|entry| entry["call"] == CREATE && entry["late"] != true);
        let arrivals: Vec<jiff::Timestamp> =
            arrivals.filter_map(|entry| entry["arrived"].as_str()?.parse().ok()).collect();
        let (first, last) = (arrivals.iter().min().copied(), arrivals.iter().max().copied());
        let seconds = first.zip(last).map_or(f64::INFINITY, |(first, last)| {
            last.duration_since(first).as_secs_f64().max(f64::MIN_POSITIVE)
        });
        let load = f64::from(u32::try_from(arrivals.len()).unwrap_or(u32::MAX)) / seconds;
        println!("load: {} requests for a job in {seconds:.1} s, {load:.1} a second", arrivals.len());
        drop(submitting);
        load
    }

    fn submit(&mut self, batches: usize) -> tokio::task::JoinHandle<()> {
        let range = self.submitted..self.submitted + batches;
        self.submitted = range.end;
        let batches = range.map(|number| (number, self.plan.rows[number])).collect();
        tokio::spawn(load::submit(self.bed.batches(), self.seed, batches))
    }

    /// Everything that the plan holds, in its time: that of a machine on which controllers are up and starts are quick. A
    /// slow one would only kill what has done nothing yet.
    async fn strike(&mut self, fleet: &mut Fleet) {
        let pace = fleet.start_time.div_duration_f64(QUICK_START).clamp(1.0, SLOWEST);
        println!(
            "a start takes {:.1} s; the storm takes {pace:.1} times as long as planned",
            fleet.start_time.as_secs_f64()
        );
        let (mut time, mut last) = (Duration::ZERO, Instant::now());
        for (at, act) in &self.plan.acts {
            while time < *at {
                fleet.tend(self.bed);
                self.tell(fleet).await;
                tokio::time::sleep(at.saturating_sub(time).mul_f64(pace).min(POLL / 4)).await;
                let now = Instant::now();
                if fleet.works() {
                    time += (now - last).div_f64(pace);
                }
                last = now;
            }
            match *act {
                Act::Submit(batches) => drop(self.submit(batches)),
                Act::Kill(number) => fleet.kill(self.bed, number),
                Act::Stop(number, lasts) => fleet.stop(number, lasts),
            }
        }
    }

    /// Until every batch is final, or until this moment.
    async fn finish(&mut self, fleet: &mut Fleet, until: Instant) -> bool {
        loop {
            let all_final = final_ones(self.bed.batches()).await == self.plan.rows.len();
            if all_final || Instant::now() >= until {
                return all_final;
            }
            for _ in 0..10 {
                fleet.tend(self.bed);
                tokio::time::sleep(POLL).await;
            }
            self.tell(fleet).await;
        }
    }

    /// Until nothing more can come: what is late was executed, and whoever looks for late jobs has looked.
    async fn settle(&mut self, fleet: &mut Fleet) {
        let windows = windows(self.divisor);
        let bound = PATIENCE + 2 * windows;
        let late = poll(bound, async || {
            fleet.tend(self.bed);
            let counts = self.bed.emulator.counts().await;
            if counts.open(CREATE) == 0 { Ok(counts.counted("batches.list")) } else { Err(()) }
        });
        let listings = late.await.expect("late requests are executed in their time");
        fleet.release();
        // Where no attempt was ever closed, nobody looks: then there is nothing to wait for.
        let _ = poll(windows, async || {
            fleet.tend(self.bed);
            let seen = self.bed.emulator.counts().await.counted("batches.list");
            if seen >= listings + SWEEPS { Ok(()) } else { Err(()) }
        })
        .await;
    }

    async fn tell(&mut self, fleet: &Fleet) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        let counts = self.bed.emulator.counts().await;
        let done = final_ones(self.bed.batches()).await;
        println!(
            "{} batches of {}, {done} final; {} requests, {} jobs; {} kills, {} stops",
            self.submitted,
            self.plan.rows.len(),
            counts.counted(CREATE),
            counts.jobs().len(),
            fleet.kills,
            fleet.stops,
        );
    }
}

async fn final_ones(batches: Api<GeminiBatch>) -> usize {
    let all = batches.list(&ListParams::default()).await;
    all.map_or(0, |all| all.iter().filter(|batch| batch.is_finished()).count())
}

/// What the processes wrote, beside the evidence that the checker keeps.
fn keep_logs(dir: &Path, seed: u64) {
    let to = std::env::var_os("GEMINI_OPERATOR_EVIDENCE")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
        .join(format!("storm-{seed}"));
    let copy = || -> io::Result<()> {
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(dir)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        Ok(())
    };
    match copy() {
        Ok(()) => println!("the logs are kept in {}", to.display()),
        Err(error) => println!("the logs are lost: {}: {error}", to.display()),
    }
}
