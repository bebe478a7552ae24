//! When to come back to an object, and the arithmetic of deadlines.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;

/// When to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When the object changes.
    Await,
    After(Duration),
    /// At once.
    Now,
}

impl Next {
    /// For the runtime; `None`: another pass at once.
    pub fn action(self) -> Option<Action> {
        match self {
            Self::Now => None,
            Self::Await => Some(Action::await_change()),
            Self::After(pause) => Some(Action::requeue(pause)),
        }
    }

    /// No later than at that time, if there is one.
    #[must_use]
    pub fn or_at(self, at: Option<Timestamp>, now: Timestamp) -> Self {
        match (self, at) {
            (Self::After(pause), Some(at)) => Self::After(pause.min(until(at, now))),
            (Self::Await, Some(at)) => Self::After(until(at, now)),
            (unchanged, _) => unchanged,
        }
    }
}

/// Time from `now` to `then`, zero if it has passed.
pub fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// `at + duration`, or the end of time.
pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration).ok().and_then(|d| at.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}
