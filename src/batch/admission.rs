//! PURE: everything that is checked before anything is spent, then the upload, then the durable intent.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use super::observed::{InputProblem, ModelFacts, Observed, SinkProblem};
use super::plan::{Env, Plan, Step, claim_of, place};
use super::submission::open_run;
use crate::api::SUBMIT_KEY_ANNOTATION;
use crate::api::batch::{GeminiBatch, GeminiBatchStatus, Phase, Run};
use crate::api::condition::{Is, batch_type};
use crate::controller::{Credentials, Next, is_claimed};
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
    intend(batch, draft, n, fingerprint, &file.name, env)
}

fn wait_for_input(mut draft: Draft, reason: &str, message: &str, env: &Env<'_>) -> Plan {
    draft.set(batch_type::INPUT_READY, Is::False, reason, message);
    draft.stalled(reason, message);
    draft.plan(Step::None, Next::After(env.timing.secret_reread))
}

/// The durable intent. Only the process whose compare-and-swap of this status succeeded may POST.
fn intend(
    batch: &GeminiBatch,
    mut draft: Draft,
    n: i32,
    fingerprint: &str,
    file: &str,
    env: &Env<'_>,
) -> Plan {
    let rows = draft.status.input.as_ref().map_or(0, |i| i.rows);
    let marker = submit::marker(env.secret, draft.key(), n, &claim_of(batch, &draft.status));
    draft.status.start_time.get_or_insert(Time(env.now));
    draft.status.runs =
        vec![Run { input_file: file.into(), rows, ..open_run(n, env.nonce, marker, fingerprint, env) }];
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
