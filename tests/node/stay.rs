//! One test's stay in the cluster: a namespace, an emulator and an ingress controller of its own, and the operator's pods
//! for itself.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;

use futures::TryFutureExt;
use gemini_operator::api::GeminiBatch;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use crate::installation::{EMULATOR, Ends, WAY_IN, available, installation, state_of_pods};
use crate::support::emulator::{Emulator, EmulatorOptions};
use crate::support::ingress::{Route, WayIn};
use crate::support::{OPERATOR_NAMESPACE, PATIENCE, Room, audit, bed, poll};

/// There is one controller, with one base URL, and tests delete its pods: one test after the other.
static TURN: Mutex<()> = Mutex::const_new(());

/// A room whose operator runs in pods.
pub struct Stay {
    // Dropped first: the emulator and the ingress controller give their ports back before the next turn.
    room: Room,
    _way_in: Option<WayIn>,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Stay {
    type Target = Room;

    fn deref(&self) -> &Room {
        &self.room
    }
}

impl Stay {
    /// `faults` is the emulator's plan from its start. Deliveries come in by the chart's Ingress.
    pub async fn new(name: &str, faults: &Value) -> Self {
        Self::behind(Some(Route::Ingress), name, faults).await
    }

    /// The same by any route of the chart; by none of them, the receiver ends TLS itself.
    pub async fn behind(route: Option<Route>, name: &str, faults: &Value) -> Self {
        let turn = TURN.lock().await;
        let installed = installation().await;
        let cluster = &installed.cluster;
        let ends_tls = if route.is_some() { Ends::Before } else { Ends::There };
        if let Err(problem) = installed.end_tls(ends_tls).and_then(|()| available(cluster)).await {
            panic!("the operator is not there: {problem}");
        }
        let client = cluster.admin().await;
        let asked = cluster.audit_log.as_deref().map(audit::Since::now);
        let namespace = cluster.make_namespace(&client, name).await;
        let dir = cluster.dir.join(name);
        fs::create_dir_all(&dir).expect("the bed's folder is writable");
        let resolve = format!("{}:443", bed::HOOKS_HOST);
        // A key of its own: what a failed test left open cannot spend anything in this one's account.
        let options = EmulatorOptions {
            listen: EMULATOR,
            tls: Some(&installed.gemini),
            api_key: &format!("AIza-canary-{namespace}"),
            job_time: "2s",
            resolve: (&resolve, if route.is_some() { WAY_IN } else { installed.service().await }),
            webhook_ca: &installed.hooks.ca,
            faults: Some(faults),
            project: bed::PROJECT,
            more_api_keys: &[],
            jwt: false,
        };
        let emulator = Emulator::start(&dir, &options).await;
        let place = installed.place(&client, &dir);
        let mut way_in = None;
        if let Some(route) = route {
            let way = way_in.insert(WayIn::start(&place, route, WAY_IN).await);
            if let Err(problem) = way.answers(&installed.hooks, StatusCode::METHOD_NOT_ALLOWED).await {
                panic!("no way in: {problem}\n{}", state_of_pods(cluster));
            }
        }
        let room = Room {
            cluster,
            client,
            namespace,
            emulator,
            dir,
            asked,
            why: |room| state_of_pods(room.cluster),
        };
        room.make_api_key().await;
        Self { room, _way_in: way_in, _turn: turn }
    }

    /// The pods of `controller` or `receiver` that nobody is deleting.
    pub async fn pods(&self, process: &str) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let selector = format!("app.kubernetes.io/component={process}");
        let list = pods.list(&ListParams::default().labels(&selector)).await.expect("pods can be listed");
        list.items.into_iter().filter(|pod| pod.meta().deletion_timestamp.is_none()).collect()
    }

    /// Deletes all pods of a process; with these arguments of `kubectl delete`.
    pub async fn delete_pods(&self, process: &str, how: &[&str]) {
        let pods = self.pods(process).await;
        assert!(!pods.is_empty(), "there is no pod of the {process}");
        let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
        let names = names.iter().map(String::as_str);
        let arguments: Vec<&str> =
            ["delete", "pod"].into_iter().chain(names).chain(how.iter().copied()).collect();
        self.cluster.kubectl(OPERATOR_NAMESPACE).run(&arguments).await.expect();
    }

    /// Waits until the emulator has made a job.
    pub async fn wait_for_the_job(&self) {
        let made = poll(PATIENCE, async || match self.ledger().await.jobs().len() {
            1 => Ok(()),
            jobs => Err(jobs),
        });
        if let Err(jobs) = made.await {
            panic!("{jobs} jobs\n{}", self.log_tails());
        }
    }

    /// Waits until an endpoint has taken the event, the receiver has noted it in the batch, and the batch is complete.
    pub async fn wait_complete_by_event(&self, name: &str) -> GeminiBatch {
        let taken = poll(PATIENCE, async || match self.ledger().await.delivered("batch.succeeded") {
            1 => Ok(()),
            times => Err(times),
        });
        if let Err(times) = taken.await {
            let deliveries = &self.ledger().await.0["deliveries"];
            panic!("the event was taken {times} times: {deliveries:#}\n{}", self.log_tails());
        }
        let told =
            |batch: &GeminiBatch| batch.status.as_ref().is_some_and(|status| status.last_event.is_some());
        self.wait_batch(name, "told of its end by an event", told).await;
        self.wait_complete(name).await
    }

    /// Deletes everything as a person would: kubectl comes back when it is gone. Then nothing is left at Gemini either.
    pub async fn delete_and_expect_nothing_left(&self) {
        for kind in ["geminibatches", "geminiwebhooks"] {
            let said = self.kubectl().run(&["delete", kind, "--all", "--timeout=90s"]).await;
            assert!(said.ok, "{}\n{}", said.stderr, self.log_tails());
        }
        for collection in ["batches", "files", "webhooks"] {
            let left = self.emulator.list(collection).await;
            assert!(left.is_empty(), "{collection} left: {left:?}");
        }
    }
}

/// The image's program, in a container.
pub const PROGRAM: &str = "/usr/bin/gemini-operator";

/// `/proc/PID` of every process that runs as `controller` or `receiver`: pods are in the bed's own process namespace.
fn processes(subcommand: &str) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").expect("/proc is there").flatten().map(|entry| entry.path());
    all.filter(|path| {
        // Empty for one that has ended meanwhile.
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).take(2).eq([PROGRAM.as_bytes(), subcommand.as_bytes()])
    })
    .collect()
}

/// Those processes, as soon as there are so many; the ones of deleted pods take a moment to go.
pub async fn wait_for_processes(subcommand: &str, count: usize) -> Vec<PathBuf> {
    let seen = poll(PATIENCE, async || {
        let seen = processes(subcommand);
        if seen.len() == count { Ok(seen) } else { Err(seen) }
    });
    seen.await.unwrap_or_else(|seen| panic!("not {count} processes of the {subcommand}: {seen:?}"))
}
