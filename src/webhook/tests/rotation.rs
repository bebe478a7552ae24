//! When a signing secret is rotated, who does it, and which ones are good afterwards.

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::super::rotation::{begun, entry, previous};
use super::*;
use crate::api::ROTATE_AT_ANNOTATION;
use crate::api::keyring::{KeyringEntry, PreviousSecret, fingerprint};
use crate::api::webhook::{RevocationBehavior, SignatureScheme};
use crate::gemini::Revocation;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Gemini's 24 hours, and ten minutes.
const GRACE: i64 = DAY + 600;

/// Ready, and proven a moment ago.
fn settled(change: impl FnOnce(&mut GeminiWebhook)) -> GeminiWebhook {
    let mut webhook = ready();
    change(&mut webhook);
    webhook
}

fn every(hours: u32, revocation: RevocationBehavior) -> impl Fn(&mut GeminiWebhook) {
    move |w| {
        w.spec.rotation.interval = Some(format!("{hours}h").parse().unwrap());
        w.spec.rotation.revocation = revocation;
    }
}

fn asked_at(second: i64) -> impl Fn(&mut GeminiWebhook) {
    move |w| annotate(w, &at(second).to_string())
}

fn annotate(webhook: &mut GeminiWebhook, text: &str) {
    webhook.metadata.annotations = Some([(ROTATE_AT_ANNOTATION.to_owned(), text.to_owned())].into());
}

/// A secret that was stored at `since`; those before it end at these times.
fn aged(since: i64, ends: &[i64]) -> Observed {
    let mut seen = usual();
    let stored = seen.stored.as_mut().unwrap();
    stored.since = Some(at(since));
    stored.previous = ends.iter().enumerate().map(|(n, end)| (format!("old-{n}"), at(*end))).collect();
    seen
}

fn rotate(revocation: Revocation) -> Step {
    Step::Rotate { id: ID.into(), revocation }
}

/// With a rotation that was begun at `second`, and of which no end is recorded.
fn rotating(second: i64) -> GeminiWebhook {
    change(settled(asked_at(second)), |draft| {
        draft.rotating();
        let of_secret = |c: &&mut k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            c.type_ == webhook_type::SECRET_READY
        };
        draft.status.conditions.iter_mut().find(of_secret).unwrap().last_transition_time = Time(at(second));
    })
}

fn secret_ready(planned: &Plan) -> (&str, &str) {
    let condition = get(&planned.status.conditions, webhook_type::SECRET_READY).unwrap();
    (&condition.status, &condition.reason)
}

#[test]
fn when_it_is_due() {
    use RevocationBehavior::{After24h, Immediately};
    let world = World::new();
    let asked_of = |second, revocation| {
        settled(move |w| {
            asked_at(second)(w);
            w.spec.rotation.revocation = revocation;
        })
    };
    let three = [HOUR, 2 * HOUR, 3 * HOUR];
    let gentle = rotate(Revocation::After24h);
    let cases = vec![
        ("never", settled(|_| {}), aged(-1000 * DAY, &[]), Step::None, None),
        ("not yet", settled(every(48, After24h)), aged(-DAY, &[]), Step::None, Some(DAY)),
        ("in time", settled(every(48, After24h)), aged(-2 * DAY, &[]), gentle.clone(), Some(0)),
        (
            "at once",
            settled(every(24, Immediately)),
            aged(-DAY, &[]),
            rotate(Revocation::Immediately),
            Some(0),
        ),
        ("asked for later", settled(asked_at(9)), aged(-DAY, &[]), Step::None, Some(9)),
        ("asked for now", settled(asked_at(0)), aged(-DAY, &[]), gentle.clone(), Some(0)),
        ("asked for long ago", settled(asked_at(-HOUR)), aged(-DAY, &[]), gentle.clone(), Some(-HOUR)),
        ("done in that second", settled(asked_at(-HOUR)), aged(-HOUR, &[]), Step::None, None),
        ("done since", settled(asked_at(-HOUR)), aged(-60, &[]), Step::None, None),
        ("of an older version", settled(asked_at(-2 * HOUR)), usual(), Step::None, None),
        ("two are alive", settled(asked_at(0)), aged(-DAY, &three[..2]), gentle.clone(), Some(0)),
        ("three are alive", settled(asked_at(0)), aged(-DAY, &three), Step::None, Some(HOUR)),
        (
            "four, of another version",
            settled(asked_at(0)),
            aged(-DAY, &[10, HOUR, 20, 30]),
            Step::None,
            Some(20),
        ),
        ("of three one is dead", settled(asked_at(0)), aged(-DAY, &[-31, HOUR, HOUR]), gentle, Some(0)),
        (
            "at once waits for none",
            asked_of(0, Immediately),
            aged(-DAY, &three),
            rotate(Revocation::Immediately),
            Some(0),
        ),
    ];
    for (what, webhook, seen, step, next) in cases {
        let planned = world.plan(&webhook, &seen);
        assert_eq!(planned.step, step, "{what}");
        assert_eq!(planned.status.next_rotation_time, next.map(|second| Time(at(second))), "{what}");
        // Nothing is wrong with the old one.
        assert!(is_true(&planned.status.conditions, webhook_type::READY), "{what}");
        if let (Step::None, Some(second)) = (&planned.step, next) {
            let soon = Duration::from_secs(u64::try_from(second).unwrap()).min(Duration::from_mins(1));
            assert!(
                matches!(planned.next, Next::After(pause) if pause <= soon),
                "{what}: {:?}",
                planned.next
            );
        }
    }
}

#[test]
fn what_keeps_it_from_being_planned_is_told() {
    let world = World::new();
    for (text, word) in [("tomorrow", "tomorrow"), ("", "2026-01-31T12:00:00Z"), ("2026-01-31", "2026-01-31")]
    {
        let invalid = settled(|w| annotate(w, text));
        let planned = world.plan(&invalid, &aged(-DAY, &[]));
        assert_eq!(
            (&planned.step, secret_ready(&planned)),
            (&Step::None, ("True", "InvalidRotateAt")),
            "{text}"
        );
        let message = &get(&planned.status.conditions, webhook_type::SECRET_READY).unwrap().message;
        assert!(message.contains(word) && message.contains(ROTATE_AT_ANNOTATION), "{message}");
        // Set right, it is said no more.
        let cured = GeminiWebhook { status: Some(planned.status), ..settled(asked_at(100)) };
        assert_eq!(secret_ready(&world.plan(&cured, &aged(-DAY, &[]))), ("True", "Stored"));
    }
    let waits = world.plan(&settled(asked_at(0)), &aged(-DAY, &[HOUR, HOUR, HOUR]));
    assert_eq!(secret_ready(&waits), ("True", "RotationWaits"));
    let message = &get(&waits.status.conditions, webhook_type::SECRET_READY).unwrap().message;
    assert!(message.contains("Immediately"), "{message}");
    // Not due yet: nothing waits.
    let later = world.plan(&settled(asked_at(60)), &aged(-DAY, &[HOUR, HOUR, HOUR]));
    assert_eq!(secret_ready(&later), ("True", "Stored"));
}

/// A rotation and a self-test keep out of each other's way.
#[test]
fn a_self_test_is_not_disturbed() {
    let world = World::new();
    let asked = |webhook: GeminiWebhook| {
        let mut webhook = webhook;
        asked_at(0)(&mut webhook);
        webhook
    };
    for (what, webhook, step) in [
        ("never tested", asked(registered()), ping()),
        ("under way", asked(pinged(-5, None)), Step::None),
        ("failed", asked(pinged(-61, None)), rotate(Revocation::After24h)),
        ("to be sent again", asked(pinged(-121, None)), ping()),
    ] {
        assert_eq!(world.plan(&webhook, &aged(-DAY, &[])).step, step, "{what}");
    }
    // Just answered: as soon as that is written.
    let answered = world.plan(&asked(pinged(-5, Some(delivery(-4, "ping", SECRET)))), &aged(-DAY, &[]));
    assert_eq!((&answered.step, answered.next), (&Step::None, Next::Now));
    let written = GeminiWebhook { status: Some(answered.status), ..asked(ready()) };
    assert_eq!(world.plan(&written, &aged(-DAY, &[])).step, rotate(Revocation::After24h));
    // Nobody is sent anything: nothing is disturbed.
    let off = asked(change(edited(registered(), |w| w.spec.enabled = false), |d| {
        d.set(webhook_type::REGISTERED, Is::True, "Registered", ID);
    }));
    assert_eq!(world.plan(&off, &aged(-DAY, &[])).step, rotate(Revocation::After24h));
}

#[test]
fn it_is_told_first_and_done_by_the_one_that_told_it() {
    let world = World::new();
    let told = world.plan(&settled(asked_at(0)), &aged(-DAY, &[]));
    assert_eq!((&told.step, secret_ready(&told)), (&rotate(Revocation::After24h), ("Unknown", "Rotating")));
    let told = GeminiWebhook { status: Some(told.status), ..settled(asked_at(0)) };

    let other = Memory::default();
    let seen = |memory: &Memory, now| plan(&told, &aged(-DAY, &[]), memory, &world.at(at(now)));
    assert_eq!(seen(&other, 1).step, Step::None);
    assert!(is_true(&seen(&other, 1).status.conditions, webhook_type::READY));
    // Its answer was lost: the one that knows so does it again, the others when it must have ended.
    let ours = Memory { rotating: begun(told.status.as_ref().unwrap()), ..Memory::default() };
    assert_eq!(seen(&ours, 1).step, rotate(Revocation::After24h));
    assert_eq!(seen(&other, 60).step, Step::None);
    let taken = seen(&other, 61);
    assert_eq!((&taken.step, begun(&taken.status)), (&rotate(Revocation::After24h), Some(at(61))));
    let taken = GeminiWebhook { status: Some(taken.status), ..told };
    let late = plan(&taken, &aged(-DAY, &[]), &ours, &world.at(at(62)));
    assert_eq!(late.step, Step::None, "it is somebody else's now");
}

/// A problem is told in the words of the next plan, and does not keep self-tests from being made.
#[test]
fn a_rotation_that_fails_is_told() {
    let world = World::new();
    let webhook = rotating(-10);
    let told = GeminiWebhook { status: Some(explained(&webhook, "out of quota", at(0))), ..webhook };
    let condition = get(&told.status.as_ref().unwrap().conditions, webhook_type::SECRET_READY).unwrap();
    assert_eq!((&*condition.reason, &*condition.message), ("Rotating", "out of quota"));
    let memory =
        Memory { problem: Some("out of quota".into()), rotating: Some(at(-10)), ..Memory::default() };
    let planned = plan(&told, &aged(-DAY, &[]), &memory, &world.at(at(0)));
    assert_eq!(Some(&planned.status), told.status.as_ref(), "the two do not write in turn");
    assert_eq!(planned.step, rotate(Revocation::After24h));
    let due = change(told, |d| d.status.last_ping.as_mut().unwrap().sent_time = Time(at(-6 * HOUR)));
    assert_eq!(plan(&due, &aged(-DAY, &[]), &memory, &world.at(at(0))).step, ping());
}

/// The secret was stored, but the status that says so was not.
#[test]
fn a_rotation_whose_end_was_not_recorded_is_not_made_twice() {
    let world = World::new();
    let planned = world.plan(&rotating(-10), &aged(-10, &[GRACE]));
    assert_eq!((&planned.step, secret_ready(&planned)), (&ping(), ("True", "Stored")));
    assert_eq!(planned.status.last_rotation_time, Some(Time(at(-10))));
    assert!(is_true(&planned.status.conditions, webhook_type::READY), "what was proven stands");
    // An older one is not the one that was asked for.
    assert_eq!(world.plan(&rotating(-70), &aged(-71, &[])).step, rotate(Revocation::After24h));
    // Whatever has become of the wish for it: Gemini may sign with a secret that nobody has.
    let mut withdrawn = rotating(-70);
    withdrawn.metadata.annotations = None;
    assert_eq!(world.plan(&withdrawn, &aged(-DAY, &[])).step, rotate(Revocation::After24h));
}

#[test]
fn which_secrets_prove_a_ping() {
    let world = World::new();
    for (what, name, ends, proven) in [
        ("the new one", SECRET, &[GRACE][..], true),
        ("the one before, while Gemini may use it", "old-0", &[GRACE], true),
        ("the one before, revoked at once", "old-0", &[], false),
        ("one that has expired", "old-0", &[-4], false),
        ("a stranger", "old-1", &[GRACE], false),
    ] {
        let planned = world.plan(&pinged(-5, Some(delivery(-4, "ping", name))), &aged(-60, ends));
        assert_eq!(is_true(&planned.status.conditions, webhook_type::READY), proven, "{what}");
    }
    // When an old one ends, what may have been proven with it is proven again.
    let ended = aged(-60, &[-1]);
    assert_eq!(world.plan(&ready(), &ended).step, ping());
    assert_eq!(world.plan(&ready(), &aged(-60, &[-31])).step, Step::None, "it had ended before");
}

fn secret_entry(current: &str, old: &[(&str, i64)]) -> KeyringEntry {
    KeyringEntry {
        registration: ID.into(),
        scheme: SignatureScheme::StandardWebhooks,
        current: current.into(),
        since: Some(at(0)),
        previous: old
            .iter()
            .map(|(secret, end)| PreviousSecret { secret: (*secret).into(), expire_time: at(*end) })
            .collect(),
        salt: None,
    }
}

#[test]
fn what_the_keyring_holds_afterwards() {
    use Revocation::{After24h, Immediately};
    let of_another = KeyringEntry { registration: "other".into(), ..secret_entry("a", &[]) };
    for (what, before, revocation, wanted) in [
        ("nothing before", None, After24h, vec![]),
        ("beside", Some(secret_entry("a", &[])), After24h, vec![("a", GRACE)]),
        ("in its place", Some(secret_entry("a", &[("b", 9)])), Immediately, vec![]),
        ("the newest first", Some(secret_entry("b", &[("a", 9)])), After24h, vec![("b", GRACE), ("a", 9)]),
        ("without the dead", Some(secret_entry("b", &[("a", 0)])), After24h, vec![("b", GRACE)]),
        (
            "at most three",
            Some(secret_entry("d", &[("c", 9), ("b", 8), ("a", 7)])),
            After24h,
            vec![("d", GRACE), ("c", 9), ("b", 8)],
        ),
        ("of another registration", Some(of_another), After24h, vec![]),
    ] {
        let made = entry(before, secret_entry("new", &[]), revocation, at(0));
        let held: Vec<_> = made.previous.iter().map(|p| (p.secret.expose_secret(), p.expire_time)).collect();
        let wanted: Vec<_> = wanted.into_iter().map(|(secret, end)| (secret, at(end))).collect();
        assert_eq!((made.current.expose_secret(), held), ("new", wanted), "{what}");
        let names: Vec<_> = made.previous.iter().map(|p| (fingerprint(&p.secret), p.expire_time)).collect();
        assert_eq!(previous(&made), names);
    }
}

proptest! {
    /// Whatever is asked for and however often: never more than three old secrets, none that is good is dropped, and each
    /// wish is served in the end.
    #[test]
    fn no_good_secret_is_dropped(gaps in proptest::collection::vec(1..40 * HOUR, 1..12)) {
        let world = World::new();
        let mut now = 0;
        let mut held = secret_entry("0", &[]);
        for (number, gap) in gaps.into_iter().enumerate() {
            now += gap;
            let wish = now;
            loop {
                let stored = Stored {
                    registration: ID.into(),
                    fingerprint: SECRET.into(),
                    since: held.since,
                    previous: previous(&held),
                };
                let seen = Observed { stored: Some(stored), ..usual() };
                let mut webhook = settled(asked_at(wish));
                // Tested a moment ago.
                let tested = LastPing { sent_time: Time(at(now)), received_time: Some(Time(at(now))) };
                webhook = change(webhook, |d| d.status.last_ping = Some(tested));
                let planned = plan(&webhook, &seen, &Memory::default(), &world.at(at(now)));
                if matches!(planned.step, Step::Rotate { .. }) {
                    break;
                }
                let next = planned.status.next_rotation_time.expect("it waits for a time").0;
                prop_assert!(next > at(now) && next <= at(wish + GRACE), "{next}");
                now = next.as_second() - at(0).as_second();
            }
            let alive = held.previous.iter().filter(|p| p.expire_time > at(now)).count();
            prop_assert!(alive < 3);
            let mut made = secret_entry(&(number + 1).to_string(), &[]);
            made.since = Some(at(now));
            held = entry(Some(held), made, Revocation::After24h, at(now));
            prop_assert_eq!(held.previous.len(), alive + 1);
        }
    }
}
