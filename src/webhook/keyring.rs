//! The keyring Secret: one entry per webhook, written by compare-and-swap.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use crate::api::MANAGED_BY;
use crate::api::keyring::{KEYRING_SECRET, KeyringEntry};
use crate::controller::{Context, Error, cas, is_not_found};

/// Tries of a compare-and-swap against other controllers before the pass is given up.
const TRIES: usize = 10;

/// The entry of one webhook.
pub async fn load(ctx: &Context, uid: &str) -> Result<Option<KeyringEntry>, Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.operator_namespace);
    let Some(secret) = api.get_opt(KEYRING_SECRET).await? else { return Ok(None) };
    Ok(read(secret.data.as_ref().and_then(|d| d.get(uid))))
}

/// All entries that can be read, by the uid of their webhook.
pub async fn all(ctx: &Context) -> Result<BTreeMap<String, KeyringEntry>, Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.operator_namespace);
    let entries = api.get_opt(KEYRING_SECRET).await?.and_then(|secret| secret.data).unwrap_or_default();
    Ok(entries.into_iter().filter_map(|(uid, bytes)| Some((uid, read(Some(&bytes))?))).collect())
}

/// An entry that cannot be read is as good as none: a rotation replaces it.
fn read(bytes: Option<&ByteString>) -> Option<KeyringEntry> {
    bytes.and_then(|b| serde_json::from_slice(&b.0).ok())
}

/// What stood in an entry before a secret was asked for.
pub struct Before(Option<ByteString>);

impl Before {
    pub fn entry(&self) -> Option<KeyringEntry> {
        read(self.0.as_ref())
    }
}

/// Fails if an entry could not be written now: asked before a secret is made that is shown only once.
pub async fn probe(ctx: &Context, uid: &str) -> Result<Before, Error> {
    let mut before = None;
    change(ctx, true, |data| {
        before = data.get(uid).cloned();
        true
    })
    .await?;
    Ok(Before(before))
}

/// Stores an entry in the place of the one that stood there before its secret was asked for. A conflict says that somebody
/// has stored another secret meanwhile: which of the two is newer only Gemini knows, so neither may replace the other.
pub async fn store(ctx: &Context, uid: &str, before: &Before, entry: &KeyringEntry) -> Result<(), Error> {
    let bytes = serde_json::to_vec(entry).map_err(|e| Error::Keyring(e.to_string()))?;
    let mut stored = false;
    change(ctx, false, |data| {
        stored = data.get(uid) == before.0.as_ref();
        if stored {
            data.insert(uid.to_owned(), ByteString(bytes.clone()));
        }
        stored
    })
    .await?;
    if stored { Ok(()) } else { Err(Error::Conflict) }
}

pub async fn remove(ctx: &Context, uid: &str) -> Result<(), Error> {
    if load(ctx, uid).await?.is_none() {
        return Ok(());
    }
    change(ctx, false, |data| data.remove(uid).is_some()).await
}

/// `edit` says whether there is anything to write.
async fn change(
    ctx: &Context,
    dry_run: bool,
    mut edit: impl FnMut(&mut BTreeMap<String, ByteString>) -> bool,
) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(ctx.writer.clone(), &ctx.operator_namespace);
    for _ in 0..TRIES {
        let mut secret = match api.get(KEYRING_SECRET).await {
            Ok(secret) => secret,
            Err(e) if is_not_found(&e) => {
                match api.create(&PostParams::default(), &empty()).await {
                    Ok(made) => made,
                    // Another controller made it just now.
                    Err(kube::Error::Api(status)) if status.is_already_exists() => continue,
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(e.into()),
        };
        if !edit(secret.data.get_or_insert_default()) {
            return Ok(());
        }
        let params = PostParams { dry_run, ..PostParams::default() };
        match api.replace(KEYRING_SECRET, &params, &secret).await.map_err(cas) {
            Ok(_) => return Ok(()),
            Err(Error::Conflict) => {}
            // Rights, or an admission policy: only a person can help, so a person must read of it.
            Err(Error::Kube(kube::Error::Api(status))) if status.is_forbidden() || status.is_invalid() => {
                return Err(Error::Keyring(status.message));
            }
            Err(e) => return Err(e),
        }
    }
    Err(Error::Conflict)
}

fn empty() -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(KEYRING_SECRET.into()),
            labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".into(), MANAGED_BY.into())])),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    }
}
