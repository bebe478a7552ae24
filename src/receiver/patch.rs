//! The one way by which the receiver changes anything: a server-side apply of its own status field.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, header};
use kube::api::{Patch as Body, PatchParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fair::Turns;
use super::limits;
use super::metrics::Metrics;
use super::quiet::Throttle;
use crate::api::{GeminiBatch, GeminiWebhook};

/// Owner of our fields.
const FIELD_MANAGER: &str = "gemini-operator/receiver";

/// Kubernetes API concepts, "Retrieving metadata only".
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// So many answers "conflict" are met by another attempt, within the budget.
const CONFLICTS: usize = 4;

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub kind: Kind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
}

/// Of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Batch,
    Webhook,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "GeminiBatch",
            Self::Webhook => "GeminiWebhook",
        }
    }
}

/// Why nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchError {
    /// The object is gone, or another of the same name stands in its place.
    Gone,
    /// The API server could not, would not, or did not say in time.
    Unavailable,
}

/// The seam to the API server: tests put a fake here.
pub trait Patch: Send + Sync + 'static {
    /// Makes `status` the whole of what the receiver owns of this object's status.
    fn apply_status(
        &self,
        target: &Target,
        status: Value,
    ) -> impl Future<Output = Result<(), PatchError>> + Send;
}

/// The real one.
pub struct KubePatch {
    client: Client,
    metrics: Metrics,
    /// The right to have a write under way at the API server. Each namespace has its turn: a neighbour with a thousand
    /// batches, and a thousand events for them, must not make the others wait longer than their senders do.
    places: Turns,
    write_timeout: Duration,
    /// While the API server is away every delivery fails.
    throttle: Throttle,
}

impl KubePatch {
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self {
            client,
            metrics,
            places: Turns::new(limits::WRITES_AT_ONCE, limits::WRITES_PER_NAMESPACE),
            write_timeout: limits::WRITE_TIMEOUT,
            throttle: Throttle::new(Duration::from_secs(1)),
        }
    }
}

impl Patch for KubePatch {
    async fn apply_status(&self, target: &Target, status: Value) -> Result<(), PatchError> {
        let _place = self.places.place(&target.namespace).await.ok_or(PatchError::Unavailable)?;
        let begun = Instant::now();
        let result = tokio::time::timeout(self.write_timeout, self.apply(target, &status)).await;
        let result = result.unwrap_or(Err(PatchError::Unavailable));
        let outcome = match result {
            Ok(()) => "stored",
            Err(PatchError::Gone) => "gone",
            Err(PatchError::Unavailable) => "unavailable",
        };
        self.metrics.patch(target.kind.as_str(), outcome, begun.elapsed().as_secs_f64());
        result
    }
}

impl KubePatch {
    /// The API server's own message holds the object's name; code and reason say enough.
    fn complain(&self, error: &kube::Error) {
        let Some(suppressed) = self.throttle.admit(Instant::now()) else { return };
        if let kube::Error::Api(status) = error {
            tracing::warn!(code = status.code, reason = status.reason, suppressed, "status patch refused");
        } else {
            tracing::warn!(error = error as &dyn std::error::Error, suppressed, "status patch failed");
        }
    }

    async fn apply(&self, target: &Target, status: &Value) -> Result<(), PatchError> {
        let body = Body::Apply(json!({
            "apiVersion": GeminiBatch::api_version(&()),
            "kind": target.kind.as_str(),
            // The uid says whom we mean, but on a status the API server (1.37) does not look at it: what came of it is
            // seen from the answer. A `resourceVersion` it would look at, at the price of a conflict with every write
            // of the controller; a stray hint costs less.
            "metadata": {"name": &*target.name, "namespace": &*target.namespace, "uid": &*target.uid},
            "status": status,
        }));
        let mut params = PatchParams::apply(FIELD_MANAGER);
        for _ in 0..CONFLICTS {
            match self.send(target, &params, &body).await {
                Ok(Written { metadata }) if metadata.uid == *target.uid => return Ok(()),
                Ok(_) => {
                    tracing::warn!(
                        "a status was written to a newer object of the same name; it has no job of that name"
                    );
                    return Err(PatchError::Gone);
                }
                // Somebody wrote our field by hand. It has one owner, and without force it would stay his for ever.
                Err(kube::Error::Api(status)) if is_field_conflict(&status) => {
                    tracing::warn!("taking back a status field from another field manager");
                    params = params.force();
                }
                // The API server tries again by itself, and gives up while others write the object all the time. The
                // object is there: this must never be taken for its end.
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => return Err(PatchError::Gone),
                Err(error) => {
                    self.complain(&error);
                    return Err(PatchError::Unavailable);
                }
            }
        }
        Err(PatchError::Unavailable)
    }
}

impl KubePatch {
    /// The answer is asked for without spec and status: an object as it stands is some kilobytes, which the API server
    /// would write and we would read for every delivery, and its uid is all that is looked at.
    async fn send(&self, target: &Target, params: &PatchParams, body: &Body<Value>) -> kube::Result<Written> {
        let namespace = Some(&*target.namespace);
        let path = match target.kind {
            Kind::Batch => GeminiBatch::url_path(&(), namespace),
            Kind::Webhook => GeminiWebhook::url_path(&(), namespace),
        };
        let request = Request::new(path).patch_subresource("status", &target.name, params, body);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(METADATA_ONLY));
        self.client.request(request).await
    }
}

/// An object that was written, as far as it is looked at.
#[derive(Deserialize)]
struct Written {
    metadata: WrittenMeta,
}

#[derive(Deserialize)]
struct WrittenMeta {
    uid: String,
}

fn is_field_conflict(status: &kube::core::Status) -> bool {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    status.code == 409 && causes.iter().any(|cause| cause.reason == "FieldManagerConflict")
}

#[cfg(test)]
mod tests;
