//! The operator's own secret: Secret `gemini-operator-identity`, made once, kept for good.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::error::{Error, is_not_found};
use crate::api::MANAGED_BY;
use crate::submit::OperatorSecret;

/// Name of the Secret.
pub const IDENTITY_SECRET: &str = "gemini-operator-identity";
const KEY: &str = "secret";
const LENGTH: usize = 32;

/// Reads the secret, making it first if it is not there. Two controllers that start at once agree: the API server
/// lets one create it, and the other reads it.
pub async fn load(client: &kube::Client, namespace: &str) -> Result<OperatorSecret, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match api.get(IDENTITY_SECRET).await {
        Ok(found) => return read(&found),
        Err(e) if is_not_found(&e) => {}
        Err(e) => return Err(e.into()),
    }
    let mut bytes = vec![0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|e| Error::Keyring(format!("no random numbers: {e}")))?;
    let fresh = Secret {
        metadata: ObjectMeta {
            name: Some(IDENTITY_SECRET.into()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".into(), MANAGED_BY.into())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.into(), ByteString(bytes))])),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &fresh).await {
        Ok(made) => read(&made),
        Err(kube::Error::Api(status)) if status.is_already_exists() => read(&api.get(IDENTITY_SECRET).await?),
        Err(e) => Err(e.into()),
    }
}

fn read(secret: &Secret) -> Result<OperatorSecret, Error> {
    let bytes = secret.data.as_ref().and_then(|d| d.get(KEY)).map(|b| b.0.clone()).unwrap_or_default();
    if bytes.len() < LENGTH {
        return Err(Error::Keyring(format!(
            "Secret {IDENTITY_SECRET} has no {LENGTH} bytes under key {KEY:?}; restore it from a backup, or delete it \
             when no batch is open"
        )));
    }
    Ok(OperatorSecret::new(bytes))
}
