//! When keys are called for, and who waits for them.

use std::collections::VecDeque;

use futures::FutureExt;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;

/// A provider in memory: answers in their order, each when it is let go.
#[derive(Clone, Default)]
pub struct FakeSource(Arc<Fake>);

struct Fake {
    answers: Mutex<VecDeque<Result<Jwks, FetchError>>>,
    calls: Mutex<usize>,
    go: Semaphore,
}

impl Default for Fake {
    fn default() -> Self {
        Self { answers: Mutex::default(), calls: Mutex::default(), go: Semaphore::new(0) }
    }
}

impl FakeSource {
    /// What the next call but those before it is told, without waiting.
    pub fn answer(&self, answer: Result<Jwks, FetchError>) {
        self.put(answer);
        self.0.go.add_permits(1);
    }

    fn put(&self, answer: Result<Jwks, FetchError>) {
        self.0.answers.lock().unwrap().push_back(answer);
    }

    pub fn calls(&self) -> usize {
        *self.0.calls.lock().unwrap()
    }
}

impl Source for FakeSource {
    fn fetch(&self) -> BoxFuture<'static, Result<Jwks, FetchError>> {
        let fake = self.0.clone();
        *fake.calls.lock().unwrap() += 1;
        async move {
            fake.go.acquire().await.unwrap().forget();
            fake.answers.lock().unwrap().pop_front().expect("the test has no answer for this call")
        }
        .boxed()
    }
}

/// A document with these Ed25519 keys.
pub fn jwks(keys: &[&ed25519_dalek::SigningKey]) -> Jwks {
    let member = |key: &&ed25519_dalek::SigningKey| {
        let x = data_encoding::BASE64URL_NOPAD.encode(key.verifying_key().as_bytes());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x})
    };
    let members: Vec<_> = keys.iter().map(member).collect();
    Jwks::parse(json!({ "keys": members }).to_string().as_bytes()).unwrap()
}

fn numbered(number: u8) -> Jwks {
    jwks(&[&ed25519_dalek::SigningKey::from_bytes(&[number; 32])])
}

fn down() -> Result<Jwks, FetchError> {
    Err(FetchError::Status(503))
}

#[test]
fn decisions() {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
    for (what, age, called, missed, wanted) in [
        ("never asked", None, None, false, Step::Fetch),
        ("never asked, nothing fits", None, None, true, Step::Fetch),
        ("failed just now", None, Some(59), true, Step::Lack),
        ("failed a minute ago", None, Some(60), true, Step::Fetch),
        ("fresh", Some(9 * MINUTE), Some(9 * MINUTE), false, Step::Use),
        ("fresh, nothing fits", Some(60), Some(60), true, Step::Fetch),
        ("fresh, nothing fits, too soon", Some(59), Some(59), true, Step::Use),
        ("fresh, nothing fits, a call failed since", Some(9 * MINUTE), Some(1), true, Step::Use),
        ("old", Some(10 * MINUTE), Some(10 * MINUTE), false, Step::Fetch),
        ("old, the call failed", Some(10 * MINUTE), Some(59), false, Step::Use),
        ("old, nothing fits, the call failed", Some(23 * HOUR), Some(59), true, Step::Use),
        ("old, the call failed a minute ago", Some(23 * HOUR), Some(60), false, Step::Fetch),
        ("too old", Some(24 * HOUR), Some(59), false, Step::Lack),
        ("too old, and not asked for long", Some(24 * HOUR), Some(60), false, Step::Fetch),
    ] {
        let facts = Facts { age: seconds(age), called: seconds(called), under_way: false };
        assert_eq!(decide(facts, missed), wanted, "{what}");
        // Whoever would call, or has to do without what he wants, waits for the call that is under way.
        let meanwhile = decide(Facts { under_way: true, ..facts }, missed);
        let content = age.is_some_and(|age| age < 10 * MINUTE) && !missed;
        assert_eq!(meanwhile, if content { Step::Use } else { Step::Join }, "{what}, a call is under way");
    }
}

proptest::proptest! {
    /// Whatever comes, and whenever: calls keep their distance, and no keys are used beyond their age.
    #[test]
    fn at_most_one_call_a_minute(
        asks in proptest::collection::vec((0_u64..400, proptest::bool::ANY, proptest::bool::ANY), 1..200),
    ) {
        let (mut now, mut called, mut fetched) = (0_u64, None, None);
        for (pause, missed, works) in asks {
            // Pauses of all sizes: seconds, and now and then hours.
            now += if pause > 390 { pause * 200 } else { pause };
            let since = |then: Option<u64>| then.map(|then| Duration::from_secs(now - then));
            match decide(Facts { age: since(fetched), called: since(called), under_way: false }, missed) {
                Step::Fetch => {
                    proptest::prop_assert!(called.is_none_or(|called| now - called >= 60));
                    called = Some(now);
                    if works {
                        fetched = Some(now);
                    }
                }
                Step::Use => proptest::prop_assert!(fetched.is_some_and(|then| now - then < 24 * 3600)),
                Step::Lack => proptest::prop_assert!(fetched.is_none_or(|then| now - then >= 24 * 3600)),
                Step::Join => proptest::prop_assert!(false, "nothing is under way"),
            }
        }
    }
}

fn keys() -> (PublicKeys, FakeSource, Metrics) {
    let (source, metrics) = (FakeSource::default(), Metrics::register(&mut Registry::default()));
    (PublicKeys::new(Box::new(source.clone()), metrics.clone()), source, metrics)
}

#[tokio::test]
async fn all_who_come_meanwhile_share_one_call() {
    let (keys, source, metrics) = keys();
    let keys = Arc::new(keys);
    let now = Instant::now();
    let asks: Vec<_> = (0..100)
        .map(|_| {
            let keys = keys.clone();
            tokio::spawn(async move { keys.ask(None, true, now).await })
        })
        .collect();
    // The first one gives up, and its call goes on.
    tokio::task::yield_now().await;
    while source.calls() == 0 {
        tokio::task::yield_now().await;
    }
    asks[0].abort();
    source.answer(Ok(numbered(1)));
    let mut seen = None;
    for ask in asks.into_iter().skip(1) {
        let Told::Other(others) = ask.await.unwrap() else { panic!("there are keys now") };
        assert!(Arc::ptr_eq(seen.get_or_insert(others.clone()), &others));
    }
    assert_eq!((source.calls(), metrics.jwks_fetched("fetched")), (1, 1));
}

#[tokio::test]
async fn old_keys_serve_while_there_are_no_others() {
    let (keys, source, metrics) = keys();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    source.answer(down());
    assert!(matches!(keys.ask(None, true, at(0)).await, Told::Lack));
    assert!(matches!(keys.ask(None, true, at(59)).await, Told::Lack));
    assert_eq!(source.calls(), 1);
    source.answer(Ok(numbered(1)));
    let Told::Other(first) = keys.ask(None, true, at(60)).await else { panic!("keys were fetched") };
    let ask = async |missed, seconds| keys.ask(Some(&first), missed, at(seconds)).await;
    assert!(matches!(ask(false, 61).await, Told::Same { failing: false }));
    // Down when they are old: they still serve, and it is tried again.
    source.answer(down());
    assert!(matches!(ask(false, 660).await, Told::Same { failing: true }));
    assert!(matches!(ask(true, 661).await, Told::Same { failing: true }));
    assert_eq!(source.calls(), 3);
    // The same document is no news.
    source.answer(Ok(numbered(1)));
    assert!(matches!(ask(true, 720).await, Told::Same { failing: false }));
    // A day after they were last seen they are nobody's.
    source.answer(down());
    assert!(matches!(ask(false, 720 + 24 * 3600).await, Told::Lack));
    source.answer(Ok(numbered(2)));
    assert!(matches!(ask(false, 720 + 24 * 3600 + 60).await, Told::Other(_)));
    assert_eq!((metrics.jwks_fetched("status"), metrics.jwks_fetched("fetched")), (3, 3));
}

#[tokio::test]
async fn who_was_judged_by_others_is_judged_again_without_a_call() {
    let (keys, source, _) = keys();
    let now = Instant::now();
    source.answer(Ok(numbered(1)));
    let Told::Other(first) = keys.ask(None, true, now).await else { panic!("keys were fetched") };
    assert!(matches!(keys.ask(None, true, now).await, Told::Other(_)));
    assert!(matches!(keys.ask(Some(&first), true, now).await, Told::Same { failing: false }));
    assert_eq!(source.calls(), 1);
}

#[test]
fn labels() {
    let all = [
        FetchError::Unreachable("x".into()),
        FetchError::Status(500),
        jwks::Error::TooLarge.into(),
        jwks::Error::Malformed.into(),
        jwks::Error::TooManyKeys.into(),
    ];
    let labels: std::collections::HashSet<_> = all.iter().map(FetchError::as_str).collect();
    assert_eq!(labels.len(), all.len());
}
