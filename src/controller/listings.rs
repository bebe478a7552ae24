//! Listings of a key's jobs, one at a time for each key, shared by all batches that wait for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::metrics::Metrics;
use super::next::after;
use crate::gemini::{ApiKey, Batch, Error, Gemini};

/// For so long after the last question it is remembered how far back one went: longer than from one sweep to the next.
const DEPTH_MEMORY: Duration = Duration::from_mins(25);

/// All jobs of one key, as seen between `started` and the return of the last page.
#[derive(Debug)]
pub struct Listing {
    pub started: Timestamp,
    pub jobs: Vec<Batch>,
    /// Entries that could not be read, whoever they belong to.
    unreadable: usize,
    /// Jobs that were created before this may be missing; `None`: none is.
    reaches: Option<Timestamp>,
}

impl Listing {
    /// Whether what is not in it is not at Gemini, as far as a listing can say.
    pub fn is_complete(&self) -> bool {
        self.unreadable == 0 && self.reaches.is_none()
    }

    /// Whether it holds all that was created since then.
    fn goes_back_to(&self, from: Timestamp) -> bool {
        self.reaches.is_none_or(|reaches| reaches <= from)
    }
}

/// What is known of one key's jobs.
#[derive(Default)]
struct Known {
    newest: Option<Arc<Listing>>,
    /// When the newest try began, if it failed, and how.
    failed: Option<(Timestamp, Error)>,
    /// How far back a sweep had to go, and when that was last asked for.
    depth: Option<(Timestamp, Timestamp)>,
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
        let listing = known.renew(gemini, metrics, key, None).await?;
        if listing.is_complete() {
            Ok(listing)
        } else {
            Err(Error::transient("batches.list holds entries that cannot be read"))
        }
    }

    /// A listing that began at `since` or later, for a look at jobs that are known: what of it cannot be read is left
    /// out. If one has failed since then, so has this one: batches that wait for the same tick do not try one by one.
    ///
    /// `from`: nobody is asked for what was created before then. One that goes back as far as any batch of the key needs
    /// serves them all.
    pub async fn sweep(
        &self,
        gemini: &Gemini,
        metrics: &Metrics,
        key: &ApiKey,
        fingerprint: &str,
        since: Timestamp,
        from: Timestamp,
    ) -> Result<Arc<Listing>, Error> {
        let slot = self.slot(fingerprint);
        let mut known = slot.lock().await;
        let depth = known.asked(from, Timestamp::now());
        match known.at_tick(since, from) {
            Some(answer) => answer,
            None => known.renew(gemini, metrics, key, Some(depth)).await,
        }
    }

    fn slot(&self, fingerprint: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(fingerprint.to_owned()).or_default())
    }
}

impl Known {
    /// Takes note of how far back somebody needs it; how far the next one has to go.
    fn asked(&mut self, from: Timestamp, now: Timestamp) -> Timestamp {
        let is_deeper =
            |(depth, asked): (Timestamp, Timestamp)| from <= depth || after(asked, DEPTH_MEMORY) < now;
        if self.depth.is_none_or(is_deeper) {
            self.depth = Some((from, now));
        }
        self.depth.map_or(from, |(depth, _)| depth)
    }

    /// What the newest try since then has brought, if there was one.
    fn at_tick(&self, since: Timestamp, from: Timestamp) -> Option<Result<Arc<Listing>, Error>> {
        if let Some(listing) = self.newest.as_ref().filter(|l| l.started >= since && l.goes_back_to(from)) {
            return Some(Ok(Arc::clone(listing)));
        }
        self.failed.as_ref().filter(|(began, _)| *began >= since).map(|(_, error)| Err(error.clone()))
    }

    async fn renew(
        &mut self,
        gemini: &Gemini,
        metrics: &Metrics,
        key: &ApiKey,
        from: Option<Timestamp>,
    ) -> Result<Arc<Listing>, Error> {
        let started = Timestamp::now();
        match gemini.list_batches_since(key, from).await {
            Ok(all) => {
                metrics.sweeps.inc();
                let (unreadable, reaches) = (all.unreadable, all.reaches);
                let listing = Arc::new(Listing { started, jobs: all.batches, unreadable, reaches });
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
        let listing = |second| {
            Arc::new(Listing { started: at(second), jobs: vec![], unreadable: 1, reaches: Some(at(2)) })
        };
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
            let known = Known { newest, failed, depth: None };
            assert_eq!(known.at_tick(at(tick), at(2)).map(|answer| answer.is_ok()), expected);
        }
        let shallow = Known { newest: Some(listing(5)), ..Known::default() };
        assert!(shallow.at_tick(at(5), at(1)).is_none(), "it does not go back so far");
    }

    #[test]
    fn one_goes_back_as_far_as_any_needs() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let memory = i64::try_from(DEPTH_MEMORY.as_secs()).unwrap();
        let mut known = Known::default();
        // From when, asked when, how far back it goes.
        for (from, now, expected) in [
            (500, 1_000, 500),
            (100, 1_000, 100),
            (500, 1_600, 100),
            // Asked again: it is still needed.
            (100, 1_600, 100),
            (500, 1_600 + memory, 100),
            (500, 1_601 + memory, 500),
        ] {
            assert_eq!(known.asked(at(from), at(now)), at(expected), "{from} at {now}");
        }
    }

    #[test]
    fn only_a_whole_one_proves_anything() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (unreadable, reaches, expected) in [(0, None, true), (1, None, false), (0, Some(at(1)), false)] {
            let listing = Listing { started: at(5), jobs: vec![], unreadable, reaches };
            assert_eq!(listing.is_complete(), expected);
        }
    }
}
