//! Who sent it: the one scheme of a route, with the keys that are good now.

use std::sync::Arc;
use std::time::Instant;

use axum::http::request::Parts;
use jiff::Timestamp;

use super::{Answer, Handler};
use crate::api::webhook::SignatureScheme;
use crate::receiver::keys::Keys;
use crate::receiver::limits;
use crate::receiver::patch::Patch;
use crate::receiver::public_keys::{KeySet, Told};
use crate::receiver::routes::{Policy, Route};
use crate::receiver::signature::jwks::Jwks;
use crate::receiver::signature::{self, Accepted, Rejection, Scheme, dynamic_jwt};

/// An authentic delivery, and the name of the key that proved it.
pub(super) struct Proven<'a> {
    pub accepted: Accepted<'a>,
    pub fingerprint: Arc<str>,
}

/// One that is not.
pub(super) struct Refused {
    pub reason: Rejection,
    pub answer: Answer,
    /// To whom a token was addressed that is authentic but for that.
    pub audience: Option<String>,
}

impl From<Rejection> for Refused {
    fn from(reason: Rejection) -> Self {
        Self { reason, answer: Answer::Unauthorized, audience: None }
    }
}

impl Refused {
    /// Nothing can be said about the delivery yet, so its sender must come again.
    fn for_now(reason: Rejection) -> Self {
        Self { reason, answer: Answer::Unavailable, audience: None }
    }
}

impl<P: Patch> Handler<P> {
    /// Whose delivery it is. Several webhooks show one path only where somebody has copied a status, to take another's
    /// deliveries perhaps: it is his whose keys prove it, and a copy costs him one try. What nobody's do was for the first.
    pub(super) async fn prove_for_one<'a, 'r>(
        &self,
        first: &'r Route,
        copies: &'r [Arc<Route>],
        parts: &'a Parts,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(&'r Route, Proven<'a>), Refused> {
        let refused = match self.prove(first, parts, body, now).await {
            Ok(proven) => return Ok((first, proven)),
            Err(refused) => refused,
        };
        for copy in copies {
            if let Ok(proven) = self.prove(copy, parts, body, now).await {
                return Ok((copy, proven));
            }
        }
        Err(refused)
    }

    async fn prove<'a>(
        &self,
        route: &Route,
        parts: &'a Parts,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Proven<'a>, Refused> {
        match route.policy.scheme {
            SignatureScheme::StandardWebhooks | SignatureScheme::XGoogSignature => {
                self.prove_by_secrets(route, parts, body, now)
            }
            SignatureScheme::DynamicV1a | SignatureScheme::DynamicJwt => {
                self.prove_by_public_keys(&route.policy, parts, body, now).await
            }
        }
    }

    /// Does the same work for a route that nobody has, so that the time does not tell which routes there are.
    pub(super) fn pretend(&self, parts: &Parts, body: &[u8], now: Timestamp) {
        let scheme = Scheme::StandardWebhooks(std::slice::from_ref(&self.dummy));
        let verdict = verify(scheme, parts, body, now, limits::TOLERANCE_SECONDS);
        // It must not matter, whatever it is.
        std::hint::black_box(verdict.is_ok());
    }

    fn prove_by_secrets<'a>(
        &self,
        route: &Route,
        parts: &'a Parts,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Proven<'a>, Refused> {
        // The registration stands and its secret is not there (yet), or is broken.
        let live = self.keyring.live(&route.uid, route.policy.scheme, now).map_err(Refused::for_now)?;
        let scheme = match &live.keys {
            Keys::StandardWebhooks(keys) => Scheme::StandardWebhooks(keys),
            Keys::XGoogSignature(keys) => Scheme::XGoogSignature(keys),
        };
        let accepted = verify(scheme, parts, body, now, route.policy.tolerance)?;
        let fingerprint = live.fingerprints.get(accepted.key).cloned().unwrap_or_default();
        Ok(Proven { accepted, fingerprint })
    }

    /// What is wrong with the delivery itself is said without asking anybody for keys. Each further round has other keys,
    /// and those come once a minute at most.
    async fn prove_by_public_keys<'a>(
        &self,
        policy: &Policy,
        parts: &'a Parts,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Proven<'a>, Refused> {
        let asked = Instant::now();
        let mut keys = self.public_keys.held();
        loop {
            let none = Jwks::default();
            let jwks = keys.as_ref().map_or(&none, |keys| &keys.jwks);
            let verdict = verify(dynamic(policy, jwks), parts, body, now, policy.tolerance);
            let missed = match verdict {
                Ok(_) => false,
                Err(reason) if reason.is_for_want_of_a_key() => true,
                Err(reason) => {
                    let audience = (reason == Rejection::Aud).then(|| audience(policy, jwks, parts, now));
                    return Err(Refused { audience: audience.flatten(), ..reason.into() });
                }
            };
            match (self.public_keys.ask(keys.as_ref(), missed, asked).await, verdict) {
                (Told::Other(others), _) => keys = Some(others),
                (Told::Same { .. }, Ok(accepted)) => {
                    let names = keys.as_deref().map_or(&[][..], |keys| names(policy, keys));
                    let fingerprint = names.get(accepted.key).cloned().unwrap_or_default();
                    return Ok(Proven { accepted, fingerprint });
                }
                (Told::Lack, _) | (Told::Same { failing: true }, Err(Rejection::NoUsableKey)) => {
                    return Err(Refused::for_now(Rejection::NoUsableKey));
                }
                (Told::Same { .. }, Err(reason)) => return Err(reason.into()),
            }
        }
    }
}

fn dynamic<'a>(policy: &'a Policy, jwks: &'a Jwks) -> Scheme<'a> {
    match policy.scheme {
        SignatureScheme::DynamicJwt => Scheme::DynamicJwt(jwks, &policy.jwt),
        _ => Scheme::DynamicV1a(jwks),
    }
}

/// The names of the keys that the route's scheme counts.
fn names<'a>(policy: &Policy, keys: &'a KeySet) -> &'a [Arc<str>] {
    match policy.scheme {
        SignatureScheme::DynamicJwt => &keys.rsa,
        _ => &keys.ed25519,
    }
}

fn audience(policy: &Policy, jwks: &Jwks, parts: &Parts, now: Timestamp) -> Option<String> {
    dynamic_jwt::observed_audience(headers(parts), jwks, now.as_second(), policy.tolerance)
}

fn verify<'a>(
    scheme: Scheme<'_>,
    parts: &'a Parts,
    body: &[u8],
    now: Timestamp,
    tolerance: i64,
) -> Result<Accepted<'a>, Rejection> {
    signature::verify(scheme, headers(parts), body, now.as_second(), tolerance)
}

pub(super) fn headers(parts: &Parts) -> impl Iterator<Item = (&str, &[u8])> {
    parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}
