//! Verification of deliveries: pure functions from bytes, keys and a time to a verdict.
//!
//! One file per scheme; a route has exactly one scheme, and there is no falling back from one to another. Nothing
//! in this folder knows Kubernetes, HTTP types or a clock.

pub mod dynamic_jwt;
pub mod dynamic_v1a;
mod headers;
pub mod jwks;
mod mac;
mod shape;
pub mod standard_v1;
pub mod x_goog;

#[cfg(test)]
mod vectors;

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

pub use shape::shape;

/// The scheme that a route is pinned to, with what it verifies by.
#[derive(Clone, Copy, Debug)]
pub enum Scheme<'a> {
    /// HMAC, by the signing secrets that are good now.
    StandardWebhooks(&'a [standard_v1::Key]),
    /// Ed25519, by the provider's public keys.
    DynamicV1a(&'a jwks::Jwks),
    /// A JWT, by the provider's public keys and what its claims must say.
    DynamicJwt(&'a jwks::Jwks, &'a dynamic_jwt::Expected),
    /// HMAC over the body alone, by the user's own secrets.
    XGoogSignature(&'a [x_goog::Key]),
}

/// What a verified delivery of any scheme is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The same in every retry, and nobody else can make another delivery of it: the sender's id where that is signed,
    /// otherwise a digest of what is.
    pub id: Cow<'a, str>,
    /// The sender's clock at this attempt, in Unix seconds. `XGoogSignature` has none.
    pub timestamp: Option<i64>,
    /// Which of the given keys verified it.
    pub key: usize,
}

/// Judges a delivery by one scheme.
///
/// `headers` are all headers of the request, in any case and order; `now` and `tolerance` are in seconds.
pub fn verify<'a>(
    scheme: Scheme<'_>,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
    now: i64,
    tolerance: i64,
) -> Result<Accepted<'a>, Rejection> {
    match scheme {
        Scheme::StandardWebhooks(keys) => {
            standard_v1::verify(headers, body, keys, now, tolerance).map(Accepted::from)
        }
        Scheme::DynamicV1a(keys) => {
            dynamic_v1a::verify(headers, body, keys, now, tolerance).map(Accepted::from)
        }
        Scheme::DynamicJwt(keys, expected) => {
            let verdict = dynamic_jwt::verify(headers, body, keys, expected, now, tolerance)?;
            Ok(Accepted {
                id: digest_id(&verdict.digest),
                timestamp: Some(verdict.timestamp),
                key: verdict.key,
            })
        }
        Scheme::XGoogSignature(keys) => {
            let key = x_goog::verify(headers, body, keys)?;
            Ok(Accepted { id: digest_id(&Sha256::digest(body)), timestamp: None, key })
        }
    }
}

fn digest_id(digest: &[u8]) -> Cow<'static, str> {
    format!("sha256:{}", HEXLOWER.encode(digest)).into()
}

impl<'a> From<Verdict<'a>> for Accepted<'a> {
    fn from(verdict: Verdict<'a>) -> Self {
        Self { id: verdict.id.into(), timestamp: Some(verdict.timestamp), key: verdict.key }
    }
}

/// Why a delivery was refused: a closed set, which is also the label of the metric.
///
/// It holds the reasons of all schemes that a route may be pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    MissingHeader,
    DuplicateHeader,
    BadId,
    InvalidTimestamp,
    TimestampTooOld,
    TimestampTooNew,
    TooManySignatures,
    WrongScheme,
    MixedSchemes,
    NoMatchingSignature,
    NoUsableKey,
    EmptySecret,
    KeyReused,
    Malformed,
    Alg,
    Kid,
    Signature,
    Aud,
    Iss,
    Exp,
    Nbf,
    ClaimsBodyMismatch,
    /// Before verification: nobody has this route.
    UnknownRoute,
    /// Before verification: body over the limit.
    TooLarge,
}

impl Rejection {
    /// Whether other public keys than the ones at hand might have led to another verdict.
    pub const fn is_for_want_of_a_key(self) -> bool {
        matches!(self, Self::NoMatchingSignature | Self::NoUsableKey | Self::Kid | Self::Signature)
    }

    /// The metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingHeader => "missing_header",
            Self::DuplicateHeader => "duplicate_header",
            Self::BadId => "bad_id",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::TimestampTooOld => "timestamp_too_old",
            Self::TimestampTooNew => "timestamp_too_new",
            Self::TooManySignatures => "too_many_signatures",
            Self::WrongScheme => "wrong_scheme",
            Self::MixedSchemes => "mixed_schemes",
            Self::NoMatchingSignature => "no_matching_signature",
            Self::NoUsableKey => "no_usable_key",
            Self::EmptySecret => "empty_secret",
            Self::KeyReused => "key_reused",
            Self::Malformed => "malformed",
            Self::Alg => "alg",
            Self::Kid => "kid",
            Self::Signature => "signature",
            Self::Aud => "aud",
            Self::Iss => "iss",
            Self::Exp => "exp",
            Self::Nbf => "nbf",
            Self::ClaimsBodyMismatch => "claims_body_mismatch",
            Self::UnknownRoute => "unknown_route",
            Self::TooLarge => "too_large",
        }
    }
}

/// What a delivery is known by whose id and time stamp are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The delivery's id, the same in every retry.
    pub id: &'a str,
    /// The sender's clock at this attempt, in Unix seconds.
    pub timestamp: i64,
    /// Which of the given keys verified it.
    pub key: usize,
}

#[cfg(test)]
mod tests;
