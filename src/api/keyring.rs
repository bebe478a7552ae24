//! The keyring: the one Secret that holds the signing secrets of all webhooks.
//!
//! Secret `gemini-operator-signing` in the operator's namespace, one entry per GeminiWebhook; the entry's name is
//! the object's uid. The controller writes it by compare-and-swap, the receiver watches it.

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::webhook::SignatureScheme;

/// Name of the Secret.
pub const KEYRING_SECRET: &str = "gemini-operator-signing";

/// The live signing secrets of one webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyringEntry {
    /// Id of the registration at Gemini that these secrets belong to; `external`, if somebody else has made it.
    pub registration: String,
    /// The one scheme of the route.
    pub scheme: SignatureScheme,
    /// The newest secret, as Gemini showed it (`whsec_…`).
    #[serde(serialize_with = "expose")]
    pub current: SecretString,
    /// When it was made, by the controller's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Older ones that Gemini may still sign with; at most 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<PreviousSecret>,
    /// Random, and never shown: what the fingerprints of secrets that a user has thought of are made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
}

impl KeyringEntry {
    /// Names one of the secrets of this entry without telling it.
    pub fn fingerprint(&self, secret: &SecretString) -> String {
        salted(self.salt.as_deref().unwrap_or_default(), secret)
    }
}

/// A secret that was rotated out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviousSecret {
    #[serde(serialize_with = "expose")]
    pub secret: SecretString,
    /// From here on it is not accepted any more.
    pub expire_time: Timestamp,
}

/// Names a signing secret without telling it: the receiver reports it with a delivery, the controller compares.
///
/// One that Gemini has made has at least 192 random bits, so that a plain digest of it cannot be searched. Not so one that a
/// user has thought of: the name of such is salted, see [`KeyringEntry::fingerprint`].
pub fn fingerprint(secret: &SecretString) -> String {
    salted("", secret)
}

fn salted(salt: &str, secret: &SecretString) -> String {
    let text = secret.expose_secret().as_bytes();
    let digest = Sha256::new()
        .chain_update(b"gemini-operator signing fingerprint")
        .chain_update(salt)
        .chain_update(text)
        .finalize();
    HEXLOWER.encode(digest.get(..8).unwrap_or_default())
}

/// The keyring is the only place that a secret may be written to.
fn expose<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_and_does_not_print() {
        let text = r#"{"registration":"abc","scheme":"StandardWebhooks","current":"whsec_canary"}"#;
        let entry: KeyringEntry = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
        assert!(!format!("{entry:?}").contains("canary"));
    }

    #[test]
    fn a_fingerprint_tells_secrets_apart_and_hides_them() {
        let [a, b] = ["whsec_canary", "whsec_canarz"].map(|text| fingerprint(&text.into()));
        assert_ne!(a, b);
        assert_eq!(a, fingerprint(&"whsec_canary".into()));
        assert!(a.len() == 16 && !a.contains("canary"), "{a}");
        let text =
            r#"{"registration":"external","scheme":"XGoogSignature","current":"whsec_canary","salt":"s"}"#;
        let entry: KeyringEntry = serde_json::from_str(text).unwrap();
        assert_ne!(entry.fingerprint(&entry.current), a, "a guess cannot be tried without the salt");
        let plain = KeyringEntry { salt: None, ..entry };
        assert_eq!(plain.fingerprint(&plain.current), a);
    }
}
