//! Deliveries that were stored already. An id is remembered only once its hint is stored: before that, a duplicate
//! waits for the first one's write, and takes its place when that fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::limits;
use super::ttl::TtlSet;

/// An id, cut to a size that does not depend on the sender.
type Id = [u8; 16];

/// The memory of delivered ids.
#[derive(Debug, Default)]
pub struct Dedupe {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    done: HashMap<Arc<str>, TtlSet<Id>>,
    total: usize,
    in_flight: HashMap<(Arc<str>, Id), watch::Receiver<()>>,
}

/// What is known of a delivery.
#[derive(Debug)]
pub enum Begun {
    /// Stored before: nothing to do.
    Done,
    /// New: the ticket's owner stores it.
    New(Ticket),
    /// Another request is storing it; try again when this resolves.
    InFlight(watch::Receiver<()>),
}

/// The right and duty to store one delivery. Dropped without `stored`, it leaves no trace.
#[derive(Debug)]
pub struct Ticket {
    state: Arc<Mutex<State>>,
    key: (Arc<str>, Id),
    /// Dropping it wakes those who wait.
    _sender: watch::Sender<()>,
}

impl Dedupe {
    /// Asks about a delivery of a webhook, and takes it on if it is new.
    pub fn begin(&self, webhook_uid: &Arc<str>, id: &str, now: Instant) -> Begun {
        let digest: [u8; 32] = Sha256::digest(id).into();
        let mut short = Id::default();
        short.copy_from_slice(&digest[..16]);
        let key = (webhook_uid.clone(), short);

        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.done.get(webhook_uid).is_some_and(|ids| ids.contains(&short, now)) {
            return Begun::Done;
        }
        if let Some(receiver) = state.in_flight.get(&key) {
            return Begun::InFlight(receiver.clone());
        }
        let (sender, receiver) = watch::channel(());
        state.in_flight.insert(key.clone(), receiver);
        Begun::New(Ticket { state: self.state.clone(), key, _sender: sender })
    }

    /// A webhook is gone, and its ids with it.
    pub fn forget(&self, webhook_uid: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ids) = state.done.remove(webhook_uid) {
            state.total -= ids.len();
        }
    }
}

impl Ticket {
    /// The hint is stored.
    pub fn stored(self, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.remember(&self.key, now, limits::DEDUPE_PER_WEBHOOK, limits::DEDUPE_TOTAL);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).in_flight.remove(&self.key);
    }
}

impl State {
    fn remember(&mut self, (uid, id): &(Arc<str>, Id), now: Instant, per_webhook: usize, total: usize) {
        let ids =
            self.done.entry(uid.clone()).or_insert_with(|| TtlSet::new(limits::DEDUPE_TTL, per_webhook));
        let before = ids.len();
        ids.insert(*id, now);
        self.total = self.total + ids.len() - before;
        // Over the bound of the process, the webhook that fills it pays, not its neighbours.
        while self.total > total {
            let Some(most) = self.done.values_mut().max_by_key(|ids| ids.len()).filter(|ids| !ids.is_empty())
            else {
                break;
            };
            most.pop();
            self.total -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn new(begun: Begun) -> Ticket {
        match begun {
            Begun::New(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn remembered_only_when_stored() {
        let dedupe = Dedupe::default();
        let now = Instant::now();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let ticket = new(dedupe.begin(&a, "1", now));
        let Begun::InFlight(mut first) = dedupe.begin(&a, "1", now) else { panic!("not in flight") };
        // Another webhook's ids are its own.
        drop(new(dedupe.begin(&b, "1", now)));

        drop(ticket);
        assert!(first.changed().await.is_err(), "the waiting one is woken");
        let ticket = new(dedupe.begin(&a, "1", now));
        ticket.stored(now);
        assert!(matches!(dedupe.begin(&a, "1", now), Begun::Done));
        assert!(matches!(dedupe.begin(&a, "1", now + limits::DEDUPE_TTL), Begun::New(_)));
        assert!(matches!(dedupe.begin(&b, "1", now), Begun::New(_)));
        dedupe.forget("a");
        assert!(matches!(dedupe.begin(&a, "1", now), Begun::New(_)));
        assert_eq!(dedupe.state.lock().unwrap().total, 0);
    }

    #[test]
    fn bounded_in_all() {
        let mut state = State::default();
        let now = Instant::now();
        for n in 0..20_u8 {
            state.remember(&("loud".into(), [n; 16]), now + Duration::from_secs(u64::from(n)), 8, 10);
        }
        assert_eq!(state.total, 8);
        for n in 0..5_u8 {
            state.remember(&("quiet".into(), [n; 16]), now, 8, 10);
        }
        assert_eq!((state.total, state.done["loud"].len(), state.done["quiet"].len()), (10, 5, 5));
    }
}
