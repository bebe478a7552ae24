//! One request. The order of the checks is the security policy, so it stands in one place and in one order:
//! method → size → route → raw body → signature → dedupe → parse → batch → store → answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::http::header::{ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::dedupe::{Begun, Dedupe, Ticket};
use super::delivery::{Deliveries, Reported, Seen};
use super::early::{Early, EarlyEvent};
use super::event::{BatchEvent, Envelope};
use super::fair::Shares;
use super::index::{Batch, Index};
use super::keys::Keyring;
use super::limits;
use super::metrics::{EarlyOutcome, Metrics, Outcome};
use super::patch::Patch;
use super::public_keys::PublicKeys;
use super::quiet::RejectionLog;
use super::routes::{Route, Routes, token_of};
use super::serve::Standing;
use super::signature::standard_v1::Key;
use super::signature::{self, Rejection};
use super::store::{Store, Stored};
use crate::api::batch::LastEvent;
use crate::runtime::readiness::Readiness;
use prove::{Proven, Refused, headers};

mod prove;

/// All that a request needs.
pub struct Handler<P: Patch> {
    pub readiness: Readiness,
    /// Whether all tables were there once. From then on they only get better: a later shutdown gate must not turn
    /// deliveries away.
    pub synced: AtomicBool,
    pub routes: Arc<Routes>,
    pub keyring: Arc<Keyring>,
    pub public_keys: PublicKeys,
    pub index: Arc<Index>,
    pub early: Arc<Early>,
    pub dedupe: Arc<Dedupe>,
    pub store: Store<P>,
    pub deliveries: Deliveries<P>,
    pub metrics: Metrics,
    pub log: RejectionLog,
    /// The key for the work on routes that nobody has.
    pub dummy: Key,
    pub clock: fn() -> Timestamp,
    pub body_timeout: Duration,
    /// What all large bodies together may take.
    pub body_grants: Semaphore,
    /// Deliveries that are being stored, by webhook.
    pub shares: Shares,
}

/// A body, with the right to the memory that it takes.
struct Read<'a> {
    bytes: Vec<u8>,
    held: Vec<SemaphorePermit<'a>>,
}

/// What a request gets for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Stored, redundant, or not ours.
    NoContent,
    /// The same for an unknown route and a bad signature.
    Unauthorized,
    MethodNotAllowed,
    TooLarge,
    UnsupportedEncoding,
    BodyTimeout,
    BrokenBody,
    /// Come again.
    Unavailable,
}

impl Answer {
    fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = match self {
            Self::NoContent => StatusCode::NO_CONTENT,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let headers = response.headers_mut();
        match self {
            Self::MethodNotAllowed => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            Self::Unavailable => {
                headers.insert(RETRY_AFTER, limits::RETRY_AFTER_SECONDS.into());
            }
            // What is left of the body is not worth reading.
            Self::TooLarge | Self::BodyTimeout | Self::BrokenBody => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::NoContent | Self::Unauthorized | Self::UnsupportedEncoding => {}
        }
        response
    }
}

impl<P: Patch> Handler<P> {
    /// Answers a request.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        match self.check(request).await {
            Ok(answer) | Err(answer) => answer.response(),
        }
    }

    async fn check(&self, request: Request<Body>) -> Result<Answer, Answer> {
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            return Err(Answer::MethodNotAllowed);
        }
        let mut body = body.into_data_stream();
        if let Err(answer) = self.check_size(&parts) {
            self.pour_away(answer, &mut body).await;
            return Err(answer);
        }
        // Before the tables are there, "unknown" means nothing.
        if !self.is_synced() {
            return Err(Answer::Unavailable);
        }
        let routes = token_of(parts.uri.path()).map(|token| self.routes.find(token)).unwrap_or_default();
        let Read { bytes: body, held: _held } = match self.read(&mut body).await {
            Ok(read) => read,
            Err(answer) => {
                self.pour_away(answer, &mut body).await;
                return Err(answer);
            }
        };
        let now = (self.clock)();
        let Some((first, copies)) = routes.split_first() else {
            self.pretend(&parts, &body, now);
            return Err(self.refuse(Rejection::UnknownRoute, &parts));
        };
        let (route, proven) = match self.prove_for_one(first, copies, &parts, &body, now).await {
            Ok(found) => found,
            Err(Refused { reason, answer, audience }) => {
                match audience {
                    Some(audience) => self.deliveries.misaddressed(first, reason, audience, now),
                    None => self.deliveries.rejected(first, reason, now),
                }
                return Err(self.refuse_as(reason, answer, Some(&parts)));
            }
        };
        let Some(_share) = self.shares.take(&route.uid) else {
            self.metrics.delivery(Outcome::Unavailable);
            return Err(Answer::Unavailable);
        };
        if let Some(standing) = parts.extensions.get::<Standing>() {
            standing.prove(&route.uid);
        }
        Ok(self.accept(route, &proven, &body, now).await)
    }

    /// By what the request says of itself; what it is, `read` counts.
    fn check_size(&self, parts: &Parts) -> Result<(), Answer> {
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|n| n > limits::BODY_BYTES as u64) {
            return Err(self.refuse_as(Rejection::TooLarge, Answer::TooLarge, None));
        }
        // Nothing here unpacks anything: a small packed body may be a big one.
        let encodings = parts.headers.get_all(CONTENT_ENCODING).iter();
        if encodings.into_iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Answer::UnsupportedEncoding);
        }
        Ok(())
    }

    fn is_synced(&self) -> bool {
        if self.synced.load(Ordering::Relaxed) {
            return true;
        }
        let ready = self.readiness.is_ready();
        if ready {
            self.synced.store(true, Ordering::Relaxed);
        }
        ready
    }

    /// The raw bytes, as they were signed.
    async fn read(&self, chunks: &mut BodyDataStream) -> Result<Read<'_>, Answer> {
        let read = async {
            let mut read = Read { bytes: Vec::new(), held: Vec::new() };
            while let Some(chunk) = chunks.next().await {
                let chunk: Bytes = chunk.map_err(|_| Answer::BrokenBody)?;
                if read.bytes.len() + chunk.len() > limits::BODY_BYTES {
                    return Err(self.refuse_as(Rejection::TooLarge, Answer::TooLarge, None));
                }
                read.bytes.extend_from_slice(&chunk);
                while read.bytes.len() > limits::BODY_FREE_BYTES + read.held.len() * limits::BODY_GRANT_BYTES
                {
                    let grant = self.body_grants.try_acquire().map_err(|_| Answer::Unavailable)?;
                    read.held.push(grant);
                }
            }
            Ok(read)
        };
        tokio::time::timeout(self.body_timeout, read).await.unwrap_or(Err(Answer::BodyTimeout))
    }

    /// Reads on, and keeps nothing, when the answer is that the body is too large: a sender who is still writing when
    /// the connection closes sees a reset, and never the answer.
    async fn pour_away(&self, answer: Answer, chunks: &mut BodyDataStream) {
        if answer != Answer::TooLarge {
            return;
        }
        let pour = async {
            let mut left = limits::POURED_AWAY_BYTES;
            while let Some(Ok(chunk)) = chunks.next().await {
                let Some(rest) = left.checked_sub(chunk.len()) else { return };
                left = rest;
            }
        };
        // Who is slower than this gets the answer, and the reset.
        let _ = tokio::time::timeout(self.body_timeout, pour).await;
    }

    fn refuse(&self, reason: Rejection, parts: &Parts) -> Answer {
        self.refuse_as(reason, Answer::Unauthorized, Some(parts))
    }

    fn refuse_as(&self, reason: Rejection, answer: Answer, parts: Option<&Parts>) -> Answer {
        self.metrics.rejection(reason);
        let signatures = || parts.map_or_else(String::new, |parts| signature::shape(headers(parts)));
        self.log.note(reason, signatures, Instant::now());
        answer
    }

    /// From here on the delivery is authentic.
    async fn accept(
        &self,
        route: &Route,
        Proven { accepted, fingerprint }: &Proven<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Answer {
        let envelope = Envelope::parse(route.policy.scheme.into(), body);
        let seen = Seen {
            id: accepted.id.as_ref().into(),
            type_: envelope.type_().map(Into::into),
            skew_seconds: accepted.timestamp.map(|sent| now.as_second().saturating_sub(sent)),
            key_fingerprint: fingerprint.as_ref().into(),
            time: now,
        };
        // What was signed without a time may be a replay, and a replay does not show that its sender still delivers.
        let timed = accepted.timestamp.is_some();
        let report = timed.then(|| self.deliveries.verified(route, &seen)).flatten();
        let settle = async {
            match self.ticket(&route.uid, &accepted.id).await {
                None => Self::settled(report, Outcome::Duplicate).await,
                Some(ticket) => {
                    let report = if timed { report } else { self.deliveries.verified(route, &seen) };
                    self.apply(route, ticket, &seen, envelope, report).await
                }
            }
        };
        // One budget for all: waiting for a duplicate in flight, and for a write of our own. A write that is under way
        // goes on, and makes the sender's next attempt redundant.
        let outcome =
            tokio::time::timeout(limits::STORE_BUDGET, settle).await.unwrap_or(Outcome::Unavailable);
        self.metrics.delivery(outcome);
        tracing::debug!(?outcome, "delivery");
        match outcome {
            Outcome::Unavailable => Answer::Unavailable,
            _ => Answer::NoContent,
        }
    }

    /// `None` = this delivery was stored before.
    async fn ticket(&self, webhook_uid: &Arc<str>, id: &str) -> Option<Ticket> {
        loop {
            match self.dedupe.begin(webhook_uid, id, Instant::now()) {
                Begun::Done => return None,
                Begun::New(ticket) => return Some(ticket),
                // Each round ends when the one in front ends, at the latest after its budget.
                Begun::InFlight(mut other) => {
                    let _ = other.changed().await;
                }
            }
        }
    }

    async fn apply(
        &self,
        route: &Route,
        ticket: Ticket,
        seen: &Seen,
        envelope: Envelope,
        report: Option<Reported>,
    ) -> Outcome {
        let outcome = match envelope {
            Envelope::Batch(event) => self.hint(route, seen, event).await,
            // Nothing but the report tells of these.
            Envelope::Ping => Self::settled(report, Outcome::Ping).await,
            Envelope::Other(_) => Self::settled(report, Outcome::UnknownType).await,
            Envelope::Unusable => Self::settled(report, Outcome::Unusable).await,
        };
        match outcome {
            Outcome::Accepted | Outcome::Redundant | Outcome::Ping => ticket.stored(Instant::now()),
            // Nothing was stored, so nothing is remembered.
            _ => drop(ticket),
        }
        outcome
    }

    /// Waits for a report that a self-test waits for.
    async fn settled(report: Option<Reported>, outcome: Outcome) -> Outcome {
        let Some(report) = report else { return outcome };
        match report.outcome().await {
            Some(Ok(())) => outcome,
            Some(Err(_)) | None => Outcome::Unavailable,
        }
    }

    async fn hint(&self, route: &Route, seen: &Seen, event: BatchEvent) -> Outcome {
        let marker = event.marker.filter(|_| route.policy.is_dynamic());
        let event = LastEvent {
            id: seen.id.clone(),
            type_: event.type_.into(),
            remote_name: event.remote_name,
            time: event.time.map(Time),
            received_time: Time(seen.time),
        };
        let mut batches = self.index.find(&event.remote_name);
        if let Some(marker) = marker.filter(|_| batches.is_empty()) {
            // The answer that had the name may be lost: then this is how it becomes known.
            batches = self.index.find_marked(&marker);
        }
        if batches.is_empty() {
            let early =
                EarlyEvent { webhook_uid: route.uid.clone(), event: event.clone(), since: Instant::now() };
            let kept = self.early.keep(early);
            self.metrics.early(EarlyOutcome::Dropped, kept.dropped);
            // The name may have come between the look and the keeping, and then nobody would take the event out.
            batches = self.index.find(&event.remote_name);
            if batches.is_empty() {
                return Outcome::Early;
            }
            self.early.withdraw(kept.number);
        }
        self.put(route, &batches, &event).await
    }

    async fn put(&self, route: &Route, batches: &[Arc<Batch>], event: &LastEvent) -> Outcome {
        let served = batches.iter().filter(|batch| route.serves(&batch.namespace));
        let puts = served.map(|batch| self.store.put(batch, event.clone(), event.received_time.0));
        let mut outcome = Outcome::Foreign;
        for stored in futures::future::join_all(puts).await {
            outcome = match (stored, outcome) {
                (Stored::Unavailable, _) | (_, Outcome::Unavailable) => Outcome::Unavailable,
                (Stored::Written, _) => Outcome::Accepted,
                (Stored::Redundant, Outcome::Foreign) => Outcome::Redundant,
                (Stored::Redundant | Stored::Gone, before) => before,
            };
        }
        outcome
    }

    /// Applies the events that waited for these names. Returns the names that must be tried again.
    pub async fn appeared(&self, remote_names: &[Arc<str>]) -> Vec<Arc<str>> {
        let waiting = remote_names.iter().flat_map(|name| self.early.take(name)).collect::<Vec<_>>();
        // One after the other, the last of many would wait for all the others, on a slow API server longer than its minute.
        let applied = futures::stream::iter(waiting)
            .map(|waiting| self.apply_early(waiting))
            .buffer_unordered(limits::EARLY_AT_ONCE);
        let mut again: Vec<Arc<str>> = applied.filter_map(futures::future::ready).collect().await;
        again.sort_unstable();
        again.dedup();
        again
    }

    /// Applies an event that waited. Returns its name if it must be tried again.
    async fn apply_early(&self, waiting: EarlyEvent) -> Option<Arc<str>> {
        // A webhook deleted meanwhile serves nothing any more.
        let route = self.routes.get(&waiting.webhook_uid)?;
        let name: Arc<str> = waiting.event.remote_name.as_str().into();
        match self.put(&route, &self.index.find(&name), &waiting.event).await {
            Outcome::Accepted | Outcome::Redundant => self.metrics.early(EarlyOutcome::Applied, 1),
            Outcome::Unavailable if waiting.since.elapsed() < limits::EARLY_TTL => {
                let kept = self.early.keep(waiting);
                self.metrics.early(EarlyOutcome::Dropped, kept.dropped);
                return Some(name);
            }
            Outcome::Unavailable => self.metrics.early(EarlyOutcome::Dropped, 1),
            _ => self.metrics.early(EarlyOutcome::Foreign, 1),
        }
        None
    }
}

#[cfg(test)]
mod tests;
