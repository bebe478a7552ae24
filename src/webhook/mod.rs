//! GeminiWebhook: registered at Gemini, its secret in the keyring, proven by a ping.

mod act;
mod cleanup;
mod keyring;
mod memory;
mod observe;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource};

pub use memory::Memory;

use crate::api::GeminiWebhook;
use crate::controller::{Context, Error, Guarded, Next, notes, publish, replace};
use plan::{Env, Plan, Step};

/// Passes in one reconcile; a webhook needs about six from nothing to its ping.
const MAX_PASSES: usize = 12;

/// One reconcile: passes until there is nothing to do now.
pub async fn reconcile(webhook: Arc<Guarded<GeminiWebhook>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let webhook = match &webhook.0 {
        Ok(webhook) => webhook,
        Err(invalid) => {
            ctx.malformed(&webhook.object_ref(&()), &invalid.error).await;
            return Ok(Action::await_change());
        }
    };
    let (namespace, name) =
        (webhook.metadata.namespace.clone().unwrap_or_default(), webhook.metadata.name.clone());
    let api: Api<GeminiWebhook> = Api::namespaced(ctx.writer.clone(), &namespace);
    let uid = webhook.metadata.uid.clone().unwrap_or_default();
    // The cache may be older than our own last write: what decides is read live.
    let Some(mut current) = api.get_opt(name.as_deref().unwrap_or_default()).await? else {
        ctx.webhook_memory.forget(&uid);
        return Ok(Action::await_change());
    };
    for _ in 0..MAX_PASSES {
        if current.metadata.deletion_timestamp.is_some() {
            return cleanup::pass(&ctx, &api, &current).await;
        }
        if let Some(action) = pass(&ctx, &api, &mut current).await?.action() {
            return Ok(action);
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

async fn pass(ctx: &Context, api: &Api<GeminiWebhook>, current: &mut GeminiWebhook) -> Result<Next, Error> {
    let uid = current.metadata.uid.clone().unwrap_or_default();
    let (seen, key) = observe::observe(ctx, current).await?;
    let token = act::token()?;
    let env = Env { timing: &ctx.timing, now: Timestamp::now(), token: &token };
    let before = current.status.as_ref().and_then(|s| s.last_ping.clone());
    let Plan { status, step, next } = plan::plan(current, &seen, &ctx.webhook_memory.get(&uid), &env);
    if matches!(step, Step::Ping { .. }) && before.is_some() {
        ctx.webhook_memory.update(&uid, |m| m.ping_failures = m.ping_failures.saturating_add(1));
    }
    write(ctx, api, current, status).await?;
    if step == Step::None {
        return Ok(next);
    }
    let Some(status) = act::act(ctx, api, current, key.as_ref(), step).await? else { return Ok(Next::Now) };
    write(ctx, api, current, status).await?;
    Ok(next)
}

/// Writes the status if it says anything new, and tells of transitions.
async fn write(
    ctx: &Context,
    api: &Api<GeminiWebhook>,
    current: &mut GeminiWebhook,
    status: crate::api::GeminiWebhookStatus,
) -> Result<(), Error> {
    if current.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let conditions = |w: &GeminiWebhook| w.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let before = conditions(current);
    let wanted = GeminiWebhook { status: Some(status), ..current.clone() };
    *current = replace(api, &wanted).await?;
    publish(&ctx.recorder, &current.object_ref(&()), &notes(&before, &conditions(current))).await;
    Ok(())
}
