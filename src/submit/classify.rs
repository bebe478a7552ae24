//! What the end of the one POST means. What is not known to be a no, is a perhaps.

use std::time::Duration;

use serde_json::Value;

/// How the POST ended, as far as this process saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostEnd {
    /// No byte of the request left this process (name resolution, connect, TLS handshake).
    NotSent(String),
    /// A complete answer came.
    Answer { status: u16, retry_after: Option<Duration>, body: Vec<u8> },
    /// The request may have left; no complete answer came.
    Broken(String),
}

/// What it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is a job with this name.
    Yes(String),
    /// There is no job.
    No(Refusal),
    /// There may be a job.
    Ambiguous(String),
}

/// Why there is no job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Gemini was not reached.
    NotSent(String),
    /// Quota; try again, not before the given time if there is one.
    RateLimited { after: Option<Duration>, message: String },
    /// The API key is not valid.
    Credentials(String),
    /// 403: the key has no right, or the input file is gone (the API does not tell them apart).
    Forbidden(String),
    /// Gemini does not want this request.
    Rejected(String),
}

/// Longest part of the provider's text that is kept.
const MAX_TEXT: usize = 300;

/// The one table. A definite no needs a `google.rpc.Status`, that is, the word of the API itself: a front end may
/// answer with the same number while the back end creates the job.
pub fn classify(end: PostEnd) -> Verdict {
    let (status, retry_after, body) = match end {
        PostEnd::NotSent(why) => return Verdict::No(Refusal::NotSent(why)),
        PostEnd::Broken(why) => return Verdict::Ambiguous(why),
        PostEnd::Answer { status, retry_after, body } => (status, retry_after, body),
    };
    let json: Option<Value> = serde_json::from_slice(&body).ok();
    if status == 200 {
        return match json.as_ref().and_then(|j| j["name"].as_str()).filter(|n| is_job_name(n)) {
            Some(name) => Verdict::Yes(name.to_owned()),
            None => Verdict::Ambiguous("Gemini answered 200 without the name of a job".into()),
        };
    }
    let Some(error) = json.as_ref().and_then(rpc_status) else {
        return Verdict::Ambiguous(format!("the answer was HTTP {status}, and not from the API itself"));
    };
    let message = clip(error["message"].as_str().unwrap_or_default());
    let bad_key = error["details"]
        .as_array()
        .is_some_and(|details| details.iter().any(|d| d["reason"] == "API_KEY_INVALID"));
    match status {
        400 if bad_key => Verdict::No(Refusal::Credentials(message)),
        401 => Verdict::No(Refusal::Credentials(message)),
        403 => Verdict::No(Refusal::Forbidden(message)),
        400 | 404 | 413 => Verdict::No(Refusal::Rejected(message)),
        429 => {
            Verdict::No(Refusal::RateLimited { after: retry_after.or_else(|| retry_info(error)), message })
        }
        _ => Verdict::Ambiguous(format!("the answer was HTTP {status}: {message}")),
    }
}

/// `batches/<id>`; the id goes into URLs, so its alphabet is closed.
fn is_job_name(name: &str) -> bool {
    name.strip_prefix("batches/").is_some_and(|id| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
    })
}

/// The `error` object, if it is a `google.rpc.Status`: a number as code and a name as status.
fn rpc_status(json: &Value) -> Option<&Value> {
    let error = json.get("error")?;
    (error["code"].is_number() && error["status"].is_string()).then_some(error)
}

/// `google.rpc.RetryInfo.retryDelay`, for example `"34s"`.
fn retry_info(error: &Value) -> Option<Duration> {
    let details = error["details"].as_array()?;
    let text = details.iter().find_map(|d| d["retryDelay"].as_str())?;
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> PostEnd {
        PostEnd::Answer { status, retry_after: None, body: body.as_bytes().to_vec() }
    }

    fn rpc(status: u16, name: &str) -> PostEnd {
        answer(status, &format!(r#"{{"error":{{"code":{status},"message":"m","status":"{name}"}}}}"#))
    }

    #[test]
    fn a_job_name_is_a_yes() {
        assert_eq!(classify(answer(200, r#"{"name":"batches/abc1"}"#)), Verdict::Yes("batches/abc1".into()));
    }

    #[test]
    fn a_200_without_a_job_name_is_a_perhaps() {
        for body in [
            "",
            "{}",
            "<html>",
            r#"{"name":"files/x"}"#,
            r#"{"name":"batches/../x"}"#,
            r#"{"name":"batches/a"#,
        ] {
            assert!(matches!(classify(answer(200, body)), Verdict::Ambiguous(_)), "{body}");
        }
    }

    #[test]
    fn nothing_left_the_process() {
        assert!(matches!(classify(PostEnd::NotSent("refused".into())), Verdict::No(Refusal::NotSent(_))));
        assert!(matches!(classify(PostEnd::Broken("reset".into())), Verdict::Ambiguous(_)));
    }

    #[test]
    fn the_word_of_the_api_is_a_no() {
        let bad_key = answer(
            400,
            r#"{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#,
        );
        assert!(matches!(classify(bad_key), Verdict::No(Refusal::Credentials(_))));
        assert!(matches!(classify(rpc(401, "UNAUTHENTICATED")), Verdict::No(Refusal::Credentials(_))));
        assert!(matches!(classify(rpc(403, "PERMISSION_DENIED")), Verdict::No(Refusal::Forbidden(_))));
        for (status, name) in [(400, "INVALID_ARGUMENT"), (404, "NOT_FOUND"), (413, "INVALID_ARGUMENT")] {
            assert!(matches!(classify(rpc(status, name)), Verdict::No(Refusal::Rejected(_))), "{status}");
        }
        assert!(matches!(classify(rpc(429, "RESOURCE_EXHAUSTED")), Verdict::No(Refusal::RateLimited { .. })));
    }

    #[test]
    fn the_same_numbers_from_a_front_end_are_a_perhaps() {
        for status in [400, 401, 403, 404, 413, 429] {
            for body in ["", "<html>no</html>", r#"{"error":{"message":"m","code":"invalid_request"}}"#] {
                assert!(matches!(classify(answer(status, body)), Verdict::Ambiguous(_)), "{status} {body}");
            }
        }
    }

    #[test]
    fn everything_else_is_a_perhaps() {
        for status in [201, 204, 301, 302, 307, 308, 408, 409, 418, 499, 500, 501, 502, 503, 504, 599] {
            assert!(matches!(classify(rpc(status, "X")), Verdict::Ambiguous(_)), "{status}");
        }
    }

    #[test]
    fn waits_as_long_as_the_provider_says() {
        let told = PostEnd::Answer {
            status: 429,
            retry_after: Some(Duration::from_secs(30)),
            body: br#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}"#.to_vec(),
        };
        let Verdict::No(Refusal::RateLimited { after, .. }) = classify(told) else { panic!("not a 429") };
        assert_eq!(after, Some(Duration::from_secs(30)));
        let info = answer(
            429,
            r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"1.5s"}]}}"#,
        );
        let Verdict::No(Refusal::RateLimited { after, .. }) = classify(info) else { panic!("not a 429") };
        assert_eq!(after, Some(Duration::from_millis(1500)));
    }
}
