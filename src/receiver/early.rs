//! Events that come before their batch has recorded the job's name: kept for a minute, applied when the name appears.
//! Most of what passes through here belongs to jobs that are not ours at all: a registration covers a whole project.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::limits;
use crate::api::batch::LastEvent;

/// An event that waits.
#[derive(Clone, Debug)]
pub struct EarlyEvent {
    pub webhook_uid: Arc<str>,
    pub event: LastEvent,
    pub since: Instant,
}

/// An event was kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// By which it can be withdrawn.
    pub number: u64,
    /// How many had to go for it.
    pub dropped: usize,
}

/// The waiting events.
#[derive(Debug, Default)]
pub struct Early {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    events: HashMap<u64, EarlyEvent>,
    by_remote_name: HashMap<String, Vec<u64>>,
    /// The waiting ones of each webhook, the oldest first.
    by_webhook: HashMap<Arc<str>, VecDeque<u64>>,
}

impl Early {
    /// Keeps an event.
    pub fn keep(&self, event: EarlyEvent) -> Kept {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.keep(event, limits::EARLY_PER_WEBHOOK, limits::EARLY_TOTAL)
    }

    /// Takes out one event.
    pub fn withdraw(&self, number: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).remove(number);
    }

    /// Takes out the events of a job.
    pub fn take(&self, remote_name: &str) -> Vec<EarlyEvent> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = state.by_remote_name.remove(remote_name).unwrap_or_default();
        numbers.into_iter().filter_map(|number| state.remove(number)).collect()
    }

    /// Drops what has waited long enough. Returns how many: those were not ours.
    pub fn expire(&self, now: Instant) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let old = |event: &EarlyEvent| now.saturating_duration_since(event.since) >= limits::EARLY_TTL;
        let expired: Vec<u64> = state.events.iter().filter(|(_, e)| old(e)).map(|(n, _)| *n).collect();
        for number in &expired {
            state.remove(*number);
        }
        expired.len()
    }
}

impl State {
    fn keep(&mut self, event: EarlyEvent, per_webhook: usize, total: usize) -> Kept {
        let remote_name = event.event.remote_name.clone();
        // A retry of what waits already takes its place.
        let twin = self.by_remote_name.get(&remote_name).into_iter().flatten().copied().find(|number| {
            self.events.get(number).is_some_and(|waiting| {
                waiting.webhook_uid == event.webhook_uid && waiting.event.type_ == event.event.type_
            })
        });
        if let Some(number) = twin {
            self.remove(number);
        }
        let mut dropped = 0;
        let full = |count: usize, limit: usize| count >= limit;
        if full(self.by_webhook.get(&event.webhook_uid).map_or(0, VecDeque::len), per_webhook)
            && let Some(oldest) =
                self.by_webhook.get(&event.webhook_uid).and_then(|queue| queue.front().copied())
        {
            self.remove(oldest);
            dropped += 1;
        }
        if full(self.events.len(), total) {
            // The webhook with the most events pays, not its neighbours.
            let longest = self.by_webhook.values().max_by_key(|queue| queue.len());
            if let Some(oldest) = longest.and_then(|queue| queue.front().copied()) {
                self.remove(oldest);
                dropped += 1;
            }
        }
        let number = self.next;
        self.next += 1;
        self.by_webhook.entry(event.webhook_uid.clone()).or_default().push_back(number);
        self.by_remote_name.entry(remote_name).or_default().push(number);
        self.events.insert(number, event);
        Kept { number, dropped }
    }

    fn remove(&mut self, number: u64) -> Option<EarlyEvent> {
        let event = self.events.remove(&number)?;
        if let Some(queue) = self.by_webhook.get_mut(&event.webhook_uid) {
            queue.retain(|other| *other != number);
            if queue.is_empty() {
                self.by_webhook.remove(&event.webhook_uid);
            }
        }
        if let Some(numbers) = self.by_remote_name.get_mut(&event.event.remote_name) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_remote_name.remove(&event.event.remote_name);
            }
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn event(webhook: &str, remote_name: &str, since: Instant) -> EarlyEvent {
        let event = LastEvent {
            id: "id".into(),
            type_: "batch.succeeded".into(),
            remote_name: remote_name.into(),
            time: None,
            received_time: Time(Timestamp::UNIX_EPOCH),
        };
        EarlyEvent { webhook_uid: webhook.into(), event, since }
    }

    #[test]
    fn kept_until_taken_or_too_old() {
        let early = Early::default();
        let now = Instant::now();
        early.keep(event("w", "batches/1", now));
        early.keep(event("w", "batches/1", now));
        early.keep(event("v", "batches/1", now));
        early.keep(event("w", "batches/2", now));
        let mut failed = event("w", "batches/1", now);
        failed.event.type_ = "batch.failed".into();
        early.keep(failed);
        assert_eq!(early.take("batches/1").len(), 3, "a twin takes its place, another type does not");
        assert!(early.take("batches/1").is_empty());
        assert_eq!(early.expire(now + limits::EARLY_TTL / 2), 0);
        assert_eq!(early.expire(now + limits::EARLY_TTL), 1);
        let state = early.state.lock().unwrap();
        assert!(state.events.is_empty() && state.by_remote_name.is_empty() && state.by_webhook.is_empty());
    }

    #[test]
    fn bounded() {
        let mut state = State::default();
        let now = Instant::now();
        let mut dropped = 0;
        for n in 0..10 {
            dropped += state.keep(event("loud", &format!("batches/{n}"), now), 4, 6).dropped;
        }
        assert_eq!((dropped, state.events.len()), (6, 4));
        assert!(
            state.by_remote_name.contains_key("batches/9") && !state.by_remote_name.contains_key("batches/5")
        );
        for n in 0..3 {
            state.keep(event("quiet", &format!("batches/q{n}"), now), 4, 6);
        }
        assert_eq!(state.events.len(), 6);
        assert_eq!(state.by_webhook[&Arc::from("quiet")].len(), 3);
    }
}
