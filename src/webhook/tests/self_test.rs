//! The self-test comes back, keeps what was proven until it fails, and says which stage failed.

use super::*;

const INTERVAL: i64 = 6 * 3600;

/// Proven by a ping that was sent at `sent`.
fn proven(sent: i64) -> GeminiWebhook {
    let mut webhook = pinged(sent, Some(delivery(sent + 1, "ping", SECRET)));
    let world = World::new();
    webhook.status = Some(plan(&webhook, &usual(), &Memory::default(), &world.at(at(sent + 1))).status);
    webhook
}

/// Proven before, and asked again at `sent`.
fn asked_again(sent: i64, newest: LastDelivery) -> GeminiWebhook {
    change(proven(sent - INTERVAL), |draft| {
        draft.status.last_ping = Some(LastPing { sent_time: Time(at(sent)), received_time: None });
        draft.status.last_delivery = Some(newest);
    })
}

fn refused_for(reason: &str, second: i64) -> LastDelivery {
    let rejected =
        RejectedDelivery { reason: reason.into(), time: Time(at(second)), observed_audience: None };
    LastDelivery { rejected: Some(rejected), ..delivery(-INTERVAL, "ping", SECRET) }
}

fn skewed(skew: i64, second: i64) -> LastDelivery {
    LastDelivery { skew_seconds: Some(skew), ..delivery(second, "ping", SECRET) }
}

fn said<'a>(planned: &'a Plan, type_: &str) -> (&'a str, &'a str) {
    let condition = get(&planned.status.conditions, type_).unwrap();
    (&condition.status, &condition.reason)
}

#[test]
fn when_it_is_due() {
    let world = World::new();
    let half = edited(proven(-3600), |w| w.spec.self_test.interval = "30m".parse().unwrap());
    let half = change(half, |d| d.set(webhook_type::REGISTERED, Is::True, "Registered", ID));
    let minute = Next::After(world.timing.secret_reread);
    for (what, webhook, step, next) in [
        ("an hour ago", proven(-3600), Step::None, minute),
        ("nearly", proven(-INTERVAL + 7), Step::None, Next::After(Duration::from_secs(7))),
        ("six hours ago", proven(-INTERVAL), ping(), Next::Now),
        ("by an interval of its own", half, ping(), Next::Now),
    ] {
        let planned = world.plan(&webhook, &usual());
        assert_eq!((planned.step, planned.next), (step, next), "{what}");
        assert!(is_true(&planned.status.conditions, webhook_type::READY), "{what}: nothing has failed");
    }
}

/// Divided windows never overlap: a test begins when the one before it must have ended.
#[test]
fn a_divided_interval_is_longer_than_the_test() {
    let world = World { timing: Timing::divided(100_000) };
    let webhook = proven(-3600);
    let due = self_test_at(&webhook, webhook.status.as_ref().unwrap(), None, &world.at(at(0))).unwrap();
    assert!(due > at(-3600 + 1), "{due}");
}

#[test]
fn it_begins_with_a_look_at_the_registration() {
    let world = World::new();
    let seen = |second| Memory { listed: Some(at(second)), ..Memory::default() };
    let due = change(proven(-INTERVAL), |d| d.status.registered_time = Some(Time(at(-2 * INTERVAL))));
    for (what, webhook, memory, wanted) in [
        ("not due", proven(-60), seen(-50), false),
        ("due", due.clone(), seen(-60), true),
        ("looked at since", due, seen(0), false),
    ] {
        assert_eq!(needs_listing(&webhook, KEY, &memory, &world.at(at(0))), wanted, "{what}");
    }
}

#[test]
fn what_was_proven_stands_until_it_fails() {
    let world = World::new();
    let waiting = world.plan(&asked_again(-60, LastDelivery::default()), &usual());
    assert_eq!((&waiting.step, waiting.next), (&Step::None, Next::After(Duration::from_secs(1))));
    assert_eq!(said(&waiting, webhook_type::READY), ("True", "Ready"));
    // Whatever else took it away meanwhile, and has passed.
    let keyless = change(asked_again(-5, LastDelivery::default()), |d| d.not_ready("CredentialsNotFound"));
    assert_eq!(said(&world.plan(&keyless, &usual()), webhook_type::READY), ("True", "Ready"));

    let failed = world.plan(&asked_again(-61, LastDelivery::default()), &usual());
    assert_eq!(said(&failed, webhook_type::ENDPOINT_REACHABLE), ("False", "PingTimeout"));
    assert_eq!(said(&failed, webhook_type::READY), ("False", "EndpointUnreachable"));

    let passed = world.plan(&asked_again(-5, delivery(-4, "ping", SECRET)), &usual());
    assert_eq!(said(&passed, webhook_type::READY), ("True", "Ready"));
    assert_eq!(passed.status.last_ping.unwrap().received_time, Some(Time(at(-4))));

    // Gemini could not be asked: that says nothing of the way from there to here.
    let lost = Memory { ping_lost: true, ..Memory::default() };
    let unasked = plan(&asked_again(-300, LastDelivery::default()), &usual(), &lost, &world.at(at(0)));
    assert_eq!((&unasked.step, said(&unasked, webhook_type::READY)), (&ping(), ("True", "Ready")));
}

#[test]
fn which_stage_failed() {
    let world = World::new();
    for (reason, reachable, healthy, word) in [
        ("no_matching_signature", "BadSignature", "RejectingSignatures", "no_matching_signature"),
        ("missing_header", "BadSignature", "RejectingSignatures", "missing_header"),
        ("no_usable_key", "BadSignature", "RejectingSignatures", "keyring"),
        ("timestamp_too_old", "ClockSkew", "ClockSkew", "time synchronisation"),
        ("timestamp_too_new", "ClockSkew", "ClockSkew", "time synchronisation"),
    ] {
        let failed = world.plan(&asked_again(-61, refused_for(reason, -60)), &usual());
        assert_eq!(said(&failed, webhook_type::ENDPOINT_REACHABLE), ("False", reachable), "{reason}");
        assert_eq!(said(&failed, webhook_type::DELIVERY_HEALTHY), ("False", healthy), "{reason}");
        let message = &get(&failed.status.conditions, webhook_type::ENDPOINT_REACHABLE).unwrap().message;
        assert!(message.contains(word), "{reason}: {message}");
        assert!(!is_true(&failed.status.conditions, webhook_type::READY), "{reason}");
    }
    // What was refused before this self-test is no word on it.
    let failed = world.plan(&asked_again(-61, refused_for("timestamp_too_old", -62)), &usual());
    assert_eq!(said(&failed, webhook_type::ENDPOINT_REACHABLE), ("False", "PingTimeout"));
}

#[test]
fn a_skewed_clock_is_told_before_it_ends_deliveries() {
    let world = World::new();
    for (skew, healthy, word) in [
        (60, ("True", "Healthy"), ""),
        (-60, ("True", "Healthy"), ""),
        (61, ("False", "ClockSkew"), "61 s ahead of"),
        (-200, ("False", "ClockSkew"), "200 s behind"),
        (i64::MIN, ("False", "ClockSkew"), "behind"),
    ] {
        let planned = world.plan(&asked_again(-5, skewed(skew, -4)), &usual());
        assert_eq!(said(&planned, webhook_type::DELIVERY_HEALTHY), healthy, "{skew}");
        let message = &get(&planned.status.conditions, webhook_type::DELIVERY_HEALTHY).unwrap().message;
        assert!(message.contains(word), "{skew}: {message}");
        assert!(is_true(&planned.status.conditions, webhook_type::READY), "{skew}: they are verified yet");
    }
    // It is looked at again after an hour, not after six.
    let skewed = change(proven(-3600), |d| d.status.last_delivery = Some(skewed(100, -3599)));
    assert_eq!(world.plan(&skewed, &usual()).step, ping());
}
