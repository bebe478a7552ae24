//! What must have come of a webhook when it is healed, and when it is gone.

use gemini_operator::api::GeminiWebhook;
use gemini_operator::api::condition::{self, webhook_type};
use gemini_operator::api::webhook::RegistrationMode;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::Case;
use super::life::{EVENTS, NAME, Revocation, SIGNING};
use crate::run::Action;
use crate::support::hooks::{is_rotated_since, registration_name};
use crate::support::{Bed, PATIENCE, poll};

/// So many rotations a lost secret may cost.
const MOST: usize = 2;
/// A controller that goes on with a rotation which another one has made has another one lost.
const MOST_OVERTAKEN: usize = 3;

pub struct Wanted {
    /// Of the registration.
    name: String,
    /// The API key that sees it.
    pub key: String,
    pub events: &'static [&'static str],
    /// Not this registration, which was in another project.
    pub other_than: Option<String>,
    pub rotated_since: Option<Timestamp>,
    /// The secret before a rotation that was asked for, and what becomes of it.
    pub before: Option<(String, Revocation)>,
    /// Rotations that were asked for.
    pub rotations: usize,
}

impl Wanted {
    pub fn of(bed: &Bed, webhook: &GeminiWebhook) -> Self {
        Self {
            name: registration_name(webhook),
            key: bed.options.api_key.clone(),
            events: &EVENTS,
            other_than: None,
            rotated_since: None,
            before: None,
            rotations: 0,
        }
    }

    /// Ready, in line with its spec, and proven by a delivery that was verified.
    fn is_healed(&self, webhook: &GeminiWebhook) -> bool {
        let Some(status) = &webhook.status else { return false };
        let is = |type_| condition::is_true(&status.conditions, type_);
        let registered = condition::get(&status.conditions, webhook_type::REGISTERED);
        let in_line = registered.is_some_and(|c| c.observed_generation == webhook.metadata.generation);
        let stored =
            is(webhook_type::READY) && is(webhook_type::REGISTERED) && is(webhook_type::SECRET_READY);
        if webhook.spec.mode == RegistrationMode::External {
            return stored;
        }
        let arrived = status.last_ping.as_ref().is_some_and(|ping| ping.received_time.is_some());
        let rotated = self.rotated_since.is_none_or(|at| is_rotated_since(webhook, at));
        let proven = is(webhook_type::ENDPOINT_REACHABLE) && is(webhook_type::DELIVERY_HEALTHY) && arrived;
        stored && in_line && rotated && proven && status.id.is_some() && status.id != self.other_than
    }
}

pub async fn healed(bed: &Bed, wanted: &Wanted) -> GeminiWebhook {
    bed.wait_webhook(NAME, "healed", |webhook| wanted.is_healed(webhook)).await
}

/// One endpoint, whose secret is the one that is stored: what Gemini signs now is verified.
pub async fn verifies(bed: &Bed, webhook: &GeminiWebhook, wanted: &Wanted, case: &Case) {
    let status = webhook.status.as_ref().expect("it has a status");
    let entry = bed.keyring_entry(&webhook.uid().unwrap_or_default()).await.expect("the keyring has it");
    let is_overtaken = case.action == Action::Stop;
    let all = if is_overtaken {
        // What it has made by its late request is a twin, which is seen later.
        let one = poll(PATIENCE, async || match bed.emulator.registrations(&wanted.key).await {
            all if all.len() == 1 => Ok(all),
            all => Err(all),
        });
        one.await.unwrap_or_else(|all| panic!("one endpoint: {all:#?}"))
    } else {
        bed.emulator.registrations(&wanted.key).await
    };
    if webhook.spec.mode == RegistrationMode::External {
        assert_eq!(entry["current"], SIGNING);
        assert_eq!(all, [Value::Null; 0], "nothing is registered");
        return;
    }
    let [only] = &all[..] else { panic!("one endpoint: {all:#?}") };
    assert_eq!(only["id"].as_str(), status.id.as_deref());
    assert_eq!(entry["registration"], only["id"]);
    assert_eq!(only["name"], *wanted.name);
    assert_eq!(only["uri"].as_str(), status.url.as_deref());
    assert_eq!(only["subscribed_events"], json!(wanted.events));

    let previous: Vec<&str> =
        entry["previous"].as_array().into_iter().flatten().filter_map(|p| p["secret"].as_str()).collect();
    let mut signers = vec!["newest"];
    match &wanted.before {
        // A secret that two may hold is replaced at once.
        Some(_) if is_overtaken => {}
        Some((secret, Revocation::After24h)) => {
            assert!(previous.contains(&&**secret), "the one before is kept");
            signers.push("oldest");
        }
        Some((_, Revocation::Immediately)) | None => {
            assert_eq!(previous, [""; 0], "none is good but the newest");
        }
    }
    for signer in signers {
        bed.emulator.set_faults(&json!({"options": {"sign": signer}})).await;
        let event = json!({"type": "ping", "version": "v1", "timestamp": Timestamp::now(), "data": {}});
        let id = status.id.as_deref().unwrap_or_default();
        // The receiver's watch may be a moment behind the keyring.
        let verified =
            poll(PATIENCE, async || match bed.emulator.deliver(id, &format!("by-{signer}"), &event).await {
                Ok(204) => Ok(()),
                other => Err(other),
            });
        verified.await.unwrap_or_else(|last| panic!("what the {signer} signs is not verified: {last:?}"));
    }
}

/// In the project before, only the key that has made it could remove it; where that was not done, a person is told.
pub async fn left_behind(bed: &Bed, wanted: &Wanted, case: &Case) {
    let left = bed.emulator.registrations(&bed.options.api_key).await;
    let is_left = (case.place, case.side) == ("l0-leave", "before");
    assert_eq!(left.len(), usize::from(is_left), "{left:#?}");
    if is_left {
        let note = bed.wait_event(NAME, "RegistrationLeft").await;
        let id = wanted.other_than.as_deref().unwrap_or_default();
        assert!(note.contains(id), "{note} does not name {id}");
    }
}

/// It is gone, and so is all that was made for it.
pub async fn nothing_left(bed: &Bed, uid: &str, wanted: &Wanted) {
    let left = bed.emulator.registrations(&wanted.key).await;
    assert_eq!(left, [Value::Null; 0], "endpoints that nobody knows any more");
    assert_eq!(bed.keyring_entry(uid).await, None, "a secret that nobody needs any more");
}

/// How many rotations there were beyond those that were asked for; not too many.
pub async fn rotations(bed: &Bed, case: &Case, wanted: &Wanted) -> usize {
    let all = bed.ledger().await.executed("webhooks.rotate");
    let beyond = all.checked_sub(wanted.rotations).expect("what was asked for was done");
    let most = match case.action {
        Action::Stop => MOST_OVERTAKEN,
        _ if case.may_lose_a_secret() => MOST,
        _ => 0,
    };
    assert!(
        beyond <= most,
        "{beyond} rotations instead of at most {most}: {:#?}",
        bed.ledger().await.sequence()
    );
    beyond
}
