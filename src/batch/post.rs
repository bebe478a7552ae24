//! The one paid request, and the record of its outcome. It runs in a task of its own: neither a dropped reconcile nor
//! SIGTERM may part the request from its record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Api;

use super::Subject;
use super::plan::newest_run;
use super::record;
use crate::api::GeminiBatch;
use crate::controller::{Context, Error, Metrics, OutcomeLabels, is_not_found, replace};
use crate::gemini::{self, ApiKey};
use crate::submit::{PostEnd, Refusal, Verdict, classify};

/// Longest pause between two tries to record a job's name.
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Everything the task needs, so that it can outlive the reconcile.
struct Attempt {
    ctx: Arc<Context>,
    api: Api<GeminiBatch>,
    name: String,
    uid: String,
    nonce: String,
    read: Instant,
}

/// Sends the request of the intent that `nonce` names. The object's newest run holds that intent, durably.
pub async fn post(subject: &mut Subject<'_>, key: ApiKey, nonce: String) -> Result<(), Error> {
    let attempt = Attempt {
        ctx: Arc::clone(subject.ctx),
        api: subject.api.clone(),
        name: subject.name().to_owned(),
        uid: subject.uid(),
        nonce: nonce.clone(),
        read: subject.read,
    };
    let Some(run) = newest_run(&subject.batch).cloned() else { return Ok(()) };
    let model = subject.batch.spec.model.clone();
    subject.ctx.batch_memory.update(&attempt.uid, |m| m.in_flight = Some(nonce));
    let task = subject.ctx.tasks.spawn(async move {
        let verdict = attempt.send(&key, &model, &run.marker, &run.input_file).await;
        attempt.record(&verdict).await;
        attempt.ctx.batch_memory.update(&attempt.uid, |m| {
            m.in_flight = None;
            if let Verdict::No(Refusal::RateLimited { after: Some(pause), .. }) = &verdict {
                m.retry_at = Some(crate::controller::after(Timestamp::now(), *pause));
            }
        });
    });
    // A panic in the task is as a crash at that point: the intent stands, and recovery goes on from it.
    if task.await.is_err() {
        subject.ctx.batch_memory.update(&subject.uid(), |m| m.in_flight = None);
    }
    subject.reread().await
}

impl Attempt {
    async fn send(&self, key: &ApiKey, model: &str, marker: &str, file: &str) -> Verdict {
        if self.read.elapsed() > self.ctx.timing.submit_gate {
            return Verdict::No(Refusal::NotSent(
                "the process was too slow between reading and sending".into(),
            ));
        }
        if self.ctx.shutdown.is_cancelled() {
            return Verdict::No(Refusal::NotSent("the process was asked to stop".into()));
        }
        let verdict = classify(match self.ctx.gemini.create_batch(key, model, marker, file).await {
            gemini::PostEnd::NotSent(why) => PostEnd::NotSent(why),
            gemini::PostEnd::Broken(why) => PostEnd::Broken(why),
            gemini::PostEnd::Answer { status, retry_after, body } => {
                PostEnd::Answer { status, retry_after, body }
            }
        });
        if let Verdict::Yes(job) = &verdict {
            // Once, in case it can never be recorded.
            tracing::info!(object = %self.name, remote = %job, "job submitted");
        }
        count(&self.ctx.metrics, &verdict);
        verdict
    }

    /// Until it stands, or until it is not this attempt's to record any more.
    async fn record(&self, verdict: &Verdict) {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.try_record(verdict).await {
                Ok(()) => return,
                Err(Error::Kube(e)) if is_not_found(&e) => return,
                Err(Error::Conflict) => continue,
                Err(error) => tracing::warn!(object = %self.name, %error, "the outcome is not recorded yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECORD_PAUSE_MAX);
        }
    }

    async fn try_record(&self, verdict: &Verdict) -> Result<(), Error> {
        let current = self.api.get(&self.name).await?;
        if current.metadata.uid.as_ref() != Some(&self.uid) {
            return Ok(());
        }
        let Some(status) = record::posted(&current, &self.nonce, verdict, Timestamp::now()) else {
            return Ok(());
        };
        let before = current.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        let written = replace(&self.api, &GeminiBatch { status: Some(status), ..current }).await?;
        let after = written.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        let about = kube::Resource::object_ref(&written, &());
        crate::controller::publish(&self.ctx.recorder, &about, &crate::controller::notes(&before, &after))
            .await;
        Ok(())
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
