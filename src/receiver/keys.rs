//! The keyring: the signing secrets of all webhooks, from a watch of the one Secret that the receiver may read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};

use super::signature::{Rejection, standard_v1, x_goog};
use super::watch::Change;
use crate::api::keyring::{KEYRING_SECRET, KeyringEntry, fingerprint};
use crate::api::webhook::SignatureScheme;

/// The current secret and at most three previous ones: each costs an HMAC for every delivery.
const MAX_SECRETS: usize = 4;

/// The secrets of one webhook, the newest first.
#[derive(Debug)]
enum Ring {
    StandardWebhooks(Vec<Member<standard_v1::Key>>),
    XGoogSignature(Vec<Member<x_goog::Key>>),
}

#[derive(Debug)]
struct Member<K> {
    key: K,
    fingerprint: Arc<str>,
    /// `None` = does not expire.
    expiry: Option<Timestamp>,
}

/// Keys that are good now, with their fingerprints in the same order.
#[derive(Debug)]
pub struct Live {
    pub keys: Keys,
    pub fingerprints: Vec<Arc<str>>,
}

/// What a route's deliveries are verified by.
#[derive(Debug)]
pub enum Keys {
    StandardWebhooks(Vec<standard_v1::Key>),
    XGoogSignature(Vec<x_goog::Key>),
}

/// All rings by the uid of their webhook.
#[derive(Debug, Default)]
pub struct Keyring {
    rings: RwLock<HashMap<String, Arc<Result<Ring, Rejection>>>>,
}

impl Keyring {
    /// The keys of a route that are good now, or why there are none. An entry of another scheme than the route's is one
    /// that its webhook has outgrown: no delivery is tried with it.
    pub fn live(&self, uid: &str, scheme: SignatureScheme, now: Timestamp) -> Result<Live, Rejection> {
        let ring = self.rings.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned();
        let ring = ring.as_deref().ok_or(Rejection::NoUsableKey)?.as_ref().map_err(|rejection| *rejection)?;
        match (ring, scheme) {
            (Ring::StandardWebhooks(members), SignatureScheme::StandardWebhooks) => {
                Ok(good(members, now, Keys::StandardWebhooks))
            }
            (Ring::XGoogSignature(members), SignatureScheme::XGoogSignature) => {
                Ok(good(members, now, Keys::XGoogSignature))
            }
            _ => Err(Rejection::NoUsableKey),
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
        let rings = read(&entries);
        for (uid, ring) in &rings {
            if let Err(rejection) = ring.as_ref() {
                // Nothing of the content: serde's messages quote it.
                tracing::error!(
                    webhook_uid = uid,
                    reason = rejection.as_str(),
                    "keyring entry is not usable"
                );
            }
        }
        *self.rings.write().unwrap_or_else(PoisonError::into_inner) = rings;
    }
}

fn good<K: Clone>(members: &[Member<K>], now: Timestamp, keys: impl FnOnce(Vec<K>) -> Keys) -> Live {
    let live = members.iter().filter(|member| member.expiry.is_none_or(|expiry| now < expiry));
    let (those, fingerprints) = live.map(|member| (member.key.clone(), member.fingerprint.clone())).unzip();
    Live { keys: keys(those), fingerprints }
}

/// The field selector asks for nothing else; a server that ignores it must not confuse us.
fn is_keyring(secret: &Secret) -> bool {
    secret.metadata.name.as_deref() == Some(KEYRING_SECRET)
}

fn read(entries: &BTreeMap<String, ByteString>) -> HashMap<String, Arc<Result<Ring, Rejection>>> {
    let entries: Vec<(&String, Result<KeyringEntry, Rejection>)> = entries
        .iter()
        .map(|(uid, bytes)| (uid, serde_json::from_slice(&bytes.0).map_err(|_| Rejection::Malformed)))
        .collect();
    // A user's own secret must be none of these.
    let good = entries.iter().filter_map(|(_, entry)| entry.as_ref().ok());
    let signing = good.filter(|entry| entry.scheme == SignatureScheme::StandardWebhooks);
    let signing: Vec<standard_v1::Key> = signing
        .flat_map(|entry| std::iter::once(&entry.current).chain(entry.previous.iter().map(|p| &p.secret)))
        .filter_map(|secret| standard_v1::Key::parse(secret.expose_secret()).ok())
        .collect();
    let ring = |entry: Result<KeyringEntry, Rejection>| {
        let entry = entry?;
        match entry.scheme {
            SignatureScheme::StandardWebhooks => {
                members(&entry, standard_v1::Key::parse).map(Ring::StandardWebhooks)
            }
            SignatureScheme::XGoogSignature => {
                members(&entry, |text| x_goog::Key::parse(text.as_bytes(), &signing))
                    .map(Ring::XGoogSignature)
            }
            // Proven by the provider's public keys, so that an entry says nothing.
            SignatureScheme::DynamicV1a | SignatureScheme::DynamicJwt => Err(Rejection::NoUsableKey),
        }
    };
    entries.into_iter().map(|(uid, entry)| (uid.clone(), Arc::new(ring(entry)))).collect()
}

fn members<K>(
    entry: &KeyringEntry,
    parse: impl Fn(&str) -> Result<K, Rejection>,
) -> Result<Vec<Member<K>>, Rejection> {
    let member = |secret: &SecretString, expiry| {
        parse(secret.expose_secret()).map(|key| Member {
            key,
            fingerprint: fingerprint(secret).into(),
            expiry,
        })
    };
    let mut members = vec![member(&entry.current, None)?];
    for previous in entry.previous.iter().take(MAX_SECRETS - 1) {
        // An unusable old secret costs only the deliveries signed with it.
        if let Ok(member) = member(&previous.secret, Some(previous.expire_time)) {
            members.push(member);
        }
    }
    Ok(members)
}

#[cfg(test)]
pub mod tests {
    use super::*;

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

    impl Keyring {
        /// Fingerprints of the keys that are good now.
        fn good(&self, uid: &str, now: Timestamp) -> Result<Vec<Arc<str>>, Rejection> {
            self.live(uid, SignatureScheme::StandardWebhooks, now).map(|live| live.fingerprints)
        }
    }

    #[test]
    fn entries_stand_alone() {
        let ring = Keyring::default();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(ring.good("good", now).unwrap_err(), Rejection::NoUsableKey);
        let entries = [
            ("good", &*entry(NEW)),
            ("broken", "{\"current\": 7"),
            ("empty", &*entry("whsec_")),
            ("scheme", &*entry(NEW).replace("StandardWebhooks", "Other")),
        ];
        ring.apply(Change::All(vec![secret("other", &[]), secret(KEYRING_SECRET, &entries)]));
        assert_eq!(ring.good("good", now).unwrap().len(), 1);
        assert_eq!(ring.good("broken", now).unwrap_err(), Rejection::Malformed);
        assert_eq!(ring.good("empty", now).unwrap_err(), Rejection::EmptySecret);
        assert_eq!(ring.good("scheme", now).unwrap_err(), Rejection::Malformed);
        ring.apply(Change::Deleted(secret("other", &[])));
        assert!(ring.good("good", now).is_ok());
        ring.apply(Change::Deleted(secret(KEYRING_SECRET, &[])));
        assert_eq!(ring.good("good", now).unwrap_err(), Rejection::NoUsableKey);
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
        let live = |time: &str| ring.good("1", time.parse().unwrap()).unwrap();
        let (old, new) = (fingerprint(&OLD.into()), fingerprint(&NEW.into()));
        assert_eq!(live("2026-01-01T23:59:59Z"), [(*new).into(), (*old).into()]);
        assert_eq!(live("2026-01-02T00:00:00Z"), [(*new).into()]);
    }

    #[test]
    fn a_user_s_secret_is_none_of_the_signing_secrets() {
        let ring = Keyring::default();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let own = |text: &str| entry(text).replace("StandardWebhooks", "XGoogSignature");
        // The bytes of a signing secret, as far as JSON text can hold such.
        let reused = "0123456789abcdef0123456789abcdef";
        let signing = format!("whsec_{}", data_encoding::BASE64.encode(reused.as_bytes()));
        let entries = [
            ("a", own("a secret of the user's own, long enough")),
            ("b", own(reused)),
            ("c", own(NEW)),
            ("d", own("short")),
            ("z", entry(&signing)),
        ];
        let entries: Vec<(&str, &str)> = entries.iter().map(|(uid, text)| (*uid, text.as_str())).collect();
        ring.apply(Change::Applied(secret(KEYRING_SECRET, &entries)));
        let live = |uid: &str, scheme| ring.live(uid, scheme, now).map(|live| live.fingerprints.len());
        assert_eq!(live("a", SignatureScheme::XGoogSignature), Ok(1));
        assert_eq!(live("b", SignatureScheme::XGoogSignature), Err(Rejection::KeyReused));
        assert_eq!(live("c", SignatureScheme::XGoogSignature), Err(Rejection::KeyReused));
        assert_eq!(live("d", SignatureScheme::XGoogSignature), Err(Rejection::NoUsableKey));
        // The route says which scheme it is, and an entry of another one does not count.
        assert_eq!(live("a", SignatureScheme::StandardWebhooks), Err(Rejection::NoUsableKey));
        assert_eq!(live("z", SignatureScheme::XGoogSignature), Err(Rejection::NoUsableKey));
        assert_eq!(live("z", SignatureScheme::StandardWebhooks), Ok(1));
    }
}
