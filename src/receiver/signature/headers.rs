//! The headers that the schemes read: which of them a request has, and the rules on their texts.

use super::Rejection;

pub const ID: &str = "webhook-id";
pub const TIMESTAMP: &str = "webhook-timestamp";
pub const SIGNATURE: &str = "webhook-signature";
/// The one header of the tutorial's scheme.
pub const X_GOOG_SIGNATURE: &str = "x-goog-signature";

/// Most signatures that are looked at: a sender in rotation sends two, and each one costs work with every key.
pub const MAX_SIGNATURES: usize = 8;
/// Longest value of a header with signatures: of a `v1` it is 47 bytes, of a `v1a` 92, of a JWT some hundred; eight of
/// the first two fit well.
pub const MAX_LIST: usize = 4096;
/// Longest id: `msg_` and a UUID is 40. It is stored, so it must be bounded.
const MAX_ID: usize = 128;
/// Most digits of a time stamp: the year 33658.
const MAX_DIGITS: usize = 12;

/// What all `webhook-…` schemes have in common, read and checked, but not yet proven.
pub struct Standard<'a> {
    pub id: &'a str,
    pub timestamp: i64,
    /// As it was sent: these bytes are what is signed.
    pub timestamp_text: &'a [u8],
    /// Not empty, and no list of too many.
    pub signature: &'a [u8],
}

impl<'a> Standard<'a> {
    /// Reads the three headers of a delivery.
    pub fn read(
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        now: i64,
        tolerance: i64,
    ) -> Result<Self, Rejection> {
        let [id, timestamp_text, signature] = Found::among(headers).standard()?;
        let id = parse_id(id)?;
        let timestamp = parse_timestamp(timestamp_text)?;
        check_age(timestamp, now, tolerance)?;
        if entries(signature).nth(MAX_SIGNATURES).is_some() {
            return Err(Rejection::TooManySignatures);
        }
        if signature.len() > MAX_LIST {
            return Err(Rejection::Malformed);
        }
        Ok(Self { id, timestamp, timestamp_text, signature })
    }

    /// What `v1` and `v1a` sign, in parts.
    pub fn signed<'b>(&'b self, body: &'b [u8]) -> [&'b [u8]; 5] {
        [self.id.as_bytes(), b".", self.timestamp_text, b".", body]
    }

    /// The entries of the list of signatures.
    pub fn entries(&self) -> impl Iterator<Item = &'a [u8]> {
        entries(self.signature)
    }
}

fn entries(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b' ').filter(|entry| !entry.is_empty())
}

/// The security headers of a request, of whichever scheme.
#[derive(Default)]
pub struct Found<'a> {
    id: Once<'a>,
    timestamp: Once<'a>,
    signature: Once<'a>,
    x_goog: Once<'a>,
}

/// A header that there may be one of.
#[derive(Default)]
struct Once<'a> {
    value: Option<&'a [u8]>,
    again: bool,
}

impl<'a> Found<'a> {
    pub fn among(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let slot = if is(name, ID) {
                &mut found.id
            } else if is(name, TIMESTAMP) {
                &mut found.timestamp
            } else if is(name, SIGNATURE) {
                &mut found.signature
            } else if is(name, X_GOOG_SIGNATURE) {
                &mut found.x_goog
            } else {
                continue;
            };
            slot.again |= slot.value.replace(trim(value)).is_some();
        }
        found
    }

    /// What there is of signatures, of either family; of a header that is there twice, the last.
    pub fn signatures(self) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        (self.signature.value, self.x_goog.value)
    }

    /// Id, time stamp and signature: exactly one of each, none of them empty, and nothing of the other scheme. A
    /// request with both is ambiguous, and an attacker's choice at that.
    fn standard(self) -> Result<[&'a [u8]; 3], Rejection> {
        if self.id.again || self.timestamp.again || self.signature.again {
            return Err(Rejection::DuplicateHeader);
        }
        match (self.x_goog.value.is_some(), self.any_standard()) {
            (true, true) => Err(Rejection::MixedSchemes),
            (true, false) => Err(Rejection::WrongScheme),
            (false, _) => Ok([self.id.there()?, self.timestamp.there()?, self.signature.there()?]),
        }
    }

    /// The one header of the tutorial's scheme, by the same rules.
    pub fn x_goog(self) -> Result<&'a [u8], Rejection> {
        if self.x_goog.again {
            return Err(Rejection::DuplicateHeader);
        }
        match (self.x_goog.value.is_some(), self.any_standard()) {
            (true, true) => Err(Rejection::MixedSchemes),
            (false, true) => Err(Rejection::WrongScheme),
            (_, false) => self.x_goog.there(),
        }
    }

    fn any_standard(&self) -> bool {
        [&self.id, &self.timestamp, &self.signature].iter().any(|header| header.value.is_some())
    }
}

/// Names of headers are the same in any case. Most of a request's differ from ours in their length or their last letter, and
/// to see that costs less than to read them all.
fn is(name: &str, wanted: &str) -> bool {
    let last = |text: &str| text.as_bytes().last().map(u8::to_ascii_lowercase);
    name.len() == wanted.len() && last(name) == last(wanted) && name.eq_ignore_ascii_case(wanted)
}

impl<'a> Once<'a> {
    fn there(&self) -> Result<&'a [u8], Rejection> {
        self.value.filter(|value| !value.is_empty()).ok_or(Rejection::MissingHeader)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_clocks_do_not_overflow() {
        for now in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX] {
            for timestamp in [0, 999_999_999_999] {
                assert!(check_age(timestamp, now, 300).is_err() || (now, timestamp) == (0, 0) || now == -1);
            }
        }
    }

    /// A row for each scheme: what each says of the other's headers, alone and beside its own.
    #[test]
    fn one_scheme_a_request() {
        let (id, time, signature, goog) =
            ((ID, "a"), (TIMESTAMP, "1"), (SIGNATURE, "s"), (X_GOOG_SIGNATURE, "g"));
        let (missing, twice) = (Rejection::MissingHeader, Rejection::DuplicateHeader);
        let (mixed, wrong) = (Rejection::MixedSchemes, Rejection::WrongScheme);
        for (headers, standard, x_goog) in [
            (&[id, time, signature][..], None, Some(wrong)),
            (&[goog], Some(wrong), None),
            (&[], Some(missing), Some(missing)),
            (&[id, time], Some(missing), Some(wrong)),
            (&[id, time, (SIGNATURE, " \t")], Some(missing), Some(wrong)),
            (&[(X_GOOG_SIGNATURE, "")], Some(wrong), Some(missing)),
            (&[id, time, signature, goog], Some(mixed), Some(mixed)),
            (&[id, goog], Some(mixed), Some(mixed)),
            (&[id, time, signature, signature], Some(twice), Some(wrong)),
            (&[("WEBHOOK-ID", "b"), id, time, signature], Some(twice), Some(wrong)),
            (&[goog, ("X-Goog-Signature", "h")], Some(wrong), Some(twice)),
            (&[("host", "h"), ("Webhook-Id", "a"), time, signature, ("host", "i")], None, Some(wrong)),
        ] {
            let found = || Found::among(headers.iter().map(|(name, value)| (*name, value.as_bytes())));
            assert_eq!(found().standard().err(), standard, "{headers:?}");
            assert_eq!(found().x_goog().err(), x_goog, "{headers:?}");
        }
    }
}
