use proptest::prelude::*;

use super::*;

fn attempt(state: AttemptState) -> Attempt {
    Attempt {
        n: 2,
        state,
        in_flight: false,
        restored: false,
        same_key: true,
        proof: None,
        listings: 0,
        pause: Duration::ZERO,
    }
}

fn seen() -> Seen {
    Seen {
        listing: None,
        approved: None,
        wish: Wish::Go,
        ambiguity: Ambiguity::ResubmitAfterProof,
        history: History::Known,
        lost_input: false,
    }
}

/// A listing that began so long after the intent or the proof.
fn listed(after: Duration, jobs: &[(&str, i128, Option<i32>)]) -> Seen {
    let job = |(name, created, attempt): &(&str, i128, Option<i32>)| Job {
        name: (*name).to_owned(),
        created: *created,
        attempt: *attempt,
        lost_input: false,
    };
    let listing = Listing { after, spaced: true, jobs: jobs.iter().map(job).collect() };
    Seen { listing: Some(listing), ..seen() }
}

fn quarantine(seen: Seen) -> Seen {
    Seen { ambiguity: Ambiguity::Quarantine, ..seen }
}

fn stop(seen: Seen) -> Seen {
    Seen { wish: Wish::Stop, ..seen }
}

fn unknown_history(seen: Seen) -> Seen {
    Seen { history: History::Unknown, ..seen }
}

/// The same, with jobs of ours that failed for want of their input, and did nothing.
fn without_input(seen: Seen) -> Seen {
    let lose = |job| Job { lost_input: true, ..job };
    let listing =
        seen.listing.map(|listing| Listing { jobs: listing.jobs.into_iter().map(lose).collect(), ..listing });
    Seen { listing, ..seen }
}

fn close_together(seen: Seen) -> Seen {
    let listing = seen.listing.map(|listing| Listing { spaced: false, ..listing });
    Seen { listing, ..seen }
}

#[test]
fn table() {
    use AttemptState::{Abandoned, Fenced, Pending, Quarantined, Recorded};
    let t = Timing::production();
    let (at_once, early, late) = (Duration::ZERO, t.first_look, t.listing_lag);
    let a = attempt;
    let proven = Attempt { proof: Some(Proof { same_key: true }), listings: 2, ..a(Fenced) };
    let counted = Attempt { listings: 2, ..a(Pending) };
    let minute = Duration::from_mins(1);
    let wait = Step::Wait(t.listing_spacing);
    let unlisted = listed(late, &[]);
    let cases: Vec<(&str, Option<Attempt>, Seen, Step)> = vec![
        ("nothing yet", None, seen(), Step::Intend { n: 1 }),
        ("nothing yet, suspended", None, Seen { wish: Wish::Hold, ..seen() }, Step::Rest),
        ("nothing yet, cancelled", None, stop(seen()), Step::Rest),
        // Older than the process: the cluster's data may be a backup from before an attempt.
        ("no attempt known, not listed", None, unknown_history(seen()), wait.clone()),
        (
            "no attempt known, nothing there",
            None,
            unknown_history(listed(at_once, &[])),
            Step::Intend { n: 1 },
        ),
        (
            "no attempt known, and yet a job",
            None,
            unknown_history(listed(at_once, &[("batches/a", 1, Some(1))])),
            Step::Restore,
        ),
        (
            "no attempt known, and yet a job with our K",
            None,
            unknown_history(listed(at_once, &[("batches/a", 1, None)])),
            Step::Restore,
        ),
        (
            "no attempt known, suspended",
            None,
            unknown_history(Seen { wish: Wish::Hold, ..seen() }),
            Step::Rest,
        ),
        ("recorded", Some(a(Recorded)), unlisted.clone(), Step::Done),
        (
            "recorded, but without its input",
            Some(a(Recorded)),
            Seen { lost_input: true, ..seen() },
            Step::Close,
        ),
        (
            "recorded, but without its input, cancelled",
            Some(a(Recorded)),
            stop(Seen { lost_input: true, ..seen() }),
            Step::Close,
        ),
        ("being sent", Some(Attempt { in_flight: true, ..a(Pending) }), unlisted.clone(), wait.clone()),
        // The first look.
        ("in doubt, not listed", Some(a(Pending)), seen(), wait.clone()),
        ("in doubt, nothing there", Some(a(Pending)), listed(at_once, &[]), Step::Count),
        ("looked twice in a second", Some(a(Pending)), close_together(listed(at_once, &[])), wait.clone()),
        ("in doubt for long", Some(a(Pending)), listed(early, &[]), Step::Fence),
        (
            "… with another key in hand",
            Some(Attempt { same_key: false, ..a(Pending) }),
            unlisted.clone(),
            Step::Fence,
        ),
        ("in doubt, cancelled", Some(a(Pending)), stop(seen()), Step::Fence),
        (
            "in doubt, suspended",
            Some(a(Pending)),
            Seen { wish: Wish::Hold, ..listed(early, &[]) },
            Step::Fence,
        ),
        // Restored: only the annotation is left.
        ("restored, not listed", Some(Attempt { restored: true, ..a(Pending) }), stop(seen()), wait.clone()),
        ("restored", Some(Attempt { restored: true, ..a(Pending) }), listed(at_once, &[]), Step::Fence),
        (
            "restored, another key",
            Some(Attempt { restored: true, same_key: false, ..a(Pending) }),
            unlisted.clone(),
            Step::Unproven,
        ),
        // The fence.
        ("not proven yet", Some(a(Fenced)), unlisted.clone(), Step::Prove),
        ("could not be proven", Some(Attempt { pause: minute, ..a(Fenced) }), seen(), Step::Wait(minute)),
        (
            "proven by another key",
            Some(Attempt { proof: Some(Proof { same_key: false }), ..proven.clone() }),
            unlisted.clone(),
            Step::Prove,
        ),
        ("proven, not listed", Some(proven.clone()), seen(), wait.clone()),
        ("proven, too young", Some(proven.clone()), listed(late.saturating_sub(minute), &[]), Step::Count),
        ("proven, too few", Some(Attempt { listings: 1, ..proven.clone() }), unlisted.clone(), Step::Count),
        ("proven, looked twice", Some(proven.clone()), close_together(unlisted.clone()), wait.clone()),
        ("proven, long enough", Some(proven.clone()), unlisted.clone(), Step::Close),
        ("the same, cancelled", Some(proven.clone()), stop(unlisted.clone()), Step::Close),
        // A person decides.
        ("to be asked, early", Some(counted.clone()), quarantine(listed(early, &[])), Step::Count),
        ("to be asked", Some(counted.clone()), quarantine(unlisted.clone()), Step::Quarantine),
        (
            "to be asked, another key",
            Some(Attempt { same_key: false, ..counted }),
            quarantine(unlisted.clone()),
            Step::Unproven,
        ),
        ("asked", Some(a(Quarantined)), quarantine(unlisted.clone()), Step::Wait(t.sweep_tracked)),
        ("approved", Some(a(Quarantined)), quarantine(Seen { approved: Some(2), ..seen() }), Step::Fence),
        (
            "another one was approved",
            Some(a(Quarantined)),
            quarantine(Seen { approved: Some(1), ..seen() }),
            Step::Wait(t.sweep_tracked),
        ),
        ("asked, then set to go on by itself", Some(a(Quarantined)), seen(), Step::Fence),
        ("asked, cancelled", Some(a(Quarantined)), quarantine(stop(seen())), Step::Fence),
        // Over.
        ("refused just now", Some(Attempt { pause: minute, ..a(Abandoned) }), seen(), Step::Wait(minute)),
        ("refused, not looked", Some(a(Abandoned)), seen(), wait),
        ("refused", Some(a(Abandoned)), listed(at_once, &[]), Step::Intend { n: 3 }),
        (
            "closed, only its job without input is there",
            Some(a(Abandoned)),
            without_input(listed(at_once, &[("batches/a", 1, Some(2))])),
            Step::Intend { n: 3 },
        ),
        ("refused, cancelled", Some(Attempt { pause: minute, ..a(Abandoned) }), stop(seen()), Step::Rest),
        ("refused, suspended", Some(a(Abandoned)), Seen { wish: Wish::Hold, ..seen() }, Step::Rest),
    ];
    for (what, attempt, seen, expected) in cases {
        assert_eq!(step(attempt.as_ref(), &seen, &t), expected, "{what}");
    }
}

#[test]
fn a_job_that_shows_is_adopted_the_oldest_first() {
    let t = Timing::production();
    let jobs = [
        ("batches/c", 5, Some(2)),
        ("batches/b", 5, Some(1)),
        ("batches/z", 9, Some(2)),
        ("batches/x", 0, None),
    ];
    for state in
        [AttemptState::Pending, AttemptState::Fenced, AttemptState::Quarantined, AttemptState::Abandoned]
    {
        for seen in [listed(Duration::ZERO, &jobs), stop(listed(t.listing_lag, &jobs))] {
            let adopted = step(Some(&attempt(state)), &seen, &t);
            assert_eq!(adopted, Step::Adopt { name: "batches/b".into() }, "{state:?}");
        }
        let foreign = listed(t.listing_lag, &jobs[3..]);
        assert_eq!(
            step(Some(&attempt(state)), &foreign, &t),
            Step::Foreign { name: "batches/x".into() },
            "{state:?}"
        );
    }
}

#[test]
fn a_job_without_input_is_as_good_as_none() {
    let t = Timing::production();
    let jobs = [("batches/a", 1, Some(2)), ("batches/b", 2, Some(1))];
    let proof = Some(Proof { same_key: true });
    for state in
        [AttemptState::Pending, AttemptState::Fenced, AttemptState::Quarantined, AttemptState::Abandoned]
    {
        for after in [Duration::ZERO, t.first_look, t.listing_lag] {
            let attempt = Attempt { proof, listings: 2, ..attempt(state) };
            let there = without_input(listed(after, &jobs));
            assert_eq!(
                step(Some(&attempt), &there, &t),
                step(Some(&attempt), &listed(after, &[]), &t),
                "{state:?}"
            );
            let mut among = there;
            let listing = among.listing.as_mut().unwrap();
            listing.jobs.push(Job {
                name: "batches/c".into(),
                created: 3,
                attempt: Some(2),
                lost_input: false,
            });
            assert_eq!(
                step(Some(&attempt), &among, &t),
                Step::Adopt { name: "batches/c".into() },
                "{state:?}"
            );
        }
    }
}

#[test]
fn a_fence_is_proven_by_what_was_seen() {
    use Deletion::{Deleted, NotListed};
    let own = attempt(AttemptState::Fenced);
    let other = Attempt { same_key: false, ..own.clone() };
    let restored = |attempt: &Attempt| Attempt { restored: true, ..attempt.clone() };
    for (what, attempt, deletion, expected) in [
        ("deleted", own.clone(), Deleted, true),
        ("not listed", own.clone(), NotListed, true),
        ("deleted with another key: it was there", other.clone(), Deleted, true),
        ("another key does not list it", other.clone(), NotListed, false),
        ("restored, none listed", restored(&own), NotListed, true),
        ("restored, another key", restored(&other), NotListed, false),
        ("restored, another key deleted one", restored(&other), Deleted, false),
    ] {
        assert_eq!(proves(&attempt, deletion), expected, "{what}");
    }
}

#[test]
fn what_is_recorded_is_no_duplicate() {
    let job = |name: &str, attempt| Job { name: name.into(), created: 0, attempt, lost_input: false };
    let jobs = [
        job("batches/a", Some(1)),
        job("batches/b", Some(2)),
        job("batches/c", Some(2)),
        job("batches/x", None),
        Job { lost_input: true, ..job("batches/unpaid", Some(1)) },
    ];
    assert_eq!(duplicates(&jobs, &["batches/b"]), ["batches/a", "batches/c"]);
    assert_eq!(duplicates(&jobs, &["batches/a", "batches/b", "batches/c"]), [""; 0]);
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let state = prop_oneof![
        Just(AttemptState::Pending),
        Just(AttemptState::Fenced),
        Just(AttemptState::Recorded),
        Just(AttemptState::Abandoned),
        Just(AttemptState::Quarantined),
    ];
    let proof = proptest::option::of(any::<bool>().prop_map(|same_key| Proof { same_key }));
    (state, any::<[bool; 3]>(), proof, 0u32..6, 0u64..2, 1..50).prop_map(
        |(state, [in_flight, restored, same_key], proof, listings, pause, n)| Attempt {
            n,
            state,
            in_flight,
            restored,
            same_key,
            proof,
            listings,
            pause: Duration::from_secs(pause),
        },
    )
}

fn any_sight() -> impl Strategy<Value = Seen> {
    let jobs = proptest::collection::vec((0i128..9, proptest::option::of(1..50), any::<bool>()), 0..3)
        .prop_map(|jobs| {
            jobs.into_iter()
                .map(|(created, attempt, lost_input)| Job {
                    name: format!("batches/{created}"),
                    created,
                    attempt,
                    lost_input,
                })
                .collect()
        });
    let listing = (0u64..2000, any::<bool>(), jobs).prop_map(|(after, spaced, jobs)| Listing {
        after: Duration::from_secs(after),
        spaced,
        jobs,
    });
    let wish = prop_oneof![Just(Wish::Go), Just(Wish::Hold), Just(Wish::Stop)];
    let ambiguity = prop_oneof![Just(Ambiguity::ResubmitAfterProof), Just(Ambiguity::Quarantine)];
    let history = prop_oneof![Just(History::Known), Just(History::Unknown)];
    (proptest::option::of(listing), proptest::option::of(1..50), wish, ambiguity, history, any::<bool>())
        .prop_map(|(listing, approved, wish, ambiguity, history, lost_input)| Seen {
            listing,
            approved,
            wish,
            ambiguity,
            history,
            lost_input,
        })
}

proptest! {
    /// What may follow what, whatever was seen.
    #[test]
    fn each_step_has_its_ground(attempt in any_attempt(), seen in any_sight()) {
        let t = Timing::production();
        let shows = seen.listing.as_ref().is_some_and(|l| l.jobs.iter().any(|job| job.attempt.is_none() || !job.lost_input));
        match step(Some(&attempt), &seen, &t) {
            Step::Intend { n } => {
                prop_assert_eq!((attempt.state, n), (AttemptState::Abandoned, attempt.n + 1));
                prop_assert!(seen.wish == Wish::Go && attempt.pause.is_zero());
                prop_assert!(seen.listing.is_some() && !shows, "a listing without a job came before");
            }
            Step::Close if attempt.state == AttemptState::Recorded => prop_assert!(seen.lost_input),
            Step::Close => {
                let listing = seen.listing.as_ref().unwrap();
                prop_assert_eq!((attempt.state, attempt.proof), (AttemptState::Fenced, Some(Proof { same_key: true })));
                prop_assert!(!shows && listing.spaced && listing.after >= t.listing_lag);
                prop_assert!(attempt.listings + 1 >= t.listings_required);
            }
            Step::Fence => prop_assert!(matches!(attempt.state, AttemptState::Pending | AttemptState::Quarantined)),
            Step::Prove => prop_assert_eq!(attempt.state, AttemptState::Fenced),
            Step::Rest => prop_assert!(attempt.state == AttemptState::Abandoned && seen.wish != Wish::Go),
            Step::Done => prop_assert!(attempt.state == AttemptState::Recorded && !seen.lost_input),
            Step::Adopt { .. } | Step::Foreign { .. } => prop_assert!(shows),
            Step::Quarantine => prop_assert_eq!(seen.ambiguity, Ambiguity::Quarantine),
            Step::Restore => prop_assert!(false, "there is an attempt"),
            Step::Wait(_) | Step::Count | Step::Unproven => {}
        }
        if attempt.in_flight && attempt.state == AttemptState::Pending {
            prop_assert_eq!(step(Some(&attempt), &seen, &t), Step::Wait(t.listing_spacing));
        }
    }
}
