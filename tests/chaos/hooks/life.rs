//! What happens to a webhook whose controller dies.

use gemini_operator::api::GeminiWebhook;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::judge::{self, Wanted};
use super::{Case, End};
use crate::run::{Action, hit, logs, start, terminate};
use crate::support::bed::HOOKS_HOST;
use crate::support::cluster::from_json;
use crate::support::hooks::registration_name;
use crate::support::{Bed, BedOptions, PATIENCE, poll};

/// A ping has failed after 1.6 s, and a rotation that was left is taken up after as long.
const DIVISOR: u32 = 100;
pub const NAME: &str = "main";
pub const EVENTS: [&str; 3] = ["batch.succeeded", "batch.failed", "batch.expired"];
const OTHER_PROJECT: &str = "AIza-canary-of-another-project";
/// A user's own.
pub const SIGNING: &str = "whsec_RSiskZV2N0hvfooFgHFmXMLUi4foU7ACKP+6PNClWGI=";

/// As the spec has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    After24h,
    Immediately,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Registered,
    /// Two registrations of its name stand there before any controller has made one.
    Twins,
    /// Annotation `rotate-at` asks for another secret.
    Rotated(Revocation),
    /// Somebody else has had its secret rotated, so that the stored one verifies nothing.
    Revoked,
    /// Its spec wants other events.
    Changed,
    /// The API key is now one of another project.
    Moved,
    /// Its secret is a user's.
    External,
    Deleted,
}

impl Life {
    /// The call that gets lost, where one does.
    const fn call(self) -> &'static str {
        match self {
            Self::Registered | Self::Moved | Self::External => "webhooks.create",
            Self::Twins | Self::Rotated(_) | Self::Revoked => "webhooks.rotate",
            Self::Changed => "webhooks.patch",
            Self::Deleted => "webhooks.delete",
        }
    }
}

fn faults(case: &Case) -> Value {
    let lost = match case.end {
        End::Answered => None,
        End::RequestLost => Some("request"),
        End::AnswerLost => Some("answer"),
    };
    let lost =
        lost.map(|what| json!({"match": {"call": case.life.call()}, "do": {"drop": what}, "times": 1}));
    // Its secret is no good any more when the first ping is sent.
    let held = (case.life == Life::Revoked)
        .then(|| json!({"match": {"call": "webhooks.ping"}, "do": {"hold": "request"}, "times": 1}));
    json!({"rules": lost.into_iter().chain(held).collect::<Vec<_>>()})
}

async fn room(case: &Case) -> Bed {
    let options = BedOptions {
        faults: Some(faults(case)),
        timing_divisor: DIVISOR,
        operator: false,
        more_api_keys: vec![(OTHER_PROJECT.into(), "elsewhere".into())],
        ..BedOptions::default()
    };
    let mut bed = Bed::with("hooks", options).await;
    bed.room.why = logs;
    bed.make_api_key().await;
    bed.start_receiver().await;
    bed
}

async fn create(bed: &Bed, life: Life) -> GeminiWebhook {
    // Tests of its own begin later than any case ends.
    let mut spec = json!({
        "apiKeySecretRef": {"name": "gemini"},
        "endpoint": {"url": format!("https://{HOOKS_HOST}")},
        "selfTest": {"interval": "24h"},
        "deletionTimeout": "3h",
    });
    match life {
        Life::Rotated(revocation) => spec["rotation"] = json!({"revocation": format!("{revocation:?}")}),
        Life::External => {
            bed.make_secret("signing", "secret", SIGNING).await;
            (spec["mode"], spec["signingSecret"]) = (json!("External"), json!({"name": "signing"}));
        }
        _ => spec["events"] = json!(EVENTS),
    }
    let webhook = from_json(json!({
        "apiVersion": "gemini-operator.io/v1alpha1", "kind": "GeminiWebhook", "metadata": {"name": NAME}, "spec": spec,
    }));
    bed.webhooks().create(&PostParams::default(), &webhook).await.expect("the webhook is created")
}

/// Registers by hand under its name.
async fn register(bed: &Bed, webhook: &GeminiWebhook) {
    let name = registration_name(webhook);
    let body = json!({"uri": "https://hooks.test/elsewhere", "subscribed_events": EVENTS, "name": name});
    bed.emulator.call(&bed.options.api_key, "POST", "/v1beta/webhooks", Some(body)).await;
}

async fn rotate_by_hand(bed: &Bed) {
    bed.emulator.wait_held(1).await;
    let id = bed.webhooks().get(NAME).await.expect("it is there").status.and_then(|status| status.id);
    let path = format!("/v1beta/webhooks/{}:rotateSigningSecret", id.expect("it is registered"));
    let body = json!({"revocation_behavior": "revoke_previous_secrets_immediately"});
    bed.emulator.call(&bed.options.api_key, "POST", &path, Some(body)).await;
    bed.emulator.release_calls().await;
}

/// What happens to it, until the controller is on its way to the crash point; what has to come of it.
async fn live(bed: &Bed, life: Life, wanted: &mut Wanted) {
    match life {
        Life::Registered | Life::Twins | Life::External => {}
        Life::Revoked => {
            rotate_by_hand(bed).await;
            wanted.rotations = 1;
        }
        Life::Rotated(revocation) => {
            let before = judge::healed(bed, wanted).await;
            wanted.before = Some((bed.signing_secret(&before).await, revocation));
            wanted.rotated_since = Some(bed.rotate_now(NAME).await);
            wanted.rotations = 1;
        }
        Life::Changed => {
            judge::healed(bed, wanted).await;
            change(bed, wanted, &EVENTS[..1]).await;
        }
        Life::Moved => {
            let before = judge::healed(bed, wanted).await;
            wanted.other_than = before.status.and_then(|status| status.id);
            wanted.key = OTHER_PROJECT.into();
            bed.make_api_key_as("gemini", OTHER_PROJECT).await;
        }
        Life::Deleted => {
            judge::healed(bed, wanted).await;
            delete(bed).await;
        }
    }
}

async fn change(bed: &Bed, wanted: &mut Wanted, events: &'static [&'static str]) {
    let patch = json!({"spec": {"events": events}});
    let changed = bed.webhooks().patch(NAME, &PatchParams::default(), &Patch::Merge(&patch)).await;
    changed.expect("the spec can be changed");
    wanted.events = events;
}

async fn delete(bed: &Bed) {
    bed.webhooks().delete(NAME, &DeleteParams::default()).await.expect("the webhook can be deleted");
}

/// Runs one case; rotations that were made beyond those that were asked for.
pub async fn run(case: &Case) -> usize {
    let bed = room(case).await;
    let webhook = create(&bed, case.life).await;
    if case.life == Life::Twins {
        register(&bed, &webhook).await;
        register(&bed, &webhook).await;
    }
    let mut wanted = Wanted::of(&bed, &webhook);
    let armed = case.armed();
    // Not when it is ready: it may be dead by then.
    let mut first = bed.launch_controller("first", &[("GEMINI_OPERATOR_FAIL", &armed)]);
    live(&bed, case.life, &mut wanted).await;
    hit(&first, &armed).await;
    if case.action == Action::Kill {
        poll(PATIENCE, async || first.ended().ok_or(())).await.expect("it is killed");
    }
    let mut last = start(&bed, "second", None).await;
    if case.life == Life::Deleted {
        bed.wait_gone(bed.webhooks(), NAME).await;
    } else {
        judge::healed(&bed, &wanted).await;
    }
    if case.action == Action::Stop {
        first.signal("CONT");
        terminate(&mut last).await;
        last = first;
    }
    if case.life != Life::Deleted {
        if case.action == Action::Stop {
            // It takes up a change when it has done with what it has in hand.
            change(&bed, &mut wanted, &EVENTS[..2]).await;
        }
        let healed = judge::healed(&bed, &wanted).await;
        judge::verifies(&bed, &healed, &wanted, case).await;
        if case.life == Life::Moved {
            judge::left_behind(&bed, &wanted, case).await;
        }
        delete(&bed).await;
        bed.wait_gone(bed.webhooks(), NAME).await;
    }
    terminate(&mut last).await;
    judge::nothing_left(&bed, &webhook.uid().unwrap_or_default(), &wanted).await;
    bed.assert_invariants().await;
    judge::rotations(&bed, case, &wanted).await
}
