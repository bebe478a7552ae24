//! Following a kind in the cluster: what the three watched tables have in common.
//!
//! No object is kept whole: each is cut down to what its table needs as it arrives, because `managedFields` and specs
//! are most of the memory of a cache.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, pin_mut};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::quiet::Throttle;
use crate::runtime::readiness::Gate;
use crate::runtime::relist::relisted;

/// Below the idle time-outs of common load balancers, some of which freeze a quiet watch after 240 s.
const WATCH_SECONDS: u32 = 200;
/// What a watch may have missed is seen after this long.
const RELIST: Duration = Duration::from_mins(10);

/// A change of a table.
pub enum Change<E> {
    /// These are all; what is not among them is gone.
    All(Vec<E>),
    Applied(E),
    Deleted(E),
}

/// A part of an object that may have any shape: one malformed object must not stop the watch of all others.
///
/// It is read out of JSON only, and not out of serde's own tree: into that a watch event would go whose object comes before
/// its type. API servers write the type first (`metav1.WatchEvent`); of one that did not, lists alone would be understood.
#[derive(Clone, Debug)]
pub struct Lenient<T>(pub Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Its text and not serde's tree of it, which would ask for memory for each word of every status.
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(text.get()).ok()))
    }
}

/// Follows a kind for ever; returns only if the stream ends, which it should not.
pub async fn follow<K, E>(
    api: Api<K>,
    config: watcher::Config,
    what: &'static str,
    gate: Gate,
    cut: impl Fn(K) -> Option<E> + Send,
    apply: impl FnMut(Change<E>) + Send,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    E: Send,
{
    let events = relisted(api, config.timeout(WATCH_SECONDS), RELIST).default_backoff();
    drive(events, what, gate, cut, apply).await;
}

async fn drive<K, E>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    what: &'static str,
    gate: Gate,
    cut: impl Fn(K) -> Option<E> + Send,
    mut apply: impl FnMut(Change<E>) + Send,
) where
    E: Send,
{
    let mut gate = Some(gate);
    let mut listed = Vec::new();
    // An API server that is away would fill the log.
    let throttle = Throttle::new(Duration::from_mins(1));
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.extend(cut(object)),
            Ok(Event::InitDone) => {
                apply(Change::All(std::mem::take(&mut listed)));
                if let Some(gate) = gate.take() {
                    gate.done();
                }
            }
            Ok(Event::Apply(object)) => cut(object).into_iter().for_each(|e| apply(Change::Applied(e))),
            Ok(Event::Delete(object)) => cut(object).into_iter().for_each(|e| apply(Change::Deleted(e))),
            Err(error) => {
                if let Some(suppressed) = throttle.admit(Instant::now()) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(what, suppressed, error, "watch interrupted");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::readiness::Readiness;

    #[tokio::test]
    async fn a_new_list_replaces_and_opens_the_gate_when_it_is_whole() {
        let readiness = Readiness::new();
        let gate = readiness.gate("numbers");
        let events = futures::stream::iter([
            Ok(Event::Init),
            Ok(Event::InitApply(1)),
            Ok(Event::Init),
            Ok(Event::InitApply(2)),
            Ok(Event::InitApply(-1)),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::InitDone),
            Ok(Event::Apply(3)),
            Ok(Event::Delete(2)),
        ]);
        let mut changes = Vec::new();
        let apply = |change: Change<i32>| {
            changes.push(match change {
                Change::All(all) => (readiness.is_ready(), all),
                Change::Applied(one) => (readiness.is_ready(), vec![one]),
                Change::Deleted(one) => (readiness.is_ready(), vec![-one]),
            });
        };
        drive(events, "numbers", gate, |n: i32| (n > 0).then_some(n), apply).await;
        assert_eq!(changes, [(false, vec![2]), (true, vec![3]), (true, vec![-2])]);
    }

    #[test]
    fn malformed_parts_are_skipped() {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            numbers: Lenient<Vec<Lenient<i32>>>,
        }
        let read = |text| serde_json::from_str::<Object>(text).unwrap().numbers.0;
        assert!(read("{}").is_none());
        assert!(read(r#"{"numbers":"x"}"#).is_none());
        let mixed = read(r#"{"numbers":[1,"x",{"y":[]},2]}"#).unwrap();
        assert_eq!(mixed.into_iter().filter_map(|n| n.0).collect::<Vec<_>>(), [1, 2]);
    }
}
