//! What every reconcile has at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::credentials::KeyCache;
use super::gate::Gates;
use super::listings::Listings;
use super::metrics::Metrics;
use super::orphans;
use super::rescues::Rescues;
use super::unreadable::Guarded;
use crate::api::GeminiWebhook;
use crate::gemini::Gemini;
use crate::submit::{OperatorSecret, Timing};

pub struct Context {
    /// Reads, and writes that may be repeated.
    pub client: kube::Client,
    /// Compare-and-swap: never retries on its own.
    pub writer: kube::Client,
    pub gemini: Gemini,
    pub timing: Timing,
    pub secret: OperatorSecret,
    pub operator_namespace: String,
    /// Names this process in intents.
    pub holder: String,
    pub recorder: Recorder,
    pub credentials: KeyCache,
    pub listings: Listings,
    pub gates: Gates,
    /// One for each watch: a store holds what one watch has shown, and nothing else.
    pub webhooks: Vec<Store<Guarded<GeminiWebhook>>>,
    /// Deliveries that were seen to be lost.
    pub rescues: Rescues,
    pub metrics: Metrics,
    pub orphans: orphans::Lock,
    /// Tasks that must end before the process may: a POST and its record.
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
    /// When this process began.
    pub started: Instant,
    pub batch_memory: Memories<crate::batch::Memory>,
    pub webhook_memory: Memories<crate::webhook::Memory>,
}

impl Context {
    /// Since this process began, by a clock that does not jump.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The webhooks of all namespaces that can hold one.
    pub fn webhooks(&self) -> Vec<Arc<Guarded<GeminiWebhook>>> {
        self.webhooks.iter().flat_map(Store::state).collect()
    }
}

/// Process-local knowledge by uid.
pub struct Memories<M>(Mutex<HashMap<String, M>>);

impl<M> Default for Memories<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M: Clone + Default> Memories<M> {
    pub fn get(&self, uid: &str) -> M {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned().unwrap_or_default()
    }

    pub fn update<T>(&self, uid: &str, change: impl FnOnce(&mut M) -> T) -> T {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(uid.to_owned()).or_default())
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
