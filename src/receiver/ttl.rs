//! A set whose members expire, and which never grows over its bound.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Members in the order of their insertion; the oldest go first, by age or for want of room.
#[derive(Debug)]
pub struct TtlSet<K> {
    ttl: Duration,
    capacity: usize,
    members: HashMap<K, Instant>,
    order: VecDeque<(Instant, K)>,
}

impl<K: Clone + Eq + Hash> TtlSet<K> {
    pub fn new(ttl: Duration, capacity: usize) -> Self {
        Self { ttl, capacity, members: HashMap::new(), order: VecDeque::new() }
    }

    /// Adds a member, or makes it young again.
    pub fn insert(&mut self, key: K, now: Instant) {
        self.expire(now);
        self.members.insert(key.clone(), now);
        self.order.push_back((now, key));
        while self.order.len() > self.capacity {
            self.pop();
        }
    }

    pub fn contains<Q: ?Sized + Eq + Hash>(&self, key: &Q, now: Instant) -> bool
    where
        K: Borrow<Q>,
    {
        self.members.get(key).is_some_and(|since| now.saturating_duration_since(*since) < self.ttl)
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Drops what has expired.
    pub fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= self.ttl) {
            self.pop();
        }
    }

    /// Drops the oldest.
    pub fn pop(&mut self) {
        if let Some((since, key)) = self.order.pop_front() {
            // A member that was made young again has a later place in the order.
            if self.members.get(&key) == Some(&since) {
                self.members.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expires_and_is_bounded() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut set = TtlSet::new(Duration::from_secs(10), 3);
        set.insert("a", at(0));
        assert!(set.contains("a", at(9)) && !set.contains("a", at(10)));
        set.insert("a", at(5));
        assert!(set.contains("a", at(14)));
        set.insert("b", at(11));
        assert!(set.contains("a", at(14)), "the older insertion must not take the younger one with it");
        for (n, key) in ["c", "d", "e"].into_iter().enumerate() {
            set.insert(key, at(12 + n as u64));
        }
        assert_eq!(set.len(), 3);
        assert!(!set.contains("b", at(14)) && set.contains("c", at(14)) && set.contains("e", at(14)));
        set.expire(at(100));
        assert!(set.is_empty() && set.members.is_empty());
    }
}
