//! Storing hints: `status.lastEvent` of a batch, with as few writes as the truth needs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::flight::{Flights, Write};
use super::index::Batch;
use super::limits;
use super::patch::{Kind, Patch, PatchError, Target};
use super::ttl::TtlSet;
use crate::api::batch::LastEvent;

/// Hints that are remembered as stored. A forgotten one costs a write.
const HINTS: usize = 50_000;

/// What became of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is in the status, or a later one for the same batch is: the controller looks at all open runs either way.
    Written,
    /// The status said so already.
    Redundant,
    /// The batch is gone.
    Gone,
    /// Nothing can be said; the sender must come again.
    Unavailable,
}

/// A batch, a job and a type: what makes a hint the same as another.
type Hint = (Arc<str>, Box<str>, Box<str>);

/// Writes hints.
pub struct Store<P: Patch> {
    flights: Flights<EventWriter<P>>,
}

impl<P: Patch> Store<P> {
    pub fn new(patch: Arc<P>, tasks: TaskTracker) -> Self {
        let recent = Mutex::new(TtlSet::new(limits::REDUNDANT, HINTS));
        Self { flights: Flights::new(EventWriter { patch, recent }, tasks) }
    }

    /// Stores a hint, unless it says nothing new.
    pub async fn put(&self, batch: &Batch, event: LastEvent, now: Timestamp) -> Stored {
        if stands_already(batch, &event, now) {
            return Stored::Redundant;
        }
        let target = Target {
            kind: Kind::Batch,
            namespace: batch.namespace.clone(),
            name: batch.name.clone(),
            uid: batch.uid.clone(),
        };
        let hint = (batch.uid.clone(), event.remote_name.as_str().into(), event.type_.as_str().into());
        if self.flights.writer().is_recent(&hint) {
            return Stored::Redundant;
        }
        let landing = self.flights.submit(&batch.uid, Pending { target, event, hints: vec![hint] });
        match tokio::time::timeout(limits::STORE_BUDGET, landing.outcome()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => Stored::Unavailable,
        }
    }
}

/// Whether the status, as far as the watch has shown it, says the same: another replica may have written it. The very same
/// delivery says nothing new however long ago it was, also to a receiver that has not seen it before.
fn stands_already(batch: &Batch, event: &LastEvent, now: Timestamp) -> bool {
    batch.last_event.as_ref().is_some_and(|last| {
        let age = now.as_second().saturating_sub(last.received.as_second());
        *last.remote_name == *event.remote_name
            && *last.type_ == *event.type_
            && (*last.id == *event.id
                || u64::try_from(age).is_ok_and(|age| age < limits::REDUNDANT.as_secs()))
    })
}

struct Pending {
    target: Target,
    event: LastEvent,
    /// All that this write stands for.
    hints: Vec<Hint>,
}

struct EventWriter<P> {
    patch: Arc<P>,
    recent: Mutex<TtlSet<Hint>>,
}

impl<P> EventWriter<P> {
    fn is_recent(&self, hint: &Hint) -> bool {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).contains(hint, Instant::now())
    }
}

impl<P: Patch> Write for EventWriter<P> {
    type Value = Pending;
    type Outcome = Stored;

    fn merge(&self, waiting: &mut Pending, later: Pending) {
        waiting.event = later.event;
        for hint in later.hints {
            if !waiting.hints.contains(&hint) {
                waiting.hints.push(hint);
            }
        }
    }

    async fn write(&self, pending: Pending) -> Stored {
        // What it waited for may have said all of it.
        if pending.hints.iter().all(|hint| self.is_recent(hint)) {
            return Stored::Redundant;
        }
        match self.patch.apply_status(&pending.target, json!({"lastEvent": pending.event})).await {
            Ok(()) => {
                let now = Instant::now();
                let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
                for hint in pending.hints {
                    recent.insert(hint, now);
                }
                Stored::Written
            }
            Err(PatchError::Gone) => Stored::Gone,
            Err(PatchError::Unavailable) => Stored::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::fake::FakePatch;
    use crate::receiver::index::StoredEvent;
    use crate::receiver::index::tests::batch;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn event(id: &str, remote_name: &str) -> LastEvent {
        LastEvent {
            id: id.into(),
            type_: "batch.succeeded".into(),
            remote_name: remote_name.into(),
            time: None,
            received_time: Time(now()),
        }
    }

    #[tokio::test]
    async fn two_hundred_deliveries_cost_two_writes_at_most() {
        let patch = Arc::new(FakePatch::default());
        let store = Store::new(patch.clone(), TaskTracker::new());
        let batch = batch("a", "x", "1", &["batches/1"]);
        let puts = (0..200).map(|n| store.put(&batch, event(&n.to_string(), "batches/1"), now()));
        let outcomes = futures::future::join_all(puts).await;
        assert!(outcomes.iter().all(|o| matches!(o, Stored::Written | Stored::Redundant)));
        assert!(patch.writes().len() <= 2, "{}", patch.writes().len());
        assert_eq!(store.put(&batch, event("x", "batches/1"), now()).await, Stored::Redundant);
        // Another job of the same batch is news.
        assert_eq!(store.put(&batch, event("y", "batches/2"), now()).await, Stored::Written);
        let (target, status) = patch.writes().pop().unwrap();
        assert_eq!((target.kind, &*target.uid), (Kind::Batch, "1"));
        assert_eq!(
            status,
            json!({"lastEvent": {"id": "y", "type": "batch.succeeded", "remoteName": "batches/2",
                "receivedTime": "2026-01-01T00:00:00Z"}})
        );
    }

    #[tokio::test]
    async fn what_another_replica_wrote_is_redundant_for_a_minute() {
        let patch = Arc::new(FakePatch::default());
        let store = Store::new(patch.clone(), TaskTracker::new());
        let mut batch = batch("a", "x", "1", &["batches/1"]);
        let stored = |received: &str| {
            Some(StoredEvent {
                id: "0".into(),
                remote_name: "batches/1".into(),
                type_: "batch.succeeded".into(),
                received: received.parse().unwrap(),
            })
        };
        batch.last_event = stored("2025-12-31T23:59:01Z");
        assert_eq!(store.put(&batch, event("1", "batches/1"), now()).await, Stored::Redundant);
        // From a clock ahead of ours: cannot be judged, so it is written.
        batch.last_event = stored("2026-01-01T00:00:05Z");
        assert_eq!(store.put(&batch, event("1", "batches/1"), now()).await, Stored::Written);
        // The very same delivery, sent again long after.
        batch.last_event = stored("2025-01-01T00:00:00Z");
        assert_eq!(store.put(&batch, event("0", "batches/1"), now()).await, Stored::Redundant);
    }

    #[tokio::test]
    async fn a_failed_write_is_not_remembered() {
        let patch = Arc::new(FakePatch::default());
        let store = Store::new(patch.clone(), TaskTracker::new());
        let batch = batch("a", "x", "1", &["batches/1"]);
        patch.fail(Some(PatchError::Unavailable));
        assert_eq!(store.put(&batch, event("1", "batches/1"), now()).await, Stored::Unavailable);
        patch.fail(Some(PatchError::Gone));
        assert_eq!(store.put(&batch, event("1", "batches/1"), now()).await, Stored::Gone);
        patch.fail(None);
        assert_eq!(store.put(&batch, event("1", "batches/1"), now()).await, Stored::Written);
    }
}
