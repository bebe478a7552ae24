//! The crash points of a webhook: W0-W8 of a registration and the ping that proves it, H0-H4 where its secret is lost or no
//! good, K0-K3 of a rotation, U0 and U1 of a change, L0 and L1 where the key is one of another project, E0 of a secret that
//! a user gave, X0-X2 of a deletion.

use super::plan::Step;
use crate::api::GeminiWebhook;
use crate::api::webhook::GeminiWebhookStatus;
use crate::controller::points::places;

places! {
    /// The first status: the path.
    Path = "w0-path",
    /// The finalizer.
    Claim = "w1-claim",
    /// The compare-and-swap of the intent to register.
    Intent = "w2-intent",
    /// The POST, whose answer alone has the secret.
    Create = "w3-create",
    /// The keyring gets the first secret.
    Keep = "w4-keep",
    /// The status that names the registration.
    Record = "w5-record",
    /// The status that says when a ping was asked for.
    Test = "w6-test",
    Ping = "w7-ping",
    /// The status by which it has arrived.
    Proof = "w8-proof",
    /// The status by which the secret is lost, or no good.
    Lost = "h0-lost",
    /// The rotation that gets another one.
    Recover = "h1-recover",
    /// The keyring gets that one.
    Replace = "h2-replace",
    /// The deletion of a twin.
    Prune = "h3-prune",
    /// The status by which all is well again.
    Healed = "h4-healed",
    /// The status by which a rotation is begun.
    Turn = "k0-turn",
    Rotate = "k1-rotate",
    /// The keyring gets the new secret, with those before it or without.
    Store = "k2-store",
    /// The status by which it is over.
    Turned = "k3-turned",
    /// The PATCH.
    Update = "u0-update",
    /// The status by which the registration is in line.
    InLine = "u1-in-line",
    /// The deletion of what stays behind in another project.
    Leave = "l0-leave",
    /// The status by which nothing is registered any more.
    Left = "l1-left",
    /// The keyring gets a user's secret.
    Copy = "e0-copy",
    /// What a deletion removes at Gemini.
    Deregister = "x0-deregister",
    /// The keyring loses the entry.
    Forget = "x1-forget",
    /// The finalizer goes.
    Release = "x2-release",
}

/// What the write of a plan's status is in the protocol: mostly it says what the step is about to do.
#[cfg(feature = "failpoints")]
pub(super) fn of_plan(webhook: &GeminiWebhook, status: &GeminiWebhookStatus, step: &Step) -> Option<Point> {
    let before = webhook.status.as_ref();
    let is_proven = |status: &GeminiWebhookStatus| {
        status.last_ping.as_ref().is_some_and(|ping| ping.received_time.is_some())
    };
    match step {
        Step::Register { .. } => Some(Point::Intent),
        Step::Adopt { .. } | Step::Renew { .. } => Some(Point::Lost),
        Step::Rotate { .. } => Some(Point::Turn),
        Step::Ping { .. } => Some(Point::Test),
        Step::None if before.is_none_or(|before| before.path.is_none()) => Some(Point::Path),
        Step::None if is_proven(status) && !before.is_some_and(is_proven) => Some(Point::Proof),
        Step::None | Step::Claim | Step::Prune { .. } | Step::Leave { .. } | Step::Update { .. } => None,
    }
}

#[cfg(not(feature = "failpoints"))]
pub(super) fn of_plan(_: &GeminiWebhook, _: &GeminiWebhookStatus, _: &Step) -> Option<Point> {
    None
}

/// What the write of a step's outcome is.
pub(super) fn of_outcome(step: &Step) -> Option<Point> {
    match step {
        Step::Register { .. } => Some(Point::Record),
        Step::Adopt { .. } | Step::Renew { .. } => Some(Point::Healed),
        Step::Rotate { .. } => Some(Point::Turned),
        Step::Update { .. } => Some(Point::InLine),
        Step::Leave { .. } => Some(Point::Left),
        Step::None | Step::Claim | Step::Prune { .. } | Step::Ping { .. } => None,
    }
}
