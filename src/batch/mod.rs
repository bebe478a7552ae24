//! GeminiBatch: observe → plan → act → record, one step a pass.

mod act;
mod admission;
mod cleanup;
mod deliver;
mod draft;
pub(crate) mod files;
mod gone;
mod memory;
mod observe;
mod observed;
mod pace;
mod plan;
pub mod points;
mod post;
mod quiet;
mod record;
mod schedule;
mod submission;
#[cfg(test)]
mod tests;
mod tracker;
mod tracking;

use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource};

pub use memory::Memory;

use crate::api::GeminiBatch;
use crate::api::batch::GeminiBatchStatus;
use crate::controller::points::around;
use crate::controller::{
    Context, Error, Guarded, Next, Unreadable, guarded, is_kept, malformed, notes, publish, replace,
};
use crate::submit;
use plan::{Env, Plan, Step};

/// Passes in one reconcile; a batch needs about nine from nothing to its recorded job.
const MAX_PASSES: usize = 20;

/// The object in hand, and how to write it.
pub(crate) struct Subject<'a> {
    pub ctx: &'a Arc<Context>,
    pub api: Api<GeminiBatch>,
    pub batch: GeminiBatch,
    /// When `batch` was read or last written: older knowledge must not be paid on.
    pub read: Instant,
}

/// One reconcile. An object that makes it panic is set aside for a while, as one that fails in any other way.
pub async fn reconcile(batch: Arc<Guarded<GeminiBatch>>, ctx: Arc<Context>) -> Result<Action, Error> {
    guarded(Box::pin(turn(batch, ctx))).await
}

/// Passes until there is nothing to do now.
async fn turn(batch: Arc<Guarded<GeminiBatch>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let meta = batch.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let uid = meta.uid.clone().unwrap_or_default();
    let api: Api<GeminiBatch> = Api::namespaced(ctx.writer.clone(), namespace);
    if let Ok(cached) = &batch.0
        && let Some(next) = quiet::sweep(&ctx, &api, cached).await
    {
        return Ok(next.action().unwrap_or_else(Action::await_change));
    }
    // The cache may be older than our own last write: what decides about money is read live.
    let live: Api<Guarded<GeminiBatch>> = Api::namespaced(ctx.writer.clone(), namespace);
    let batch = match live.get_opt(name).await? {
        Some(Guarded(Ok(batch))) => batch,
        Some(Guarded(Err(invalid))) => return skip(&ctx, &api, namespace, &invalid).await,
        None => {
            ctx.batch_memory.forget(&uid);
            return Ok(Action::await_change());
        }
    };
    if let Some(left) = schedule::resting(&batch, &ctx.batch_memory.get(&uid), Timestamp::now()) {
        return Ok(Action::requeue(left));
    }
    let mut subject = Subject { ctx: &ctx, api, batch, read: Instant::now() };
    ctx.batch_memory.update(&uid, |m| m.uploaded = None);
    let result = guarded(Box::pin(passes(&mut subject))).await;
    match &result {
        Ok(_) => ctx.batch_memory.update(&uid, |m| (m.failures, m.rest) = (0, None)),
        Err(error) => {
            if error.is_users_business() {
                let status = record::retrying(&subject.batch, &error.to_string(), Timestamp::now());
                // Only for people to read: that it cannot be written is no second problem.
                let _ = subject.write(status).await;
            }
            let (batch, timing, now) = (&subject.batch, &ctx.timing, Timestamp::now());
            ctx.batch_memory.update(&uid, |m| m.rest = schedule::rest(batch, error, m.failures, timing, now));
        }
    }
    let next = tracker::judge(&subject, result?).await;
    Ok(next.action().unwrap_or_else(Action::await_change))
}

/// An object that cannot be read: left alone, or let go by its metadata.
async fn skip(
    ctx: &Context,
    api: &Api<GeminiBatch>,
    namespace: &str,
    invalid: &Unreadable,
) -> Result<Action, Error> {
    if let Some(action) = malformed::skip::<GeminiBatch>(ctx, namespace, invalid, plan::PROTOCOL).await? {
        return Ok(action);
    }
    let uid = invalid.metadata.uid.as_deref().unwrap_or_default();
    let key = submit::submit_key(uid);
    let left = format!("a job with displayName gb1.{key}.… and files {}…", submit::file_prefix(&key));
    malformed::let_go(ctx, api, invalid, &left).await?;
    ctx.batch_memory.forget(uid);
    Ok(Action::await_change())
}

async fn passes(subject: &mut Subject<'_>) -> Result<Next, Error> {
    for _ in 0..MAX_PASSES {
        let next = if subject.batch.metadata.deletion_timestamp.is_some() {
            cleanup::pass(subject).await?
        } else {
            pass(subject).await?
        };
        if next != Next::Now {
            return Ok(next);
        }
    }
    // Nothing needs so many. Said, because whatever goes round in circles looks like silence from outside.
    tracing::warn!(object = %subject.name(), passes = MAX_PASSES, "the batch comes to no rest; going on in a second");
    Ok(Next::After(Duration::from_secs(1)))
}

async fn pass(subject: &mut Subject<'_>) -> Result<Next, Error> {
    let ctx = subject.ctx;
    let (nonce, now) = (nonce()?, Timestamp::now());
    let uid = subject.uid();
    let uptime = ctx.uptime();
    ctx.batch_memory.update(&uid, |m| m.watch(plan::newest_run(&subject.batch), now, uptime));
    let env = subject.env(now, &nonce);
    let needs = plan::needs(&subject.batch, &ctx.batch_memory.get(&uid), &env);
    let (seen, found) = observe::observe(subject, &needs).await?;
    // What the pass itself has found may have changed how often the sweep passes.
    let env = subject.env(now, &nonce);
    let Plan { status, step, next } = plan::plan(&subject.batch, &seen, &ctx.batch_memory.get(&uid), &env);
    if let Step::Post { nonce } = step {
        let Some(key) = found.key else { return Ok(Next::Now) };
        post::post(subject, status, key, nonce).await?;
        return Ok(next);
    }
    let counted = |batch: &GeminiBatch| plan::newest_run(batch).and_then(|run| run.listings.clone());
    let before = counted(&subject.batch);
    around(points::of_write(&subject.batch, &status), subject.write(status)).await?;
    if counted(&subject.batch) != before {
        ctx.batch_memory.update(&uid, |m| m.counted(ctx.uptime()));
    }
    act::act(subject, step, seen, found).await?;
    Ok(next)
}

impl Subject<'_> {
    pub fn uid(&self) -> String {
        self.batch.metadata.uid.clone().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.batch.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.batch.metadata.name.as_deref().unwrap_or_default()
    }

    /// K.
    pub fn submit_key(&self) -> &str {
        let identity = self.batch.status.as_ref().and_then(|s| s.identity.as_ref());
        identity.map_or("", |identity| identity.submit_key.as_str())
    }

    fn env<'e>(&'e self, now: Timestamp, nonce: &'e str) -> Env<'e> {
        let ctx = self.ctx;
        Env {
            timing: &ctx.timing,
            secret: &ctx.secret,
            now,
            nonce,
            holder: &ctx.holder,
            uptime: ctx.uptime(),
            pace: tracker::pace(self, now),
        }
    }

    /// Writes the status if it says anything new, and tells of transitions.
    pub async fn write(&mut self, status: GeminiBatchStatus) -> Result<(), Error> {
        if is_kept(self.batch.status.as_ref(), &status) {
            return Ok(());
        }
        self.batch = write(self.ctx, &self.api, &self.batch, status).await?;
        self.read = Instant::now();
        Ok(())
    }

    pub async fn reread(&mut self) -> Result<(), Error> {
        self.batch = self.api.get(self.name()).await?;
        self.read = Instant::now();
        Ok(())
    }
}

/// Writes the status of `batch` by compare-and-swap, and tells of transitions.
async fn write(
    ctx: &Context,
    api: &Api<GeminiBatch>,
    batch: &GeminiBatch,
    status: GeminiBatchStatus,
) -> Result<GeminiBatch, Error> {
    let written = replace(api, &GeminiBatch { status: Some(status), ..batch.clone() }).await?;
    let conditions = |b: &GeminiBatch| b.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let notes = notes(&conditions(batch), &conditions(&written));
    publish(&ctx.recorder, &written.object_ref(&()), &notes).await;
    Ok(written)
}

/// 128 random bits.
fn nonce() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::Source(format!("no random numbers: {e}")))?;
    Ok(HEXLOWER.encode(&bytes))
}
