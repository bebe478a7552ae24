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
    let done = change(told.clone(), |draft| draft.set(webhook_type::SECRET_READY, Is::True, "Recovered", ""));
    assert_eq!(world.plan(&done, &usual()).step, ping());
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
