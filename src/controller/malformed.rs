//! Objects that cannot be read: left alone, loudly, and let go by their metadata when they are deleted.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use kube::runtime::controller::Action;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::context::Context;
use super::error::Error;
use super::finalizer::{is_claimed, release};
use super::next::{after, until};
use super::notes::Note;
use super::report::publish;
use super::unreadable::{Guarded, Unreadable};

/// What `spec.deletionTimeout` is by default: what the object itself says cannot be read.
const DELETION_TIMEOUT: Duration = Duration::from_mins(20);

/// What to do about an object of which only the metadata can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Until somebody corrects it.
    Leave,
    /// It is being deleted, and may be corrected yet.
    Wait(Duration),
    /// It is being deleted, and nobody has corrected it.
    Release,
}

fn judge(meta: &ObjectMeta, is_claimed: bool, patience: Duration, now: Timestamp) -> Verdict {
    let Some(deleted) = meta.deletion_timestamp.as_ref().filter(|_| is_claimed) else {
        return Verdict::Leave;
    };
    let left = until(after(deleted.0, patience), now);
    if left.is_zero() { Verdict::Release } else { Verdict::Wait(left) }
}

/// `status.protocolVersion` of an object of any shape. A status that a newer operator has written may be one that this
/// one cannot read.
fn protocol_version(object: &Value) -> Option<i64> {
    let version = object.pointer("/status/protocolVersion")?;
    version.as_i64().or_else(|| version.as_str()?.parse().ok())
}

fn complaint(error: &str, written_by: Option<i64>, ours: i32) -> (&'static str, String) {
    match written_by.filter(|version| *version > i64::from(ours)) {
        Some(newer) => (
            "NewerProtocol",
            format!(
                "written by a newer operator (protocol {newer}); this one cannot read it and leaves it alone"
            ),
        ),
        None => (
            "Malformed",
            format!("the object cannot be read and is left alone until it is corrected: {error}"),
        ),
    }
}

/// Skips an object loudly; the others go on. `None`: it is being deleted, and its time is over.
pub async fn skip<K>(
    ctx: &Context,
    namespace: &str,
    object: &Unreadable,
    protocol: i32,
) -> Result<Option<Action>, Error>
where
    K: Resource<DynamicType = ()>,
{
    let guard = Guarded::<K>(Err(object.clone()));
    let about = guard.object_ref(&());
    ctx.metrics.malformed.inc();
    let (kind, name) = (K::kind(&()), about.name.clone().unwrap_or_default());
    let (reason, message) = complaint(&object.error, written_by::<K>(ctx, namespace, &name).await, protocol);
    tracing::error!(%kind, object = format!("{namespace}/{name}"), %message, "object skipped");
    publish(&ctx.recorder, &about, &[Note { warning: true, reason: reason.into(), message }]).await;
    let patience = DELETION_TIMEOUT / ctx.timing.divisor;
    Ok(match judge(&object.metadata, is_claimed(&guard), patience, Timestamp::now()) {
        Verdict::Leave => Some(Action::await_change()),
        Verdict::Wait(left) => Some(Action::requeue(left.max(Duration::from_millis(20)))),
        Verdict::Release => None,
    })
}

/// Only for the words of a message: that it cannot be found out is no problem.
async fn written_by<K: Resource<DynamicType = ()>>(
    ctx: &Context,
    namespace: &str,
    name: &str,
) -> Option<i64> {
    let kind = kube::api::ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), namespace, &kind);
    api.get(name).await.ok().and_then(|object| protocol_version(&object.data))
}

/// Takes our finalizer from an object that cannot be read, and says what of it may be `left` at Gemini.
pub async fn let_go<K>(ctx: &Context, api: &Api<K>, object: &Unreadable, left: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let guard = Guarded::<K>(Err(object.clone()));
    let message = format!(
        "the object was deleted and cannot be read, so nothing was removed at Gemini; {left} may be left there, look \
         for it and delete it"
    );
    let note = Note { warning: true, reason: "DeletionTimeout".into(), message };
    publish(&ctx.recorder, &guard.object_ref(&()), &[note]).await;
    release(api, &guard).await
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    #[test]
    fn goes_when_its_time_is_over() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let patience = Duration::from_mins(20);
        let deleted = |ago: i64| ObjectMeta {
            deletion_timestamp: Some(Time(Timestamp::from_second(now.as_second() - ago).unwrap())),
            ..ObjectMeta::default()
        };
        for (meta, is_claimed, verdict) in [
            (ObjectMeta::default(), true, Verdict::Leave),
            (deleted(5), false, Verdict::Leave),
            (deleted(5), true, Verdict::Wait(Duration::from_secs(1195))),
            (deleted(1200), true, Verdict::Release),
        ] {
            assert_eq!(judge(&meta, is_claimed, patience, now), verdict);
        }
    }

    #[test]
    fn a_newer_operators_object_is_called_so() {
        for (status, reason) in [
            (json!({"protocolVersion": 2}), "NewerProtocol"),
            (json!({"protocolVersion": 3_000_000_000_i64, "runs": "of another shape"}), "NewerProtocol"),
            (json!({"protocolVersion": "2"}), "NewerProtocol"),
            (json!({"protocolVersion": 1}), "Malformed"),
            (json!({"protocolVersion": {}}), "Malformed"),
            (json!("none"), "Malformed"),
        ] {
            let version = protocol_version(&json!({ "status": status }));
            assert_eq!(complaint("m", version, 1).0, reason, "{status}");
        }
    }
}
