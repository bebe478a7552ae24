//! What one process remembers of a webhook between passes. Losing it costs a listing or a ping.

use std::time::Duration;

use jiff::Timestamp;

use crate::controller::until;
use crate::gemini::ApiKey;

/// Process-local knowledge of one webhook.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// This process wrote the intent to register and has not heard otherwise.
    pub registering: bool,
    /// When the rotation was begun, in the words of the status, that this process works at.
    pub rotating: Option<Timestamp>,
    /// This process had the secret rotated, and another one has stored one of its own meanwhile: which of the two Gemini
    /// signs with, neither knows.
    pub overtaken: bool,
    /// Complete listings without our registration, made in doubt.
    pub empty_listings: u32,
    /// When our registrations were last listed.
    pub listed: Option<Timestamp>,
    /// The API key that last saw our registration: the only one that can remove it once another project's key has
    /// taken its place.
    pub proven_key: Option<ApiKey>,
    /// Self-tests in a row that failed.
    pub ping_failures: u32,
    /// Signing secrets that were replaced since one was proven.
    pub renewals: u32,
    /// Gemini could not even be asked for the newest ping.
    pub ping_lost: bool,
    /// What went wrong last, for people to read.
    pub problem: Option<String>,
    /// Until then the generation of the spec that had the problem rests.
    pub rest: Option<(Option<i64>, Timestamp)>,
    /// Reconciles in a row that failed.
    pub failures: u32,
}

impl Memory {
    /// How long this generation of the spec still rests after a failure. Every status write wakes the controller, so
    /// the pause must stand here: a requeue alone is replaced by the earlier one.
    pub fn rest_left(&self, generation: Option<i64>, now: Timestamp) -> Option<Duration> {
        let (_, end) = self.rest.filter(|(failed, _)| *failed == generation)?;
        Some(until(end, now)).filter(|left| !left.is_zero())
    }

    /// What was tried has worked.
    pub fn succeeded(&mut self) {
        (self.problem, self.rest, self.failures) = (None, None, 0);
    }
}
