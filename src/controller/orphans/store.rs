//! The ConfigMap of the ledger: read and written as a whole, by compare-and-swap.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::{Admitted, Data, Entry, ORPHANS_CONFIG_MAP, admit, read};
use crate::api::MANAGED_BY;
use crate::controller::context::Context;
use crate::controller::error::{Error, cas};
use crate::controller::notes::Note;
use crate::controller::report::publish;

/// Tries of a compare-and-swap against other controllers.
const TRIES: usize = 10;
/// A deletion waits for its entry, and it must not wait for long.
const LIMIT: Duration = Duration::from_secs(10);

/// Writers of this process, one at a time: when a key is revoked, many batches give up in the same second.
pub type Lock = tokio::sync::Mutex<()>;

/// Writes down what a batch may leave, before its object goes.
pub async fn enter(ctx: &Context, entry: &Entry) -> Result<(), Error> {
    let write = change(ctx, |data| admit(data, entry.clone()).map_err(|e| Error::Ledger(e.to_string())));
    let written = tokio::time::timeout(LIMIT, write).await;
    let Admitted { is_new, evicted } = written.unwrap_or(Err(Error::TooSlow("the orphan ledger", LIMIT)))?;
    if is_new {
        ctx.metrics.orphans.inc();
    }
    for (key, text) in evicted {
        give_up(ctx, &key, read(&text).as_ref(), "the orphan ledger is full").await;
    }
    Ok(())
}

/// An entry has left the ledger although something may be left at Gemini.
pub(super) async fn give_up(ctx: &Context, key: &str, entry: Option<&Entry>, why: &str) {
    ctx.metrics.orphans_given_up.inc();
    let Some(entry) = entry else {
        tracing::warn!(
            submit_key = key,
            why,
            "an entry of the orphan ledger that cannot be read was dropped"
        );
        return;
    };
    let message = format!("{why}: {} is not looked for any more; delete it at Gemini", entry.left());
    let object = format!("{}/{}", entry.namespace, entry.name);
    tracing::warn!(%object, submit_key = key, %message, "an orphan is given up on");
    let note = Note { warning: true, reason: "OrphanGivenUp".into(), message };
    publish(&ctx.recorder, &entry.object_ref(), &[note]).await;
}

pub(super) async fn load(ctx: &Context) -> Result<Data, Error> {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &ctx.operator_namespace);
    let map = api.get_opt(ORPHANS_CONFIG_MAP).await?;
    Ok(map.and_then(|map| map.data).unwrap_or_default())
}

/// Changes the ledger; makes it first if it is not there.
pub(super) async fn change<T>(
    ctx: &Context,
    edit: impl Fn(&mut Data) -> Result<T, Error>,
) -> Result<T, Error> {
    let _one_at_a_time = ctx.orphans.lock().await;
    let api: Api<ConfigMap> = Api::namespaced(ctx.writer.clone(), &ctx.operator_namespace);
    for _ in 0..TRIES {
        let there = api.get_opt(ORPHANS_CONFIG_MAP).await?;
        let is_there = there.is_some();
        let mut map = there.unwrap_or_else(empty);
        let value = edit(map.data.get_or_insert_default())?;
        let params = PostParams::default();
        let written = if is_there {
            api.replace(ORPHANS_CONFIG_MAP, &params, &map).await
        } else {
            api.create(&params, &map).await
        };
        match written.map_err(cas) {
            Ok(_) => return Ok(value),
            // Another controller was faster.
            Err(Error::Conflict) => {}
            Err(Error::Kube(kube::Error::Api(status))) if status.is_already_exists() => {}
            // Rights, or an admission policy: only a person can help, so a person must read of it.
            Err(Error::Kube(kube::Error::Api(status))) if status.is_forbidden() || status.is_invalid() => {
                return Err(Error::Ledger(status.message));
            }
            Err(e) => return Err(e),
        }
    }
    Err(Error::Ledger("others write it all the time".into()))
}

fn empty() -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(ORPHANS_CONFIG_MAP.into()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".into(), MANAGED_BY.into())])),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}
