//! `GeminiBatch`: one batch job, from its requests to its results.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::refs::{ConfigMapKeyRef, SecretKeyRef};

/// What the batch asks for. `model`, `operation`, `input` and `webhook` are fixed from the moment the job is
/// about to be submitted (`status.startTime`); before that they may be edited.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gemini-operator.io",
    version = "v1alpha1",
    kind = "GeminiBatch",
    plural = "geminibatches",
    namespaced,
    status = "GeminiBatchStatus",
    derive = "PartialEq",
    shortname = "gb",
    shortname = "gbatch",
    category = "gemini",
    category = "all",
    doc = "GeminiBatch runs one job of the Gemini Batch API: it uploads the requests, submits one paid job, waits without polling, and writes the results to the sink.",
    selectable = ".spec.model",
    selectable = ".status.phase",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Rows", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.rows.failed"),
    printcolumn(name = "Tokens", type_ = "integer", json_path = ".status.usage.totalTokens"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Remote", type_ = "string", json_path = ".status.runs[-1:].remoteName", priority = 1),
    printcolumn(name = "Output", type_ = "string", json_path = ".status.output.resultsURI", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Reconciling\")].reason",
        priority = 1
    ),
    printcolumn(name = "Completed", type_ = "date", json_path = ".status.completionTime", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("metadata.name must have at most 63 characters"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec.model == oldSelf.spec.model")
        .message("spec.model cannot change once the job was submitted; create a new GeminiBatch instead"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec.operation == oldSelf.spec.operation")
        .message("spec.operation cannot change once the job was submitted; create a new GeminiBatch instead"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec.input == oldSelf.spec.input")
        .message("spec.input cannot change once the job was submitted; create a new GeminiBatch instead"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec.webhook == oldSelf.spec.webhook")
        .message("spec.webhook cannot change once the job was submitted; create a new GeminiBatch instead"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.output) || self.spec.output == oldSelf.spec.output")
        .message("spec.output cannot change once the results were delivered; copy them instead")
)]
#[serde(rename_all = "camelCase")]
pub struct GeminiBatchSpec {
    /// The Secret that holds the Gemini API key, in this namespace. May be changed at any time (rotation); the
    /// new key must belong to the same Google project, or the job cannot be found again.
    pub api_key_secret_ref: SecretKeyRef,

    /// The model, for example `gemini-3.5-flash`; `models/` and `tunedModels/` prefixes are accepted.
    #[schemars(length(max = 140))]
    #[x_kube(validation = Rule::new("self.matches('^(models/|tunedModels/)?[a-z0-9][a-z0-9._-]{1,127}$')")
        .message("spec.model must be the name of a model, such as gemini-3.5-flash or tunedModels/my-model"))]
    pub model: String,

    /// What to do with each row. Default: `GenerateContent`.
    #[serde(default)]
    pub operation: Operation,

    /// Where the requests come from: exactly one source.
    #[x_kube(validation = Rule::new("[has(self.inline), has(self.configMapRef)].exists_one(x, x)")
        .message("spec.input needs exactly one of: inline, configMapRef"))]
    pub input: Input,

    /// When the job counts as a success although rows failed.
    #[serde(default)]
    pub success_policy: SuccessPolicy,

    /// `true` holds the batch: before submission nothing happens at Gemini; after it the running job goes on, is
    /// watched, and its results are delivered, but nothing new starts. Default: `false`.
    #[serde(default)]
    pub suspend: bool,

    /// `true` cancels the batch for good. Rows that Gemini had already answered are delivered. Cannot be set back.
    /// Default: `false`.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!oldSelf || self")
        .message("spec.cancelled cannot be set back to false; create a new GeminiBatch instead"))]
    pub cancelled: bool,

    /// What to do when the answer to the submission was lost and no job shows in listings. Default:
    /// `ResubmitAfterProof`.
    #[serde(default)]
    pub ambiguity: Ambiguity,

    /// Which webhook says when the job ends.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!has(self.name) || self.mode != 'None'")
        .message("spec.webhook.name has no use with mode None; leave one of them out"))]
    pub webhook: WebhookChoice,

    /// Where the results go.
    #[serde(default)]
    pub output: Output,

    /// What happens at Gemini when this object is deleted. Default: `Delete`.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// How long a deletion may wait for Gemini. After that the object goes, an Event names the job that may be left,
    /// and the operator goes on looking for it for 72 hours. Default: `20m`.
    #[serde(default = "default_deletion_timeout")]
    pub deletion_timeout: GoDuration,
}

/// What Gemini does with each row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operation {
    #[default]
    GenerateContent,
}

/// Source of the requests.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// Requests written into this object. The whole object must fit into etcd's 1.5 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("[has(self.requests), has(self.jsonl)].exists_one(x, x)")
        .message("spec.input.inline needs exactly one of: requests, jsonl"))]
    pub inline: Option<Inline>,

    /// Requests as JSON Lines in a ConfigMap of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKeyRef>,
}

/// Requests written into the object itself.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inline {
    /// Up to 500 prompts, each with a unique key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 500),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key"])
    )]
    pub requests: Option<Vec<InlineRequest>>,

    /// JSON Lines, one object a line: `{"key":"…","request":{…GenerateContentRequest…}}`. At most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub jsonl: Option<String>,
}

/// One row of the batch: a prompt, its key, and how Gemini is to answer it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineRequest {
    /// Names the row in the results. Unique in the batch; 1 to 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,

    /// The user's message, 1 to 32768 characters. What is longer, has several turns or holds images goes into `jsonl` or
    /// `configMapRef`.
    #[schemars(length(min = 1, max = 32_768))]
    pub prompt: String,

    /// The system instruction, if any, 1 to 32768 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32_768))]
    pub system: Option<String>,

    /// Gemini's `generationConfig`, passed on as it is, for example `{"temperature": 0.2, "maxOutputTokens": 256}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub generation_config: Option<serde_json::Map<String, serde_json::Value>>,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// When a batch with failed rows still succeeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuccessPolicy {
    /// The batch is `Complete` while at most this share of its rows failed, in percent; above it is `Failed` with
    /// reason `TooManyFailedRows`. Either way the results are delivered. Default: 5.
    #[serde(default = "default_max_failed_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub max_failed_percent: i32,
}

fn default_max_failed_percent() -> i32 {
    5
}

impl Default for SuccessPolicy {
    fn default() -> Self {
        Self { max_failed_percent: default_max_failed_percent() }
    }
}

/// Choice of the webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookChoice {
    /// `Auto`: a ready GeminiWebhook with the same API key, of this namespace or of the operator's, or else the
    /// sweep (one list call a minute for all batches of a key); one of mode `Dynamic` only if there is no other.
    /// `Static`: one of mode `Static` or `External`, and the condition `WebhookTracked` says `WebhookNotReady` while there
    /// is none. `Dynamic`: the same with one of mode `Dynamic`, whose address goes to Gemini with the job. `None`: only the
    /// sweep. Default: `Auto`.
    #[serde(default)]
    pub mode: WebhookMode,

    /// Name of the GeminiWebhook to rely on, in this namespace or in the operator's. Default: any that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
}

/// The way out of an unknown submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ambiguity {
    /// Delete the input file of the lost attempt, so that its request can do nothing any more, wait longer than a
    /// listing can lag, look again, and only then submit again. Takes about 25 minutes and no person.
    #[default]
    ResubmitAfterProof,
    /// Stop and ask: the condition `Submitted` says how to go on. A job that appears is still adopted.
    Quarantine,
}

/// How the end of the job becomes known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WebhookMode {
    #[default]
    Auto,
    Static,
    Dynamic,
    None,
}

/// Destination of the results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The sink. May be changed until the results were delivered.
    #[serde(default)]
    pub sink: Sink,
}

/// One sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sink {
    /// Results in a ConfigMap of this namespace: `results.jsonl` in the order of the input, `errors.jsonl` that can
    /// be submitted again as it is, `manifest.json` with counts and digests. Over 900 KiB they go on in `NAME-1`,
    /// `NAME-2`, … (at most 16 in all; what cannot fit is refused before anything is paid). The ConfigMap must not
    /// exist, or belong to this batch. It stays when the batch is deleted. Default: `<name of the batch>-results`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSink>,
}

/// Results in a ConfigMap.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSink {
    /// Name of the ConfigMap, in the namespace of this batch.
    #[schemars(length(max = 250))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
        .message("a ConfigMap's name has lower-case letters, digits, '-' and '.', a letter or digit at both ends"))]
    pub name: String,
}

/// What a deletion does at Gemini.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Cancel the job, wait until it has ended, remove the job and its files.
    #[default]
    Delete,
    /// Cancel the job; leave job and files to the provider's own expiry.
    Cancel,
    /// Leave everything as it is.
    Orphan,
}

fn default_deletion_timeout() -> GoDuration {
    GoDuration::from_mins(20)
}

/// How far the batch has come, what it cost, and where its results are. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeminiBatchStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Version of the submission protocol that wrote this status. A controller that knows only older ones leaves
    /// the batch alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<i32>,

    /// Ties this status to this very object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,

    /// One word for people; programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// The state in the form that `kubectl wait` and other tools read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// When the job was about to be submitted for the first time. From then on `model`, `operation`, `input` and
    /// `webhook` of the spec cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When the name of the job at Gemini was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_time: Option<Time>,

    /// When the batch became `Complete` or `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// The input as it was uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputStatus>,

    /// Rows of the batch, by outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,

    /// Succeeded rows of all rows, as `9980/10000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,

    /// The jobs at Gemini that were made for this batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub runs: Vec<Run>,

    /// Tokens, as Gemini counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,

    /// The newest verified webhook event for this batch. A hint to look, never a fact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<LastEvent>,

    /// Where the results are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputStatus>,

    /// Failed rows by cause, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub errors: Vec<ErrorSummary>,
}

/// Ties a status to its object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// `metadata.uid` of the object that this status was written for.
    pub uid: String,
    /// The key by which this batch's jobs and files are recognised at Gemini.
    pub submit_key: String,
}

/// One word for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    Suspended,
    Queued,
    Staging,
    Submitting,
    Pending,
    Running,
    Delivering,
    Succeeded,
    PartiallySucceeded,
    Failed,
    Cancelled,
    Expired,
}

/// The input as it was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InputStatus {
    /// SHA-256 of the rendered JSON Lines, in hex.
    pub sha256: String,
    /// Number of rows in it.
    pub rows: i64,
    /// Size of the rendered JSON Lines in bytes.
    pub bytes: i64,
    /// The uploaded file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<InputFile>,
}

/// A file at Gemini.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InputFile {
    /// Name of the file at Gemini, `files/…`.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: i64,
    /// When the provider deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Time>,
}

/// Rows of the batch, by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RowCounts {
    /// All rows of the input.
    pub total: i64,
    /// Rows with a complete answer.
    pub succeeded: i64,
    /// Rows without one; `byClass` says why.
    pub failed: i64,
    /// Rows that are not decided yet.
    pub pending: i64,
    /// Rows by class: `OK`, `Transient`, `Invalid`, `Blocked`, `Truncated`, `Empty`, `Missing`, `Duplicate`,
    /// `BadJSON`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_class: BTreeMap<String, i64>,
}

/// One job at Gemini.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Name of the run inside this batch.
    pub name: String,
    /// Number of the submission attempt; it only grows.
    pub attempt: i32,
    /// Where the submission stands.
    pub submission: Submission,
    /// State of the job at Gemini, as Gemini names it without its prefix: `PENDING`, `RUNNING`, `SUCCEEDED`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Random number of this attempt: only the process that wrote it may send the request.
    pub nonce: String,
    /// The process that wrote the intent.
    pub holder: String,
    /// The `displayName` by which the job is recognised at Gemini.
    pub marker: String,
    /// The uploaded input of this attempt.
    pub input_file: String,
    /// Fingerprint of the API key of this attempt (keyed, not reversible).
    pub key_fingerprint: String,
    /// When the intent was written.
    pub intent_time: Time,
    /// Files that may be the input of this attempt, where its own is not known: the object came back without its status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fenced_files: Vec<String>,
    /// When the input file of this attempt was proven gone: from then on its request can do nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced_time: Option<MicroTime>,
    /// Fingerprint of the API key that proved it. Only what this key lists counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced_key_fingerprint: Option<String>,
    /// Complete listings that were counted while the outcome was unknown, or since the attempt was fenced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listings: Option<Listings>,
    /// Name of the job at Gemini, `batches/…`. Written once for each attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_name: Option<String>,
    /// When the job's name was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submit_time: Option<Time>,
    /// When the job ended, by Gemini's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// Rows of this job.
    pub rows: i64,
    /// What Gemini or the operator has to say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Where a submission stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Submission {
    /// The intent is durable; the request may have been sent.
    Pending,
    /// Given up on: its input file is being deleted, or was; `fencedTime` says when that was proven.
    Fenced,
    /// The job's name is recorded.
    Recorded,
    /// There is no job, and there can be none any more. Or there was one that failed before it ran any row, because its input
    /// file was gone: `remoteName` names it.
    Abandoned,
    /// Whether there is a job could not be found out; a person decides.
    Quarantined,
}

/// Complete listings made for one recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listings {
    /// How many were made.
    pub complete: i32,
    /// When the newest one began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<Time>,
}

/// Tokens, as Gemini counted them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Prompt tokens of delivered rows.
    pub input_tokens: i64,
    /// Answer tokens of delivered rows.
    pub output_tokens: i64,
    /// Thinking tokens of delivered rows.
    pub thoughts_tokens: i64,
    /// Prompt tokens of delivered rows that came from a cache.
    pub cached_tokens: i64,
    /// All tokens of delivered rows.
    pub total_tokens: i64,
    /// All tokens of rows that were answered, and so paid, but are not counted as delivered.
    pub discarded_tokens: i64,
}

/// A verified webhook event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastEvent {
    /// The delivery's `webhook-id`.
    pub id: String,
    /// For example `batch.succeeded`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The job that the event speaks of, `batches/…`.
    pub remote_name: String,
    /// The sender's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// When the receiver verified it.
    pub received_time: Time,
}

/// Where the results are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputStatus {
    /// The delivered answers.
    #[serde(rename = "resultsURI")]
    pub results_uri: String,
    /// The failed rows, if any.
    #[serde(rename = "errorsURI", default, skip_serializing_if = "Option::is_none")]
    pub errors_uri: Option<String>,
    /// Counts, digests and names.
    #[serde(rename = "manifestURI")]
    pub manifest_uri: String,
    /// SHA-256 of `results.jsonl`, in hex.
    pub sha256: String,
    /// Lines of `results.jsonl`.
    pub lines: i64,
    /// Bytes of `results.jsonl`.
    pub bytes: i64,
    /// When the provider deletes its own copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results_expire_time: Option<Time>,
}

/// Failed rows of one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorSummary {
    /// Why these rows have no complete answer: one of the classes that `status.rows.byClass` counts.
    pub class: String,
    /// The provider's code or finish reason, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How many rows failed in this way.
    pub count: i64,
    /// Key of one of these rows, to look it up in `errors.jsonl`.
    pub sample_key: String,
    /// The provider's words about that one, cut to 256 bytes.
    pub message: String,
}

impl GeminiBatch {
    /// Whether the batch has reached its end.
    pub fn is_finished(&self) -> bool {
        use super::condition::{batch_type, is_true};
        self.status.as_ref().is_some_and(|s| {
            is_true(&s.conditions, batch_type::COMPLETE) || is_true(&s.conditions, batch_type::FAILED)
        })
    }

    /// Name of the ConfigMap that the results go to.
    pub fn sink_name(&self) -> String {
        match &self.spec.output.sink.config_map {
            Some(sink) => sink.name.clone(),
            None => format!("{}-results", self.metadata.name.as_deref().unwrap_or_default()),
        }
    }
}
