//! Names by which our jobs and files are recognised at Gemini.
//!
//! - `K`: 26 characters, from the object's uid; one batch, one K.
//! - file: `files/gb-<K>-<nonce>`; the nonce is new for every upload and never comes back.
//! - annotation: `<K>.<fingerprint of the API key>.<tag>`, on the object itself; the tag ties it to the object's place, so
//!   that a restored object finds its job again and a copy under another name does not take the original's for its own.
//! - job: displayName `gb1.<K>.<n>.<tag>`; the tag is keyed with the operator's secret, so that a tenant of the same
//!   Google project cannot forge a job that we would adopt.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};

/// Prefix of all input files, of whichever batch.
pub const FILE_PREFIX: &str = "files/gb-";
/// Length of K.
const KEY_LENGTH: usize = 26;
/// Bytes of an HMAC that go into a tag or a fingerprint: 64 bits.
const TAG_BYTES: usize = 8;

/// The operator's own secret: 32 random bytes, made once per installation.
#[derive(Clone)]
pub struct OperatorSecret(SecretSlice<u8>);

impl OperatorSecret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    fn hmac(&self, purpose: &str, text: &str) -> [u8; TAG_BYTES] {
        let mut short = [0; TAG_BYTES];
        // HMAC takes keys of any length, so this cannot fail; an all-zero tag would match nothing of ours.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()) {
            mac.update(purpose.as_bytes());
            mac.update(&[0]);
            mac.update(text.as_bytes());
            short.copy_from_slice(&mac.finalize().into_bytes()[..TAG_BYTES]);
        }
        short
    }

    /// Fingerprint of an API key, hex: tells two keys apart and gives nothing away.
    pub fn fingerprint(&self, api_key: &str) -> String {
        HEXLOWER.encode(&self.hmac("api-key", api_key))
    }
}

/// What a tag vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub model: &'a str,
    pub operation: &'a str,
    pub input_sha256: &'a str,
}

/// K of an object.
pub fn submit_key(uid: &str) -> String {
    let mut key = base32(&Sha256::digest(uid.as_bytes()));
    key.truncate(KEY_LENGTH);
    key
}

/// Prefix of all files of one K.
pub fn file_prefix(key: &str) -> String {
    format!("{FILE_PREFIX}{key}-")
}

/// Name of a new upload; `nonce` must be fresh.
pub fn file_name(key: &str, nonce: [u8; 5]) -> String {
    format!("{}{}", file_prefix(key), base32(&nonce))
}

/// displayName of attempt `n`.
pub fn marker(secret: &OperatorSecret, key: &str, n: i32, claim: &Claim<'_>) -> String {
    let vouched = format!(
        "{key}.{n}|{}|{}|{}|{}|{}",
        claim.namespace, claim.name, claim.model, claim.operation, claim.input_sha256
    );
    format!("gb1.{key}.{n}.{}", base32(&secret.hmac("marker", &vouched)))
}

/// The annotation of an object at this place.
pub fn annotation(
    secret: &OperatorSecret,
    key: &str,
    fingerprint: &str,
    namespace: &str,
    name: &str,
) -> String {
    let tag = base32(&secret.hmac("annotation", &format!("{key}|{namespace}|{name}")));
    format!("{key}.{fingerprint}.{tag}")
}

/// K and the fingerprint of an annotation that was made for this place.
pub fn read_annotation<'a>(
    secret: &OperatorSecret,
    text: &'a str,
    namespace: &str,
    name: &str,
) -> Option<(&'a str, &'a str)> {
    let (key, rest) = text.split_once('.')?;
    let (fingerprint, _) = rest.split_once('.')?;
    (annotation(secret, key, fingerprint, namespace, name) == text).then_some((key, fingerprint))
}

/// What a displayName says about one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Not of this batch.
    Other,
    /// Attempt `n` of this batch, and the tag proves it.
    Ours(i32),
    /// It carries our K, but the tag does not fit: copied, forged, or made under another operator secret.
    Foreign,
}

/// Reads a displayName from a listing.
pub fn recognise(secret: &OperatorSecret, key: &str, claim: &Claim<'_>, display_name: &str) -> Marked {
    let mut parts = display_name.split('.');
    if (parts.next(), parts.next()) != (Some("gb1"), Some(key)) {
        return Marked::Other;
    }
    let Some(n) = parts.next().and_then(|n| n.parse::<i32>().ok()) else { return Marked::Foreign };
    if marker(secret, key, n, claim) == display_name { Marked::Ours(n) } else { Marked::Foreign }
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim<'static> = Claim {
        namespace: "team-a",
        name: "tickets",
        model: "models/gemini-3.5-flash",
        operation: "GenerateContent",
        input_sha256: "abc",
    };

    fn secret() -> OperatorSecret {
        OperatorSecret::new(vec![7; 32])
    }

    #[test]
    fn names_have_the_documented_shape() {
        let key = submit_key("0b0c6d2e-0000-0000-0000-000000000000");
        assert_eq!(key.len(), 26);
        let file = file_name(&key, [1, 2, 3, 4, 5]);
        // Client-chosen file ids may have at most 40 characters of [a-z0-9-].
        let id = file.strip_prefix("files/").unwrap();
        assert_eq!(id.len(), 38);
        assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
        let name = marker(&secret(), &key, 1, &CLAIM);
        assert!(name.len() <= 63, "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.'));
    }

    #[test]
    fn only_the_same_claim_under_the_same_secret_is_ours() {
        let key = submit_key("uid");
        let name = marker(&secret(), &key, 3, &CLAIM);
        assert_eq!(recognise(&secret(), &key, &CLAIM, &name), Marked::Ours(3));
        assert_eq!(recognise(&secret(), &submit_key("other"), &CLAIM, &name), Marked::Other);
        let others = [
            Claim { namespace: "team-b", ..CLAIM },
            Claim { name: "copy", ..CLAIM },
            Claim { model: "models/x", ..CLAIM },
            Claim { operation: "EmbedContent", ..CLAIM },
            Claim { input_sha256: "abd", ..CLAIM },
        ];
        for claim in others {
            assert_eq!(recognise(&secret(), &key, &claim, &name), Marked::Foreign, "{claim:?}");
        }
        let stranger = OperatorSecret::new(vec![8; 32]);
        assert_eq!(recognise(&stranger, &key, &CLAIM, &name), Marked::Foreign);
        let renumbered = name.replacen(".3.", ".4.", 1);
        assert_eq!(recognise(&secret(), &key, &CLAIM, &renumbered), Marked::Foreign);
        for junk in ["", "gb1", "my job", "gb2.x.1.y"] {
            assert_eq!(recognise(&secret(), &key, &CLAIM, junk), Marked::Other, "{junk:?}");
        }
    }

    #[test]
    fn an_annotation_is_good_for_one_place() {
        let text = annotation(&secret(), "k", "fp", "team-a", "tickets");
        assert_eq!(read_annotation(&secret(), &text, "team-a", "tickets"), Some(("k", "fp")));
        assert_eq!(read_annotation(&secret(), &text, "team-a", "copy"), None);
        assert_eq!(read_annotation(&secret(), &text, "team-b", "tickets"), None);
        assert_eq!(read_annotation(&OperatorSecret::new(vec![8; 32]), &text, "team-a", "tickets"), None);
        assert_eq!(read_annotation(&secret(), &text.replacen('k', "j", 1), "team-a", "tickets"), None);
        for junk in ["", "k", "k.fp", "k.fp."] {
            assert_eq!(read_annotation(&secret(), junk, "team-a", "tickets"), None, "{junk:?}");
        }
    }

    #[test]
    fn fingerprints_tell_keys_apart_and_hide_them() {
        let (a, b) = (secret().fingerprint("key-a"), secret().fingerprint("key-b"));
        assert_ne!(a, b);
        assert_eq!(a.len(), 16);
        assert!(!a.contains("key"));
    }
}
