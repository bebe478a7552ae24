//! The provider's public keys, by which dynamic deliveries are proven.
//!
//! Fetched when a delivery to a dynamic route asks for them and never otherwise: a cluster without such a webhook makes
//! no call. Strangers can make as many deliveries as they like that no key fits, so all of them together cause one call
//! a minute at most; whoever comes while one is under way waits for that one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::watch;

use super::limits;
use super::metrics::Metrics;
use super::signature::jwks::{self, Jwks};

/// Where the keys come from.
pub trait Source: Send + Sync + 'static {
    /// One call. Has a time-out of its own.
    fn fetch(&self) -> BoxFuture<'static, Result<Jwks, FetchError>>;
}

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("not reached: {0}")]
    Unreachable(String),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("the document is refused: {0}")]
    Document(#[from] jwks::Error),
}

impl FetchError {
    /// The metric's label.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Status(_) => "status",
            Self::Document(jwks::Error::TooLarge) => "too_large",
            Self::Document(jwks::Error::Malformed) => "malformed",
            Self::Document(jwks::Error::TooManyKeys) => "too_many_keys",
        }
    }
}

/// The keys of one document.
#[derive(Debug, PartialEq)]
pub struct KeySet {
    pub jwks: Jwks,
    /// Names of the keys, in the order of each kind.
    pub ed25519: Vec<Arc<str>>,
    pub rsa: Vec<Arc<str>>,
}

impl From<Jwks> for KeySet {
    fn from(jwks: Jwks) -> Self {
        let (ed25519, rsa) = jwks.thumbprints();
        let shared = |names: Vec<String>| names.into_iter().map(Arc::from).collect();
        Self { ed25519: shared(ed25519), rsa: shared(rsa), jwks }
    }
}

/// What is known about the keys at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// Since the keys at hand were asked for; `None` = there are none.
    age: Option<Duration>,
    /// Since the last call began, however it ended.
    called: Option<Duration>,
    under_way: bool,
}

/// What to do for a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The keys at hand decide.
    Use,
    /// Call, and wait for it.
    Fetch,
    /// Wait for the call that is under way.
    Join,
    /// No keys, and no call now.
    Lack,
}

/// `missed`: the keys at hand were tried, and none fits.
fn decide(facts: Facts, missed: bool) -> Step {
    let younger = |than: Duration| facts.age.is_some_and(|age| age < than);
    if younger(limits::JWKS_FRESH) && !missed {
        Step::Use
    } else if facts.under_way {
        Step::Join
    } else if facts.called.is_none_or(|since| since >= limits::JWKS_INTERVAL) {
        Step::Fetch
    } else if younger(limits::JWKS_STALE) {
        Step::Use
    } else {
        Step::Lack
    }
}

/// What a delivery is told that wants to be judged by the right keys.
#[derive(Clone, Debug)]
pub enum Told {
    /// The keys that it was judged by are the right ones; `failing`: the last call came to nothing.
    Same { failing: bool },
    /// Judge it by these.
    Other(Arc<KeySet>),
    /// Nothing can be said of it now.
    Lack,
}

/// The keys, and the calls for them.
pub struct PublicKeys {
    source: Box<dyn Source>,
    metrics: Metrics,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    called: Option<Instant>,
    failing: bool,
    /// Closed when the call has ended.
    under_way: Option<watch::Receiver<()>>,
}

struct Held {
    keys: Arc<KeySet>,
    since: Instant,
}

impl PublicKeys {
    pub fn new(source: Box<dyn Source>, metrics: Metrics) -> Self {
        Self { source, metrics, state: Arc::default() }
    }

    /// What is at hand, of whatever age.
    pub fn held(&self) -> Option<Arc<KeySet>> {
        lock(&self.state).held.as_ref().map(|held| held.keys.clone())
    }

    /// What to think of a verdict by `known`; `missed` if it is one for want of a key.
    pub async fn ask(&self, known: Option<&Arc<KeySet>>, missed: bool, now: Instant) -> Told {
        let mut landing = {
            let mut state = lock(&self.state);
            if let Some(other) = state.other_than(known) {
                return Told::Other(other);
            }
            match decide(state.facts(now), missed) {
                Step::Use => return Told::Same { failing: state.failing },
                Step::Lack => return Told::Lack,
                Step::Join => state.under_way.clone(),
                Step::Fetch => Some(self.start(&mut state, now)),
            }
        };
        if let Some(landing) = &mut landing {
            // Nothing is ever sent: the end of it is what is waited for.
            while landing.changed().await.is_ok() {}
        }
        let state = lock(&self.state);
        match state.other_than(known) {
            Some(other) => Told::Other(other),
            None if state.facts(now).age.is_some_and(|age| age < limits::JWKS_STALE) => {
                Told::Same { failing: state.failing }
            }
            None => Told::Lack,
        }
    }

    /// In a task of its own: the request that began it may be given up by its sender, and others wait for it too.
    fn start(&self, state: &mut State, now: Instant) -> watch::Receiver<()> {
        let (done, landing) = watch::channel(());
        state.called = Some(now);
        state.under_way = Some(landing.clone());
        let (shared, metrics, call) = (self.state.clone(), self.metrics.clone(), self.source.fetch());
        tokio::spawn(async move {
            let outcome = call.await;
            metrics.jwks_fetch(outcome.as_ref().map_or_else(FetchError::as_str, |_| "fetched"));
            let mut state = lock(&shared);
            match outcome {
                Ok(jwks) => state.take(jwks.into(), now),
                Err(error) => {
                    state.failing = true;
                    tracing::warn!(%error, held = state.held.is_some(), "the public keys were not fetched");
                }
            }
            drop(state);
            drop(done);
        });
        landing
    }
}

impl State {
    fn facts(&self, now: Instant) -> Facts {
        Facts {
            age: self.held.as_ref().map(|held| now.saturating_duration_since(held.since)),
            called: self.called.map(|called| now.saturating_duration_since(called)),
            // A call that ended in whatever way has dropped its end.
            under_way: self.under_way.as_ref().is_some_and(|landing| landing.has_changed().is_ok()),
        }
    }

    fn other_than(&self, known: Option<&Arc<KeySet>>) -> Option<Arc<KeySet>> {
        let held = &self.held.as_ref()?.keys;
        (!known.is_some_and(|known| Arc::ptr_eq(known, held))).then(|| held.clone())
    }

    /// `since` is the call's beginning: what it brought may be that old.
    fn take(&mut self, keys: KeySet, since: Instant) {
        let (ed25519, rsa) = keys.jwks.counts();
        self.failing = false;
        // The same keys stay the same, so that nobody is judged by them twice.
        match &mut self.held {
            Some(held) if *held.keys == keys => held.since = since,
            held => {
                tracing::info!(ed25519, rsa, "public keys fetched");
                *held = Some(Held { keys: Arc::new(keys), since });
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub mod tests;
