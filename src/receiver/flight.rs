//! One write in flight for each object.
//!
//! Concurrent writes to one object collapse inside the API server. So whatever comes while one is under way is merged
//! into the next one, and all who brought something share its outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How to write an object, and how to make one write of two.
pub trait Write: Send + Sync + 'static {
    type Value: Send + 'static;
    type Outcome: Clone + Send + Sync + 'static;

    /// Merges a later value into one that still waits.
    fn merge(&self, waiting: &mut Self::Value, later: Self::Value);

    /// Writes. Has a time-out of its own.
    fn write(&self, value: Self::Value) -> impl Future<Output = Self::Outcome> + Send;
}

/// The writes under way.
pub struct Flights<W: Write> {
    writer: Arc<W>,
    slots: Slots<W>,
    tasks: TaskTracker,
}

/// An object that is in here is being written; with what waits for the next write.
type Slots<W> = Arc<Mutex<HashMap<Arc<str>, Option<Next<W>>>>>;

struct Next<W: Write> {
    value: W::Value,
    done: watch::Sender<Option<W::Outcome>>,
}

/// The outcome of a write that may be shared.
pub struct Landing<O> {
    done: watch::Receiver<Option<O>>,
}

impl<O: Clone> Landing<O> {
    /// `None` if the write came to nothing at all.
    pub async fn outcome(mut self) -> Option<O> {
        self.done.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl<W: Write> Flights<W> {
    /// `tasks` is what a shutdown waits for.
    pub fn new(writer: W, tasks: TaskTracker) -> Self {
        Self { writer: Arc::new(writer), slots: Slots::<W>::default(), tasks }
    }

    /// The writer.
    pub fn writer(&self) -> &W {
        &self.writer
    }

    /// Writes `value` to the object `key`: at once, or with the next write. The write goes on even if nobody waits
    /// for it any more.
    pub fn submit(&self, key: &Arc<str>, value: W::Value) -> Landing<W::Outcome> {
        let mut slots = lock(&self.slots);
        let (idle, slot) = match slots.entry(key.clone()) {
            std::collections::hash_map::Entry::Occupied(slot) => (false, slot.into_mut()),
            std::collections::hash_map::Entry::Vacant(slot) => (true, slot.insert(None)),
        };
        let landing = if let Some(next) = slot {
            self.writer.merge(&mut next.value, value);
            Landing { done: next.done.subscribe() }
        } else {
            let (done, receiver) = watch::channel(None);
            *slot = Some(Next { value, done });
            Landing { done: receiver }
        };
        drop(slots);
        if idle {
            let plane = Plane { writer: self.writer.clone(), slots: self.slots.clone(), key: key.clone() };
            self.tasks.spawn(plane.fly());
        }
        landing
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that writes one object until nothing waits.
struct Plane<W: Write> {
    writer: Arc<W>,
    slots: Slots<W>,
    key: Arc<str>,
}

impl<W: Write> Plane<W> {
    async fn fly(self) {
        while let Some(next) = self.next() {
            let outcome = self.writer.write(next.value).await;
            next.done.send_replace(Some(outcome));
        }
    }

    fn next(&self) -> Option<Next<W>> {
        let mut slots = lock(&self.slots);
        let next = slots.get_mut(&self.key).and_then(Option::take);
        if next.is_none() {
            // Under the same lock as the look: who comes now starts a new task.
            slots.remove(&self.key);
        }
        next
    }
}

impl<W: Write> Drop for Plane<W> {
    fn drop(&mut self) {
        // Only a panic in `write`, or the runtime's end, comes here with the slot in place and nobody to empty it; what
        // waits then learns that nothing came of it.
        if std::thread::panicking() {
            lock(&self.slots).remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    struct Log {
        go: Semaphore,
        written: Mutex<Vec<Vec<u32>>>,
    }

    impl Write for Log {
        type Value = Vec<u32>;
        type Outcome = usize;

        fn merge(&self, waiting: &mut Vec<u32>, later: Vec<u32>) {
            waiting.extend(later);
        }

        async fn write(&self, value: Vec<u32>) -> usize {
            self.go.acquire().await.unwrap().forget();
            assert_ne!(value, [13]);
            let mut written = lock(&self.written);
            written.push(value);
            written.len()
        }
    }

    #[tokio::test]
    async fn what_comes_meanwhile_shares_the_next_write() {
        let log = Log { go: Semaphore::new(0), written: Mutex::default() };
        let flights = Flights::new(log, TaskTracker::new());
        let key: Arc<str> = "a".into();
        let first = flights.submit(&key, vec![0]);
        tokio::task::yield_now().await;
        let rest: Vec<_> = (1..100).map(|n| flights.submit(&key, vec![n])).collect();
        flights.writer().go.add_permits(2);
        assert_eq!(first.outcome().await, Some(1));
        for landing in rest {
            assert_eq!(landing.outcome().await, Some(2));
        }
        assert_eq!(lock(&flights.writer().written).len(), 2);

        // Idle again: the next one is written at once.
        flights.tasks.close();
        flights.tasks.wait().await;
        assert!(lock(&flights.slots).is_empty());
        flights.writer().go.add_permits(1);
        assert_eq!(flights.submit(&key, vec![7]).outcome().await, Some(3));
    }

    #[tokio::test]
    async fn a_panic_does_not_block_the_object() {
        let log = Log { go: Semaphore::new(2), written: Mutex::default() };
        let flights = Flights::new(log, TaskTracker::new());
        let key: Arc<str> = "a".into();
        assert_eq!(flights.submit(&key, vec![13]).outcome().await, None);
        assert_eq!(flights.submit(&key, vec![1]).outcome().await, Some(1));
    }
}
