//! The input: JSON Lines or inline requests become rows, or an error that names the row, the field and the way out.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Longest key, in characters: the same limit as `input.inline.requests[].key`.
pub const MAX_KEY_CHARS: usize = 256;
/// Largest row. Gemini refuses a request over 20 MiB anyway ("Request payload size exceeds the limit: 20971520
/// bytes"); refusing it here costs nothing.
pub const MAX_ROW_BYTES: usize = 20 * 1024 * 1024;
/// Written by the operator into `errors.jsonl` beside a failed row, so that the file can be submitted as it is.
const IGNORED_FIELDS: [&str; 3] = ["class", "code", "error"];

/// One request of a batch.
#[derive(Clone, Debug)]
pub struct Row {
    /// Names the row in the results; unique in the batch.
    pub key: String,
    /// A `GenerateContentRequest`, byte for byte as the user wrote it (without line breaks between its tokens).
    pub request: Box<RawValue>,
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.request.get() == other.request.get()
    }
}

/// One prompt as written into the object itself. A type of this room, so that it need not know the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InlineRequest {
    pub key: String,
    pub prompt: String,
    pub system: Option<String>,
    pub generation_config: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What is wrong with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputErrorKind {
    InvalidRow,
    DuplicateKey,
    TooLarge,
    Empty,
}

/// An input that cannot be submitted. Terminal until the user changes the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    pub kind: InputErrorKind,
    /// Line (or request) number, counted from 1.
    pub row: Option<usize>,
    /// Names the row, the field and the way out; holds no prompt text.
    pub message: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for InputError {}

impl InputError {
    pub(super) fn new(kind: InputErrorKind, row: Option<usize>, message: impl Into<String>) -> Self {
        Self { kind, row, message: message.into() }
    }

    /// A spec that names no input, or several.
    pub fn of_spec(message: impl Into<String>) -> Self {
        Self::new(InputErrorKind::InvalidRow, None, message)
    }

    /// The same error, with the place that the input came from in front.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    fn invalid(row: usize, message: impl fmt::Display) -> Self {
        Self::new(InputErrorKind::InvalidRow, Some(row), format!("row {row}: {message}"))
    }
}

/// Reads JSON Lines: `{"key":"…","request":{…GenerateContentRequest…}}`, one object a line. Blank lines are skipped
/// but counted, so that the row number in an error is the line number in the user's editor.
pub fn parse_jsonl(bytes: &[u8]) -> Result<Vec<Row>, InputError> {
    // Editors on Windows put a byte order mark before the first line.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut rows = Vec::new();
    let mut seen = HashMap::new();
    for (index, line) in lines(bytes).enumerate() {
        let number = index + 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let row = parse_row(number, line)?;
        note_key(&mut seen, &row.key, number)?;
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(InputError::new(
            InputErrorKind::Empty,
            None,
            "the input holds no row; write at least one line {\"key\":\"…\",\"request\":{…}}",
        ));
    }
    Ok(rows)
}

/// Turns inline requests into rows. The request's fields stand in a fixed order: the same spec gives the same bytes.
pub fn from_requests(requests: &[InlineRequest]) -> Result<Vec<Row>, InputError> {
    if requests.is_empty() {
        return Err(InputError::new(
            InputErrorKind::Empty,
            None,
            "the input holds no request; give at least one",
        ));
    }
    let mut seen = HashMap::new();
    let mut rows = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        let number = index + 1;
        check_key(number, &request.key)?;
        note_key(&mut seen, &request.key, number)?;
        let body = GenerateContent {
            contents: [Content { role: Some("user"), parts: [Part { text: &request.prompt }] }],
            system_instruction: request
                .system
                .as_deref()
                .map(|text| Content { role: None, parts: [Part { text }] }),
            generation_config: request.generation_config.as_ref(),
        };
        let request = serde_json::value::to_raw_value(&body).map_err(|e| InputError::invalid(number, e))?;
        check_size(number, request.get().len())?;
        rows.push(Row { key: requests[index].key.clone(), request });
    }
    Ok(rows)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerateContent<'a> {
    contents: [Content<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_config: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

fn parse_row(number: usize, line: &[u8]) -> Result<Row, InputError> {
    check_size(number, line.len())?;
    let text = std::str::from_utf8(line)
        .map_err(|e| InputError::invalid(number, format!("not UTF-8 at byte {}", e.valid_up_to() + 1)))?;
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|e| {
        InputError::invalid(
            number,
            format!("not a JSON object ({}); one line holds one {{\"key\":…,\"request\":…}}", position(&e)),
        )
    })?;
    let (mut key, mut request) = (None, None);
    for (name, value) in fields.0 {
        let slot = match name.as_str() {
            "key" => &mut key,
            "request" => &mut request,
            name if IGNORED_FIELDS.contains(&name) => continue,
            name => {
                return Err(InputError::invalid(
                    number,
                    format!(
                        "unknown field \"{}\"; a row has `key` and `request`, the prompt belongs into \
                         `request.contents`",
                        short(name)
                    ),
                ));
            }
        };
        if slot.replace(value).is_some() {
            return Err(InputError::invalid(number, format!("field `{name}` is there twice")));
        }
    }
    let key = key.ok_or_else(|| {
        InputError::invalid(
            number,
            "field `key` is missing; give every row a unique `key`, results are found by it",
        )
    })?;
    let key: String = serde_json::from_str(key.get())
        .map_err(|_| InputError::invalid(number, "field `key` must be a string; put it in quotes"))?;
    check_key(number, &key)?;
    let request = request.ok_or_else(|| {
        InputError::invalid(number, "field `request` is missing; it holds the GenerateContentRequest")
    })?;
    check_request(number, request)?;
    Ok(Row { key, request: single_line(request) })
}

fn check_size(number: usize, len: usize) -> Result<(), InputError> {
    if len <= MAX_ROW_BYTES {
        return Ok(());
    }
    Err(InputError::new(
        InputErrorKind::TooLarge,
        Some(number),
        format!(
            "row {number}: {len} bytes are over the limit of {MAX_ROW_BYTES} for one request; upload large media as a \
             file at Gemini and refer to it"
        ),
    ))
}

fn check_key(number: usize, key: &str) -> Result<(), InputError> {
    let chars = key.chars().count();
    if (1..=MAX_KEY_CHARS).contains(&chars) {
        return Ok(());
    }
    Err(InputError::invalid(
        number,
        format!("field `key` has {chars} characters; 1 to {MAX_KEY_CHARS} are allowed"),
    ))
}

fn note_key(seen: &mut HashMap<String, usize>, key: &str, number: usize) -> Result<(), InputError> {
    match seen.insert(key.to_owned(), number) {
        None => Ok(()),
        Some(first) => Err(InputError::new(
            InputErrorKind::DuplicateKey,
            Some(number),
            format!(
                "row {number}: key \"{}\" was already used by row {first}; make the keys unique",
                short(key)
            ),
        )),
    }
}

/// The part of `GenerateContentRequest` without which Gemini cannot answer. The rest is Gemini's to judge: a copy of
/// its schema here would refuse tomorrow's fields.
fn check_request(number: usize, request: &RawValue) -> Result<(), InputError> {
    let fields: Fields<'_> = serde_json::from_str(request.get())
        .map_err(|_| InputError::invalid(number, "field `request` must be a JSON object"))?;
    let contents = fields.get("contents").ok_or_else(|| {
        InputError::invalid(
            number,
            "field `request.contents` is missing; write {\"contents\":[{\"parts\":[{\"text\":\"…\"}]}]}",
        )
    })?;
    let contents: Vec<&RawValue> = serde_json::from_str(contents.get())
        .map_err(|_| InputError::invalid(number, "field `request.contents` must be an array"))?;
    if contents.is_empty() {
        return Err(InputError::invalid(
            number,
            "field `request.contents` is empty; it needs at least one message",
        ));
    }
    for (i, content) in contents.iter().enumerate() {
        let is_parts_array = serde_json::from_str::<Fields<'_>>(content.get())
            .ok()
            .and_then(|content| content.get("parts"))
            .is_some_and(|parts| serde_json::from_str::<Vec<IgnoredAny>>(parts.get()).is_ok());
        if !is_parts_array {
            return Err(InputError::invalid(
                number,
                format!(
                    "field `request.contents[{i}].parts` must be an array, as in {{\"parts\":[{{\"text\":\"…\"}}]}}"
                ),
            ));
        }
    }
    Ok(())
}

/// A JSON object as it stands, fields in order, doubles kept: a map would silently drop one of two `key`s.
pub(super) struct Fields<'a>(pub Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The last field of that name, as JSON parsers commonly read it.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Line breaks between tokens would break the JSON Lines that the row is written into. A lone carriage return can
/// stand there (JSON takes it for white space), a line feed cannot, but the renderer must not depend on that.
fn single_line(raw: &RawValue) -> Box<RawValue> {
    let text = raw.get();
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() {
        return raw.to_owned();
    }
    // Inside strings both are escaped, so each one found here is white space.
    let flat: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    RawValue::from_string(flat).unwrap_or_else(|_| raw.to_owned())
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    // On 0x0A only: U+2028 and friends are ordinary characters inside a JSON string.
    bytes.split(|b| *b == b'\n')
}

/// Where it stops being JSON, in serde's words. What is JSON, but no object, is described by serde with the value
/// itself, and that may be a prompt: of it only the place is told.
fn position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let said = match text.find(" at line ") {
        // The line is always the row.
        Some(at) if !error.is_data() => &text[..at],
        _ => "another kind of value",
    };
    format!("{said} at column {}", error.column())
}

/// User text in an error message: enough to find it, not enough to flood a status.
pub(super) fn short(text: &str) -> String {
    let mut out: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}
