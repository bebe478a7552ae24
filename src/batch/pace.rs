//! PURE: how often the sweep passes, by the health of the webhook that should tell what the sweep finds.

use std::time::Duration;

use jiff::Timestamp;

use super::memory::Found;
use crate::api::batch::LastEvent;
use crate::controller::after;
use crate::submit::Timing;

/// What is known of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// The condition `Ready`.
    pub ready: bool,
    /// Whether the operator has Gemini ping it. What nobody pings is judged by its deliveries alone.
    pub has_pings: bool,
    /// When the newest ping arrived.
    pub pinged: Option<Timestamp>,
    /// When the newest verified delivery arrived.
    pub delivered: Option<Timestamp>,
    /// `selfTest.interval`.
    pub self_test: Duration,
    /// When the sweep last found an end that no delivery had told.
    pub rescued: Option<Timestamp>,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Deliveries arrive, as far as can be known.
    Healthy,
    /// Nothing shows that they arrive.
    Doubtful,
    /// They were seen not to.
    Losing,
}

/// The health of a webhook; of none it is doubtful that it delivers.
pub fn health(signs: Option<&Signs>, timing: &Timing, now: Timestamp) -> Health {
    let Some(signs) = signs else { return Health::Doubtful };
    // Before anything else: a webhook that is pinged and found ready may lose all the same.
    if signs.rescued.is_some_and(|rescued| now < after(rescued, timing.rescue_memory)) {
        return Health::Losing;
    }
    let pinged = signs.pinged.filter(|_| signs.has_pings);
    let patience = timing.self_test(signs.self_test).saturating_mul(2);
    let is_heard = pinged.max(signs.delivered).is_some_and(|heard| now < after(heard, patience));
    if signs.ready && is_heard { Health::Healthy } else { Health::Doubtful }
}

/// From one sweep to the next.
pub fn interval(health: Health, timing: &Timing) -> Duration {
    match health {
        Health::Healthy => timing.sweep_tracked,
        Health::Doubtful => timing.sweep_bare,
        Health::Losing => timing.sweep_rescuing,
    }
}

/// What is to be thought of an end that a sweep was the first to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its event came, if a little later than the sweep.
    Told,
    /// Its event may still come.
    Wait(Timestamp),
    /// Without the sweep it would not be known by now.
    Rescue,
}

/// However often the sweep passes, a lost delivery is one: a short interval finds an end sooner than its event could be
/// called lost, and with nothing but what is found late, a webhook that loses everything would soon look healthy.
pub fn verdict(found: &Found, event: Option<&LastEvent>, timing: &Timing, now: Timestamp) -> Verdict {
    if event.is_some_and(|event| event.remote_name == found.remote) {
        return Verdict::Told;
    }
    // A clock of Gemini's that is ahead of ours must not put it off for ever.
    let due = after(found.ended.min(found.seen), timing.rescue_after);
    if due <= now { Verdict::Rescue } else { Verdict::Wait(due) }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// Tested a minute ago, never asked to deliver anything.
    fn tested() -> Signs {
        Signs {
            ready: true,
            has_pings: true,
            pinged: Some(at(-60)),
            delivered: None,
            self_test: Duration::from_hours(6),
            rescued: None,
        }
    }

    #[test]
    fn table() {
        let timing = Timing::production();
        let (good, unpinged) = (tested(), Signs { has_pings: false, pinged: None, ..tested() });
        let rescued = |ago: i64| Some(at(-ago));
        let delivered = |ago: i64| Some(at(-ago));
        for (what, signs, expected) in [
            ("none", None, Health::Doubtful),
            ("tested", Some(good), Health::Healthy),
            ("not ready", Some(Signs { ready: false, ..good }), Health::Doubtful),
            ("an old ping", Some(Signs { pinged: Some(at(-12 * HOUR)), ..good }), Health::Doubtful),
            ("nearly so old", Some(Signs { pinged: Some(at(-12 * HOUR + 1)), ..good }), Health::Healthy),
            (
                "an old ping, a young delivery",
                Some(Signs { pinged: Some(at(-20 * HOUR)), delivered: delivered(60), ..good }),
                Health::Healthy,
            ),
            ("of a clock ahead of ours", Some(Signs { pinged: Some(at(5)), ..good }), Health::Healthy),
            ("never heard", Some(Signs { pinged: None, ..good }), Health::Doubtful),
            ("rescued", Some(Signs { rescued: rescued(0), ..good }), Health::Losing),
            (
                "rescued, not ready",
                Some(Signs { rescued: rescued(60), ready: false, ..good }),
                Health::Losing,
            ),
            ("just within its time", Some(Signs { rescued: rescued(1_799), ..good }), Health::Losing),
            ("after it", Some(Signs { rescued: rescued(1_800), ..good }), Health::Healthy),
            (
                "after it, but not heard",
                Some(Signs { rescued: rescued(1_800), pinged: None, ..good }),
                Health::Doubtful,
            ),
            ("without pings, never heard", Some(unpinged), Health::Doubtful),
            ("without pings, heard", Some(Signs { delivered: delivered(HOUR), ..unpinged }), Health::Healthy),
            (
                "without pings, heard long ago",
                Some(Signs { delivered: delivered(12 * HOUR), ..unpinged }),
                Health::Doubtful,
            ),
            (
                "a ping of a time when it had some",
                Some(Signs { pinged: Some(at(-60)), ..unpinged }),
                Health::Doubtful,
            ),
            (
                "without pings, rescued",
                Some(Signs { delivered: delivered(1), rescued: rescued(1), ..unpinged }),
                Health::Losing,
            ),
        ] {
            assert_eq!(health(signs.as_ref(), &timing, at(0)), expected, "{what}");
        }
    }

    #[test]
    fn the_worse_it_is_the_more_often_the_sweep_passes() {
        let timing = Timing::production();
        let seconds = [Health::Healthy, Health::Doubtful, Health::Losing]
            .map(|health| interval(health, &timing).as_secs());
        assert_eq!(seconds, [600, 60, 30]);
    }

    fn found(ended: i64, seen: i64) -> Found {
        Found { remote: "batches/a".into(), ended: at(ended), seen: at(seen), webhook: "uid".into() }
    }

    fn event(remote_name: &str) -> LastEvent {
        LastEvent {
            id: "1".into(),
            type_: "batch.succeeded".into(),
            remote_name: remote_name.into(),
            time: None,
            received_time: Time(at(0)),
        }
    }

    #[test]
    fn an_end_that_nobody_tells_in_two_minutes_was_rescued() {
        let timing = Timing::production();
        let (its, others) = (event("batches/a"), event("batches/b"));
        for (what, found, event, expected) in [
            ("found late", found(-120, 0), None, Verdict::Rescue),
            ("found soon", found(-119, 0), None, Verdict::Wait(at(1))),
            ("found soon, and long ago", found(-200, -190), None, Verdict::Rescue),
            ("told meanwhile", found(-200, 0), Some(&its), Verdict::Told),
            ("another job was told of", found(-200, 0), Some(&others), Verdict::Rescue),
            ("from a clock ahead of ours", found(HOUR, 0), None, Verdict::Wait(at(120))),
        ] {
            assert_eq!(verdict(&found, event, &timing, at(0)), expected, "{what}");
        }
    }

    fn signs() -> impl Strategy<Value = Signs> {
        let time = || proptest::option::of((-20 * HOUR..HOUR).prop_map(at));
        (any::<bool>(), any::<bool>(), time(), time(), 300..100_000u64, time()).prop_map(
            |(ready, has_pings, pinged, delivered, self_test, rescued)| Signs {
                ready,
                has_pings,
                pinged,
                delivered,
                self_test: Duration::from_secs(self_test),
                rescued,
            },
        )
    }

    proptest! {
        #[test]
        fn what_gets_worse_never_makes_the_sweep_rarer(
            signs in signs(), divisor in 1..400u32, later in 0..40 * HOUR,
        ) {
            let timing = Timing::divided(divisor);
            let often = |signs: &Signs, now| interval(health(Some(signs), &timing, now), &timing);
            let is = often(&signs, at(0));
            for worse in [
                Signs { ready: false, ..signs },
                Signs { pinged: None, ..signs },
                Signs { delivered: None, ..signs },
                Signs { has_pings: false, ..signs },
                Signs { rescued: Some(at(0)), ..signs },
            ] {
                prop_assert!(often(&worse, at(0)) <= is, "{worse:?}");
            }
            // Without rescues, time alone makes nothing better.
            let quiet = Signs { rescued: None, ..signs };
            prop_assert!(often(&quiet, at(later)) <= often(&quiet, at(0)));
            // The three intervals have common ticks: one listing serves batches of all of them.
            let millis = |health| interval(health, &timing).as_millis();
            prop_assert!(is >= timing.sweep_rescuing && is <= timing.sweep_tracked);
            if divisor == 1 {
                prop_assert_eq!(millis(Health::Healthy) % millis(Health::Losing), 0);
                prop_assert_eq!(millis(Health::Doubtful) % millis(Health::Losing), 0);
            }
        }

        #[test]
        fn a_wait_ends_in_a_rescue(ended in -HOUR..HOUR, seen in -HOUR..0, divisor in 1..400u32) {
            let (timing, found) = (Timing::divided(divisor), found(ended, seen));
            match verdict(&found, None, &timing, at(0)) {
                Verdict::Wait(until) => {
                    prop_assert!(until > at(0) && until <= after(at(seen), timing.rescue_after));
                    prop_assert_eq!(verdict(&found, None, &timing, until), Verdict::Rescue);
                }
                other => prop_assert_eq!(other, Verdict::Rescue),
            }
        }
    }
}
