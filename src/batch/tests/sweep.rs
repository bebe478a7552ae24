//! When the sweep passes, and how far back it looks.

use super::*;
use crate::api::condition::{Is, batch_type, set};
use crate::batch::schedule::{oldest, sweep_due};
use crate::controller::after;

fn submitted(world: &World, tracked: bool) -> GeminiBatch {
    let mut batch = recorded(world, Some("RUNNING"));
    let status = batch.status.as_mut().unwrap();
    let (is, reason) = if tracked { (Is::True, "Static") } else { (Is::False, "WebhookNotReady") };
    set(&mut status.conditions, batch_type::WEBHOOK_TRACKED, is, reason, "m", None, now());
    batch
}

#[test]
fn its_pace_is_that_of_the_webhook() {
    let world = World::new();
    let timing = &world.timing;
    for (tracked, pace, expected) in [
        (true, timing.sweep_tracked, timing.sweep_tracked),
        (true, timing.sweep_bare, timing.sweep_bare),
        (true, timing.sweep_rescuing, timing.sweep_rescuing),
        // A condition of yesterday, or no webhook at all.
        (false, timing.sweep_tracked, timing.sweep_bare),
        (false, timing.sweep_rescuing, timing.sweep_rescuing),
    ] {
        let batch = submitted(&world, tracked);
        let status = batch.status.as_ref().unwrap();
        let env = Env { pace, ..world.at(now()) };
        // Now is a tick of all of them.
        let memory = Memory { swept: Some(now()), ..Memory::default() };
        assert_eq!(sweep_due(status, &memory, &env), Some(after(now(), expected)), "{tracked} {pace:?}");
        let planned = plan(&batch, &Observed::default(), &memory, &env);
        assert_eq!(planned.next, Next::After(expected), "{tracked} {pace:?}");
    }
}

#[test]
fn it_looks_back_to_the_oldest_open_job() {
    let world = World::new();
    let env = world.at(now());
    let batch = submitted(&world, true);
    let status = batch.status.clone().unwrap();
    let before = |seconds: i64| now().checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap();
    // The intent is five seconds old.
    assert_eq!(oldest(&status, None, &env), before(305));
    let adopted = gemini::Batch { create_time: Some(before(3_600)), ..some_job(State::Running) };
    assert_eq!(oldest(&status, Some(&adopted), &env), before(3_900));
    // While a job may turn up that is one too many, all are looked at: it may be of any age.
    let mut second = status.clone();
    second.runs[0].attempt = 2;
    assert_eq!(oldest(&second, None, &env), Timestamp::MIN);
    let later = Env { now: after(now(), world.timing.duplicates_watch), ..env };
    assert_eq!(oldest(&second, None, &later), before(305));
    let due = Memory { swept: Some(before(600)), ..Memory::default() };
    assert_eq!(needs(&batch, &due, &world.at(now())).sweep_from, Some(before(305)));
}
