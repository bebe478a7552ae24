//! Condition types and reasons of both kinds, and the one way to set a condition.
//!
//! Conditions are `metav1.Condition`s. `lastTransitionTime` moves only when `status` flips, so that a status
//! in which nothing happened compares equal and is not written.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Condition types of a GeminiBatch.
pub mod batch_type {
    /// The API key is there and nothing holds the batch back.
    pub const ADMITTED: &str = "Admitted";
    /// All rows were read, found valid and uploaded.
    pub const INPUT_READY: &str = "InputReady";
    /// There is one job at Gemini, and its name is recorded.
    pub const SUBMITTED: &str = "Submitted";
    /// The results stand in the sink.
    pub const RESULTS_DELIVERED: &str = "ResultsDelivered";
    /// A ready webhook will say when the job ends; otherwise only the sweep will.
    pub const WEBHOOK_TRACKED: &str = "WebhookTracked";
    /// Final: succeeded within the success policy.
    pub const COMPLETE: &str = "Complete";
    /// Final: did not succeed; the reason says why.
    pub const FAILED: &str = "Failed";
    /// More than one job of this batch turned up at Gemini; those that are not recorded were cancelled and deleted.
    pub const DUPLICATE_JOBS: &str = "DuplicateJobs";
    /// The user has suspended the batch.
    pub const SUSPENDED: &str = "Suspended";
    /// kstatus: no progress without a change by a person.
    pub const STALLED: &str = "Stalled";
    /// kstatus: work is going on.
    pub const RECONCILING: &str = "Reconciling";
}

/// Condition types of a GeminiWebhook.
pub mod webhook_type {
    /// The endpoint is registered at Gemini and its id is recorded, or the operator has nothing to register.
    pub const REGISTERED: &str = "Registered";
    /// The signing secret is stored where the receiver reads it.
    pub const SECRET_READY: &str = "SecretReady";
    /// The provider's ping arrived at our own receiver with a valid signature; where there are no pings, a delivery.
    pub const ENDPOINT_REACHABLE: &str = "EndpointReachable";
    /// The provider delivers, and nothing is in sight that will end it, such as a clock that goes wrong.
    pub const DELIVERY_HEALTHY: &str = "DeliveryHealthy";
    /// Deliveries can be sent again by whoever overhears one: what the scheme of the route cannot prevent.
    pub const REPLAYABLE_SIGNATURE: &str = "ReplayableSignature";
    /// Registered, proven and delivering; batches may rely on this webhook. One that the operator does not register is
    /// ready when deliveries can be verified.
    pub const READY: &str = "Ready";
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    True,
    False,
    Unknown,
}

impl Is {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Longest message that is kept; the API allows 32 KiB, a person reads less.
const MAX_MESSAGE: usize = 1024;

/// Sets one condition in `conditions`; order is kept, `lastTransitionTime` moves only when `status` flips.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    is: Is,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let message = truncate(message, MAX_MESSAGE);
    if let Some(found) = conditions.iter_mut().find(|c| c.type_ == type_) {
        if found.status != is.as_str() {
            found.last_transition_time = Time(now);
            is.as_str().clone_into(&mut found.status);
        }
        reason.clone_into(&mut found.reason);
        message.clone_into(&mut found.message);
        found.observed_generation = generation;
        return;
    }
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: is.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: generation,
    });
}

/// The condition of this type, if it was ever set.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of this type stands at `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True")
}

/// Cuts `text` to at most `max` bytes on a character boundary.
pub fn truncate(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_with_status() {
        let (t0, t1) = (Timestamp::from_second(100).unwrap(), Timestamp::from_second(200).unwrap());
        let mut conditions = vec![];
        set(&mut conditions, "Ready", Is::False, "Waiting", "a", Some(1), t0);
        set(&mut conditions, "Ready", Is::False, "Other", "b", Some(2), t1);
        assert_eq!(conditions[0].last_transition_time, Time(t0));
        assert_eq!((conditions[0].reason.as_str(), conditions[0].observed_generation), ("Other", Some(2)));
        set(&mut conditions, "Ready", Is::True, "Done", "", Some(2), t1);
        assert_eq!(conditions[0].last_transition_time, Time(t1));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(truncate("aé", 2), "a");
        assert_eq!(truncate("aé", 3), "aé");
    }
}
