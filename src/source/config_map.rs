//! Requests as JSON Lines in a ConfigMap of the batch's namespace.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::SourceError;
use crate::api::refs::ConfigMapKeyRef;
use crate::rows::{Row, parse_jsonl};

pub(super) async fn rows(
    client: &kube::Client,
    namespace: &str,
    reference: &ConfigMapKeyRef,
) -> Result<Vec<Row>, SourceError> {
    let name = &reference.name;
    let map = Api::<ConfigMap>::namespaced(client.clone(), namespace)
        .get(name)
        .await
        .map_err(|e| refusal(&e, namespace, name))?;
    let key = &reference.key;
    let text = map.data.as_ref().and_then(|data| data.get(key)).map(String::as_bytes);
    let binary = map.binary_data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    let bytes = text.or(binary).ok_or_else(|| {
        let present: Vec<&str> = map
            .data
            .iter()
            .flat_map(|data| data.keys())
            .chain(map.binary_data.iter().flat_map(|data| data.keys()))
            .map(String::as_str)
            .take(5)
            .collect();
        SourceError::NotFound(format!(
            "spec.input.configMapRef.key: ConfigMap \"{name}\" has no key \"{key}\" (it has: {}); add the key or \
             change the reference",
            if present.is_empty() { "none".to_owned() } else { present.join(", ") }
        ))
    })?;
    parse_jsonl(bytes).map_err(|e| e.within(&format!("ConfigMap \"{name}\", key \"{key}\"")).into())
}

fn refusal(error: &kube::Error, namespace: &str, name: &str) -> SourceError {
    match error {
        kube::Error::Api(status) if status.code == 404 => SourceError::NotFound(format!(
            "spec.input.configMapRef.name: there is no ConfigMap \"{name}\" in namespace \"{namespace}\"; create it or \
             change the reference"
        )),
        kube::Error::Api(status) if status.code == 403 => SourceError::Forbidden(format!(
            "spec.input.configMapRef.name: the operator may not read ConfigMap \"{name}\" in namespace \"{namespace}\"; \
             let its ServiceAccount `get` it"
        )),
        error => SourceError::Unavailable(format!("ConfigMap \"{name}\" could not be read: {error}")),
    }
}
