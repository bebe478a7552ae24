//! ProtoJSON's two spellings, and a canonical text of a value.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A field by its camelCase name, or by the snake_case one that ProtoJSON accepts too.
pub fn field<'a>(object: &'a Map<String, Value>, camel: &str) -> Option<&'a Value> {
    object.get(camel).or_else(|| object.get(&snake(camel))).filter(|value| !value.is_null())
}

/// As [`field`], of any value; not an object has no fields.
pub fn get<'a>(value: &'a Value, camel: &str) -> Option<&'a Value> {
    value.as_object().and_then(|object| field(object, camel))
}

pub fn text<'a>(value: &'a Value, camel: &str) -> Option<&'a str> {
    get(value, camel).and_then(Value::as_str)
}

/// An int64, which ProtoJSON writes as a string and reads in both forms.
pub fn int(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

pub fn snake(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON with sorted keys and no white space, so that equal requests have equal digests.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (position, key) in keys.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", Value::String(key.clone()));
                if let Some(inner) = object.get(key) {
                    write(inner, out);
                }
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

/// Sets the value at a JSON pointer. `-` appends to an array; what is not there on the way is made; where the pointer
/// leads through a value that has no parts, nothing happens.
pub fn put(target: &mut Value, pointer: &str, value: &Value) {
    let Some(path) = pointer.strip_prefix('/') else { return };
    let mut place = target;
    for part in path.split('/') {
        let part = part.replace("~1", "/").replace("~0", "~");
        if place.is_null() {
            *place = if part == "-" { Value::Array(vec![]) } else { Value::Object(Map::new()) };
        }
        let next = match place {
            Value::Object(object) => Some(object.entry(part).or_insert(Value::Null)),
            Value::Array(items) => {
                if part == "-" {
                    items.push(Value::Null);
                }
                let index = if part == "-" { Some(items.len() - 1) } else { part.parse::<usize>().ok() };
                index.and_then(|index| items.get_mut(index))
            }
            _ => None,
        };
        let Some(next) = next else { return };
        place = next;
    }
    *place = value.clone();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn canonical_sorts_at_every_depth() {
        assert_eq!(
            canonical(&json!({"b":[{"z":1,"a":null}],"a":"x\n"})),
            r#"{"a":"x\n","b":[{"a":null,"z":1}]}"#
        );
    }

    #[test]
    fn both_spellings_are_read() {
        let value = json!({"file_name":"a","displayName":"b"});
        assert_eq!(text(&value, "fileName"), Some("a"));
        assert_eq!(text(&value, "displayName"), Some("b"));
        assert_eq!(int(&json!("12")), Some(12));
    }
}
