//! A stored secret that verifies nothing is replaced: told first, by one controller, after pauses that grow.

use super::*;

fn renew() -> Step {
    Step::Renew { id: ID.into() }
}

fn refused(sent: i64, second: i64) -> GeminiWebhook {
    pinged(sent, Some(refused_at(second, LastDelivery::default())))
}

fn secret_ready(planned: &Plan) -> (&str, &str) {
    let condition = get(&planned.status.conditions, webhook_type::SECRET_READY).unwrap();
    (&condition.status, &condition.reason)
}

#[test]
fn what_leads_to_a_renewal() {
    let world = World::new();
    let other = RejectedDelivery {
        reason: "timestamp_too_old".into(),
        time: Time(at(-100)),
        observed_audience: None,
    };
    let other = LastDelivery { rejected: Some(other), ..LastDelivery::default() };
    let proven = refused_at(-120, delivery(-119, "ping", SECRET));
    let lost = Memory { ping_lost: true, ..Memory::default() };
    let renewed = |renewals| Memory { renewals, ..Memory::default() };
    for (what, webhook, memory, step) in [
        ("before the pause is over", refused(-120, -119), Memory::default(), Step::None),
        ("refused", refused(-121, -120), Memory::default(), renew()),
        ("before this ping", refused(-121, -122), Memory::default(), ping()),
        ("for another reason", pinged(-121, Some(other)), Memory::default(), ping()),
        ("no word of it", pinged(-121, None), Memory::default(), ping()),
        ("Gemini was not asked", refused(-121, -120), lost, ping()),
        ("another delivery is proven", pinged(-121, Some(proven)), Memory::default(), Step::None),
        ("the second, before its pause", refused(-180, -179), renewed(1), Step::None),
        ("the second", refused(-181, -180), renewed(1), renew()),
        ("the tenth, before its pause", refused(-3660, -3659), renewed(9), Step::None),
        ("the tenth", refused(-3661, -3660), renewed(9), renew()),
    ] {
        assert_eq!(plan(&webhook, &usual(), &memory, &world.at(at(0))).step, step, "{what}");
    }
}

#[test]
fn a_renewal_is_told_and_left_to_the_one_that_told_it() {
    let world = World::new();
    let told = world.plan(&refused(-121, -120), &usual());
    assert_eq!((&told.step, secret_ready(&told)), (&renew(), ("False", "Refused")));
    assert_eq!(told.status.last_ping, None);
    let told = GeminiWebhook { status: Some(told.status), ..registered() };

    let seen = |now| plan(&told, &usual(), &Memory::default(), &world.at(at(now)));
    assert_eq!((seen(1).step, seen(1).next), (Step::None, Next::After(Duration::from_mins(1))));
    assert_eq!((seen(60).step, seen(61).step), (Step::None, renew()), "who told it has not done it");
    let retold = seen(61);
    let retold = GeminiWebhook { status: Some(retold.status), ..told.clone() };
    let next = plan(&retold, &usual(), &Memory::default(), &world.at(at(62)));
    assert_eq!(next.step, Step::None, "one of those that waited has told it again");
    let done = change(told.clone(), |draft| draft.set(webhook_type::SECRET_READY, Is::True, "Recovered", ""));
    assert_eq!(world.plan(&done, &usual()).step, ping());
}

/// The secret was stored, but the controller died before it said so: no other one is asked for.
#[test]
fn a_renewal_whose_end_was_not_written_is_done() {
    let world = World::new();
    let told = world.plan(&refused(-121, -120), &usual());
    let told = GeminiWebhook { status: Some(told.status), ..registered() };
    let seen = |since| {
        let stored = usual().stored.map(|s| Stored { since: Some(at(since)), ..s });
        plan(&told, &Observed { stored, ..usual() }, &Memory::default(), &world.at(at(61)))
    };
    assert_eq!(seen(-1).step, renew(), "an older one");
    let done = seen(0);
    assert_eq!((&done.step, secret_ready(&done)), (&ping(), ("True", "Recovered")));
    assert_eq!(done.status.last_rotation_time, Some(Time(at(0))));
}

/// What another controller has stored may be the older one, and a rotation that revokes leaves only the newest.
#[test]
fn a_secret_that_two_had_rotated_is_replaced() {
    let world = World::new();
    let overtaken = Memory { overtaken: true, ..Memory::default() };
    let seen = |webhook: &GeminiWebhook, now| plan(webhook, &usual(), &overtaken, &world.at(at(now)));
    let proven = pinged(-30, Some(delivery(-29, "ping", SECRET)));
    assert_eq!(world.plan(&proven, &usual()).step, Step::None);
    let told = seen(&proven, 0);
    assert_eq!((&told.step, secret_ready(&told)), (&renew(), ("False", "Refused")));
    assert_eq!(told.status.last_ping, None, "what is proven was proven before");
    // One is enough.
    let told = GeminiWebhook { status: Some(told.status), ..proven };
    assert_eq!((seen(&told, 60).step, seen(&told, 61).step), (Step::None, renew()));
    let rotating = change(told, Draft::rotating);
    assert_ne!(seen(&rotating, 61).step, renew(), "it is got already");
    // Nothing is stored: then that is told, and made good.
    assert_eq!(seen(&doubtful(), 0).step, Step::None);
    assert_eq!(plan(&doubtful(), &listed(&["wh-a"]), &overtaken, &world.at(at(0))).step, adopt("wh-a", &[]));
}

/// The secret was stored, but the status that says so was not.
#[test]
fn a_proven_secret_is_ready() {
    for reason in ["Lost", "Refused"] {
        let webhook = change(pinged(-30, Some(delivery(-29, "ping", SECRET))), |draft| {
            draft.set(webhook_type::SECRET_READY, Is::False, reason, "");
        });
        assert_eq!(secret_ready(&World::new().plan(&webhook, &usual())), ("True", "Stored"));
    }
}

#[test]
fn an_adoption_is_told_before_it_rotates() {
    let planned = World::new().plan(&doubtful(), &listed(&["wh-a"]));
    assert_eq!((&planned.step, secret_ready(&planned)), (&adopt("wh-a", &[]), ("False", "Lost")));
}
