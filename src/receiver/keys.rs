//! The keyring: the signing secrets of all webhooks, from a watch of the one Secret that the receiver may read.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};

use super::signature::Rejection;
use super::signature::standard_v1::Key;
use super::watch::Change;
use crate::api::keyring::{KEYRING_SECRET, KeyringEntry, fingerprint};
use crate::api::webhook::SignatureScheme;

/// The current secret and at most three previous ones: each costs an HMAC for every delivery.
const MAX_SECRETS: usize = 4;

/// The live keys of one webhook.
#[derive(Debug)]
struct Ring {
    /// Newest first.
    keys: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    key: Key,
    fingerprint: Arc<str>,
    /// `None` = does not expire.
    expiry: Option<Timestamp>,
}

/// Keys that are good now, with their fingerprints in the same order.
#[derive(Debug, Default)]
pub struct Live {
    pub keys: Vec<Key>,
    pub fingerprints: Vec<Arc<str>>,
}

/// All rings by the uid of their webhook.
#[derive(Debug, Default)]
pub struct Keyring {
    rings: RwLock<HashMap<String, Arc<Result<Ring, Rejection>>>>,
}

impl Keyring {
    /// The keys that are good now, or why there are none.
    pub fn live(&self, uid: &str, now: Timestamp) -> Result<Live, Rejection> {
        let ring = self.rings.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned();
        match ring.as_deref() {
            None => Err(Rejection::NoUsableKey),
            Some(Err(rejection)) => Err(*rejection),
            Some(Ok(ring)) => {
                let live = ring.keys.iter().filter(|member| member.expiry.is_none_or(|expiry| now < expiry));
                let (keys, fingerprints) =
                    live.map(|member| (member.key.clone(), member.fingerprint.clone())).unzip();
                Ok(Live { keys, fingerprints })
            }
        }
    }

    /// Takes over a change of the Secret.
    pub fn apply(&self, change: Change<Secret>) {
        let secret = match change {
            Change::All(all) => all.into_iter().find(is_keyring),
            Change::Applied(secret) if is_keyring(&secret) => Some(secret),
            Change::Deleted(secret) if is_keyring(&secret) => None,
            Change::Applied(_) | Change::Deleted(_) => return,
        };
        let entries = secret.and_then(|secret| secret.data).unwrap_or_default();
        let rings = entries.into_iter().map(|(uid, bytes)| {
            let ring = parse(&bytes.0);
            if let Err(rejection) = &ring {
                // Nothing of the content: serde's messages quote it.
                tracing::error!(
                    webhook_uid = uid,
                    reason = rejection.as_str(),
                    "keyring entry is not usable"
                );
            }
            (uid, Arc::new(ring))
        });
        let rings = rings.collect();
        *self.rings.write().unwrap_or_else(PoisonError::into_inner) = rings;
    }
}

/// The field selector asks for nothing else; a server that ignores it must not confuse us.
fn is_keyring(secret: &Secret) -> bool {
    secret.metadata.name.as_deref() == Some(KEYRING_SECRET)
}

fn parse(bytes: &[u8]) -> Result<Ring, Rejection> {
    let entry: KeyringEntry = serde_json::from_slice(bytes).map_err(|_| Rejection::Malformed)?;
    match entry.scheme {
        SignatureScheme::StandardWebhooks => {}
    }
    let member = |secret: &SecretString, expiry| {
        Key::parse(secret.expose_secret()).map(|key| Member {
            key,
            fingerprint: fingerprint(secret).into(),
            expiry,
        })
    };
    let mut keys = vec![member(&entry.current, None)?];
    for previous in entry.previous.iter().take(MAX_SECRETS - 1) {
        // An unusable old secret costs only the deliveries signed with it.
        if let Ok(member) = member(&previous.secret, Some(previous.expire_time)) {
            keys.push(member);
        }
    }
    Ok(Ring { keys })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    pub const OLD: &str = "whsec_RSiskZV2N0hvfooFgHFmXMLUi4foU7ACKP+6PNClWGI=";
    pub const NEW: &str = "whsec_8bu+XSSczpNiAB71OJD7oFB40AVGsKu5";

    pub fn secret(name: &str, entries: &[(&str, &str)]) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.name = Some(name.into());
        let data = entries.iter().map(|(uid, text)| ((*uid).into(), ByteString(text.as_bytes().to_vec())));
        secret.data = Some(data.collect());
        secret
    }

    pub fn entry(current: &str) -> String {
        format!(r#"{{"registration":"r","scheme":"StandardWebhooks","current":"{current}"}}"#)
    }

    #[test]
    fn entries_stand_alone() {
        let ring = Keyring::default();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(ring.live("good", now).unwrap_err(), Rejection::NoUsableKey);
        let entries = [
            ("good", &*entry(NEW)),
            ("broken", "{\"current\": 7"),
            ("empty", &*entry("whsec_")),
            ("scheme", &*entry(NEW).replace("StandardWebhooks", "Other")),
        ];
        ring.apply(Change::All(vec![secret("other", &[]), secret(KEYRING_SECRET, &entries)]));
        assert_eq!(ring.live("good", now).unwrap().keys.len(), 1);
        assert_eq!(ring.live("broken", now).unwrap_err(), Rejection::Malformed);
        assert_eq!(ring.live("empty", now).unwrap_err(), Rejection::EmptySecret);
        assert_eq!(ring.live("scheme", now).unwrap_err(), Rejection::Malformed);
        ring.apply(Change::Deleted(secret("other", &[])));
        assert!(ring.live("good", now).is_ok());
        ring.apply(Change::Deleted(secret(KEYRING_SECRET, &[])));
        assert_eq!(ring.live("good", now).unwrap_err(), Rejection::NoUsableKey);
    }

    #[test]
    fn previous_secrets_expire() {
        let ring = Keyring::default();
        let text = format!(
            r#"{{"registration":"r","scheme":"StandardWebhooks","current":"{NEW}","previous":[
                {{"secret":"{OLD}","expireTime":"2026-01-02T00:00:00Z"}},
                {{"secret":"!","expireTime":"2026-01-02T00:00:00Z"}}]}}"#
        );
        ring.apply(Change::Applied(secret(KEYRING_SECRET, &[("1", &text)])));
        let live = |time: &str| ring.live("1", time.parse().unwrap()).unwrap();
        let (old, new) = (fingerprint(&OLD.into()), fingerprint(&NEW.into()));
        let before = live("2026-01-01T23:59:59Z");
        assert_eq!((before.keys.len(), before.fingerprints), (2, vec![(*new).into(), (*old).into()]));
        let left = live("2026-01-02T00:00:00Z");
        assert_eq!((left.keys.len(), left.fingerprints), (1, vec![(*new).into()]));
    }
}
