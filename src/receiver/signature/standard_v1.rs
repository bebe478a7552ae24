//! Standard Webhooks, version `v1`: HMAC-SHA256 over `id.timestamp.body`.
//!
//! Our own verifier, because the published one renders the numbers again before it hashes them, takes an empty key,
//! refuses bodies that are not UTF-8, and can be made to panic. Here the raw header bytes go into the MAC.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::digest::{CtOutput, Output};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{Rejection, Verdict};

type HmacSha256 = Hmac<Sha256>;

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";
/// The header of another scheme. A request with both is ambiguous, and an attacker's choice at that.
const FOREIGN: &str = "x-goog-signature";

/// Most signatures that are looked at: a sender in rotation sends two, and each one costs compares with every key.
const MAX_SIGNATURES: usize = 8;
/// Longest list of signatures: one is 47 bytes, other versions' are longer; eight of them fit well.
const MAX_LIST: usize = 4096;
/// Longest id: `msg_` and a UUID is 40. It is stored, so it must be bounded.
const MAX_ID: usize = 128;
/// Most digits of a time stamp: the year 33658.
const MAX_DIGITS: usize = 12;

/// A signing secret, ready for use.
#[derive(Clone)]
pub struct Key {
    /// The MAC with the key already in it: its bytes are not kept.
    mac: HmacSha256,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

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
        Self::from_bytes(&bytes)
    }

    /// A key that nobody has, for the work on routes that nobody has.
    pub fn dummy() -> Result<Self, Rejection> {
        Self::from_bytes(b"no route has this key: its verdict is never used")
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Rejection> {
        HmacSha256::new_from_slice(bytes).map(|mac| Self { mac }).map_err(|_| Rejection::NoUsableKey)
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
    let security = SecurityHeaders::find(headers)?;
    let id = parse_id(security.id)?;
    let timestamp = parse_timestamp(security.timestamp)?;
    check_age(timestamp, now, tolerance)?;
    let signatures = parse_signatures(security.signature)?;
    if keys.is_empty() {
        return Err(Rejection::NoUsableKey);
    }

    let mut found = None;
    for (number, key) in keys.iter().enumerate() {
        let mut mac = key.mac.clone();
        for part in [security.id, b".", security.timestamp, b".", body] {
            mac.update(part);
        }
        let expected = mac.finalize();
        let mut matched = false;
        for signature in &signatures {
            // `CtOutput` compares in constant time; `|` does not stop early.
            matched |= expected == *signature;
        }
        if matched && found.is_none() {
            found = Some(number);
        }
    }
    match found {
        Some(key) => Ok(Verdict { id, timestamp, key }),
        None => Err(Rejection::NoMatchingSignature),
    }
}

struct SecurityHeaders<'a> {
    id: &'a [u8],
    timestamp: &'a [u8],
    signature: &'a [u8],
}

impl<'a> SecurityHeaders<'a> {
    /// Exactly one of each, none of them empty.
    fn find(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, Rejection> {
        let (mut id, mut timestamp, mut signature) = (None, None, None);
        let (mut duplicate, mut foreign) = (false, false);
        for (name, value) in headers {
            let slot = if name.eq_ignore_ascii_case(ID) {
                &mut id
            } else if name.eq_ignore_ascii_case(TIMESTAMP) {
                &mut timestamp
            } else if name.eq_ignore_ascii_case(SIGNATURE) {
                &mut signature
            } else {
                foreign |= name.eq_ignore_ascii_case(FOREIGN);
                continue;
            };
            duplicate |= slot.replace(trim(value)).is_some();
        }
        if duplicate {
            return Err(Rejection::DuplicateHeader);
        }
        let any = id.is_some() || timestamp.is_some() || signature.is_some();
        match (foreign, any) {
            (true, true) => return Err(Rejection::MixedSchemes),
            (true, false) => return Err(Rejection::WrongScheme),
            (false, _) => {}
        }
        let there = |value: Option<&'a [u8]>| value.filter(|v| !v.is_empty()).ok_or(Rejection::MissingHeader);
        Ok(Self { id: there(id)?, timestamp: there(timestamp)?, signature: there(signature)? })
    }
}

/// White space round a header's value is not part of it (RFC 9110 §5.5).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// 1 to 128 visible ASCII characters. A dot is allowed: after it come a digits-only time stamp and a body, so that a
/// shifted dot leads nowhere.
fn parse_id(id: &[u8]) -> Result<&str, Rejection> {
    if id.len() > MAX_ID || !id.iter().all(u8::is_ascii_graphic) {
        return Err(Rejection::BadId);
    }
    str::from_utf8(id).map_err(|_| Rejection::BadId)
}

/// `0` or up to twelve digits without a leading zero: exactly one text for each number.
fn parse_timestamp(text: &[u8]) -> Result<i64, Rejection> {
    let canonical = match text {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < MAX_DIGITS && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return Err(Rejection::InvalidTimestamp);
    }
    str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(Rejection::InvalidTimestamp)
}

fn check_age(timestamp: i64, now: i64, tolerance: i64) -> Result<(), Rejection> {
    // A clock so wrong that the difference overflows is wrong in a known direction.
    match now.checked_sub(timestamp) {
        Some(age) if age > tolerance => Err(Rejection::TimestampTooOld),
        Some(age) if age.checked_neg().is_none_or(|ahead| ahead > tolerance) => {
            Err(Rejection::TimestampTooNew)
        }
        Some(_) => Ok(()),
        None => Err(Rejection::TimestampTooNew),
    }
}

/// The `v1` entries of the list. Entries of other versions and malformed ones are skipped: the format allows a
/// sender to add versions that we do not know.
fn parse_signatures(list: &[u8]) -> Result<Vec<CtOutput<HmacSha256>>, Rejection> {
    let entries = || list.split(|byte| *byte == b' ').filter(|entry| !entry.is_empty());
    if entries().nth(MAX_SIGNATURES).is_some() {
        return Err(Rejection::TooManySignatures);
    }
    if list.len() > MAX_LIST {
        return Err(Rejection::Malformed);
    }
    Ok(entries()
        .filter_map(|entry| entry.strip_prefix(b"v1,"))
        .filter_map(|text| BASE64.decode(text).ok())
        .filter_map(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .map(|bytes| CtOutput::new(Output::<HmacSha256>::from(bytes)))
        .collect())
}

#[cfg(test)]
mod tests;
