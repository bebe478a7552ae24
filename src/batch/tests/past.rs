//! Objects that may have a past which they do not know of: the cluster's data can be restored from a backup that is
//! older than a submission.

use super::super::memory::Memory;
use super::super::observed::{Listed, Observed};
use super::super::plan::{Plan, Step, needs, plan};
use super::*;

/// Ready to be submitted, and created before this process began.
fn older(world: &World) -> GeminiBatch {
    let mut batch = staged(world);
    batch.metadata.creation_timestamp = Some(Time(now() - UPTIME - Duration::from_hours(1)));
    batch
}

fn sight(listing: Option<Vec<submit::Job>>) -> Observed {
    let listing = listing.map(|jobs| Listed { started: now(), jobs });
    Observed { file_usable: Some(true), listing, ..admitted() }
}

fn job(attempt: Option<i32>) -> Vec<submit::Job> {
    vec![submit::Job { name: "batches/a".into(), created: 1, attempt, lost_input: false }]
}

fn looks(world: &World, batch: &GeminiBatch, memory: &Memory) -> bool {
    needs(batch, memory, &world.at(now())).listing_since.is_some()
}

fn is_post(plan: &Plan) -> bool {
    matches!(plan.step, Step::Post { .. })
}

#[test]
fn an_object_older_than_the_process_is_looked_for_before_its_first_attempt() {
    let world = World::new();
    let batch = older(&world);
    assert!(looks(&world, &batch, &Memory::default()));
    let before = world.plan(&batch, &sight(None));
    assert!(!is_post(&before) && before.status.runs.is_empty(), "{before:?}");
    assert!(is_post(&world.plan(&batch, &sight(Some(vec![])))), "there is nothing: it is submitted");
    // Ours or not is for the recovery to say, which reads the input first.
    for attempt in [Some(1), None] {
        let after = world.plan(&batch, &sight(Some(job(attempt))));
        assert_eq!((&after.step, after.status.runs.len()), (&Step::None, 1));
        assert!(super::super::submission::is_restored(&after.status.runs[0]));
    }
}

#[test]
fn the_annotation_stands_before_the_recovery_begins() {
    let world = World::new();
    let mut batch = older(&world);
    batch.metadata.annotations = None;
    let plan = world.plan(&batch, &sight(Some(job(Some(1)))));
    assert!(matches!(plan.step, Step::Claim { .. }) && plan.status.runs.is_empty(), "{plan:?}");
}

#[test]
fn an_attempt_that_went_missing_is_looked_for() {
    let world = World::new();
    let batch = staged(&world);
    assert!(!looks(&world, &batch, &Memory::default()), "known from its beginning");
    assert!(is_post(&world.plan(&batch, &sight(None))));
    let memory = Memory { newest: 1, ..Memory::default() };
    assert!(looks(&world, &batch, &memory));
    let plan = plan(&batch, &sight(None), &memory, &world.at(now()));
    assert!(!is_post(&plan), "{plan:?}");
}

#[test]
fn clocks_may_differ_by_minutes() {
    let world = World::new();
    let mut batch = staged(&world);
    for (after_the_start, looked_for) in [(-60, true), (240, true), (360, false)] {
        let created = now() - UPTIME + jiff::SignedDuration::from_secs(after_the_start);
        batch.metadata.creation_timestamp = Some(Time(created));
        assert_eq!(looks(&world, &batch, &Memory::default()), looked_for, "{after_the_start} s");
    }
}

#[test]
fn what_is_not_to_be_submitted_costs_no_listing() {
    let world = World::new();
    let mut batch = older(&world);
    batch.spec.suspend = true;
    assert!(!looks(&world, &batch, &Memory::default()));
}
