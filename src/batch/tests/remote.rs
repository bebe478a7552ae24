//! The life of a recorded job: when it is looked at, what a listing shows, when it counts as gone.

use super::*;
use crate::api::batch::{LastEvent, Phase};
use crate::api::condition::{Is, batch_type, set};
use crate::batch::files::{Condition, condition};
use crate::batch::gone::{Absence, absence};
use crate::gemini::{File, FileState};

fn tracked(world: &World, state: &str) -> GeminiBatch {
    let mut batch = recorded(world, Some(state));
    let status = batch.status.as_mut().unwrap();
    set(&mut status.conditions, batch_type::WEBHOOK_TRACKED, Is::True, "Static", "m", None, now());
    batch
}

fn listed(state: State) -> Observed {
    Observed { listed: Some(Box::new(some_job(state))), ..Observed::default() }
}

#[test]
fn a_cancellation_is_sent_at_once_and_once() {
    let world = World::new();
    let mut batch = tracked(&world, "RUNNING");
    let asks = |batch: &GeminiBatch, memory: &Memory| needs(batch, memory, &world.at(now())).credentials;
    let fresh = Memory::default();
    assert!(!asks(&batch, &fresh), "nothing to ask before the next sweep");

    batch.spec.cancelled = true;
    assert!(asks(&batch, &fresh), "a request needs a key");
    let seen = Observed { credentials: admitted().credentials, ..Observed::default() };
    let planned = world.plan(&batch, &seen);
    assert_eq!((planned.step, planned.next), (Step::Cancel { remote: "batches/a".into() }, Next::Now));

    let sent = Memory { cancel_sent: true, looked: Some(now()), ..Memory::default() };
    assert!(!asks(&batch, &sent));
    let planned = plan(&batch, &seen, &sent, &world.at(now()));
    assert_eq!((planned.step, planned.next), (Step::None, Next::After(world.timing.cancel_look)));
}

#[test]
fn a_listing_leads_the_state_forward_and_never_back() {
    let world = World::new();
    for (state, seen, shown, phase) in [
        ("PENDING", State::Running, "RUNNING", Phase::Running),
        ("PENDING", State::Pending, "PENDING", Phase::Pending),
        ("PENDING", State::Unknown(String::new()), "PENDING", Phase::Pending),
        // The listing began before the GET that saw it run.
        ("RUNNING", State::Pending, "RUNNING", Phase::Pending),
    ] {
        let planned = world.plan(&recorded(&world, Some(state)), &listed(seen.clone()));
        let status = planned.status;
        assert_eq!(status.runs[0].state.as_deref(), Some(shown), "{state} {seen:?}");
        assert_eq!(status.phase, Some(phase), "{state} {seen:?}");
        assert_eq!(planned.step, Step::None);
    }
}

#[test]
fn a_status_of_another_object_leaves_the_receivers_field() {
    let world = World::new();
    let event = LastEvent {
        id: "msg_1".into(),
        type_: "batch.succeeded".into(),
        remote_name: "batches/a".into(),
        time: None,
        received_time: Time(now()),
    };
    let mut batch = recorded(&world, Some("PENDING"));
    let status = batch.status.as_mut().unwrap();
    status.identity.as_mut().unwrap().uid = "another".into();
    status.last_event = Some(event.clone());
    let planned = world.plan(&batch, &Observed::default());
    assert_eq!(planned.status.identity.unwrap().uid, UID);
    assert_eq!(planned.status.last_event, Some(event));
    assert_eq!(planned.status.submitted_time, None, "nothing else is taken over");
}

#[test]
fn a_job_is_gone_only_when_an_old_enough_listing_says_so() {
    let world = World::new();
    let run = recorded(&world, Some("PENDING")).status.unwrap().runs.remove(0);
    let lag = world.timing.listing_lag;
    let (young, old) = (now(), crate::controller::after(now(), lag));
    for (fingerprint, started, is_listed, expected) in [
        (FINGERPRINT, old, false, Absence::Proven),
        (FINGERPRINT, old, true, Absence::Listed),
        (FINGERPRINT, young, true, Absence::Listed),
        (FINGERPRINT, young, false, Absence::TooYoung),
        ("other", old, false, Absence::OtherKey),
    ] {
        assert_eq!(absence(&run, fingerprint, started, is_listed, lag), expected);
    }
}

/// What the API server gives back is what was written: else it would be written again in each pass.
#[test]
fn the_end_of_a_job_survives_being_stored() {
    let world = World::new();
    let mut seen = job(State::Succeeded);
    if let Some(JobFacts::Found(job)) = &mut seen.job {
        job.end_time = Some("2026-11-25T14:38:30.412345Z".parse().unwrap());
    }
    let mut batch = recorded(&world, Some("RUNNING"));
    let written = world.plan(&batch, &seen).status;
    let stored = serde_json::from_value(serde_json::to_value(&written).unwrap()).unwrap();
    assert_eq!(written, stored);
    batch.status = Some(stored);
    assert_eq!(world.plan(&batch, &seen).status, written, "the next pass has nothing to write");
}

type Damage = fn(&mut File);

#[test]
fn only_what_was_uploaded_is_paid_for() {
    let whole = File {
        name: "files/gb-x".into(),
        display_name: String::new(),
        size_bytes: Some(40),
        sha256: Some("abc".into()),
        state: FileState::Active,
        create_time: None,
        expiration_time: None,
    };
    let with = |change: fn(&mut File)| {
        let mut file = whole.clone();
        change(&mut file);
        condition(&file, 40, "abc")
    };
    assert_eq!(with(|_| {}), Condition::Usable);
    assert_eq!(with(|f| (f.size_bytes, f.sha256) = (None, None)), Condition::Usable);
    assert_eq!(with(|f| f.state = FileState::Unknown("TOMORROW".into())), Condition::Usable);
    assert_eq!(with(|f| f.state = FileState::Processing), Condition::Processing);
    let damages: [(Damage, &str); 4] = [
        (|f| f.size_bytes = Some(39), "39 bytes"),
        (|f| f.sha256 = Some("abd".into()), "abd"),
        (|f| f.state = FileState::Failed, "process"),
        (|f| (f.size_bytes, f.state) = (Some(39), FileState::Processing), "39 bytes"),
    ];
    for (damage, word) in damages {
        let Condition::Damaged(message) = with(damage) else { panic!("{word}: not damaged") };
        assert!(message.contains(word) && message.contains("files/gb-x"), "{message}");
    }
}
