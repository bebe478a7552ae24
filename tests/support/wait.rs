//! Waiting for objects. What was waited for in vain is printed with everything that may say why.

use std::fmt::Debug;
use std::time::Duration;

use gemini_operator::api::{GeminiBatch, GeminiWebhook, condition};
use kube::Api;
use serde::de::DeserializeOwned;

use super::{PATIENCE, Room, poll};

impl Room {
    /// Waits until the batch satisfies `done`.
    pub async fn wait_batch(
        &self,
        name: &str,
        what: &str,
        done: impl Fn(&GeminiBatch) -> bool,
    ) -> GeminiBatch {
        self.wait_for(self.batches(), name, what, PATIENCE, done).await
    }

    /// Waits until the webhook satisfies `done`.
    pub async fn wait_webhook(
        &self,
        name: &str,
        what: &str,
        done: impl Fn(&GeminiWebhook) -> bool,
    ) -> GeminiWebhook {
        self.wait_for(self.webhooks(), name, what, PATIENCE, done).await
    }

    /// Waits for the condition `type_` to have this status and reason.
    pub async fn wait_condition(&self, name: &str, type_: &str, status: &str, reason: &str) -> GeminiBatch {
        let what = format!("{type_}={status}/{reason}");
        self.wait_batch(name, &what, |batch| {
            batch_condition(batch, type_).is_some_and(|c| c.status == status && c.reason == reason)
        })
        .await
    }

    /// Waits for the batch to be `Complete`; one that has `Failed` ends the wait.
    pub async fn wait_complete(&self, name: &str) -> GeminiBatch {
        let batch = self.wait_batch(name, "finished", GeminiBatch::is_finished).await;
        let complete =
            batch_condition(&batch, condition::batch_type::COMPLETE).is_some_and(|c| c.status == "True");
        assert!(complete, "{name} failed\n{}", self.account(name, &batch).await);
        batch
    }

    /// Waits for an Event about an object; its note.
    pub async fn wait_event(&self, name: &str, reason: &str) -> String {
        let seen = poll(PATIENCE, async || {
            let events = self.events(name).await;
            let found = events.iter().find(|(_, r, _)| r == reason).map(|(_, _, note)| note.clone());
            found.ok_or(events)
        });
        match seen.await {
            Ok(note) => note,
            Err(events) => {
                panic!("no Event {reason} about {name} but {events:#?}\n{}", self.log_tails())
            }
        }
    }

    /// Waits until there is no such object any more.
    pub async fn wait_gone<K>(&self, api: Api<K>, name: &str)
    where
        K: Clone + DeserializeOwned + Debug + serde::Serialize,
    {
        let seen = poll(PATIENCE, async || match api.get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(other),
        });
        if let Err(left) = seen.await {
            panic!("{name} is still there after {PATIENCE:?}\n{}", self.account(name, &left.ok()).await);
        }
    }

    async fn wait_for<K>(
        &self,
        api: Api<K>,
        name: &str,
        what: &str,
        within: Duration,
        done: impl Fn(&K) -> bool,
    ) -> K
    where
        K: Clone + DeserializeOwned + Debug + serde::Serialize,
    {
        let seen = poll(within, async || match api.get(name).await {
            Ok(object) if done(&object) => Ok(object),
            other => Err(other),
        });
        match seen.await {
            Ok(object) => object,
            Err(Ok(object)) => {
                panic!("{name}: not {what} after {within:?}\n{}", self.account(name, &object).await)
            }
            Err(Err(error)) => panic!("{name}: not {what} after {within:?}: {error}"),
        }
    }

    /// The object, the events about it, the ledger and the ends of the logs.
    async fn account<K: serde::Serialize>(&self, name: &str, object: &K) -> String {
        let object = serde_json::to_string_pretty(object).unwrap_or_else(|error| error.to_string());
        let ledger = self.ledger().await;
        format!(
            "--- object\n{object}\n--- events\n{:#?}\n--- calls at the emulator\n{:#?}\n--- deliveries\n{}\n{}",
            self.events(name).await,
            ledger.sequence(),
            ledger.0["deliveries"],
            self.log_tails(),
        )
    }

    /// The ends of all logs.
    pub fn log_tails(&self) -> String {
        (self.why)(self) + &self.tail_of("emulator")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the test failed in namespace {}\n{}", self.namespace, self.log_tails());
        }
    }
}

/// A condition of a batch.
pub fn batch_condition<'a>(
    batch: &'a GeminiBatch,
    type_: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    batch.status.as_ref().and_then(|status| condition::get(&status.conditions, type_))
}
