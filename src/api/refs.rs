//! References from a custom resource to other objects of its own namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside the Secret. Default: `apiKey`.
    #[serde(default = "default_api_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_api_key() -> String {
    "apiKey".into()
}

/// A key of a Secret in the same namespace that holds a signing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningSecretRef {
    /// Name of the Secret, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside the Secret. Default: `secret`.
    #[serde(default = "default_signing_secret")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_signing_secret() -> String {
    "secret".into()
}

/// A key of a ConfigMap in the same namespace that holds requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap, in the namespace of this batch.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside the ConfigMap; text (`data`) and binary (`binaryData`) entries both work. Default:
    /// `requests.jsonl`.
    #[serde(default = "default_requests_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_requests_key() -> String {
    "requests.jsonl".into()
}
