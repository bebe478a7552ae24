//! The Kubernetes surface: the types of both custom resources and the words they use.
//!
//! Types only; no I/O. The doc comments of the fields become the descriptions of the CRDs, that is,
//! what `kubectl explain` prints: they are written for users.

pub mod batch;
pub mod condition;
pub mod duration;
pub mod keyring;
pub mod meta;
pub mod refs;
pub mod webhook;

pub use batch::{GeminiBatch, GeminiBatchSpec, GeminiBatchStatus};
pub use webhook::{GeminiWebhook, GeminiWebhookSpec, GeminiWebhookStatus};

/// API group of both kinds.
pub const GROUP: &str = "gemini-operator.io";
/// The one served and stored version.
pub const VERSION: &str = "v1alpha1";
/// Finalizer of both kinds: it stands from before anything exists at Gemini until nothing is left there.
pub const FINALIZER: &str = "gemini-operator.io/cleanup";
/// Annotation on a batch: `<K>.<fingerprint of the API key>`. Set together with the finalizer, it survives a
/// backup that loses the status, and so tells a restored batch from a new one.
pub const SUBMIT_KEY_ANNOTATION: &str = "gemini-operator.io/submit-key";
/// Annotation on result ConfigMaps: the name of the batch that owns them.
pub const BATCH_ANNOTATION: &str = "gemini-operator.io/batch";
/// Label value of everything that the operator makes.
pub const MANAGED_BY: &str = "gemini-operator";
/// Annotation by which a person, having looked at Gemini, lets a quarantined batch submit again: `<K>.<n>`.
pub const RESUBMIT_ANNOTATION: &str = "gemini-operator.io/resubmit-approved";
