//! The work on the objects of one kind in one place, from their watch to what became of each reconcile.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kube::runtime::controller::{Action, Config as ControllerConfig, applier};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::context::Context;
use super::error::Error;
use super::metrics::ReconcileLabels;
use super::rescues::Rescues;
use super::turns::in_turn;
use super::unreadable::Guarded;
use super::wakes::{is_open, woken};
use crate::api::{GeminiBatch, GeminiWebhook};
use crate::runtime::readiness::Gate;
use crate::runtime::relist::{News, relisted};
use crate::submit::Timing;
use crate::{batch, webhook};

/// A watch that is quiet for this long is made anew: some load balancers forget idle connections sooner than kube's
/// own bound of 295 s.
const WATCH_SECONDS: u32 = 200;

pub fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// What is different from kind to kind.
pub trait Kind:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
    const NAME: &'static str;

    fn reconcile(
        object: Arc<Guarded<Self>>,
        ctx: Arc<Context>,
    ) -> impl Future<Output = Result<Action, Error>> + Send + 'static;

    /// One item whenever rescues are a reason to look at those that they concern.
    fn calls(rescues: &Rescues) -> impl Stream<Item = ()> + Send + use<Self>;

    fn is_concerned(&self, rescues: &Rescues) -> bool;

    /// Counts one more reconcile in a row that failed: so many they are now.
    fn failed(ctx: &Context, uid: &str) -> u32;
}

impl Kind for GeminiBatch {
    const NAME: &'static str = "GeminiBatch";

    fn reconcile(
        object: Arc<Guarded<Self>>,
        ctx: Arc<Context>,
    ) -> impl Future<Output = Result<Action, Error>> + Send + 'static {
        batch::reconcile(object, ctx)
    }

    fn calls(rescues: &Rescues) -> impl Stream<Item = ()> + Send + use<> {
        rescues.for_batches()
    }

    fn is_concerned(&self, _: &Rescues) -> bool {
        is_open(self)
    }

    fn failed(ctx: &Context, uid: &str) -> u32 {
        ctx.batch_memory.update(uid, |memory| one_more(&mut memory.failures))
    }
}

impl Kind for GeminiWebhook {
    const NAME: &'static str = "GeminiWebhook";

    fn reconcile(
        object: Arc<Guarded<Self>>,
        ctx: Arc<Context>,
    ) -> impl Future<Output = Result<Action, Error>> + Send + 'static {
        webhook::reconcile(object, ctx)
    }

    fn calls(rescues: &Rescues) -> impl Stream<Item = ()> + Send + use<> {
        rescues.for_webhooks()
    }

    fn is_concerned(&self, rescues: &Rescues) -> bool {
        self.metadata.uid.as_deref().is_some_and(|uid| rescues.last(uid).is_some())
    }

    fn failed(ctx: &Context, uid: &str) -> u32 {
        ctx.webhook_memory.update(uid, |memory| one_more(&mut memory.failures))
    }
}

fn one_more(count: &mut u32) -> u32 {
    *count = count.saturating_add(1);
    *count
}

/// Reconciles for ever. The gate is passed when all objects that are there have been seen.
pub async fn work<K: Kind>(api: Api<Guarded<K>>, ctx: Arc<Context>, gate: Option<Gate>) {
    let (store, writer) = reflector::store();
    let seen = store.clone();
    let ready = async move {
        if seen.wait_until_ready().await.is_ok()
            && let Some(gate) = gate
        {
            gate.done();
        }
    };
    let concerns = Arc::clone(&ctx);
    let reconciles = applier(
        in_turn(store.clone(), K::reconcile),
        |object: Arc<Guarded<K>>, error, ctx: Arc<Context>| {
            let uid = object.0.as_ref().ok().and_then(|object| object.meta().uid.clone()).unwrap_or_default();
            let failures = K::failed(&ctx, &uid);
            retry(&ctx, error, failures)
        },
        Arc::clone(&ctx),
        store.clone(),
        stream::select(
            queue(api, writer, ctx.timing.relist),
            woken(K::calls(&ctx.rescues), store, move |object: &K| object.is_concerned(&concerns.rescues)),
        ),
        ControllerConfig::default(),
    )
    .for_each(|result| {
        report(&ctx, &result);
        futures::future::ready(())
    });
    tokio::join!(ready, reconciles);
}

/// The objects that are to be reconciled, as a watch and its lists name them; `writer` has them by then.
fn queue<K: Kind>(
    api: Api<Guarded<K>>,
    writer: Writer<Guarded<K>>,
    relist: Duration,
) -> impl Stream<Item = watcher::Result<ObjectRef<Guarded<K>>>> + Send {
    let mut news = News::default();
    relisted(api, watch_config(), relist).default_backoff().reflect(writer).flat_map(move |event| {
        stream::iter(match event {
            Ok(event) => news.of(&event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    })
}

/// Pause before the next try: at once after a conflict, else doubling, and never sooner than the other side asks.
fn retry(ctx: &Context, error: &Error, failures: u32) -> Action {
    if matches!(error, Error::Conflict) {
        return Action::requeue(Duration::from_millis(100));
    }
    let longest = match error {
        Error::Kube(_) => ctx.timing.kube_retry_max,
        _ => ctx.timing.retry_max,
    };
    let own = Timing::pause(ctx.timing.retry, longest, failures.saturating_sub(1));
    // Spread by a fifth, so that a hundred batches do not come back in one second.
    let spread = u32::from(getrandom::u32().unwrap_or_default().to_le_bytes()[0]);
    let jittered = own.mul_f64(0.9 + 0.2 * f64::from(spread) / 255.0);
    Action::requeue(error.retry_after().map_or(jittered, |asked| asked.max(jittered)))
}

type Finished<K> =
    Result<(ObjectRef<Guarded<K>>, Action), kube::runtime::controller::Error<Error, watcher::Error>>;

/// The one place that logs and counts what became of a reconcile.
fn report<K: Kind>(ctx: &Context, result: &Finished<K>) {
    use kube::runtime::controller::Error as Controlled;
    let kind = K::NAME;
    let outcome = match result {
        Ok(_) => "Succeeded",
        Err(Controlled::ReconcilerFailed(error, object)) => {
            let text = error.to_string();
            if matches!(error, Error::Conflict) {
                tracing::debug!(kind, %object, error = text, "reconcile again");
            } else {
                tracing::warn!(kind, %object, error = text, category = error.category(), "reconcile failed");
            }
            error.category()
        }
        // The object went between the event and the reconcile.
        Err(Controlled::ObjectNotFound(_)) => "Gone",
        Err(Controlled::QueueError(error)) => {
            tracing::warn!(kind, %error, "watch failed; it is made anew");
            "WatchFailed"
        }
        Err(Controlled::RunnerError(error)) => {
            tracing::error!(kind, %error, "runner failed");
            "RunnerFailed"
        }
    };
    ctx.metrics.reconciles.get_or_create(&ReconcileLabels { kind, outcome }).inc();
}
