//! Results: from Gemini's file through the row pipeline into the sink.

use futures::StreamExt;
use jiff::Timestamp;

use super::Subject;
use super::plan::newest_run;
use super::points::Point;
use super::record::{self, Delivery};
use crate::api::GeminiBatch;
use crate::api::batch::{GeminiBatchStatus, Run};
use crate::controller::Error;
use crate::controller::points::around;
use crate::gemini::{ApiKey, Batch, Class, Download};
use crate::rows::{self, Collector, Harvest, Row, Wholeness};
use crate::sink::{self, Facts, Published, Remote, SinkError};
use crate::source::{self, SourceError};

/// So often in a row the API server may fail to give the input; then the results go on without it.
const SOURCE_TRIES: u32 = 6;
/// The receiver may write the same object at the same moment.
const MAX_CONFLICTS: usize = 5;

/// Fetches, classes, publishes, and writes the end of the batch.
pub async fn deliver(subject: &mut Subject<'_>, key: &ApiKey) -> Result<(), Error> {
    let Some(job) = subject.ctx.batch_memory.get(&subject.uid()).job else { return Ok(()) };
    let Some(file) = job.responses_file.clone() else {
        return conclude(subject, |batch| record::ended_without_results(batch, &job, Timestamp::now())).await;
    };
    if still_refused(subject, key, &file).await? {
        return Ok(());
    }
    let requests = source(subject).await?;
    let fetched = around(Point::Fetch, fetch(subject, key, &file, requests.as_deref(), &job)).await?;
    let (harvest, expire) = match fetched {
        Fetched::Whole(harvest, expire) => (harvest, expire),
        Fetched::Gone => return gone(subject, &file).await,
    };
    let publication = sink::compose(requests.as_deref(), &harvest, &facts(subject, &job));
    let name = subject.batch.sink_name();
    let publish =
        sink::publish(&subject.ctx.client, subject.namespace(), &name, subject.name(), &publication);
    match around(Point::Sink, publish).await {
        Ok(published) => finish(subject, &job, &harvest, &published, expire).await,
        Err(error) => refused(subject, &error).await,
    }
}

async fn finish(
    subject: &mut Subject<'_>,
    job: &Batch,
    harvest: &Harvest,
    published: &Published,
    results_expire: Option<Timestamp>,
) -> Result<(), Error> {
    let delivery = Delivery { job, harvest, published, results_expire };
    conclude(subject, |batch| record::delivered(batch, &delivery, Timestamp::now())).await
}

async fn gone(subject: &mut Subject<'_>, file: &str) -> Result<(), Error> {
    let message = format!("{file} is not at Gemini any more; nothing was submitted again");
    conclude(subject, |batch| record::undeliverable(batch, &message, Timestamp::now())).await
}

/// Says what the sink has against it, and leaves the rest to the next try: the results are still at Gemini.
async fn refused(subject: &mut Subject<'_>, error: &SinkError) -> Result<(), Error> {
    let too_large = matches!(error, SinkError::TooLarge(_)).then_some(subject.batch.metadata.generation);
    subject.ctx.batch_memory.update(&subject.uid(), |m| m.too_large = too_large.flatten());
    subject.write(record::undelivered(&subject.batch, error, Timestamp::now())).await?;
    Err(Error::Undelivered(error.to_string()))
}

/// After a refusal: asks what is cheap to ask before everything is fetched again. True: the batch has come to its end.
async fn still_refused(subject: &mut Subject<'_>, key: &ApiKey, file: &str) -> Result<bool, Error> {
    if !subject.batch.status.as_ref().is_some_and(record::is_refused) {
        return Ok(false);
    }
    let memory = subject.ctx.batch_memory.get(&subject.uid());
    let is_same_sink = memory.too_large.is_some() && memory.too_large == subject.batch.metadata.generation;
    let name = subject.batch.sink_name();
    let refusal = if is_same_sink {
        Some(Error::Undelivered("the results are too large for this sink".into()))
    } else {
        let asked = sink::check(&subject.ctx.client, subject.namespace(), &name, subject.name(), 0).await;
        if let Err(error) = &asked {
            subject.write(record::undelivered(&subject.batch, error, Timestamp::now())).await?;
        }
        asked.err().map(|error| Error::Undelivered(error.to_string()))
    };
    let Some(refusal) = refusal else { return Ok(false) };
    // Opened and dropped: the only proof of whether the copy is still there.
    if open(subject, key, file).await?.is_some() {
        return Err(refusal);
    }
    gone(subject, file).await?;
    Ok(true)
}

/// Writes the end of the batch. The status may have been written meanwhile by the receiver: then the same end is put on
/// top of that. An end that another controller has written stands.
async fn conclude(
    subject: &mut Subject<'_>,
    status: impl Fn(&GeminiBatch) -> GeminiBatchStatus,
) -> Result<(), Error> {
    for _ in 0..MAX_CONFLICTS {
        let before = subject.batch.clone();
        match around(Point::Commit, subject.write(status(&before))).await {
            Err(Error::Conflict) => subject.reread().await?,
            other => return other,
        }
        match meanwhile(&before, &subject.batch) {
            Meanwhile::Hint => {}
            Meanwhile::End => return Ok(()),
            Meanwhile::Other => return Err(Error::Conflict),
        }
    }
    Err(Error::Conflict)
}

/// What was written between reading and writing.
#[derive(Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// Nothing that the end depends on.
    Hint,
    /// The end, by another controller.
    End,
    /// Another object, another spec (the results may have to go elsewhere), or a deletion.
    Other,
}

pub fn meanwhile(before: &GeminiBatch, now: &GeminiBatch) -> Meanwhile {
    let id = |batch: &GeminiBatch| (batch.metadata.uid.clone(), batch.metadata.generation);
    if id(before) != id(now) || now.metadata.deletion_timestamp.is_some() {
        Meanwhile::Other
    } else if now.is_finished() {
        Meanwhile::End
    } else {
        Meanwhile::Hint
    }
}

/// The requests that were submitted: their keys order the results, and failed ones are written out to be submitted
/// again. `None` if the source holds something else by now, or nothing: then the output alone says what there is.
async fn source(subject: &Subject<'_>) -> Result<Option<Vec<Row>>, Error> {
    let submitted = subject.batch.status.as_ref().and_then(|s| s.input.as_ref()).map(|i| i.sha256.clone());
    let loaded = source::load(&subject.ctx.client, subject.namespace(), &subject.batch.spec.input).await;
    let failures = subject.ctx.batch_memory.update(&subject.uid(), |m| {
        let is_away = matches!(loaded, Err(SourceError::Unavailable(_)));
        m.source_failures = if is_away { m.source_failures.saturating_add(1) } else { 0 };
        m.source_failures
    });
    match loaded {
        Ok(rows) => {
            let now = rows::render(&rows).ok().map(|r| r.sha256);
            Ok((now == submitted).then_some(rows))
        }
        Err(SourceError::Unavailable(message)) if failures < SOURCE_TRIES => Err(Error::Source(message)),
        Err(error) => {
            tracing::warn!(object = %subject.name(), %error, "the results are delivered without the input");
            Ok(None)
        }
    }
}

enum Fetched {
    Whole(Box<Harvest>, Option<Timestamp>),
    Gone,
}

/// Streams the file through the collector, and believes it only if it is whole.
async fn fetch(
    subject: &Subject<'_>,
    key: &ApiKey,
    file: &str,
    requests: Option<&[Row]>,
    job: &Batch,
) -> Result<Fetched, Error> {
    let known = match subject.ctx.gemini.get_file(key, file).await {
        Ok(known) => Some(known),
        // Output files are not always served as files; the download decides.
        Err(e) if e.class == Class::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    let Some(mut download) = open(subject, key, file).await? else { return Ok(Fetched::Gone) };
    let mut collector = match requests {
        Some(rows) => Collector::new(&rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>()),
        None => Collector::open(
            subject
                .batch
                .status
                .as_ref()
                .and_then(|s| s.input.as_ref())
                .map_or(job.stats.request, |i| i.rows),
        ),
    };
    while let Some(chunk) = download.stream.next().await {
        collector.push(&chunk?);
    }
    let harvest = collector.finish();
    let size = known.as_ref().and_then(|f| f.size_bytes).and_then(|size| u64::try_from(size).ok());
    let fetched = subject.ctx.batch_memory.update(&subject.uid(), |m| {
        m.fetched = m.fetched.and(harvest.bytes);
        m.fetched
    });
    match rows::wholeness(&harvest, size, job.stats.request.min(job.stats.successful), fetched) {
        Wholeness::Whole => Ok(Fetched::Whole(Box::new(harvest), known.and_then(|f| f.expiration_time))),
        Wholeness::Again(why) => Err(Error::Results(why)),
    }
}

/// The file, opened; `None` if Gemini has it no more.
async fn open(subject: &Subject<'_>, key: &ApiKey, file: &str) -> Result<Option<Download>, Error> {
    match subject.ctx.gemini.download(key, file).await {
        Ok(download) => Ok(Some(download)),
        Err(e) if e.class == Class::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn facts(subject: &Subject<'_>, job: &Batch) -> Facts {
    let status = subject.batch.status.clone().unwrap_or_default();
    let input_file = newest_run(&subject.batch).map(|run: &Run| run.input_file.clone());
    Facts {
        namespace: subject.namespace().to_owned(),
        batch: subject.name().to_owned(),
        uid: subject.uid(),
        model: subject.batch.spec.model.clone(),
        operation: "GenerateContent".into(),
        input_sha256: status.input.map(|i| i.sha256).unwrap_or_default(),
        operator_version: env!("CARGO_PKG_VERSION").into(),
        remote: vec![Remote {
            name: job.name.clone(),
            state: job.state.as_str().to_owned(),
            input_file,
            responses_file: job.responses_file.clone(),
            create_time: job.create_time.map(|t| t.to_string()),
            end_time: job.end_time.map(|t| t.to_string()),
        }],
        start_time: status.start_time.map(|t| t.0.to_string()),
        submitted_time: status.submitted_time.map(|t| t.0.to_string()),
    }
}
