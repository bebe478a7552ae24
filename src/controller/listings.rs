//! Complete listings of a key's jobs, one at a time for each key, shared by all batches that wait for one.

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
}

/// The newest listing of one key.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Listing>>>>;

/// Listings by the key's fingerprint.
#[derive(Default)]
pub struct Listings {
    slots: Mutex<HashMap<String, Slot>>,
}

/// More pages than any project has; a provider that repeats a page token must not hold us for ever.
const MAX_PAGES: usize = 10_000;

impl Listings {
    /// A complete listing that began at `since` or later. An error on any page voids the whole.
    pub async fn since(
        &self,
        gemini: &Gemini,
        metrics: &Metrics,
        key: &ApiKey,
        fingerprint: &str,
        since: Timestamp,
    ) -> Result<Arc<Listing>, Error> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(fingerprint.to_owned()).or_default())
        };
        let mut newest = slot.lock().await;
        if let Some(listing) = newest.as_ref().filter(|l| l.started >= since) {
            return Ok(Arc::clone(listing));
        }
        let listing = Arc::new(complete(gemini, key).await?);
        metrics.sweeps.inc();
        *newest = Some(Arc::clone(&listing));
        Ok(listing)
    }
}

async fn complete(gemini: &Gemini, key: &ApiKey) -> Result<Listing, Error> {
    let started = Timestamp::now();
    let (mut jobs, mut token) = (vec![], None);
    for _ in 0..MAX_PAGES {
        let page = gemini.list_batches(key, token.as_deref()).await?;
        if page.unreadable > 0 {
            return Err(Error::transient("batches.list holds entries that cannot be read"));
        }
        jobs.extend(page.batches);
        token = page.next_page_token;
        if token.is_none() {
            return Ok(Listing { started, jobs });
        }
    }
    Err(Error::transient("batches.list does not come to an end"))
}
