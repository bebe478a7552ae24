//! PURE: everything until the job's name is recorded. `submit` decides; here its words become status, and the status
//! becomes its words.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::admission::{admission, claim, credentials_problem};
use super::draft::Draft;
use super::memory::Memory;
use super::observed::{JobFacts, Observed};
use super::plan::{Env, Plan, RUN, Step};
use super::schedule::{age, doubt_listing_due, ended, past_since, pause_left, proof_pause, since_fence};
use crate::api::batch::{Ambiguity, GeminiBatch, GeminiBatchStatus, Listings, Phase, Run, Submission};
use crate::api::condition::{Is, batch_type, truncate};
use crate::api::{RESUBMIT_ANNOTATION, SUBMIT_KEY_ANNOTATION};
use crate::controller::{Credentials, Next, after, is_claimed, until};
use crate::gemini;
use crate::submit::{self, AttemptState, Wish};

/// Nonce of an attempt that is known only by the annotation that survived it.
const RESTORED: &str = "restored";

/// What the user wants of the batch as a whole.
pub fn wish(batch: &GeminiBatch) -> Wish {
    if batch.metadata.deletion_timestamp.is_some() || batch.spec.cancelled {
        Wish::Stop
    } else if batch.spec.suspend {
        Wish::Hold
    } else {
        Wish::Go
    }
}

/// Whether nothing is known of this attempt but that there was one.
pub fn is_restored(run: &Run) -> bool {
    run.nonce == RESTORED
}

/// The attempt that an object came back with, without its status.
pub fn restored_run(key: &str, fingerprint: &str, env: &Env<'_>) -> Run {
    Run {
        message: Some("the object came back without its status; looking for its job".into()),
        ..open_run(1, RESTORED, format!("gb1.{key}."), fingerprint, env)
    }
}

/// An attempt whose request may be sent from now on.
pub fn open_run(attempt: i32, nonce: &str, marker: String, fingerprint: &str, env: &Env<'_>) -> Run {
    Run {
        name: RUN.into(),
        attempt,
        submission: Submission::Pending,
        state: None,
        nonce: nonce.into(),
        holder: env.holder.into(),
        marker,
        input_file: String::new(),
        key_fingerprint: fingerprint.into(),
        webhook_uri: None,
        intent_time: Time(env.now),
        fenced_files: vec![],
        fenced_time: None,
        fenced_key_fingerprint: None,
        listings: None,
        remote_name: None,
        submit_time: None,
        end_time: None,
        rows: 0,
        message: None,
    }
}

/// Whether the recorded job of this run failed for want of its input file, as the newest look shows it.
pub fn has_lost_input(run: &Run, seen: &Observed, memory: &Memory) -> bool {
    match &seen.job {
        Some(JobFacts::Found(job)) => job.lost_input(),
        Some(JobFacts::Gone) => false,
        None => ended(run, memory).is_some_and(gemini::Batch::lost_input),
    }
}

/// The decision about a batch whose newest run has no job yet, or one that counts for nothing.
pub fn submission(
    batch: &GeminiBatch,
    mut draft: Draft,
    newest: Option<Run>,
    seen: &Observed,
    memory: &Memory,
    env: &Env<'_>,
) -> Plan {
    if newest.is_some()
        && let Some(pause) = credentials_problem(&mut draft, seen)
    {
        return draft.plan(Step::None, Next::After(env.timing.secret_reread.min(pause)));
    }
    if let Some(run) = newest.as_ref().filter(|run| run.submission != Submission::Abandoned) {
        if is_restored(run) && !is_claimed(batch) {
            let annotation = batch.metadata.annotations.as_ref().and_then(|a| a.get(SUBMIT_KEY_ANNOTATION));
            let annotation = annotation.cloned().unwrap_or_default();
            return draft.plan(Step::Claim { annotation }, Next::Now);
        }
        if draft.status.input.is_none() {
            return restored_input(draft, seen, env);
        }
    }
    let attempt = newest.as_ref().map(|run| attempt(run, seen, memory, env));
    let facts = submit::Seen {
        listing: match &newest {
            Some(run) => listing(run, seen, memory, env),
            None => past(seen),
        },
        approved: approved(batch, &draft.status),
        wish: wish(batch),
        ambiguity: match batch.spec.ambiguity {
            Ambiguity::ResubmitAfterProof => submit::Ambiguity::ResubmitAfterProof,
            Ambiguity::Quarantine => submit::Ambiguity::Quarantine,
        },
        // Without a key nothing can be looked at, and admission says so.
        history: match (&seen.credentials, past_since(batch, memory, env)) {
            (Some(Credentials::Ready { .. }), Some(_)) => submit::History::Unknown,
            _ => submit::History::Known,
        },
        lost_input: newest.as_ref().is_some_and(|run| has_lost_input(run, seen, memory)),
    };
    match (submit::step(attempt.as_ref(), &facts, env.timing), newest) {
        (submit::Step::Intend { n }, _) => admission(batch, draft, n, seen, env),
        (submit::Step::Restore, _) => restore(batch, draft, seen, env),
        (submit::Step::Rest, _) => rest(batch, draft),
        (submit::Step::Wait(pause), None) => draft.plan(Step::None, Next::After(pause)),
        (submit::Step::Wait(pause), Some(run)) => {
            if run.submission == Submission::Abandoned {
                return draft.plan(Step::None, Next::After(pause));
            }
            draft.plan(Step::None, next_look(&run, memory, env))
        }
        (submit::Step::Adopt { name }, Some(_)) => {
            draft.adopt(&name);
            draft.plan(Step::None, Next::Now)
        }
        (submit::Step::Foreign { name }, Some(_)) => foreign(draft, &name, env),
        (submit::Step::Count, Some(run)) => count(draft, &run, memory, env),
        (submit::Step::Fence, Some(run)) => fence(draft, &run, seen),
        (submit::Step::Prove, Some(run)) => {
            let files = if is_restored(&run) { run.fenced_files } else { vec![run.input_file] };
            draft.plan(Step::Fence { files }, Next::Now)
        }
        (submit::Step::Close, Some(run)) => close(draft, &run),
        (submit::Step::Quarantine, Some(run)) => quarantine(batch, draft, &run, env),
        (submit::Step::Unproven, Some(run)) => {
            unproven(&mut draft);
            draft.plan(Step::None, next_look(&run, memory, env))
        }
        (submit::Step::Done, _) | (_, None) => draft.plan(Step::None, Next::Await),
    }
}

/// The cluster's data is older than the job: as with an object that came back without its status.
fn restore(batch: &GeminiBatch, mut draft: Draft, seen: &Observed, env: &Env<'_>) -> Plan {
    let Some(Credentials::Ready { fingerprint }) = &seen.credentials else {
        return draft.plan(Step::None, Next::Now);
    };
    if let Some(annotation) = claim(batch, &draft.status, fingerprint, env) {
        return draft.plan(Step::Claim { annotation }, Next::Now);
    }
    let key = draft.key().to_owned();
    draft.status.start_time.get_or_insert(Time(env.now));
    draft.status.runs = vec![restored_run(&key, fingerprint, env)];
    draft.phase(Phase::Submitting);
    draft.plan(Step::None, Next::Now)
}

/// The tag of a job speaks of the input, so a restored object needs its input before it can know its job.
fn restored_input(mut draft: Draft, seen: &Observed, env: &Env<'_>) -> Plan {
    match &seen.input {
        Some(Ok(facts)) => {
            draft.status.input = Some(facts.into());
            draft.plan(Step::None, Next::Now)
        }
        Some(Err(problem)) => {
            let message = format!(
                "the object came back without its status, and its job can only be recognised by its input: {}",
                problem.message()
            );
            draft.set(batch_type::INPUT_READY, Is::False, problem.reason(), &message);
            draft.stalled(problem.reason(), &message);
            draft.plan(Step::None, Next::After(env.timing.secret_reread))
        }
        None => draft.plan(Step::None, Next::After(env.timing.secret_reread)),
    }
}

/// No attempt is open, and none is wanted.
fn rest(batch: &GeminiBatch, mut draft: Draft) -> Plan {
    if batch.spec.cancelled {
        let message = if draft.status.runs.is_empty() {
            "spec.cancelled was set before anything was submitted"
        } else {
            "spec.cancelled was set, and no job was found at Gemini"
        };
        return draft.fail(Phase::Cancelled, "Cancelled", message);
    }
    draft.set(
        batch_type::ADMITTED,
        Is::False,
        "Suspended",
        "spec.suspend is true; nothing happens at Gemini",
    );
    draft.phase(Phase::Suspended);
    draft.settled("Suspended");
    draft.plan(Step::None, Next::Await)
}

fn foreign(mut draft: Draft, name: &str, env: &Env<'_>) -> Plan {
    let message = format!(
        "job {name} carries this batch's key with a tag that was not made for it (another operator's, or forged); it is \
         neither adopted nor is another one submitted. Delete that job at Gemini, or delete this batch"
    );
    draft.set(batch_type::SUBMITTED, Is::Unknown, "MarkerForeign", &message);
    draft.stalled("MarkerForeign", &message);
    draft.plan(Step::None, Next::After(env.timing.listing_spacing))
}

fn count(mut draft: Draft, run: &Run, memory: &Memory, env: &Env<'_>) -> Plan {
    draft.run(|run| {
        let complete = run.listings.as_ref().map_or(0, |l| l.complete).saturating_add(1);
        run.listings = Some(Listings { complete, last_time: Some(Time(env.now)) });
    });
    let message = match &run.fenced_time {
        Some(fenced) => format!(
            "the input file of attempt {n} is gone since {since:.0}, so its request can do nothing any more; waiting \
             until {until:.0} for a job that it may have made before. If none shows, attempt {next} is made. Nothing \
             is paid twice",
            n = run.attempt,
            since = fenced.0,
            until = after(fenced.0, env.timing.listing_lag),
            next = run.attempt.saturating_add(1),
        ),
        None => format!(
            "the answer to the submission of attempt {n} was lost; looking for its job in complete listings until \
             {until:.0}. Nothing is submitted meanwhile, so nothing is paid twice",
            n = run.attempt,
            until = after(run.intent_time.0, env.timing.first_look),
        ),
    };
    doubt(&mut draft, &message);
    draft.plan(Step::None, next_look(run, memory, env))
}

/// When the next listing for a doubt is due, or the next try to prove a fence.
fn next_look(run: &Run, memory: &Memory, env: &Env<'_>) -> Next {
    let listing = until(doubt_listing_due(run, memory, env), env.now);
    let proof = Some(proof_pause(memory, env)).filter(|pause| !pause.is_zero());
    let pause = proof.map_or(listing, |proof| proof.min(listing));
    Next::After(pause.max(Duration::from_millis(50)))
}

fn fence(mut draft: Draft, run: &Run, seen: &Observed) -> Plan {
    // By name, so that whoever deletes them late deletes no file of a later attempt.
    let files = seen.files.clone().unwrap_or_default();
    draft.run(|run| {
        run.submission = Submission::Fenced;
        run.fenced_files = files;
        run.listings = None;
    });
    let message = format!(
        "no job of attempt {} was found; deleting its input file, so that its request can do nothing any more. Nothing is \
         submitted meanwhile, so nothing is paid twice",
        run.attempt
    );
    doubt(&mut draft, &message);
    draft.plan(Step::None, Next::Now)
}

/// What the act of fencing proved.
pub fn fenced(draft: &mut Draft, fingerprint: &str, env_now: jiff::Timestamp, lag: Duration) {
    let mut attempt = 0;
    draft.run(|run| {
        run.fenced_time = Some(MicroTime(env_now));
        run.fenced_key_fingerprint = Some(fingerprint.to_owned());
        run.listings = None;
        attempt = run.attempt;
    });
    let message = format!(
        "the input file of attempt {attempt} is gone, so its request can do nothing any more; waiting until {:.0} for a job \
         that it may have made before. Nothing is paid twice",
        after(env_now, lag)
    );
    doubt(draft, &message);
}

fn close(mut draft: Draft, run: &Run) -> Plan {
    let (why, message) = match &run.remote_name {
        Some(job) => (
            format!(
                "its job {job} failed because the input file was gone: it ran no row, and nothing is paid"
            ),
            format!(
                "{job} of attempt {} failed because its input file was gone; it ran no row, and nothing is paid. The input \
                 is uploaded again and submitted once more",
                run.attempt
            ),
        ),
        None => (
            "it left no job, and its input file is gone".to_owned(),
            format!("attempt {} left no job and can leave none any more", run.attempt),
        ),
    };
    draft.run(|run| {
        run.submission = Submission::Abandoned;
        run.message = Some(truncate(&why, 256).to_owned());
    });
    if let Some(input) = draft.status.input.as_mut() {
        input.file = None;
    }
    draft.set(batch_type::SUBMITTED, Is::False, "Submitting", &message);
    draft.phase(Phase::Submitting);
    draft.progressing("Submitting", &message);
    draft.plan(Step::None, Next::Now)
}

fn quarantine(batch: &GeminiBatch, mut draft: Draft, run: &Run, env: &Env<'_>) -> Plan {
    draft.run(|run| run.submission = Submission::Quarantined);
    let message = format!(
        "no job of attempt {n} was found in {listings} complete listings, yet its request may still be under way, and \
         spec.ambiguity is Quarantine. Listing goes on, and a job that appears is adopted. To submit again, having \
         looked at Gemini for displayName {marker}, run: kubectl annotate geminibatch {name} \
         {RESUBMIT_ANNOTATION}={key}.{n}",
        listings = run.listings.as_ref().map_or(1, |l| l.complete.saturating_add(1)),
        marker = run.marker,
        name = batch.metadata.name.as_deref().unwrap_or_default(),
        key = draft.key(),
        n = run.attempt,
    );
    draft.set(batch_type::SUBMITTED, Is::Unknown, "Quarantined", &message);
    draft.stalled("Quarantined", &message);
    draft.plan(Step::None, Next::After(env.timing.sweep_tracked))
}

fn doubt(draft: &mut Draft, message: &str) {
    draft.set(batch_type::SUBMITTED, Is::Unknown, "OutcomeUnknown", message);
    draft.phase(Phase::Submitting);
    draft.progressing("OutcomeUnknown", message);
}

/// The key in hand cannot tell.
pub fn unproven(draft: &mut Draft) {
    let message = "the answer to the submission was lost, and the present API key cannot prove that its job does not \
                   exist (is it a key of another Google project?). A job that shows is adopted, nothing else is submitted; \
                   put the key that the attempt was made with back into the Secret of spec.apiKeySecretRef";
    draft.set(batch_type::SUBMITTED, Is::Unknown, "ProjectUnproven", message);
    draft.stalled("ProjectUnproven", message);
}

/// The newest attempt in the protocol's words.
pub fn attempt(run: &Run, seen: &Observed, memory: &Memory, env: &Env<'_>) -> submit::Attempt {
    let is_present_key = |fingerprint: &str| matches!(&seen.credentials, Some(Credentials::Ready { fingerprint: present }) if present == fingerprint);
    submit::Attempt {
        n: run.attempt,
        state: state(run.submission),
        in_flight: memory.in_flight.as_ref() == Some(&run.nonce),
        restored: is_restored(run),
        same_key: is_present_key(&run.key_fingerprint),
        proof: run.fenced_time.as_ref().map(|_| submit::Proof {
            same_key: run.fenced_key_fingerprint.as_deref().is_some_and(is_present_key),
        }),
        listings: run.listings.as_ref().map_or(0, |l| u32::try_from(l.complete).unwrap_or(0)),
        pause: match run.submission {
            Submission::Abandoned => pause_left(run, memory, env),
            _ => proof_pause(memory, env),
        },
    }
}

/// Where an attempt stands, in the protocol's words.
pub fn state(submission: Submission) -> AttemptState {
    match submission {
        Submission::Pending => AttemptState::Pending,
        Submission::Fenced => AttemptState::Fenced,
        Submission::Recorded => AttemptState::Recorded,
        Submission::Abandoned => AttemptState::Abandoned,
        Submission::Quarantined => AttemptState::Quarantined,
    }
}

/// What a listing shows of attempts that the object does not know of.
fn past(seen: &Observed) -> Option<submit::Listing> {
    let jobs = seen.listing.as_ref()?.jobs.clone();
    Some(submit::Listing { after: Duration::ZERO, spaced: true, jobs })
}

fn listing(run: &Run, seen: &Observed, memory: &Memory, env: &Env<'_>) -> Option<submit::Listing> {
    let listing = seen.listing.as_ref()?;
    let began_before_now = until(env.now, listing.started);
    let since = since_fence(run, env).unwrap_or_else(|| age(run, env));
    let spacing = env.timing.listing_spacing;
    // Both clocks have to agree: the wall's spans processes, the process's own does not jump.
    let last = run.listings.as_ref().and_then(|l| l.last_time.as_ref());
    let by_the_wall = last.is_none_or(|last| until(listing.started, last.0) >= spacing);
    let by_our_own = memory.doubt.as_ref().is_some_and(|d| env.uptime.saturating_sub(d.counted) >= spacing);
    // A listing may be older than the look that closed the attempt, and shows a job that is adopted and closed by turns.
    let is_known_lost =
        |name: &str| memory.job.as_ref().is_some_and(|job| job.name == name && job.lost_input());
    let mut jobs = listing.jobs.clone();
    for job in &mut jobs {
        job.lost_input |= is_known_lost(&job.name);
    }
    Some(submit::Listing {
        after: since.saturating_sub(began_before_now),
        spaced: by_the_wall && by_our_own,
        jobs,
    })
}

/// The number of the attempt that a person lets be followed by another one.
fn approved(batch: &GeminiBatch, status: &GeminiBatchStatus) -> Option<i32> {
    let text = batch.metadata.annotations.as_ref()?.get(RESUBMIT_ANNOTATION)?;
    let (key, n) = text.rsplit_once('.')?;
    (key == status.identity.as_ref()?.submit_key).then(|| n.parse().ok()).flatten()
}
