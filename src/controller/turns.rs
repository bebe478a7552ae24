//! Whose turn it is to be reconciled: first come, first served.
//!
//! kube's own limit takes whichever it finds first in a hash set of those that wait. Where more wait than are served, an
//! object may be passed over for as long as others have work, and nothing says why it stands still.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Resource;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::error::Error;

/// Reconciles at a time, of each kind and place. They mostly wait for Gemini.
const AT_A_TIME: usize = 32;

/// The reconciler with that limit. Each runs in a task of its own, so that one that works hard holds up no other.
pub fn in_turn<K, C, F>(
    store: Store<K>,
    reconcile: impl Fn(Arc<K>, Arc<C>) -> F + Copy + Send + 'static,
) -> impl FnMut(Arc<K>, Arc<C>) -> BoxFuture<'static, Result<Action, Error>>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    C: Send + Sync + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    // Those that wait for a permit get it in the order in which they asked.
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    move |object, context| {
        let (store, turns) = (store.clone(), Arc::clone(&turns));
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            // It is never closed.
            let _turn = turns.acquire_owned().await;
            // It may have waited for long, and what it was called for is old. One that has gone needs nothing.
            match store.get(&ObjectRef::from_obj(&*object)) {
                Some(newest) => reconcile(newest, context).await,
                None => Ok(Action::await_change()),
            }
        }));
        async move { task.await.unwrap_or(Err(Error::Panicked)) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use futures::{StreamExt, stream};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::controller::{Config, applier};
    use kube::runtime::{reflector, watcher};

    use super::*;

    async fn busy(_: Arc<ConfigMap>, _: Arc<()>) -> Result<Action, Error> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(Action::requeue(Duration::from_millis(1)))
    }

    /// How often each of many was served, all of which always have work.
    #[tokio::test]
    async fn nobody_is_passed_over() {
        let (store, mut writer) = reflector::store::<ConfigMap>();
        writer.apply_watcher_event(&watcher::Event::Init);
        let mut wanted = Vec::new();
        for n in 0..5 * AT_A_TIME {
            let mut object = ConfigMap::default();
            object.metadata.name = Some(n.to_string());
            object.metadata.namespace = Some("a".into());
            wanted.push(Ok::<_, watcher::Error>(ObjectRef::from_obj(&object)));
            writer.apply_watcher_event(&watcher::Event::InitApply(object));
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
        let rounds = 10;
        let work = applier(
            in_turn(store.clone(), busy),
            |_, _, _| Action::await_change(),
            Arc::new(()),
            store,
            stream::iter(wanted).chain(stream::pending()),
            Config::default(),
        );
        let mut served: BTreeMap<String, usize> = BTreeMap::new();
        let mut work = Box::pin(work.take(5 * AT_A_TIME * rounds));
        while let Some(done) = work.next().await {
            *served.entry(done.unwrap().0.name).or_default() += 1;
        }
        let (least, most) = (served.values().min().unwrap(), served.values().max().unwrap());
        assert_eq!(served.len(), 5 * AT_A_TIME);
        assert!(least + 3 >= *most, "{least} to {most} times");
    }

    #[tokio::test]
    async fn one_that_has_gone_needs_nothing() {
        let (store, _writer) = reflector::store::<ConfigMap>();
        let mut object = ConfigMap::default();
        object.metadata.name = Some("a".into());
        let never = |_: Arc<ConfigMap>, _: Arc<()>| async { Err(Error::Panicked) };
        let action = in_turn(store, never)(Arc::new(object), Arc::new(())).await;
        assert_eq!(action.unwrap(), Action::await_change());
    }
}
