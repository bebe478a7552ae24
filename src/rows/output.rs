//! One line of a job's output: which row it belongs to, and what it says about it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::class::{Class, class_of_code};
use super::input::{Fields, short};

/// Finish reasons by which a safety or rights rule ended the answer.
const BLOCKED: [&str; 8] = [
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
];
/// Bytes of the provider's message that are kept for a row.
const MAX_MESSAGE_BYTES: usize = 512;

/// Tokens of one answer, as Gemini counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub input: i64,
    pub output: i64,
    pub thoughts: i64,
    pub cached: i64,
    pub total: i64,
}

/// What a line says.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub class: Class,
    /// The provider's error code or finish reason, when it is not simply OK.
    pub code: Option<String>,
    /// Says why the row is not OK; at most 512 bytes.
    pub message: Option<String>,
    /// The provider's `response`, byte for byte.
    pub response: Option<Box<RawValue>>,
    pub tokens: Tokens,
    pub model_version: Option<String>,
}

impl PartialEq for Verdict {
    fn eq(&self, other: &Self) -> bool {
        let response = |v: &Self| v.response.as_ref().map(|r| r.get().to_owned());
        self.class == other.class
            && self.code == other.code
            && self.message == other.message
            && response(self) == response(other)
    }
}

impl Verdict {
    pub(super) fn failed(class: Class, code: Option<String>, message: impl Into<String>) -> Self {
        Self {
            class,
            code,
            message: Some(cap(message.into())),
            response: None,
            tokens: Tokens::default(),
            model_version: None,
        }
    }
}

/// Why a line belongs to no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Reads one line of the output.
pub(super) fn parse_line(line: &[u8]) -> Result<(String, Verdict), Unreadable> {
    let text = std::str::from_utf8(line).map_err(|_| Unreadable)?;
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|_| Unreadable)?;
    let key = key_of(&fields).ok_or(Unreadable)?;
    let present = |name: &str| fields.get(name).filter(|raw| raw.get() != "null");
    Ok((key, classify(present("response"), present("error"))))
}

/// The key of a line that is not JSON: only in the form in which a cut line still names it beyond doubt, as its very
/// first field. Anything cleverer could find a "key" inside an answer.
pub(super) fn recover_key(line: &[u8]) -> Option<String> {
    let rest = line.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"key\"")?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<String>();
    values.next()?.ok()
}

fn key_of(fields: &Fields<'_>) -> Option<String> {
    let string = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
    if let Some(key) = fields.get("key") {
        return string(key);
    }
    // Inline answers carry the key in their metadata; a file in that form is taken as well.
    let metadata: Fields<'_> = serde_json::from_str(fields.get("metadata")?.get()).ok()?;
    string(metadata.get("key")?)
}

/// The verdict on a row from its `response` or `error`.
pub fn classify(response: Option<&RawValue>, error: Option<&RawValue>) -> Verdict {
    match (response, error) {
        (None, None) => Verdict::failed(Class::Empty, None, "the line holds neither response nor error"),
        (response, Some(error)) => {
            let mut verdict = of_error(error);
            // Never seen together; should it happen, nothing that was paid for is thrown away.
            verdict.response = response.map(ToOwned::to_owned);
            verdict
        }
        (Some(response), None) => of_response(response),
    }
}

fn of_error(error: &RawValue) -> Verdict {
    let Ok(fields) = serde_json::from_str::<Fields<'_>>(error.get()) else {
        return Verdict::failed(Class::Invalid, None, "the row failed; its error is not an object");
    };
    let code = fields.get("code").or_else(|| fields.get("status")).and_then(scalar);
    let class = code.as_deref().map_or(Class::Invalid, class_of_code);
    let message = fields
        .get("message")
        .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
        .filter(|m| !m.is_empty())
        .unwrap_or_else(|| match &code {
            Some(code) => format!("Gemini gave error code {} without a message", short(code)),
            None => "Gemini gave an error without code and message".into(),
        });
    Verdict::failed(class, code.map(|c| short(&c)), message)
}

fn of_response(raw: &RawValue) -> Verdict {
    let Ok(response) = serde_json::from_str::<Response>(raw.get()) else {
        let mut verdict =
            Verdict::failed(Class::BadJson, None, "the response does not have the shape of an answer");
        verdict.response = Some(raw.to_owned());
        return verdict;
    };
    let candidates = response.candidates.unwrap_or_default();
    let (class, code, message) = match candidates.first() {
        None => match response.prompt_feedback.and_then(|f| f.block_reason) {
            Some(reason) => {
                let message = format!("the prompt was blocked: {}", short(&reason));
                (Class::Blocked, Some(reason), Some(message))
            }
            None => (Class::Empty, None, Some("the response has no candidate".to_owned())),
        },
        Some(candidate) => of_candidate(candidate),
    };
    Verdict {
        class,
        code: code.map(|c| short(&c)),
        message: message.map(cap),
        response: Some(raw.to_owned()),
        tokens: response.usage_metadata.map(UsageMetadata::tokens).unwrap_or_default(),
        model_version: response.model_version,
    }
}

fn of_candidate(candidate: &Candidate) -> (Class, Option<String>, Option<String>) {
    let failed = |class, reason: &str, why: &str| {
        let note = candidate.finish_message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
        (class, Some(reason.to_owned()), Some(format!("{why}{note}")))
    };
    match candidate.finish_reason.as_deref() {
        Some("STOP") => {
            if candidate.content.as_ref().is_some_and(Content::says_something) {
                (Class::Ok, None, None)
            } else {
                failed(Class::Empty, "STOP", "the answer has no content")
            }
        }
        Some("MAX_TOKENS") => failed(
            Class::Truncated,
            "MAX_TOKENS",
            "the answer was cut at the token limit; raise generationConfig.maxOutputTokens",
        ),
        Some(reason) if BLOCKED.contains(&reason) => {
            failed(Class::Blocked, reason, &format!("the answer was blocked ({reason})"))
        }
        Some(reason) => failed(Class::Invalid, reason, &format!("the answer ended with {}", short(reason))),
        // "If empty, the model has not stopped generating tokens", says the reference: not a complete answer.
        None => failed(
            Class::Invalid,
            "FINISH_REASON_UNSPECIFIED",
            "the answer has no finish reason and may be incomplete",
        ),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    candidates: Option<Vec<Candidate>>,
    prompt_feedback: Option<PromptFeedback>,
    #[serde(default, deserialize_with = "lenient")]
    usage_metadata: Option<UsageMetadata>,
    #[serde(default, deserialize_with = "lenient")]
    model_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    finish_reason: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    finish_message: Option<String>,
    content: Option<Content>,
}

#[derive(Deserialize)]
struct Content {
    parts: Option<Vec<Part>>,
}

impl Content {
    fn says_something(&self) -> bool {
        self.parts.iter().flatten().any(|part| part.is_content)
    }
}

/// A part, reduced to whether it is part of the answer: text that is not a thought, or any other content.
struct Part {
    is_content: bool,
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartVisitor;
        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
                let (mut has_content, mut is_thought) = (false, false);
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    match name.as_str() {
                        "text" => has_content |= !matches!(value.get(), "\"\"" | "null"),
                        "thought" => is_thought = value.get() == "true",
                        // Says something about a part, is none itself.
                        "thoughtSignature" | "partMetadata" | "videoMetadata" | "mediaResolution" => {}
                        _ => has_content |= value.get() != "null",
                    }
                }
                Ok(Part { is_content: has_content && !is_thought })
            }
        }
        deserializer.deserialize_map(PartVisitor)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UsageMetadata {
    #[serde(rename = "promptTokenCount", deserialize_with = "count")]
    prompt: i64,
    #[serde(rename = "toolUsePromptTokenCount", deserialize_with = "count")]
    tool_use: i64,
    #[serde(rename = "candidatesTokenCount", deserialize_with = "count")]
    candidates: i64,
    #[serde(rename = "thoughtsTokenCount", deserialize_with = "count")]
    thoughts: i64,
    #[serde(rename = "cachedContentTokenCount", deserialize_with = "count")]
    cached: i64,
    #[serde(rename = "totalTokenCount", deserialize_with = "count")]
    total: i64,
}

impl UsageMetadata {
    fn tokens(self) -> Tokens {
        let input = self.prompt.saturating_add(self.tool_use);
        let sum = input.saturating_add(self.candidates).saturating_add(self.thoughts);
        Tokens {
            input,
            output: self.candidates,
            thoughts: self.thoughts,
            cached: self.cached,
            total: if self.total > 0 { self.total } else { sum },
        }
    }
}

/// A field that must not cost us the row when its type changes.
fn lenient<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// A count as number or text; anything else counts as zero, as does a negative one.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(raw.get().trim_matches('"').parse().unwrap_or(0).max(0))
}

/// A number or a string, as text.
fn scalar(raw: &RawValue) -> Option<String> {
    match serde_json::from_str(raw.get()).ok()? {
        serde_json::Value::Number(n) => Some(n.to_string()),
        serde_json::Value::String(s) => Some(s),
        _ => None,
    }
}

fn cap(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
    text
}
