//! Verification of deliveries: pure functions from bytes, keys and a time to a verdict.
//!
//! One file per scheme; a route has exactly one scheme, and there is no falling back from one to another. Nothing
//! in this folder knows Kubernetes, HTTP types or a clock.

pub mod standard_v1;

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

/// What a verified delivery is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The delivery's id, the same in every retry.
    pub id: &'a str,
    /// The sender's clock at this attempt, in Unix seconds.
    pub timestamp: i64,
    /// Which of the given keys verified it.
    pub key: usize,
}
