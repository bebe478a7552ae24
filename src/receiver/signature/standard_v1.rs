//! Standard Webhooks, version `v1`: HMAC-SHA256 over `id.timestamp.body`.
//!
//! Our own verifier, because the published one renders the numbers again before it hashes them, takes an empty key,
//! refuses bodies that are not UTF-8, and can be made to panic. Here the raw header bytes go into the MAC.

use data_encoding::{BASE64, BASE64_NOPAD};

use super::headers::Standard;
use super::mac::{Code, Keyed};
use super::{Rejection, Verdict};

/// Characters of 32 bytes in base64.
const ENCODED: usize = 44;

/// A signing secret, ready for use.
#[derive(Clone, Debug)]
pub struct Key(pub(super) Keyed);

impl Key {
    /// Reads a secret as the provider shows it: `whsec_` and base64. Prefix and padding may be missing, and one
    /// newline at the end is not part of it: that is how secrets come out of files.
    pub fn parse(secret: &str) -> Result<Self, Rejection> {
        let secret = secret.strip_suffix('\n').unwrap_or(secret);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        let text = secret.strip_prefix("whsec_").unwrap_or(secret);
        let text = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
        let bytes = BASE64_NOPAD.decode(text.as_bytes()).map_err(|_| Rejection::NoUsableKey)?;
        // HMAC works with an empty key, and everybody knows that key.
        if bytes.is_empty() {
            return Err(Rejection::EmptySecret);
        }
        Keyed::new(&bytes).map(Self)
    }

    /// A key that nobody has, for the work on routes that nobody has.
    pub fn dummy() -> Result<Self, Rejection> {
        Keyed::new(b"no route has this key: its verdict is never used").map(Self)
    }
}

/// Judges a delivery.
///
/// `headers` are all headers of the request, in any case and order. All keys are always tried with all signatures,
/// so that the time taken does not tell which of them was right.
pub fn verify<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
    keys: &[Key],
    now: i64,
    tolerance: i64,
) -> Result<Verdict<'a>, Rejection> {
    let delivery = Standard::read(headers, now, tolerance)?;
    if keys.is_empty() {
        return Err(Rejection::NoUsableKey);
    }

    let mut found = None;
    for (number, key) in keys.iter().enumerate() {
        let expected = key.0.code(delivery.signed(body));
        let mut matched = false;
        for signature in delivery.entries().filter_map(parse_signature) {
            // A `Code` compares in constant time; `|` does not stop early.
            matched |= expected == signature;
        }
        if matched && found.is_none() {
            found = Some(number);
        }
    }
    match found {
        Some(key) => Ok(Verdict { id: delivery.id, timestamp: delivery.timestamp, key }),
        None => Err(Rejection::NoMatchingSignature),
    }
}

/// A `v1` entry of the list. Entries of other versions and malformed ones are skipped: the format allows a sender to add
/// versions that we do not know.
fn parse_signature(entry: &[u8]) -> Option<Code> {
    let text = entry.strip_prefix(b"v1,").filter(|text| text.len() == ENCODED)?;
    // In place: to ask for memory takes as long as to decode. The decoder wants three bytes for each four characters.
    let mut bytes = [0; ENCODED / 4 * 3];
    let length = BASE64.decode_mut(text, &mut bytes).ok()?;
    let bytes = <[u8; 32]>::try_from(bytes.get(..length)?).ok()?;
    Some(Keyed::claimed(bytes))
}

#[cfg(test)]
mod tests;
