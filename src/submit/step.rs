//! The protocol's one decision: given the attempt and what was seen, what is the next step?
//!
//! `None → Intend → (POST) → Recorded`, with a doubt on the way leading through complete listings either to
//! `Adopt` or, when the window has passed, to `Quarantine`: a person decides, nothing is paid twice.

use std::time::Duration;

use super::timing::Timing;

/// Where the newest attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    Pending,
    Recorded,
    Abandoned,
    Quarantined,
}

/// The newest attempt, as the status holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number; numbers only grow.
    pub n: i32,
    pub state: AttemptState,
    /// This very process is sending its request now.
    pub in_flight: bool,
    /// Since the intent was written, not rounded up.
    pub age: Duration,
    /// Complete listings counted so far without a match.
    pub listings: u32,
    /// How long to wait after a refusal before the next attempt.
    pub pause: Duration,
}

/// What was seen of Gemini in this pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A complete listing that began after the intent was written, if one was made.
    pub listing: Option<Vec<Job>>,
    /// A person has approved, by annotation, to go on after this attempt number.
    pub approved: Option<i32>,
    /// The input file of the attempt was proven gone, so its request can do nothing any more.
    pub fenced: bool,
}

/// A job that carries our K.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// `batches/…`
    pub name: String,
    /// Nanoseconds since the epoch, by Gemini's clock.
    pub created: i128,
    /// The tag proves that it is ours, made by this attempt number.
    pub attempt: Option<i32>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the intent of attempt `n`, then POST.
    Intend { n: i32 },
    /// Look again after this time at the latest; nothing to do until then.
    Wait(Duration),
    /// Record this job as the attempt's.
    Adopt { name: String },
    /// A job carries our K with a tag that is not ours: stop.
    Foreign { name: String },
    /// A complete listing without a match: count it, look again after this time.
    Count(Duration),
    /// The window has passed and nothing was found.
    Quarantine,
    /// A person has approved another attempt: prove first that the old one is dead.
    Fence { n: i32 },
    /// The approved fence holds: close the attempt, so that the next one can be made.
    Close { n: i32 },
    /// The job's name is recorded; submission is over.
    Done,
}

/// Total over its inputs; without an attempt the first one is intended.
pub fn step(attempt: Option<&Attempt>, seen: &Seen, timing: &Timing) -> Step {
    let Some(attempt) = attempt else { return Step::Intend { n: 1 } };
    match attempt.state {
        AttemptState::Recorded => Step::Done,
        AttemptState::Abandoned if attempt.age < attempt.pause => {
            Step::Wait(attempt.pause.saturating_sub(attempt.age))
        }
        AttemptState::Abandoned => Step::Intend { n: attempt.n.saturating_add(1) },
        // The poster itself will tell; should it die, its memory of being in flight dies with it.
        AttemptState::Pending if attempt.in_flight => Step::Wait(timing.listing_spacing),
        AttemptState::Pending | AttemptState::Quarantined => in_doubt(attempt, seen, timing),
    }
}

fn in_doubt(attempt: &Attempt, seen: &Seen, timing: &Timing) -> Step {
    let quarantined = attempt.state == AttemptState::Quarantined;
    if let Some(jobs) = &seen.listing {
        let ours = jobs.iter().filter(|job| job.attempt == Some(attempt.n));
        if let Some(job) = ours.min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name))) {
            return Step::Adopt { name: job.name.clone() };
        }
        if let Some(job) = jobs.iter().find(|job| job.attempt.is_none()) {
            return Step::Foreign { name: job.name.clone() };
        }
    }
    if quarantined && seen.approved == Some(attempt.n) {
        return if seen.fenced { Step::Close { n: attempt.n } } else { Step::Fence { n: attempt.n } };
    }
    let spacing = if quarantined { timing.sweep_tracked } else { timing.listing_spacing };
    if seen.listing.is_none() || quarantined {
        return Step::Wait(spacing);
    }
    let counted = attempt.listings.saturating_add(1);
    if counted >= timing.listings_required && attempt.age >= timing.listing_lag {
        return Step::Quarantine;
    }
    Step::Count(spacing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attempt(state: AttemptState) -> Attempt {
        Attempt {
            n: 2,
            state,
            in_flight: false,
            age: Duration::ZERO,
            listings: 0,
            pause: Duration::from_mins(1),
        }
    }

    fn listed(jobs: &[(&str, i128, Option<i32>)]) -> Seen {
        let jobs = jobs
            .iter()
            .map(|(name, created, attempt)| Job {
                name: (*name).into(),
                created: *created,
                attempt: *attempt,
            })
            .collect();
        Seen { listing: Some(jobs), ..Seen::default() }
    }

    #[test]
    fn table() {
        let t = Timing::production();
        let pending = attempt(AttemptState::Pending);
        let old = Attempt { age: t.listing_lag, listings: 2, ..pending.clone() };
        let quarantined = attempt(AttemptState::Quarantined);
        let abandoned = attempt(AttemptState::Abandoned);
        let rested = Attempt { age: abandoned.pause, ..abandoned.clone() };
        let none = Seen::default();
        let empty = listed(&[]);
        let approved = Seen { approved: Some(2), ..Seen::default() };
        let cases = [
            ("nothing yet", None, &none, Step::Intend { n: 1 }),
            ("recorded", Some(attempt(AttemptState::Recorded)), &empty, Step::Done),
            ("refused just now", Some(abandoned), &none, Step::Wait(Duration::from_mins(1))),
            ("refused, pause over", Some(rested), &none, Step::Intend { n: 3 }),
            (
                "being sent",
                Some(Attempt { in_flight: true, ..pending.clone() }),
                &empty,
                Step::Wait(t.listing_spacing),
            ),
            ("in doubt, not listed", Some(pending.clone()), &none, Step::Wait(t.listing_spacing)),
            ("in doubt, nothing found", Some(pending.clone()), &empty, Step::Count(t.listing_spacing)),
            ("in doubt for long", Some(old.clone()), &empty, Step::Quarantine),
            (
                "too few listings",
                Some(Attempt { listings: 1, ..old.clone() }),
                &empty,
                Step::Count(t.listing_spacing),
            ),
            (
                "too young",
                Some(Attempt { age: Duration::from_secs(1), ..old.clone() }),
                &empty,
                Step::Count(t.listing_spacing),
            ),
            ("quarantined", Some(quarantined.clone()), &empty, Step::Wait(t.sweep_tracked)),
            ("approved", Some(quarantined.clone()), &approved, Step::Fence { n: 2 }),
            ("approval without quarantine", Some(pending), &approved, Step::Wait(t.listing_spacing)),
        ];
        for (what, attempt, seen, expected) in cases {
            assert_eq!(step(attempt.as_ref(), seen, &t), expected, "{what}");
        }
        let fenced = Seen { fenced: true, ..approved };
        assert_eq!(step(Some(&quarantined), &fenced, &t), Step::Close { n: 2 });
    }

    #[test]
    fn adopts_the_oldest_job_of_this_attempt() {
        let t = Timing::production();
        let seen = listed(&[
            ("batches/c", 5, Some(2)),
            ("batches/b", 5, Some(2)),
            ("batches/z", 1, Some(1)),
            ("batches/x", 0, None),
        ]);
        for state in [AttemptState::Pending, AttemptState::Quarantined] {
            assert_eq!(
                step(Some(&attempt(state)), &seen, &t),
                Step::Adopt { name: "batches/b".into() },
                "{state:?}"
            );
        }
        let foreign = listed(&[("batches/x", 0, None)]);
        assert_eq!(
            step(Some(&attempt(AttemptState::Pending)), &foreign, &t),
            Step::Foreign { name: "batches/x".into() }
        );
    }

    fn any_state() -> impl Strategy<Value = AttemptState> {
        prop_oneof![
            Just(AttemptState::Pending),
            Just(AttemptState::Recorded),
            Just(AttemptState::Abandoned),
            Just(AttemptState::Quarantined),
        ]
    }

    proptest! {
        /// A doubt never leads to another POST without a person's word and a fence.
        #[test]
        fn no_intent_out_of_doubt(
            state in any_state(), n in 1..50, in_flight: bool, age in 0u64..10_000, listings in 0u32..10,
            found in proptest::option::of(proptest::collection::vec((0i128..9, proptest::option::of(1..50)), 0..4)),
            approved in proptest::option::of(1..50), fenced: bool,
        ) {
            let t = Timing::production();
            let a = Attempt { n, state, in_flight, age: Duration::from_secs(age), listings, pause: t.attempt_pause };
            let listing = found.map(|jobs| {
                jobs.into_iter().map(|(created, attempt)| Job { name: format!("batches/{created}"), created, attempt }).collect()
            });
            match step(Some(&a), &Seen { listing, approved, fenced }, &t) {
                Step::Intend { n: next } => {
                    prop_assert_eq!(state, AttemptState::Abandoned);
                    prop_assert_eq!(next, n + 1);
                }
                Step::Close { .. } | Step::Fence { .. } => {
                    prop_assert_eq!((state, approved), (AttemptState::Quarantined, Some(n)));
                }
                _ => {}
            }
        }
    }
}
