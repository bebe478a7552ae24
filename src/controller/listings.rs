//! Listings of a key's jobs, one at a time for each key, shared by all batches that wait for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::metrics::Metrics;
use crate::gemini::{ApiKey, Batch, Error, Gemini};

/// All jobs of one key, as seen between `started` and the return of the last page.
#[derive(Debug)]
pub struct Listing {
    pub started: Timestamp,
    pub jobs: Vec<Batch>,
    /// Entries that could not be read, whoever they belong to.
    unreadable: usize,
}

impl Listing {
    /// Whether what is not in it is not at Gemini, as far as a listing can say.
    pub fn is_complete(&self) -> bool {
        self.unreadable == 0
    }
}

/// What is known of one key's jobs.
#[derive(Default)]
struct Known {
    newest: Option<Arc<Listing>>,
    /// When the newest try began, if it failed, and how.
    failed: Option<(Timestamp, Error)>,
}

type Slot = Arc<tokio::sync::Mutex<Known>>;

/// Listings by the key's fingerprint.
#[derive(Default)]
pub struct Listings {
    slots: Mutex<HashMap<String, Slot>>,
}

impl Listings {
    /// A complete listing that began at `since` or later: it may serve as proof that a job does not exist. An error on
    /// any page, or an entry that cannot be read, voids the whole.
    pub async fn since(
        &self,
        gemini: &Gemini,
        metrics: &Metrics,
        key: &ApiKey,
        fingerprint: &str,
        since: Timestamp,
    ) -> Result<Arc<Listing>, Error> {
        let slot = self.slot(fingerprint);
        let mut known = slot.lock().await;
        if let Some(listing) = known.newest.as_ref().filter(|l| l.started >= since && l.is_complete()) {
            return Ok(Arc::clone(listing));
        }
        let listing = known.renew(gemini, metrics, key).await?;
        if listing.is_complete() {
            Ok(listing)
        } else {
            Err(Error::transient("batches.list holds entries that cannot be read"))
        }
    }

    /// A listing that began at `since` or later, for a look at jobs that are known: what of it cannot be read is left
    /// out. If one has failed since then, so has this one: batches that wait for the same tick do not try one by one.
    pub async fn sweep(
        &self,
        gemini: &Gemini,
        metrics: &Metrics,
        key: &ApiKey,
        fingerprint: &str,
        since: Timestamp,
    ) -> Result<Arc<Listing>, Error> {
        let slot = self.slot(fingerprint);
        let mut known = slot.lock().await;
        match known.at_tick(since) {
            Some(answer) => answer,
            None => known.renew(gemini, metrics, key).await,
        }
    }

    fn slot(&self, fingerprint: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(fingerprint.to_owned()).or_default())
    }
}

impl Known {
    /// What the newest try since then has brought, if there was one.
    fn at_tick(&self, since: Timestamp) -> Option<Result<Arc<Listing>, Error>> {
        if let Some(listing) = self.newest.as_ref().filter(|l| l.started >= since) {
            return Some(Ok(Arc::clone(listing)));
        }
        self.failed.as_ref().filter(|(began, _)| *began >= since).map(|(_, error)| Err(error.clone()))
    }

    async fn renew(
        &mut self,
        gemini: &Gemini,
        metrics: &Metrics,
        key: &ApiKey,
    ) -> Result<Arc<Listing>, Error> {
        let started = Timestamp::now();
        match gemini.list_batches(key).await {
            Ok(all) => {
                metrics.sweeps.inc();
                let listing = Arc::new(Listing { started, jobs: all.batches, unreadable: all.unreadable });
                (self.newest, self.failed) = (Some(Arc::clone(&listing)), None);
                Ok(listing)
            }
            Err(error) => {
                self.failed = Some((started, error.clone()));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_try_a_tick_serves_all() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let listing = |second| Arc::new(Listing { started: at(second), jobs: vec![], unreadable: 1 });
        let failed = |second| Some((at(second), Error::transient("no")));
        // The newest listing, the failure, the tick: nothing yet, a listing, a failure.
        for (newest, failed, tick, expected) in [
            (None, None, 5, None),
            (Some(listing(4)), None, 5, None),
            (Some(listing(5)), None, 5, Some(true)),
            (None, failed(4), 5, None),
            (None, failed(5), 5, Some(false)),
            (Some(listing(4)), failed(6), 5, Some(false)),
            (Some(listing(6)), failed(7), 5, Some(true)),
        ] {
            let known = Known { newest, failed };
            assert_eq!(known.at_tick(at(tick)).map(|answer| answer.is_ok()), expected);
        }
    }
}
