//! What kind of signature a request carries: what may be said of one that was refused. Documentation and reality differ
//! on how Gemini signs dynamic deliveries, and whoever runs this must be able to see which of them came.
//!
//! Words of ours only: not one byte of a header is repeated.

use super::headers::{Found, MAX_SIGNATURES};

/// The kinds of all entries, in their order and separated by spaces.
pub fn shape<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let (standard, x_goog) = Found::among(headers).signatures();
    let entries = standard.unwrap_or_default().split(|byte| *byte == b' ').filter(|entry| !entry.is_empty());
    let mut kinds: Vec<&str> = entries.map(kind).take(MAX_SIGNATURES + 1).collect();
    if kinds.len() > MAX_SIGNATURES {
        kinds.pop();
        kinds.push("more");
    }
    if x_goog.is_some() {
        kinds.push("x-goog-signature");
    }
    if kinds.is_empty() { "none".to_owned() } else { kinds.join(" ") }
}

fn kind(entry: &[u8]) -> &'static str {
    let version = entry.split(|byte| *byte == b',').next().filter(|version| version.len() < entry.len());
    match version {
        Some(b"v1") => "v1",
        Some(b"v1a") => "v1a",
        None if is_jwt(entry) => "jwt",
        _ => "other",
    }
}

fn is_jwt(entry: &[u8]) -> bool {
    let mut segments = entry.split(|byte| *byte == b'.');
    let encoded = |segment: &[u8]| {
        segment.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    segments.clone().count() == 3 && segments.all(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let many = "v1,a ".repeat(9);
        for (headers, wanted) in [
            (vec![], "none"),
            (vec![("webhook-signature", "")], "none"),
            (vec![("Webhook-Signature", "v1,secret")], "v1"),
            (vec![("webhook-signature", " v1a,secret v1,secret  v1a,secret ")], "v1a v1 v1a"),
            (vec![("webhook-signature", "e30.e30.c2VjcmV0")], "jwt"),
            (vec![("webhook-signature", "e30.e30.c2Vj=")], "other"),
            (vec![("webhook-signature", "e30.e30")], "other"),
            (vec![("webhook-signature", "v1")], "other"),
            (vec![("webhook-signature", "v2,secret secret,v1")], "other other"),
            (vec![("webhook-signature", &many)], "v1 v1 v1 v1 v1 v1 v1 v1 more"),
            (vec![("x-goog-signature", "00")], "x-goog-signature"),
            (vec![("x-goog-signature", "00"), ("webhook-signature", "v1,a")], "v1 x-goog-signature"),
        ] {
            let bytes = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
            assert_eq!(shape(bytes), wanted, "{headers:?}");
        }
        assert_eq!(shape([("webhook-signature", &b"\xff,\xff"[..])]), "other");
    }
}
