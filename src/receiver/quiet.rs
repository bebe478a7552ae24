//! Log lines that strangers can cause, at a rate that they cannot choose.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::signature::Rejection;

/// Lets one through in each interval, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    pub const fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::new((None, 0)) }
    }

    /// `Some` = speak; with the number of those that were kept silent since the last time.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, suppressed) = *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            state.1 = suppressed.saturating_add(1);
            return None;
        }
        *state = (Some(now), 0);
        Some(suppressed)
    }
}

/// The log of refused requests: one line a second, whatever comes.
#[derive(Debug)]
pub struct RejectionLog(Throttle);

impl Default for RejectionLog {
    fn default() -> Self {
        Self(Throttle::new(Duration::from_secs(1)))
    }
}

impl RejectionLog {
    /// Only the reason and what kinds of signatures there were: path, headers and body are the sender's, and the path is
    /// a secret.
    pub fn note(&self, reason: Rejection, signatures: impl FnOnce() -> String, now: Instant) {
        if let Some(suppressed) = self.0.admit(now) {
            let signatures = signatures();
            tracing::warn!(reason = reason.as_str(), signatures, suppressed, "request refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_each_interval() {
        let throttle = Throttle::new(Duration::from_secs(1));
        let start = Instant::now();
        let at = |millis| throttle.admit(start + Duration::from_millis(millis));
        assert_eq!(at(0), Some(0));
        assert_eq!((at(1), at(999)), (None, None));
        assert_eq!(at(1000), Some(2));
        assert_eq!(at(2500), Some(0));
    }
}
