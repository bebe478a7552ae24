//! Standard Webhooks, version `v1a`: Ed25519 over `id.timestamp.body`, by keys of the provider's JWKS.
//!
//! The entries say nothing of their key, so each is tried with each. Nothing here is secret, so nothing needs to take
//! the same time.

use data_encoding::BASE64;
use ed25519_dalek::Signature;

use super::headers::Standard;
use super::jwks::Jwks;
use super::{Rejection, Verdict};

/// Judges a delivery. `headers` are all headers of the request, in any case and order.
pub fn verify<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
    keys: &Jwks,
    now: i64,
    tolerance: i64,
) -> Result<Verdict<'a>, Rejection> {
    let delivery = Standard::read(headers, now, tolerance)?;
    let ours = || delivery.entries().filter_map(|entry| entry.strip_prefix(b"v1a,"));
    // A `v1` entry is never looked at: its key would be one that everybody has.
    if ours().next().is_none() {
        return Err(Rejection::WrongScheme);
    }
    if keys.ed25519.is_empty() {
        return Err(Rejection::NoUsableKey);
    }
    let message = delivery.signed(body).concat();
    let signatures = ours().filter_map(parse_signature);
    let found = signatures.into_iter().find_map(|signature| {
        keys.ed25519.iter().position(|key| key.verify_strict(&message, &signature).is_ok())
    });
    match found {
        Some(key) => Ok(Verdict { id: delivery.id, timestamp: delivery.timestamp, key }),
        None => Err(Rejection::NoMatchingSignature),
    }
}

/// Entries that are no signatures are skipped, as in `v1`.
fn parse_signature(text: &[u8]) -> Option<Signature> {
    let bytes: [u8; 64] = BASE64.decode(text).ok()?.try_into().ok()?;
    Some(Signature::from_bytes(&bytes))
}

#[cfg(test)]
mod tests;
