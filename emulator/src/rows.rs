//! What a row answers: a deterministic function of its request, so that a test can compute what must come back.
//!
//! `answer` and `embedding` are the plain answers. A marker in the prompt (`[[emulate:blocked]]`, …) or a fault plan
//! asks for another [`Outcome`]; `produce` makes a row of both.

use serde_json::{Value, json};

use crate::digest::{hex, sha256};
use crate::json::{canonical, get, int, text};

/// How a row ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answer,
    /// No answer, but a status: `{"error":{"code":…,"message":…}}`. Not paid.
    Error {
        code: i64,
        message: Option<String>,
    },
    /// The prompt was refused: `promptFeedback`, no candidates.
    Blocked,
    /// A candidate without content and with this `finishReason` (`SAFETY`, `RECITATION`, …).
    Finish(String),
    /// Half the text, `MAX_TOKENS`.
    Truncated,
    /// A candidate whose content has no parts.
    Empty,
    /// Served and paid, but no line in the results.
    Missing,
    /// Two equal lines.
    Duplicate,
    /// A line that is cut in its middle.
    BadJson,
}

/// A wish in the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub outcome: Outcome,
    /// Only the first time that this row is run.
    pub once: bool,
}

/// A finished row.
#[derive(Clone, Debug, PartialEq)]
pub struct Produced {
    /// `{"response":…}` or `{"error":…}`, without key or metadata.
    pub body: Value,
    pub copies: usize,
    pub corrupt: bool,
    pub paid: bool,
}

impl Produced {
    pub fn successful(&self) -> bool {
        self.body.get("response").is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Generate,
    Embed,
}

/// About four characters a token.
pub fn tokens(text: &str) -> usize {
    text.chars().count().div_ceil(4)
}

/// Tokens of a whole prompt: its texts, and 258 for every part that is not text.
pub fn prompt_tokens(request: &Value) -> usize {
    let system = get(request, "systemInstruction").map_or(0, content_tokens);
    let contents = match get(request, "contents").or_else(|| get(request, "content")) {
        Some(Value::Array(contents)) => contents.iter().map(content_tokens).sum(),
        Some(content) => content_tokens(content),
        None => 0,
    };
    system + contents
}

fn content_tokens(content: &Value) -> usize {
    parts(content).map(|part| text(part, "text").map_or(258, tokens)).sum()
}

fn parts(content: &Value) -> impl Iterator<Item = &Value> {
    get(content, "parts").and_then(Value::as_array).into_iter().flatten()
}

/// All texts of the prompt, in order, one a line.
pub fn prompt(request: &Value) -> String {
    let contents = match get(request, "contents").or_else(|| get(request, "content")) {
        Some(Value::Array(contents)) => contents.as_slice(),
        Some(content) => std::slice::from_ref(content),
        None => &[],
    };
    let texts: Vec<&str> = contents.iter().flat_map(parts).filter_map(|part| text(part, "text")).collect();
    texts.join("\n")
}

/// A request with its digest, from which everything about its answer follows.
pub struct Row<'a> {
    request: &'a Value,
    pub digest: [u8; 32],
}

impl<'a> Row<'a> {
    pub fn new(request: &'a Value) -> Self {
        Self { request, digest: sha256(canonical(request).as_bytes()) }
    }
}

/// The text of the answer before any limit is applied.
fn answer_text(row: &Row<'_>) -> String {
    let request = row.request;
    let digest = &hex(&row.digest)[..8];
    let start: String = prompt(request).chars().take(60).collect();
    let config = get(request, "generationConfig");
    if config.and_then(|config| text(config, "responseMimeType")) == Some("application/json") {
        json!({"echo": digest, "prompt": start}).to_string()
    } else {
        format!("echo {digest}: {start}")
    }
}

/// The `GenerateContentResponse` of a request, without `modelVersion` (the server adds the job's model).
pub fn answer(request: &Value) -> Value {
    full_answer(&Row::new(request))
}

fn full_answer(row: &Row<'_>) -> Value {
    let request = row.request;
    let limit = get(request, "generationConfig")
        .and_then(|config| get(config, "maxOutputTokens"))
        .and_then(int)
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let whole = answer_text(row);
    match limit {
        Some(limit) if limit < tokens(&whole) => {
            response(row, &start_of(&whole, limit.saturating_mul(4)), "MAX_TOKENS")
        }
        _ => response(row, &whole, "STOP"),
    }
}

fn response(row: &Row<'_>, text: &str, reason: &str) -> Value {
    let candidates = tokens(text);
    json!({
        "candidates": [{
            "content": {"parts": [{"text": text}], "role": "model"},
            "finishReason": reason,
            "index": 0,
        }],
        "usageMetadata": usage(row, candidates),
        "responseId": response_id(row),
    })
}

fn start_of(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// About every fourth row thinks, unless `thinkingConfig.thinkingBudget` is 0.
fn thoughts(row: &Row<'_>) -> usize {
    let budget = get(row.request, "generationConfig")
        .and_then(|config| get(config, "thinkingConfig"))
        .and_then(|config| get(config, "thinkingBudget"))
        .and_then(int);
    let digest = &row.digest;
    if budget == Some(0) || !digest[8].is_multiple_of(4) { 0 } else { usize::from(digest[9]) + 1 }
}

fn usage(row: &Row<'_>, candidates: usize) -> Value {
    let prompt = prompt_tokens(row.request);
    let thoughts = thoughts(row);
    let mut usage = json!({
        "promptTokenCount": prompt,
        "totalTokenCount": prompt + candidates + thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    });
    if candidates > 0 {
        usage["candidatesTokenCount"] = json!(candidates);
    }
    if thoughts > 0 {
        usage["thoughtsTokenCount"] = json!(thoughts);
    }
    usage
}

fn response_id(row: &Row<'_>) -> String {
    data_encoding::BASE64URL_NOPAD.encode(&row.digest[16..32])
}

/// The embedding of a request: `outputDimensionality` (else 16) multiples of 1/128 in -1..1.
pub fn embedding(request: &Value) -> Value {
    let size = get(request, "outputDimensionality").and_then(int).unwrap_or(16).clamp(1, 3072);
    let size = usize::try_from(size).unwrap_or(16);
    let mut values = Vec::with_capacity(size);
    let mut block = sha256(canonical(request).as_bytes());
    while values.len() < size {
        values.extend(block.iter().take(size - values.len()).map(|byte| (f64::from(*byte) - 128.0) / 128.0));
        block = sha256(&block);
    }
    json!({"embedding": {"values": values}, "tokenCount": prompt_tokens(request).to_string()})
}

/// The wish in a prompt: `[[emulate:WISH]]`, or `[[emulate:once:WISH]]` for the first run of the row only.
pub fn marker(request: &Value) -> Option<Marker> {
    let prompt = prompt(request);
    let wish = prompt.split_once("[[emulate:")?.1.split_once("]]")?.0;
    let (wish, once) = wish.strip_prefix("once:").map_or((wish, false), |wish| (wish, true));
    let (word, argument) = wish.split_once(':').unwrap_or((wish, ""));
    let outcome = match word {
        "error" => Outcome::Error { code: argument.parse().unwrap_or(13), message: None },
        "finish" => Outcome::Finish(argument.to_owned()),
        "blocked" => Outcome::Blocked,
        "truncated" => Outcome::Truncated,
        "empty" => Outcome::Empty,
        "missing" => Outcome::Missing,
        "duplicate" => Outcome::Duplicate,
        "badjson" => Outcome::BadJson,
        _ => return None,
    };
    Some(Marker { outcome, once })
}

/// The row that an outcome makes of a request.
pub fn produce(kind: Kind, model: &str, row: &Row<'_>, outcome: &Outcome) -> Produced {
    if let Outcome::Error { code, message } = outcome {
        let message = message.clone().unwrap_or_else(|| status_message(*code).to_owned());
        return Produced {
            body: json!({"error": {"code": code, "message": message}}),
            copies: 1,
            corrupt: false,
            paid: false,
        };
    }
    let response = match kind {
        Kind::Embed => embedding(row.request),
        Kind::Generate => {
            let mut response = generated(row, outcome);
            response["modelVersion"] = json!(model);
            response
        }
    };
    Produced {
        body: json!({ "response": response }),
        copies: match outcome {
            Outcome::Missing => 0,
            Outcome::Duplicate => 2,
            _ => 1,
        },
        corrupt: *outcome == Outcome::BadJson,
        paid: true,
    }
}

fn generated(row: &Row<'_>, outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Blocked => json!({
            "promptFeedback": {"blockReason": "SAFETY"},
            "usageMetadata": usage(row, 0),
            "responseId": response_id(row),
        }),
        Outcome::Finish(reason) => json!({
            "candidates": [{"finishReason": reason, "index": 0}],
            "usageMetadata": usage(row, 0),
            "responseId": response_id(row),
        }),
        Outcome::Empty => json!({
            "candidates": [{"content": {"role": "model"}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": usage(row, 0),
            "responseId": response_id(row),
        }),
        Outcome::Truncated => {
            let whole = answer_text(row);
            let half = whole.chars().count() / 2;
            response(row, &start_of(&whole, half), "MAX_TOKENS")
        }
        _ => full_answer(row),
    }
}

/// What a google.rpc code says when nobody gives it a message.
pub fn status_message(code: i64) -> &'static str {
    match code {
        1 => "The operation was cancelled.",
        3 => "Request contains an invalid argument.",
        4 => "Deadline exceeded.",
        5 => "Requested entity was not found.",
        7 => "The caller does not have permission.",
        8 => "Resource has been exhausted (e.g. check quota).",
        13 => "Internal error encountered.",
        14 => "The service is currently unavailable.",
        _ => "The request failed.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(prompt: &str) -> Value {
        json!({"contents": [{"parts": [{"text": prompt}]}]})
    }

    #[test]
    fn an_answer_depends_on_the_request_only() {
        let request = ask("Capital of France?");
        assert_eq!(answer(&request), answer(&request));
        assert_ne!(answer(&request), answer(&ask("Capital of Spain?")));
        let digest = &hex(&sha256(canonical(&request).as_bytes()))[..8];
        let text = answer(&request)["candidates"][0]["content"]["parts"][0]["text"].clone();
        assert_eq!(text, json!(format!("echo {digest}: Capital of France?")));
    }

    #[test]
    fn a_limit_cuts_the_answer() {
        let mut request = ask("Tell me a long story about a cat and a dog");
        request["generationConfig"] = json!({"max_output_tokens": 3});
        let answer = answer(&request);
        assert_eq!(answer["candidates"][0]["finishReason"], "MAX_TOKENS");
        assert_eq!(answer["usageMetadata"]["candidatesTokenCount"], 3);
    }

    #[test]
    fn markers_are_read() {
        let wish = |text: &str| marker(&ask(text));
        assert_eq!(wish("plain"), None);
        assert_eq!(wish("[[emulate:nonsense]]"), None);
        assert_eq!(wish("[[emulate:blocked"), None);
        assert_eq!(
            wish("x [[emulate:once:error:8]] y"),
            Some(Marker { outcome: Outcome::Error { code: 8, message: None }, once: true })
        );
        assert_eq!(wish("[[emulate:empty]]"), Some(Marker { outcome: Outcome::Empty, once: false }));
    }

    #[test]
    fn odd_requests_have_answers_too() {
        for odd in [json!(null), json!(3), json!({"contents": 7}), json!({"contents": [null, {"parts": {}}]})]
        {
            assert!(answer(&odd)["candidates"].is_array());
            assert!(embedding(&odd)["embedding"]["values"].is_array());
            assert_eq!(marker(&odd), None);
        }
    }

    #[test]
    fn embeddings_have_the_size_that_was_asked_for() {
        let request = json!({"content": {"parts": [{"text": "hello"}]}, "outputDimensionality": 256});
        assert_eq!(embedding(&request)["embedding"]["values"].as_array().map(Vec::len), Some(256));
    }
}
