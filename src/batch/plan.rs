//! PURE: what to do next with a batch. No clock, no I/O, no `Result`; total over its inputs.
//!
//! One step a pass. The planned status is written by compare-and-swap *before* the step is acted on, so what
//! precedes a side effect is durable before the side effect happens.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::admission::credentials_problem;
use super::draft::Draft;
use super::memory::Memory;
use super::observed::{JobFacts, Observed, Tracking};
use super::record::is_refused;
use super::schedule::{
    doubt_listing_due, duplicates_watch, ended, is_terminal, look, past_since, pause_left,
    proof_listing_since, rested, sweep_due, tracking,
};
use super::submission::{has_lost_input, is_restored, restored_run, submission};
use crate::api::SUBMIT_KEY_ANNOTATION;
use crate::api::batch::{GeminiBatch, GeminiBatchStatus, Identity, Phase, Run, Submission, WebhookMode};
use crate::api::condition::{Is, batch_type};
use crate::controller::{Credentials, Next, until};
use crate::gemini;
use crate::submit::{self, OperatorSecret, Timing};

/// Version of the submission protocol that this program speaks.
pub const PROTOCOL: i32 = 1;
/// Name of the one run of a batch.
pub const RUN: &str = "run-1";

/// What the pass itself brings along.
pub struct Env<'a> {
    pub timing: &'a Timing,
    pub secret: &'a OperatorSecret,
    pub now: Timestamp,
    /// A fresh random number, used if an intent is written.
    pub nonce: &'a str,
    /// This process.
    pub holder: &'a str,
    /// Since this process began, by a clock that does not jump.
    pub uptime: Duration,
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub status: GeminiBatchStatus,
    pub step: Step,
    pub next: Next,
}

/// One side effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    None,
    /// Set finalizer and annotation.
    Claim {
        annotation: String,
    },
    /// Upload the rendered input.
    Stage,
    /// Send the one paid request of the intent that the planned status holds.
    Post {
        nonce: String,
    },
    /// Delete the input file of a fenced attempt and prove it gone.
    Fence {
        files: Vec<String>,
    },
    /// Cancel and delete jobs that are one too many.
    Reap {
        names: Vec<String>,
    },
    /// Ask Gemini to cancel the job.
    Cancel {
        remote: String,
    },
    /// Fetch the results and publish them.
    Deliver {
        remote: String,
    },
}

/// What `observe` has to look at for this batch in this pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Independent questions, not a state.
pub struct Needs {
    pub credentials: bool,
    /// Input, sink, model and staged file.
    pub admission: bool,
    /// The input alone.
    pub input: bool,
    /// A complete listing that began at this time or later.
    pub listing_since: Option<Timestamp>,
    /// All files of this batch.
    pub files: bool,
    /// A listing of that age is enough to see whether the recorded job has ended.
    pub sweep_since: Option<Timestamp>,
    pub job: bool,
    /// The job is known to have ended: another look is needed only if the key is not the one it was submitted with.
    pub ended: bool,
    /// The look is on account of an event.
    pub for_event: bool,
    pub tracking: bool,
}

/// The newest run, if there is one.
pub fn newest_run(batch: &GeminiBatch) -> Option<&Run> {
    batch.status.as_ref().and_then(run)
}

fn run(status: &GeminiBatchStatus) -> Option<&Run> {
    status.runs.last()
}

/// Whether this status was written for this very object.
pub fn is_ours(batch: &GeminiBatch) -> bool {
    let uid = batch.metadata.uid.as_deref();
    batch.status.as_ref().and_then(|s| s.identity.as_ref()).is_some_and(|i| Some(i.uid.as_str()) == uid)
}

/// What must be looked at. The same cases as in [`plan`], in the same order.
pub fn needs(batch: &GeminiBatch, memory: &Memory, env: &Env<'_>) -> Needs {
    let Some(status) = batch.status.as_ref().filter(|_| is_ours(batch)) else { return Needs::default() };
    if batch.is_finished() {
        let sweep_since = duplicates_watch(status, env)
            .and_then(|_| sweep_due(status, memory, env))
            .filter(|tick| *tick <= env.now);
        return Needs { credentials: sweep_since.is_some(), sweep_since, ..Needs::default() };
    }
    match run(status) {
        None => {
            let needs = admission_needs(batch);
            Needs { listing_since: past_since(batch, memory, env).filter(|_| needs.admission), ..needs }
        }
        Some(run) => match run.submission {
            Submission::Abandoned if pause_left(run, memory, env).is_zero() => {
                let needs = admission_needs(batch);
                Needs { listing_since: needs.admission.then(|| rested(run, env)), ..needs }
            }
            Submission::Abandoned => Needs::default(),
            _ if memory.in_flight.as_ref() == Some(&run.nonce) => Needs::default(),
            Submission::Pending | Submission::Fenced | Submission::Quarantined if status.input.is_none() => {
                Needs { credentials: true, input: true, ..Needs::default() }
            }
            Submission::Pending | Submission::Fenced | Submission::Quarantined => Needs {
                credentials: true,
                listing_since: Some(doubt_listing_due(run, memory, env))
                    .filter(|since| *since <= env.now)
                    .or_else(|| proof_listing_since(run, memory, env)),
                files: is_restored(run) && run.submission == Submission::Pending,
                ..Needs::default()
            },
            Submission::Recorded => {
                let look = look(batch, status, run, memory, env);
                let ended = ended(run, memory).is_some();
                // Of an ended job a listing says nothing new.
                let sweep_since = sweep_due(status, memory, env)
                    .filter(|tick| *tick <= env.now && !ended && !is_terminal(run));
                Needs {
                    credentials: ended
                        || look.due
                        || sweep_since.is_some()
                        || tracking(status).is_none()
                        || wants_cancel(batch, memory),
                    job: look.due,
                    ended,
                    for_event: look.for_event,
                    sweep_since,
                    tracking: true,
                    ..Needs::default()
                }
            }
        },
    }
}

fn admission_needs(batch: &GeminiBatch) -> Needs {
    let quiet = batch.spec.suspend || batch.spec.cancelled;
    Needs { credentials: !quiet, admission: !quiet, ..Needs::default() }
}

/// The decision about a batch that is not being deleted.
pub fn plan(batch: &GeminiBatch, seen: &Observed, memory: &Memory, env: &Env<'_>) -> Plan {
    let mut draft = Draft::new(batch, env.now);
    if let Some(newer) = draft.status.protocol_version.filter(|v| *v > PROTOCOL) {
        let message =
            format!("written by a newer operator (protocol {newer}); this one leaves the batch alone");
        draft.set(batch_type::STALLED, Is::True, "NewerProtocol", &message);
        return draft.plan(Step::None, Next::Await);
    }
    if !is_ours(batch) {
        return identify(batch, env);
    }
    if batch.is_finished() {
        return finished(draft, seen, memory, env);
    }
    suspended(batch, &mut draft);
    let newest = run(&draft.status).cloned();
    match newest {
        Some(run) if run.submission == Submission::Recorded && !has_lost_input(&run, seen, memory) => {
            remote(batch, draft, &run, seen, memory, env)
        }
        newest => submission(batch, draft, newest, seen, memory, env),
    }
}

/// A status of its own for an object that has none: the first write of all.
fn identify(batch: &GeminiBatch, env: &Env<'_>) -> Plan {
    let uid = batch.metadata.uid.clone().unwrap_or_default();
    let annotation = batch.metadata.annotations.as_ref().and_then(|a| a.get(SUBMIT_KEY_ANNOTATION));
    let (namespace, name) = place(batch);
    // One that was made for another place came with a copy of the object, and says nothing about this one.
    let restored = annotation.and_then(|text| submit::read_annotation(env.secret, text, namespace, name));
    let mut draft = Draft::empty(batch, env.now);
    draft.status.protocol_version = Some(PROTOCOL);
    draft.phase(Phase::Queued);
    let submit_key = match restored {
        Some((key, fingerprint)) => {
            // The annotation outlived its status (a backup was restored): a job may have been made for it.
            draft.status.start_time = Some(Time(env.now));
            draft.status.runs = vec![restored_run(key, fingerprint, env)];
            draft.phase(Phase::Submitting);
            key.to_owned()
        }
        None => submit::submit_key(&uid),
    };
    draft.status.identity = Some(Identity { uid, submit_key });
    draft.progressing("Queued", "");
    draft.plan(Step::None, Next::Now)
}

/// The end is absorbing; only a job that is one too many is still dealt with, for as long as one may turn up.
fn finished(mut draft: Draft, seen: &Observed, memory: &Memory, env: &Env<'_>) -> Plan {
    if !seen.duplicates.is_empty() {
        duplicates(&mut draft, &seen.duplicates);
        return draft.plan(Step::Reap { names: seen.duplicates.clone() }, Next::After(env.timing.sweep_bare));
    }
    let tick = duplicates_watch(&draft.status, env).and_then(|_| sweep_due(&draft.status, memory, env));
    draft.plan(Step::None, tick.map_or(Next::Await, |tick| Next::After(until(tick, env.now))))
}

fn duplicates(draft: &mut Draft, names: &[String]) {
    let message = format!(
        "{} more than the one recorded job of this batch turned up at Gemini: {}; cancelled and deleted",
        names.len(),
        names.join(", ")
    );
    draft.set(batch_type::DUPLICATE_JOBS, Is::True, "Cancelled", &message);
}

fn suspended(batch: &GeminiBatch, draft: &mut Draft) {
    if batch.spec.suspend {
        draft.set(batch_type::SUSPENDED, Is::True, "SuspendedByUser", "spec.suspend is true");
    } else if draft.has(batch_type::SUSPENDED) {
        draft.set(batch_type::SUSPENDED, Is::False, "Resumed", "");
    }
}

/// From the recorded name to the delivered results.
fn remote(
    batch: &GeminiBatch,
    mut draft: Draft,
    run: &Run,
    seen: &Observed,
    memory: &Memory,
    env: &Env<'_>,
) -> Plan {
    let Some(remote) = run.remote_name.clone() else { return draft.plan(Step::None, Next::Await) };
    if let Some(tracking) = &seen.tracking {
        track(&mut draft, batch.spec.webhook.mode, tracking);
    }
    if let Some(pause) = credentials_problem(&mut draft, seen) {
        return draft.plan(Step::None, Next::After(env.timing.secret_reread.min(pause)));
    }
    if !seen.duplicates.is_empty() {
        duplicates(&mut draft, &seen.duplicates);
        return draft.plan(Step::Reap { names: seen.duplicates.clone() }, Next::Now);
    }
    let remembered = ended(run, memory).filter(|_| seen.credentials.is_some() && !is_foreign_key(run, seen));
    let known = remembered.map(|job| JobFacts::Found(Box::new(job.clone())));
    match seen.job.as_ref().or(known.as_ref()) {
        Some(JobFacts::Gone) if is_foreign_key(run, seen) => {
            let message = format!(
                "{remote} is not visible to the present API key, which is not the one it was submitted with (is it a \
                 key of another Google project?); put a key of the job's project into spec.apiKeySecretRef"
            );
            draft.stalled("ProjectUnproven", &message);
            return draft.plan(Step::None, Next::After(env.timing.secret_reread));
        }
        Some(JobFacts::Gone) => {
            let message =
                format!("{remote} does not exist at Gemini any more; its results cannot be fetched");
            return draft.fail(Phase::Failed, "RemoteGone", &message);
        }
        Some(JobFacts::Found(job)) => {
            show(&mut draft, job);
            if job.state.is_terminal() {
                draft.phase(Phase::Delivering);
                // What the last try said stands until this one has an end: two sentences by turns would wake us by
                // turns, and `Stalled` would flicker.
                if !is_refused(&draft.status) && !draft.is_retrying() {
                    draft.progressing("Delivering", "");
                }
                return draft.plan(Step::Deliver { remote }, Next::Now);
            }
        }
        None if is_terminal(run) => return draft.plan(Step::None, Next::After(env.timing.retry)),
        None => {
            // The listing may be older than a GET: it leads forward only.
            if let Some(job) = seen.listed.as_ref().filter(|job| job.state == gemini::State::Running) {
                show(&mut draft, job);
            }
        }
    }
    if wants_cancel(batch, memory) {
        return draft.plan(Step::Cancel { remote }, Next::Now);
    }
    let look = look(batch, &draft.status, run, memory, env);
    let sweep = sweep_due(&draft.status, memory, env);
    let next =
        [look.at, sweep].into_iter().flatten().min().map_or(env.timing.sweep_bare, |at| until(at, env.now));
    draft.plan(Step::None, Next::After(next.max(Duration::from_millis(50))))
}

/// Whether Gemini is still to be asked to cancel the job.
fn wants_cancel(batch: &GeminiBatch, memory: &Memory) -> bool {
    batch.spec.cancelled && !memory.cancel_sent
}

/// Whether the present key is another one than the run's: what it does not see proves nothing.
fn is_foreign_key(run: &Run, seen: &Observed) -> bool {
    matches!(&seen.credentials, Some(Credentials::Ready { fingerprint }) if *fingerprint != run.key_fingerprint)
}

/// The job's state in the words of the status.
fn show(draft: &mut Draft, job: &gemini::Batch) {
    let state = job.state.as_str().to_owned();
    // Kubernetes keeps whole seconds. What it does not give back as it was written would be written for ever.
    let ended = job.end_time.and_then(|end| Timestamp::from_second(end.as_second()).ok());
    draft.run(|run| {
        run.state = Some(state.clone());
        run.end_time = ended.map(Time).or(run.end_time.take());
    });
    if !job.state.is_terminal() {
        let phase = if job.state == gemini::State::Running { Phase::Running } else { Phase::Pending };
        draft.phase(phase);
        draft.progressing(if phase == Phase::Running { "Running" } else { "Pending" }, "");
    }
}

fn track(draft: &mut Draft, mode: WebhookMode, tracking: &Tracking) {
    let (is, reason, message) = match tracking {
        Tracking::Static { webhook } => {
            (Is::True, "Static", format!("GeminiWebhook {webhook} reports the end"))
        }
        Tracking::Dynamic { webhook } => (
            Is::True,
            "Dynamic",
            format!("GeminiWebhook {webhook}, whose address the job was given, reports the end"),
        ),
        Tracking::NotReady(why) if mode != WebhookMode::None => (Is::False, "WebhookNotReady", why.clone()),
        Tracking::NotReady(why) | Tracking::SweepOnly(why) => (Is::False, "SweepOnly", why.clone()),
    };
    draft.set(batch_type::WEBHOOK_TRACKED, is, reason, &message);
}

/// Namespace and name.
pub fn place(batch: &GeminiBatch) -> (&str, &str) {
    let metadata = &batch.metadata;
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// What the marker of this batch vouches for.
pub fn claim_of<'a>(batch: &'a GeminiBatch, status: &'a GeminiBatchStatus) -> submit::Claim<'a> {
    let (namespace, name) = place(batch);
    submit::Claim {
        namespace,
        name,
        model: &batch.spec.model,
        operation: "GenerateContent",
        input_sha256: status.input.as_ref().map_or("", |i| i.sha256.as_str()),
    }
}
