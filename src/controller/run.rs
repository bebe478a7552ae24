//! The controller process: both controllers, the admin port, and an orderly end.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::select_all;
use kube::runtime::WatchStreamExt;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::{Context, Memories};
use super::credentials::KeyCache;
use super::error::Error;
use super::gate::Gates;
use super::identity::{self, IDENTITY_SECRET};
use super::listings::Listings;
use super::metrics::Metrics;
use super::orphans;
use super::rescues::Rescues;
use super::unreadable::Guarded;
use super::wakes::has_fallen;
use super::work::{watch_config, work};
use crate::api::{GeminiBatch, GeminiWebhook};
use crate::gemini::{self, Gemini};
use crate::runtime::listen::{self, Announcement, announce};
use crate::runtime::readiness::Readiness;
use crate::runtime::relist::relisted;
use crate::runtime::{admin, kube_client, readiness};
use crate::submit::Timing;

/// What the terminationGracePeriodSeconds of the chart leaves for a POST and its record.
const DRAIN: Duration = Duration::from_secs(85);

/// What the controller is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub operator_namespace: String,
    /// Empty = all.
    pub watch_namespaces: Vec<String>,
    pub admin_listen: SocketAddr,
    pub gemini_base_url: String,
    pub gemini_api_version: String,
    pub ca_file: Option<PathBuf>,
    pub timing_divisor: u32,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(
        "--timing-divisor {0} would shorten the windows that keep jobs from being paid twice; it is for the emulator \
         only: leave it out, or give the emulator's --gemini-base-url"
    )]
    DividedForGoogle(u32),
    #[error("--ca-file {} cannot be read", .0.display())]
    CaFile(PathBuf, #[source] std::io::Error),
    #[error("--ca-file or --gemini-base-url cannot be used")]
    Gemini(#[from] gemini::Error),
    #[error(transparent)]
    Bind(#[from] listen::BindError),
    #[error("cannot print the address")]
    Announce(#[source] std::io::Error),
    #[error(transparent)]
    Cluster(#[from] kube_client::Error),
    #[error("Secret {IDENTITY_SECRET} in namespace {0} (--operator-namespace) cannot be read or made")]
    Identity(String, #[source] Error),
    #[error("the {0} ended")]
    Ended(&'static str),
    #[error("the admin port failed")]
    Admin(#[source] std::io::Error),
}

/// The client of the Gemini API that the settings ask for. What is wrong with them is known before any cluster is.
pub fn gemini(settings: &Settings) -> Result<Gemini, RunError> {
    let extra_ca_pem = match &settings.ca_file {
        Some(path) => Some(std::fs::read(path).map_err(|e| RunError::CaFile(path.clone(), e))?),
        None => None,
    };
    let gemini = Gemini::new(&gemini::Settings {
        base_url: settings.gemini_base_url.clone(),
        api_version: settings.gemini_api_version.clone(),
        extra_ca_pem,
    })?;
    if settings.timing_divisor > 1 && gemini.is_googles() {
        return Err(RunError::DividedForGoogle(settings.timing_divisor));
    }
    Ok(gemini)
}

/// Runs until `stop`, then finishes what was begun. Any part that ends by itself ends the process.
pub async fn run(
    settings: Settings,
    gemini: Gemini,
    client: Client,
    writer: Client,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let readiness = Readiness::new();
    let secret_gate = readiness.gate("Secret gemini-operator-identity");
    let places = Places::new(&settings);
    let batch_gates = gates(&readiness, "GeminiBatches", &places.of_batches);
    let webhook_gates = gates(&readiness, "GeminiWebhooks", &places.of_webhooks);
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let listener = listen::bind("--admin-listen", settings.admin_listen).await?;
    let address = listener.local_addr().map_err(RunError::Announce)?;
    announce(&Announcement { listen: None, admin: address }).map_err(RunError::Announce)?;
    let admin = tokio::spawn(admin::serve(listener, Arc::new(registry), readiness, CancellationToken::new()));

    let timing = Timing::divided(settings.timing_divisor);
    kube_client::reach(&client).await?;
    let secret = identity::load(&client, &settings.operator_namespace)
        .await
        .map_err(|error| RunError::Identity(settings.operator_namespace.clone(), error))?;
    secret_gate.done();
    let holder = std::env::var("HOSTNAME").unwrap_or_else(|_| "local".into());
    let reporter = Reporter { controller: "gemini-operator".into(), instance: Some(holder.clone()) };
    let (webhooks, webhook_writers): (Vec<_>, Vec<_>) =
        webhook_gates.iter().map(|_| reflector::store()).unzip();
    let ctx = Arc::new(Context {
        credentials: KeyCache::new(client.clone(), secret.clone(), &timing),
        recorder: Recorder::new(client.clone(), reporter),
        holder: format!("{holder}/{}", std::process::id()),
        client: client.clone(),
        writer,
        gemini,
        timing,
        secret,
        operator_namespace: settings.operator_namespace.clone(),
        listings: Listings::default(),
        gates: Gates::default(),
        started: Instant::now(),
        webhooks: webhooks.clone(),
        rescues: Rescues::default(),
        metrics,
        orphans: orphans::Lock::default(),
        tasks: TaskTracker::new(),
        shutdown: stop.clone(),
        batch_memory: Memories::default(),
        webhook_memory: Memories::default(),
    });
    // Batches ask which webhook tracks them. A list replaces all that its store holds, so each watch has its own.
    let caches = select_all(
        apis::<GeminiWebhook>(&client, &places.of_webhooks)
            .into_iter()
            .zip(webhook_writers)
            .map(|(api, writer)| Box::pin(cache(api, writer, Arc::clone(&ctx)))),
    );
    let ready = async {
        for (store, gate) in webhooks.iter().zip(webhook_gates) {
            if store.wait_until_ready().await.is_ok() {
                gate.done();
            }
        }
        futures::future::pending::<()>().await;
    };
    let webhook_controllers = select_all(
        apis::<GeminiWebhook>(&client, &places.of_webhooks)
            .into_iter()
            .map(|api| Box::pin(work(api, Arc::clone(&ctx), None))),
    );
    let batch_controllers = select_all(
        apis::<GeminiBatch>(&client, &places.of_batches)
            .into_iter()
            .zip(batch_gates)
            .map(|(api, gate)| Box::pin(work(api, Arc::clone(&ctx), Some(gate)))),
    );
    let orphans = orphans::run(Arc::clone(&ctx), places.of_batches.clone());
    let result = tokio::select! {
        _ = caches => Err(RunError::Ended("watch of GeminiWebhooks")),
        _ = webhook_controllers => Err(RunError::Ended("webhook controller")),
        _ = batch_controllers => Err(RunError::Ended("batch controller")),
        () = orphans => Err(RunError::Ended("work on the orphan ledger")),
        ended = admin => match ended {
            Ok(Err(e)) => Err(RunError::Admin(e)),
            _ => Err(RunError::Ended("admin port")),
        },
        () = ready => Ok(()),
        () = stop.cancelled() => Ok(()),
    };
    // A POST that was begun is finished and recorded.
    ctx.tasks.close();
    if tokio::time::timeout(DRAIN, ctx.tasks.wait()).await.is_err() {
        tracing::error!("a submission was not recorded in time; its recovery goes on after the restart");
    }
    result
}

/// Namespaces that are watched; an empty list is all of them.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    of_batches: Vec<String>,
    /// With the operator's own, whose webhooks serve all namespaces.
    of_webhooks: Vec<String>,
}

impl Places {
    fn new(settings: &Settings) -> Self {
        let mut of_batches = settings.watch_namespaces.clone();
        of_batches.sort();
        of_batches.dedup();
        let mut of_webhooks = of_batches.clone();
        if !of_webhooks.is_empty() && !of_webhooks.contains(&settings.operator_namespace) {
            of_webhooks.push(settings.operator_namespace.clone());
        }
        Self { of_batches, of_webhooks }
    }
}

/// One gate for each watch: the process is ready when it has seen all places.
fn gates(readiness: &Readiness, kind: &str, places: &[String]) -> Vec<readiness::Gate> {
    if places.is_empty() {
        return vec![readiness.gate(&format!("cache of {kind}"))];
    }
    places.iter().map(|place| readiness.gate(&format!("cache of {kind} in {place}"))).collect()
}

/// Follows the webhooks of one place for ever. When one of them is not ready any more, the batches that rely on it must
/// not wait for the sweep of a healthy one.
async fn cache(api: Api<Guarded<GeminiWebhook>>, writer: Writer<Guarded<GeminiWebhook>>, ctx: Arc<Context>) {
    let watch = relisted(api, watch_config(), ctx.timing.relist).default_backoff();
    let mut ready = HashSet::new();
    watch
        .reflect(writer)
        .touched_objects()
        .for_each(|touched| {
            let webhook = touched.as_ref().ok().and_then(|webhook| webhook.0.as_ref().ok());
            if webhook.is_some_and(|webhook| has_fallen(&mut ready, webhook)) {
                ctx.rescues.batches_differ();
            }
            futures::future::ready(())
        })
        .await;
}

/// One API for each namespace, or one for all.
fn apis<K>(client: &Client, namespaces: &[String]) -> Vec<Api<Guarded<K>>>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    if namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(watch: &[&str]) -> Settings {
        Settings {
            operator_namespace: "system".into(),
            watch_namespaces: watch.iter().map(|name| (*name).to_owned()).collect(),
            admin_listen: ([127, 0, 0, 1], 0).into(),
            gemini_base_url: String::new(),
            gemini_api_version: String::new(),
            ca_file: None,
            timing_divisor: 1,
        }
    }

    #[test]
    fn webhooks_are_watched_where_they_may_serve() {
        for (watch, batches, webhooks) in [
            (&[][..], &[][..], &[][..]),
            (&["b", "a", "b"], &["a", "b"], &["a", "b", "system"]),
            (&["system", "a"], &["a", "system"], &["a", "system"]),
        ] {
            let places = Places::new(&settings(watch));
            assert_eq!((places.of_batches, places.of_webhooks), (owned(batches), owned(webhooks)));
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn is_not_ready_before_it_has_seen_every_place() {
        let readiness = Readiness::new();
        for places in [&[][..], &["a"], &["a", "b"]] {
            let mut gates = gates(&readiness, "GeminiBatches", &owned(places));
            assert_eq!(gates.len(), places.len().max(1));
            while let Some(gate) = gates.pop() {
                assert!(!readiness.is_ready());
                gate.done();
            }
            assert!(readiness.is_ready());
        }
    }
}
