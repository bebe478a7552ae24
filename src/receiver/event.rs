//! What a verified body says: a pure reading of Gemini's envelope, or of the one that goes with `X-Goog-Signature`. It is a hint, so nothing in it is trusted further
//! than to say at which job to look.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::limits::{MARKER_BYTES, TYPE_BYTES};
use crate::api::SUBMIT_KEY_METADATA;
use crate::api::webhook::SignatureScheme;

/// Which envelope a route's deliveries come in: one for each scheme, and never the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Gemini's: `type`, `data.id`.
    Gemini,
    /// The tutorial's: `eventType`, `operation`.
    Tutorial,
}

impl From<SignatureScheme> for Shape {
    fn from(scheme: SignatureScheme) -> Self {
        match scheme {
            SignatureScheme::StandardWebhooks | SignatureScheme::DynamicV1a | SignatureScheme::DynamicJwt => {
                Self::Gemini
            }
            SignatureScheme::XGoogSignature => Self::Tutorial,
        }
    }
}

/// The reading of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// A self-test. What Google sends is not documented: an empty body counts.
    Ping,
    /// The end of a batch job.
    Batch(BatchEvent),
    /// Of a type that is not ours, such as `video.generated`.
    Other(Option<String>),
    /// Authentic, but nothing can be read from it.
    Unusable,
}

/// The end of a batch job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchEvent {
    /// One spelling for each meaning: `batch.completed` reads as `batch.succeeded`.
    pub type_: &'static str,
    /// `batches/…`
    pub remote_name: String,
    /// The sender's time.
    pub time: Option<Timestamp>,
    /// `<K>.<n>`: what its batch gave along with the job, to have it back. Only of jobs with an address of their own.
    pub marker: Option<String>,
}

impl Envelope {
    /// Reads a body.
    pub fn parse(shape: Shape, body: &[u8]) -> Self {
        if body.trim_ascii().is_empty() {
            return Self::Ping;
        }
        let Ok(envelope) = serde_json::from_slice::<Map<String, Value>>(body) else {
            return Self::Unusable;
        };
        match shape {
            Shape::Gemini => Self::gemini(&envelope),
            Shape::Tutorial => Self::tutorial(&envelope),
        }
    }

    fn gemini(envelope: &Map<String, Value>) -> Self {
        let Some(type_) = envelope.get("type").and_then(Value::as_str) else {
            return Self::Unusable;
        };
        let type_ = match type_ {
            "ping" => return Self::Ping,
            // The name in early documentation.
            "batch.succeeded" | "batch.completed" => "batch.succeeded",
            "batch.failed" => "batch.failed",
            "batch.expired" => "batch.expired",
            "batch.cancelled" => "batch.cancelled",
            other => return Self::Other(presentable(other)),
        };
        let id = envelope.get("data").and_then(|data| data.get("id")).and_then(Value::as_str);
        let Some(remote_name) = id.and_then(normalise) else {
            return Self::Unusable;
        };
        let time = envelope.get("timestamp").and_then(Value::as_str).and_then(|text| text.parse().ok());
        Self::Batch(BatchEvent { type_, remote_name, time, marker: marker(envelope) })
    }

    /// It knows two events, and no time.
    fn tutorial(envelope: &Map<String, Value>) -> Self {
        let Some(type_) = envelope.get("eventType").and_then(Value::as_str) else {
            return Self::Unusable;
        };
        let type_ = match type_ {
            "batch.completed" => "batch.succeeded",
            "batch.failed" => "batch.failed",
            other => return Self::Other(presentable(other)),
        };
        match envelope.get("operation").and_then(Value::as_str).and_then(normalise) {
            Some(remote_name) => Self::Batch(BatchEvent { type_, remote_name, time: None, marker: None }),
            None => Self::Unusable,
        }
    }

    /// The type, as far as it can be shown.
    pub fn type_(&self) -> Option<&str> {
        match self {
            Self::Ping => Some("ping"),
            Self::Batch(event) => Some(event.type_),
            Self::Other(type_) => type_.as_deref(),
            Self::Unusable => None,
        }
    }
}

/// Documentation and samples show the id with and without its prefix.
fn normalise(id: &str) -> Option<String> {
    let bare = id.strip_prefix("batches/").unwrap_or(id);
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-';
    let good = (1..=128).contains(&bare.len()) && bare.bytes().all(plain);
    good.then(|| format!("batches/{bare}"))
}

/// Bodies were seen with the metadata at the top; one receiver looks for it in `data` first.
fn marker(envelope: &Map<String, Value>) -> Option<String> {
    let places = [Some(envelope), envelope.get("data").and_then(Value::as_object)];
    let metadata = places.into_iter().flatten().find_map(|place| place.get("user_metadata"));
    let marker = metadata?.get(SUBMIT_KEY_METADATA)?.as_str()?;
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.';
    ((1..=MARKER_BYTES).contains(&marker.len()) && marker.bytes().all(plain)).then(|| marker.to_owned())
}

fn presentable(type_: &str) -> Option<String> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-' | b'.');
    let good = (1..=TYPE_BYTES).contains(&type_.len()) && type_.bytes().all(plain);
    good.then(|| type_.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(type_: &'static str, remote_name: &str) -> Envelope {
        Envelope::Batch(BatchEvent { type_, remote_name: remote_name.into(), time: None, marker: None })
    }

    #[test]
    fn readings() {
        let long = format!(r#"{{"type":"batch.failed","data":{{"id":"{}"}}}}"#, "a".repeat(129));
        for (body, wanted) in [
            ("", Envelope::Ping),
            (" \r\n", Envelope::Ping),
            (r#"{"type":"ping","data":{}}"#, Envelope::Ping),
            (
                r#"{"type":"batch.succeeded","data":{"id":"batches/a-1"}}"#,
                batch("batch.succeeded", "batches/a-1"),
            ),
            (
                r#"{"type":"batch.completed","data":{"id":"batch_1"}}"#,
                batch("batch.succeeded", "batches/batch_1"),
            ),
            (r#"{"type":"batch.expired","data":{"id":"a"},"new":[1]}"#, batch("batch.expired", "batches/a")),
            (r#"{"type":"batch.cancelled","data":{"id":"a"}}"#, batch("batch.cancelled", "batches/a")),
            (
                r#"{"type":"batch.failed","data":{"id":"a","error_code":3}}"#,
                batch("batch.failed", "batches/a"),
            ),
            (
                r#"{"type":"batch.failed","timestamp":7,"data":{"id":"a"}}"#,
                batch("batch.failed", "batches/a"),
            ),
            (r#"{"type":"video.generated"}"#, Envelope::Other(Some("video.generated".into()))),
            (r#"{"type":"<b>"}"#, Envelope::Other(None)),
            (r#"{"type":"batch.failed","data":{"id":"batches/batches/a"}}"#, Envelope::Unusable),
            (r#"{"type":"batch.failed","data":{"id":"../a"}}"#, Envelope::Unusable),
            (r#"{"type":"batch.failed","data":{"id":""}}"#, Envelope::Unusable),
            (r#"{"type":"batch.failed","data":{"id":4}}"#, Envelope::Unusable),
            (r#"{"type":"batch.failed"}"#, Envelope::Unusable),
            (long.as_str(), Envelope::Unusable),
            (r#"["batch.failed"]"#, Envelope::Unusable),
            ("hello", Envelope::Unusable),
            ("{", Envelope::Unusable),
        ] {
            assert_eq!(Envelope::parse(Shape::Gemini, body.as_bytes()), wanted, "{body}");
        }
        assert_eq!(Envelope::parse(Shape::Gemini, b"\xff"), Envelope::Unusable);
    }

    #[test]
    fn readings_of_the_tutorial_s() {
        for (body, wanted) in [
            ("", Envelope::Ping),
            (
                r#"{"eventType":"batch.completed","operation":"batches/a-1"}"#,
                batch("batch.succeeded", "batches/a-1"),
            ),
            (r#"{"eventType":"batch.failed","operation":"a","new":1}"#, batch("batch.failed", "batches/a")),
            (r#"{"eventType":"batch.failed","operation":"files/a"}"#, Envelope::Unusable),
            (r#"{"eventType":"batch.failed","operation":["a"]}"#, Envelope::Unusable),
            (r#"{"eventType":"batch.failed"}"#, Envelope::Unusable),
            (r#"{"eventType":7,"operation":"a"}"#, Envelope::Unusable),
            // It does not know these.
            (
                r#"{"eventType":"batch.expired","operation":"a"}"#,
                Envelope::Other(Some("batch.expired".into())),
            ),
            (r#"{"eventType":"<b>","operation":"a"}"#, Envelope::Other(None)),
            // Gemini's.
            (r#"{"type":"batch.succeeded","data":{"id":"batches/a"}}"#, Envelope::Unusable),
            (r#"{"type":"ping"}"#, Envelope::Unusable),
            ("[]", Envelope::Unusable),
            ("hello", Envelope::Unusable),
        ] {
            assert_eq!(Envelope::parse(Shape::Tutorial, body.as_bytes()), wanted, "{body}");
        }
        let tutorials = br#"{"eventType":"batch.completed","operation":"batches/a-1"}"#;
        assert_eq!(Envelope::parse(Shape::Gemini, tutorials), Envelope::Unusable);
        // Both at once: the route says which one counts.
        let both =
            br#"{"type":"batch.failed","data":{"id":"a"},"eventType":"batch.completed","operation":"b"}"#;
        assert_eq!(Envelope::parse(Shape::Gemini, both), batch("batch.failed", "batches/a"));
        assert_eq!(Envelope::parse(Shape::Tutorial, both), batch("batch.succeeded", "batches/b"));
    }

    #[test]
    fn the_sender_s_time() {
        let body = br#"{"type":"batch.failed","timestamp":"2026-08-20T20:10:25Z","data":{"id":"a"}}"#;
        let Envelope::Batch(event) = Envelope::parse(Shape::Gemini, body) else {
            panic!("not a batch event")
        };
        assert_eq!(event.time, Some("2026-08-20T20:10:25Z".parse().unwrap()));
    }

    #[test]
    fn the_marker() {
        let marker = |more: &str| match Envelope::parse(
            Shape::Gemini,
            format!(r#"{{"type":"batch.failed","data":{{"id":"a"}},{more}}}"#).as_bytes(),
        ) {
            Envelope::Batch(event) => event.marker,
            other => panic!("{other:?}"),
        };
        assert_eq!(marker(r#""user_metadata":{"submitKey":"k2.1","other":[]}"#), Some("k2.1".into()));
        assert_eq!(marker(r#""data":{"id":"a","user_metadata":{"submitKey":"k2.1"}}"#), Some("k2.1".into()));
        let long = format!(r#""user_metadata":{{"submitKey":"{}"}}"#, "a".repeat(65));
        for bad in [
            r#""userMetadata":{"submitKey":"k.1"}"#,
            r#""user_metadata":"submitKey""#,
            r#""user_metadata":{"submitKey":7}"#,
            r#""user_metadata":{"submitKey":""}"#,
            r#""user_metadata":{"submitKey":"K 1"}"#,
            &long,
        ] {
            assert_eq!(marker(bad), None, "{bad}");
        }
    }
}
