//! What a storm decides beforehand, and what is written of it: without a storm.

// Helpers of tests are tests: they end a test by a panic that says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod options;
mod plan;
mod random;
mod record;

use std::time::Duration;

use options::{Options, Wish};
use plan::{Act, Plan, windows};

fn read(arguments: &str) -> Result<Wish, String> {
    options::read(arguments.split_whitespace().map(str::to_owned))
}

fn storm(arguments: &str) -> Options {
    match read(arguments) {
        Ok(Wish::Run(options)) => options,
        other => panic!("{arguments}: {other:?}"),
    }
}

#[test]
fn the_words_of_cargos_test_runner_are_understood() {
    let small = storm("");
    assert_eq!((small.batches, small.kills, small.fence, small.is_full()), (60, 25, true, false));
    assert_eq!(storm("--test-threads 4 --nocapture -q sto"), small);
    assert_eq!(storm("--exact storm --skip other --test-threads=1"), small);
    assert_eq!(read("--list").unwrap(), Wish::List);
    for elsewhere in ["adversity", "--exact stor", "--skip storm", "--ignored", "--list adversity"] {
        assert_eq!(read(elsewhere).unwrap(), Wish::Nothing, "{elsewhere}");
    }
    for wrong in ["--batchs 500", "--batches many", "--fence maybe", "--seed", "--record x", "--batches 1"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_storm_is_full_with_all_its_parts_only() {
    let full = storm("--batches 500 --kills 200 --seed 9 --record a --page b");
    assert!(full.is_full());
    assert_eq!(full.record, Some(("a".into(), "b".into())));
    assert!(!storm("--batches 500 --kills 200 --fence off").is_full());
    assert!(!storm("--batches 500 --kills 199").is_full());
    assert!(!storm("--batches 500 --kills 200 --late 4").is_full());
}

#[test]
fn a_seed_decides_everything() {
    let plan = |seed: u64| Plan::new(&storm(&format!("--batches 500 --kills 200 --seed {seed}")));
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7).acts, plan(8).acts);
    assert_ne!(plan(7).rows, plan(8).rows);
    assert_eq!(plan(7).faults["seed"], 7);
}

#[test]
fn every_storm_has_what_is_promised() {
    for seed in 0..50 {
        let full = format!("--batches 500 --kills 200 --divisor 100 --seed {seed}");
        let plan = Plan::new(&storm(&full));
        let (mut kills, mut batches, mut struck) = ([0; 4], plan.burst, vec![]);
        for (at, act) in &plan.acts {
            match act {
                Act::Submit(more) => batches += more,
                Act::Kill(number) => kills[*number] += 1,
                Act::Stop(number, lasts) => struck.push((*number, *at, *lasts)),
            }
        }
        assert_eq!((batches, kills.iter().sum::<usize>()), (500, 200), "seed {seed}");
        assert!(kills.iter().all(|of_one| *of_one > 25), "seed {seed}: {kills:?}");
        assert!(plan.rows.iter().all(|rows| (1..=3).contains(rows)), "seed {seed}");
        let longer = struck.iter().filter(|(.., lasts)| *lasts >= windows(100)).count();
        assert!(
            struck.len() >= 10 && longer >= 4,
            "seed {seed}: {longer} of {} stops are long",
            struck.len()
        );
        for kind in [plan::CONTROLLERS, plan::RECEIVERS] {
            let of_kind: Vec<_> = struck.iter().filter(|(number, ..)| kind.contains(number)).collect();
            let apart = of_kind.windows(2).all(|pair| pair[0].1 + pair[0].2 < pair[1].1);
            assert!(apart, "seed {seed}: two of a kind are stopped at a time: {of_kind:?}");
        }
    }
}

/// Each rule sees only what those before it left, so the shares in the plan are larger than they count.
#[test]
fn a_quarter_of_all_requests_is_met_by_a_fault() {
    let plan = Plan::new(&storm(""));
    let (mut left, mut late) = (1.0, 0.0);
    for rule in plan.faults["rules"].as_array().unwrap() {
        let share = left * rule["match"]["probability"].as_f64().unwrap();
        left -= share;
        if let Some(range) = rule["do"]["execute_late_ms"].as_array() {
            late += share;
            assert!(Duration::from_millis(range[1].as_u64().unwrap()) <= 2 * windows(300));
        }
    }
    assert!((left - 0.75_f64).abs() < 1e-9, "{left} of all are answered as they should be");
    assert!((late - 0.05_f64).abs() < 1e-9, "{late} are executed late");
}

const ONE: &str = "2026-11-25\t0123456789ab\t7\t500\t612\t151\t200\t0\t0\t2100\t9876\t31.5";

#[test]
fn the_file_of_storms_is_read_as_it_is_written() {
    let dir = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("storm-parts");
    std::fs::create_dir_all(&dir).unwrap();
    let (file, page) = (dir.join("storm.tsv"), dir.join("page.md"));
    let _ = std::fs::remove_file(&file);
    std::fs::write(&page, format!("before\n{}old\n{}\nafter\n", record::BEGIN, record::END)).unwrap();
    let line = record::lines(&format!("{}\n{ONE}\n", record::HEADER)).unwrap().remove(0);
    record::add(&file, &page, &line).unwrap();
    record::add(&file, &page, &line).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n{ONE}\n{ONE}\n", record::HEADER));
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("| 2 | 1 000 | 1 224 | 302 | 400 | 0 | 0 |"), "{page}");
    assert!(page.starts_with("before\n") && page.ends_with("\nafter\n") && !page.contains("old"), "{page}");
}

#[test]
fn a_file_that_was_edited_badly_is_not_summed_up() {
    for wrong in [ONE.to_owned(), format!("{}\n{ONE}\t1", record::HEADER), format!("{}\n1", record::HEADER)] {
        assert!(record::lines(&wrong).is_err(), "{wrong}");
    }
    assert!(record::page("a page without markers", "").is_err());
}
