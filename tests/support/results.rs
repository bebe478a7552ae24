//! What a batch delivered into the cluster.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::ListParams;

use super::Room;

/// What a batch delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    pub answers: String,
    pub errors: String,
    pub manifest: String,
}

impl Room {
    /// The results of a batch: the three documents, those split over several ConfigMaps put together.
    pub async fn results(&self, name: &str) -> Results {
        let maps = self.config_maps().list(&ListParams::default()).await.expect("ConfigMaps can be listed");
        let mut parts: Vec<&ConfigMap> = maps
            .iter()
            .filter(|map| {
                map.annotations().get(gemini_operator::api::BATCH_ANNOTATION).is_some_and(|b| b == name)
            })
            .collect();
        // NAME, NAME-1, NAME-2, …: by length first, so that NAME-10 comes after NAME-9.
        parts.sort_by_key(|map| (map.name_any().len(), map.name_any()));
        let joined = |key: &str| {
            parts.iter().filter_map(|map| map.data.as_ref()?.get(key)).map(String::as_str).collect::<String>()
        };
        Results {
            answers: joined("results.jsonl"),
            errors: joined("errors.jsonl"),
            manifest: joined("manifest.json"),
        }
    }
}
