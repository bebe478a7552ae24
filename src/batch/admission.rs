//! PURE: everything that is checked before anything is spent, then the upload, then the durable intent.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use super::observed::{InputProblem, ModelFacts, Observed, SinkProblem, Tracking};
use super::plan::{Env, Plan, Step, claim_of, place};
use super::submission::open_run;
use crate::api::SUBMIT_KEY_ANNOTATION;
use crate::api::batch::{GeminiBatch, GeminiBatchStatus, Phase, Run, WebhookMode};
use crate::api::condition::{Is, batch_type};
use crate::controller::{Credentials, Next, after, is_claimed, until};
use crate::submit;

/// Everything that is checked before anything is spent, then the upload, then the intent.
pub fn admission(batch: &GeminiBatch, mut draft: Draft, n: i32, seen: &Observed, env: &Env<'_>) -> Plan {
    draft.phase(Phase::Queued);
    if let Some(pause) = credentials_problem(&mut draft, seen) {
        return draft.plan(Step::None, Next::After(env.timing.secret_reread.min(pause)));
    }
    let Some(Credentials::Ready { fingerprint }) = &seen.credentials else {
        return draft.plan(Step::None, Next::Now);
    };
    if let Some(annotation) = claim(batch, &draft.status, fingerprint, env) {
        return draft.plan(Step::Claim { annotation }, Next::Now);
    }
    if let Some(ModelFacts::Unknown(message)) = &seen.model {
        draft.set(batch_type::SUBMITTED, Is::False, "Rejected", message);
        return draft.fail(Phase::Failed, "Rejected", message);
    }
    draft.set(batch_type::ADMITTED, Is::True, "Admitted", "");
    let Some(input) = &seen.input else { return draft.plan(Step::None, Next::Now) };
    let facts = match input {
        Ok(facts) => facts,
        Err(InputProblem::NotFound(message)) => return wait_for_input(draft, "SourceNotFound", message, env),
        Err(InputProblem::Forbidden(message)) => {
            return wait_for_input(draft, "SourceForbidden", message, env);
        }
        Err(InputProblem::Invalid { reason, message }) => {
            draft.set(batch_type::INPUT_READY, Is::False, reason, message);
            return draft.fail(Phase::Failed, "InvalidInput", message);
        }
    };
    match &seen.sink {
        Some(Err(SinkProblem::Forbidden(message))) => {
            draft.set(batch_type::RESULTS_DELIVERED, Is::False, "SinkForbidden", message);
            draft.stalled("SinkForbidden", message);
            return draft.plan(Step::None, Next::After(env.timing.secret_reread));
        }
        Some(Err(SinkProblem::TooLarge(message))) => {
            draft.set(batch_type::INPUT_READY, Is::False, "TooLarge", message);
            return draft.fail(Phase::Failed, "InvalidInput", message);
        }
        Some(Ok(())) => draft.set(batch_type::RESULTS_DELIVERED, Is::False, "NotStarted", ""),
        None => return draft.plan(Step::None, Next::Now),
    }
    let submitted = draft.status.input.as_ref().filter(|_| draft.status.start_time.is_some());
    if submitted.is_some_and(|submitted| submitted.sha256 != facts.sha256) {
        let message =
            "the input changed since it was first submitted; put it back, or create a new GeminiBatch";
        draft.set(batch_type::INPUT_READY, Is::False, "InputDrift", message);
        draft.stalled("InputDrift", message);
        return draft.plan(Step::None, Next::After(env.timing.secret_reread));
    }
    let staged =
        draft.status.input.as_ref().filter(|s| s.sha256 == facts.sha256).and_then(|s| s.file.clone());
    let Some(file) = staged.filter(|_| seen.file_usable != Some(false)) else {
        draft.set(batch_type::INPUT_READY, Is::False, "Staging", "uploading the requests");
        draft.phase(Phase::Staging);
        draft.progressing("Staging", "");
        return draft.plan(Step::Stage, Next::Now);
    };
    if !seen.gate.is_zero() {
        let message = "Gemini has refused submissions with this API key for its quota; they are tried one after another";
        draft.set(batch_type::SUBMITTED, Is::False, "RateLimited", message);
        draft.progressing("RateLimited", message);
        return draft.plan(Step::None, Next::After(seen.gate));
    }
    if let Some((left, message)) = address_awaited(batch, seen, env) {
        draft.set(batch_type::WEBHOOK_TRACKED, Is::False, "WebhookNotReady", &message);
        return draft.plan(Step::None, Next::After(left.min(env.timing.retry)));
    }
    let webhook_uri = match &seen.tracking {
        Some(Tracking::Dynamic { url, .. }) => Some(url.clone()),
        _ => None,
    };
    let rows = draft.status.input.as_ref().map_or(0, |input| input.rows);
    let marker = submit::marker(env.secret, draft.key(), n, &claim_of(batch, &draft.status));
    let open = open_run(n, env.nonce, marker, fingerprint, env);
    intend(draft, Run { input_file: file.name, rows, webhook_uri, ..open }, env)
}

/// How much longer a new batch that asks for an address waits for one: it cannot be given to the job later. What is older,
/// or waited in vain, goes on without, and the sweep finds its end.
fn address_awaited(batch: &GeminiBatch, seen: &Observed, env: &Env<'_>) -> Option<(Duration, String)> {
    let Some(Tracking::NotReady(why)) = &seen.tracking else { return None };
    let created = batch.metadata.creation_timestamp.as_ref()?.0;
    let end = after(created, env.timing.sweep_bare);
    let awaited = batch.spec.webhook.mode == WebhookMode::Dynamic && end > env.now;
    awaited.then(|| {
        (until(end, env.now), format!("{why}. The job is submitted without its address at {end:.0}"))
    })
}

fn wait_for_input(mut draft: Draft, reason: &str, message: &str, env: &Env<'_>) -> Plan {
    draft.set(batch_type::INPUT_READY, Is::False, reason, message);
    draft.stalled(reason, message);
    draft.plan(Step::None, Next::After(env.timing.secret_reread))
}

/// The durable intent. Only the process whose compare-and-swap of this status succeeded may POST.
fn intend(mut draft: Draft, run: Run, env: &Env<'_>) -> Plan {
    draft.status.start_time.get_or_insert(Time(env.now));
    draft.status.runs = vec![run];
    draft.set(batch_type::SUBMITTED, Is::False, "Submitting", "");
    draft.phase(Phase::Submitting);
    draft.progressing("Submitting", "");
    draft.plan(Step::Post { nonce: env.nonce.into() }, Next::Now)
}

/// The annotation that must stand before anything leaves the process, if it does not stand yet.
pub fn claim(
    batch: &GeminiBatch,
    status: &GeminiBatchStatus,
    fingerprint: &str,
    env: &Env<'_>,
) -> Option<String> {
    let key = &status.identity.as_ref()?.submit_key;
    let (namespace, name) = place(batch);
    let wanted = submit::annotation(env.secret, key, fingerprint, namespace, name);
    let annotated = batch.metadata.annotations.as_ref().and_then(|a| a.get(SUBMIT_KEY_ANNOTATION));
    (annotated != Some(&wanted) || !is_claimed(batch)).then_some(wanted)
}

/// Says what is wrong with the API key, if anything, and how soon to look again.
pub fn credentials_problem(draft: &mut Draft, seen: &Observed) -> Option<Duration> {
    let (reason, message) = match seen.credentials.as_ref()? {
        Credentials::Ready { .. } => {
            if draft.has(batch_type::ADMITTED) {
                draft.set(batch_type::ADMITTED, Is::True, "Admitted", "");
            }
            return None;
        }
        Credentials::NotFound(message) => ("CredentialsNotFound", message),
        Credentials::Refused(message) => ("CredentialsInvalid", message),
    };
    draft.set(batch_type::ADMITTED, Is::False, reason, message);
    draft.stalled(reason, message);
    Some(Duration::MAX)
}
