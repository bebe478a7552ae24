//! Everything the emulator remembers, behind one lock, and what all rooms share.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Nanos};
use crate::deliveries::Sender;
use crate::digest::{hex, sha256, word};
use crate::faults::Plan;
use crate::files::{StoredFile, Upload};
use crate::jobs::Job;
use crate::jwks::Keys;
use crate::ledger::Ledger;
use crate::matcher::Faults;
use crate::senders::Beside;
use crate::webhooks::Webhook;

/// What the command line decides.
#[derive(Debug)]
pub struct Settings {
    /// Key → project; empty: every key is good and its own project.
    pub api_keys: HashMap<String, String>,
    pub job_time: Duration,
    /// Divides the delays between the attempts of a delivery.
    pub retry_scale: u32,
    pub seed: u64,
    pub allow_http_webhooks: bool,
    pub tls: bool,
}

#[derive(Debug, Default)]
pub struct State {
    pub files: BTreeMap<String, StoredFile>,
    pub uploads: HashMap<String, Upload>,
    /// Jobs by their identifier; deleted ones stay for the ledger.
    pub jobs: BTreeMap<String, Job>,
    /// What is next to happen to a job, in order of time.
    pub due: BTreeSet<(Nanos, String)>,
    pub webhooks: BTreeMap<String, Webhook>,
    /// Programs beside the API that tell of ended jobs.
    pub senders: BTreeMap<String, Beside>,
    pub ledger: Ledger,
    pub faults: Faults,
    /// Rows that ran at least once (digests of project, key and request).
    pub seen_rows: HashSet<[u8; 16]>,
    names: u64,
}

impl State {
    /// A fresh identifier: a function of the seed and of how many were made before.
    pub fn fresh(&mut self, seed: u64, kind: &str, length: usize) -> String {
        self.names += 1;
        word(seed, &[kind, &self.names.to_string()], length)
    }

    /// A file goes, and the ledger tells. False: there was none.
    pub fn remove_file(&mut self, id: &str, now: Nanos) -> bool {
        let Some(file) = self.files.remove(id) else { return false };
        self.ledger.deleted(now, format!("files/{id}"), &file.project);
        true
    }
}

#[derive(Debug)]
pub struct App {
    pub settings: Settings,
    pub clock: Clock,
    pub sender: Sender,
    pub keys: Keys,
    state: Mutex<State>,
    /// Something may be due earlier than the scheduler thinks.
    pub wake: Notify,
    /// Only one task moves jobs forward.
    pub settling: tokio::sync::Mutex<()>,
    /// Told after every call, for `execute_late_calls`.
    pub calls: tokio::sync::watch::Sender<u64>,
    /// Calls that a `hold` keeps waiting.
    pub held: Held,
    /// Told after every delivery, for reordered ones.
    pub delivered: tokio::sync::watch::Sender<u64>,
}

/// Calls that wait for a release.
#[derive(Debug, Default)]
pub struct Held {
    waiting: AtomicUsize,
    release: Notify,
}

impl Held {
    /// Waits for the next release.
    pub async fn wait(&self) {
        // From here on a release counts, also before the first poll: whoever sees the number may release.
        let released = self.release.notified();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        released.await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn count(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Lets all go on that wait now.
    pub fn release(&self) {
        self.release.notify_waiters();
    }
}

impl App {
    pub fn new(settings: Settings, sender: Sender, keys: Keys, plan: Plan) -> Self {
        let state = State { faults: Faults::new(plan, settings.seed), ..State::default() };
        Self {
            settings,
            clock: Clock::default(),
            sender,
            keys,
            state: Mutex::new(state),
            wake: Notify::new(),
            settling: tokio::sync::Mutex::new(()),
            calls: tokio::sync::watch::Sender::new(0),
            held: Held::default(),
            delivered: tokio::sync::watch::Sender::new(0),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// The project of a key: the one it was given, or a name made of the key's digest. None: not a good key.
    pub fn project_of(&self, key: &str) -> Option<String> {
        if self.settings.api_keys.is_empty() {
            return (!key.is_empty()).then(|| default_project(key));
        }
        self.settings.api_keys.get(key).cloned()
    }
}

/// A name that says which key without saying the key.
pub fn default_project(key: &str) -> String {
    format!("project-{}", &hex(&sha256(key.as_bytes()))[..8])
}
