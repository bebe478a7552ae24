//! GeminiWebhook: registered at Gemini, its secret in the keyring, proven by a ping; or, in other modes, only received.

mod act;
mod cleanup;
mod draft;
mod external;
mod health;
mod keyring;
mod memory;
mod observe;
mod plan;
pub mod points;
mod proof;
mod rotation;
mod signing;
#[cfg(test)]
mod tests;
mod unregistered;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource};
use secrecy::ExposeSecret;

pub use memory::Memory;

use crate::api::webhook::RegistrationMode;
use crate::api::{GeminiWebhook, GeminiWebhookStatus};
use crate::controller::points::around;
use crate::controller::{
    Context, Error, Guarded, Next, Unreadable, after, guarded, is_kept, malformed, notes, publish, replace,
};
use crate::gemini::ApiKey;
use crate::submit::Timing;
use plan::{Env, Plan, Step};

/// Passes in one reconcile; a webhook needs about six from nothing to its ping.
const MAX_PASSES: usize = 12;

/// One reconcile: passes until there is nothing to do now.
pub async fn reconcile(webhook: Arc<Guarded<GeminiWebhook>>, ctx: Arc<Context>) -> Result<Action, Error> {
    guarded(Box::pin(turn(webhook, ctx))).await
}

/// Passes until there is nothing to do now.
async fn turn(webhook: Arc<Guarded<GeminiWebhook>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let meta = webhook.meta();
    let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone());
    let api: Api<GeminiWebhook> = Api::namespaced(ctx.writer.clone(), &namespace);
    let uid = meta.uid.clone().unwrap_or_default();
    // The cache may be older than our own last write: what decides is read live.
    let live: Api<Guarded<GeminiWebhook>> = Api::namespaced(ctx.writer.clone(), &namespace);
    let mut current = match live.get_opt(name.as_deref().unwrap_or_default()).await? {
        Some(Guarded(Ok(current))) => current,
        Some(Guarded(Err(invalid))) => return skip(&ctx, &api, &namespace, &invalid).await,
        None => {
            ctx.webhook_memory.forget(&uid);
            ctx.rescues.forget(&uid);
            return Ok(Action::await_change());
        }
    };
    let rest = ctx.webhook_memory.get(&uid).rest_left(current.metadata.generation, Timestamp::now());
    if let Some(left) = rest.filter(|_| current.metadata.deletion_timestamp.is_none()) {
        return Ok(Action::requeue(left));
    }
    let result = passes(&ctx, &api, &mut current).await;
    if let Err(error) = &result
        && error.is_users_business()
    {
        explain(&ctx, &api, &mut current, error).await;
    }
    result
}

async fn passes(
    ctx: &Context,
    api: &Api<GeminiWebhook>,
    current: &mut GeminiWebhook,
) -> Result<Action, Error> {
    for _ in 0..MAX_PASSES {
        if current.metadata.deletion_timestamp.is_some() {
            return cleanup::pass(ctx, api, current).await;
        }
        let next = match current.spec.mode {
            RegistrationMode::Static => pass(ctx, api, current).await?,
            RegistrationMode::Dynamic | RegistrationMode::External => {
                external::pass(ctx, api, current).await?
            }
        };
        if let Some(action) = next.action() {
            ctx.webhook_memory
                .update(current.metadata.uid.as_deref().unwrap_or_default(), |m| m.failures = 0);
            return Ok(action);
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// An object that cannot be read: left alone, or let go by its metadata.
async fn skip(
    ctx: &Context,
    api: &Api<GeminiWebhook>,
    namespace: &str,
    invalid: &Unreadable,
) -> Result<Action, Error> {
    // Its status has no protocol: nothing that it does costs money.
    if let Some(action) = malformed::skip::<GeminiWebhook>(ctx, namespace, invalid, i32::MAX).await? {
        return Ok(action);
    }
    let uid = invalid.metadata.uid.as_deref().unwrap_or_default();
    keyring::remove(ctx, uid).await?;
    let left = format!("a webhook with the name {}", plan::registration_name_of(uid));
    malformed::let_go(ctx, api, invalid, &left).await?;
    ctx.webhook_memory.forget(uid);
    Ok(Action::await_change())
}

async fn pass(ctx: &Context, api: &Api<GeminiWebhook>, current: &mut GeminiWebhook) -> Result<Next, Error> {
    let uid = current.metadata.uid.clone().unwrap_or_default();
    let token = act::token()?;
    let env =
        Env { timing: &ctx.timing, now: Timestamp::now(), token: &token, rescued: ctx.rescues.last(&uid) };
    let (seen, key) = observe::observe(ctx, current, &env).await?;
    let before = current.status.as_ref().and_then(|s| s.last_ping.clone());
    // The first of its kind, or a routine one: nothing has failed.
    let fresh = before.is_none_or(|ping| ping.received_time.is_some());
    let Plan { status, step, next } = plan::plan(current, &seen, &ctx.webhook_memory.get(&uid), &env);
    let asks = matches!(step, Step::Ping { .. });
    ctx.webhook_memory.update(&uid, |m| {
        let proven = status.last_ping.as_ref().is_some_and(|ping| ping.received_time.is_some());
        if proven {
            m.renewals = 0;
        }
        if proven || (asks && fresh) {
            m.ping_failures = 0;
        } else if asks && !m.ping_lost {
            m.ping_failures = m.ping_failures.saturating_add(1);
        }
        if key.is_some() && seen.shows_key_of(&status) {
            m.proven_key.clone_from(&key);
        }
    });
    let point = points::of_plan(current, &status, &step);
    around(point, write(ctx, api, current, status)).await?;
    if step == Step::None {
        // Nothing is tried any more that could fail: with the next pass the words about it go.
        let stale = ctx.webhook_memory.update(&uid, |m| m.problem.take().is_some());
        return Ok(if stale { Next::Now } else { next });
    }
    let point = points::of_outcome(&step);
    let outcome = match act::act(ctx, api, current, key.as_ref(), step).await {
        Err(Error::Gemini(e)) if observe::is_about_the_key(&e) => {
            refuse(ctx, current, key.as_ref(), &e.message);
            return Ok(Next::Now);
        }
        other => other?,
    };
    ctx.webhook_memory.update(&uid, Memory::succeeded);
    let Some(status) = outcome else { return Ok(Next::Now) };
    around(point, write(ctx, api, current, status)).await?;
    Ok(next)
}

/// Gemini does not take the API key: the next pass says so, and waits for another one.
fn refuse(ctx: &Context, webhook: &GeminiWebhook, key: Option<&ApiKey>, message: &str) {
    let namespace = webhook.metadata.namespace.as_deref().unwrap_or_default();
    let fingerprint = key.map(|key| ctx.secret.fingerprint(key.expose_secret())).unwrap_or_default();
    ctx.credentials.refuse(namespace, &webhook.spec.api_key_secret_ref, &fingerprint, message);
}

/// A failure that a person may want to know of: it is told where the webhook says that it is not ready, and this
/// generation of the spec rests.
async fn explain(ctx: &Context, api: &Api<GeminiWebhook>, current: &mut GeminiWebhook, error: &Error) {
    let (uid, message, now) =
        (current.metadata.uid.clone().unwrap_or_default(), error.to_string(), Timestamp::now());
    let status = draft::explained(current, &message, now);
    ctx.webhook_memory.update(&uid, |m| {
        let own = Timing::pause(ctx.timing.retry, ctx.timing.retry_max, m.failures);
        let pause = error.retry_after().map_or(own, |asked| asked.max(own));
        (m.problem, m.rest) = (Some(message), Some((current.metadata.generation, after(now, pause))));
    });
    // Only for people to read: that it cannot be written is no second problem.
    let _ = write(ctx, api, current, status).await;
}

/// Writes the status if it says anything new, and tells of transitions.
async fn write(
    ctx: &Context,
    api: &Api<GeminiWebhook>,
    current: &mut GeminiWebhook,
    status: GeminiWebhookStatus,
) -> Result<(), Error> {
    if is_kept(current.status.as_ref(), &status) {
        return Ok(());
    }
    let conditions = |w: &GeminiWebhook| w.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let before = conditions(current);
    let wanted = GeminiWebhook { status: Some(status), ..current.clone() };
    *current = replace(api, &wanted).await?;
    publish(&ctx.recorder, &current.object_ref(&()), &notes(&before, &conditions(current))).await;
    Ok(())
}
