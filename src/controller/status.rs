//! The one way to write a status: compare-and-swap.

use std::fmt::Debug;

use kube::api::PostParams;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Error, cas};

/// Replaces the status of `object`, which must carry the resourceVersion that it was read with. The client must not
/// retry on its own: a repeated write would be refused because of the first one.
pub async fn replace<K>(api: &Api<K>, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = object.meta().name.clone().unwrap_or_default();
    api.replace_status(&name, &PostParams::default(), object).await.map_err(cas)
}

/// Whether a status would be kept as what stands already. Compared as it is kept: what others tell us has finer times than
/// the whole seconds of Kubernetes, and would be written for ever.
pub fn is_kept<S: Serialize>(stands: Option<&S>, status: &S) -> bool {
    match (serde_json::to_value(stands), serde_json::to_value(status)) {
        (Ok(stands), Ok(status)) => stands == status,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_fraction_of_a_second_is_nothing_new() {
        let at = |text: &str| Time(text.parse::<Timestamp>().unwrap());
        let stands = at("2026-01-01T00:00:01Z");
        assert!(is_kept(Some(&stands), &at("2026-01-01T00:00:01.987654321Z")));
        assert!(!is_kept(Some(&stands), &at("2026-01-01T00:00:02Z")));
        assert!(!is_kept(None, &stands));
    }
}
