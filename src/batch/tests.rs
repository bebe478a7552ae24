//! `plan` as a table, and its two properties: the end is absorbing, and planning twice without a change plans nothing.

mod deliver;
mod doubt;
mod past;
mod remote;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;
use proptest::prelude::*;
use serde_json::json;

use super::memory::Memory;
use super::observed::{
    InputFacts, InputProblem, JobFacts, Listed, ModelFacts, Observed, SinkProblem, Tracking,
};
use super::plan::{Env, Plan, Step, needs, plan};
use crate::api::batch::GeminiBatch;
use crate::api::condition::get;
use crate::api::{FINALIZER, SUBMIT_KEY_ANNOTATION};
use crate::controller::{Credentials, Next};
use crate::gemini::{self, State};
use crate::submit::{self, OperatorSecret, Timing};

const UID: &str = "0b0c6d2e";
const FINGERPRINT: &str = "fp";
/// How long the process has been running.
const UPTIME: Duration = Duration::from_hours(10);

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(super) struct World {
    pub(super) timing: Timing,
    pub(super) secret: OperatorSecret,
}

impl World {
    pub(super) fn new() -> Self {
        Self { timing: Timing::production(), secret: OperatorSecret::new(vec![1; 32]) }
    }

    pub(super) fn at(&self, now: Timestamp) -> Env<'_> {
        Env {
            timing: &self.timing,
            secret: &self.secret,
            now,
            nonce: "nonce",
            holder: "test/1",
            uptime: UPTIME,
        }
    }

    pub(super) fn plan(&self, batch: &GeminiBatch, seen: &Observed) -> Plan {
        plan(batch, seen, &Memory::default(), &self.at(now()))
    }
}

fn fresh() -> GeminiBatch {
    let spec = json!({
        "apiKeySecretRef": {"name": "gemini"},
        "model": "gemini-3.5-flash",
        "input": {"inline": {"jsonl": "{}"}},
    });
    let mut batch = GeminiBatch::new("tickets", serde_json::from_value(spec).unwrap());
    batch.metadata = ObjectMeta {
        name: Some("tickets".into()),
        namespace: Some("team".into()),
        uid: Some(UID.into()),
        generation: Some(1),
        creation_timestamp: Some(Time(now())),
        ..ObjectMeta::default()
    };
    batch
}

/// With identity, finalizer and annotation.
fn claimed(world: &World) -> GeminiBatch {
    let mut batch = fresh();
    batch.status = Some(world.plan(&batch, &Observed::default()).status);
    let key = submit::submit_key(UID);
    batch.metadata.finalizers = Some(vec![FINALIZER.into()]);
    let annotation = submit::annotation(&world.secret, &key, FINGERPRINT, "team", "tickets");
    batch.metadata.annotations = Some([(SUBMIT_KEY_ANNOTATION.to_owned(), annotation)].into());
    batch
}

/// Everything that admission wants to see.
fn admitted() -> Observed {
    Observed {
        credentials: Some(Credentials::Ready { fingerprint: FINGERPRINT.into() }),
        input: Some(Ok(InputFacts { sha256: "abc".into(), rows: 2, bytes: 40 })),
        sink: Some(Ok(())),
        model: Some(ModelFacts::Known),
        ..Observed::default()
    }
}

fn staged(world: &World) -> GeminiBatch {
    let mut batch = claimed(world);
    let facts = InputFacts { sha256: "abc".into(), rows: 2, bytes: 40 };
    let file = crate::api::batch::InputFile { name: "files/gb-x".into(), size_bytes: 40, expire_time: None };
    batch.status = Some(super::record::staged(&batch, &facts, file, now()));
    batch
}

/// With an intent that was written `age` ago and whose outcome is unknown.
fn pending(world: &World, age: Duration) -> GeminiBatch {
    let mut batch = staged(world);
    let seen = Observed { file_usable: Some(true), ..admitted() };
    batch.status = Some(world.plan(&batch, &seen).status);
    let intent = now().checked_sub(jiff::SignedDuration::try_from(age).unwrap()).unwrap();
    batch.status.as_mut().unwrap().runs[0].intent_time = Time(intent);
    batch
}

pub(super) fn recorded(world: &World, state: Option<&str>) -> GeminiBatch {
    let mut batch = pending(world, Duration::from_secs(5));
    let yes = submit::Verdict::Yes("batches/a".into());
    batch.status = super::record::posted(&batch, "nonce", &yes, now());
    batch.status.as_mut().unwrap().runs[0].state = state.map(str::to_owned);
    batch
}

fn some_job(state: State) -> gemini::Batch {
    gemini::Batch {
        name: "batches/a".into(),
        display_name: String::new(),
        model: String::new(),
        state,
        raw_state: String::new(),
        create_time: None,
        end_time: None,
        input_file: None,
        responses_file: Some("files/batch-a".into()),
        inlined: false,
        stats: gemini::BatchStats::default(),
        error: None,
    }
}

pub(super) fn job(state: State) -> Observed {
    Observed {
        credentials: admitted().credentials,
        job: Some(JobFacts::Found(Box::new(some_job(state)))),
        ..Observed::default()
    }
}

fn bad_row() -> InputProblem {
    InputProblem::Invalid { reason: "InvalidRow", message: "m".into() }
}

#[test]
fn table() {
    let world = World::new();
    let (claimed, staged) = (claimed(&world), staged(&world));
    let key = submit::submit_key(UID);
    let usable = Observed { file_usable: Some(true), ..admitted() };
    let with = |change: fn(&mut Observed)| {
        let mut seen = admitted();
        change(&mut seen);
        seen
    };
    let mut suspended = claimed.clone();
    suspended.spec.suspend = true;
    let mut cancelled = claimed.clone();
    cancelled.spec.cancelled = true;
    let mut unclaimed = claimed.clone();
    unclaimed.metadata.finalizers = None;
    let remote = || "batches/a".to_owned();
    let cases: Vec<(&str, GeminiBatch, Observed, Step, &str, &str)> = vec![
        ("a new object", fresh(), Observed::default(), Step::None, "Reconciling", "Queued"),
        ("suspended", suspended, Observed::default(), Step::None, "Admitted", "Suspended"),
        ("cancelled before", cancelled, Observed::default(), Step::None, "Failed", "Cancelled"),
        (
            "not claimed",
            unclaimed,
            admitted(),
            Step::Claim {
                annotation: submit::annotation(&world.secret, &key, FINGERPRINT, "team", "tickets"),
            },
            "Reconciling",
            "Queued",
        ),
        (
            "no Secret",
            claimed.clone(),
            with(|s| s.credentials = Some(Credentials::NotFound("m".into()))),
            Step::None,
            "Admitted",
            "CredentialsNotFound",
        ),
        (
            "bad key",
            claimed.clone(),
            with(|s| s.credentials = Some(Credentials::Refused("m".into()))),
            Step::None,
            "Admitted",
            "CredentialsInvalid",
        ),
        (
            "no such model",
            claimed.clone(),
            with(|s| s.model = Some(ModelFacts::Unknown("m".into()))),
            Step::None,
            "Failed",
            "Rejected",
        ),
        (
            "no source yet",
            claimed.clone(),
            with(|s| s.input = Some(Err(InputProblem::NotFound("m".into())))),
            Step::None,
            "InputReady",
            "SourceNotFound",
        ),
        (
            "a bad row",
            claimed.clone(),
            with(|s| s.input = Some(Err(bad_row()))),
            Step::None,
            "Failed",
            "InvalidInput",
        ),
        (
            "somebody else's sink",
            claimed.clone(),
            with(|s| s.sink = Some(Err(SinkProblem::Forbidden("m".into())))),
            Step::None,
            "ResultsDelivered",
            "SinkForbidden",
        ),
        (
            "too large for the sink",
            claimed.clone(),
            with(|s| s.sink = Some(Err(SinkProblem::TooLarge("m".into())))),
            Step::None,
            "InputReady",
            "TooLarge",
        ),
        ("all is well", claimed, admitted(), Step::Stage, "InputReady", "Staging"),
        ("staged", staged.clone(), usable, Step::Post { nonce: "nonce".into() }, "Submitted", "Submitting"),
        (
            "the staged file is gone",
            staged.clone(),
            with(|s| s.file_usable = Some(false)),
            Step::Stage,
            "InputReady",
            "Staging",
        ),
        (
            "the input was edited since",
            staged,
            with(|s| s.input = Some(Ok(InputFacts { sha256: "def".into(), rows: 2, bytes: 40 }))),
            Step::Stage,
            "InputReady",
            "Staging",
        ),
        ("running", recorded(&world, None), job(State::Running), Step::None, "Reconciling", "Running"),
        (
            "ended",
            recorded(&world, Some("PENDING")),
            job(State::Succeeded),
            Step::Deliver { remote: remote() },
            "Reconciling",
            "Delivering",
        ),
        (
            "gone",
            recorded(&world, Some("PENDING")),
            Observed {
                job: Some(JobFacts::Gone),
                credentials: admitted().credentials,
                ..Observed::default()
            },
            Step::None,
            "Failed",
            "RemoteGone",
        ),
        (
            "not visible to another key",
            recorded(&world, Some("PENDING")),
            Observed {
                job: Some(JobFacts::Gone),
                credentials: Some(Credentials::Ready { fingerprint: "other".into() }),
                ..Observed::default()
            },
            Step::None,
            "Stalled",
            "ProjectUnproven",
        ),
    ];
    for (what, batch, seen, step, type_, reason) in cases {
        let planned = world.plan(&batch, &seen);
        assert_eq!(planned.step, step, "{what}");
        let condition = get(&planned.status.conditions, type_);
        assert_eq!(condition.map(|c| c.reason.as_str()), Some(reason), "{what}: {type_}");
    }
}

/// A delivery may fail after the look that showed the end: the write was too late (an event was stored meanwhile), the
/// sink was away. It is made good at once, and without another GET.
#[test]
fn a_known_end_is_delivered_without_another_look() {
    let world = World::new();
    let Some(JobFacts::Found(ended)) = job(State::Succeeded).job else { panic!("a job") };
    let memory = Memory { job: Some(*ended), looked: Some(now()), ..Memory::default() };
    let with_key = |fingerprint: &str| Observed {
        credentials: Some(Credentials::Ready { fingerprint: fingerprint.into() }),
        ..Observed::default()
    };
    // However far the status came before the write failed.
    for state in [None, Some("RUNNING"), Some("SUCCEEDED")] {
        let batch = recorded(&world, state);
        let asked = needs(&batch, &memory, &world.at(now()));
        assert_eq!((asked.credentials, asked.job, asked.sweep_since), (true, false, None), "{state:?}");
        let planned = plan(&batch, &with_key(FINGERPRINT), &memory, &world.at(now()));
        assert_eq!(planned.step, Step::Deliver { remote: "batches/a".into() }, "{state:?}");
        // Another key may not see the job's files: the job is looked at again, and what that shows counts.
        assert!(asked.ended);
        let planned = plan(&batch, &with_key("other"), &memory, &world.at(now()));
        assert_eq!(planned.step, Step::None, "{state:?}");
    }
    let mut other = memory;
    other.job.as_mut().unwrap().name = "batches/older".into();
    let asked = needs(&recorded(&world, Some("SUCCEEDED")), &other, &world.at(now()));
    assert!(asked.job, "what was seen of another job says nothing");
}

#[test]
fn waits_for_nothing_but_the_next_sweep() {
    let world = World::new();
    let batch = recorded(&world, Some("PENDING"));
    let memory = Memory::default();
    let asked = needs(&batch, &memory, &world.at(now()));
    assert!(!asked.job, "no GET by timer");
    let Next::After(pause) = world.plan(&batch, &Observed::default()).next else { panic!("a sweep is due") };
    assert!(pause <= world.timing.sweep_bare);
}

fn any_seen() -> impl Strategy<Value = Observed> {
    let credentials = prop_oneof![
        Just(None),
        Just(Some(Credentials::Ready { fingerprint: FINGERPRINT.into() })),
        Just(Some(Credentials::Ready { fingerprint: "other".into() })),
        Just(Some(Credentials::NotFound("m".into()))),
        Just(Some(Credentials::Refused("m".into()))),
    ];
    let input = prop_oneof![
        Just(None),
        Just(Some(Ok(InputFacts { sha256: "abc".into(), rows: 2, bytes: 40 }))),
        Just(Some(Err(InputProblem::NotFound("m".into())))),
        Just(Some(Err(InputProblem::Invalid { reason: "DuplicateKey", message: "m".into() }))),
    ];
    let sink =
        prop_oneof![Just(None), Just(Some(Ok(()))), Just(Some(Err(SinkProblem::Forbidden("m".into()))))];
    let state = prop_oneof![
        Just(None),
        Just(Some(State::Pending)),
        Just(Some(State::Running)),
        Just(Some(State::Succeeded)),
        Just(Some(State::Failed)),
    ];
    let tracking = prop_oneof![
        Just(None),
        Just(Some(Tracking::SweepOnly("m".into()))),
        Just(Some(Tracking::Static { webhook: "team/main".into() })),
        Just(Some(Tracking::Dynamic { webhook: "team/dynamic".into() })),
    ];
    let listing = proptest::option::of(Just(Listed { started: now(), jobs: vec![] }));
    let swept = any::<bool>();
    (credentials, input, sink, state, tracking, listing, proptest::option::of(any::<bool>()), swept).prop_map(
        |(credentials, input, sink, state, tracking, listing, file_usable, swept)| Observed {
            credentials,
            input,
            sink,
            model: None,
            gate: Duration::ZERO,
            file_usable,
            files: None,
            duplicates: vec![],
            listing,
            job: state.and_then(|state| job(state).job),
            listed: swept.then(|| Box::new(some_job(State::Running))),
            tracking,
        },
    )
}

fn any_batch() -> impl Strategy<Value = GeminiBatch> {
    let world = World::new;
    (0..6u8, any::<bool>(), any::<bool>()).prop_map(move |(stage, suspend, cancelled)| {
        let world = world();
        let mut batch = match stage {
            0 => fresh(),
            1 => claimed(&world),
            2 => staged(&world),
            3 => pending(&world, Duration::from_mins(1)),
            4 => recorded(&world, None),
            _ => recorded(&world, Some("PENDING")),
        };
        (batch.spec.suspend, batch.spec.cancelled) = (suspend, cancelled);
        batch
    })
}

proptest! {
    #[test]
    fn the_end_is_absorbing(batch in any_batch(), first in any_seen(), later in any_seen(), after in 0i64..1_000_000) {
        let world = World::new();
        let planned = world.plan(&batch, &first);
        let ended = GeminiBatch { status: Some(planned.status), ..batch };
        if ended.is_finished() {
            let then = Timestamp::from_second(now().as_second() + after).unwrap();
            let again = plan(&ended, &later, &Memory::default(), &world.at(then));
            prop_assert_eq!(Some(&again.status), ended.status.as_ref());
            prop_assert_eq!(again.step, Step::None);
            prop_assert_eq!(needs(&ended, &Memory::default(), &world.at(then)), super::plan::Needs::default());
        }
    }

    /// The same sight twice: what was planned stands, and nothing is paid a second time. A listing is an exception,
    /// each one counts; `identify` and `claim` are steps that change what the next pass sees.
    #[test]
    fn planning_twice_plans_nothing_new(batch in any_batch(), seen in any_seen()) {
        let world = World::new();
        let seen = Observed { listing: None, ..seen };
        let first = world.plan(&batch, &seen);
        let posted = matches!(first.step, Step::Post { .. });
        let written = GeminiBatch { status: Some(first.status), ..batch };
        let second = world.plan(&written, &seen);
        prop_assert!(!(posted && matches!(second.step, Step::Post { .. })), "one intent, one POST");
        if first.step == Step::None && first.next != Next::Now {
            prop_assert_eq!(second.step, Step::None);
            prop_assert_eq!(Some(&second.status), written.status.as_ref());
        }
    }
}
