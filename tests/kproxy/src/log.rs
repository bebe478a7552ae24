//! What went through.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::request::Target;

/// One request, in the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub target: Target,
    /// What the client was answered; `None` while it waits, and where the connection was closed.
    pub code: Option<u16>,
    /// What the API server answered; `None` if the request did not reach it.
    pub forwarded: Option<u16>,
    /// What a mutating request wants to be kept.
    pub body: Bytes,
}

/// One event that the API server sent on a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `geminibatches`, …
    pub resource: String,
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`, `ERROR`.
    pub type_: String,
    pub namespace: String,
    pub name: String,
    /// False: the client never got it.
    pub passed_on: bool,
}

/// Everything so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub requests: Vec<Request>,
    pub events: Vec<Event>,
}

#[derive(Default)]
pub(crate) struct Logbook(Mutex<Log>);

impl Logbook {
    /// Its number.
    pub fn arrived(&self, target: &Target, body: &Bytes) -> usize {
        let mut log = self.lock();
        let body = if target.verb.is_mutating() { body.clone() } else { Bytes::new() };
        log.requests.push(Request { target: target.clone(), code: None, forwarded: None, body });
        log.requests.len() - 1
    }

    pub fn note(&self, number: usize, note: impl FnOnce(&mut Request)) {
        if let Some(request) = self.lock().requests.get_mut(number) {
            note(request);
        }
    }

    pub fn event(&self, event: Event) {
        self.lock().events.push(event);
    }

    pub fn all(&self) -> Log {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
