//! JSON without types: what is not there reads as nothing.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

pub fn owned(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().map(str::to_owned)
}

pub fn time(value: &Value, field: &str) -> Option<Timestamp> {
    value[field].as_str()?.parse().ok()
}

pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// A condition of a status, as `(status, reason)`.
pub fn condition<'a>(status: &'a Value, type_: &str) -> Option<(&'a str, &'a str)> {
    let found = list(status, "conditions").iter().find(|c| c["type"] == type_)?;
    Some((text(found, "status"), text(found, "reason")))
}

pub fn is_true(status: &Value, type_: &str) -> bool {
    condition(status, type_).is_some_and(|(is, _)| is == "True")
}

/// Whether a status says that its batch has come to its end.
pub fn is_final(status: &Value) -> bool {
    is_true(status, "Complete") || is_true(status, "Failed")
}

/// From `from` to `to`; zero if that is backwards.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Go's notation: `20m`, `1h30m0s`, `500ms`.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| at + digits);
        let seconds = match &rest[digits..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        whole += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = &rest[unit..];
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(go_duration("20m"), Some(Duration::from_mins(20)));
        assert_eq!(go_duration("1h30m0s"), Some(Duration::from_mins(90)));
        assert_eq!(go_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(go_duration("5 apples"), None);
    }
}
