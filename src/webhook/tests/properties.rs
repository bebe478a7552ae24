//! Planning twice without a change plans nothing, and `Ready` is said of nothing that was not proven.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::gemini::WebhookState;

fn any_webhook() -> impl Strategy<Value = GeminiWebhook> {
    let newest =
        (-130i64..5, prop_oneof![Just("ping"), Just("batch.failed")], prop_oneof![Just(SECRET), Just("old")]);
    let newest = proptest::option::of(newest);
    let refused = proptest::option::of(-130i64..0);
    let asked = proptest::option::of(-100i64..100);
    (0..11u8, -130i64..0, newest, refused, 1..3i64, any::<bool>(), any::<bool>(), asked).prop_map(
        |(stage, sent, newest, refused, generation, enabled, other_url, asked)| {
            let newest = newest.map(|(second, type_, key)| delivery(second, type_, key));
            let newest = match refused {
                Some(second) => Some(refused_at(second, newest.unwrap_or_default())),
                None => newest,
            };
            let mut webhook = match stage {
                0 => fresh(),
                1 => claimed(),
                2 => intended(),
                3 => doubtful(),
                4 => registered(),
                5 => rejected(registered()),
                6 => rejected(claimed()),
                7 => ready(),
                // A self-test of what was proven before.
                8 => change(ready(), |draft| {
                    draft.status.last_ping =
                        Some(LastPing { sent_time: Time(at(sent)), received_time: None });
                    draft.status.last_delivery = newest;
                }),
                9 => change(ready(), |draft| {
                    draft.rotating();
                    draft.restart(webhook_type::SECRET_READY);
                }),
                _ => pinged(sent, newest),
            };
            if let Some(second) = asked {
                let annotation = (crate::api::ROTATE_AT_ANNOTATION.to_owned(), at(second).to_string());
                webhook.metadata.annotations = Some([annotation].into());
            }
            webhook.metadata.generation = Some(generation);
            webhook.spec.enabled = enabled;
            // No edit without a new generation.
            if other_url && generation > 1 {
                webhook.spec.endpoint.url = "https://other.test".into();
            }
            webhook
        },
    )
}

/// What may be known of the API key.
pub(super) fn any_credentials() -> impl Strategy<Value = Option<Credentials>> {
    prop_oneof![
        Just(None),
        Just(Some(Credentials::Ready { fingerprint: KEY.into() })),
        Just(Some(Credentials::Ready { fingerprint: "other".into() })),
        Just(Some(Credentials::NotFound("m".into()))),
        Just(Some(Credentials::Refused("m".into()))),
    ]
}

fn any_seen() -> impl Strategy<Value = Observed> {
    let stored = prop_oneof![
        Just(None),
        Just(usual().stored),
        Just(usual().stored.map(|s| Stored { fingerprint: "old".into(), ..s })),
        Just(usual().stored.map(|s| Stored {
            since: Some(at(-50)),
            previous: vec![("old".into(), at(30))],
            ..s
        })),
    ];
    let found =
        proptest::option::of(proptest::sample::subsequence(vec!["wh-a".to_owned(), ID.to_owned()], 0..=2));
    let state = prop_oneof![
        Just(WebhookState::Enabled),
        Just(WebhookState::Disabled),
        Just(WebhookState::DisabledDueToFailedDeliveries),
        Just(WebhookState::Unknown("new".into())),
    ];
    (any_credentials(), stored, found, state, any::<bool>()).prop_map(
        |(credentials, stored, found, state, drifted)| {
            // Whoever lists sees the one that he knows.
            let shown = found.as_ref().is_some_and(|found| found.iter().any(|id| id == ID));
            let remote = shown.then(|| {
                super::health::remote(|r| {
                    r.state = state;
                    if drifted {
                        r.uri.push('x');
                    }
                })
            });
            Observed { credentials, stored, found, remote }
        },
    )
}

fn any_memory() -> impl Strategy<Value = Memory> {
    let problem = proptest::option::of(Just("m".to_owned()));
    (any::<[bool; 3]>(), 0..4u32, 0..4u32, problem).prop_map(
        |([registering, overtaken, ping_lost], empty_listings, ping_failures, problem)| Memory {
            registering,
            overtaken,
            empty_listings,
            ping_failures,
            ping_lost,
            problem,
            ..Memory::default()
        },
    )
}

proptest! {
    /// The same sight twice: what was planned stands, and nothing is written or asked for a second time.
    #[test]
    fn planning_twice_plans_nothing_new(webhook in any_webhook(), seen in any_seen(), memory in any_memory()) {
        let (world, now) = (World::new(), at(0));
        let first = plan(&webhook, &seen, &memory, &world.at(now));
        let webhook_before = webhook.clone();
        let written = GeminiWebhook { status: Some(first.status.clone()), ..webhook };
        let second = plan(&written, &seen, &memory, &world.at(now));
        if matches!(first.step, Step::Ping { .. }) && !memory.ping_lost {
            prop_assert_ne!(second.step, first.step, "one ping, not two");
        } else if first.status.reenabled != webhook_before.status.as_ref().and_then(|s| s.reenabled.clone()) {
            prop_assert_eq!(second.step, Step::None, "enabled again once, not twice");
        } else if matches!(first.step, Step::Rotate { .. }) {
            prop_assert!(!matches!(second.step, Step::Rotate { .. }), "one rotation, not two");
        } else if matches!(first.step, Step::Renew { .. }) {
            prop_assert!(!matches!(second.step, Step::Renew { .. } | Step::Rotate { .. }), "one rotation, not two");
        } else if matches!(first.step, Step::Register { .. }) {
            // This process sets `registering` before it sends; without that, the intent is somebody's.
            let ours = memory.registering || memory.empty_listings >= world.timing.listings_required;
            prop_assert_eq!(second.step == first.step, ours, "one intent, one POST");
        } else if first.step == Step::None && first.next == Next::Now {
            // A step of the plan itself: the path, or a wait for what was not looked at.
            prop_assert_eq!(&second.status.path, &first.status.path);
        } else {
            prop_assert_eq!((&second.status, &second.step, second.next), (&first.status, &first.step, first.next));
        }
    }

    /// `Ready` is never said of a URL, a secret or a generation that no delivery has proven.
    #[test]
    fn ready_is_proven(webhook in any_webhook(), seen in any_seen(), memory in any_memory(), later in 0i64..300) {
        // What was not looked at changes nothing that was said before.
        prop_assume!(matches!(seen.credentials, Some(Credentials::Ready { .. })));
        let world = World::new();
        let now = at(0).checked_add(SignedDuration::from_secs(later)).unwrap();
        let planned = plan(&webhook, &seen, &memory, &world.at(now));
        if is_true(&planned.status.conditions, webhook_type::READY) {
            prop_assert!(is_true(&planned.status.conditions, webhook_type::ENDPOINT_REACHABLE));
            // By the last ping, or by the one before it as long as that one may arrive. A pass that ends before it comes
            // to that, for a look at Gemini or a twin, changes nothing that was said.
            let other_key = !seen.shows_key_of(webhook.status.as_ref().unwrap()) && seen.found.is_none();
            if !other_key && planned.next != Next::Now {
                let Some(ping) = &planned.status.last_ping else {
                    prop_assert!(planned.status.last_rotation_time.is_some(), "only a rotation waits for its ping");
                    return Ok(());
                };
                let timeout = SignedDuration::from_secs(61);
                let waits = memory.ping_lost || now < ping.sent_time.0.checked_add(timeout).unwrap();
                prop_assert!(ping.received_time.is_some() || waits);
            }
            prop_assert_eq!(planned.status.url.as_deref(), Some(&*full_url(&webhook, PATH)));
            prop_assert!(planned.status.id.is_some());
        }
    }
}
