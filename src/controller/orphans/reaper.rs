//! Works the ledger off: looks for what each entry names, cancels and deletes it, and drops what is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use kube::Api;

use super::{Act, Data, Entry, Fate, Look, found, is_restored, judge, read, store};
use crate::api::GeminiBatch;
use crate::batch::files;
use crate::controller::context::Context;
use crate::controller::credentials::Found as Key;
use crate::controller::error::Error;
use crate::controller::guard::guarded;
use crate::gemini::{self, ApiKey, Class};
use crate::submit::FILE_PREFIX;

/// Keys at a time: one whose project answers slowly must not hold the others.
const KEYS_AT_A_TIME: usize = 8;
/// For one key; what is left is done in the next pass.
const LIMIT: Duration = Duration::from_mins(5);

/// An entry, and its text in the ledger.
struct Case {
    entry: Entry,
    text: String,
}

/// Cases of one API key.
struct Group {
    key: ApiKey,
    fingerprint: String,
    cases: Vec<Case>,
}

/// Looks after the entries of these namespaces (empty: of all) for ever.
pub async fn run(ctx: Arc<Context>, namespaces: Vec<String>) {
    loop {
        if let Err(error) = guarded(Box::pin(pass(&ctx, &namespaces))).await {
            tracing::warn!(%error, "the orphan ledger could not be worked on; trying again");
        }
        tokio::time::sleep(ctx.timing.sweep_tracked).await;
    }
}

async fn pass(ctx: &Context, namespaces: &[String]) -> Result<(), Error> {
    let tick = Timestamp::now();
    let is_ours = |entry: &Entry| namespaces.is_empty() || namespaces.contains(&entry.namespace);
    let (mut others, mut ours) = (vec![], vec![]);
    for (key, text) in store::load(ctx).await? {
        match read(&text) {
            Some(entry) if is_ours(&entry) => ours.push(Case { entry, text }),
            // Where this controller may not look, nobody looks if nobody watches: it gets old all the same.
            Some(entry) => others.push(Case { entry, text }),
            None => tracing::warn!(submit_key = key, "an entry of the orphan ledger cannot be read"),
        }
    }
    count(ctx, ours.len());
    let (live, restored) = part(ctx, ours).await;
    let (groups, keyless) = group(ctx, live).await;
    let looks: Vec<_> = stream::iter(groups)
        .map(|group| visit(ctx, tick, group))
        .buffer_unordered(KEYS_AT_A_TIME)
        .collect()
        .await;
    let unseen = others.into_iter().chain(keyless).map(|case| (case, None));
    let now = Timestamp::now();
    let judged = looks.into_iter().flatten().chain(unseen).map(|(case, look)| {
        let fate = judge(&case.entry, look.as_ref(), now, &ctx.timing);
        (case, fate)
    });
    let restored = restored.into_iter().map(|case| (case, Fate::Restored));
    record(ctx, &is_ours, judged.chain(restored).collect()).await
}

/// Those whose object is gone, and those whose object is back. Where that cannot be seen, nothing is done: what looks
/// like an orphan's may be a live batch's.
async fn part(ctx: &Context, cases: Vec<Case>) -> (Vec<Case>, Vec<Case>) {
    let (mut gone, mut back) = (vec![], vec![]);
    for case in cases {
        let api: Api<GeminiBatch> = Api::namespaced(ctx.client.clone(), &case.entry.namespace);
        match api.get_metadata_opt(&case.entry.name).await {
            Ok(Some(object)) if is_restored(&case.entry, &object.metadata, &ctx.secret) => back.push(case),
            Ok(_) => gone.push(case),
            Err(error) => {
                tracing::warn!(submit_key = case.entry.submit_key, %error, "an orphan is left alone in this pass");
            }
        }
    }
    (gone, back)
}

/// Writes down what has changed.
async fn record(
    ctx: &Context,
    is_ours: &(impl Fn(&Entry) -> bool + Sync),
    judged: Vec<(Case, Fate)>,
) -> Result<(), Error> {
    let changed: Vec<(Case, Fate)> = judged
        .into_iter()
        .filter(|(case, fate)| !matches!(fate, Fate::Stays(entry) if **entry == case.entry))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let (applied, left) = store::change(ctx, |data| {
        let mut applied = vec![];
        for (case, fate) in &changed {
            applied.push(apply(data, case, fate).map_err(|e| Error::Ledger(e.to_string()))?);
        }
        Ok((applied, data.values().filter_map(|text| read(text)).filter(is_ours).count()))
    })
    .await?;
    count(ctx, left);
    for ((Case { entry, .. }, fate), applied) in changed.into_iter().zip(applied) {
        if !applied {
            continue;
        }
        let object = format!("{}/{}", entry.namespace, entry.name);
        match fate {
            Fate::Stays(_) => {}
            Fate::Settled => {
                tracing::info!(%object, submit_key = entry.submit_key, "nothing of it is left at Gemini");
            }
            Fate::Restored => {
                tracing::info!(%object, submit_key = entry.submit_key, "its object is back, and looks after it");
            }
            Fate::Expired => {
                store::give_up(ctx, &entry.submit_key, Some(&entry), "72 h have passed").await;
            }
        }
    }
    Ok(())
}

/// Whether the entry was as it was seen. What another controller has written meanwhile stands: its next look tells the
/// same.
fn apply(data: &mut Data, case: &Case, fate: &Fate) -> Result<bool, serde_json::Error> {
    let key = &case.entry.submit_key;
    if data.get(key) != Some(&case.text) {
        return Ok(false);
    }
    match fate {
        Fate::Stays(entry) => data.insert(key.clone(), serde_json::to_string(entry)?),
        Fate::Settled | Fate::Expired | Fate::Restored => data.remove(key),
    };
    Ok(true)
}

fn count(ctx: &Context, entries: usize) {
    ctx.metrics.orphans.set(i64::try_from(entries).unwrap_or(i64::MAX));
}

/// Cases by their API key, and those for which there is none now.
async fn group(ctx: &Context, cases: Vec<Case>) -> (Vec<Group>, Vec<Case>) {
    let (mut groups, mut keyless) = (BTreeMap::<String, Group>::new(), vec![]);
    for case in cases {
        match key(ctx, &case.entry).await {
            Ok(Some((key, fingerprint))) => {
                let fresh = || Group { key, fingerprint: fingerprint.clone(), cases: vec![] };
                groups.entry(fingerprint.clone()).or_insert_with(fresh).cases.push(case);
            }
            Ok(None) => keyless.push(case),
            Err(error) => {
                tracing::warn!(submit_key = case.entry.submit_key, %error, "its API key cannot be read");
                keyless.push(case);
            }
        }
    }
    (groups.into_values().collect(), keyless)
}

/// The key that the entry's Secret holds, or the last one that was known of it.
async fn key(ctx: &Context, entry: &Entry) -> Result<Option<(ApiKey, String)>, Error> {
    let reference = &entry.api_key_secret_ref;
    Ok(match ctx.credentials.get(&entry.namespace, reference).await? {
        Key::Ready { key, fingerprint } => Some((key, fingerprint)),
        Key::Refused(_) => None,
        Key::NotFound(_) => ctx.credentials.last_known(&entry.namespace, reference).map(|key| {
            let fingerprint = ctx.secret.fingerprint(secrecy::ExposeSecret::expose_secret(&key));
            (key, fingerprint)
        }),
    })
}

async fn visit(ctx: &Context, tick: Timestamp, group: Group) -> Vec<(Case, Option<Look>)> {
    let Group { key, fingerprint, cases } = group;
    let entries: Vec<&Entry> = cases.iter().map(|case| &case.entry).collect();
    let work = guarded(look(ctx, tick, &key, &fingerprint, &entries));
    let looked = tokio::time::timeout(LIMIT, work).await;
    let looks = match looked.unwrap_or(Err(Error::TooSlow("the orphans of one API key", LIMIT))) {
        Ok(looks) => looks.into_iter().map(Some).collect(),
        Err(error) => {
            tracing::warn!(%error, "orphans could not be looked for; trying again");
            if let Error::Gemini(gemini::Error { class: Class::Auth, message, .. }) = &error {
                for entry in &entries {
                    let reference = &entry.api_key_secret_ref;
                    ctx.credentials.refuse(&entry.namespace, reference, &fingerprint, message);
                }
            }
            vec![]
        }
    };
    cases.into_iter().zip(looks.into_iter().chain(std::iter::repeat(None))).collect()
}

/// One look at what a key shows, and what there is to do about it.
async fn look(
    ctx: &Context,
    tick: Timestamp,
    key: &ApiKey,
    fingerprint: &str,
    entries: &[&Entry],
) -> Result<Vec<Look>, Error> {
    // A running job is paid for, and a file may become one: trouble with the one listing must not save what the other has.
    let listings = &ctx.listings;
    let listing = listings.sweep(&ctx.gemini, &ctx.metrics, key, fingerprint, tick, Timestamp::MIN).await;
    let listing = unless_pointless(listing)?;
    let files = unless_pointless(files::with_prefix(&ctx.gemini, key, FILE_PREFIX).await)?;
    let ended = Timestamp::now();
    let jobs = listing.as_ref().map_or(&[][..], |listing| &listing.jobs);
    let complete = listing.as_ref().is_some_and(|listing| listing.is_complete()) && files.is_some();
    let mut looks = vec![];
    for entry in entries {
        let found = found(entry, &ctx.secret, jobs, files.as_deref().unwrap_or_default());
        for act in &found.acts {
            let object = format!("{}/{}", entry.namespace, entry.name);
            match perform(ctx, key, act).await {
                Ok(()) => tracing::info!(%object, ?act, "an orphan was found"),
                // It counts as found, so the next look tries again.
                Err(error) => tracing::warn!(%object, ?act, %error, "an orphan was found and not removed"),
            }
        }
        looks.push(Look {
            began: listing.as_ref().map_or(tick, |listing| listing.started),
            ended,
            fingerprint: fingerprint.to_owned(),
            complete,
            found,
        });
    }
    Ok(looks)
}

/// What was listed; an error ends the look only where the next call would be told the same.
fn unless_pointless<T>(listed: Result<T, gemini::Error>) -> Result<Option<T>, Error> {
    match listed {
        Ok(all) => Ok(Some(all)),
        Err(e) if matches!(e.class, Class::Auth | Class::RateLimited(_)) => Err(e.into()),
        Err(error) => {
            tracing::warn!(%error, "a listing for orphans failed; the rest is done without it");
            Ok(None)
        }
    }
}

async fn perform(ctx: &Context, key: &ApiKey, act: &Act) -> Result<(), gemini::Error> {
    let gemini = &ctx.gemini;
    let end = match act {
        Act::Cancel { job } => gemini.cancel_batch(key, job).await,
        Act::Delete { job, responses_file } => {
            if let Some(file) = responses_file {
                files::remove(gemini, key, file).await?;
            }
            gemini.delete_batch(key, job).await
        }
        Act::Remove { file } => return files::remove(gemini, key, file).await,
    };
    match end {
        // Ended or gone meanwhile.
        Err(e) if matches!(e.class, Class::Rejected | Class::NotFound) => Ok(()),
        other => other,
    }
}
