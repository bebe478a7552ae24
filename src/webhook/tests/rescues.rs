//! A delivery was seen to be lost: when the registration is read because of it.

use proptest::prelude::*;

use super::super::health::rescue_look_at;
use super::health::remote;
use super::*;
use crate::controller::after;
use crate::gemini::WebhookState;

const MINUTE: i64 = 60;

fn listed_at(second: i64) -> Memory {
    Memory { listed: Some(at(second)), ..Memory::default() }
}

#[test]
fn the_registration_is_read_after_each() {
    let world = World::new();
    for (what, rescued, listed, expected) in [
        ("none", None, Some(-10), None),
        ("nothing was read yet, which is done anyway", Some(0), None, None),
        ("the first in a long time", Some(0), Some(-600), Some(0)),
        ("read a moment before", Some(0), Some(-10), Some(50)),
        ("read at that moment", Some(0), Some(0), Some(MINUTE)),
        ("and again, the longer it is so the rarer", Some(0), Some(MINUTE), Some(2 * MINUTE)),
        ("and again", Some(0), Some(2 * MINUTE), Some(4 * MINUTE)),
        ("not beyond its time", Some(0), Some(16 * MINUTE), None),
    ] {
        let env = Env { rescued: rescued.map(at), ..world.at(at(0)) };
        let memory = Memory { listed: listed.map(at), ..Memory::default() };
        assert_eq!(rescue_look_at(&memory, &env), expected.map(at), "{what}");
    }
}

#[test]
fn what_is_read_then_is_acted_on() {
    let world = World::new();
    let (quiet, rescued) = (world.at(at(0)), Env { rescued: Some(at(-1)), ..world.at(at(0)) });
    let memory = listed_at(-600);
    assert!(!needs_listing(&ready(), KEY, &memory, &quiet), "the self-test is far");
    assert!(needs_listing(&ready(), KEY, &memory, &rescued));
    assert!(!needs_listing(&ready(), KEY, &listed_at(0), &rescued), "it was read");

    // It comes back by itself for the next look.
    let planned = plan(&ready(), &usual(), &listed_at(0), &rescued);
    assert_eq!((planned.step, planned.next), (Step::None, Next::After(Duration::from_mins(1))));
    let disabled = remote(|r| r.state = WebhookState::DisabledDueToFailedDeliveries);
    let seen = Observed { remote: Some(disabled), ..listed(&[ID]) };
    assert_eq!(plan(&ready(), &seen, &listed_at(0), &rescued).step, Step::Update { id: ID.into() });
}

proptest! {
    #[test]
    fn many_at_once_cost_one_look_a_minute(seconds in prop::collection::vec(0..3600i64, 1..60)) {
        let world = World::new();
        let (mut seconds, mut memory) = (seconds, listed_at(-600));
        seconds.sort_unstable();
        let mut looks = vec![];
        for now in 0..3 * 3600 {
            let rescued = seconds.iter().rev().find(|second| **second <= now).map(|second| at(*second));
            let env = Env { rescued, ..world.at(at(now)) };
            if rescue_look_at(&memory, &env).is_some_and(|due| due <= env.now) {
                looks.push(at(now));
                memory.listed = Some(at(now));
            }
        }
        for pair in looks.windows(2) {
            prop_assert!(after(pair[0], world.timing.ping_pause) <= pair[1], "{looks:?}");
        }
        for second in &seconds {
            let soon = at(*second)..=at(second + MINUTE);
            prop_assert!(looks.iter().any(|look| soon.contains(look)), "none after {second}: {looks:?}");
        }
        let last = at(seconds.last().copied().unwrap_or_default());
        prop_assert!(looks.last().is_some_and(|look| *look < after(last, world.timing.rescue_memory)));
    }
}
