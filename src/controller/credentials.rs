//! API keys: read from Secrets one by one, kept in memory for a short time, never listed, never watched.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::ExposeSecret;

use super::error::{Error, is_forbidden, is_not_found};
use crate::api::refs::SecretKeyRef;
use crate::gemini::ApiKey;
use crate::submit::{OperatorSecret, Timing};

/// What a plan needs to know of the key that an object names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Ready { fingerprint: String },
    NotFound(String),
    Refused(String),
}

/// What is known of a referenced key, with the key itself.
#[derive(Clone, Debug)]
pub enum Found {
    Ready {
        key: ApiKey,
        fingerprint: String,
    },
    /// No Secret, or no such key in it; the message names the field and the way out.
    NotFound(String),
    /// Gemini does not accept it.
    Refused(String),
}

impl Found {
    /// The part that a plan may see, and the key that it may not.
    pub fn split(self) -> (Credentials, Option<ApiKey>) {
        match self {
            Self::Ready { key, fingerprint } => (Credentials::Ready { fingerprint }, Some(key)),
            Self::NotFound(message) => (Credentials::NotFound(message), None),
            Self::Refused(message) => (Credentials::Refused(message), None),
        }
    }
}

/// `namespace`, Secret name, key in it.
type Place = (String, String, String);

struct Entry {
    key: ApiKey,
    fingerprint: String,
    resource_version: Option<String>,
    read: Instant,
    refused: Option<(Instant, String)>,
}

/// Keys by the place they come from.
pub struct KeyCache {
    client: kube::Client,
    secret: OperatorSecret,
    keep: Duration,
    retry_refused: Duration,
    entries: Mutex<HashMap<Place, Entry>>,
}

/// A healthy key is read again after this time at the latest, so that a rotation is soon seen.
const KEEP: Duration = Duration::from_secs(10);

impl KeyCache {
    pub fn new(client: kube::Client, secret: OperatorSecret, timing: &Timing) -> Self {
        Self {
            client,
            secret,
            keep: KEEP.min(timing.secret_reread),
            retry_refused: timing.credentials_retry,
            entries: Mutex::default(),
        }
    }

    /// The key that `reference` names.
    pub async fn get(&self, namespace: &str, reference: &SecretKeyRef) -> Result<Found, Error> {
        let place = place(namespace, reference);
        if let Some(found) = self.cached(&place) {
            return Ok(found);
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = match api.get(&reference.name).await {
            Ok(secret) => secret,
            Err(e) if is_not_found(&e) => {
                return Ok(Found::NotFound(format!(
                    "spec.apiKeySecretRef: there is no Secret {:?} in namespace {namespace}; create it with \
                     kubectl create secret generic {} --from-literal={}=YOUR_KEY",
                    reference.name, reference.name, reference.key
                )));
            }
            Err(e) if is_forbidden(&e) => {
                return Ok(Found::NotFound(format!(
                    "spec.apiKeySecretRef: the operator may not read Secret {:?}; see the chart's RBAC values",
                    reference.name
                )));
            }
            Err(e) => return Err(e.into()),
        };
        let bytes = secret.data.as_ref().and_then(|d| d.get(&reference.key)).map(|b| b.0.as_slice());
        let text = bytes.and_then(|b| std::str::from_utf8(b).ok()).map(str::trim).filter(|t| !t.is_empty());
        let Some(text) = text else {
            return Ok(Found::NotFound(format!(
                "spec.apiKeySecretRef: Secret {:?} has no text under key {:?}; name the right key, or add it",
                reference.name, reference.key
            )));
        };
        Ok(self.remember(place, ApiKey::from(text), secret.metadata.resource_version))
    }

    fn cached(&self, place: &Place) -> Option<Found> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(place)?;
        (entry.read.elapsed() < self.keep).then(|| entry.found(self.retry_refused))
    }

    fn remember(&self, place: Place, key: ApiKey, resource_version: Option<String>) -> Found {
        let fingerprint = self.secret.fingerprint(key.expose_secret());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // A refusal holds until the Secret changes.
        let refused = entries
            .get(&place)
            .filter(|old| old.resource_version == resource_version)
            .and_then(|old| old.refused.clone());
        let entry = Entry { key, fingerprint, resource_version, read: Instant::now(), refused };
        let found = entry.found(self.retry_refused);
        entries.insert(place, entry);
        found
    }

    /// Gemini has refused this key.
    pub fn refuse(
        &self,
        namespace: &str,
        reference: &SecretKeyRef,
        fingerprint: &str,
        message: &str,
    ) -> Credentials {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let message = format!(
            "spec.apiKeySecretRef: Gemini refuses the API key in Secret {:?}: {message}. Put a valid key into the \
             Secret; the operator reads it again every minute",
            reference.name
        );
        if let Some(entry) =
            entries.get_mut(&place(namespace, reference)).filter(|e| e.fingerprint == fingerprint)
        {
            entry.refused = Some((Instant::now(), message.clone()));
        }
        Credentials::Refused(message)
    }

    /// Fingerprint of the key as it was last seen.
    pub fn last_fingerprint(&self, namespace: &str, reference: &SecretKeyRef) -> Option<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&place(namespace, reference)).map(|entry| entry.fingerprint.clone())
    }

    /// The key as it was last seen, for a deletion that outlives its Secret.
    pub fn last_known(&self, namespace: &str, reference: &SecretKeyRef) -> Option<ApiKey> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&place(namespace, reference)).map(|entry| entry.key.clone())
    }
}

impl Entry {
    fn found(&self, retry_refused: Duration) -> Found {
        match &self.refused {
            Some((since, message)) if since.elapsed() < retry_refused => Found::Refused(message.clone()),
            _ => Found::Ready { key: self.key.clone(), fingerprint: self.fingerprint.clone() },
        }
    }
}

fn place(namespace: &str, reference: &SecretKeyRef) -> Place {
    (namespace.to_owned(), reference.name.clone(), reference.key.clone())
}
