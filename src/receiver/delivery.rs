//! `status.lastDelivery` of a webhook: what the receiver tells the controller about the way from Gemini to here.
//!
//! Written at most once a minute, and at once while a self-test is outstanding. Deliveries that were refused are
//! reported only during a self-test, so that abuse causes no writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::flight::{Flights, Landing, Write};
use super::limits;
use super::patch::{Kind, Patch, PatchError, Target};
use super::routes::Route;
use super::signature::Rejection;
use crate::api::webhook::{LastDelivery, RejectedDelivery};

/// A verified delivery.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: String,
    pub type_: Option<String>,
    pub skew_seconds: i64,
    pub key_fingerprint: String,
    pub time: Timestamp,
}

/// Writes what was last delivered.
pub struct Deliveries<P: Patch> {
    flights: Flights<DeliveryWriter<P>>,
}

/// The outcome of a report; `Ok` also if the webhook is gone, for then nobody asks.
pub type Reported = Landing<Result<(), PatchError>>;

impl<P: Patch> Deliveries<P> {
    pub fn new(patch: Arc<P>, tasks: TaskTracker) -> Self {
        Self { flights: Flights::new(DeliveryWriter { patch, known: Mutex::default() }, tasks) }
    }

    /// Reports a verified delivery if it is time. `Some` = a self-test waits for this very report, so it must be
    /// stored before the sender is told that all is well.
    pub fn verified(&self, route: &Route, seen: &Seen) -> Option<Reported> {
        let mut known = self.flights.writer().known();
        let last = newest(route, known.get(&route.uid));
        let due = due(seen.time, route.ping_sent, last.as_ref(), &seen.key_fingerprint);
        if due == Due::No {
            return None;
        }
        let report = LastDelivery {
            time: Some(Time(seen.time)),
            id: Some(seen.id.clone()),
            type_: seen.type_.clone(),
            skew_seconds: Some(seen.skew_seconds),
            key_fingerprint: Some(seen.key_fingerprint.clone()),
            rejected: None,
        };
        known.insert(route.uid.clone(), report.clone());
        drop(known);
        let landing = self.submit(route, report);
        (due == Due::AtOnce).then_some(landing)
    }

    /// Reports a refused delivery while a self-test is outstanding: once for each reason.
    pub fn rejected(&self, route: &Route, reason: Rejection, now: Timestamp) {
        let Some(sent) = route.ping_sent.filter(|sent| is_running(now, *sent)) else { return };
        let mut known = self.flights.writer().known();
        let last = newest(route, known.get(&route.uid)).unwrap_or_default();
        let answered = last.time.as_ref().is_some_and(|time| time.0 > sent);
        let told = last.rejected.as_ref().is_some_and(|r| r.reason == reason.as_str() && r.time.0 >= sent);
        if answered || told {
            return;
        }
        let rejected = RejectedDelivery { reason: reason.as_str().into(), time: Time(now) };
        // The rest goes along: what an apply leaves out is taken out.
        let report = LastDelivery { rejected: Some(rejected), ..last };
        known.insert(route.uid.clone(), report.clone());
        drop(known);
        // Nobody waits for it: its sender gets his 401 anyway.
        drop(self.submit(route, report));
    }

    /// A webhook is gone.
    pub fn forget(&self, webhook_uid: &str) {
        self.flights.writer().known().remove(webhook_uid);
    }

    fn submit(&self, route: &Route, report: LastDelivery) -> Reported {
        let target = Target {
            kind: Kind::Webhook,
            namespace: route.namespace.clone(),
            name: route.name.clone(),
            uid: route.uid.clone(),
        };
        self.flights.submit(&route.uid, (target, report))
    }
}

/// When to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    AtOnce,
    Routine,
    No,
}

fn due(now: Timestamp, ping_sent: Option<Timestamp>, last: Option<&LastDelivery>, fingerprint: &str) -> Due {
    let last_time = last.and_then(|last| last.time.as_ref()).map(|time| time.0);
    if let Some(sent) = ping_sent.filter(|sent| is_running(now, *sent)) {
        // Times in a status have no fractions: the same second may be before or after.
        let unanswered = last_time.is_none_or(|time| time.as_second() <= sent.as_second());
        // After a rotation the self-test asks for the new key; one signed with the old key is no answer to it.
        let other_key = last.and_then(|last| last.key_fingerprint.as_deref()) != Some(fingerprint);
        if unanswered || other_key {
            return Due::AtOnce;
        }
    }
    match last_time {
        Some(time) if seconds(now, time) < limits::DELIVERY_INTERVAL.as_secs() => Due::No,
        _ => Due::Routine,
    }
}

/// Whether a self-test that was sent then is still outstanding, unless it was answered.
fn is_running(now: Timestamp, sent: Timestamp) -> bool {
    seconds(now, sent) < limits::SELF_TEST.as_secs()
}

/// The distance of two times; clocks of two machines may be either way round.
fn seconds(a: Timestamp, b: Timestamp) -> u64 {
    a.as_second().abs_diff(b.as_second())
}

/// The newer of what the watch showed and what this process wrote.
fn newest(route: &Route, known: Option<&LastDelivery>) -> Option<LastDelivery> {
    let age = |delivery: &LastDelivery| {
        let rejected = delivery.rejected.as_ref().map(|rejected| rejected.time.0.as_second());
        (delivery.time.as_ref().map(|time| time.0.as_second()), rejected)
    };
    match (known, &route.last_delivery) {
        (Some(known), Some(watched)) if age(watched) > age(known) => Some(watched.clone()),
        (Some(known), _) => Some(known.clone()),
        (None, watched) => watched.clone(),
    }
}

struct DeliveryWriter<P> {
    patch: Arc<P>,
    /// What this process wrote or is writing: the watch lags behind it.
    known: Mutex<HashMap<Arc<str>, LastDelivery>>,
}

impl<P> DeliveryWriter<P> {
    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, LastDelivery>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Patch> Write for DeliveryWriter<P> {
    type Value = (Target, LastDelivery);
    type Outcome = Result<(), PatchError>;

    fn merge(&self, waiting: &mut Self::Value, later: Self::Value) {
        *waiting = later;
    }

    async fn write(&self, (target, report): Self::Value) -> Self::Outcome {
        match self.patch.apply_status(&target, json!({"lastDelivery": report})).await {
            Ok(()) | Err(PatchError::Gone) => Ok(()),
            Err(PatchError::Unavailable) => {
                // It was not written after all: the next delivery tries again.
                self.known().remove(&target.uid);
                Err(PatchError::Unavailable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn last(second: i64, fingerprint: &str) -> LastDelivery {
        LastDelivery {
            time: Some(Time(at(second))),
            key_fingerprint: Some(fingerprint.into()),
            ..LastDelivery::default()
        }
    }

    #[test]
    fn when_to_report() {
        for (what, now, sent, last, wanted) in [
            ("the first one", 0, None, None, Due::Routine),
            ("less than a minute later", 59, None, Some(last(0, "k")), Due::No),
            ("a minute later", 60, None, Some(last(0, "k")), Due::Routine),
            ("self-test", 10, Some(5), Some(last(0, "k")), Due::AtOnce),
            ("self-test in the same second", 0, Some(0), Some(last(0, "k")), Due::AtOnce),
            ("self-test answered", 10, Some(5), Some(last(6, "k")), Due::No),
            ("self-test answered with the old key", 10, Some(5), Some(last(6, "old")), Due::AtOnce),
            ("self-test long ago", 200, Some(5), Some(last(4, "k")), Due::Routine),
            ("other key without a self-test", 10, None, Some(last(6, "old")), Due::No),
        ] {
            assert_eq!(due(at(now), sent.map(at), last.as_ref(), "k"), wanted, "{what}");
        }
    }
}
