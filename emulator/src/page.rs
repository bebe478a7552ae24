//! Pages: an opaque token that stands for the last item seen, so that new items do not disturb a listing.

use serde_json::{Map, Value};

use crate::clock::Nanos;
use crate::errors::ApiError;
use crate::http::Reply;

/// Place in a listing, newest first.
pub type Cursor = (Nanos, String);

pub fn cursor(token: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
    let place = data_encoding::BASE64URL_NOPAD
        .decode(token.as_bytes())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| {
            let (at, id) = text.split_once('/')?;
            Some((at.parse().ok()?, id.to_owned()))
        });
    place.map(Some).ok_or_else(|| ApiError::invalid("Page token is invalid."))
}

fn token((at, id): &Cursor) -> String {
    data_encoding::BASE64URL_NOPAD.encode(format!("{at}/{id}").as_bytes())
}

/// Of items in order, newest first: those of the page after `after`, and the token for the next one.
pub fn cut<T>(
    items: Vec<T>,
    after: Option<&Cursor>,
    size: usize,
    place: impl Fn(&T) -> Cursor,
) -> (Vec<T>, Option<String>) {
    let mut left = items.into_iter().filter(|item| after.is_none_or(|after| place(item) < *after));
    let page: Vec<T> = left.by_ref().take(size).collect();
    let more = left.next().is_some();
    let next = page.last().filter(|_| more).map(|last| token(&place(last)));
    (page, next)
}

/// `{}` where there is nothing, as ProtoJSON does.
pub fn answer(name: &str, items: Vec<Value>, token_name: &str, next: Option<String>) -> Reply {
    let mut answer = Map::new();
    if !items.is_empty() {
        answer.insert(name.into(), Value::Array(items));
    }
    if let Some(next) = next {
        answer.insert(token_name.into(), Value::String(next));
    }
    Reply::ok(&Value::Object(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_on_one_page() {
        let items: Vec<Cursor> = (0..25).rev().map(|at| (at / 3, format!("id{at:02}"))).collect();
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let (page, next) = cut(items.clone(), after.as_ref(), 4, Clone::clone);
            assert!(page.len() <= 4);
            seen.extend(page);
            match next {
                None => break,
                Some(next) => after = cursor(Some(&next)).ok().flatten(),
            }
        }
        assert_eq!(seen, items);
    }

    #[test]
    fn foreign_tokens_are_refused() {
        assert!(cursor(Some("tok-2")).is_err());
        assert!(cursor(Some("!!")).is_err());
        assert_eq!(cursor(Some("")).ok(), Some(None));
    }
}
