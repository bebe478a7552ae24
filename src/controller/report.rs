//! What people see: Events on transitions.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};

use super::notes::Note;
use crate::api::condition::truncate;

/// Limit of the Events API for `note`.
const MAX_NOTE: usize = 1000;

/// Publishes Events; failing to do so (a namespace that is going away) is not worth an error.
pub async fn publish(recorder: &Recorder, about: &ObjectReference, notes: &[Note]) {
    for note in notes {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: truncate(&note.reason, 128).to_owned(),
            note: Some(truncate(&note.message, MAX_NOTE).to_owned()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, about).await {
            tracing::debug!(%error, "event not published");
        }
    }
}
