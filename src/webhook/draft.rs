//! PURE: a status in the making.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Plan, Step, full_url};
use super::rotation::ROTATING;
use crate::api::condition::{self, Is, get, webhook_type};
use crate::api::webhook::{GeminiWebhook, GeminiWebhookStatus};
use crate::controller::Next;

/// In the words of a condition: a user's secret is being copied to the keyring.
pub const STORING: &str = "Storing";

pub struct Draft {
    pub status: GeminiWebhookStatus,
    /// What the spec wants registered; `None` before there is a path.
    pub wanted_url: Option<String>,
    /// What went wrong last: said wherever the webhook is not ready and nothing better is known.
    problem: String,
    generation: Option<i64>,
    now: Timestamp,
}

impl Draft {
    pub fn new(webhook: &GeminiWebhook, problem: Option<&str>, now: Timestamp) -> Self {
        let generation = webhook.metadata.generation;
        let mut status = webhook.status.clone().unwrap_or_default();
        status.observed_generation = generation;
        let wanted_url = status.path.as_ref().map(|path| full_url(webhook, path));
        // Once registered, it is the URL at Gemini, whatever the spec says meanwhile.
        if status.id.is_none() {
            status.url.clone_from(&wanted_url);
        }
        Self { status, wanted_url, problem: problem.unwrap_or_default().to_owned(), generation, now }
    }

    pub fn set(&mut self, type_: &str, is: Is, reason: &str, message: &str) {
        // `Registered` keeps the generation that the registration conforms to.
        condition::set(&mut self.status.conditions, type_, is, reason, message, self.generation, self.now);
    }

    pub fn reason(&self, type_: &str) -> Option<&str> {
        get(&self.status.conditions, type_).map(|c| c.reason.as_str())
    }

    pub fn not_ready(&mut self, reason: &str) {
        let problem = self.problem.clone();
        self.set(webhook_type::READY, Is::False, reason, &problem);
    }

    /// Nothing is registered yet, or nothing any more.
    pub fn registering(&mut self) {
        let problem = self.problem.clone();
        self.set(webhook_type::REGISTERED, Is::False, "Registering", &problem);
        self.not_ready("Registering");
    }

    /// Nobody is known to hold the signing secret.
    pub fn secret_lost(&mut self) {
        self.set(
            webhook_type::SECRET_READY,
            Is::False,
            "Lost",
            "the keyring holds no signing secret for this registration; getting a new one by rotation",
        );
    }

    /// Gemini is asked for another signing secret.
    pub fn rotating(&mut self) {
        let message = if self.problem.is_empty() {
            "asking Gemini for another signing secret".to_owned()
        } else {
            self.problem.clone()
        };
        self.set(webhook_type::SECRET_READY, Is::Unknown, ROTATING, &message);
    }

    /// A user's secret goes to the keyring.
    pub fn storing(&mut self) {
        let problem = self.problem.clone();
        self.set(webhook_type::SECRET_READY, Is::Unknown, STORING, &problem);
    }

    /// The same state begins anew: who writes that is the one to act on it.
    pub fn restart(&mut self, type_: &str) {
        if let Some(condition) = self.status.conditions.iter_mut().find(|c| c.type_ == type_) {
            condition.last_transition_time = Time(self.now);
        }
    }

    /// What was proven does not hold any more, or nothing was.
    pub fn untested(&mut self) {
        self.status.last_ping = None;
        self.set(webhook_type::ENDPOINT_REACHABLE, Is::Unknown, "NotTested", "a ping is under way");
        self.set(webhook_type::DELIVERY_HEALTHY, Is::Unknown, "NotTested", "");
        self.not_ready("NotTested");
    }

    /// There is no registration, and what was known of it goes with it.
    pub fn unregistered(&mut self) {
        self.status.id = None;
        self.status.url.clone_from(&self.wanted_url);
        self.status.state = None;
        self.status.key_fingerprint = None;
        self.status.signing_secrets.clear();
        self.status.registered_time = None;
        self.status.last_rotation_time = None;
        self.status.next_rotation_time = None;
        self.untested();
        self.registering();
    }

    pub fn plan(self, step: Step, next: Next) -> Plan {
        Plan { status: self.status, step, next }
    }
}

/// The status with a problem in the words of those conditions that wait for its end; in the very form in which the
/// next plan will say it, so that the two do not write in turn.
pub fn explained(webhook: &GeminiWebhook, problem: &str, now: Timestamp) -> GeminiWebhookStatus {
    let mut draft = Draft::new(webhook, Some(problem), now);
    if draft.reason(webhook_type::REGISTERED) == Some("Registering") {
        draft.set(webhook_type::REGISTERED, Is::False, "Registering", problem);
    }
    if draft.reason(webhook_type::SECRET_READY) == Some(ROTATING) {
        draft.rotating();
    }
    if draft.reason(webhook_type::SECRET_READY) == Some(STORING) {
        draft.storing();
    }
    let ready = get(&draft.status.conditions, webhook_type::READY);
    if let Some(reason) = ready.filter(|c| c.status == "False").map(|c| c.reason.clone()) {
        draft.not_ready(&reason);
    }
    draft.status
}
