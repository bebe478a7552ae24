//! PURE: which Kubernetes Events a change of status is worth. Only transitions, never repetitions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::condition::{batch_type, get, webhook_type};

/// One Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

/// Reasons that are steps on the way: seen in the condition, not worth an Event.
const QUIET: [&str; 12] = [
    "Staging",
    "Submitting",
    "NotStarted",
    "Delivering",
    "Queued",
    "Registering",
    "Rotating",
    "Storing",
    "NotRequired",
    "NotTested",
    "Suspended",
    "Resumed",
];
/// kstatus mirrors and derived types say what another condition says already.
const MIRRORS: [&str; 3] = [batch_type::RECONCILING, batch_type::STALLED, webhook_type::READY];

const BAD_WHEN_TRUE: [&str; 3] =
    [batch_type::FAILED, batch_type::DUPLICATE_JOBS, webhook_type::REPLAYABLE_SIGNATURE];

/// Events for what changed from `before` to `after`.
pub fn notes(before: &[Condition], after: &[Condition]) -> Vec<Note> {
    after
        .iter()
        .filter(|c| !MIRRORS.contains(&c.type_.as_str()) && !QUIET.contains(&c.reason.as_str()))
        .filter(|c| get(before, &c.type_).is_none_or(|b| (&b.status, &b.reason) != (&c.status, &c.reason)))
        .map(|c| {
            let bad_when_true = BAD_WHEN_TRUE.contains(&c.type_.as_str());
            let good = (c.status == "True") != bad_when_true;
            let message = if c.message.is_empty() { c.type_.clone() } else { c.message.clone() };
            Note { warning: !good && c.reason != "SweepOnly", reason: c.reason.clone(), message }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition::{Is, set};
    use jiff::Timestamp;

    fn conditions(list: &[(&str, Is, &str)]) -> Vec<Condition> {
        let mut conditions = vec![];
        for (type_, is, reason) in list {
            set(&mut conditions, type_, *is, reason, "text", None, Timestamp::UNIX_EPOCH);
        }
        conditions
    }

    #[test]
    fn speaks_on_transitions_only() {
        let before =
            conditions(&[("Submitted", Is::False, "Submitting"), ("Admitted", Is::True, "Admitted")]);
        let after = conditions(&[
            ("Submitted", Is::True, "Submitted"),
            ("Admitted", Is::True, "Admitted"),
            ("Reconciling", Is::True, "Pending"),
            ("Failed", Is::True, "RemoteFailed"),
        ]);
        let spoken: Vec<_> = notes(&before, &after).into_iter().map(|n| (n.reason, n.warning)).collect();
        assert_eq!(spoken, [("Submitted".to_owned(), false), ("RemoteFailed".to_owned(), true)]);
        assert_eq!(notes(&after, &after), []);
    }
}
