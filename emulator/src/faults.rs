//! The fault plan: its form, and which rule applies to what. Types only say what may be wished; the rooms obey.

use serde::{Deserialize, Serialize};

use crate::calls::Call;
use crate::clock::{MILLI, Nanos};
use crate::digest::unit;
use crate::errors::Form;
use crate::jwks::Signature;
use crate::rows::Outcome;

/// A whole plan. Unknown fields are errors everywhere: a misspelt fault that never fires proves nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// About calls of the API.
    pub rules: Vec<Rule<CallMatch, CallFault>>,
    /// About attempts to deliver an event.
    pub deliveries: Vec<Rule<DeliveryMatch, DeliveryFault>>,
    /// About rows of jobs.
    pub rows: Vec<Rule<RowMatch, RowFault>>,
    /// About jobs as a whole.
    pub jobs: Vec<Rule<JobMatch, JobFault>>,
    /// Modes of the whole emulator.
    pub options: Options,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule<M, D> {
    /// Shown in the ledger; `rules[0]` and so on where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, rename = "match")]
    pub when: M,
    #[serde(rename = "do")]
    pub action: D,
    /// How often it may fire; without it, always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

/// A number, or a range from which the seed picks one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    Fixed(u64),
    Range([u64; 2]),
}

impl Amount {
    /// The value for the n-th firing.
    pub fn pick(self, seed: u64, word: &str) -> u64 {
        match self {
            Self::Fixed(value) => value,
            Self::Range([low, high]) => {
                let share = unit(seed, &["amount", word]);
                #[allow(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss
                )]
                let offset = (high.saturating_sub(low) as f64 * share) as u64;
                low.saturating_add(offset)
            }
        }
    }

    pub fn pick_nanos(self, seed: u64, word: &str) -> Nanos {
        i64::try_from(self.pick(seed, word)).unwrap_or(i64::MAX).saturating_mul(MILLI)
    }
}

/// One value or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: PartialEq> OneOrMany<T> {
    pub fn has(&self, wanted: &T) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Many(many) => many.contains(wanted),
        }
    }
}

/// Which calls. In every kind of match, `nth` (a list), `from` and `every` count what fits the rest, from 1.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallMatch {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "calls")]
    pub call: Option<OneOrMany<Call>>,
    /// Part of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_contains: Option<String>,
    /// Part of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_contains: Option<String>,
    /// Part of the body (its first MiB).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// The API key of the call; never shown again.
    #[serde(skip_serializing)]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nth: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

/// Names of calls, with a message that says which name is wrong.
fn calls<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<OneOrMany<Call>>, D::Error> {
    let known = |name: &String| {
        let wrong = || serde::de::Error::custom(format!("`{name}` is no call; calls are {}", call_names()));
        Call::ALL.iter().find(|call| call.name() == name).copied().ok_or_else(wrong)
    };
    Ok(match Option::<OneOrMany<String>>::deserialize(from)? {
        None => None,
        Some(OneOrMany::One(name)) => Some(OneOrMany::One(known(&name)?)),
        Some(OneOrMany::Many(names)) => {
            Some(OneOrMany::Many(names.iter().map(known).collect::<Result<_, D::Error>>()?))
        }
    })
}

fn call_names() -> String {
    let names: Vec<&str> = Call::ALL.iter().map(|call| call.name()).collect();
    names.join(", ")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drop {
    /// The connection closes, nothing was executed.
    Request,
    /// Executed, then the connection closes without an answer.
    Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldCall {
    /// Before it is executed.
    Request,
    /// Executed, but not answered.
    Answer,
}

/// What happens to a call. Several fields may be given together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallFault {
    /// Wait before executing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<Amount>,
    /// Wait between executing and answering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_delay_ms: Option<Amount>,
    /// Wait there until `POST calls/release`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<Drop>,
    /// Answer this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// With `status`: execute all the same.
    pub executed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `ErrorInfo.reason` in the details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The header as given; `date:30` is the date in 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
    /// A `RetryInfo` detail of so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_info_s: Option<u64>,
    /// Execute so much later; the caller gets `status`, or his connection closes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execute_late_ms: Option<Amount>,
    /// Execute after so many further calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execute_late_calls: Option<u64>,
    /// The announced length stays, the connection closes after so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate_body_at: Option<usize>,
    /// The answer ends after so many bytes and does not look broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shorten_body_to: Option<usize>,
    /// One bit of this byte is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip_byte_at: Option<usize>,
    /// So many bytes at a time, with `drip_ms` (100) between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drip_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drip_ms: Option<u64>,
    /// This body instead of the real one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Values put into the real answer, by JSON pointer; `-` at the end of an array appends, what is not there is made.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub set: std::collections::BTreeMap<String, serde_json::Value>,
    /// Headers to add or to replace.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub headers: std::collections::BTreeMap<String, String>,
    /// Of `batches.create` or an upload: so long it is in no list. Of a list: what is younger is not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_lag_ms: Option<Amount>,
    /// Of a list: this token for the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryMatch {
    /// `batch.succeeded`, `ping`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<OneOrMany<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_contains: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Which attempts of one event, from 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempt: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nth: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forgery {
    /// Signed with a secret that nobody registered.
    Secret,
    /// One bit of the signature is wrong.
    Signature,
    /// The body changed after it was signed.
    Body,
    /// No signature at all.
    Unsigned,
    /// Correctly signed, ten minutes ago.
    Stale,
    /// Correctly signed, in ten minutes.
    Future,
    /// Of a dynamic delivery: by the key that left the JWKS last. Of others: as `secret`.
    Retired,
}

/// With which secrets an event is signed while several are alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignWith {
    /// The newest and the one before.
    #[default]
    NewestAndPrevious,
    Newest,
    Oldest,
    All,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryFault {
    /// The event is never sent, and not tried again.
    pub lose: bool,
    /// So many further copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<u64>,
    /// Sent after the next delivery (or 10 s).
    pub reorder: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<Amount>,
    /// Sent as an attacker would; counts as delivered only if it is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forge: Option<Forgery>,
    /// Not sent; goes on as if the endpoint had answered this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Not sent; goes on as if nobody had listened.
    pub unreachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign: Option<SignWith>,
    /// Of a dynamic delivery: this kind of signature, not the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<Signature>,
    /// This body instead; signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RowMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<OneOrMany<String>>,
    /// Position in the job, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<OneOrMany<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_contains: Option<String>,
    /// Part of the job's displayName.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name_contains: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Only when this project never ran this row before.
    pub first_attempt_only: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nth: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// By key and seed: the same rows in every run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RowFault {
    /// An error with this google.rpc code.
    Fail(i64),
    FailWith {
        code: i64,
        message: String,
    },
    Finish(String),
    Blocked,
    Truncated,
    Empty,
    Missing,
    Duplicate,
    #[serde(rename = "badjson")]
    BadJson,
}

impl RowFault {
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Fail(code) => Outcome::Error { code: *code, message: None },
            Self::FailWith { code, message } => {
                Outcome::Error { code: *code, message: Some(message.clone()) }
            }
            Self::Finish(reason) => Outcome::Finish(reason.clone()),
            Self::Blocked => Outcome::Blocked,
            Self::Truncated => Outcome::Truncated,
            Self::Empty => Outcome::Empty,
            Self::Missing => Outcome::Missing,
            Self::Duplicate => Outcome::Duplicate,
            Self::BadJson => Outcome::BadJson,
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name_contains: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nth: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FinalState {
    Succeeded,
    Failed,
    Cancelled,
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    Pending,
    Running,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobError {
    pub code: i64,
    #[serde(default)]
    pub message: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobFault {
    /// How it ends; only SUCCEEDED jobs are paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<FinalState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// Stays there until released (or 48 h old).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_time_ms: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_lag_ms: Option<Amount>,
    /// The rows of the result in another order.
    pub shuffle: bool,
    /// The result file is gone when the job ends.
    pub lose_result: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingFile {
    /// 403 at create.
    #[default]
    Reject,
    /// A job that fails, unpaid.
    FailAtRun,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What a create does that names a file which is not there.
    pub missing_file: MissingFile,
    pub sign: SignWith,
    /// More open jobs than this: 429. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_batches: Option<usize>,
    /// A webhook is disabled after so many failed attempts in a row …
    pub disable_after_attempts: u64,
    /// … over at least so long (of the emulator's clock).
    pub disable_after_seconds: u64,
    /// … or after so many events in a row that were given up.
    pub disable_after_events: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            missing_file: MissingFile::default(),
            sign: SignWith::default(),
            max_concurrent_batches: None,
            disable_after_attempts: 30,
            disable_after_seconds: 6 * 3_600,
            disable_after_events: 3,
        }
    }
}

impl Plan {
    /// A plan out of JSON text, checked.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let plan: Self = serde_json::from_slice(text).map_err(|error| format!("fault plan: {error}"))?;
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), String> {
        let share = |at: String, share: Option<f64>| match share {
            Some(share) if !(0.0..=1.0).contains(&share) => {
                Err(format!("fault plan: {at}: probability {share} is not between 0 and 1"))
            }
            _ => Ok(()),
        };
        for (position, rule) in self.rules.iter().enumerate() {
            share(format!("rules[{position}]"), rule.when.probability)?;
            if let Some(status) = rule.action.status
                && !(200..=599).contains(&status)
            {
                return Err(format!(
                    "fault plan: rules[{position}]: status {status} is not between 200 and 599"
                ));
            }
            if let Some(pointer) = rule.action.set.keys().find(|pointer| !pointer.starts_with('/')) {
                return Err(format!("fault plan: rules[{position}]: set: {pointer:?} is no JSON pointer"));
            }
        }
        for (position, rule) in self.deliveries.iter().enumerate() {
            share(format!("deliveries[{position}]"), rule.when.probability)?;
        }
        for (position, rule) in self.rows.iter().enumerate() {
            share(format!("rows[{position}]"), rule.when.probability)?;
        }
        for (position, rule) in self.jobs.iter().enumerate() {
            share(format!("jobs[{position}]"), rule.when.probability)?;
        }
        Ok(())
    }
}
