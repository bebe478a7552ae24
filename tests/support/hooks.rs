//! What tests of webhooks ask and look at, wherever they are.

use gemini_operator::api::keyring::KEYRING_SECRET;
use gemini_operator::api::{GeminiWebhook, ROTATE_AT_ANNOTATION};
use gemini_operator::submit;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::{OPERATOR_NAMESPACE, PATIENCE, Room, poll};

/// The name under which the operator registers an object.
pub fn registration_name(webhook: &GeminiWebhook) -> String {
    format!("gw-{}", submit::submit_key(&webhook.uid().unwrap_or_default()))
}

impl Room {
    pub fn keyring(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE)
    }

    /// What the keyring holds for the webhook with this uid.
    pub async fn keyring_entry(&self, uid: &str) -> Option<Value> {
        let secret = self.keyring().get(KEYRING_SECRET).await.expect("the keyring is there");
        let entry = secret.data.unwrap_or_default().remove(uid)?;
        Some(serde_json::from_slice(&entry.0).expect("an entry of the keyring is JSON"))
    }

    /// The signing secret of a webhook, out of the keyring.
    pub async fn signing_secret(&self, webhook: &GeminiWebhook) -> String {
        let entry = self.keyring_entry(&webhook.uid().unwrap_or_default()).await;
        let entry = entry.expect("the keyring has the webhook");
        entry["current"].as_str().expect("an entry has a current secret").to_owned()
    }

    /// Has the secret of a webhook rotated at a time.
    pub async fn rotate_at(&self, name: &str, at: Timestamp) {
        let annotation = format!("{ROTATE_AT_ANNOTATION}={at}");
        self.kubectl().run(&["annotate", "--overwrite", "geminiwebhook", name, &annotation]).await.expect();
    }

    /// Asks for a rotation now; when. The secret must be older than the wish, in whole seconds, or it will do.
    pub async fn rotate_now(&self, name: &str) -> Timestamp {
        let older = poll(PATIENCE, async || {
            let now = Timestamp::now();
            let born = self.webhooks().get(name).await.expect("the webhook is there").status;
            let born = born.and_then(|born| born.last_rotation_time.or(born.registered_time));
            if born.is_some_and(|born| now.as_second() > born.0.as_second()) { Ok(now) } else { Err(now) }
        });
        let at = older.await.expect("the secret gets older");
        self.rotate_at(name, at).await;
        at
    }
}

/// Whether a webhook's secret is no older than this.
pub fn is_rotated_since(webhook: &GeminiWebhook, at: Timestamp) -> bool {
    let rotated = webhook.status.as_ref().and_then(|status| status.last_rotation_time.as_ref());
    rotated.is_some_and(|last| last.0.as_second() >= at.as_second())
}
