//! `plan` as a table; its properties, health, self-tests, renewal and rotation are in files of their own.

mod health;
mod properties;
mod renewal;
mod rotation;
mod self_test;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;
use serde_json::json;

use super::draft::{Draft, explained};
use super::memory::Memory;
use super::plan::{
    Env, Observed, Plan, Step, Stored, full_url, is_in_doubt, needs_listing, plan, registration_name,
};
use super::proof::self_test_at;
use crate::api::FINALIZER;
use crate::api::condition::{Is, get, is_true, webhook_type};
use crate::api::webhook::{GeminiWebhook, LastDelivery, LastPing, RejectedDelivery};
use crate::controller::{Credentials, Next};
use crate::submit::Timing;

const ID: &str = "wh-b";
const KEY: &str = "fp";
const SECRET: &str = "secret-fp";
const PATH: &str = "/v1/h/token";

/// So many seconds after the tests' now.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

struct World {
    timing: Timing,
}

impl World {
    fn new() -> Self {
        Self { timing: Timing::production() }
    }

    fn at(&self, now: Timestamp) -> Env<'_> {
        Env { timing: &self.timing, now, token: "token" }
    }

    fn plan(&self, webhook: &GeminiWebhook, seen: &Observed) -> Plan {
        plan(webhook, seen, &Memory::default(), &self.at(at(0)))
    }
}

fn fresh() -> GeminiWebhook {
    let spec = json!({"apiKeySecretRef": {"name": "gemini"}, "endpoint": {"url": "https://hooks.test"}});
    let mut webhook = GeminiWebhook::new("main", serde_json::from_value(spec).unwrap());
    webhook.metadata = ObjectMeta {
        name: Some("main".into()),
        namespace: Some("team".into()),
        uid: Some("0b0c6d2e".into()),
        generation: Some(1),
        ..ObjectMeta::default()
    };
    webhook
}

fn change(mut webhook: GeminiWebhook, change: impl FnOnce(&mut Draft)) -> GeminiWebhook {
    let mut draft = Draft::new(&webhook, None, at(-60));
    change(&mut draft);
    webhook.status = Some(draft.status);
    webhook
}

/// With a path and the finalizer.
fn claimed() -> GeminiWebhook {
    let mut webhook = change(fresh(), |draft| {
        draft.status.path = Some(PATH.into());
        draft.not_ready("Registering");
    });
    webhook.metadata.finalizers = Some(vec![FINALIZER.into()]);
    webhook
}

/// With an intent to register whose outcome was not recorded.
fn intended() -> GeminiWebhook {
    change(claimed(), Draft::registering)
}

fn doubtful() -> GeminiWebhook {
    change(intended(), |draft| draft.set(webhook_type::REGISTERED, Is::Unknown, "OutcomeUnknown", ""))
}

/// Registered an hour ago, never tested.
fn registered() -> GeminiWebhook {
    let url = full_url(&fresh(), PATH);
    change(claimed(), |draft| {
        draft.status.id = Some(ID.into());
        draft.status.url = Some(url);
        draft.status.state = Some("enabled".into());
        draft.status.key_fingerprint = Some(KEY.into());
        draft.status.registered_time = Some(Time(at(-3600)));
        draft.set(webhook_type::REGISTERED, Is::True, "Registered", ID);
        draft.set(webhook_type::SECRET_READY, Is::True, "Stored", "");
        draft.untested();
    })
}

/// With a ping that was sent at `sent`, and the newest delivery.
fn pinged(sent: i64, delivery: Option<LastDelivery>) -> GeminiWebhook {
    change(registered(), |draft| {
        draft.status.last_ping = Some(LastPing { sent_time: Time(at(sent)), received_time: None });
        draft.status.last_delivery = delivery;
    })
}

fn delivery(second: i64, type_: &str, fingerprint: &str) -> LastDelivery {
    LastDelivery {
        time: Some(Time(at(second))),
        type_: Some(type_.into()),
        key_fingerprint: Some(fingerprint.into()),
        ..LastDelivery::default()
    }
}

/// The newest delivery, and one that was refused for its signature.
fn refused_at(second: i64, newest: LastDelivery) -> LastDelivery {
    let rejected = RejectedDelivery {
        reason: "no_matching_signature".into(),
        time: Time(at(second)),
        observed_audience: None,
    };
    LastDelivery { rejected: Some(rejected), ..newest }
}

fn ready() -> GeminiWebhook {
    let mut webhook = pinged(-30, Some(delivery(-29, "ping", SECRET)));
    webhook.status = Some(World::new().plan(&webhook, &usual()).status);
    webhook
}

/// A good key and the stored secret, no listing.
fn usual() -> Observed {
    Observed {
        credentials: Some(Credentials::Ready { fingerprint: KEY.into() }),
        stored: Some(Stored {
            registration: ID.into(),
            fingerprint: SECRET.into(),
            since: None,
            previous: vec![],
        }),
        found: None,
        remote: None,
    }
}

fn listed(ids: &[&str]) -> Observed {
    Observed { found: Some(ids.iter().map(|id| (*id).to_owned()).collect()), ..usual() }
}

fn with_key(seen: Observed, credentials: Credentials) -> Observed {
    Observed { credentials: Some(credentials), ..seen }
}

fn edited(mut webhook: GeminiWebhook, edit: impl FnOnce(&mut GeminiWebhook)) -> GeminiWebhook {
    webhook.metadata.generation = Some(2);
    edit(&mut webhook);
    webhook
}

fn moved(webhook: GeminiWebhook) -> GeminiWebhook {
    edited(webhook, |w| w.spec.endpoint.url = "https://other.test".into())
}

fn rejected(webhook: GeminiWebhook) -> GeminiWebhook {
    change(webhook, |draft| {
        draft.set(webhook_type::REGISTERED, Is::False, "Rejected", "m");
        draft.not_ready("Rejected");
    })
}

fn ping() -> Step {
    Step::Ping { id: ID.into() }
}

fn update() -> Step {
    Step::Update { id: ID.into() }
}

fn adopt(id: &str, twins: &[&str]) -> Step {
    Step::Adopt { id: id.into(), twins: twins.iter().map(|t| (*t).to_owned()).collect() }
}

#[test]
fn table() {
    let world = World::new();
    let register = || Step::Register { name: registration_name(&fresh()) };
    let other = || Credentials::Ready { fingerprint: "other".into() };
    let absent = || Credentials::NotFound("m".into());
    let mut unclaimed = claimed();
    unclaimed.metadata.finalizers = None;
    let lost = Observed { stored: None, ..usual() };
    let cases: Vec<(&str, GeminiWebhook, Observed, Step, &str, &str)> = vec![
        ("a new object", fresh(), usual(), Step::None, "Ready", "Registering"),
        ("not claimed", unclaimed, usual(), Step::Claim, "Ready", "Registering"),
        (
            "no Secret",
            claimed(),
            with_key(usual(), absent()),
            Step::None,
            "Registered",
            "CredentialsNotFound",
        ),
        (
            "a bad key",
            claimed(),
            with_key(usual(), Credentials::Refused("m".into())),
            Step::None,
            "Ready",
            "CredentialsInvalid",
        ),
        (
            "no Secret in doubt",
            doubtful(),
            with_key(usual(), absent()),
            Step::None,
            "Registered",
            "OutcomeUnknown",
        ),
        ("nothing there", claimed(), listed(&[]), register(), "Registered", "Registering"),
        ("somebody's intent", intended(), listed(&[]), Step::None, "Registered", "OutcomeUnknown"),
        ("still in doubt", doubtful(), listed(&[]), Step::None, "Ready", "OutcomeUnknown"),
        ("found", doubtful(), listed(&["wh-a"]), adopt("wh-a", &[]), "Registered", "OutcomeUnknown"),
        ("several", doubtful(), listed(&["c", "a", "b"]), adopt("a", &["c", "b"]), "Ready", "Registering"),
        ("refused", rejected(claimed()), usual(), Step::None, "Registered", "Rejected"),
        (
            "a new spec",
            edited(rejected(claimed()), |_| {}),
            listed(&[]),
            register(),
            "Registered",
            "Registering",
        ),
        ("registered", registered(), usual(), ping(), "EndpointReachable", "NotTested"),
        ("asked", pinged(-5, None), usual(), Step::None, "Ready", "NotTested"),
        ("ready", ready(), usual(), Step::None, "Ready", "Ready"),
        ("Secret gone", ready(), with_key(usual(), absent()), Step::None, "Ready", "CredentialsNotFound"),
        ("signing secret gone", ready(), lost, adopt(ID, &[]), "Ready", "SecretLost"),
        (
            "a twin",
            ready(),
            listed(&["wh-a", ID]),
            Step::Prune { twins: vec!["wh-a".into()] },
            "Ready",
            "Ready",
        ),
        ("gone", ready(), listed(&[]), register(), "Ready", "Registering"),
        ("gone, with a twin", ready(), listed(&["wh-a"]), adopt("wh-a", &[]), "Ready", "Registering"),
        ("another key, unproven", ready(), with_key(usual(), other()), Step::None, "Ready", "Ready"),
        ("another key", ready(), with_key(listed(&[ID]), other()), Step::None, "Ready", "Ready"),
        (
            "another project's key",
            ready(),
            with_key(listed(&[]), other()),
            Step::Leave { id: ID.into() },
            "Ready",
            "Registering",
        ),
        ("URL changed", moved(ready()), usual(), update(), "Ready", "NotTested"),
        ("URL changed, proof", moved(ready()), usual(), update(), "EndpointReachable", "NotTested"),
        (
            "events changed",
            edited(ready(), |w| w.spec.events.truncate(1)),
            usual(),
            update(),
            "Ready",
            "Ready",
        ),
        ("change refused", rejected(moved(ready())), usual(), Step::None, "Ready", "Rejected"),
        (
            "disabled",
            change(edited(ready(), |w| w.spec.enabled = false), |d| {
                d.set(webhook_type::REGISTERED, Is::True, "Registered", ID);
            }),
            usual(),
            Step::None,
            "Ready",
            "DisabledByUser",
        ),
    ];
    for (what, webhook, seen, step, type_, reason) in cases {
        let planned = world.plan(&webhook, &seen);
        assert_eq!(planned.step, step, "{what}");
        let condition = get(&planned.status.conditions, type_);
        assert_eq!(condition.map(|c| c.reason.as_str()), Some(reason), "{what}: {type_}");
    }
}

#[test]
fn what_proves_a_ping() {
    let world = World::new();
    for (what, newest, proven) in [
        ("nothing", None, false),
        ("the ping", Some(delivery(-8, "ping", SECRET)), true),
        ("any later delivery", Some(delivery(-8, "batch.succeeded", SECRET)), true),
        ("the ping, in the same second", Some(delivery(-10, "ping", SECRET)), true),
        ("something else of the same second", Some(delivery(-10, "batch.succeeded", SECRET)), false),
        ("an older ping", Some(delivery(-11, "ping", SECRET)), false),
        ("signed with the secret before", Some(delivery(-8, "ping", "old")), false),
    ] {
        let planned = world.plan(&pinged(-10, newest), &usual());
        assert_eq!(is_true(&planned.status.conditions, webhook_type::READY), proven, "{what}");
    }
    // What was proven stays proven, whatever is delivered later.
    let later = change(ready(), |draft| draft.status.last_delivery = Some(delivery(-1, "ping", "old")));
    assert!(is_true(&world.plan(&later, &usual()).status.conditions, webhook_type::READY));
}

#[test]
fn no_ping_in_the_second_of_a_delivery() {
    let world = World::new();
    let with = |second| {
        change(registered(), |draft| draft.status.last_delivery = Some(delivery(second, "ping", SECRET)))
    };
    assert_eq!(world.plan(&with(-1), &usual()).step, ping());
    for (second, pause) in [(0, 1), (5, 6)] {
        let planned = world.plan(&with(second), &usual());
        assert_eq!((planned.step, planned.next), (Step::None, Next::After(Duration::from_secs(pause))));
    }
    assert_eq!(
        world.plan(&with(3600), &usual()).step,
        ping(),
        "a clock that is an hour ahead is not waited for"
    );
}

#[test]
fn a_lost_ping_is_told_and_sent_again() {
    let world = World::new();
    let on_time = world.plan(&pinged(-60, None), &usual());
    assert_eq!(
        on_time.next,
        Next::After(Duration::from_secs(1)),
        "the ping may be a second younger than it says"
    );

    let missed = world.plan(&pinged(-61, None), &usual());
    assert_eq!((&missed.step, missed.next), (&Step::None, Next::After(world.timing.ping_pause)));
    assert_eq!(get(&missed.status.conditions, "EndpointReachable").unwrap().reason, "PingTimeout");
    assert_eq!(get(&missed.status.conditions, "Ready").unwrap().reason, "EndpointUnreachable");

    let refused = refused_at(-50, LastDelivery::default());
    let missed = world.plan(&pinged(-61, Some(refused)), &usual());
    assert_eq!(get(&missed.status.conditions, "EndpointReachable").unwrap().reason, "BadSignature");

    assert_eq!(world.plan(&pinged(-121, None), &usual()).step, ping());
    let tired = Memory { ping_failures: 1, ..Memory::default() };
    assert_eq!(plan(&pinged(-121, None), &usual(), &tired, &world.at(at(0))).step, Step::None, "pauses grow");
    let unasked = Memory { ping_lost: true, ..Memory::default() };
    assert_eq!(plan(&pinged(-1, None), &usual(), &unasked, &world.at(at(0))).step, ping(), "not waited for");
}

#[test]
fn doubt_ends_after_three_looks() {
    let world = World::new();
    let register = Step::Register { name: registration_name(&fresh()) };
    for (memory, step, doubt) in [
        (Memory { empty_listings: 2, ..Memory::default() }, &Step::None, true),
        (Memory { empty_listings: 3, ..Memory::default() }, &register, true),
        (Memory { registering: true, ..Memory::default() }, &register, false),
    ] {
        let planned = plan(&doubtful(), &listed(&[]), &memory, &world.at(at(0)));
        assert_eq!((&planned.step, is_in_doubt(&doubtful(), &memory)), (step, doubt), "{memory:?}");
    }
    assert!(!is_in_doubt(&claimed(), &Memory::default()) && !is_in_doubt(&ready(), &Memory::default()));
    assert!(!is_in_doubt(&rejected(doubtful()), &Memory::default()), "a no is no doubt");
}

#[test]
fn when_registrations_are_listed() {
    let world = World::new();
    let young = change(ready(), |draft| draft.status.registered_time = Some(Time(at(-60))));
    let seen = |second| Memory { listed: Some(at(second)), ..Memory::default() };
    let unasked = Memory { ping_lost: true, ..seen(-1) };
    for (what, webhook, key, memory, wanted) in [
        ("a new object", fresh(), KEY, Memory::default(), false),
        ("before the first POST", claimed(), KEY, seen(-1), true),
        ("refused", rejected(claimed()), KEY, seen(-1), false),
        ("a new process", ready(), KEY, Memory::default(), true),
        ("all is well", ready(), KEY, seen(-1), false),
        ("another key", ready(), "other", seen(-1), true),
        ("made just now", young.clone(), KEY, seen(-90), false),
        ("listed before twins had to be visible", ready(), KEY, seen(-3600 + 800), true),
        ("listed since", ready(), KEY, seen(-3600 + 1000), false),
        ("a ping is outstanding", pinged(-5, None), KEY, seen(-10), false),
        ("a ping is to be sent again", pinged(-121, None), KEY, seen(-130), true),
        ("a ping could not be asked for", pinged(-1, None), KEY, unasked, true),
    ] {
        assert_eq!(needs_listing(&webhook, key, &memory, &world.at(at(0))), wanted, "{what}");
    }
}

/// The Secret is read again every minute, though nothing else happens.
#[test]
fn a_ready_webhook_follows_its_key() {
    let world = World::new();
    let again = Next::After(world.timing.secret_reread);
    assert_eq!(world.plan(&ready(), &usual()).next, again);
    assert_eq!(world.plan(&rejected(moved(ready())), &usual()).next, again);
    let other = Credentials::Ready { fingerprint: "other".into() };
    let planned = world.plan(&ready(), &with_key(listed(&[ID]), other.clone()));
    assert_eq!((planned.status.key_fingerprint.as_deref(), planned.next), (Some("other"), again));
    let unproven = world.plan(&ready(), &with_key(usual(), other));
    assert_eq!(
        unproven.status.key_fingerprint.as_deref(),
        Some(KEY),
        "what was not seen with it is not claimed"
    );
}

#[test]
fn a_problem_is_told_in_the_words_of_the_next_plan() {
    let world = World::new();
    let memory = Memory { problem: Some("out of quota".into()), registering: true, ..Memory::default() };
    let failed = change(intended(), |_| {});
    let told = GeminiWebhook { status: Some(explained(&failed, "out of quota", at(0))), ..failed };
    for type_ in ["Registered", "Ready"] {
        assert_eq!(get(&told.status.as_ref().unwrap().conditions, type_).unwrap().message, "out of quota");
    }
    let planned = plan(&told, &listed(&[]), &memory, &world.at(at(0)));
    assert_eq!(Some(&planned.status), told.status.as_ref(), "the two do not write in turn");
    assert!(matches!(planned.step, Step::Register { .. }));
    // A webhook that works says nothing of it.
    assert_eq!(explained(&ready(), "out of quota", at(0)).conditions, ready().status.unwrap().conditions);
}

#[test]
fn a_generation_that_failed_rests() {
    let memory = Memory { rest: Some((Some(1), at(10))), ..Memory::default() };
    assert_eq!(memory.rest_left(Some(1), at(4)), Some(Duration::from_secs(6)));
    assert_eq!(memory.rest_left(Some(1), at(10)), None);
    assert_eq!(memory.rest_left(Some(2), at(4)), None, "a new spec is tried at once");
}
