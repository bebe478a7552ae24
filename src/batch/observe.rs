//! I/O in: what a pass over a batch looks at, and no more.

use jiff::Timestamp;

use super::Subject;
use super::files::{self, Condition};
use super::gone::{self, Absence};
use super::observed::{
    InputFacts, InputProblem, JobFacts, Listed, ModelFacts, Observed, SinkProblem, Tracking,
};
use super::plan::{Needs, claim_of, newest_run, submitted};
use super::points::Point;
use super::schedule::is_terminal;
use super::{tracker, tracking};
use crate::api::batch::Run;
use crate::controller::points::around;
use crate::controller::{Credentials, Error};
use crate::gemini::{self, ApiKey, Batch, Class};
use crate::rows::{self, InputErrorKind, Rendered};
use crate::sink::{self, SinkError};
use crate::source::{self, SourceError};
use crate::submit;

/// What was read and is handed on to `act`, beside what the plan may see.
#[derive(Default)]
pub struct Found {
    pub key: Option<ApiKey>,
    pub rendered: Option<Rendered>,
}

pub async fn observe(subject: &Subject<'_>, needs: &Needs) -> Result<(Observed, Found), Error> {
    let (mut seen, mut found) = (Observed::default(), Found::default());
    let ctx = subject.ctx;
    let reference = &subject.batch.spec.api_key_secret_ref;
    if !needs.credentials {
        if needs.tracking {
            // The key of today, as the webhook's: since the submission it may have been rotated.
            let (credentials, _) = ctx.credentials.get(subject.namespace(), reference).await?.split();
            seen.tracking = Some(match &credentials {
                Credentials::Ready { fingerprint } => tracking(subject, Some(fingerprint)),
                _ => tracking(subject, None),
            });
        }
        return Ok((seen, found));
    }
    let (credentials, key) = ctx.credentials.get(subject.namespace(), reference).await?.split();
    let (Credentials::Ready { fingerprint }, Some(key)) = (&credentials, key) else {
        seen.credentials = Some(credentials);
        return Ok((seen, found));
    };
    if needs.tracking {
        seen.tracking = Some(tracking(subject, Some(fingerprint)));
    }
    match gemini_side(subject, needs, &key, fingerprint, &mut seen).await {
        Err(Error::Gemini(e)) if e.class == Class::Auth => {
            let refused = ctx.credentials.refuse(subject.namespace(), reference, fingerprint, &e.message);
            return Ok((Observed { credentials: Some(refused), ..Observed::default() }, found));
        }
        other => other?,
    }
    if needs.admission {
        found.rendered = kubernetes_side(subject, &mut seen).await?;
    } else if needs.input {
        seen.input = Some(load(subject).await?.map(|(_, rendered)| facts(&rendered)));
    }
    seen.credentials = Some(credentials);
    found.key = Some(key);
    Ok((seen, found))
}

/// What only Gemini knows.
async fn gemini_side(
    subject: &Subject<'_>,
    needs: &Needs,
    key: &ApiKey,
    fingerprint: &str,
    seen: &mut Observed,
) -> Result<(), Error> {
    let ctx = subject.ctx;
    let uid = subject.uid();
    let memory = ctx.batch_memory.get(&uid);
    if needs.admission {
        seen.gate = ctx.gates.left(fingerprint);
        if memory.model_known.as_deref() != Some(fingerprint) {
            let facts = model(subject, key).await?;
            if facts == ModelFacts::Known {
                ctx.batch_memory.update(&uid, |m| m.model_known = Some(fingerprint.to_owned()));
            }
            seen.model = Some(facts);
        }
        seen.file_usable = file_usable(subject, key, memory.uploaded.as_deref()).await?;
    }
    if let Some(since) = needs.listing_since {
        let (listings, gemini, metrics) = (&ctx.listings, &ctx.gemini, &ctx.metrics);
        let listing = match newest_run(&subject.batch) {
            Some(_) => listings.since(gemini, metrics, key, fingerprint, since).await?,
            // Nothing is to be proven, so an entry of somebody else's that cannot be read does not hold the batch.
            None => listings.sweep(gemini, metrics, key, fingerprint, since, Timestamp::MIN).await?,
        };
        if needs.files {
            let prefix = submit::file_prefix(subject.submit_key());
            seen.files = Some(files::with_prefix(&ctx.gemini, key, &prefix).await?);
        }
        ctx.batch_memory.update(&uid, |m| m.listed(ctx.uptime()));
        seen.listing = Some(Listed { started: listing.started, jobs: ours(subject, &listing.jobs) });
    }
    // What an event asks for comes first: no trouble with anybody else's job may stand in its way.
    if needs.job || (needs.ended && is_other_key(subject, fingerprint)) {
        seen.job = Some(look(subject, key, fingerprint, needs.for_event).await?);
    }
    if let Some(since) = needs.sweep_since {
        // A GET has told more than a listing could.
        if seen.job.is_none() {
            let from = needs.sweep_from.unwrap_or(Timestamp::MIN);
            sweep(subject, key, fingerprint, (since, from), seen).await?;
        }
        ctx.batch_memory.update(&uid, |m| m.swept = Some(Timestamp::now()));
    }
    Ok(())
}

/// Looks the job up in a listing that all batches of the key share; only one that has ended, or is not listed, costs a
/// GET. So does a listing that fails: other people's jobs in the project must not hold this one.
async fn sweep(
    subject: &Subject<'_>,
    key: &ApiKey,
    fingerprint: &str,
    (since, from): (Timestamp, Timestamp),
    seen: &mut Observed,
) -> Result<(), Error> {
    let ctx = subject.ctx;
    let run = newest_run(&subject.batch);
    let listed = match ctx.listings.sweep(&ctx.gemini, &ctx.metrics, key, fingerprint, since, from).await {
        Ok(listing) => {
            let (listed, duplicates) = in_listing(subject, &listing.jobs);
            seen.duplicates = duplicates;
            listed
        }
        // A GET would be told the same, once for each batch.
        Err(e) if matches!(e.class, Class::Auth | Class::RateLimited(_)) => return Err(e.into()),
        Err(error) => {
            tracing::warn!(object = %subject.name(), %error, "the listing failed; looking at the one job");
            None
        }
    };
    if subject.batch.is_finished() {
        return Ok(());
    }
    if let Some(job) = listed.filter(|job| !job.is_terminal()) {
        seen.listed = Some(Box::new(job));
        return Ok(());
    }
    let facts = look(subject, key, fingerprint, false).await?;
    if let JobFacts::Found(job) = &facts
        && job.is_terminal()
        && !run.is_some_and(is_terminal)
    {
        let found = tracker::found(subject, job, Timestamp::now());
        ctx.batch_memory.update(&subject.uid(), |m| m.found = found);
    }
    seen.job = Some(facts);
    Ok(())
}

/// What a sweep shows of a job that has not ended; `None`: it shows anything else, or cannot be had.
pub async fn quiet(subject: &Subject<'_>, needs: &Needs) -> Option<Observed> {
    let ctx = subject.ctx;
    let (since, from) = (needs.sweep_since?, needs.sweep_from?);
    let reference = &subject.batch.spec.api_key_secret_ref;
    let (credentials, key) = ctx.credentials.get(subject.namespace(), reference).await.ok()?.split();
    let (Credentials::Ready { fingerprint }, Some(key)) = (&credentials, key) else { return None };
    let listing = ctx.listings.sweep(&ctx.gemini, &ctx.metrics, &key, fingerprint, since, from).await.ok()?;
    let (listed, duplicates) = in_listing(subject, &listing.jobs);
    let job = listed.filter(|job| !job.is_terminal() && duplicates.is_empty())?;
    let tracking = Some(tracking(subject, Some(fingerprint)));
    Some(Observed {
        credentials: Some(credentials),
        listed: Some(Box::new(job)),
        tracking,
        ..Observed::default()
    })
}

/// The recorded job in a listing, and those of this batch that are one too many.
fn in_listing(subject: &Subject<'_>, jobs: &[Batch]) -> (Option<Batch>, Vec<String>) {
    let remote = newest_run(&subject.batch).and_then(|run| run.remote_name.as_deref());
    let recorded: Vec<&str> = runs(subject).iter().filter_map(|r| r.remote_name.as_deref()).collect();
    let duplicates =
        submit::duplicates(&ours(subject, jobs), &recorded).into_iter().map(str::to_owned).collect();
    (jobs.iter().find(|job| Some(job.name.as_str()) == remote).cloned(), duplicates)
}

/// Whether the newest run was submitted with another key than this one.
fn is_other_key(subject: &Subject<'_>, fingerprint: &str) -> bool {
    newest_run(&subject.batch).is_some_and(|run| run.key_fingerprint != fingerprint)
}

fn runs<'a>(subject: &'a Subject<'_>) -> &'a [Run] {
    subject.batch.status.as_ref().map_or(&[], |status| &status.runs)
}

/// One GET of the recorded job.
async fn look(
    subject: &Subject<'_>,
    key: &ApiKey,
    fingerprint: &str,
    for_event: bool,
) -> Result<JobFacts, Error> {
    let ctx = subject.ctx;
    let Some((run, name)) = newest_run(&subject.batch).and_then(|run| Some((run, run.remote_name.clone()?)))
    else {
        return Ok(JobFacts::Gone);
    };
    let event = subject.batch.status.as_ref().and_then(|s| s.last_event.as_ref()).map(|e| e.id.clone());
    let facts = match around(Point::Look, ctx.gemini.get_batch(key, &name)).await {
        Ok(job) => JobFacts::Found(Box::new(job)),
        Err(e) if e.class == Class::NotFound => {
            // It counts as a look, so that the next one keeps its distance, but nothing was learnt from it.
            let now = Timestamp::now();
            ctx.batch_memory.update(&subject.uid(), |m| {
                m.looked = Some(now);
                if for_event {
                    m.event_looked = Some(now);
                }
            });
            missing(subject, key, fingerprint, run, &name).await?
        }
        Err(e) => return Err(e.into()),
    };
    let now = Timestamp::now();
    ctx.batch_memory.update(&subject.uid(), |m| {
        m.looked = Some(now);
        if let JobFacts::Found(job) = &facts {
            m.job = Some((**job).clone());
            let again = for_event || m.unconfirmed > 0;
            m.unconfirmed = if job.is_terminal() || !again { 0 } else { m.unconfirmed.saturating_add(1) };
        }
        if for_event {
            m.event_looked = Some(now);
            m.handled_event = event;
        }
    });
    Ok(facts)
}

/// Gemini says that the job does not exist. A complete listing must bear that out before it is believed.
async fn missing(
    subject: &Subject<'_>,
    key: &ApiKey,
    fingerprint: &str,
    run: &Run,
    name: &str,
) -> Result<JobFacts, Error> {
    let ctx = subject.ctx;
    let lag = ctx.timing.listing_lag;
    let judge = |started, is_listed| gone::absence(run, fingerprint, started, is_listed, lag);
    let now = Timestamp::now();
    let mut absence = judge(now, false);
    if absence == Absence::Proven {
        let listing = ctx.listings.since(&ctx.gemini, &ctx.metrics, key, fingerprint, now).await?;
        absence = judge(listing.started, listing.jobs.iter().any(|job| job.name == name));
    }
    match absence {
        Absence::Proven | Absence::OtherKey => Ok(JobFacts::Gone),
        Absence::Listed | Absence::TooYoung => {
            let message = format!(
                "it does not find {name}, but nothing else shows that the job is gone; looking again"
            );
            Err(gemini::Error::transient(message).into())
        }
    }
}

async fn model(subject: &Subject<'_>, key: &ApiKey) -> Result<ModelFacts, Error> {
    let model = &subject.batch.spec.model;
    match subject.ctx.gemini.get_model(key, model).await {
        Ok(_) => Ok(ModelFacts::Known),
        Err(e) if matches!(e.class, Class::NotFound | Class::Rejected) => Ok(ModelFacts::Unknown(format!(
            "spec.model: Gemini does not know {model:?} for this API key ({}); create a new GeminiBatch with a model \
             that the key may use",
            e.message
        ))),
        Err(e) => Err(e.into()),
    }
}

/// `None`: nothing is staged.
async fn file_usable(
    subject: &Subject<'_>,
    key: &ApiKey,
    uploaded: Option<&str>,
) -> Result<Option<bool>, Error> {
    let input = subject.batch.status.as_ref().and_then(|s| s.input.as_ref());
    let Some((input, file)) = input.and_then(|i| i.file.as_ref().map(|f| (i, f))) else { return Ok(None) };
    if uploaded == Some(file.name.as_str()) {
        return Ok(Some(true));
    }
    match subject.ctx.gemini.get_file(key, &file.name).await {
        Ok(remote) => {
            let lasts = remote.expiration_time.is_none_or(|at| {
                crate::controller::until(at, Timestamp::now()) > subject.ctx.timing.file_margin
            });
            match files::condition(&remote, file.size_bytes, &input.sha256) {
                Condition::Usable => Ok(Some(lasts)),
                Condition::Damaged(_) => Ok(Some(false)),
                Condition::Processing => {
                    let message = format!("it is still processing {}", file.name);
                    Err(gemini::Error::transient(message).into())
                }
            }
        }
        Err(e) if e.class == Class::NotFound => Ok(Some(false)),
        Err(e) => Err(e.into()),
    }
}

/// What the cluster knows: the requests, and whether their answers would have a place.
async fn kubernetes_side(subject: &Subject<'_>, seen: &mut Observed) -> Result<Option<Rendered>, Error> {
    let client = &subject.ctx.client;
    let (estimate, rendered) = match load(subject).await? {
        Ok(loaded) => loaded,
        Err(problem) => {
            seen.input = Some(Err(problem));
            return Ok(None);
        }
    };
    seen.input = Some(Ok(facts(&rendered)));
    let name = subject.batch.sink_name();
    seen.sink = Some(match sink::check(client, subject.namespace(), &name, subject.name(), estimate).await {
        Ok(()) => Ok(()),
        Err(SinkError::Forbidden(message)) => Err(SinkProblem::Forbidden(message)),
        Err(SinkError::TooLarge(message)) => Err(SinkProblem::TooLarge(message)),
        Err(SinkError::Unavailable(message)) => return Err(Error::Sink(message)),
    });
    Ok(Some(rendered))
}

/// The requests, rendered, and an estimate of the size of their answers.
async fn load(subject: &Subject<'_>) -> Result<Result<(u64, Rendered), InputProblem>, Error> {
    let loaded = source::load(&subject.ctx.client, subject.namespace(), &subject.batch.spec.input).await;
    let rendered = loaded.and_then(|rows| Ok((rows::estimate_result_bytes(&rows), rows::render(&rows)?)));
    match rendered {
        Ok(rendered) => Ok(Ok(rendered)),
        Err(SourceError::Unavailable(message)) => Err(Error::Source(message)),
        Err(e) => Ok(Err(problem(e))),
    }
}

fn facts(rendered: &Rendered) -> InputFacts {
    InputFacts {
        sha256: rendered.sha256.clone(),
        rows: i64::try_from(rendered.rows).unwrap_or(i64::MAX),
        bytes: i64::try_from(rendered.bytes.len()).unwrap_or(i64::MAX),
    }
}

fn problem(error: SourceError) -> InputProblem {
    match error {
        SourceError::NotFound(message) | SourceError::Unavailable(message) => InputProblem::NotFound(message),
        SourceError::Forbidden(message) => InputProblem::Forbidden(message),
        SourceError::Invalid(e) => InputProblem::Invalid {
            reason: match e.kind {
                InputErrorKind::InvalidRow | InputErrorKind::Empty => "InvalidRow",
                InputErrorKind::DuplicateKey => "DuplicateKey",
                InputErrorKind::TooLarge => "TooLarge",
            },
            message: e.message,
        },
    }
}

/// Jobs in a listing that carry our K.
fn ours(subject: &Subject<'_>, jobs: &[Batch]) -> Vec<submit::Job> {
    let status = subject.batch.status.clone().unwrap_or_default();
    let Some(identity) = &status.identity else { return vec![] };
    let claim = claim_of(&subject.batch, &status);
    jobs.iter()
        .filter_map(|job| {
            let marked =
                submit::recognise(&subject.ctx.secret, &identity.submit_key, &claim, &job.display_name);
            let attempt = match marked {
                submit::Marked::Other => return None,
                submit::Marked::Ours(n) => Some(n),
                submit::Marked::Foreign => None,
            };
            let created = job.create_time.map_or(i128::MAX, Timestamp::as_nanosecond);
            Some(submit::Job { name: job.name.clone(), created, attempt, lost_input: job.lost_input() })
        })
        .collect()
}

/// Which webhook will tell of the end. `fingerprint`: the API key of today, if there is one.
fn tracking(subject: &Subject<'_>, fingerprint: Option<&str>) -> Tracking {
    let near = [subject.namespace(), subject.ctx.operator_namespace.as_str()];
    let webhooks = subject.ctx.webhooks();
    let readable = webhooks.iter().filter_map(|webhook| webhook.0.as_ref().ok());
    tracking::of(&subject.batch.spec.webhook, near, fingerprint, submitted(&subject.batch), readable)
}
