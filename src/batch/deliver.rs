//! Results: from Gemini's file through the row pipeline into the sink.

use futures::StreamExt;
use jiff::Timestamp;

use super::Subject;
use super::plan::newest_run;
use super::record::{self, Delivery};
use crate::api::batch::Run;
use crate::controller::Error;
use crate::gemini::{ApiKey, Batch, Class};
use crate::rows::{self, Collector, Harvest, Row};
use crate::sink::{self, Facts, Remote, SinkError};
use crate::source::{self, SourceError};

/// Fetches, classes, publishes, and writes the end of the batch.
pub async fn deliver(subject: &mut Subject<'_>, key: &ApiKey) -> Result<(), Error> {
    let Some(job) = subject.ctx.batch_memory.get(&subject.uid()).job else { return Ok(()) };
    let Some(file) = job.responses_file.clone() else {
        let status = record::ended_without_results(&subject.batch, &job, Timestamp::now());
        return subject.write(status).await;
    };
    let source = source(subject).await?;
    let Some(rows) = source.rows.as_ref() else {
        // Without the input its keys and order are unknown. The results stay at Gemini while it comes back.
        return Err(Error::Source(source.problem));
    };
    let keys: Vec<String> = rows.iter().map(|row| row.key.clone()).collect();
    let (harvest, expire) = match fetch(subject, key, &file, &keys, &job).await? {
        Fetched::Whole(harvest, expire) => (harvest, expire),
        Fetched::Gone => {
            let message = format!("{file} is not at Gemini any more; nothing was submitted again");
            let status = record::undeliverable(&subject.batch, "ResultsExpired", &message, Timestamp::now());
            return subject.write(status).await;
        }
    };
    let requests = (!source.drifted).then_some(rows.as_slice());
    let publication = sink::compose(&keys, requests, &harvest, &facts(subject, &job));
    let name = subject.batch.sink_name();
    let published =
        sink::publish(&subject.ctx.client, subject.namespace(), &name, subject.name(), &publication).await;
    let now = Timestamp::now();
    let status = match published {
        Ok(published) => {
            let delivery = Delivery {
                job: &job,
                harvest: &harvest,
                keys: &keys,
                published,
                drifted: source.drifted,
                results_expire: expire,
            };
            record::delivered(&subject.batch, delivery, now)
        }
        Err(SinkError::TooLarge(message)) => {
            record::undeliverable(&subject.batch, "SinkFailed", &message, now)
        }
        Err(SinkError::Forbidden(message)) => {
            subject.write(record::undelivered(&subject.batch, "SinkForbidden", &message, now)).await?;
            return Err(Error::Sink(message));
        }
        Err(SinkError::Unavailable(message)) => {
            subject.write(record::undelivered(&subject.batch, "SinkUnavailable", &message, now)).await?;
            return Err(Error::Sink(message));
        }
    };
    subject.write(status).await
}

/// The requests again: their keys order the results, and failed ones are written out to be submitted again.
struct Source {
    rows: Option<Vec<Row>>,
    /// Not what was submitted.
    drifted: bool,
    problem: String,
}

async fn source(subject: &Subject<'_>) -> Result<Source, Error> {
    let submitted = subject.batch.status.as_ref().and_then(|s| s.input.as_ref()).map(|i| i.sha256.clone());
    match source::load(&subject.ctx.client, subject.namespace(), &subject.batch.spec.input).await {
        Ok(rows) => {
            let now = rows::render(&rows).ok().map(|r| r.sha256);
            Ok(Source { drifted: now != submitted, rows: Some(rows), problem: String::new() })
        }
        Err(SourceError::Unavailable(message)) => Err(Error::Source(message)),
        Err(e) => Ok(Source { rows: None, drifted: true, problem: e.to_string() }),
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
    keys: &[String],
    job: &Batch,
) -> Result<Fetched, Error> {
    let gemini = &subject.ctx.gemini;
    let known = match gemini.get_file(key, file).await {
        Ok(known) => Some(known),
        // Output files are not always served as files; the download decides.
        Err(e) if e.class == Class::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    let mut download = match gemini.download(key, file).await {
        Ok(download) => download,
        Err(e) if e.class == Class::NotFound => return Ok(Fetched::Gone),
        Err(e) => return Err(e.into()),
    };
    let mut collector = Collector::new(keys);
    while let Some(chunk) = download.stream.next().await {
        collector.push(&chunk?);
    }
    let harvest = collector.finish();
    if let Some(size) = known.as_ref().and_then(|f| f.size_bytes)
        && u64::try_from(size).ok() != Some(harvest.bytes)
    {
        return Err(Error::Results(format!("{} of {size} bytes arrived; fetching again", harvest.bytes)));
    }
    if harvest.lines < job.stats.request.min(job.stats.successful) {
        return Err(Error::Results(format!(
            "{} lines arrived for {} answered rows; fetching again",
            harvest.lines, job.stats.successful
        )));
    }
    Ok(Fetched::Whole(Box::new(harvest), known.and_then(|f| f.expiration_time)))
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
