//! I/O of a webhook that the operator does not register: reads the user's Secret, and copies it to the keyring.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::SecretString;

use super::memory::Memory;
use super::plan::Env;
use super::points::Point;
use super::signing::{self, Offer, Problem};
use super::unregistered::{Observed, Plan, Signing, Step, plan};
use super::{act, keyring, write};
use crate::api::GeminiWebhook;
use crate::api::refs::SigningSecretRef;
use crate::controller::points::around;
use crate::controller::{Context, Error, Next, claim, is_claimed, is_forbidden, is_not_found};

pub async fn pass(
    ctx: &Context,
    api: &Api<GeminiWebhook>,
    current: &mut GeminiWebhook,
) -> Result<Next, Error> {
    let uid = current.metadata.uid.clone().unwrap_or_default();
    let token = act::token()?;
    let env = Env { timing: &ctx.timing, now: Timestamp::now(), token: &token, rescued: None };
    let (seen, secret) = observe(ctx, current).await?;
    let memory = ctx.webhook_memory.get(&uid);
    let Plan { status, step, next } = plan(current, &seen, memory.problem.as_deref(), &env);
    write(ctx, api, current, status).await?;
    match (step, secret) {
        (Step::Claim, _) => *current = around(Point::Claim, claim(api, current, None)).await?,
        (Step::Store, Some(secret)) => {
            store(ctx, current, &uid, &secret).await?;
            ctx.webhook_memory.update(&uid, Memory::succeeded);
        }
        (Step::None | Step::Store, _) => {
            // Nothing is tried any more that could fail: with the next pass the words about it go.
            let stale = ctx.webhook_memory.update(&uid, |m| m.problem.take().is_some());
            return Ok(if stale { Next::Now } else { next });
        }
    }
    Ok(next)
}

/// Looks at the API key, and at the user's Secret beside the keyring.
async fn observe(ctx: &Context, webhook: &GeminiWebhook) -> Result<(Observed, Option<SecretString>), Error> {
    let mut seen = Observed::default();
    if !is_claimed(webhook) {
        return Ok((seen, None));
    }
    let namespace = webhook.metadata.namespace.as_deref().unwrap_or_default();
    let (credentials, _) = ctx.credentials.get(namespace, &webhook.spec.api_key_secret_ref).await?.split();
    seen.credentials = Some(credentials);
    let Some(reference) = &webhook.spec.signing_secret else { return Ok((seen, None)) };
    let uid = webhook.metadata.uid.as_deref().unwrap_or_default();
    let mut entries = keyring::all(ctx).await?;
    let held = entries.remove(uid);
    let others: Vec<_> = entries.into_values().collect();
    let scheme = webhook.spec.scheme();
    let judged = match read(ctx, namespace, reference).await? {
        Ok(bytes) => signing::judge(bytes.as_deref(), reference, scheme, &others),
        Err(problem) => Err(problem),
    };
    let offer = signing::offer(judged.as_ref(), held.as_ref(), scheme, webhook.spec.rotation.revocation);
    let secret = judged.ok().filter(|_| offer == Offer::New);
    seen.signing = Some(Signing { offer, held: held.is_some_and(|held| held.scheme == scheme) });
    Ok((seen, secret))
}

/// What stands under the key, if there is such a key.
async fn read(
    ctx: &Context,
    namespace: &str,
    reference: &SigningSecretRef,
) -> Result<Result<Option<Vec<u8>>, Problem>, Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    match api.get(&reference.name).await {
        Ok(secret) => {
            Ok(Ok(secret.data.and_then(|mut data| data.remove(&reference.key)).map(|bytes| bytes.0)))
        }
        Err(e) if is_not_found(&e) => Ok(Err(Problem {
            reason: "SecretNotFound",
            message: format!(
                "spec.signingSecret: there is no Secret {:?} in namespace {namespace}; create it with kubectl create \
                 secret generic {} --from-file={}=FILE",
                reference.name, reference.name, reference.key
            ),
        })),
        Err(e) if is_forbidden(&e) => Ok(Err(Problem {
            reason: "SecretForbidden",
            message: format!(
                "spec.signingSecret: the operator may not read Secret {:?}; see tenants in the chart's values",
                reference.name
            ),
        })),
        Err(e) => Err(e.into()),
    }
}

async fn store(
    ctx: &Context,
    webhook: &GeminiWebhook,
    uid: &str,
    secret: &SecretString,
) -> Result<(), Error> {
    let before = keyring::probe(ctx, uid).await?;
    let (scheme, revocation) = (webhook.spec.scheme(), webhook.spec.rotation.revocation);
    let entry = signing::entry(before.entry(), secret, scheme, revocation, &act::token()?, Timestamp::now());
    around(Point::Copy, keyring::store(ctx, uid, &before, &entry)).await
}
