//! Pieces of JSON and of URLs that several calls share. The API is ProtoJSON by and large, so 64-bit numbers come as
//! text, zeros are omitted, and unknown fields appear without notice.

use jiff::Timestamp;
use serde_json::Value;

use super::error::{Class, Error};

/// A number, as number or text.
pub(super) fn integer(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(n) => n.as_i64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    }
}

/// A code, as number or text.
pub(super) fn code(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) => Some(s.clone()),
        _ => None,
    }
}

/// A time; one that cannot be read is none, because nothing that costs money hangs on it alone.
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

/// The last part of `<collection>/<id>`, checked before it becomes part of a URL.
pub(super) fn id_in<'a>(collection: &str, name: &'a str) -> Result<&'a str, Error> {
    name.strip_prefix(collection).and_then(|rest| rest.strip_prefix('/')).filter(|id| is_id(id)).ok_or_else(
        || Error::local(Class::Rejected, format!("not the name of one of {collection}: {name:?}")),
    )
}

/// Lower-case letters, digits, `_` and `-`: every handle that the API has ever given, and nothing that means
/// something in a URL.
pub(super) fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// `models/<id>` or `tunedModels/<id>`; a bare id is a model.
pub(super) fn model_path(model: &str) -> Result<String, Error> {
    let (collection, id) = match model.split_once('/') {
        Some((collection @ ("models" | "tunedModels"), id)) => (collection, id),
        Some(_) => ("", ""),
        None => ("models", model),
    };
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let starts_well = id.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if starts_well && id.len() <= 128 && id.bytes().all(is_allowed) {
        return Ok(format!("{collection}/{id}"));
    }
    Err(Error::local(Class::Rejected, format!("not the name of a model: {model:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_they_reach_a_url() {
        assert_eq!(id_in("files", "files/gb-abc-1").ok(), Some("gb-abc-1"));
        for bad in [
            "files/",
            "files/a/b",
            "files/..",
            "files/A",
            "batches/a",
            "files/a?x",
            "a",
            "files/a%2e",
            "files/a b",
        ] {
            assert_eq!(id_in("files", bad).map_err(|e| e.class), Err(Class::Rejected), "{bad}");
        }
        assert!(id_in("batches", &format!("batches/{}", "a".repeat(129))).is_err());
        assert_eq!(model_path("gemini-3.5-flash").ok().as_deref(), Some("models/gemini-3.5-flash"));
        assert_eq!(model_path("models/gemini-3.5-flash").ok().as_deref(), Some("models/gemini-3.5-flash"));
        assert_eq!(model_path("tunedModels/mine-1").ok().as_deref(), Some("tunedModels/mine-1"));
        for bad in ["", "models/", "x/y", "models/a/b", "-a", "a:b", "models/../files", "a?b", ".a"] {
            assert!(model_path(bad).is_err(), "{bad}");
        }
    }
}
