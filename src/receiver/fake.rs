//! An API server in memory, for tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::Barrier;

use super::patch::{Patch, PatchError, Target};

#[derive(Default)]
pub struct FakePatch {
    failure: Mutex<Option<PatchError>>,
    writes: Mutex<Vec<(Target, Value)>>,
    hangs: AtomicBool,
    together: Mutex<Option<Arc<Barrier>>>,
}

impl FakePatch {
    pub fn fail(&self, failure: Option<PatchError>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// From now on nothing is answered.
    pub fn hang(&self) {
        self.hangs.store(true, Ordering::Relaxed);
    }

    /// From now on none is answered before so many are under way.
    pub fn together(&self, writes: usize) {
        let barrier = Some(Arc::new(Barrier::new(writes)));
        *self.together.lock().unwrap_or_else(PoisonError::into_inner) = barrier;
    }

    pub fn writes(&self) -> Vec<(Target, Value)> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Patch for FakePatch {
    async fn apply_status(&self, target: &Target, status: Value) -> Result<(), PatchError> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let together = self.together.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(barrier) = together {
            barrier.wait().await;
        }
        // A round trip: others get their turn.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        if let Some(failure) = *self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).push((target.clone(), status));
        Ok(())
    }
}
