//! The durable intent, the one paid request, and the record of its outcome. They run in a task of their own: neither a
//! dropped reconcile nor SIGTERM may part one from the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Api;
use secrecy::ExposeSecret;

use super::plan::newest_run;
use super::points::Point;
use super::{Subject, record, write};
use crate::api::batch::{GeminiBatchStatus, Run};
use crate::api::{GeminiBatch, SUBMIT_KEY_METADATA};
use crate::controller::points::{after, around, before};
use crate::controller::{Context, Error, Metrics, OutcomeLabels, is_kept, is_not_found};
use crate::gemini::{self, ApiKey, Class, Hook};
use crate::submit::{PostEnd, Refusal, Verdict, classify};

/// Longest pause between two tries to record a job's name.
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Everything the task needs, so that it can outlive the reconcile.
struct Attempt {
    ctx: Arc<Context>,
    api: Api<GeminiBatch>,
    batch: GeminiBatch,
    nonce: String,
    key: ApiKey,
    fingerprint: String,
    read: Instant,
}

/// Writes the intent, which `status` holds under `nonce`, and sends its request.
pub async fn post(
    subject: &mut Subject<'_>,
    status: GeminiBatchStatus,
    key: ApiKey,
    nonce: String,
) -> Result<(), Error> {
    let uid = subject.uid();
    let attempt = Attempt {
        ctx: Arc::clone(subject.ctx),
        api: subject.api.clone(),
        batch: subject.batch.clone(),
        nonce: nonce.clone(),
        fingerprint: subject.ctx.secret.fingerprint(key.expose_secret()),
        key,
        read: subject.read,
    };
    subject.ctx.batch_memory.update(&uid, |m| m.in_flight = Some(nonce));
    let task = subject.ctx.tasks.spawn(attempt.make(status));
    // A panic in the task is as a crash at that point: if the intent stands, recovery goes on from it.
    let made = task.await;
    subject.ctx.batch_memory.update(&uid, |m| m.in_flight = None);
    subject.reread().await?;
    made.unwrap_or(Ok(()))
}

impl Attempt {
    /// The whole attempt. An error: there is no intent, and nothing was sent.
    async fn make(mut self, status: GeminiBatchStatus) -> Result<(), Error> {
        self.ctx.gates.enter(&self.fingerprint).map_err(Error::Gated)?;
        // Whether the intent is durable is all that counts, also when the answer to the write was lost or says that
        // somebody wrote in between: that may have been this very write, repeated on the way.
        match around(Point::Intent, write(&self.ctx, &self.api, &self.batch, status)).await {
            Ok(batch) => self.batch = batch,
            Err(error) => {
                self.batch = self.api.get(self.name()).await?;
                if newest_run(&self.batch).is_none_or(|run| run.nonce != self.nonce) {
                    return Err(error);
                }
            }
        }
        let Some(run) = newest_run(&self.batch).cloned() else { return Ok(()) };
        let verdict = self.send(&run).await;
        before(Point::Answer);
        self.learn(&verdict);
        after(Point::Answer);
        self.record(&verdict).await;
        Ok(())
    }

    fn name(&self) -> &str {
        self.batch.metadata.name.as_deref().unwrap_or_default()
    }

    /// K.
    fn submit_key(&self) -> &str {
        let identity = self.batch.status.as_ref().and_then(|status| status.identity.as_ref());
        identity.map_or("", |identity| identity.submit_key.as_str())
    }

    async fn send(&self, run: &Run) -> Verdict {
        before(Point::Gate);
        if self.read.elapsed() > self.ctx.timing.submit_gate {
            return Verdict::No(Refusal::NotSent(
                "the process was too slow between reading and sending".into(),
            ));
        }
        if self.ctx.shutdown.is_cancelled() {
            return Verdict::No(Refusal::NotSent("the process was asked to stop".into()));
        }
        after(Point::Gate);
        let (gemini, model) = (&self.ctx.gemini, &self.batch.spec.model);
        // By the intent: what is sent was decided, and is durable, before.
        let hook = run.webhook_uri.as_deref().map(|uri| Hook {
            uri,
            user_metadata: [(SUBMIT_KEY_METADATA, format!("{}.{}", self.submit_key(), run.attempt))].into(),
        });
        let post = gemini.create_batch(&self.key, model, &run.marker, &run.input_file, hook);
        let verdict = classify(match around(Point::Post, post).await {
            gemini::PostEnd::NotSent(why) => PostEnd::NotSent(why),
            gemini::PostEnd::Broken(why) => PostEnd::Broken(why),
            gemini::PostEnd::Answer { status, retry_after, body } => {
                PostEnd::Answer { status, retry_after, body }
            }
        });
        if let Verdict::Yes(job) = &verdict {
            // Once, in case it can never be recorded.
            tracing::info!(object = %self.name(), remote = %job, "job submitted");
        }
        count(&self.ctx.metrics, &verdict);
        match verdict {
            Verdict::No(Refusal::Forbidden(message)) => {
                Verdict::No(self.whose_fault(&run.input_file, message).await)
            }
            other => other,
        }
    }

    /// A missing file and a key without the right are both answered with 403; the file itself tells which it was.
    async fn whose_fault(&self, file: &str, message: String) -> Refusal {
        match self.ctx.gemini.get_file(&self.key, file).await {
            Ok(_) => Refusal::Credentials(message),
            Err(e) if e.class == Class::Auth => Refusal::Credentials(message),
            Err(_) => Refusal::Forbidden(message),
        }
    }

    /// What other submissions should know of this one.
    fn learn(&self, verdict: &Verdict) {
        let (credentials, uid) =
            (&self.ctx.credentials, self.batch.metadata.uid.as_deref().unwrap_or_default());
        let namespace = self.batch.metadata.namespace.as_deref().unwrap_or_default();
        match verdict {
            Verdict::No(Refusal::RateLimited { after, .. }) => {
                self.ctx.gates.refused(&self.fingerprint, *after, &self.ctx.timing);
                if let Some(pause) = after {
                    let at = crate::controller::after(Timestamp::now(), *pause);
                    self.ctx.batch_memory.update(uid, |m| m.retry_at = Some(at));
                }
            }
            Verdict::No(Refusal::Credentials(message)) => {
                let reference = &self.batch.spec.api_key_secret_ref;
                credentials.refuse(namespace, reference, &self.fingerprint, message);
            }
            Verdict::Yes(_) => self.ctx.gates.accepted(&self.fingerprint, &self.ctx.timing),
            _ => {}
        }
    }

    /// Until it stands, or until it is not this attempt's to record any more.
    async fn record(&self, verdict: &Verdict) {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.try_record(verdict).await {
                Ok(()) => return,
                Err(Error::Kube(e)) if is_not_found(&e) => return,
                Err(Error::Conflict) => continue,
                Err(error) => {
                    tracing::warn!(object = %self.name(), %error, "the outcome is not recorded yet");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECORD_PAUSE_MAX);
        }
    }

    async fn try_record(&self, verdict: &Verdict) -> Result<(), Error> {
        let current = self.api.get(self.name()).await?;
        if current.metadata.uid != self.batch.metadata.uid {
            return Ok(());
        }
        let Some(status) = record::posted(&current, &self.nonce, verdict, Timestamp::now()) else {
            return Ok(());
        };
        // Its answer was lost the last time.
        if is_kept(current.status.as_ref(), &status) {
            return Ok(());
        }
        around(Point::Record, write(&self.ctx, &self.api, &current, status)).await.map(drop)
    }
}

fn count(metrics: &Metrics, verdict: &Verdict) {
    let outcome = match verdict {
        Verdict::Yes(_) => "created",
        Verdict::No(_) => "refused",
        Verdict::Ambiguous(_) => "unknown",
    };
    metrics.submissions.get_or_create(&OutcomeLabels { outcome }).inc();
}
