//! Deletion of a batch: what it has at Gemini goes first, then the finalizer. Less is validated here than elsewhere, on
//! purpose: a broken spec must not keep an object from going.

use std::time::Duration;

use jiff::Timestamp;
use kube::Resource;

use super::plan::{claim_of, is_ours, newest_run};
use super::points::Point;
use super::{Subject, files};
use crate::api::SUBMIT_KEY_ANNOTATION;
use crate::api::batch::{DeletionPolicy, Run, Submission};
use crate::api::condition::{batch_type, is_true};
use crate::controller::orphans::{self, Entry, ORPHANS_CONFIG_MAP};
use crate::controller::points::around;
use crate::controller::{Error, Found, Next, Note, after, is_claimed, publish, release, until};
use crate::gemini::{ApiKey, Batch, Class};
use crate::submit;

/// However late it is, a look gets so much time. It ends there, so that a Gemini that does not answer cannot hold the
/// object much longer than its timeout.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// What is left to do at Gemini.
enum Progress {
    Done,
    Again(Duration),
}

pub async fn pass(subject: &mut Subject<'_>) -> Result<Next, Error> {
    if !is_claimed(&subject.batch) {
        return Ok(Next::Await);
    }
    if subject.batch.spec.deletion_policy != DeletionPolicy::Orphan {
        let deadline = deadline(subject);
        let limit = until(deadline, Timestamp::now()).max(LAST_LOOK);
        let work = Box::pin(around(Point::Cleanup, dismantle(subject)));
        let work = tokio::time::timeout(limit, work).await;
        let again = match work.unwrap_or(Err(Error::TooSlow("the removal at Gemini", limit))) {
            Ok(Progress::Done) => None,
            Ok(Progress::Again(pause)) => Some((pause, "Gemini has not finished with the job".to_owned())),
            Err(Error::Conflict) => return Err(Error::Conflict),
            Err(error) => Some((subject.ctx.timing.cancel_look, error.to_string())),
        };
        if let Some((pause, why)) = again {
            let left = until(deadline, Timestamp::now());
            if !left.is_zero() {
                tracing::debug!(object = %subject.name(), %why, "deletion waits");
                return Ok(Next::After(pause.min(left).max(Duration::from_millis(20))));
            }
            if let Some(pause) = give_up(subject, &why).await {
                return Ok(Next::After(pause));
            }
        }
    }
    around(Point::Release, release(&subject.api, &subject.batch)).await?;
    subject.ctx.batch_memory.forget(&subject.uid());
    Ok(Next::Await)
}

fn deadline(subject: &Subject<'_>) -> Timestamp {
    let patience = subject.batch.spec.deletion_timeout.0 / subject.ctx.timing.divisor;
    after(deleted_at(subject), patience)
}

fn deleted_at(subject: &Subject<'_>) -> Timestamp {
    subject.batch.metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |t| t.0)
}

/// One look at what is left, and the next thing done about it.
async fn dismantle(subject: &mut Subject<'_>) -> Result<Progress, Error> {
    if !is_ours(&subject.batch) {
        // The status is lost, and a job may have been made all the same: it is looked for as at any other time.
        super::pass(subject).await?;
        return Ok(Progress::Again(Duration::ZERO));
    }
    let run = newest_run(&subject.batch).cloned();
    if let Some(run) = run.as_ref().filter(|run| is_open(run)) {
        // Whether there is a job is found out as ever; the wish is now that there be none.
        let next = super::pass(subject).await?;
        let settled = newest_run(&subject.batch).is_none_or(|now| now != run && !is_open(now));
        return Ok(Progress::Again(match next {
            _ if settled => Duration::ZERO,
            Next::After(pause) => pause,
            Next::Now => Duration::ZERO,
            Next::Await => subject.ctx.timing.listing_spacing,
        }));
    }
    let key = key(subject).await?;
    if let Some(run) = run
        && let Progress::Again(pause) = end_job(subject, &key, &run).await?
    {
        return Ok(Progress::Again(pause));
    }
    if subject.batch.spec.deletion_policy == DeletionPolicy::Delete
        && let Some(identity) = subject.batch.status.as_ref().and_then(|s| s.identity.as_ref())
    {
        let prefix = submit::file_prefix(&identity.submit_key);
        files::remove_all(&subject.ctx.gemini, &key, &prefix).await?;
    }
    Ok(Progress::Done)
}

/// Whether it is still unknown if there is a job.
fn is_open(run: &Run) -> bool {
    !matches!(run.submission, Submission::Recorded | Submission::Abandoned)
}

/// Cancel, wait until it has ended, delete.
async fn end_job(subject: &Subject<'_>, key: &ApiKey, run: &Run) -> Result<Progress, Error> {
    let gemini = &subject.ctx.gemini;
    let Some(name) = run.remote_name.as_deref() else { return Ok(Progress::Done) };
    let job = match gemini.get_batch(key, name).await {
        Ok(job) => job,
        Err(e) if e.class == Class::NotFound && is_key_of(subject, key, run) => return Ok(Progress::Done),
        Err(e) => return Err(e.into()),
    };
    if !job.is_terminal() {
        match gemini.cancel_batch(key, name).await {
            Ok(()) => {}
            // Ended or gone meanwhile.
            Err(e) if matches!(e.class, Class::Rejected | Class::NotFound) => {}
            Err(e) => return Err(e.into()),
        }
        if subject.batch.spec.deletion_policy == DeletionPolicy::Cancel {
            return Ok(Progress::Done);
        }
        return Ok(Progress::Again(subject.ctx.timing.cancel_look / 5));
    }
    if subject.batch.spec.deletion_policy == DeletionPolicy::Delete {
        if let Some(file) = &job.responses_file {
            files::remove(gemini, key, file).await?;
        }
        match gemini.delete_batch(key, name).await {
            Err(e) if e.class != Class::NotFound => return Err(e.into()),
            _ => tell_of_removed_results(subject, &job).await,
        }
    }
    Ok(Progress::Done)
}

/// Rows that were paid for and that nobody has now: that must not happen silently.
async fn tell_of_removed_results(subject: &Subject<'_>, job: &Batch) {
    let conditions = subject.batch.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let Some(file) =
        job.responses_file.as_ref().filter(|_| !is_true(conditions, batch_type::RESULTS_DELIVERED))
    else {
        return;
    };
    let message = format!(
        "the batch was deleted before its results were delivered: {file} of {} was removed at Gemini with it. With \
         spec.deletionPolicy Cancel or Orphan it would have stayed there",
        job.name
    );
    let note = Note { warning: true, reason: "UndeliveredResultsRemoved".into(), message };
    publish(&subject.ctx.recorder, &subject.batch.object_ref(&()), &[note]).await;
}

/// Whether what this key does not see is not there.
fn is_key_of(subject: &Subject<'_>, key: &ApiKey, run: &Run) -> bool {
    subject.ctx.secret.fingerprint(secrecy::ExposeSecret::expose_secret(key)) == run.key_fingerprint
}

/// The key, or the last one that was known if its Secret went first.
async fn key(subject: &Subject<'_>) -> Result<ApiKey, Error> {
    let reference = &subject.batch.spec.api_key_secret_ref;
    match subject.ctx.credentials.get(subject.namespace(), reference).await? {
        Found::Ready { key, .. } => Ok(key),
        Found::NotFound(message) | Found::Refused(message) => {
            subject.ctx.credentials.last_known(subject.namespace(), reference).ok_or(Error::Source(message))
        }
    }
}

/// Writes down what may be left, for the controller to go on with. Until that is done the object stays, for as long as
/// is said here, but no longer than it may.
async fn give_up(subject: &Subject<'_>, why: &str) -> Option<Duration> {
    let ctx = subject.ctx;
    let entry = orphan(subject);
    let left = entry.left();
    let entered = orphans::enter(ctx, &entry).await;
    let message = match &entered {
        Ok(()) => format!(
            "spec.deletionTimeout passed; {left} may be left at Gemini. The operator goes on looking for it for 72 h, as \
             ConfigMap {ORPHANS_CONFIG_MAP} in namespace {} says, and removes it when the API key in Secret \
             {:?} lets it ({why})",
            ctx.operator_namespace, entry.api_key_secret_ref.name
        ),
        Err(error) => {
            let patience = until(after(deadline(subject), ctx.timing.orphan_patience), Timestamp::now());
            if !patience.is_zero() {
                tracing::warn!(object = %subject.name(), %error, "deletion waits until it is written down");
                return Some(patience.min(ctx.timing.retry).max(Duration::from_millis(20)));
            }
            format!(
                "spec.deletionTimeout passed; {left} may be left at Gemini, delete it there ({why}). It is not looked for \
                 any more: {error}"
            )
        }
    };
    tracing::warn!(object = %subject.name(), %message, "deletion gives up");
    let note = Note { warning: true, reason: "DeletionTimeout".into(), message };
    publish(&ctx.recorder, &subject.batch.object_ref(&()), &[note]).await;
    None
}

/// What the ledger has to know of a batch that goes before its job.
fn orphan(subject: &Subject<'_>) -> Entry {
    let batch = &subject.batch;
    let status = batch.status.clone().unwrap_or_default();
    let uid = subject.uid();
    let claim = claim_of(batch, &status);
    let run = newest_run(batch);
    let annotation = batch.metadata.annotations.as_ref().and_then(|a| a.get(SUBMIT_KEY_ANNOTATION));
    let annotation = annotation
        .and_then(|text| submit::read_annotation(&subject.ctx.secret, text, claim.namespace, claim.name));
    let submit_key = match (&status.identity, annotation) {
        (Some(identity), _) => identity.submit_key.clone(),
        (None, Some((key, _))) => key.to_owned(),
        (None, None) => submit::submit_key(&uid),
    };
    let fingerprint = run.map(|run| run.key_fingerprint.as_str()).or(annotation.map(|(_, of_key)| of_key));
    let file = status.input.as_ref().and_then(|input| input.file.as_ref()).map(|file| &file.name);
    let input_file = run.map(|run| &run.input_file).filter(|file| !file.is_empty()).or(file);
    Entry {
        submit_key,
        namespace: claim.namespace.into(),
        name: claim.name.into(),
        uid,
        api_key_secret_ref: batch.spec.api_key_secret_ref.clone(),
        key_fingerprint: fingerprint.unwrap_or_default().to_owned(),
        remote_name: run.and_then(|run| run.remote_name.clone()),
        marker: run.map_or_else(String::new, |run| run.marker.clone()),
        input_file: input_file.cloned(),
        model: claim.model.into(),
        operation: claim.operation.into(),
        input_sha256: claim.input_sha256.into(),
        deletion_policy: batch.spec.deletion_policy,
        in_doubt: run.is_some_and(is_open),
        since: Timestamp::now(),
        clear_since: None,
    }
}
