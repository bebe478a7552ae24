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
