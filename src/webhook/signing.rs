//! PURE: the signing secret that a user gives for an endpoint that somebody else has registered: whether it can be used,
//! and what becomes of the keyring entry.

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::rotation;
use crate::api::keyring::KeyringEntry;
use crate::api::refs::SigningSecretRef;
use crate::api::webhook::{RevocationBehavior, SignatureScheme};
use crate::gemini::Revocation;
use crate::receiver::signature::x_goog::MIN_SECRET;
use crate::receiver::signature::{Rejection, standard_v1, x_goog};

/// In the place of a registration's id: there is none that we know of.
const REGISTRATION: &str = "external";
/// Shortest key by the Standard Webhooks text.
const MIN_KEY: usize = 24;

/// Longest text of a secret. All webhooks share one Secret of 1 MiB: nobody may fill it for the others. HMAC-SHA256 makes 32
/// bytes of a key that has more than 64.
const MAX_TEXT: usize = 256;

/// Why a secret cannot be used; the message names the field and the way out, and nothing of the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub reason: &'static str,
    pub message: String,
}

/// The user's Secret, beside what the keyring holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is what the keyring holds.
    Stored,
    /// The keyring should hold it, and does not yet.
    New,
    Unusable(Problem),
}

/// Judges what stands in the user's Secret, by what the receiver would make of it.
///
/// `others` are the entries of all other webhooks. A key that two schemes have in common would make a signature of the one
/// good in the other.
pub fn judge(
    bytes: Option<&[u8]>,
    reference: &SigningSecretRef,
    scheme: SignatureScheme,
    others: &[KeyringEntry],
) -> Result<SecretString, Problem> {
    let place = format!("spec.signingSecret: key {:?} of Secret {:?}", reference.key, reference.name);
    let invalid = |what: &str| Problem { reason: "InvalidSecret", message: format!("{place} {what}") };
    let Some(bytes) = bytes else {
        return Err(Problem {
            reason: "SecretNotFound",
            message: format!(
                "{place} does not exist; name the right key in spec.signingSecret.key, or add it"
            ),
        });
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| invalid("is not text (UTF-8); put the secret there as its sender has it"))?;
    if text.len() > MAX_TEXT {
        return Err(invalid(&format!(
            "is longer than {MAX_TEXT} bytes; give the sender a shorter one, for example of: openssl rand -hex 32"
        )));
    }
    let is_own = scheme == SignatureScheme::XGoogSignature;
    let verdict = match scheme {
        SignatureScheme::StandardWebhooks => standard(text, others),
        SignatureScheme::XGoogSignature => {
            x_goog::Key::parse(text.as_bytes(), &standard_keys(others)).map(drop)
        }
        // Verified by public keys: the schema lets no secret be named.
        SignatureScheme::DynamicV1a | SignatureScheme::DynamicJwt => Ok(()),
    };
    match verdict {
        Ok(()) => Ok(text.into()),
        Err(Rejection::EmptySecret) => Err(invalid("is empty; everybody knows that secret")),
        Err(Rejection::KeyReused) if is_own && text.starts_with("whsec_") => Err(invalid(
            "begins with whsec_, so it is a signing secret of Standard Webhooks; give the sender another secret, or set \
             spec.signature to StandardWebhooks if the sender signs by that",
        )),
        Err(Rejection::KeyReused) => Err(Problem {
            reason: "KeyReused",
            message: format!(
                "{place} is the signing key of another GeminiWebhook, which has another signature scheme; a signature \
                 of the one would be good for the other, so give the sender a secret of its own"
            ),
        }),
        Err(_) if is_own => Err(invalid(&format!(
            "is shorter than {MIN_SECRET} bytes; give the sender a longer one, for example of: openssl rand -hex 32"
        ))),
        Err(_) => Err(invalid(&format!(
            "is not whsec_ followed by the base64 of {MIN_KEY} bytes or more; copy the signing secret as it was shown when \
             the endpoint was registered"
        ))),
    }
}

/// Stricter than the receiver, which has to read what Gemini shows: a user's secret without `whsec_` is one of another
/// kind.
fn standard(text: &str, others: &[KeyringEntry]) -> Result<(), Rejection> {
    if text.is_empty() {
        return Err(Rejection::EmptySecret);
    }
    let base64 = text.strip_prefix("whsec_").ok_or(Rejection::NoUsableKey)?;
    let key = standard_v1::Key::parse(text)?;
    if base64.trim_end_matches(['\n', '\r', '=']).len() < (MIN_KEY * 4).div_ceil(3) {
        return Err(Rejection::NoUsableKey);
    }
    let key = [key];
    let of_users = others.iter().filter(|entry| entry.scheme == SignatureScheme::XGoogSignature);
    let reused = of_users.flat_map(secrets).any(|secret| {
        x_goog::Key::parse(secret.expose_secret().as_bytes(), &key).err() == Some(Rejection::KeyReused)
    });
    if reused { Err(Rejection::KeyReused) } else { Ok(()) }
}

fn standard_keys(entries: &[KeyringEntry]) -> Vec<standard_v1::Key> {
    let signing = entries.iter().filter(|entry| entry.scheme == SignatureScheme::StandardWebhooks);
    let keys = signing.flat_map(secrets).map(|secret| standard_v1::Key::parse(secret.expose_secret()));
    keys.filter_map(Result::ok).collect()
}

fn secrets(entry: &KeyringEntry) -> impl Iterator<Item = &SecretString> {
    std::iter::once(&entry.current).chain(entry.previous.iter().map(|previous| &previous.secret))
}

/// What there is to do about the user's secret.
pub fn offer(
    judged: Result<&SecretString, &Problem>,
    held: Option<&KeyringEntry>,
    scheme: SignatureScheme,
    revocation: RevocationBehavior,
) -> Offer {
    let secret = match judged {
        Ok(secret) => secret,
        Err(problem) => return Offer::Unusable(problem.clone()),
    };
    let stands = held.is_some_and(|held| {
        // Said afterwards, it holds for what was replaced before.
        let revoked = revocation == RevocationBehavior::After24h || held.previous.is_empty();
        held.scheme == scheme && held.current.expose_secret() == secret.expose_secret() && revoked
    });
    if stands { Offer::Stored } else { Offer::New }
}

/// The entry of a user's secret. The one before stays good for a while, unless the user wants it otherwise: he cannot
/// change the Secret and the sender in the same moment.
///
/// `salt`: random, for an entry that has none yet.
pub fn entry(
    held: Option<KeyringEntry>,
    secret: &SecretString,
    scheme: SignatureScheme,
    revocation: RevocationBehavior,
    salt: &str,
    now: Timestamp,
) -> KeyringEntry {
    let salt = held.as_ref().and_then(|held| held.salt.clone()).unwrap_or_else(|| salt.to_owned());
    let made = KeyringEntry {
        registration: REGISTRATION.into(),
        scheme,
        current: secret.clone(),
        since: Some(now),
        previous: vec![],
        salt: Some(salt),
    };
    let revocation = match revocation {
        RevocationBehavior::After24h => Revocation::After24h,
        RevocationBehavior::Immediately => Revocation::Immediately,
    };
    // What another scheme was signed with verifies nothing of this one.
    let before = held.filter(|held| held.scheme == scheme);
    let mut made = rotation::entry(before, made, revocation, now);
    made.previous.retain(|previous| previous.secret.expose_secret() != secret.expose_secret());
    made
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::controller::after;

    const WHSEC: &str = "whsec_RSiskZV2N0hvfooFgHFmXMLUi4foU7ACKP+6PNClWGI=";
    const OWN: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "another secret that a user has thought of";

    use SignatureScheme::{StandardWebhooks, XGoogSignature};

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn held(secret: &str, scheme: SignatureScheme) -> KeyringEntry {
        entry(None, &secret.into(), scheme, RevocationBehavior::After24h, "salt", now())
    }

    fn reason(bytes: Option<&[u8]>, scheme: SignatureScheme, others: &[KeyringEntry]) -> &'static str {
        let reference: SigningSecretRef = serde_json::from_str(r#"{"name":"signing"}"#).unwrap();
        match judge(bytes, &reference, scheme, others) {
            Ok(_) => "good",
            Err(problem) => {
                assert!(problem.message.starts_with("spec.signingSecret"), "{}", problem.message);
                assert!(problem.message.contains("\"secret\"") && problem.message.contains("\"signing\""));
                let text = bytes.and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default();
                let shown = text.len() > 6 && problem.message.contains(text);
                assert!(!shown, "a message tells the secret: {}", problem.message);
                problem.reason
            }
        }
    }

    #[test]
    fn secrets_are_judged_as_the_receiver_would() {
        let same_bytes = format!("whsec_{}", data_encoding::BASE64.encode(OWN.as_bytes()));
        let of_standard = [held(WHSEC, StandardWebhooks), held(&same_bytes, StandardWebhooks)];
        let of_users = [held(OTHER, XGoogSignature), held(OWN, XGoogSignature)];
        let none: &[KeyringEntry] = &[];
        for (what, secret, scheme, others, wanted) in [
            ("good", WHSEC, StandardWebhooks, none, "good"),
            ("a newline of its file", &format!("{WHSEC}\n"), StandardWebhooks, none, "good"),
            ("the same in the same scheme", WHSEC, StandardWebhooks, &of_standard[..], "good"),
            ("without its prefix", &WHSEC[6..], StandardWebhooks, none, "InvalidSecret"),
            ("no base64", "whsec_!", StandardWebhooks, none, "InvalidSecret"),
            ("no bytes", "whsec_", StandardWebhooks, none, "InvalidSecret"),
            ("few bytes", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NQ==", StandardWebhooks, none, "InvalidSecret"),
            ("just enough", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", StandardWebhooks, none, "good"),
            ("empty", "", StandardWebhooks, none, "InvalidSecret"),
            ("a user's secret as a key", &same_bytes, StandardWebhooks, &of_users, "KeyReused"),
            ("good", OWN, XGoogSignature, none, "good"),
            (
                "two newlines are one too many",
                "0123456789abcdef0123456789abcde\n\n",
                XGoogSignature,
                none,
                "good",
            ),
            ("the same in the same scheme", OWN, XGoogSignature, &of_users, "good"),
            ("the longest", &OWN.repeat(8), XGoogSignature, none, "good"),
            ("longer", &OWN.repeat(9), XGoogSignature, none, "InvalidSecret"),
            ("short", &OWN[1..], XGoogSignature, none, "InvalidSecret"),
            ("empty", "\r\n", XGoogSignature, none, "InvalidSecret"),
            ("of the other scheme", WHSEC, XGoogSignature, none, "InvalidSecret"),
            ("the bytes of a signing key", OWN, XGoogSignature, &of_standard, "KeyReused"),
        ] {
            assert_eq!(reason(Some(secret.as_bytes()), scheme, others), wanted, "{what}: {scheme:?}");
        }
        assert_eq!(reason(None, XGoogSignature, none), "SecretNotFound");
        assert_eq!(reason(Some(b"\xff"), XGoogSignature, none), "InvalidSecret");
    }

    #[test]
    fn the_secret_before_stays_good_for_a_while() {
        let grace = |revocation| {
            let changed = entry(
                Some(held(OWN, XGoogSignature)),
                &OTHER.into(),
                XGoogSignature,
                revocation,
                "other",
                now(),
            );
            assert_eq!(changed.salt.as_deref(), Some("salt"), "names are kept");
            changed
        };
        let changed = grace(RevocationBehavior::After24h);
        let [old] = &changed.previous[..] else { panic!("one: {changed:?}") };
        assert_eq!(old.secret.expose_secret(), OWN);
        assert!(old.expire_time > after(now(), Duration::from_hours(24)));
        assert!(grace(RevocationBehavior::Immediately).previous.is_empty());

        // Back again: no secret stands there twice.
        let back = entry(
            Some(changed.clone()),
            &OWN.into(),
            XGoogSignature,
            RevocationBehavior::After24h,
            "",
            now(),
        );
        let previous: Vec<&str> = back.previous.iter().map(|p| p.secret.expose_secret()).collect();
        assert_eq!(previous, [OTHER]);
        // And none of another scheme.
        let moved =
            entry(Some(changed), &WHSEC.into(), StandardWebhooks, RevocationBehavior::After24h, "", now());
        assert!(moved.previous.is_empty());
    }

    #[test]
    fn what_is_stored_and_what_is_new() {
        let (after24h, immediately) = (RevocationBehavior::After24h, RevocationBehavior::Immediately);
        let own: SecretString = OWN.into();
        let stored = held(OWN, XGoogSignature);
        let changed = entry(Some(held(OTHER, XGoogSignature)), &own, XGoogSignature, after24h, "", now());
        for (what, held, revocation, wanted) in [
            ("nothing", None, after24h, Offer::New),
            ("the same", Some(&stored), after24h, Offer::Stored),
            ("the same, at once", Some(&stored), immediately, Offer::Stored),
            ("another", Some(&held(OTHER, XGoogSignature)), after24h, Offer::New),
            ("of another scheme", Some(&held(OWN, StandardWebhooks)), after24h, Offer::New),
            ("the same, and one before", Some(&changed), after24h, Offer::Stored),
            ("the same, and one before that was revoked", Some(&changed), immediately, Offer::New),
        ] {
            assert_eq!(offer(Ok(&own), held, XGoogSignature, revocation), wanted, "{what}");
        }
        let problem = Problem { reason: "SecretNotFound", message: "m".into() };
        assert_eq!(offer(Err(&problem), Some(&stored), XGoogSignature, after24h), Offer::Unusable(problem));
    }
}
