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
/// Annotation on a batch: `<K>.<fingerprint of the API key>.<tag>`. Set together with the finalizer, it survives a
/// backup that loses the status, and so tells a restored batch from a new one.
pub const SUBMIT_KEY_ANNOTATION: &str = "gemini-operator.io/submit-key";
/// Annotation on result ConfigMaps: the name of the batch that owns them.
pub const BATCH_ANNOTATION: &str = "gemini-operator.io/batch";
/// Label value of everything that the operator makes.
pub const MANAGED_BY: &str = "gemini-operator";
/// Annotation by which a person, having looked at Gemini, lets a quarantined batch submit again: `<K>.<n>`.
pub const RESUBMIT_ANNOTATION: &str = "gemini-operator.io/resubmit-approved";
/// In the metadata of a job that has an address of its own, which comes back with each event: `<K>.<n>`.
pub const SUBMIT_KEY_METADATA: &str = "submitKey";
/// Annotation on a webhook by which a person has its signing secret rotated once: a time, as of RFC 3339.
pub const ROTATE_AT_ANNOTATION: &str = "gemini-operator.io/rotate-at";

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use serde_json::Value;

    use super::*;

    /// Descriptions of a schema by the path of their field, as `kubectl explain` prints them.
    fn descriptions(schema: &Value, path: &str, found: &mut Vec<(String, String)>) {
        if let Some(text) = schema["description"].as_str() {
            found.push((path.to_owned(), text.to_owned()));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            descriptions(property, &format!("{path}.{name}"), found);
        }
        if schema["items"].is_object() {
            descriptions(&schema["items"], &format!("{path}[]"), found);
        }
    }

    fn explained() -> Vec<(String, String)> {
        let mut found = vec![];
        for crd in [GeminiBatch::crd(), GeminiWebhook::crd()] {
            let name = crd.spec.names.singular.clone().unwrap_or_default();
            let crd = serde_json::to_value(crd).unwrap();
            descriptions(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &name, &mut found);
        }
        found
    }

    #[test]
    fn explanations_explain() {
        let found = explained();
        assert!(found.len() > 100, "{}", found.len());
        let short: Vec<_> = found
            .iter()
            // Kubernetes' own words.
            .filter(|(path, _)| !path.contains(".conditions[]"))
            .filter(|(_, text)| text.split_whitespace().count() < 3)
            .collect();
        assert!(short.is_empty(), "{short:?}");
        let evasive: Vec<_> = found
            .iter()
            .filter(|(_, text)| text.starts_with("What is ") || text.contains("made up its mind"))
            .collect();
        assert!(evasive.is_empty(), "{evasive:?}");
    }

    /// `kubectl explain` does not show lengths, so the text has to.
    #[test]
    fn limits_of_a_prompt_are_named() {
        let found = explained();
        for (field, limit) in [("key", "256"), ("prompt", "32768"), ("system", "32768")] {
            let path = format!("geminibatch.spec.input.inline.requests[].{field}");
            let text = found.iter().find(|(at, _)| *at == path).map(|(_, text)| text.as_str());
            assert!(text.is_some_and(|text| text.contains(limit)), "{path}: {text:?}");
        }
    }
}
