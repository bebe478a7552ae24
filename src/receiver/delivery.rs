//! `status.lastDelivery` of a webhook: what the receiver tells the controller about the way from Gemini to here.
//!
//! Written at most once a minute; at once while a self-test is outstanding, and a ping always: it is sent once, and it
//! may be here before the word that it was asked for. Deliveries that were refused are reported only during a
//! self-test, so that abuse causes no writes; but for those that only the provider can have signed.

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

/// The type of a self-test's delivery.
const PING: &str = "ping";

/// A verified delivery.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: String,
    pub type_: Option<String>,
    /// Our clock less the sender's, where the scheme tells his.
    pub skew_seconds: Option<i64>,
    pub key_fingerprint: String,
    pub time: Timestamp,
}

/// Writes what was last delivered.
pub struct Deliveries<P: Patch> {
    flights: Flights<DeliveryWriter<P>>,
    /// The newest refusal of each webhook that no self-test is known to have waited for: a ping may be quicker than the
    /// watch that tells of it.
    untold: Mutex<HashMap<Arc<str>, (Rejection, Timestamp)>>,
}

/// The outcome of a report; `Ok` also if the webhook is gone, for then nobody asks.
pub type Reported = Landing<Result<(), PatchError>>;

impl<P: Patch> Deliveries<P> {
    pub fn new(patch: Arc<P>, tasks: TaskTracker) -> Self {
        let writer = DeliveryWriter { patch, known: Mutex::default() };
        Self { flights: Flights::new(writer, tasks), untold: Mutex::default() }
    }

    /// Reports a verified delivery if it is time. `Some` = a self-test may wait for this very report, so it must be
    /// stored before the sender is told that all is well.
    pub fn verified(&self, route: &Route, seen: &Seen) -> Option<Reported> {
        let mut known = self.flights.writer().known();
        let last = newest(route, known.get(&route.uid));
        let due = due(seen, route.ping_sent, last.as_ref());
        if due == Due::No {
            return None;
        }
        let report = LastDelivery {
            time: Some(Time(seen.time)),
            id: Some(seen.id.clone()),
            type_: seen.type_.clone(),
            skew_seconds: seen.skew_seconds,
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
        let mut known = self.flights.writer().known();
        let last = newest(route, known.get(&route.uid)).unwrap_or_default();
        let is_waited_for = |sent: &Timestamp| {
            is_running(now, *sent) && last.time.as_ref().is_none_or(|time| time.0 <= *sent)
        };
        let Some(sent) = route.ping_sent.filter(is_waited_for) else {
            self.untold().insert(route.uid.clone(), (reason, now));
            return;
        };
        if last.rejected.as_ref().is_some_and(|r| r.reason == reason.as_str() && r.time.0 >= sent) {
            return;
        }
        let rejected =
            RejectedDelivery { reason: reason.as_str().into(), time: Time(now), observed_audience: None };
        // The rest goes along: what an apply leaves out is taken out.
        let report = LastDelivery { rejected: Some(rejected), ..last };
        known.insert(route.uid.clone(), report.clone());
        drop(known);
        // Nobody waits for it: its sender gets his 401 anyway.
        drop(self.submit(route, report));
    }

    /// A webhook has changed. If a self-test has begun, what was refused since then is told now.
    pub fn changed(&self, route: &Route) {
        let Some((reason, at)) = self.untold().remove(&route.uid) else { return };
        if route.ping_sent.is_some_and(|sent| sent.as_second() <= at.as_second()) {
            self.rejected(route, reason, at);
        }
    }

    /// Reports an authentic token that is for somebody else. No stranger can make one, and nobody documents to whom
    /// Gemini addresses its own: so it is told as a verified delivery is, at most once a minute, and of the same
    /// audience once.
    pub fn misaddressed(&self, route: &Route, reason: Rejection, audience: String, now: Timestamp) {
        let mut known = self.flights.writer().known();
        let last = newest(route, known.get(&route.uid)).unwrap_or_default();
        let rejected = RejectedDelivery {
            reason: reason.as_str().into(),
            time: Time(now),
            observed_audience: Some(audience),
        };
        if !is_news(&rejected, last.rejected.as_ref()) {
            return;
        }
        let report = LastDelivery { rejected: Some(rejected), ..last };
        known.insert(route.uid.clone(), report.clone());
        drop(known);
        drop(self.submit(route, report));
    }

    /// A webhook is gone.
    pub fn forget(&self, webhook_uid: &str) {
        self.flights.writer().known().remove(webhook_uid);
        self.untold().remove(webhook_uid);
    }

    fn untold(&self) -> MutexGuard<'_, HashMap<Arc<str>, (Rejection, Timestamp)>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
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

fn due(seen: &Seen, ping_sent: Option<Timestamp>, last: Option<&LastDelivery>) -> Due {
    let now = seen.time;
    let last_time = last.and_then(|last| last.time.as_ref()).map(|time| time.0);
    let other_key = last.and_then(|last| last.key_fingerprint.as_deref()) != Some(&*seen.key_fingerprint);
    if seen.type_.as_deref() == Some(PING) {
        // Two pings of one second look the same in a status: one report tells of both.
        let told = last.is_some_and(|last| last.type_.as_deref() == Some(PING)) && !other_key;
        let same_second = last_time.is_some_and(|time| time.as_second() == now.as_second());
        return if told && same_second { Due::No } else { Due::AtOnce };
    }
    if let Some(sent) = ping_sent.filter(|sent| is_running(now, *sent)) {
        // Times in a status have no fractions: the same second may be before or after.
        let unanswered = last_time.is_none_or(|time| time.as_second() <= sent.as_second());
        // After a rotation the self-test asks for the new key; one signed with the old key is no answer to it.
        if unanswered || other_key {
            return Due::AtOnce;
        }
    }
    match last_time {
        Some(time) if seconds(now, time) < limits::DELIVERY_INTERVAL.as_secs() => Due::No,
        _ => Due::Routine,
    }
}

/// Whether it says more than what was last reported, and not too soon after it.
fn is_news(rejected: &RejectedDelivery, last: Option<&RejectedDelivery>) -> bool {
    last.is_none_or(|last| {
        let same = (&last.reason, &last.observed_audience) == (&rejected.reason, &rejected.observed_audience);
        !same && seconds(rejected.time.0, last.time.0) >= limits::DELIVERY_INTERVAL.as_secs()
    })
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

    #[test]
    fn of_an_audience_is_told_once() {
        let rejected = |second, reason: &str, audience: Option<&str>| RejectedDelivery {
            reason: reason.into(),
            time: Time(at(second)),
            observed_audience: audience.map(Into::into),
        };
        let new = rejected(60, "aud", Some("a"));
        assert!(is_news(&new, None));
        for (last, wanted) in [
            (rejected(0, "aud", Some("a")), false),
            (rejected(0, "aud", Some("b")), true),
            (rejected(1, "aud", Some("b")), false),
            (rejected(0, "kid", None), true),
            (rejected(-100_000, "aud", Some("a")), false),
        ] {
            assert_eq!(is_news(&new, Some(&last)), wanted, "{last:?}");
        }
    }

    fn last(second: i64, type_: &str, fingerprint: &str) -> LastDelivery {
        LastDelivery {
            time: Some(Time(at(second))),
            type_: Some(type_.into()),
            key_fingerprint: Some(fingerprint.into()),
            ..LastDelivery::default()
        }
    }

    #[test]
    fn when_to_report() {
        let event = "batch.succeeded";
        for (what, type_, now, sent, last, wanted) in [
            ("the first one", event, 0, None, None, Due::Routine),
            ("less than a minute later", event, 59, None, Some(last(0, event, "k")), Due::No),
            ("a minute later", event, 60, None, Some(last(0, event, "k")), Due::Routine),
            ("self-test", event, 10, Some(5), Some(last(0, event, "k")), Due::AtOnce),
            ("self-test in the same second", event, 0, Some(0), Some(last(0, event, "k")), Due::AtOnce),
            ("self-test answered", event, 10, Some(5), Some(last(6, PING, "k")), Due::No),
            (
                "self-test answered with the old key",
                event,
                10,
                Some(5),
                Some(last(6, event, "old")),
                Due::AtOnce,
            ),
            ("self-test long ago", event, 200, Some(5), Some(last(4, event, "k")), Due::Routine),
            ("other key without a self-test", event, 10, None, Some(last(6, event, "old")), Due::No),
            ("a ping before its self-test is seen", PING, 30, None, Some(last(0, event, "k")), Due::AtOnce),
            ("a ping after another one", PING, 30, Some(28), Some(last(29, PING, "k")), Due::AtOnce),
            ("two pings of one second", PING, 30, Some(30), Some(last(30, PING, "k")), Due::No),
            ("with two keys", PING, 30, Some(30), Some(last(30, PING, "old")), Due::AtOnce),
            ("a ping and an event of one second", PING, 30, None, Some(last(30, event, "k")), Due::AtOnce),
        ] {
            let seen = Seen {
                id: "msg".into(),
                type_: Some(type_.into()),
                skew_seconds: Some(0),
                key_fingerprint: "k".into(),
                time: at(now),
            };
            assert_eq!(due(&seen, sent.map(at), last.as_ref()), wanted, "{what}");
        }
    }
}
