//! The documented form of dynamic deliveries: `webhook-signature` is a JWT, RS256, by a key of the provider's JWKS.
//!
//! A library would have to be told all that it must not do: here there is one algorithm, no key comes out of the token,
//! and no text that is not the one form of its bytes is read.
//!
//! The token proves who sent it, to whom and until when. Neither id nor time stamp nor, unless its claims repeat the
//! event, the body is bound by it: so such deliveries are known by a digest of token and body, and a body alone is
//! never more than a hint.

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Rejection;
use super::headers::Standard;
use super::jwks::{Jwks, RsaKey};

/// How far the token's maker may be ahead of us. The end of a token has no such leeway.
const NBF_LEEWAY: i64 = 60;
/// What an event consists of; the claims hold one if they have its type or its data.
const EVENT: [&str; 5] = ["type", "version", "timestamp", "data", "user_metadata"];
/// Longest audience that is shown to a person.
const SHOWN: usize = 512;

/// What the claims must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Exactly this text.
    pub audience: String,
    /// Looked at only if there is one: the provider documents none.
    pub issuer: Option<String>,
}

/// What a verified delivery is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// SHA-256 over token and body.
    pub digest: [u8; 32],
    /// The header's, which the token does not prove.
    pub timestamp: i64,
    /// Which of the keys verified it.
    pub key: usize,
}

/// Judges a delivery. `headers` are all headers of the request, in any case and order.
pub fn verify<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
    keys: &Jwks,
    expected: &Expected,
    now: i64,
    tolerance: i64,
) -> Result<Verdict, Rejection> {
    let delivery = Standard::read(headers, now, tolerance)?;
    let (claims, key) = authenticate(&delivery, keys)?;
    check_claims(&claims, expected, now)?;
    check_event(&claims, body)?;
    let digest = Sha256::new().chain_update(delivery.signature).chain_update(body).finalize().into();
    Ok(Verdict { digest, timestamp: delivery.timestamp, key })
}

/// To whom an authentic token is addressed: what a person needs to know who sees it refused for that.
pub fn observed_audience<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    keys: &Jwks,
    now: i64,
    tolerance: i64,
) -> Option<String> {
    let delivery = Standard::read(headers, now, tolerance).ok()?;
    let (claims, _) = authenticate(&delivery, keys).ok()?;
    let shown = match claims.get("aud")? {
        Value::String(one) => one.clone(),
        other => other.to_string(),
    };
    Some(shown.chars().filter(|c| !c.is_control()).take(SHOWN).collect())
}

/// The claims of a token whose signature is good, and the number of the key.
fn authenticate(delivery: &Standard<'_>, keys: &Jwks) -> Result<(Map<String, Value>, usize), Rejection> {
    if delivery.entries().any(|entry| entry.starts_with(b"v1,") || entry.starts_with(b"v1a,")) {
        return Err(Rejection::WrongScheme);
    }
    let token = Token::parse(delivery.signature).ok_or(Rejection::Malformed)?;
    if token.header.get("alg").and_then(Value::as_str) != Some("RS256") {
        return Err(Rejection::Alg);
    }
    if keys.rsa.is_empty() {
        return Err(Rejection::NoUsableKey);
    }
    let kid = token.header.get("kid").and_then(Value::as_str).ok_or(Rejection::Kid)?;
    let mut named = keys.rsa.iter().enumerate().filter(|(_, key)| key.kid == kid).peekable();
    named.peek().ok_or(Rejection::Kid)?;
    let (number, _) = named.find(|(_, key)| token.is_signed_by(key)).ok_or(Rejection::Signature)?;
    let claims = serde_json::from_slice(&token.claims).map_err(|_| Rejection::Malformed)?;
    Ok((claims, number))
}

struct Token<'a> {
    header: Map<String, Value>,
    claims: Vec<u8>,
    /// The first two segments, as they were sent.
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Three segments of base64url, in the one form that their bytes have, the first of them a JSON object.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let last = text.iter().rposition(|byte| *byte == b'.')?;
        let signed = text.get(..last)?;
        let mut segments =
            text.split(|byte| *byte == b'.').map(|segment| BASE64URL_NOPAD.decode(segment).ok());
        let (header, claims, signature) = (segments.next()??, segments.next()??, segments.next()??);
        let header: Map<String, Value> = serde_json::from_slice(&header).ok()?;
        // Whoever does not know what is critical must refuse it (RFC 7515 §4.1.11); we know nothing of the kind.
        let critical = header.contains_key("crit");
        (segments.next().is_none() && !critical).then_some(Self { header, claims, signed, signature })
    }

    fn is_signed_by(&self, key: &RsaKey) -> bool {
        let key = RsaPublicKeyComponents { n: &key.n, e: &key.e };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, self.signed, &self.signature).is_ok()
    }
}

fn check_claims(claims: &Map<String, Value>, expected: &Expected, now: i64) -> Result<(), Rejection> {
    let is_audience = |value: &Value| value.as_str() == Some(expected.audience.as_str());
    let addressed = match claims.get("aud") {
        Some(Value::Array(several)) => several.iter().any(is_audience),
        Some(one) => is_audience(one),
        None => false,
    };
    if !addressed {
        return Err(Rejection::Aud);
    }
    if let Some(issuer) = &expected.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(Rejection::Iss);
    }
    let end = claims.get("exp").and_then(Value::as_f64).ok_or(Rejection::Exp)?;
    if end <= seconds(now) {
        return Err(Rejection::Exp);
    }
    if let Some(start) = claims.get("nbf") {
        let start = start.as_f64().ok_or(Rejection::Nbf)?;
        if start > seconds(now.saturating_add(NBF_LEEWAY)) {
            return Err(Rejection::Nbf);
        }
    }
    Ok(())
}

/// A token's times are JSON numbers, which may have fractions.
#[allow(clippy::cast_precision_loss)] // Exact for the next 285 million years.
fn seconds(time: i64) -> f64 {
    time as f64
}

/// Claims that hold an event prove that one and no other: the body must say the same and nothing more.
fn check_event(claims: &Map<String, Value>, body: &[u8]) -> Result<(), Rejection> {
    if !claims.contains_key("type") && !claims.contains_key("data") {
        return Ok(());
    }
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Rejection::ClaimsBodyMismatch)?;
    let mut names = EVENT.into_iter().chain(body.keys().map(String::as_str));
    let same = names.all(|name| claims.get(name) == body.get(name));
    same.then_some(()).ok_or(Rejection::ClaimsBodyMismatch)
}

#[cfg(test)]
mod tests;
