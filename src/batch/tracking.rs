//! PURE: which webhook tells of the end of a batch.

use super::observed::Tracking;
use crate::api::GeminiWebhook;
use crate::api::batch::{WebhookChoice, WebhookMode};
use crate::api::condition::{is_true, webhook_type};
use crate::api::webhook::RegistrationMode;

/// What is known of the webhooks that a batch may rely on.
pub enum Chosen<'a> {
    /// A ready one of the right mode.
    Ready(&'a GeminiWebhook),
    /// There is one that would do, were it ready and of the same API key.
    NotReady,
    /// There is none that would do.
    None,
}

/// The webhook of a batch: of the namespaces `near` (its own and the operator's), last seen with one of the API `keys`.
///
/// What is registered needs nothing from the batch, and tells also of a job that was sent without an address. So one of
/// mode `Dynamic` comes last, and then the names decide: two controllers choose the same one.
pub fn choose<'a>(
    choice: &WebhookChoice,
    near: [&str; 2],
    keys: [Option<&str>; 2],
    webhooks: impl Iterator<Item = &'a GeminiWebhook>,
) -> Chosen<'a> {
    let is_dynamic = |w: &GeminiWebhook| w.spec.mode == RegistrationMode::Dynamic;
    let fits = |w: &&GeminiWebhook| match choice.mode {
        WebhookMode::Auto => true,
        WebhookMode::Static => !is_dynamic(w),
        WebhookMode::Dynamic => is_dynamic(w),
        WebhookMode::None => false,
    };
    let is_near = |w: &&GeminiWebhook| w.metadata.namespace.as_deref().is_some_and(|n| near.contains(&n));
    let is_named = |w: &&GeminiWebhook| choice.name.is_none() || choice.name == w.metadata.name;
    let candidates: Vec<&GeminiWebhook> = webhooks.filter(is_near).filter(is_named).filter(fits).collect();
    let usable = candidates.iter().filter(|w| {
        w.status.as_ref().is_some_and(|s| {
            let key = s.key_fingerprint.as_deref();
            is_true(&s.conditions, webhook_type::READY) && key.is_some() && keys.contains(&key)
        })
    });
    let rank = |w: &&&GeminiWebhook| (is_dynamic(w), full_name(w));
    match usable.min_by_key(rank) {
        Some(webhook) => Chosen::Ready(webhook),
        None if candidates.is_empty() => Chosen::None,
        None => Chosen::NotReady,
    }
}

/// The same in the words of a plan.
pub fn of<'a>(
    choice: &WebhookChoice,
    near: [&str; 2],
    keys: [Option<&str>; 2],
    webhooks: impl Iterator<Item = &'a GeminiWebhook>,
) -> Tracking {
    if choice.mode == WebhookMode::None {
        return Tracking::SweepOnly("spec.webhook.mode is None".into());
    }
    match choose(choice, near, keys, webhooks) {
        Chosen::Ready(webhook) if webhook.spec.mode == RegistrationMode::Dynamic => {
            Tracking::Dynamic { webhook: full_name(webhook) }
        }
        Chosen::Ready(webhook) => Tracking::Static { webhook: full_name(webhook) },
        Chosen::None if choice.name.is_none() && choice.mode == WebhookMode::Auto => Tracking::SweepOnly(
            "there is no GeminiWebhook for this namespace; a list call finds the end".into(),
        ),
        Chosen::None | Chosen::NotReady => Tracking::NotReady(match choice.mode {
            WebhookMode::Dynamic => not_ready(" of mode Dynamic"),
            WebhookMode::Static => not_ready(" of mode Static or External"),
            WebhookMode::Auto | WebhookMode::None => not_ready(""),
        }),
    }
}

fn not_ready(which: &str) -> String {
    format!(
        "no ready GeminiWebhook{which} with this API key was found; until there is one, a list call finds the end"
    )
}

fn full_name(webhook: &GeminiWebhook) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&webhook.metadata.namespace), part(&webhook.metadata.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn webhook(namespace: &str, name: &str, mode: &str, ready: &str, key: Option<&str>) -> GeminiWebhook {
        let signing = (mode == "External").then(|| json!({"name": "signing"}));
        serde_json::from_value(json!({
            "apiVersion": "gemini-operator.io/v1alpha1",
            "kind": "GeminiWebhook",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": "https://hooks.test"},
                "mode": mode, "signingSecret": signing,
            },
            "status": {"keyFingerprint": key, "conditions": [{
                "type": "Ready", "status": ready, "reason": "r", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap()
    }

    fn choice(mode: WebhookMode, name: Option<&str>) -> WebhookChoice {
        WebhookChoice { mode, name: name.map(Into::into) }
    }

    fn tracked(choice: &WebhookChoice, webhooks: &[GeminiWebhook]) -> String {
        match of(choice, ["team", "operator"], [Some("today"), Some("then")], webhooks.iter()) {
            Tracking::Static { webhook } => format!("static {webhook}"),
            Tracking::Dynamic { webhook } => format!("dynamic {webhook}"),
            Tracking::NotReady(why) if why.contains("with this API key") => "not ready".into(),
            Tracking::NotReady(why) => why,
            Tracking::SweepOnly(_) => "sweep".into(),
        }
    }

    #[test]
    fn table() {
        use WebhookMode::{Auto, Dynamic, None as Off, Static};
        let key = Some("today");
        let registered = webhook("team", "main", "Static", "True", key);
        let elsewhere = webhook("team", "elsewhere", "External", "True", key);
        let dynamic = webhook("team", "a-dynamic", "Dynamic", "True", key);
        let operators = webhook("operator", "all", "Dynamic", "True", Some("then"));
        let foreign = webhook("other", "main", "Static", "True", key);
        let other_key = webhook("team", "other-key", "Dynamic", "True", Some("other"));
        let no_key = webhook("team", "no-key", "Static", "True", None);
        let broken = webhook("team", "broken", "Dynamic", "False", key);
        let all = [&registered, &elsewhere, &dynamic, &operators, &foreign, &other_key, &no_key, &broken];
        let all: Vec<GeminiWebhook> = all.into_iter().cloned().collect();
        for (what, choice, webhooks, wanted) in [
            ("what is registered first", choice(Auto, None), &all[..], "static team/elsewhere"),
            ("no Dynamic one by Static", choice(Static, None), &all[2..], "not ready"),
            ("any that is left", choice(Auto, None), &all[2..], "dynamic operator/all"),
            ("Dynamic among others", choice(Dynamic, None), &all, "dynamic operator/all"),
            ("by name", choice(Dynamic, Some("a-dynamic")), &all, "dynamic team/a-dynamic"),
            ("by name, of another mode", choice(Dynamic, Some("main")), &all, "not ready"),
            ("by name, whatever it is", choice(Auto, Some("a-dynamic")), &all, "dynamic team/a-dynamic"),
            ("by name, there is none", choice(Auto, Some("gone")), &all, "not ready"),
            ("none that is ready", choice(Auto, None), &all[5..], "not ready"),
            ("none that is near", choice(Auto, None), &all[4..5], "sweep"),
            ("none that is near, and wanted", choice(Dynamic, None), &all[4..5], "not ready"),
            ("not wanted", choice(Off, None), &all, "sweep"),
        ] {
            assert_eq!(tracked(&choice, webhooks), wanted, "{what}");
        }
    }

    #[test]
    fn the_key_of_today_and_that_of_the_job() {
        let of_key = |key| [webhook("team", "main", "Static", "True", Some(key))];
        let auto = choice(WebhookMode::Auto, None);
        for (key, wanted) in
            [("today", "static team/main"), ("then", "static team/main"), ("other", "not ready")]
        {
            assert_eq!(tracked(&auto, &of_key(key)), wanted, "{key}");
        }
    }
}
