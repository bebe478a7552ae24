//! Webhooks that were seen to lose deliveries: a sweep had to find what one of theirs should have told. And the wakes that
//! follow from it.
//!
//! Known to this process alone, and to it only since it began. After a restart a webhook counts as healthy again, until
//! the sweep finds the next end that nobody told: that one is found ten minutes late, and all that come after it soon.
//! Kept in a status it would cost a write for each rescue, and a wake of everybody who watches.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, stream};
use jiff::Timestamp;
use tokio::sync::watch;

use super::next::after;

/// When a delivery of each webhook was last seen to be lost, by the webhook's uid.
pub struct Rescues {
    last: Mutex<HashMap<String, Timestamp>>,
    /// The webhooks should read their registrations.
    webhooks: watch::Sender<()>,
    /// The batches should look how often the sweep passes now.
    batches: watch::Sender<()>,
}

impl Default for Rescues {
    fn default() -> Self {
        Self { last: Mutex::default(), webhooks: watch::Sender::new(()), batches: watch::Sender::new(()) }
    }
}

impl Rescues {
    /// Takes note of one. True: it is the first within `memory`, so that everybody has to look anew.
    pub fn note(&self, webhook: &str, now: Timestamp, memory: Duration) -> bool {
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(webhook.to_owned(), now);
        let is_first = before.is_none_or(|before| after(before, memory) <= now);
        self.webhooks.send_replace(());
        if is_first {
            self.batches_differ();
        }
        is_first
    }

    /// When the last one was.
    pub fn last(&self, webhook: &str) -> Option<Timestamp> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(webhook).copied()
    }

    pub fn forget(&self, webhook: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(webhook);
    }

    /// What the batches go by has become worse: none of them should sleep until its next sweep.
    pub fn batches_differ(&self) {
        self.batches.send_replace(());
    }

    /// One item whenever the webhooks have to look.
    pub fn for_webhooks(&self) -> impl Stream<Item = ()> + Send + use<> {
        changes(self.webhooks.subscribe())
    }

    /// One item whenever the batches have to look.
    pub fn for_batches(&self) -> impl Stream<Item = ()> + Send + use<> {
        changes(self.batches.subscribe())
    }
}

/// One item for all changes since the last one.
fn changes(seen: watch::Receiver<()>) -> impl Stream<Item = ()> + Send {
    stream::unfold(seen, async |mut seen| seen.changed().await.ok().map(|()| ((), seen)))
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn the_first_in_a_while_wakes_the_batches_and_each_the_webhooks() {
        let rescues = Rescues::default();
        let (mut webhooks, mut batches) = (Box::pin(rescues.for_webhooks()), Box::pin(rescues.for_batches()));
        let at = |second| Timestamp::from_second(second).unwrap();
        let memory = Duration::from_mins(30);
        for (second, is_first) in [(0, true), (1, false), (1_799, false), (3_598, false), (5_398, true)] {
            assert_eq!(rescues.note("a", at(second), memory), is_first, "{second}");
            assert_eq!(webhooks.next().now_or_never(), Some(Some(())), "{second}");
            assert_eq!(batches.next().now_or_never().is_some(), is_first, "{second}");
        }
        assert_eq!((rescues.last("a"), rescues.last("b")), (Some(at(5_398)), None));
        assert!(rescues.note("b", at(5_399), memory), "another webhook");
        rescues.forget("a");
        assert_eq!(rescues.last("a"), None);
    }
}
