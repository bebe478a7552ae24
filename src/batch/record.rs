//! PURE: what the outcome of a step does to the status.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use super::observed::InputFacts;
use super::submission::{self, state};
use crate::api::batch::{
    ErrorSummary, GeminiBatch, GeminiBatchStatus, InputFile, InputStatus, OutputStatus, Phase, RowCounts,
    Submission, Usage,
};
use crate::api::condition::{self, Is, batch_type, truncate};
use crate::gemini::{self, State};
use crate::rows::{Class, Harvest, Order};
use crate::sink::{Published, SinkError};
use crate::submit::{self, Conclusion, Refusal, Standing, Verdict};

/// The input stands at Gemini.
pub fn staged(batch: &GeminiBatch, facts: &InputFacts, file: InputFile, now: Timestamp) -> GeminiBatchStatus {
    let mut draft = Draft::new(batch, now);
    let message = format!("{} rows, {} bytes in {}", facts.rows, facts.bytes, file.name);
    draft.status.input = Some(InputStatus { file: Some(file), ..facts.into() });
    draft.status.rows = Some(RowCounts { total: facts.rows, pending: facts.rows, ..RowCounts::default() });
    draft.status.progress = Some(format!("0/{}", facts.rows));
    draft.set(batch_type::INPUT_READY, Is::True, "Staged", &message);
    draft.status
}

/// What the POST's end does to the status; `None` if that is nothing.
pub fn posted(
    batch: &GeminiBatch,
    nonce: &str,
    verdict: &Verdict,
    now: Timestamp,
) -> Option<GeminiBatchStatus> {
    let mut draft = Draft::new(batch, now);
    let standing =
        draft.status.runs.last().map(|run| Standing { nonce: &run.nonce, state: state(run.submission) });
    match (submit::conclude(standing, nonce, verdict), verdict) {
        (Conclusion::Record, Verdict::Yes(name)) => {
            draft.run(|run| {
                run.submission = Submission::Recorded;
                run.remote_name = Some(name.clone());
                run.submit_time = Some(Time(now));
                run.message = None;
            });
            draft.status.submitted_time = Some(Time(now));
            draft.set(batch_type::SUBMITTED, Is::True, "Submitted", name);
            draft.phase(Phase::Pending);
            draft.progressing("Pending", "");
        }
        (Conclusion::Abandon { forget_file }, Verdict::No(refusal)) => {
            refused(&mut draft, refusal);
            if let Some(input) = draft.status.input.as_mut().filter(|_| forget_file) {
                input.file = None;
            }
        }
        (Conclusion::Doubt, Verdict::Ambiguous(why)) => {
            draft.run(|run| run.message = Some(truncate(why, 256).to_owned()));
            let message = format!(
                "it is not known whether Gemini took the request ({why}); looking for the job in complete listings. \
                 Nothing is submitted meanwhile, so nothing is paid twice"
            );
            draft.set(batch_type::SUBMITTED, Is::Unknown, "OutcomeUnknown", &message);
            draft.progressing("OutcomeUnknown", &message);
        }
        _ => return None,
    }
    Some(draft.status)
}

fn refused(draft: &mut Draft, refusal: &Refusal) {
    let (reason, message) = match refusal {
        Refusal::NotSent(why) => ("Submitting", format!("Gemini was not reached, nothing was sent: {why}")),
        Refusal::RateLimited { after, message } => {
            let after = after.map_or(String::new(), |d| format!("; it asks to wait {} s", d.as_secs()));
            (
                "RateLimited",
                format!("Gemini refused for its quota (429): {message}{after}. It is tried again"),
            )
        }
        Refusal::Credentials(message) => {
            ("Submitting", format!("Gemini refused the API key of spec.apiKeySecretRef: {message}"))
        }
        Refusal::Forbidden(message) => ("Submitting", format!("Gemini forbids it (403): {message}")),
        Refusal::Rejected(message) => ("Rejected", format!("Gemini rejected the job: {message}")),
    };
    draft.run(|run| {
        run.submission = Submission::Abandoned;
        run.message = Some(truncate(&message, 256).to_owned());
    });
    draft.set(batch_type::SUBMITTED, Is::False, reason, &message);
    if let Refusal::Rejected(_) = refusal {
        draft.failed(Phase::Failed, "Rejected", &message);
    } else {
        draft.phase(Phase::Queued);
        draft.progressing(reason, &message);
    }
}

/// The input file of a fenced attempt is proven gone.
pub fn fenced(batch: &GeminiBatch, fingerprint: &str, lag: Duration, now: Timestamp) -> GeminiBatchStatus {
    let mut draft = Draft::new(batch, now);
    submission::fenced(&mut draft, fingerprint, now, lag);
    draft.status
}

/// The input file of a fenced attempt could not be proven gone.
pub fn unproven(batch: &GeminiBatch, now: Timestamp) -> GeminiBatchStatus {
    let mut draft = Draft::new(batch, now);
    submission::unproven(&mut draft);
    draft.status
}

/// Results and what was published of them.
pub struct Delivery<'a> {
    pub job: &'a gemini::Batch,
    pub harvest: &'a Harvest,
    pub published: &'a Published,
    pub results_expire: Option<Timestamp>,
}

/// The end of a job whose results were delivered.
pub fn delivered(batch: &GeminiBatch, delivery: &Delivery<'_>, now: Timestamp) -> GeminiBatchStatus {
    let mut draft = Draft::new(batch, now);
    let harvest = delivery.harvest;
    let counts = count(harvest);
    let (total, failed) = (counts.total, counts.failed);
    draft.status.progress = Some(format!("{}/{total}", counts.succeeded));
    draft.status.usage = Some(Usage {
        input_tokens: harvest.usage.input,
        output_tokens: harvest.usage.output,
        thoughts_tokens: harvest.usage.thoughts,
        cached_tokens: harvest.usage.cached,
        total_tokens: harvest.usage.total,
        discarded_tokens: harvest.usage.discarded,
    });
    draft.status.errors = harvest
        .summaries()
        .into_iter()
        .map(|s| ErrorSummary {
            class: s.class.as_str().to_owned(),
            code: s.code,
            count: s.count,
            sample_key: s.sample_key,
            message: s.message,
        })
        .collect();
    draft.status.rows = Some(counts);
    let published = delivery.published.clone();
    draft.set(batch_type::RESULTS_DELIVERED, Is::True, "Delivered", &published.results_uri);
    draft.status.output = Some(OutputStatus {
        results_uri: published.results_uri,
        errors_uri: published.errors_uri,
        manifest_uri: published.manifest_uri,
        sha256: published.sha256,
        lines: published.lines,
        bytes: published.bytes,
        results_expire_time: delivery.results_expire.map(Time),
    });
    if harvest.order == Order::Output {
        let mut message = String::from(
            "the input changed or went after the submission: all answers are delivered, in the order of the job's \
             output; errors.jsonl names the failed rows without their requests",
        );
        if harvest.missing_unnamed > 0 {
            let _ =
                write!(message, "; {} rows have no line, their keys are not known", harvest.missing_unnamed);
        }
        draft.set(batch_type::INPUT_READY, Is::False, "InputDrift", &message);
    }
    let counted = format!("{} of {total} rows succeeded", total - failed);
    let limit = i64::from(batch.spec.success_policy.max_failed_percent);
    match delivery.job.state {
        _ if batch.spec.cancelled || delivery.job.state == State::Cancelled => {
            draft.failed(Phase::Cancelled, "Cancelled", &format!("{counted} before the job was cancelled"));
        }
        State::Failed | State::Expired => ended_badly(&mut draft, delivery.job),
        _ if failed == 0 => draft.complete(Phase::Succeeded, "Succeeded", &counted),
        _ if failed * 100 <= limit * total => {
            draft.complete(Phase::PartiallySucceeded, "PartiallySucceeded", &counted);
        }
        _ => {
            let message = format!(
                "{failed} of {total} rows failed, more than spec.successPolicy.maxFailedPercent ({limit} %) allows; \
                 errors.jsonl holds them, ready to be submitted again"
            );
            draft.failed(Phase::Failed, "TooManyFailedRows", &message);
        }
    }
    draft.status
}

/// The end of a job that left no results.
pub fn ended_without_results(batch: &GeminiBatch, job: &gemini::Batch, now: Timestamp) -> GeminiBatchStatus {
    let mut draft = Draft::new(batch, now);
    let total = draft.status.input.as_ref().map_or(0, |i| i.rows);
    draft.status.rows = Some(RowCounts {
        total,
        failed: total,
        by_class: [(Class::Missing.as_str().to_owned(), total)].into(),
        ..RowCounts::default()
    });
    match job.state {
        State::Cancelled => {
            draft.failed(Phase::Cancelled, "Cancelled", "the job was cancelled before any row was answered");
        }
        State::Succeeded => draft.failed(
            Phase::Failed,
            "ResultsExpired",
            "the job succeeded, but its results are not at Gemini any more; nothing was submitted again",
        ),
        _ => ended_badly(&mut draft, job),
    }
    draft.status
}

fn ended_badly(draft: &mut Draft, job: &gemini::Batch) {
    let said =
        job.error.as_ref().map_or(String::new(), |(code, message)| format!(": {message} (code {code})"));
    if job.state == State::Expired {
        draft.failed(Phase::Expired, "Expired", &format!("Gemini did not get to the job in time{said}"));
    } else {
        draft.failed(Phase::Failed, "RemoteFailed", &format!("the job failed at Gemini{said}"));
    }
}

/// The sink does not take the results; they are kept at Gemini and tried again.
pub fn undelivered(batch: &GeminiBatch, error: &SinkError, now: Timestamp) -> GeminiBatchStatus {
    let mut draft = Draft::new(batch, now);
    let (reason, message, is_a_persons) = match error {
        SinkError::Forbidden(message) => ("SinkForbidden", message.clone(), true),
        SinkError::Unavailable(message) => ("SinkUnavailable", message.clone(), false),
        // Not the end: a person may take them from Gemini, or name a sink that holds them.
        SinkError::TooLarge(message) => {
            let kept =
                draft.status.runs.last().and_then(|run| run.remote_name.as_deref()).unwrap_or("the job");
            let message = format!("{message}. The results of {kept} stay at Gemini until it deletes them");
            ("SinkUnavailable", message, true)
        }
    };
    draft.set(batch_type::RESULTS_DELIVERED, Is::False, reason, &message);
    if is_a_persons {
        draft.stalled(reason, &message);
    } else {
        draft.progressing(reason, &message);
    }
    draft.status
}

/// Whether the results were fetched, and the sink did not take them.
pub fn is_refused(status: &GeminiBatchStatus) -> bool {
    condition::get(&status.conditions, batch_type::RESULTS_DELIVERED)
        .is_some_and(|c| c.status == Is::False.as_str() && c.reason.starts_with("Sink"))
}

/// The results are not at Gemini any more: they can never be delivered. Where the sink did not take them while there
/// was time, that is the cause.
pub fn undeliverable(batch: &GeminiBatch, message: &str, now: Timestamp) -> GeminiBatchStatus {
    let mut draft = Draft::new(batch, now);
    let reason = if is_refused(&draft.status) { "SinkFailed" } else { "ResultsExpired" };
    draft.set(batch_type::RESULTS_DELIVERED, Is::False, "ResultsExpired", message);
    draft.failed(Phase::Failed, reason, message);
    draft.status
}

/// A pass failed for a reason that will pass; people read why.
pub fn retrying(batch: &GeminiBatch, message: &str, now: Timestamp) -> GeminiBatchStatus {
    let mut draft = Draft::new(batch, now);
    draft.progressing("Retrying", message);
    draft.status
}

fn count(harvest: &Harvest) -> RowCounts {
    RowCounts {
        total: harvest.total(),
        succeeded: harvest.succeeded(),
        failed: harvest.failed(),
        pending: 0,
        by_class: harvest.by_class.iter().map(|(class, count)| ((*class).to_owned(), *count)).collect(),
    }
}
