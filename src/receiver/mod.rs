//! The receiver: the process that faces the internet. It proves that a delivery is Gemini's, records it in the status
//! of the batch that it speaks of, and answers. It holds no API key, and knows neither Gemini nor the controller; of the
//! outside world it asks for one document, the public keys that dynamic deliveries are signed with.

mod dedupe;
mod delivery;
mod early;
mod event;
mod fair;
#[cfg(test)]
mod fake;
mod flight;
mod handler;
mod index;
pub mod jwks_fetch;
mod keys;
pub mod limits;
mod metrics;
mod patch;
mod public_keys;
mod quiet;
mod routes;
mod serve;
pub mod signature;
mod store;
mod ttl;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::fair::Shares;
use self::handler::Handler;
use self::index::{Index, SlimBatch};
use self::jwks_fetch::JwksFetch;
use self::keys::Keyring;
use self::metrics::{EarlyOutcome, Metrics};
use self::patch::{KubePatch, Patch};
use self::public_keys::PublicKeys;
use self::routes::{Route, Routes, SlimWebhook};
use self::serve::{Bounds, Server};
use self::signature::standard_v1::Key;
use self::watch::{Change, follow};
use crate::api::keyring::KEYRING_SECRET;
use crate::runtime::listen::{self, Announcement};
use crate::runtime::readiness::Readiness;
use crate::runtime::{admin, tls};

// What else reads a sender's bytes, for the fuzz targets.
#[cfg(fuzzing)]
pub use self::{event::Envelope, event::Shape, routes::token_of};

/// How often early events are looked through.
const EARLY_TICK: Duration = Duration::from_secs(2);

/// What the receiver is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For deliveries.
    pub listen: SocketAddr,
    /// For metrics and probes.
    pub admin_listen: SocketAddr,
    /// Where the keyring is, and the webhooks that serve all namespaces.
    pub operator_namespace: String,
    /// Empty = all.
    pub watch_namespaces: Vec<String>,
    /// Certificate and key, both PEM; `None` = plain HTTP behind an Ingress.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where the public keys of dynamic deliveries are.
    pub jwks_url: String,
    /// PEM file with CA certificates to trust there in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

/// Why the receiver ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Bind(#[from] listen::BindError),
    #[error("--tls-cert and --tls-key cannot be used")]
    Tls(#[from] tls::Error),
    #[error("--ca-file {}: cannot be read", path.display())]
    CaFile { path: PathBuf, source: std::io::Error },
    #[error("the public keys of dynamic deliveries cannot be asked for: {0}")]
    Jwks(String),
    #[error("cannot say where the receiver listens")]
    Announce(#[source] std::io::Error),
    #[error("the key for unknown routes cannot be made")]
    DummyKey,
    /// A silent end of a task would leave a process that looks alive and does not work.
    #[error("background task {0:?} ended")]
    TaskEnded(&'static str),
}

impl<P: Patch> serve::Service for Handler<P> {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.handle(request).await
    }
}

/// Runs the receiver until `shutdown`, or until a part of it ends.
pub async fn run(settings: Settings, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let tls = match settings.tls.clone() {
        Some((certificate, key)) => Some(Arc::new(tls::Tls::load(certificate, key).await?)),
        None => None,
    };
    let jwks = jwks_fetch(&settings)?;
    let listener = listen::bind("--listen", settings.listen).await?;
    let admin_listener = listen::bind("--admin-listen", settings.admin_listen).await?;
    let announcement = Announcement {
        listen: Some(listener.local_addr().map_err(Error::Announce)?),
        admin: admin_listener.local_addr().map_err(Error::Announce)?,
    };

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::new();
    let writes = TaskTracker::new();
    let patch = Arc::new(KubePatch::new(client.clone(), metrics.clone()));
    let handler = Arc::new(Handler {
        readiness: readiness.clone(),
        synced: false.into(),
        routes: Arc::default(),
        keyring: Arc::default(),
        public_keys: PublicKeys::new(Box::new(jwks), metrics.clone()),
        index: Arc::default(),
        early: Arc::default(),
        dedupe: Arc::default(),
        store: store::Store::new(patch.clone(), writes.clone()),
        deliveries: delivery::Deliveries::new(patch, writes.clone()),
        metrics: metrics.clone(),
        log: quiet::RejectionLog::default(),
        dummy: Key::dummy().map_err(|_| Error::DummyKey)?,
        clock: Timestamp::now,
        body_timeout: limits::BODY_TIMEOUT,
        body_grants: Semaphore::new(limits::BODY_GRANTS),
        shares: Shares::new(limits::DELIVERIES_PER_WEBHOOK),
    });

    // Every task reports its name when it ends; whichever does so before the shutdown ends the process.
    let mut tasks = JoinSet::new();
    let last = CancellationToken::new();
    watch_cluster(&mut tasks, &settings, &client, &handler, &readiness);
    spawn(&mut tasks, "admin server", {
        let serving = admin::serve(admin_listener, Arc::new(registry), readiness.clone(), last.clone());
        async move {
            if let Err(error) = serving.await {
                tracing::error!(error = &error as &dyn std::error::Error, "admin server failed");
            }
        }
    });
    if let Some(tls) = tls.clone() {
        let last = last.clone();
        spawn(&mut tasks, "TLS reload", async move { tls.watch(last).await });
    }
    // Aborted with this function: a part that fails must not leave the others serving.
    let mut server = AbortOnDropHandle::new(tokio::spawn({
        let server = Server { service: handler, tls, metrics, bounds: Bounds::default() };
        server.run(listener, shutdown.clone())
    }));

    listen::announce(&announcement).map_err(Error::Announce)?;
    tokio::select! {
        () = shutdown.cancelled() => {}
        Some(ended) = tasks.join_next() => return Err(task_ended(ended)),
        _ = &mut server => return Err(Error::TaskEnded("server")),
    }

    // The tables stay alive during the drain: requests under way need them.
    tracing::info!("draining");
    let _shut = readiness.gate("shutdown");
    tokio::select! {
        _ = &mut server => {}
        Some(ended) = tasks.join_next() => return Err(task_ended(ended)),
    }
    writes.close();
    if tokio::time::timeout(limits::LAST_WRITES, writes.wait()).await.is_err() {
        tracing::warn!("writes did not end in time");
    }
    last.cancel();
    tasks.shutdown().await;
    Ok(())
}

fn jwks_fetch(settings: &Settings) -> Result<JwksFetch, Error> {
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|source| Error::CaFile { path: path.clone(), source });
    let ca = settings.ca_file.as_ref().map(read).transpose()?;
    JwksFetch::new(&settings.jwks_url, ca.as_deref()).map_err(Error::Jwks)
}

fn task_ended(ended: Result<&'static str, tokio::task::JoinError>) -> Error {
    Error::TaskEnded(ended.unwrap_or("panicked"))
}

fn spawn(
    tasks: &mut JoinSet<&'static str>,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(async move {
        task.await;
        name
    });
}

/// Starts the watches of all tables, and what follows from them.
fn watch_cluster<P: Patch>(
    tasks: &mut JoinSet<&'static str>,
    settings: &Settings,
    client: &Client,
    handler: &Arc<Handler<P>>,
    readiness: &Readiness,
) {
    let keyring: Arc<Keyring> = handler.keyring.clone();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &settings.operator_namespace);
    // The right to watch Secrets is for this one name only, and such a right needs the selector.
    let only_keyring = watcher::Config::default().fields(&format!("metadata.name={KEYRING_SECRET}"));
    let gate = readiness.gate("keyring");
    spawn(tasks, "keyring watch", async move {
        follow(secrets, only_keyring, "keyring", gate, Some, |change| keyring.apply(change)).await;
    });

    for (number, api) in apis::<SlimWebhook>(client, &webhook_namespaces(settings)).into_iter().enumerate() {
        let routes: Arc<Routes> = handler.routes.clone();
        let gate = readiness.gate("webhook cache");
        let operator_namespace = settings.operator_namespace.clone();
        let handler = handler.clone();
        spawn(tasks, "webhook watch", async move {
            let cut = |object: SlimWebhook| object.into_route(&operator_namespace);
            let apply = |change| {
                let changed =
                    if let Change::Applied(Route { uid, .. }) = &change { Some(uid.clone()) } else { None };
                for uid in routes.apply(number, change, Timestamp::now()) {
                    handler.dedupe.forget(&uid);
                    handler.deliveries.forget(&uid);
                }
                if let Some(route) = changed.and_then(|uid| routes.get(&uid)) {
                    handler.deliveries.changed(&route);
                }
            };
            follow(api, watcher::Config::default(), "webhooks", gate, cut, apply).await;
        });
    }

    // Unbounded, but each name in it is one that the index holds anyway.
    let (appeared, names) = mpsc::unbounded_channel();
    for (number, api) in apis::<SlimBatch>(client, &settings.watch_namespaces).into_iter().enumerate() {
        let index: Arc<Index> = handler.index.clone();
        let gate = readiness.gate("batch cache");
        let appeared = appeared.clone();
        spawn(tasks, "batch watch", async move {
            let apply = |change| {
                let new = index.apply(number, change);
                if !new.is_empty() {
                    // Fails only when the other task has ended, which ends the process.
                    let _ = appeared.send(new);
                }
            };
            follow(api, watcher::Config::default(), "batches", gate, SlimBatch::into_batch, apply).await;
        });
    }
    spawn(tasks, "early events", early_events(handler.clone(), names));
}

/// One watch for the whole cluster, or one for each namespace.
fn apis<K>(client: &Client, namespaces: &[String]) -> Vec<Api<K>>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespaces {
        [] => vec![Api::all(client.clone())],
        some => some.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect(),
    }
}

/// Webhooks of the operator's namespace serve the watched namespaces too.
fn webhook_namespaces(settings: &Settings) -> Vec<String> {
    let mut namespaces = settings.watch_namespaces.clone();
    if !namespaces.is_empty() && !namespaces.contains(&settings.operator_namespace) {
        namespaces.push(settings.operator_namespace.clone());
    }
    namespaces
}

async fn early_events<P: Patch>(handler: Arc<Handler<P>>, mut names: mpsc::UnboundedReceiver<Vec<Arc<str>>>) {
    let mut tick = tokio::time::interval(EARLY_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut again, mut new) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            taken = names.recv_many(&mut new, limits::EARLY_AT_ONCE) => {
                if taken == 0 {
                    return;
                }
                let names: Vec<_> = new.drain(..).flatten().collect();
                again.extend(handler.appeared(&names).await);
            },
            _ = tick.tick() => {
                let due = std::mem::take(&mut again);
                again = handler.appeared(&due).await;
                let foreign = handler.early.expire(Instant::now());
                handler.metrics.early(EarlyOutcome::Foreign, foreign);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_s_namespace_is_always_looked_at_for_webhooks() {
        let settings = |watch: &[&str]| Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            admin_listen: ([127, 0, 0, 1], 0).into(),
            operator_namespace: "op".into(),
            watch_namespaces: watch.iter().map(|name| (*name).into()).collect(),
            tls: None,
            jwks_url: jwks_fetch::GOOGLES.into(),
            ca_file: None,
        };
        assert!(webhook_namespaces(&settings(&[])).is_empty());
        assert_eq!(webhook_namespaces(&settings(&["a"])), ["a", "op"]);
        assert_eq!(webhook_namespaces(&settings(&["op", "a"])), ["op", "a"]);
    }
}
