//! What a process still waits for before it can do its work.

use std::sync::{Arc, Mutex, PoisonError};

/// The list of open gates. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    open: Arc<Mutex<Vec<Arc<str>>>>,
}

/// One thing that a process waits for.
#[derive(Debug)]
pub struct Gate {
    readiness: Readiness,
    name: Arc<str>,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a thing to wait for. A gate that is dropped without `done` stays shut: what was waited for never came.
    pub fn gate(&self, name: &str) -> Gate {
        let name: Arc<str> = name.into();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        Gate { readiness: self.clone(), name }
    }

    /// What is still missing; empty = ready.
    pub fn waiting_for(&self) -> Vec<Arc<str>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_ready(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Gate {
    /// The thing is there.
    pub fn done(self) {
        let mut open = self.readiness.open.lock().unwrap_or_else(PoisonError::into_inner);
        // By identity: two gates may have the same name.
        open.retain(|name| !Arc::ptr_eq(name, &self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_every_gate_is_done() {
        let readiness = Readiness::new();
        let (first, second) = (readiness.gate("cache"), readiness.gate("cache"));
        assert_eq!(readiness.waiting_for().len(), 2);
        first.done();
        assert_eq!(readiness.waiting_for(), ["cache".into()]);
        second.done();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_dropped_gate_stays_shut() {
        let readiness = Readiness::new();
        drop(readiness.gate("cache"));
        assert!(!readiness.is_ready());
    }
}
