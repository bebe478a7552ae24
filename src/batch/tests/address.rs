//! The address that goes to Gemini with a job.

use super::*;
use crate::api::batch::WebhookMode;

fn dynamic(seconds: i64) -> (World, GeminiBatch) {
    let world = World::new();
    let mut batch = staged(&world);
    batch.spec.webhook.mode = WebhookMode::Dynamic;
    let created = now().checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap();
    batch.metadata.creation_timestamp = Some(Time(created));
    (world, batch)
}

/// What is sent with a job is decided, and durable, before it is sent.
#[test]
fn the_intent_holds_the_address() {
    let (world, batch) = dynamic(0);
    let seen = |tracking| Observed { file_usable: Some(true), tracking: Some(tracking), ..admitted() };
    let ready = Tracking::Dynamic { webhook: "team/d".into(), url: "https://hooks.test/v1/h/t".into() };
    for (tracking, wanted) in [
        (ready, Some("https://hooks.test/v1/h/t")),
        (Tracking::Static { webhook: "team/main".into() }, None),
        (Tracking::SweepOnly("m".into()), None),
    ] {
        let planned = world.plan(&batch, &seen(tracking));
        assert!(matches!(planned.step, Step::Post { .. }), "{:?}", planned.step);
        assert_eq!(planned.status.runs[0].webhook_uri.as_deref(), wanted);
    }
}

#[test]
fn an_address_is_waited_for_and_not_for_ever() {
    let seen = Observed {
        file_usable: Some(true),
        tracking: Some(Tracking::NotReady("not ready".into())),
        ..admitted()
    };
    let (world, young) = dynamic(58);
    let planned = world.plan(&young, &seen);
    assert_eq!((&planned.step, &planned.next), (&Step::None, &Next::After(Duration::from_secs(2))));
    let condition = get(&planned.status.conditions, "WebhookTracked").unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "WebhookNotReady"));
    assert!(condition.message.contains("is submitted without its address at"), "{}", condition.message);

    let (_, old) = dynamic(60);
    let planned = world.plan(&old, &seen);
    assert!(matches!(planned.step, Step::Post { .. }) && planned.status.runs[0].webhook_uri.is_none());
    // Who did not ask for one does not wait.
    let mut auto = young;
    auto.spec.webhook.mode = WebhookMode::Auto;
    assert!(matches!(world.plan(&auto, &seen).step, Step::Post { .. }));
}
