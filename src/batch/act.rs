//! I/O out: one step of a batch's plan, and the record of its outcome.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::files::{self, Condition};
use super::observe::Found;
use super::observed::Observed;
use super::plan::{Step, newest_run};
use super::points::{Point, to_fence};
use super::submission::{attempt, is_restored};
use super::{Subject, deliver, record};
use crate::api::SUBMIT_KEY_ANNOTATION;
use crate::api::batch::InputFile;
use crate::controller::points::around;
use crate::controller::{Bounded, Error, bounded, claim, is_not_found};
use crate::gemini::{self, ApiKey, Class};
use crate::submit::{self, Deletion};

/// One upload or delivery, whatever its size. What ConfigMaps hold takes seconds; a peer that only drips is left.
const TRANSFER_LIMIT: Duration = Duration::from_hours(1);
/// What windows are divided by does not make a machine faster.
const TRANSFER_LIMIT_LEAST: Duration = Duration::from_secs(30);
/// A transfer that is over sooner costs no look at all.
const DELETION_LOOK_LEAST: Duration = Duration::from_secs(1);

pub async fn act(subject: &mut Subject<'_>, step: Step, seen: Observed, found: Found) -> Result<(), Error> {
    if step == Step::None {
        return Ok(());
    }
    if let Step::Claim { annotation } = &step {
        let annotation = Some((SUBMIT_KEY_ANNOTATION, annotation.as_str()));
        subject.batch = around(Point::Claim, claim(&subject.api, &subject.batch, annotation)).await?;
        return Ok(());
    }
    // Every other step is planned with a key in hand.
    let Some(key) = found.key.clone() else { return Ok(()) };
    match step {
        Step::None | Step::Claim { .. } | Step::Post { .. } => Ok(()),
        Step::Stage => {
            let (interrupted, limit) = (deletion(subject), limit(subject));
            let name = new_file(subject)?;
            let staged = Box::pin(stage(subject, &key, &seen, found, &name));
            match bounded("the upload", limit, interrupted, staged).await? {
                Bounded::Done(()) => Ok(()),
                Bounded::Interrupted => withdraw(subject, &key, &name).await,
            }
        }
        Step::Fence { files } => {
            let gone = around(Point::Fence, prove_gone(subject, &key, to_fence(&files))).await?;
            fence(subject, &key, gone, &seen).await
        }
        Step::Reap { names } => reap(subject, &key, &names).await,
        Step::Cancel { remote } => cancel(subject, &key, &remote).await,
        Step::Deliver { .. } => {
            let (interrupted, limit) = (deletion(subject), limit(subject));
            let delivered = Box::pin(deliver::deliver(subject, &key));
            settle(bounded("the delivery", limit, interrupted, delivered).await?, subject).await
        }
    }
}

/// A deletion found meanwhile is the next pass's business.
async fn settle(ended: Bounded<()>, subject: &mut Subject<'_>) -> Result<(), Error> {
    match ended {
        Bounded::Done(()) => Ok(()),
        Bounded::Interrupted => subject.reread().await,
    }
}

/// Transfers may take long, a second try is cheap, and nothing lasts for ever.
fn limit(subject: &Subject<'_>) -> Duration {
    (TRANSFER_LIMIT / subject.ctx.timing.divisor.max(1)).max(TRANSFER_LIMIT_LEAST)
}

/// Ends when the object is being deleted, or is another one by now. Looked at while a transfer goes on: one that only
/// drips must not keep the object from going.
fn deletion(subject: &Subject<'_>) -> impl Future<Output = ()> + use<> {
    let (api, name, uid) = (subject.api.clone(), subject.name().to_owned(), subject.uid());
    let every = subject.ctx.timing.cancel_look.max(DELETION_LOOK_LEAST);
    async move {
        loop {
            tokio::time::sleep(every).await;
            match api.get_metadata_opt(&name).await {
                Ok(Some(now)) if now.metadata.uid.as_ref() == Some(&uid) => {
                    if now.metadata.deletion_timestamp.is_some() {
                        return;
                    }
                }
                Ok(_) => return,
                // The API server is away: it has its own errors, and the transfer its limit.
                Err(_) => {}
            }
        }
    }
}

/// A name that was never used before.
fn new_file(subject: &Subject<'_>) -> Result<String, Error> {
    let mut nonce = [0; 5];
    getrandom::fill(&mut nonce).map_err(|e| Error::Source(format!("no random numbers: {e}")))?;
    Ok(submit::file_name(subject.submit_key(), nonce))
}

/// An upload was left where it stood. A batch that is being deleted takes all its files along; of one that is gone, or is
/// another one by now, nobody else knows this file.
async fn withdraw(subject: &mut Subject<'_>, key: &ApiKey, name: &str) -> Result<(), Error> {
    let uid = subject.uid();
    let seen = subject.reread().await;
    if matches!(&seen, Err(Error::Kube(gone)) if is_not_found(gone)) || subject.uid() != uid {
        files::remove(&subject.ctx.gemini, key, name).await?;
    }
    seen
}

/// Uploads under a name that was never used before, and records what arrived there as it was sent.
async fn stage(
    subject: &mut Subject<'_>,
    key: &ApiKey,
    seen: &Observed,
    found: Found,
    name: &str,
) -> Result<(), Error> {
    let (Some(Ok(facts)), Some(rendered)) = (&seen.input, found.rendered) else { return Ok(()) };
    let display_name = format!("{}.{}", subject.namespace(), subject.name());
    let upload = subject.ctx.gemini.upload(key, name, &display_name, rendered.bytes.into());
    let file = around(Point::Upload, upload).await?;
    let condition = files::condition(&file, facts.bytes, &facts.sha256);
    if let Condition::Damaged(message) = condition {
        // It has no use, and a name that is never taken again. That it cannot be removed now is no second problem.
        let _ = files::remove(&subject.ctx.gemini, key, &file.name).await;
        return Err(gemini::Error::transient(message).into());
    }
    let staged = InputFile {
        name: file.name.clone(),
        size_bytes: facts.bytes,
        expire_time: file.expiration_time.map(Time),
    };
    if condition == Condition::Usable {
        subject.ctx.batch_memory.update(&subject.uid(), |m| m.uploaded = Some(file.name));
    }
    let status = record::staged(&subject.batch, facts, staged, Timestamp::now());
    let seen = match around(Point::Stage, subject.write(status)).await {
        Err(Error::Conflict) => subject.reread().await,
        other => other,
    };
    let is_recorded = || {
        let input = subject.batch.status.as_ref().and_then(|status| status.input.as_ref());
        input.and_then(|input| input.file.as_ref()).is_some_and(|file| file.name == name)
    };
    match seen {
        // Another controller staged first, and its file is the one: this one belongs to nobody.
        Ok(()) if !is_recorded() => Ok(files::remove(&subject.ctx.gemini, key, name).await?),
        // The batch is gone, and whoever let it go could not know of this file.
        Err(Error::Kube(gone)) if is_not_found(&gone) => {
            files::remove(&subject.ctx.gemini, key, name).await?;
            Err(gone.into())
        }
        other => other,
    }
}

/// Deletes the input files of a fenced attempt, so that its request can do nothing any more; how each of them is known
/// to be gone, `None` if one may be there still.
async fn prove_gone(
    subject: &Subject<'_>,
    key: &ApiKey,
    files: &[String],
) -> Result<Option<Deletion>, Error> {
    let gemini = &subject.ctx.gemini;
    let mut deletion = Some(Deletion::Deleted);
    for file in files {
        match gemini.delete_file(key, file).await {
            Ok(()) => {}
            // Gone already, or not visible to this key: a complete listing tells.
            Err(e) if e.class == Class::NotFound => deletion = None,
            Err(e) => return Err(e.into()),
        }
    }
    if deletion.is_none() || newest_run(&subject.batch).is_some_and(is_restored) {
        let left = files::with_prefix(gemini, key, &submit::file_prefix(subject.submit_key())).await?;
        deletion = (!files.iter().any(|file| left.contains(file))).then_some(Deletion::NotListed);
    }
    Ok(deletion)
}

/// Writes down whether the fence stands.
async fn fence(
    subject: &mut Subject<'_>,
    key: &ApiKey,
    deletion: Option<Deletion>,
    seen: &Observed,
) -> Result<(), Error> {
    let ctx = subject.ctx;
    let Some(run) = newest_run(&subject.batch) else { return Ok(()) };
    let memory = ctx.batch_memory.get(&subject.uid());
    let attempt = attempt(run, seen, &memory, &subject.env(Timestamp::now(), ""));
    let (now, fingerprint) =
        (Timestamp::now(), ctx.secret.fingerprint(secrecy::ExposeSecret::expose_secret(key)));
    let status = if deletion.is_some_and(|deletion| submit::proves(&attempt, deletion)) {
        record::fenced(&subject.batch, &fingerprint, ctx.timing.listing_lag, now)
    } else {
        let uptime = ctx.uptime();
        ctx.batch_memory.update(&subject.uid(), |m| m.unproven = Some(uptime));
        record::unproven(&subject.batch, now)
    };
    subject.write(status).await
}

/// Jobs that are one too many: cancelled, and deleted so that they are not seen again.
async fn reap(subject: &Subject<'_>, key: &ApiKey, names: &[String]) -> Result<(), Error> {
    let ctx = subject.ctx;
    for name in names {
        tracing::error!(object = %subject.name(), remote = %name, "a job that is one too many; cancelling and deleting it");
        ctx.metrics.duplicate_jobs.inc();
        for end in [ctx.gemini.cancel_batch(key, name).await, ctx.gemini.delete_batch(key, name).await] {
            match end {
                Err(e) if !matches!(e.class, Class::Rejected | Class::NotFound) => return Err(e.into()),
                _ => {}
            }
        }
    }
    Ok(())
}

async fn cancel(subject: &mut Subject<'_>, key: &ApiKey, remote: &str) -> Result<(), Error> {
    match subject.ctx.gemini.cancel_batch(key, remote).await {
        Ok(()) => {}
        // Ended or gone meanwhile: the next look tells which.
        Err(e) if matches!(e.class, Class::Rejected | Class::NotFound) => {}
        Err(e) => return Err(e.into()),
    }
    subject.ctx.batch_memory.update(&subject.uid(), |m| m.cancel_sent = true);
    Ok(())
}
