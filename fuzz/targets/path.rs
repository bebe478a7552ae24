//! Paths of requests: a token is the last segment, behind `/v1/h/`, and nothing else.
#![no_main]

use gemini_operator::receiver::token_of;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &str| {
    let end = path.rfind("/v1/h/").map(|place| &path[place + "/v1/h/".len()..]);
    if let Some(token) = token_of(path) {
        assert!(!token.is_empty() && !token.contains('/'));
        assert_eq!(Some(token), end);
    } else if let Some(end) = end {
        // There is one only if the segment is too long, too short or not the last.
        assert!(end.is_empty() || end.contains('/') || end.len() > 64, "{path:?}");
    }
});
