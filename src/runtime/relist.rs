//! Watches that look at the whole again from time to time.
//!
//! A watch promises every event, and so a follower that has missed one would never know. Caches on the way have lost
//! events before; a list heals whatever it was, and costs one request.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// A list may take as long as the client waits for an answer.
const LEAST: Duration = Duration::from_secs(10);

/// Follows all of `api` for ever, and begins anew with a list after each `every`.
pub fn relisted<K>(
    api: Api<K>,
    config: watcher::Config,
    every: Duration,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = move || watcher(api.clone(), config.clone()).take_until(tokio::time::sleep(every.max(LEAST)));
    stream::repeat_with(begin).flatten()
}

/// Which objects a follower has seen, and in which version: a list that brings nothing new is no reason to act.
pub struct News<K: Resource<DynamicType = ()>> {
    known: HashMap<ObjectRef<K>, Option<String>>,
    /// Of the list that is coming in.
    listed: HashMap<ObjectRef<K>, Option<String>>,
    /// What is new in it. It can be acted on when all of the list is there.
    new: Vec<ObjectRef<K>>,
}

impl<K: Resource<DynamicType = ()>> Default for News<K> {
    fn default() -> Self {
        Self { known: HashMap::new(), listed: HashMap::new(), new: vec![] }
    }
}

impl<K: Resource<DynamicType = ()>> News<K> {
    /// The objects that are to be looked at because of this event.
    pub fn of(&mut self, event: &Event<K>) -> Vec<ObjectRef<K>> {
        let seen = |object: &K| (ObjectRef::from_obj(object), object.meta().resource_version.clone());
        match event {
            Event::Init => {
                self.listed.clear();
                self.new.clear();
                vec![]
            }
            Event::InitApply(object) => {
                let (reference, version) = seen(object);
                let is_new = self.known.get(&reference) != Some(&version);
                self.listed.insert(reference.clone(), version);
                self.new.extend(is_new.then_some(reference));
                vec![]
            }
            Event::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                std::mem::take(&mut self.new)
            }
            Event::Apply(object) => {
                let (reference, version) = seen(object);
                self.known.insert(reference.clone(), version);
                vec![reference]
            }
            Event::Delete(object) => {
                self.known.remove(&ObjectRef::from_obj(object));
                vec![]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    #[test]
    fn a_list_tells_only_what_is_new() {
        let mut news = News::default();
        let mut told = |event: Event<ConfigMap>| news.of(&event).into_iter().map(|object| object.name);
        let list = |objects: &[(&str, &str)]| {
            let applied = objects.iter().map(|(name, version)| Event::InitApply(object(name, version)));
            [Event::Init].into_iter().chain(applied).chain([Event::InitDone]).collect::<Vec<_>>()
        };
        let mut all =
            |events: Vec<Event<ConfigMap>>| events.into_iter().flat_map(&mut told).collect::<Vec<_>>();
        assert_eq!(all(list(&[("a", "1"), ("b", "1")])), ["a", "b"]);
        assert_eq!(all(vec![Event::Apply(object("a", "2"))]), ["a"]);
        assert_eq!(all(list(&[("a", "2"), ("b", "2"), ("c", "2")])), ["b", "c"], "b and c had no event");
        assert_eq!(all(vec![Event::Delete(object("c", "3"))]), [""; 0]);
        assert_eq!(all(list(&[("a", "2")])), [""; 0], "b is gone");
        assert_eq!(all(list(&[("a", "2"), ("b", "2"), ("c", "2")])), ["b", "c"], "they are there again");
        // One that was cut says nothing of what it did not come to.
        assert_eq!(all(vec![Event::Init, Event::InitApply(object("a", "2"))]), [""; 0]);
        assert_eq!(all(list(&[("a", "2"), ("b", "2"), ("c", "3")])), ["c"]);
    }
}
