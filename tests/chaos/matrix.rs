//! Every crash point, every way to die, one or two controllers, every end of the POST: pairwise, or all of it with
//! `MATRIX=full`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gemini_operator::batch::points;

use crate::run::{Action, Case, Post, run};
use crate::side_by_side::side_by_side;

const SIDES: [&str; 2] = ["before", "after"];
/// Late executions come before the fence and after it by turns: one value of the matrix.
const POSTS: [Post; 6] =
    [Post::Answered, Post::RequestLost, Post::AnswerLost, Post::Unavailable, Post::Truncated, Post::Late];

/// C0 to C12: a submission and its delivery.
fn of_the_protocol() -> impl Iterator<Item = &'static str> {
    points::NAMES.iter().copied().filter(|name| name.starts_with('c'))
}

fn turn(case: Case, turn: usize) -> Case {
    let post = if case.post == Post::Late && turn % 2 == 1 { Post::TooLate } else { case.post };
    Case { post, ..case }
}

/// 13 places, 2 sides, 4 actions, 1 or 2 controllers, 6 ends of the POST: 1 248.
fn full() -> Vec<Case> {
    let mut cases = vec![];
    for place in of_the_protocol() {
        for side in SIDES {
            for action in Action::ALL {
                for controllers in [1, 2] {
                    for post in POSTS {
                        cases.push(turn(Case { place, side, action, controllers, post }, cases.len()));
                    }
                }
            }
        }
    }
    cases
}

/// What has to occur together at least once.
fn pairs(case: &Case) -> Vec<String> {
    let Case { action, controllers, .. } = case;
    let (point, post) = (case.point(), if case.post == Post::TooLate { Post::Late } else { case.post });
    vec![
        format!("{point} {action:?}"),
        format!("{point} {controllers}"),
        format!("{point} {post:?}"),
        format!("{action:?} {controllers}"),
        format!("{action:?} {post:?}"),
        format!("{controllers} {post:?}"),
    ]
}

/// The fewest cases, found greedily, in which every pair occurs.
fn pairwise() -> Vec<Case> {
    let all = full();
    let mut open: BTreeSet<String> = all.iter().flat_map(pairs).collect();
    let mut chosen = vec![];
    while !open.is_empty() {
        let gain = |case: &Case| pairs(case).iter().filter(|pair| open.contains(*pair)).count();
        // The first of the best, so that every run has the same.
        let best = all.iter().rev().max_by_key(|case| gain(case)).copied().expect("there are cases");
        open.retain(|pair| !pairs(&best).contains(pair));
        chosen.push(best);
    }
    chosen
}

/// The places of recovery and deletion, each with an end of the POST that leads there.
fn recovery(actions: &[Action]) -> Vec<Case> {
    let mut cases = vec![];
    for place in points::NAMES.iter().copied().filter(|name| !name.starts_with('c')) {
        let post = match &place[..2] {
            "r3" => Post::AnswerLost,
            "d0" | "d1" => Post::Answered,
            _ => Post::RequestLost,
        };
        for (i, side) in SIDES.into_iter().enumerate() {
            for (j, action) in actions.iter().copied().enumerate() {
                cases.push(Case { place, side, action, controllers: 1 + (i + j) % 2, post });
            }
        }
    }
    cases
}

fn cases() -> Vec<Case> {
    match std::env::var("MATRIX").unwrap_or_default().as_str() {
        "" => [pairwise(), recovery(&[Action::Kill, Action::Stop])].concat(),
        "full" => [full(), recovery(&Action::ALL)].concat(),
        other => panic!("MATRIX={other}: it is `full`, or not given"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_whatever_dies_wherever() {
    let begun = Instant::now();
    let mut times = side_by_side("chaos", cases(), run).await;
    times.sort();
    println!(
        "chaos: {} cases, duplicates 0, lost 0, from the fault to the end of the batch p50 {:.1?}, p99 {:.1?}; {:.0?} in all",
        times.len(),
        percentile(&times, 50),
        percentile(&times, 99),
        begun.elapsed(),
    );
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// A case ends well only if its process has met its point: so a place that no case names was never met.
#[test]
fn every_crash_point_is_met_with_every_action() {
    let cases = [pairwise(), recovery(&[Action::Kill, Action::Stop])].concat();
    for name in points::NAMES.iter().copied() {
        for side in SIDES {
            let met = cases.iter().filter(|case| (case.place, case.side) == (name, side));
            let actions: BTreeSet<Action> = met.map(|case| case.action).collect();
            let wanted = if name.starts_with('c') { 4 } else { 2 };
            assert_eq!(actions.len(), wanted, "{name}.{side}");
        }
    }
}

#[test]
fn the_matrix_is_whole_and_its_selection_holds_all_pairs() {
    assert_eq!(full().len(), 1_248);
    let chosen = pairwise();
    let of = |cases: &[Case]| cases.iter().flat_map(pairs).collect::<BTreeSet<_>>();
    assert_eq!(of(&chosen), of(&full()));
    assert!((120..=180).contains(&chosen.len()), "{} cases", chosen.len());
}
