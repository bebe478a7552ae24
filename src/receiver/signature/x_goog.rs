//! The scheme of a widely read tutorial: `X-Goog-Signature` is HMAC-SHA256 over the raw body, in lower-case hex, with a
//! secret that the user chose.
//!
//! It has neither id nor time, so that a delivery that was overheard is good for ever: its event may be no more than a
//! hint, and a route has this scheme only because its owner asked for it.

use data_encoding::HEXLOWER;

use super::headers::Found;
use super::mac::{Code, Keyed};
use super::{Rejection, standard_v1};

/// Shortest secret: what people type is weaker than it is long, and what they overhear they can try at leisure.
pub const MIN_SECRET: usize = 32;

/// The user's secret, ready for use.
#[derive(Clone, Debug)]
pub struct Key(Keyed);

impl Key {
    /// Reads a secret: its bytes are the key. One newline at the end is not part of it.
    ///
    /// `signing_keys` are those of the operator's other webhooks. Under a shared key a `v1` signature that was
    /// overheard would be one of ours, over the text `id.timestamp.body`.
    pub fn parse(secret: &[u8], signing_keys: &[standard_v1::Key]) -> Result<Self, Rejection> {
        let secret = secret.strip_suffix(b"\n").unwrap_or(secret);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.is_empty() {
            return Err(Rejection::EmptySecret);
        }
        let key = Keyed::new(secret)?;
        // The text of a signing secret as a key is not yet the key itself, but whoever sets it means that one.
        if secret.starts_with(b"whsec_") || signing_keys.iter().any(|other| other.0.is(&key)) {
            return Err(Rejection::KeyReused);
        }
        if secret.len() < MIN_SECRET {
            return Err(Rejection::NoUsableKey);
        }
        Ok(Self(key))
    }
}

/// Judges a delivery; tells which key it was.
///
/// `headers` are all headers of the request, in any case and order. All keys are always tried.
pub fn verify<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
    keys: &[Key],
) -> Result<usize, Rejection> {
    let signature = parse_signature(Found::among(headers).x_goog()?)?;
    if keys.is_empty() {
        return Err(Rejection::NoUsableKey);
    }
    let mut found = None;
    for (number, key) in keys.iter().enumerate() {
        // A `Code` compares in constant time.
        let matched = key.0.code([body]) == signature;
        if matched && found.is_none() {
            found = Some(number);
        }
    }
    found.ok_or(Rejection::NoMatchingSignature)
}

/// 64 digits, in the one form that the tutorial's sender writes.
fn parse_signature(text: &[u8]) -> Result<Code, Rejection> {
    let bytes = HEXLOWER.decode(text).map_err(|_| Rejection::Malformed)?;
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| Rejection::Malformed)?;
    Ok(Keyed::claimed(bytes))
}

#[cfg(test)]
mod tests;
