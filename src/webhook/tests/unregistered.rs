//! Modes `External` and `Dynamic`: what is said of a webhook that the operator does not register.

use proptest::prelude::*;

use super::super::signing::{Offer, Problem};
use super::super::unregistered::{Observed, Plan, Signing, Step, plan};
use super::properties::any_credentials;
use super::*;

fn of_mode(mode: &str, signature: &str) -> GeminiWebhook {
    let mut webhook = claimed();
    webhook.status =
        webhook.status.map(|status| GeminiWebhookStatus { url: Some(full_url(&fresh(), PATH)), ..status });
    webhook.spec.mode = serde_json::from_value(json!(mode)).unwrap();
    webhook.spec.signature = Some(serde_json::from_value(json!(signature)).unwrap());
    if mode == "External" {
        webhook.spec.signing_secret = Some(serde_json::from_value(json!({"name": "signing"})).unwrap());
    }
    webhook
}

fn external() -> GeminiWebhook {
    of_mode("External", "StandardWebhooks")
}

fn dynamic() -> GeminiWebhook {
    of_mode("Dynamic", "DynamicV1a")
}

fn seen(signing: Option<(Offer, bool)>) -> Observed {
    Observed {
        credentials: Some(Credentials::Ready { fingerprint: KEY.into() }),
        signing: signing.map(|(offer, held)| Signing { offer, held }),
    }
}

fn unusable(reason: &'static str) -> Offer {
    Offer::Unusable(Problem { reason, message: "spec.signingSecret: m".into() })
}

fn planned(webhook: &GeminiWebhook, seen: &Observed) -> Plan {
    plan(webhook, seen, None, &World::new().at(at(0)))
}

fn shown(planned: &Plan, type_: &str) -> String {
    get(&planned.status.conditions, type_).map_or("-".into(), |c| format!("{}/{}", c.status, c.reason))
}

#[test]
fn table() {
    use webhook_type::{READY, REGISTERED, REPLAYABLE_SIGNATURE, SECRET_READY};
    let stored = || seen(Some((Offer::Stored, true)));
    let absent = || Observed { credentials: Some(Credentials::NotFound("m".into())), ..stored() };
    let refused = || Observed { credentials: Some(Credentials::Refused("m".into())), ..seen(None) };
    let off = |mut webhook: GeminiWebhook| {
        webhook.spec.enabled = false;
        webhook
    };
    let tutorial = || of_mode("External", "XGoogSignature");
    let mut unclaimed = external();
    unclaimed.metadata.finalizers = None;
    let none = Observed::default;
    let cases: Vec<(&str, GeminiWebhook, Observed, Step, &str, &str)> = vec![
        ("a new object", fresh(), none(), Step::None, READY, "False/Preparing"),
        ("not claimed", unclaimed, none(), Step::Claim, READY, "False/Registering"),
        ("nothing is registered", external(), stored(), Step::None, REGISTERED, "True/NotRequired"),
        ("its secret is stored", external(), stored(), Step::None, SECRET_READY, "True/Stored"),
        ("and verifies", external(), stored(), Step::None, READY, "True/Ready"),
        ("new", external(), seen(Some((Offer::New, false))), Step::Store, SECRET_READY, "Unknown/Storing"),
        ("not yet", external(), seen(Some((Offer::New, false))), Step::Store, READY, "False/Storing"),
        ("changed", external(), seen(Some((Offer::New, true))), Step::Store, READY, "True/Ready"),
        (
            "no Secret",
            external(),
            seen(Some((unusable("SecretNotFound"), false))),
            Step::None,
            SECRET_READY,
            "False/SecretNotFound",
        ),
        (
            "removed",
            external(),
            seen(Some((unusable("SecretNotFound"), true))),
            Step::None,
            READY,
            "False/SecretNotFound",
        ),
        (
            "another's",
            tutorial(),
            seen(Some((unusable("KeyReused"), true))),
            Step::None,
            SECRET_READY,
            "False/KeyReused",
        ),
        ("no API key", external(), absent(), Step::None, READY, "False/CredentialsNotFound"),
        ("no API key, and verified", external(), absent(), Step::None, SECRET_READY, "True/Stored"),
        ("a bad API key", dynamic(), refused(), Step::None, READY, "False/CredentialsInvalid"),
        ("public keys", dynamic(), seen(None), Step::None, SECRET_READY, "True/NotRequired"),
        ("with each job", dynamic(), seen(None), Step::None, READY, "True/Ready"),
        ("switched off", off(dynamic()), seen(None), Step::None, READY, "False/DisabledByUser"),
        ("switched off", off(external()), stored(), Step::None, READY, "False/DisabledByUser"),
        ("the tutorial's", tutorial(), stored(), Step::None, REPLAYABLE_SIGNATURE, "True/XGoogSignature"),
        ("not the tutorial's", external(), stored(), Step::None, REPLAYABLE_SIGNATURE, "-"),
    ];
    for (what, webhook, seen, step, type_, wanted) in cases {
        let planned = planned(&webhook, &seen);
        assert_eq!((planned.step, shown(&planned, type_)), (step, wanted.to_owned()), "{what}: {type_}");
    }
}

#[test]
fn the_address_is_there_before_anything_else() {
    let first = planned(&fresh(), &Observed::default());
    assert_eq!(first.status.path.as_deref(), Some(PATH));
    assert_eq!((first.step, first.next), (Step::None, Next::Now));
    let ready = planned(&dynamic(), &seen(None));
    assert_eq!(ready.status.url.as_deref(), Some("https://hooks.test/v1/h/token"));
    // By these a batch finds it, and passes it.
    assert_eq!(ready.status.key_fingerprint.as_deref(), Some(KEY));
    assert_eq!(ready.status.id, None);
}

/// What is read must also be written and watched within the minute that is promised.
#[test]
fn a_secret_is_looked_at_in_time() {
    let Next::After(pause) = planned(&external(), &seen(Some((Offer::Stored, true)))).next else {
        panic!("a Secret tells nobody that it changed")
    };
    assert!(pause < Duration::from_secs(55), "{pause:?}");
}

#[test]
fn words_about_the_secret_end_when_it_is_good() {
    let bad = planned(&external(), &seen(Some((unusable("InvalidSecret"), true))));
    let said = get(&bad.status.conditions, webhook_type::SECRET_READY).unwrap();
    assert!(said.message.contains("verified with the secret that was stored before"), "{}", said.message);
    let webhook = GeminiWebhook { status: Some(bad.status), ..external() };
    let good = planned(&webhook, &seen(Some((Offer::Stored, true))));
    assert_eq!(shown(&good, webhook_type::SECRET_READY), "True/Stored");
    assert_eq!(shown(&good, webhook_type::READY), "True/Ready");
}

/// A keyring that cannot be written: said where it stands, in the form in which the next plan says it.
#[test]
fn what_keeps_a_secret_from_being_stored_is_told() {
    let first = planned(&external(), &seen(Some((Offer::New, false))));
    let webhook = GeminiWebhook { status: Some(first.status), ..external() };
    let told = explained(&webhook, "no right", at(0));
    for type_ in [webhook_type::SECRET_READY, webhook_type::READY] {
        assert_eq!(get(&told.conditions, type_).unwrap().message, "no right", "{type_}");
    }
    let webhook = GeminiWebhook { status: Some(told.clone()), ..webhook };
    let again = plan(&webhook, &seen(Some((Offer::New, false))), Some("no right"), &World::new().at(at(0)));
    assert_eq!(again.status, told);
}

#[test]
fn a_delivery_proves_the_way() {
    use webhook_type::{DELIVERY_HEALTHY as HEALTHY, ENDPOINT_REACHABLE as REACHABLE};
    let stored = seen(Some((Offer::Stored, true)));
    let start = planned(&external(), &stored);
    assert_eq!(shown(&start, REACHABLE), "Unknown/NotTested");
    let with = |status: &GeminiWebhookStatus, delivery: LastDelivery| {
        let status = GeminiWebhookStatus { last_delivery: Some(delivery), ..status.clone() };
        GeminiWebhook { status: Some(status), ..external() }
    };
    let skewed = |skew: i64| LastDelivery { skew_seconds: Some(skew), ..delivery(5, "batch.failed", SECRET) };
    let tell = |mut rejected: LastDelivery, reason: &str| {
        let refused = rejected.rejected.as_mut().unwrap();
        refused.reason = reason.into();
        refused.observed_audience = (reason == "aud").then(|| "me".into());
        rejected
    };
    let none = LastDelivery::default;
    for (what, delivery, reachable, healthy) in [
        (
            "in the same second",
            delivery(0, "batch.succeeded", SECRET),
            "True/DeliveryVerified",
            "True/Healthy",
        ),
        ("late clocks", skewed(61), "True/DeliveryVerified", "False/ClockSkew"),
        ("clocks that differ a little", skewed(-60), "True/DeliveryVerified", "True/Healthy"),
        ("refused", refused_at(5, none()), "False/BadSignature", "False/RejectingSignatures"),
        (
            "refused for its time",
            tell(refused_at(5, none()), "timestamp_too_old"),
            "False/ClockSkew",
            "False/RejectingSignatures",
        ),
        (
            "for somebody else",
            tell(refused_at(5, none()), "aud"),
            "False/BadSignature",
            "False/RejectingSignatures",
        ),
        (
            "refused before",
            refused_at(5, delivery(6, "ping", SECRET)),
            "True/DeliveryVerified",
            "True/Healthy",
        ),
        (
            "refused after",
            refused_at(6, delivery(5, "ping", SECRET)),
            "False/BadSignature",
            "False/RejectingSignatures",
        ),
        (
            "before there was this address",
            delivery(-1, "ping", SECRET),
            "Unknown/NotTested",
            "Unknown/NotTested",
        ),
    ] {
        let planned = planned(&with(&start.status, delivery), &stored);
        assert_eq!(shown(&planned, REACHABLE), reachable, "{what}");
        assert_eq!(shown(&planned, HEALTHY), healthy, "{what}");
        assert_eq!(shown(&planned, webhook_type::READY), "True/Ready", "{what}");
    }
    let audience = planned(&with(&start.status, tell(refused_at(5, none()), "aud")), &stored);
    let message = &get(&audience.status.conditions, REACHABLE).unwrap().message;
    assert!(message.contains("spec.jwt.audience") && message.contains("\"me\""), "{message}");
}

/// Another address is another way; the proof of the one before does not count for it.
#[test]
fn another_address_is_not_proven() {
    let stored = seen(Some((Offer::Stored, true)));
    let arrived = GeminiWebhookStatus {
        last_delivery: Some(delivery(-10, "batch.failed", SECRET)),
        ..planned(&external(), &stored).status
    };
    let env = World::new();
    let then = |webhook: &GeminiWebhook, second| plan(webhook, &stored, None, &env.at(at(second)));
    // Its first pass was at -20, so that it is proven.
    let mut webhook = external();
    webhook.status = Some(then(&webhook, -20).status);
    webhook.status.as_mut().unwrap().last_delivery = arrived.last_delivery;
    let proven = then(&webhook, -5);
    assert_eq!(shown(&proven, webhook_type::ENDPOINT_REACHABLE), "True/DeliveryVerified");
    let moved = moved(GeminiWebhook { status: Some(proven.status), ..external() });
    let untested = then(&moved, 0);
    assert_eq!(shown(&untested, webhook_type::ENDPOINT_REACHABLE), "Unknown/NotTested");
    let moved = GeminiWebhook { status: Some(untested.status), ..moved };
    assert_eq!(shown(&then(&moved, 1), webhook_type::ENDPOINT_REACHABLE), "Unknown/NotTested");
}

#[test]
fn the_scheme_may_change() {
    let stored = seen(Some((Offer::Stored, true)));
    let first = planned(&of_mode("External", "XGoogSignature"), &stored);
    let webhook = GeminiWebhook { status: Some(first.status), ..external() };
    let second = planned(&webhook, &stored);
    assert_eq!(shown(&second, webhook_type::REPLAYABLE_SIGNATURE), "-");
    // Nothing of the new scheme is held yet.
    let changing = planned(&webhook, &seen(Some((Offer::New, false))));
    assert_eq!((changing.step, shown(&changing, webhook_type::READY)), (Step::Store, "False/Storing".into()));
}

fn any_seen() -> impl Strategy<Value = Observed> {
    let offer = prop_oneof![
        Just(Offer::Stored),
        Just(Offer::New),
        Just(unusable("SecretNotFound")),
        Just(unusable("KeyReused")),
    ];
    // What is stored is held.
    let signing = (offer, any::<bool>()).prop_map(|(offer, held)| {
        let held = held || offer == Offer::Stored;
        Signing { offer, held }
    });
    (any_credentials(), signing)
        .prop_map(|(credentials, signing)| Observed { credentials, signing: Some(signing) })
}

fn any_webhook() -> impl Strategy<Value = GeminiWebhook> {
    let delivery = prop_oneof![
        Just(None),
        (-100i64..100).prop_map(|s| Some(delivery(s, "batch.failed", SECRET))),
        (-100i64..100, -100i64..100).prop_map(|(r, d)| Some(refused_at(r, delivery(d, "ping", SECRET)))),
        (-100i64..100).prop_map(|s| Some(refused_at(s, LastDelivery::default()))),
    ];
    (0..5u8, any::<bool>(), any::<bool>(), delivery).prop_map(|(stage, enabled, moves, delivery)| {
        let mut webhook = match stage {
            0 => GeminiWebhook { spec: external().spec, ..fresh() },
            1 => external(),
            2 => of_mode("External", "XGoogSignature"),
            3 => dynamic(),
            _ => of_mode("Dynamic", "DynamicJwt"),
        };
        webhook.spec.enabled = enabled;
        if let Some(status) = &mut webhook.status {
            status.last_delivery = delivery;
        }
        if moves { moved(webhook) } else { webhook }
    })
}

fn matching(webhook: &GeminiWebhook, seen: Observed) -> Observed {
    Observed { signing: seen.signing.filter(|_| webhook.spec.signing_secret.is_some()), ..seen }
}

proptest! {
    /// The same sight twice: what was planned stands.
    #[test]
    fn planning_twice_plans_nothing_new(
        webhook in any_webhook(), seen in any_seen(), before in any_seen(), later in 0i64..1000,
    ) {
        let (before, seen) = (matching(&webhook, before), matching(&webhook, seen));
        let world = World::new();
        let webhook = GeminiWebhook { status: Some(planned(&webhook, &before).status), ..webhook };
        let first = planned(&webhook, &seen);
        let written = GeminiWebhook { status: Some(first.status.clone()), ..webhook };
        let second = plan(&written, &seen, None, &world.at(at(later)));
        prop_assert_eq!(&second.status, &first.status);
        prop_assert_eq!(second.step, first.step);
    }

    /// Ready says that deliveries can be verified, and is said as soon as they can.
    #[test]
    fn ready_is_what_can_be_verified(webhook in any_webhook(), seen in any_seen(), before in any_seen()) {
        let (before, seen) = (matching(&webhook, before), matching(&webhook, seen));
        let webhook = GeminiWebhook { status: Some(planned(&webhook, &before).status), ..webhook };
        let planned = planned(&webhook, &seen);
        let verifies = match &seen.signing {
            None => webhook.spec.signing_secret.is_none(),
            Some(signing) => signing.held && !matches!(signing.offer, Offer::Unusable(_)),
        };
        let key = matches!(seen.credentials, Some(Credentials::Ready { .. }));
        let claimed = webhook.metadata.finalizers.is_some();
        if claimed && seen.credentials.is_some() {
            let ready = is_true(&planned.status.conditions, webhook_type::READY);
            prop_assert_eq!(ready, verifies && key && webhook.spec.enabled);
        }
        // Nothing of a registration.
        prop_assert_eq!((&planned.status.id, &planned.status.last_ping, &planned.status.state), (&None, &None, &None));
    }
}
