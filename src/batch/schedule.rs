//! PURE: when to look at a batch's job, and by which means.

use std::time::Duration;

use jiff::Timestamp;

use super::memory::{Memory, Rest, Stimulus};
use super::plan::Env;
use crate::api::RESUBMIT_ANNOTATION;
use crate::api::batch::{GeminiBatch, GeminiBatchStatus, Run, Submission};
use crate::api::condition::batch_type;
use crate::controller::{Error, after, until};
use crate::gemini;
use crate::submit::Timing;

/// How far Gemini's clock may be behind ours.
const CLOCKS_APART: Duration = Duration::from_mins(5);

/// When to GET the job.
pub struct Look {
    pub due: bool,
    pub for_event: bool,
    pub at: Option<Timestamp>,
}

pub fn look(
    batch: &GeminiBatch,
    status: &GeminiBatchStatus,
    run: &Run,
    memory: &Memory,
    env: &Env<'_>,
) -> Look {
    let at = |at: Timestamp| Look { due: at <= env.now, for_event: false, at: Some(at) };
    let past = |from: Option<Timestamp>, pause: Duration| from.map_or(env.now, |from| after(from, pause));
    if ended(run, memory).is_some() {
        return Look { due: false, for_event: false, at: None };
    }
    // Recorded but never seen; or ended but not delivered, as a try failed: the job says where its results are, or
    // that they are gone. How soon the next try comes is `rest`'s to say.
    if run.state.is_none() || is_terminal(run) {
        return at(env.now);
    }
    let event = status.last_event.as_ref().filter(|e| {
        Some(&e.remote_name) == run.remote_name.as_ref() && Some(&e.id) != memory.handled_event.as_ref()
    });
    let mut best = event.map(|_| {
        let when = past(memory.event_looked, env.timing.look_spacing);
        Look { due: when <= env.now, for_event: true, at: Some(when) }
    });
    let mut consider = |candidate: Look| {
        if best.as_ref().is_none_or(|b| candidate.at < b.at) {
            best = Some(candidate);
        }
    };
    if memory.unconfirmed > 0
        && let Some(pause) = env.timing.look_again.get(memory.unconfirmed - 1)
    {
        consider(at(past(memory.looked, *pause)));
    }
    if batch.spec.cancelled && memory.cancel_sent {
        consider(at(past(memory.looked, env.timing.cancel_look)));
    }
    best.unwrap_or(Look { due: false, for_event: false, at: None })
}

/// Sweeps of one key fall on common ticks, so that one listing serves all its batches. One that no webhook tracks is never
/// swept more rarely than that asks for.
pub fn sweep_due(status: &GeminiBatchStatus, memory: &Memory, env: &Env<'_>) -> Option<Timestamp> {
    let tracked = tracking(status) == Some(true);
    let interval = if tracked { env.pace } else { env.pace.min(env.timing.sweep_bare) };
    let step = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    let begun = status.submitted_time.as_ref().or(status.start_time.as_ref());
    let last = memory.swept.or(begun.map(|t| t.0))?;
    let tick = last.as_millisecond().div_euclid(step).saturating_add(1).saturating_mul(step);
    Timestamp::from_millisecond(tick).ok()
}

/// Since when a job may have been created that a sweep for this batch looks for; the rest of the listing is not read. A job
/// that was adopted may be older than the attempt that it belongs to, and one that is one too many of any age.
pub fn oldest(status: &GeminiBatchStatus, job: Option<&gemini::Batch>, env: &Env<'_>) -> Timestamp {
    if duplicates_watch(status, env).is_some() {
        return Timestamp::MIN;
    }
    let intended = status.runs.iter().map(|run| run.intent_time.0);
    let created = intended.chain(job.and_then(|job| job.create_time)).min();
    created.map_or(Timestamp::MIN, |created| before(created, CLOCKS_APART))
}

/// When the next complete listing for a doubtful attempt is due: at once when the doubt is new to this process, then
/// spaced, and at the end of the first look.
pub fn doubt_listing_due(run: &Run, memory: &Memory, env: &Env<'_>) -> Timestamp {
    let Some(listed) = memory.doubt.as_ref().and_then(|doubt| doubt.last) else {
        return run.fenced_time.as_ref().map_or(run.intent_time.0, |fenced| fenced.0);
    };
    let spacing = if run.submission == Submission::Quarantined {
        env.timing.sweep_tracked
    } else {
        env.timing.listing_spacing
    };
    let since = env.uptime.saturating_sub(listed);
    let spaced = if since < spacing {
        after(env.now, spacing.saturating_sub(since))
    } else {
        before(env.now, since.saturating_sub(spacing))
    };
    // A second more, because the intent's time is kept in whole seconds.
    let first_look = after(run.intent_time.0, env.timing.first_look.saturating_add(Duration::from_secs(1)));
    if run.submission == Submission::Pending && before(env.now, since) < first_look {
        spaced.min(first_look)
    } else {
        spaced
    }
}

/// Of an object without an attempt that may have had one, before the cluster's data was restored from a backup: since when
/// a complete listing has something to say about that.
///
/// What this process has not seen from its beginning may have a past. Its beginning and the object's are times of two
/// clocks, hence the margin.
pub fn past_since(batch: &GeminiBatch, memory: &Memory, env: &Env<'_>) -> Option<Timestamp> {
    let began = before(env.now, env.uptime);
    let created = batch.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let is_older = created.is_none_or(|created| created < after(began, env.timing.listing_spacing));
    (is_older || memory.newest > 0).then(|| memory.blank.unwrap_or(env.now))
}

/// Since the input file of a fenced attempt was proven gone.
pub fn since_fence(run: &Run, env: &Env<'_>) -> Option<Duration> {
    run.fenced_time.as_ref().map(|fenced| until(env.now, fenced.0))
}

/// How long to wait before a proof is tried again.
pub fn proof_pause(memory: &Memory, env: &Env<'_>) -> Duration {
    memory.unproven.map_or(Duration::ZERO, |tried| {
        env.timing.listing_spacing.saturating_sub(env.uptime.saturating_sub(tried))
    })
}

/// How old a listing may be for a proof that is about to be tried. There must be one by the key that tries: with another key
/// the job may not have shown, and it would lose its input file. As a rule it is the one that led to the fence.
pub fn proof_listing_since(run: &Run, memory: &Memory, env: &Env<'_>) -> Option<Timestamp> {
    let is_tried = run.submission == Submission::Fenced
        && run.fenced_time.is_none()
        && proof_pause(memory, env).is_zero();
    is_tried.then(|| before(env.now, env.timing.listing_spacing))
}

/// Until when jobs of closed attempts are looked for, if any attempt was closed: whoever said that there is none may
/// have been wrong.
pub fn duplicates_watch(status: &GeminiBatchStatus, env: &Env<'_>) -> Option<Timestamp> {
    let run = status.runs.last()?;
    let closed = match run.submission {
        Submission::Abandoned | Submission::Fenced => true,
        Submission::Recorded | Submission::Pending | Submission::Quarantined => run.attempt > 1,
    };
    let from = run.fenced_time.as_ref().map_or(run.intent_time.0, |fenced| fenced.0);
    let end = after(from, env.timing.duplicates_watch);
    (closed && end > env.now).then_some(end)
}

fn before(at: Timestamp, duration: Duration) -> Timestamp {
    jiff::SignedDuration::try_from(duration)
        .ok()
        .and_then(|d| at.checked_sub(d).ok())
        .unwrap_or(Timestamp::MIN)
}

/// Kubernetes keeps whole seconds: an intent may be up to a second younger than it says.
pub fn age(run: &Run, env: &Env<'_>) -> Duration {
    until(env.now, run.intent_time.0).saturating_sub(Duration::from_secs(1))
}

/// How long a refused attempt still rests: longer with each refusal, and as long as the provider says.
pub fn pause_left(run: &Run, memory: &Memory, env: &Env<'_>) -> Duration {
    if run.submission != Submission::Abandoned {
        return Duration::ZERO;
    }
    let own = rested(run, env);
    until(memory.retry_at.map_or(own, |told| told.max(own)), env.now)
}

/// The job of this run, if a look of this process has shown its end. It stays true when a write that followed came too
/// late; after a delivery that failed, another look is worth its call.
pub fn ended<'a>(run: &Run, memory: &'a Memory) -> Option<&'a gemini::Batch> {
    let job = memory.job.as_ref().filter(|_| memory.rest.is_none())?;
    (job.is_terminal() && run.remote_name.as_deref() == Some(job.name.as_str())).then_some(job)
}

/// A listing that began at this time or later shows what a closed attempt left, if anything.
pub fn rested(run: &Run, env: &Env<'_>) -> Timestamp {
    let refusals = u32::try_from(run.attempt.saturating_sub(1)).unwrap_or(0);
    after(run.intent_time.0, Timing::pause(env.timing.attempt_pause, env.timing.attempt_pause_max, refusals))
}

pub fn is_terminal(run: &Run) -> bool {
    run.state.as_deref().is_some_and(|s| ["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"].contains(&s))
}

pub fn tracking(status: &GeminiBatchStatus) -> Option<bool> {
    crate::api::condition::get(&status.conditions, batch_type::WEBHOOK_TRACKED).map(|c| c.status == "True")
}

/// What a wake may find new.
pub fn stimulus(batch: &GeminiBatch) -> Stimulus {
    let annotations = batch.metadata.annotations.as_ref();
    Stimulus {
        generation: batch.metadata.generation,
        is_deleted: batch.metadata.deletion_timestamp.is_some(),
        approval: annotations.and_then(|a| a.get(RESUBMIT_ANNOTATION)).cloned(),
        event: batch.status.as_ref().and_then(|s| s.last_event.as_ref()).map(|e| e.id.clone()),
    }
}

/// The pause after a failure; `failures` came before it in a row. It holds against the wakes of our own writes, which
/// would otherwise make each try begin as soon as the last one was written down. Nine tenths, the least that the
/// runtime's jittered requeue waits.
pub fn rest(
    batch: &GeminiBatch,
    error: &Error,
    failures: u32,
    timing: &Timing,
    now: Timestamp,
) -> Option<Rest> {
    let longest = match error {
        // Read again, and at once.
        Error::Conflict => return None,
        // The same object will do it again; nobody else is to wait for that.
        Error::Panicked => timing.attempt_pause_max,
        Error::Kube(_) => timing.kube_retry_max,
        _ => timing.retry_max,
    };
    let own = Timing::pause(timing.retry, longest, failures).mul_f64(0.9);
    let pause = error.retry_after().map_or(own, |asked| asked.max(own));
    Some(Rest { until: after(now, pause), stimulus: stimulus(batch) })
}

/// How long the batch still rests, if it does.
pub fn resting(batch: &GeminiBatch, memory: &Memory, now: Timestamp) -> Option<Duration> {
    let rest = memory.rest.as_ref().filter(|rest| rest.stimulus == stimulus(batch))?;
    Some(until(rest.until, now)).filter(|left| !left.is_zero())
}
