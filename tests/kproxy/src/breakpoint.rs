//! A request that is held until the test says go: the place to kill its sender.

use std::sync::Arc;

use tokio::sync::watch;

use crate::request::Target;

/// Where a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Nothing has reached the API server.
    BeforeApplied,
    /// The API server has done it, and nobody was told.
    AfterApplied,
}

/// How a held request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// As if it had never been held.
    On,
    /// The connection is closed, and what was not applied never will be.
    Drop,
}

/// The proxy's end of a breakpoint.
#[derive(Clone, Debug)]
pub struct Hold {
    pub(crate) point: Point,
    hit: Arc<watch::Sender<Option<Target>>>,
    go: watch::Receiver<Option<Go>>,
}

/// The test's end. Dropped, it drops what is held.
#[derive(Debug)]
pub struct Breakpoint {
    hit: watch::Receiver<Option<Target>>,
    go: watch::Sender<Option<Go>>,
}

pub(crate) fn breakpoint(point: Point) -> (Hold, Breakpoint) {
    let (hit, was_hit) = watch::channel(None);
    let (goes, go) = watch::channel(None);
    (Hold { point, hit: Arc::new(hit), go }, Breakpoint { hit: was_hit, go: goes })
}

impl Breakpoint {
    /// Returns when a request is held here; `None` if none can come any more.
    pub async fn hit(&mut self) -> Option<Target> {
        self.hit.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// What is held here goes on, and whatever comes later is not held.
    pub fn go(&self, go: Go) {
        self.go.send_replace(Some(go));
    }
}

impl Hold {
    pub(crate) async fn wait(&self, target: &Target) -> Go {
        self.hit.send_replace(Some(target.clone()));
        let mut go = self.go.clone();
        let said = go.wait_for(Option::is_some).await;
        said.ok().and_then(|go| *go).unwrap_or(Go::Drop)
    }
}
