//! What Gemini shows of the registration: drift, and a registration that it has disabled.

use super::super::health::{differences, look_at};
use super::*;
use crate::api::webhook::{OnDisabled, Reenabled};
use crate::gemini::{Webhook, WebhookState};

const BY_GEMINI: &str = "disabled_due_to_failed_deliveries";
const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;

/// As the spec of [`fresh`] has it.
pub fn remote(change: impl FnOnce(&mut Webhook)) -> Webhook {
    let mut remote = Webhook {
        id: ID.into(),
        name: registration_name(&fresh()),
        uri: full_url(&fresh(), PATH),
        events: fresh().spec.events,
        state: WebhookState::Enabled,
        signing_secrets: vec![],
    };
    change(&mut remote);
    remote
}

fn shown(remote: Webhook) -> Observed {
    Observed { remote: Some(remote), ..listed(&[ID]) }
}

fn disabled() -> Observed {
    shown(remote(|r| r.state = WebhookState::DisabledDueToFailedDeliveries))
}

/// Found disabled before, and enabled again so often, the last time at `time`.
fn reenabled(count: i32, since: i64, time: i64) -> GeminiWebhook {
    change(ready(), |draft| {
        draft.status.state = Some(BY_GEMINI.into());
        draft.status.reenabled = Some(Reenabled { count, since: Time(at(since)), time: Time(at(time)) });
    })
}

fn reporting(webhook: GeminiWebhook) -> GeminiWebhook {
    let webhook = edited(webhook, |w| w.spec.on_disabled = OnDisabled::Report);
    change(webhook, |d| d.set(webhook_type::REGISTERED, Is::True, "Registered", ID))
}

fn said<'a>(planned: &'a Plan, type_: &str) -> (&'a str, &'a str) {
    let condition = get(&planned.status.conditions, type_).unwrap();
    (&condition.status, &condition.reason)
}

#[test]
fn what_is_drift() {
    let webhook = fresh();
    let mut off = fresh();
    off.spec.enabled = false;
    let url = full_url(&webhook, PATH);
    let cases: Vec<(&str, &GeminiWebhook, Webhook, &[&str])> = vec![
        ("nothing", &webhook, remote(|_| {}), &[]),
        ("another order", &webhook, remote(|r| r.events.reverse()), &[]),
        ("another spelling", &webhook, remote(|r| r.uri = r.uri.replace("hooks", "HOOKS")), &[]),
        ("what is not shown", &webhook, remote(|r| (r.uri, r.events, r.name) = <_>::default()), &[]),
        ("a state of the future", &webhook, remote(|r| r.state = WebhookState::Unknown("new".into())), &[]),
        ("disabled by Gemini", &webhook, disabled().remote.unwrap(), &[]),
        ("the URL", &webhook, remote(|r| r.uri.push('x')), &["uri"]),
        ("an event less", &webhook, remote(|r| r.events.truncate(1)), &["subscribed_events"]),
        (
            "an event more",
            &webhook,
            remote(|r| r.events.push("video.generated".into())),
            &["subscribed_events"],
        ),
        ("disabled by hand", &webhook, remote(|r| r.state = WebhookState::Disabled), &["state"]),
        ("disabled as wanted", &off, remote(|r| r.state = WebhookState::Disabled), &[]),
        ("enabled by hand", &off, remote(|_| {}), &["state"]),
        ("the name", &webhook, remote(|r| r.name = "mine".into()), &["name"]),
    ];
    for (what, webhook, remote, fields) in cases {
        assert_eq!(differences(webhook, Some(&url), &remote), fields, "{what}");
    }
}

#[test]
fn drift_is_told_and_repaired() {
    let world = World::new();
    for (what, remote, message, is_ready) in [
        ("an event less", remote(|r| r.events.truncate(1)), "subscribed_events", true),
        ("the URL", remote(|r| r.uri.push('x')), "uri", false),
        ("the state", remote(|r| r.state = WebhookState::Disabled), "state", false),
    ] {
        let planned = world.plan(&ready(), &shown(remote));
        assert_eq!(planned.step, update(), "{what}");
        assert_eq!(said(&planned, webhook_type::REGISTERED), ("False", "Drifted"), "{what}");
        let told = &get(&planned.status.conditions, webhook_type::REGISTERED).unwrap().message;
        assert!(told.contains(message), "{what}: {told}");
        // Events that are not subscribed do not touch what the ping has proven; another URL does.
        assert_eq!(is_true(&planned.status.conditions, webhook_type::READY), is_ready, "{what}");
    }
    let same = world.plan(&ready(), &shown(remote(|_| {})));
    assert_eq!((same.step, said_ready(&same.status)), (Step::None, "Ready"));
    // What Gemini has refused is not tried again because of what stands there instead.
    let planned = world.plan(&rejected(moved(ready())), &shown(remote(|_| {})));
    assert_eq!(
        (&planned.step, said(&planned, webhook_type::REGISTERED)),
        (&Step::None, ("False", "Rejected"))
    );
}

fn said_ready(status: &crate::api::webhook::GeminiWebhookStatus) -> &str {
    &get(&status.conditions, webhook_type::READY).unwrap().reason
}

#[test]
fn what_somebody_else_enables_is_tested() {
    let off = change(ready(), |draft| draft.status.state = Some(BY_GEMINI.into()));
    let planned = World::new().plan(&reporting(off), &shown(remote(|_| {})));
    assert_eq!(planned.status.state.as_deref(), Some("enabled"));
    assert_eq!((&planned.step, said_ready(&planned.status)), (&ping(), "NotTested"));
}

#[test]
fn what_gemini_disabled_is_enabled_again() {
    let world = World::new();
    let planned = world.plan(&ready(), &disabled());
    assert_eq!(planned.step, update());
    assert_eq!(said(&planned, webhook_type::DELIVERY_HEALTHY), ("False", "DisabledByProvider"));
    assert_eq!(said_ready(&planned.status), "DisabledByProvider");
    let first = Reenabled { count: 1, since: Time(at(0)), time: Time(at(0)) };
    assert_eq!(planned.status.reenabled, Some(first));
    // By hand is another matter: the spec says how it should be, as often as it must.
    let by_hand = shown(remote(|r| r.state = WebhookState::Disabled));
    assert_eq!(world.plan(&reenabled(3, -200, -1), &by_hand).step, update());
    // Of no concern where nothing is wanted.
    let off = edited(ready(), |w| w.spec.enabled = false);
    let off = change(off, |d| d.set(webhook_type::REGISTERED, Is::True, "Registered", ID));
    assert_eq!(world.plan(&off, &disabled()).step, Step::None);
}

#[test]
fn pauses_between_two_enablings() {
    let world = World::new();
    for (what, webhook, step, count) in [
        ("a minute is not over", reenabled(1, -59, -59), Step::None, 1),
        ("a minute", reenabled(1, -60, -60), update(), 2),
        ("two are not over", reenabled(2, -300, -119), Step::None, 2),
        ("two minutes", reenabled(2, -300, -120), update(), 3),
        ("never more than an hour", reenabled(20, -DAY + 1, -60 * MINUTE), update(), 21),
        ("24 are enough for a day", reenabled(24, -DAY + 1, -120 * MINUTE), Step::None, 24),
        ("the next day", reenabled(24, -DAY, -120 * MINUTE), update(), 25),
        ("forgotten after a quiet day", reenabled(24, -2 * DAY, -DAY), update(), 1),
    ] {
        let planned = world.plan(&webhook, &disabled());
        assert_eq!((planned.step, planned.status.reenabled.unwrap().count), (step, count), "{what}");
        assert_eq!(get(&planned.status.conditions, "Ready").unwrap().reason, "DisabledByProvider", "{what}");
    }
}

/// Whatever Gemini does: in no 24 hours more than 24 times, and for days on end.
#[test]
fn never_more_than_24_times_in_a_day() {
    let world = World::new();
    let mut webhook = change(ready(), |draft| draft.status.state = Some(BY_GEMINI.into()));
    let mut done: Vec<i64> = vec![];
    for minute in 0..5 * 24 * 60 {
        let second = minute * MINUTE;
        let planned = plan(&webhook, &disabled(), &Memory::default(), &world.at(at(second)));
        if planned.step == update() {
            done.push(second);
        }
        // As if Gemini disabled it again at once.
        webhook.status = Some(planned.status);
    }
    assert_eq!(done[..6], [0, 60, 180, 420, 900, 1860]);
    assert!(done.len() > 4 * 24, "it is never given up: {}", done.len());
    for (first, second) in done.iter().enumerate() {
        let in_a_day = done[first..].iter().filter(|later| **later < second + DAY).count();
        assert!(in_a_day <= 24, "{in_a_day} from {second} on");
    }
}

#[test]
fn report_leaves_it_to_a_person() {
    let world = World::new();
    let planned = world.plan(&reporting(ready()), &disabled());
    assert_eq!((&planned.step, &planned.status.reenabled), (&Step::None, &None));
    assert_eq!(said(&planned, webhook_type::DELIVERY_HEALTHY), ("False", "DisabledByProvider"));
    let told = &get(&planned.status.conditions, webhook_type::READY).unwrap().message;
    assert!(told.contains("spec.onDisabled"), "{told}");

    // It is looked at again: a minute after a minute, an hour after an hour.
    let told = GeminiWebhook { status: Some(planned.status), ..reporting(ready()) };
    for (listed, again) in [(0, 60), (30, 90), (600, 1200), (5 * 3600, 6 * 3600)] {
        let memory = Memory { listed: Some(at(listed)), ..Memory::default() };
        let due = look_at(&told, told.status.as_ref().unwrap(), &memory, &world.at(at(listed)));
        assert_eq!(due, Some(at(again)), "{listed}");
    }
}

#[test]
fn when_a_disabled_registration_is_looked_at() {
    let world = World::new();
    let memory = Memory { listed: Some(at(-30)), ..Memory::default() };
    let off = edited(ready(), |w| w.spec.enabled = false);
    for (what, webhook, wanted) in [
        ("healthy", ready(), false),
        ("just enabled again", reenabled(1, -59, -59), false),
        ("to be enabled again", reenabled(1, -61, -61), true),
        ("never before", change(ready(), |d| d.status.state = Some(BY_GEMINI.into())), true),
        ("disabled by the spec", off, false),
    ] {
        assert_eq!(needs_listing(&webhook, KEY, &memory, &world.at(at(0))), wanted, "{what}");
    }
    let off = edited(ready(), |w| w.spec.enabled = false);
    let due = look_at(&off, off.status.as_ref().unwrap(), &memory, &world.at(at(0)));
    assert_eq!(due, Some(at(-30 + 6 * 3600)), "nobody pings it, so nothing else looks");
}
