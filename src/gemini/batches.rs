//! Batch jobs: reading, listing, cancelling and deleting them. Creating one is in `submit`.

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{Error, Kind};
use super::http::{ApiKey, Gemini, with_query};
use super::wire::{code, id_in, integer, is_id, model_path, time};

/// Jobs per page of the listing: not the maximum, because entries may carry inline answers, 20 MB each at worst. A page
/// that is too large is asked for again in the next smaller size; three of the worst fit.
const PAGE_SIZES: [&str; 4] = ["100", "10", "3", "1"];
/// More pages than any project has; a provider that repeats a page token must not hold us for ever.
const MAX_PAGES: usize = 10_000;

/// A batch job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `batches/…`
    pub name: String,
    pub display_name: String,
    /// `models/…`
    pub model: String,
    pub state: State,
    /// The state as it was on the wire; empty when there was none.
    pub raw_state: String,
    pub create_time: Option<Timestamp>,
    pub end_time: Option<Timestamp>,
    /// The uploaded input, `files/…`.
    pub input_file: Option<String>,
    /// The answers, `files/…`.
    pub responses_file: Option<String>,
    /// The answers stand in the operation itself (we never ask for that).
    pub inlined: bool,
    pub stats: BatchStats,
    /// Code (number or text) and message of a job that failed.
    pub error: Option<(String, String)>,
}

impl Batch {
    /// Whether it has ended, in whatever way.
    pub fn is_terminal(&self) -> bool {
        self.state.is_terminal()
    }

    /// Whether it failed because its input file was not there, before any row was run: it did nothing, and nothing is
    /// paid. Only what names that very file is taken for this; other things can be not found, a model for one.
    ///
    /// Neither code nor text is documented: a missing file is `PERMISSION_DENIED` (7) where a request names it, with the
    /// file's id in the message, and `NOT_FOUND` (5) elsewhere.
    pub fn lost_input(&self) -> bool {
        let (Some((code, message)), Some(file)) = (&self.error, &self.input_file) else { return false };
        let id = file.trim_start_matches("files/");
        self.state == State::Failed
            && self.responses_file.is_none()
            && !self.inlined
            && self.stats.successful == 0
            && ["5", "7", "NOT_FOUND", "PERMISSION_DENIED"].contains(&code.as_str())
            && !id.is_empty()
            && message.contains(id)
    }
}

/// Rows as Gemini counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStats {
    pub request: i64,
    pub successful: i64,
    pub failed: i64,
    pub pending: i64,
}

/// State of a job. Never `Unknown` once the operation says `done`: then the operation's end decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
    /// A state of tomorrow, or none: not terminal.
    Unknown(String),
}

impl State {
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// As Gemini names it, without `BATCH_STATE_`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
            Self::Unknown(raw) => raw,
        }
    }
}

/// All jobs of a key's project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchListing {
    /// Newest first.
    pub batches: Vec<Batch>,
    /// Entries that could not be read (no usable name). A listing with such an entry is not complete: it must not
    /// serve as proof that a job does not exist.
    pub unreadable: usize,
    /// Jobs that were created before this may be missing; `None`: none is.
    pub reaches: Option<Timestamp>,
}

impl BatchListing {
    /// Takes in a page; whether all that it holds is older than `from`, as far as it says.
    fn take(&mut self, operations: &[Box<RawValue>], from: Timestamp) -> bool {
        let mut is_older = !operations.is_empty();
        for raw in operations {
            if let Ok(batch) = parse_operation(raw.get().as_bytes()) {
                is_older &= batch.create_time.is_some_and(|created| created < from);
                self.batches.push(batch);
            } else {
                is_older = false;
                self.unreadable += 1;
            }
        }
        is_older
    }
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// `models/…`
    pub name: String,
    /// `supportedGenerationMethods`; a batch needs `batchGenerateContent`.
    pub methods: Vec<String>,
    pub input_token_limit: Option<i64>,
    pub output_token_limit: Option<i64>,
}

/// Reads an operation: the answer to create, get, or one entry of the listing.
pub fn parse_operation(body: &[u8]) -> Result<Batch, String> {
    let operation: Operation =
        serde_json::from_slice(body).map_err(|e| format!("not an operation: {}", without_value(&e)))?;
    let name = operation.name.unwrap_or_default();
    if !name.strip_prefix("batches/").is_some_and(is_id) {
        return Err("not an operation: it has no name of the form batches/…".into());
    }
    let metadata = match operation.metadata {
        Some(metadata) => metadata,
        // One SDK hands out the resource itself, without the operation around it.
        None => serde_json::from_slice(body).map_err(|e| format!("not a batch: {}", without_value(&e)))?,
    };
    let raw_state = metadata.state.unwrap_or_default();
    let state = state_of(&raw_state, operation.done == Some(true), operation.error.is_some());
    let error =
        operation.error.map(|e| (code(e.code.as_ref()).unwrap_or_default(), e.message.unwrap_or_default()));
    // `metadata.output` first: it is what the SDKs read, and so what is never missing.
    let outputs = [metadata.output, operation.response];
    let outputs = || outputs.iter().flatten();
    let counts = metadata.batch_stats.unwrap_or_default();
    let count = |value: &Option<Value>| integer(value.as_ref()).unwrap_or(0).max(0);
    Ok(Batch {
        name,
        display_name: metadata.display_name.unwrap_or_default(),
        model: metadata.model.unwrap_or_default(),
        state,
        raw_state,
        create_time: time(metadata.create_time.as_deref()),
        end_time: time(metadata.end_time.as_deref()),
        input_file: metadata.input_config.and_then(|c| c.file_name),
        responses_file: outputs().find_map(|o| o.responses_file.clone()),
        inlined: outputs()
            .any(|o| o.inlined_responses.is_some() || o.inlined_embed_content_responses.is_some()),
        stats: BatchStats {
            request: count(&counts.request_count),
            successful: count(&counts.successful_request_count),
            failed: count(&counts.failed_request_count),
            pending: count(&counts.pending_request_count),
        },
        error,
    })
}

fn state_of(raw: &str, is_done: bool, has_error: bool) -> State {
    let word = raw.strip_prefix("BATCH_STATE_").or_else(|| raw.strip_prefix("JOB_STATE_")).unwrap_or(raw);
    let state = match word {
        "PENDING" | "QUEUED" => State::Pending,
        "RUNNING" => State::Running,
        "SUCCEEDED" => State::Succeeded,
        "FAILED" => State::Failed,
        "CANCELLED" => State::Cancelled,
        "EXPIRED" => State::Expired,
        other => State::Unknown(other.to_owned()),
    };
    match state {
        state if state.is_terminal() || !is_done => state,
        _ if has_error => State::Failed,
        _ => State::Succeeded,
    }
}

/// serde's message without the text that it quotes, which is the provider's and may be long.
fn without_value(error: &serde_json::Error) -> String {
    format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column())
}

#[derive(Deserialize)]
struct Operation {
    name: Option<String>,
    done: Option<bool>,
    metadata: Option<Metadata>,
    response: Option<Output>,
    error: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    display_name: Option<String>,
    model: Option<String>,
    state: Option<String>,
    create_time: Option<String>,
    end_time: Option<String>,
    input_config: Option<InputConfig>,
    batch_stats: Option<Stats>,
    output: Option<Output>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InputConfig {
    #[serde(alias = "file_name")]
    file_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the wire's names")]
struct Stats {
    request_count: Option<Value>,
    successful_request_count: Option<Value>,
    failed_request_count: Option<Value>,
    pending_request_count: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    responses_file: Option<String>,
    // Up to 20 MB of answers that nobody here reads.
    inlined_responses: Option<IgnoredAny>,
    inlined_embed_content_responses: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Status {
    code: Option<Value>,
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OperationList {
    #[serde(default)]
    operations: Vec<Box<RawValue>>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelWire {
    name: Option<String>,
    #[serde(default)]
    supported_generation_methods: Vec<String>,
    input_token_limit: Option<Value>,
    output_token_limit: Option<Value>,
}

impl Gemini {
    /// One job.
    pub async fn get_batch(&self, key: &ApiKey, name: &str) -> Result<Batch, Error> {
        let id = id_in("batches", name)?;
        let answer = self.get(Kind::Plain, key, self.url(&format!("batches/{id}"))).await?;
        let batch =
            parse_operation(&answer.body).map_err(|e| Error::unusable(Kind::Plain, answer.status, &e))?;
        if batch.name == name {
            Ok(batch)
        } else {
            Err(Error::unusable(Kind::Plain, answer.status, "it speaks of another job"))
        }
    }

    /// All jobs of the key's project, over all pages. An error on any page voids the whole; a page that is too large
    /// because of other people's inline answers is asked for again in smaller ones.
    pub async fn list_batches(&self, key: &ApiKey) -> Result<BatchListing, Error> {
        self.list_batches_since(key, None).await
    }

    /// The same, but not beyond a page on which all jobs were created before `from`: the newest come first. That order is
    /// what Gemini shows and nowhere promises, so what is missing in such a listing proves nothing.
    pub async fn list_batches_since(
        &self,
        key: &ApiKey,
        from: Option<Timestamp>,
    ) -> Result<BatchListing, Error> {
        let (mut all, mut token) = (BatchListing::default(), None::<String>);
        let mut sizes = PAGE_SIZES.iter().peekable();
        for _ in 0..MAX_PAGES {
            let Some(size) = sizes.peek() else { break };
            let list = match self.page_of_batches(key, token.as_deref(), size).await {
                Err(e) if e.is_too_large && sizes.len() > 1 => {
                    sizes.next();
                    continue;
                }
                other => other?,
            };
            let is_older = all.take(&list.operations, from.unwrap_or(Timestamp::MIN));
            token = list.next_page_token.filter(|t| !t.is_empty());
            if token.is_none() {
                return Ok(all);
            }
            if is_older {
                all.reaches = from;
                return Ok(all);
            }
        }
        Err(Error::transient("batches.list does not come to an end"))
    }

    async fn page_of_batches(
        &self,
        key: &ApiKey,
        token: Option<&str>,
        size: &str,
    ) -> Result<OperationList, Error> {
        let mut query = vec![("pageSize", size)];
        query.extend(token.map(|token| ("pageToken", token)));
        self.get(Kind::Plain, key, with_query(self.url("batches"), &query)).await?.json(Kind::Plain)
    }

    /// Asks for a cancellation; the job ends some time later. A job that has ended or is gone answers with
    /// `Rejected` or `NotFound`.
    pub async fn cancel_batch(&self, key: &ApiKey, name: &str) -> Result<(), Error> {
        let url = self.url(&format!("batches/{}:cancel", id_in("batches", name)?));
        self.send_json(Kind::Plain, key, Method::POST, url, &Value::Object(serde_json::Map::new()))
            .await
            .map(drop)
    }

    /// Deletes the job's record. Not a cancellation: cancel first.
    pub async fn delete_batch(&self, key: &ApiKey, name: &str) -> Result<(), Error> {
        let url = self.url(&format!("batches/{}", id_in("batches", name)?));
        self.call(Kind::Plain, key, self.request(Method::DELETE, url)).await.map(drop)
    }

    /// A model, with or without `models/`.
    pub async fn get_model(&self, key: &ApiKey, model: &str) -> Result<Model, Error> {
        let path = model_path(model)?;
        let wire: ModelWire = self.get(Kind::Plain, key, self.url(&path)).await?.json(Kind::Plain)?;
        Ok(Model {
            name: wire.name.unwrap_or(path),
            methods: wire.supported_generation_methods,
            input_token_limit: integer(wire.input_token_limit.as_ref()),
            output_token_limit: integer(wire.output_token_limit.as_ref()),
        })
    }
}
