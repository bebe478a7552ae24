//! PURE: which webhook tells of the end of a batch.

use super::observed::Tracking;
use crate::api::GeminiWebhook;
use crate::api::batch::{Run, WebhookChoice, WebhookMode};
use crate::api::condition::{is_true, webhook_type};
use crate::api::webhook::{GeminiWebhookStatus, RegistrationMode};

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
    let candidates: Vec<&GeminiWebhook> = webhooks.filter(|w| is_near(w, near) && fits(choice, w)).collect();
    let is_ready = |s: &GeminiWebhookStatus| is_true(&s.conditions, webhook_type::READY) && is_of(s, keys);
    let usable = candidates.iter().filter(|w| w.status.as_ref().is_some_and(is_ready));
    let rank = |w: &&&GeminiWebhook| (is_dynamic(w), full_name(w));
    match usable.min_by_key(rank) {
        Some(webhook) => Chosen::Ready(webhook),
        None if candidates.is_empty() => Chosen::None,
        None => Chosen::NotReady,
    }
}

/// The same in the words of a plan. `today`: the fingerprint of the API key; `submitted`: the run whose job is at Gemini.
pub fn of<'a>(
    choice: &WebhookChoice,
    near: [&str; 2],
    today: Option<&str>,
    submitted: Option<&Run>,
    webhooks: impl Iterator<Item = &'a GeminiWebhook> + Clone,
) -> Tracking {
    if choice.mode == WebhookMode::None {
        return Tracking::SweepOnly("spec.webhook.mode is None".into());
    }
    if let Some(uri) = submitted.and_then(|run| run.webhook_uri.as_deref()) {
        return by_address(uri, near, webhooks);
    }
    let keys = keys(today, submitted);
    // A job that was sent without an address is never given one.
    let of_use = webhooks.clone().filter(|w| submitted.is_none() || !is_dynamic(w));
    match choose(choice, near, keys, of_use) {
        Chosen::Ready(webhook) if is_dynamic(webhook) => Tracking::Dynamic {
            webhook: full_name(webhook),
            url: webhook.status.as_ref().and_then(|status| status.url.clone()).unwrap_or_default(),
        },
        Chosen::Ready(webhook) => Tracking::Static { webhook: full_name(webhook) },
        Chosen::None if submitted.is_some() && !matches!(choose(choice, near, keys, webhooks), Chosen::None) => {
            Tracking::NotReady(
                "the job was submitted before a GeminiWebhook of mode Dynamic was ready, so that Gemini has no address \
                 for its events; a list call finds the end"
                    .into(),
            )
        }
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

/// The webhook that should tell of the end, ready or not: one that was ready yesterday is what the batch relied on.
pub fn relied_on<'a>(
    choice: &WebhookChoice,
    near: [&str; 2],
    today: Option<&str>,
    submitted: Option<&Run>,
    webhooks: impl Iterator<Item = &'a GeminiWebhook>,
) -> Option<&'a GeminiWebhook> {
    let near = webhooks.filter(|w| is_near(w, near));
    if let Some(uri) = submitted.and_then(|run| run.webhook_uri.as_deref()) {
        return near.into_iter().find(|w| has_address(w, uri));
    }
    let keys = keys(today, submitted);
    let ranked = near.filter(|w| fits(choice, w) && !is_dynamic(w) && w.spec.enabled).filter_map(|w| {
        let status = w.status.as_ref().filter(|status| is_of(status, keys))?;
        Some(((!is_true(&status.conditions, webhook_type::READY), full_name(w)), w))
    });
    ranked.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, webhook)| webhook)
}

/// The webhook whose address the job was given: no other one is told of it, and this one whatever its key.
fn by_address<'a>(uri: &str, near: [&str; 2], webhooks: impl Iterator<Item = &'a GeminiWebhook>) -> Tracking {
    let mut near = webhooks.filter(|w| is_near(w, near));
    match near.find(|w| has_address(w, uri)) {
        Some(w) if w.status.as_ref().is_some_and(|s| is_true(&s.conditions, webhook_type::READY)) => {
            Tracking::Dynamic { webhook: full_name(w), url: uri.into() }
        }
        Some(w) => Tracking::NotReady(format!(
            "GeminiWebhook {}, whose address the job was given, is not ready; until it is, a list call finds the end",
            full_name(w)
        )),
        None => Tracking::SweepOnly(
            "the GeminiWebhook whose address the job was given is gone, or has another address by now; a list call finds \
             the end"
                .into(),
        ),
    }
}

/// The key of the job, and the one of today: whichever of the two a webhook was last seen with, it is of the project that
/// the job's event comes from. In a rotation the webhook follows a little later.
fn keys<'a>(today: Option<&'a str>, submitted: Option<&'a Run>) -> [Option<&'a str>; 2] {
    [today, submitted.map(|run| run.key_fingerprint.as_str())]
}

fn is_of(status: &GeminiWebhookStatus, keys: [Option<&str>; 2]) -> bool {
    let key = status.key_fingerprint.as_deref();
    key.is_some() && keys.contains(&key)
}

fn is_near(webhook: &GeminiWebhook, near: [&str; 2]) -> bool {
    webhook.metadata.namespace.as_deref().is_some_and(|namespace| near.contains(&namespace))
}

/// Whether it is one that the batch chooses among.
fn fits(choice: &WebhookChoice, webhook: &GeminiWebhook) -> bool {
    let mode = match choice.mode {
        WebhookMode::Auto => true,
        WebhookMode::Static => !is_dynamic(webhook),
        WebhookMode::Dynamic => is_dynamic(webhook),
        WebhookMode::None => false,
    };
    mode && (choice.name.is_none() || choice.name == webhook.metadata.name)
}

fn has_address(webhook: &GeminiWebhook, uri: &str) -> bool {
    webhook.status.as_ref().and_then(|status| status.url.as_deref()) == Some(uri)
}

fn is_dynamic(webhook: &GeminiWebhook) -> bool {
    webhook.spec.mode == RegistrationMode::Dynamic
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
            "status": {"keyFingerprint": key, "url": format!("https://hooks.test/{namespace}/{name}"), "conditions": [{
                "type": "Ready", "status": ready, "reason": "r", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap()
    }

    fn choice(mode: WebhookMode, name: Option<&str>) -> WebhookChoice {
        WebhookChoice { mode, name: name.map(Into::into) }
    }

    /// A job that was submitted with this key, and with this address.
    fn run(key: &str, uri: Option<&str>) -> Run {
        serde_json::from_value(json!({
            "name": "run-1", "attempt": 1, "submission": "Recorded", "nonce": "", "holder": "", "marker": "",
            "inputFile": "", "keyFingerprint": key, "webhookUri": uri, "intentTime": "2026-01-01T00:00:00Z", "rows": 1,
        }))
        .unwrap()
    }

    #[test]
    fn who_should_have_told() {
        let ready = |name, mode| webhook("team", name, mode, "True", Some("job"));
        let lost = |name, mode| webhook("team", name, mode, "False", Some("job"));
        let off = {
            let mut webhook = ready("a", "Static");
            webhook.spec.enabled = false;
            webhook
        };
        let (auto, named) = (choice(WebhookMode::Auto, None), choice(WebhookMode::Static, Some("b")));
        let url = "https://hooks.test/team/d";
        for (what, choice, run, webhooks, expected) in [
            ("none", &auto, run("job", None), vec![], None),
            ("the only one", &auto, run("job", None), vec![ready("a", "Static")], Some("a")),
            (
                "a ready one first",
                &auto,
                run("job", None),
                vec![lost("a", "Static"), ready("b", "Static")],
                Some("b"),
            ),
            (
                "none is ready",
                &auto,
                run("job", None),
                vec![lost("b", "External"), lost("a", "Static")],
                Some("a"),
            ),
            (
                "by its name",
                &named,
                run("job", None),
                vec![ready("a", "Static"), lost("b", "Static")],
                Some("b"),
            ),
            ("of another key", &auto, run("other", None), vec![ready("a", "Static")], None),
            ("switched off", &auto, run("job", None), vec![off], None),
            ("no address", &auto, run("job", None), vec![ready("d", "Dynamic")], None),
            (
                "an address",
                &auto,
                run("other", Some(url)),
                vec![ready("a", "Static"), lost("d", "Dynamic")],
                Some("d"),
            ),
        ] {
            let found = relied_on(choice, ["team", "operator"], None, Some(&run), webhooks.iter());
            assert_eq!(found.and_then(|w| w.metadata.name.as_deref()), expected, "{what}");
        }
    }

    fn tracked(choice: &WebhookChoice, run: Option<&Run>, webhooks: &[GeminiWebhook]) -> String {
        match of(choice, ["team", "operator"], Some("today"), run, webhooks.iter()) {
            Tracking::Static { webhook } => format!("static {webhook}"),
            Tracking::Dynamic { webhook, url } => format!("dynamic {webhook} {url}"),
            Tracking::NotReady(why) if why.contains("with this API key") => "not ready".into(),
            Tracking::NotReady(why) if why.contains("no address") => "no address".into(),
            Tracking::NotReady(why) if why.contains("is not ready;") => "address not ready".into(),
            Tracking::SweepOnly(why) if why.contains("gone") => "gone".into(),
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
        let operators = webhook("operator", "all", "Dynamic", "True", key);
        let foreign = webhook("other", "main", "Static", "True", key);
        let other_key = webhook("team", "other-key", "Dynamic", "True", Some("other"));
        let no_key = webhook("team", "no-key", "Static", "True", None);
        let broken = webhook("team", "broken", "Dynamic", "False", key);
        let all = [&registered, &elsewhere, &dynamic, &operators, &foreign, &other_key, &no_key, &broken];
        let all: Vec<GeminiWebhook> = all.into_iter().cloned().collect();
        let (first, named) = (
            "dynamic operator/all https://hooks.test/operator/all",
            "dynamic team/a-dynamic https://hooks.test/team/a-dynamic",
        );
        for (what, choice, webhooks, wanted) in [
            ("what is registered first", choice(Auto, None), &all[..], "static team/elsewhere"),
            ("no Dynamic one by Static", choice(Static, None), &all[2..], "not ready"),
            ("any that is left", choice(Auto, None), &all[2..], first),
            ("Dynamic among others", choice(Dynamic, None), &all, first),
            ("by name", choice(Dynamic, Some("a-dynamic")), &all, named),
            ("by name, of another mode", choice(Dynamic, Some("main")), &all, "not ready"),
            ("by name, whatever it is", choice(Auto, Some("a-dynamic")), &all, named),
            ("by name, there is none", choice(Auto, Some("gone")), &all, "not ready"),
            ("none that is ready", choice(Auto, None), &all[5..], "not ready"),
            ("none that is near", choice(Auto, None), &all[4..5], "sweep"),
            ("none that is near, and wanted", choice(Dynamic, None), &all[4..5], "not ready"),
            ("not wanted", choice(Off, None), &all, "sweep"),
        ] {
            assert_eq!(tracked(&choice, None, webhooks), wanted, "{what}");
        }
    }

    #[test]
    fn the_key_of_today_and_that_of_the_job() {
        let of_key = |key| [webhook("team", "main", "Static", "True", Some(key))];
        let auto = choice(WebhookMode::Auto, None);
        let submitted = run("then", None);
        for (key, wanted) in
            [("today", "static team/main"), ("then", "static team/main"), ("other", "not ready")]
        {
            assert_eq!(tracked(&auto, Some(&submitted), &of_key(key)), wanted, "{key}");
        }
        assert_eq!(tracked(&auto, None, &of_key("then")), "not ready");
    }

    #[test]
    fn a_job_is_told_of_where_it_was_sent_with_and_nowhere_else() {
        use WebhookMode::{Auto, Dynamic, None as Off};
        let registered = webhook("team", "main", "Static", "True", Some("today"));
        let dynamic = |ready| webhook("team", "dynamic", "Dynamic", ready, Some("other"));
        let elsewhere = webhook("other", "dynamic", "Dynamic", "True", Some("today"));
        let with = run("then", Some("https://hooks.test/team/dynamic"));
        let without = run("today", None);
        let named = "dynamic team/dynamic https://hooks.test/team/dynamic";
        for (what, mode, run, webhooks, wanted) in [
            ("its own", Dynamic, &with, vec![registered.clone(), dynamic("True")], named),
            ("whatever the mode says by now", Auto, &with, vec![registered.clone(), dynamic("True")], named),
            ("not wanted any more", Off, &with, vec![dynamic("True")], "sweep"),
            ("not ready", Dynamic, &with, vec![registered.clone(), dynamic("False")], "address not ready"),
            ("deleted", Dynamic, &with, vec![registered.clone(), elsewhere], "gone"),
            ("without an address", Dynamic, &without, vec![dynamic("True")], "no address"),
            ("without an address, by chance", Auto, &without, vec![dynamic("True")], "no address"),
            (
                "without an address, and told of",
                Auto,
                &without,
                vec![registered, dynamic("True")],
                "static team/main",
            ),
            ("without any", Auto, &without, vec![], "sweep"),
            ("without any, and wanted", Dynamic, &without, vec![], "not ready"),
        ] {
            assert_eq!(tracked(&choice(mode, None), Some(run), &webhooks), wanted, "{what}");
        }
    }
}
