//! From the end of the job to the results: when a try follows a failed one, and what is said meanwhile.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::events::{Recorder, Reporter};

use super::super::deliver::{Meanwhile, meanwhile};
use super::super::memory::Memory;
use super::super::observed::{JobFacts, Observed};
use super::super::plan::{Step, needs, plan};
use super::super::record::{self, Delivery};
use super::super::schedule::{rest, resting};
use super::{World, job, now, recorded};
use crate::api::batch::{GeminiBatch, LastEvent, Phase};
use crate::api::condition::{get, is_true};
use crate::api::{FINALIZER, RESUBMIT_ANNOTATION};
use crate::controller::Guarded;
use crate::controller::{Context, Error, KeyCache, Next};
use crate::gemini::{self, Gemini, State};
use crate::rows::Collector;
use crate::sink::tests::FakeApi;
use crate::sink::{Published, SinkError};
use crate::submit::Timing;

fn ended(world: &World) -> GeminiBatch {
    let mut batch = recorded(world, Some("SUCCEEDED"));
    batch.status.as_mut().unwrap().input.as_mut().unwrap().rows = 4;
    batch
}

fn found(state: State) -> gemini::Batch {
    match job(state).job {
        Some(JobFacts::Found(job)) => *job,
        other => panic!("{other:?}"),
    }
}

fn with(batch: &GeminiBatch, status: crate::api::batch::GeminiBatchStatus) -> GeminiBatch {
    GeminiBatch { status: Some(status), ..batch.clone() }
}

fn condition<'a>(batch: &'a GeminiBatch, type_: &str) -> (&'a str, &'a str) {
    let found = get(&batch.status.as_ref().unwrap().conditions, type_).unwrap();
    (found.status.as_str(), found.reason.as_str())
}

fn seconds(n: u64) -> Timestamp {
    crate::controller::after(now(), Duration::from_secs(n))
}

#[test]
fn an_ended_job_is_looked_at_and_delivered_until_its_results_are() {
    let world = World::new();
    let batch = ended(&world);
    // Long after, so that a sweep would be due as well.
    let later = seconds(100_000);
    for memory in [
        Memory::default(),
        // A delivery has failed: where the results are, or that they are gone, is asked again.
        Memory {
            job: Some(found(State::Succeeded)),
            swept: Some(now()),
            rest: rest(&batch, &Error::Results("cut".into()), 0, &world.timing, now()),
            ..Memory::default()
        },
    ] {
        let asked = needs(&batch, &memory, &world.at(later));
        assert!(asked.job && asked.credentials, "a GET says where the results are");
        assert_eq!((asked.sweep_since, asked.for_event), (None, false), "a listing would say nothing new");
        let planned = plan(&batch, &job(State::Succeeded), &memory, &world.at(later));
        assert_eq!(planned.step, Step::Deliver { remote: "batches/a".into() });
    }
    let blind = Observed { credentials: job(State::Succeeded).credentials, ..Observed::default() };
    let planned = world.plan(&batch, &blind);
    assert!(matches!(planned.next, Next::After(pause) if pause >= world.timing.retry), "{:?}", planned.next);
}

#[test]
fn what_the_last_try_said_stands_until_the_next_one_ends() {
    let world = World::new();
    let plain = ended(&world);
    let first = with(&plain, world.plan(&plain, &job(State::Succeeded)).status);
    assert_eq!(condition(&first, "Reconciling"), ("True", "Delivering"));

    let refusal = SinkError::Forbidden("theirs".into());
    let refused = with(&first, record::undelivered(&first, &refusal, now()));
    assert_eq!(condition(&refused, "Stalled"), ("True", "SinkForbidden"));
    let cut = with(&first, record::retrying(&first, "cut", now()));
    assert_eq!(condition(&cut, "Reconciling"), ("True", "Retrying"));
    for batch in [&refused, &cut] {
        let again = world.plan(batch, &job(State::Succeeded));
        assert!(matches!(again.step, Step::Deliver { .. }));
        assert_eq!(Some(&again.status), batch.status.as_ref(), "no write, and so no wake");
    }
    let same = record::undelivered(&refused, &refusal, seconds(60));
    assert_eq!(Some(&same), refused.status.as_ref());
    assert!(!Error::Undelivered(String::new()).is_users_business(), "said already");
}

#[test]
fn too_large_results_wait_for_another_sink_as_long_as_gemini_has_them() {
    let world = World::new();
    let batch = ended(&world);
    let lost = with(&batch, record::undeliverable(&batch, "gone", now()));
    assert_eq!(condition(&lost, "Failed"), ("True", "ResultsExpired"));

    let large = SinkError::TooLarge("line 1 has too many bytes".into());
    let waiting = with(&batch, record::undelivered(&batch, &large, now()));
    assert!(!waiting.is_finished());
    assert_eq!(condition(&waiting, "ResultsDelivered"), ("False", "SinkUnavailable"));
    assert_eq!(condition(&waiting, "Stalled"), ("True", "SinkUnavailable"));
    let said = &get(&waiting.status.as_ref().unwrap().conditions, "Stalled").unwrap().message;
    assert!(said.contains("line 1") && said.contains("batches/a"), "{said}");
    let lost = with(&waiting, record::undeliverable(&waiting, "gone", now()));
    assert_eq!(condition(&lost, "Failed"), ("True", "SinkFailed"));
    assert_eq!(condition(&lost, "ResultsDelivered"), ("False", "ResultsExpired"));

    let away = SinkError::Unavailable("no".into());
    let unstalled = with(&waiting, record::undelivered(&waiting, &away, now()));
    assert_eq!(condition(&unstalled, "Stalled").0, "False", "passes by itself");
}

#[test]
fn a_drifted_input_counts_rows_that_nobody_can_name() {
    let world = World::new();
    let batch = ended(&world);
    let published = Published {
        results_uri: "configmap://team/r/results.jsonl".into(),
        errors_uri: None,
        manifest_uri: "configmap://team/r/manifest.json".into(),
        sha256: "00".into(),
        lines: 3,
        bytes: 3,
    };
    let answer = |key: &str| {
        format!(
            "{{\"key\":\"{key}\",\"response\":{{\"candidates\":[{{\"finishReason\":\"STOP\",\"content\":\
             {{\"parts\":[{{\"text\":\"x\"}}]}}}}]}}}}\n"
        )
    };
    let mut collector = Collector::open(4);
    for key in ["z", "b", "k"] {
        collector.push(answer(key).as_bytes());
    }
    let harvest = collector.finish();
    for (percent, phase) in [(25, Phase::PartiallySucceeded), (24, Phase::Failed)] {
        let mut batch = batch.clone();
        batch.spec.success_policy.max_failed_percent = percent;
        let job = found(State::Succeeded);
        let delivery = Delivery { job: &job, harvest: &harvest, published: &published, results_expire: None };
        let done = with(&batch, record::delivered(&batch, &delivery, now()));
        let status = done.status.as_ref().unwrap();
        assert_eq!(status.phase, Some(phase), "at {percent} %");
        assert_eq!(condition(&done, "InputReady"), ("False", "InputDrift"));
        let rows = status.rows.as_ref().unwrap();
        assert_eq!((rows.total, rows.succeeded, rows.failed, rows.by_class["Missing"]), (4, 3, 1, 1));
        assert_eq!(status.progress.as_deref(), Some("3/4"));
    }
    // With the input at hand nothing is said of it.
    let keys = ["z", "b", "k", "m"].map(String::from);
    let mut collector = Collector::new(&keys);
    collector.push(answer("z").as_bytes());
    let harvest = collector.finish();
    let job = found(State::Succeeded);
    let delivery = Delivery { job: &job, harvest: &harvest, published: &published, results_expire: None };
    let done = with(&batch, record::delivered(&batch, &delivery, now()));
    assert!(is_true(&done.status.unwrap().conditions, "InputReady"));
}

#[test]
fn a_failure_is_rested_out_whatever_wakes_us() {
    let world = World::new();
    let (batch, timing) = (ended(&world), &world.timing);
    let asked = |after: u64| {
        let class = gemini::Class::RateLimited(Some(Duration::from_secs(after)));
        Error::Gemini(gemini::Error { class, ..gemini::Error::transient("m") })
    };
    let pause = |error: &Error, failures: u32| {
        rest(&batch, error, failures, timing, now()).map(|rest| crate::controller::until(rest.until, now()))
    };
    let cut = || Error::Results("cut".into());
    let kube = || Error::Kube(kube::Error::Api(kube::core::Status::failure("away", "Timeout").boxed()));
    let of = |seconds: f64| Some(Duration::from_secs_f64(seconds));
    for (error, failures, expected) in [
        (Error::Conflict, 7, None),
        (cut(), 0, of(4.5)),
        (cut(), 1, of(9.0)),
        (cut(), 30, Some(timing.retry_max.mul_f64(0.9))),
        (asked(1), 0, of(4.5)),
        (asked(77), 0, of(77.0)),
        (asked(77), 30, Some(timing.retry_max.mul_f64(0.9))),
        // When the API server is back, work goes on soon.
        (kube(), 0, of(4.5)),
        (kube(), 30, of(27.0)),
        // What is broken in itself is set aside for longer.
        (Error::Panicked, 0, of(4.5)),
        (Error::Panicked, 30, Some(timing.attempt_pause_max.mul_f64(0.9))),
    ] {
        assert_eq!(pause(&error, failures), expected, "{error:?} after {failures}");
    }
}

#[test]
fn only_what_others_change_ends_a_rest() {
    let world = World::new();
    let batch = ended(&world);
    let memory = Memory {
        rest: rest(&batch, &Error::Results("cut".into()), 0, &world.timing, now()),
        ..Memory::default()
    };
    let is_resting = |batch: &GeminiBatch| resting(batch, &memory, seconds(1)).is_some();
    assert!(is_resting(&batch));
    assert_eq!(resting(&batch, &memory, seconds(5)), None, "it ends by itself");
    assert_eq!(resting(&batch, &Memory::default(), now()), None);

    let mut ours = with(&batch, record::retrying(&batch, "cut", now()));
    ours.metadata.resource_version = Some("7".into());
    assert!(is_resting(&ours), "our own words are no news");

    let change = |change: fn(&mut GeminiBatch)| {
        let mut changed = batch.clone();
        change(&mut changed);
        changed
    };
    for (what, changed) in [
        ("the spec", change(|b| b.metadata.generation = Some(2))),
        ("a deletion", change(|b| b.metadata.deletion_timestamp = Some(Time(now())))),
        (
            "an approval",
            change(|b| {
                b.metadata
                    .annotations
                    .get_or_insert_default()
                    .insert(RESUBMIT_ANNOTATION.into(), "k.1".into());
            }),
        ),
        (
            "an event",
            change(|b| {
                b.status.as_mut().unwrap().last_event = Some(LastEvent {
                    id: "msg_1".into(),
                    type_: "batch.succeeded".into(),
                    remote_name: "batches/a".into(),
                    time: None,
                    received_time: Time(now()),
                });
            }),
        ),
    ] {
        assert!(!is_resting(&changed), "{what}");
    }
}

/// What another controller has written as the end is not written again, and never another end on top of it.
#[test]
fn an_end_that_stands_is_left_alone() {
    let batch = ended(&World::new());
    let change = |change: fn(&mut GeminiBatch)| {
        let mut changed = batch.clone();
        change(&mut changed);
        changed
    };
    let gone = record::undeliverable(&batch, "gone", now());
    for (now, expected) in [
        (batch.clone(), Meanwhile::Hint),
        (with(&batch, gone), Meanwhile::End),
        (change(|b| b.metadata.generation = Some(2)), Meanwhile::Other),
        (change(|b| b.metadata.uid = Some("another".into())), Meanwhile::Other),
        (change(|b| b.metadata.deletion_timestamp = Some(Time(now()))), Meanwhile::Other),
    ] {
        assert_eq!(meanwhile(&batch, &now), expected);
    }
}

#[tokio::test]
async fn a_panic_of_one_object_is_its_own_error() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = FakeApi { is_poison: true, ..FakeApi::default() }.client();
    let World { timing, secret } = World::new();
    let settings = gemini::Settings {
        base_url: "http://127.0.0.1:9".into(),
        api_version: "v1beta".into(),
        extra_ca_pem: None,
    };
    let ctx = Arc::new(Context {
        gates: crate::controller::Gates::default(),
        started: std::time::Instant::now(),
        credentials: KeyCache::new(client.clone(), secret.clone(), &timing),
        recorder: Recorder::new(client.clone(), Reporter { controller: "test".into(), instance: None }),
        writer: client.clone(),
        client,
        gemini: Gemini::new(&settings).unwrap(),
        timing: Timing::production(),
        secret,
        operator_namespace: "operators".into(),
        holder: "test/1".into(),
        listings: crate::controller::Listings::default(),
        webhooks: vec![kube::runtime::reflector::store().0],
        rescues: crate::controller::Rescues::default(),
        metrics: crate::controller::Metrics::default(),
        orphans: crate::controller::orphans::Lock::default(),
        tasks: tokio_util::task::TaskTracker::new(),
        shutdown: tokio_util::sync::CancellationToken::new(),
        batch_memory: crate::controller::Memories::default(),
        webhook_memory: crate::controller::Memories::default(),
    });
    let mut batch = ended(&World::new());
    batch.metadata.finalizers = Some(vec![FINALIZER.into()]);
    let seen = super::super::reconcile(Arc::new(Guarded(Ok(batch))), ctx).await;
    assert!(matches!(seen, Err(Error::Panicked)), "{seen:?}");
}
