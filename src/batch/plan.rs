//! PURE: what to do next with a batch. No clock, no I/O, no `Result`; total over its inputs.
//!
//! One step a pass. The planned status is written by compare-and-swap *before* the step is acted on, so what
//! precedes a side effect is durable before the side effect happens.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::admission::{admission, credentials_problem};
use super::draft::Draft;
use super::memory::Memory;
use super::observed::{JobFacts, Observed, Tracking};
use super::record::is_refused;
use super::schedule::{age, ended, is_terminal, listing_due, look, pause_left, sweep_due, tracking};
use crate::api::batch::{
    GeminiBatch, GeminiBatchStatus, Identity, Listings, Phase, Run, Submission, WebhookMode,
};
use crate::api::condition::{Is, batch_type};
use crate::api::{RESUBMIT_ANNOTATION, SUBMIT_KEY_ANNOTATION};
use crate::controller::{Credentials, Next, after, until};
use crate::gemini;
use crate::submit::{self, AttemptState, OperatorSecret, Timing};

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
    /// Delete the input file of a doubtful attempt and prove it gone.
    Fence {
        file: String,
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
    /// A complete listing that began at this time or later.
    pub listing_since: Option<Timestamp>,
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
fn is_ours(batch: &GeminiBatch) -> bool {
    let uid = batch.metadata.uid.as_deref();
    batch.status.as_ref().and_then(|s| s.identity.as_ref()).is_some_and(|i| Some(i.uid.as_str()) == uid)
}

/// What must be looked at. The same cases as in [`plan`], in the same order.
pub fn needs(batch: &GeminiBatch, memory: &Memory, env: &Env<'_>) -> Needs {
    let Some(status) = batch.status.as_ref().filter(|_| is_ours(batch) && !batch.is_finished()) else {
        return Needs::default();
    };
    match run(status) {
        None => admission_needs(batch),
        Some(run) => match run.submission {
            Submission::Abandoned if pause_left(run, memory, env).is_zero() => admission_needs(batch),
            Submission::Abandoned => Needs::default(),
            Submission::Pending | Submission::Quarantined => Needs {
                credentials: true,
                listing_since: (memory.in_flight.as_ref() != Some(&run.nonce))
                    .then(|| listing_due(run, env))
                    .filter(|since| *since <= env.now),
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
        return Plan {
            status: batch.status.clone().unwrap_or_default(),
            step: Step::None,
            next: Next::Await,
        };
    }
    suspended(batch, &mut draft);
    let newest = run(&draft.status).cloned();
    match newest {
        Some(run) if run.submission == Submission::Recorded => remote(batch, draft, &run, seen, memory, env),
        newest => submission(batch, draft, newest, seen, memory, env),
    }
}

/// A status of its own for an object that has none: the first write of all.
fn identify(batch: &GeminiBatch, env: &Env<'_>) -> Plan {
    let uid = batch.metadata.uid.clone().unwrap_or_default();
    let restored = batch.metadata.annotations.as_ref().and_then(|a| a.get(SUBMIT_KEY_ANNOTATION));
    let mut draft = Draft::empty(batch, env.now);
    draft.status.protocol_version = Some(PROTOCOL);
    draft.phase(Phase::Queued);
    let submit_key = match restored.and_then(|a| a.split_once('.')) {
        Some((key, fingerprint)) => {
            // The annotation outlived its status (a backup was restored): a job may have been made for it. With
            // nothing known of the attempt, the doubt is treated as any other.
            draft.status.start_time = Some(Time(env.now));
            draft.status.runs = vec![Run {
                name: RUN.into(),
                attempt: 1,
                submission: Submission::Pending,
                state: None,
                nonce: "restored".into(),
                holder: env.holder.into(),
                marker: format!("gb1.{key}.1."),
                input_file: String::new(),
                key_fingerprint: fingerprint.into(),
                intent_time: Time(env.now),
                listings: None,
                remote_name: None,
                submit_time: None,
                end_time: None,
                rows: 0,
                message: Some("the object was restored without its status; looking for its job".into()),
            }];
            draft.phase(Phase::Submitting);
            key.to_owned()
        }
        None => submit::submit_key(&uid),
    };
    draft.status.identity = Some(Identity { uid, submit_key });
    draft.progressing("Queued", "");
    draft.plan(Step::None, Next::Now)
}

fn suspended(batch: &GeminiBatch, draft: &mut Draft) {
    if batch.spec.suspend {
        draft.set(batch_type::SUSPENDED, Is::True, "SuspendedByUser", "spec.suspend is true");
    } else if draft.has(batch_type::SUSPENDED) {
        draft.set(batch_type::SUSPENDED, Is::False, "Resumed", "");
    }
}

/// Everything until the job's name is recorded.
fn submission(
    batch: &GeminiBatch,
    mut draft: Draft,
    newest: Option<Run>,
    seen: &Observed,
    memory: &Memory,
    env: &Env<'_>,
) -> Plan {
    let attempt = newest.as_ref().map(|run| attempt(run, memory, env));
    let facts = submit::Seen { listing: seen.listing.clone(), approved: approved(batch, &draft.status) };
    let step = submit::step(attempt.as_ref(), &facts, env.timing);
    if let (submit::Step::Count(_) | submit::Step::Quarantine, Some(run)) = (&step, &newest)
        && is_foreign_key(run, seen)
    {
        let message = "the answer to the submission was lost, and the present API key is not the one it was sent \
                           with, so what it does not list proves nothing; put a key of the same project back";
        draft.set(batch_type::SUBMITTED, Is::Unknown, "ProjectUnproven", message);
        draft.stalled("ProjectUnproven", message);
        return draft.plan(Step::None, Next::After(env.timing.listing_spacing));
    }
    match (step, newest) {
        (submit::Step::Intend { n }, _) => admission(batch, draft, n, seen, env),
        (submit::Step::Wait(pause), Some(run)) => {
            if let Some(problem) = credentials_problem(&mut draft, seen) {
                return draft.plan(Step::None, Next::After(env.timing.secret_reread.min(problem)));
            }
            let pause = if run.submission == Submission::Abandoned {
                pause
            } else {
                until(listing_due(&run, env), env.now).min(pause).max(Duration::from_millis(100))
            };
            draft.plan(Step::None, Next::After(pause))
        }
        (submit::Step::Adopt { name }, Some(_)) => {
            draft.adopt(&name);
            draft.plan(Step::None, Next::Now)
        }
        (submit::Step::Foreign { name }, Some(run)) => {
            let message = format!(
                "job {name} carries this batch's key with a tag that was not made for it (a copied object, or another \
                 operator's); it is neither adopted nor is another one submitted. Delete that job at Gemini, or \
                 delete this batch"
            );
            draft.set(batch_type::SUBMITTED, Is::Unknown, "MarkerForeign", &message);
            draft.stalled("MarkerForeign", &message);
            draft.plan(
                Step::None,
                Next::After(until(listing_due(&run, env), env.now).max(env.timing.listing_spacing)),
            )
        }
        (submit::Step::Count(pause), Some(run)) => {
            draft.run(|run| {
                let complete = run.listings.as_ref().map_or(0, |l| l.complete).saturating_add(1);
                run.listings = Some(Listings { complete, last_time: Some(Time(env.now)) });
            });
            let until = after(run.intent_time.0, env.timing.listing_lag);
            let message = format!(
                "the answer to the submission of attempt {} was lost; looking for the job in complete listings until \
                 {until:.0}. Nothing is submitted meanwhile, so nothing is paid twice",
                run.attempt
            );
            draft.set(batch_type::SUBMITTED, Is::Unknown, "OutcomeUnknown", &message);
            draft.phase(Phase::Submitting);
            draft.progressing("OutcomeUnknown", &message);
            draft.plan(Step::None, Next::After(pause))
        }
        (submit::Step::Quarantine, Some(run)) => {
            draft.run(|run| run.submission = Submission::Quarantined);
            let key = draft.status.identity.as_ref().map_or("", |i| i.submit_key.as_str());
            let message = format!(
                "no job of attempt {n} was found in {} complete listings, yet its request may still be under way. \
                 Listing goes on, and a job that appears is adopted. To submit again, having looked at Gemini for \
                 displayName {}, run: kubectl annotate geminibatch {} {RESUBMIT_ANNOTATION}={key}.{n}",
                run.listings.as_ref().map_or(1, |l| l.complete.saturating_add(1)),
                run.marker,
                batch.metadata.name.as_deref().unwrap_or_default(),
                n = run.attempt,
            );
            draft.set(batch_type::SUBMITTED, Is::Unknown, "Quarantined", &message);
            draft.stalled("Quarantined", &message);
            draft.plan(Step::None, Next::After(env.timing.sweep_tracked))
        }
        (submit::Step::Fence { .. }, Some(run)) => {
            draft.plan(Step::Fence { file: run.input_file }, Next::Now)
        }
        (submit::Step::Done, _) | (_, None) => draft.plan(Step::None, Next::Await),
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
    let ended = job.end_time;
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
        Tracking::NotReady(why) if mode != WebhookMode::None => (Is::False, "WebhookNotReady", why.clone()),
        Tracking::NotReady(why) | Tracking::SweepOnly(why) => (Is::False, "SweepOnly", why.clone()),
    };
    draft.set(batch_type::WEBHOOK_TRACKED, is, reason, &message);
}

fn attempt(run: &Run, memory: &Memory, env: &Env<'_>) -> submit::Attempt {
    submit::Attempt {
        n: run.attempt,
        state: match run.submission {
            Submission::Pending => AttemptState::Pending,
            Submission::Recorded => AttemptState::Recorded,
            Submission::Abandoned => AttemptState::Abandoned,
            Submission::Quarantined => AttemptState::Quarantined,
        },
        in_flight: memory.in_flight.as_ref() == Some(&run.nonce),
        age: age(run, env),
        listings: run.listings.as_ref().map_or(0, |l| u32::try_from(l.complete).unwrap_or(0)),
        pause: age(run, env).saturating_add(pause_left(run, memory, env)),
    }
}

/// The number of the attempt that a person lets be followed by another one.
fn approved(batch: &GeminiBatch, status: &GeminiBatchStatus) -> Option<i32> {
    let text = batch.metadata.annotations.as_ref()?.get(RESUBMIT_ANNOTATION)?;
    let (key, n) = text.rsplit_once('.')?;
    (key == status.identity.as_ref()?.submit_key).then(|| n.parse().ok()).flatten()
}

/// What the marker of this batch vouches for.
pub fn claim_of<'a>(batch: &'a GeminiBatch, status: &'a GeminiBatchStatus) -> submit::Claim<'a> {
    submit::Claim {
        namespace: batch.metadata.namespace.as_deref().unwrap_or_default(),
        name: batch.metadata.name.as_deref().unwrap_or_default(),
        model: &batch.spec.model,
        operation: "GenerateContent",
        input_sha256: status.input.as_ref().map_or("", |i| i.sha256.as_str()),
    }
}
