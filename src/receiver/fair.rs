//! What is there for all is given to each in turn, and to nobody too much of it: whoever wants a lot waits behind
//! himself, and not before his neighbours.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A bounded number of places, of which nobody has more than a part, and for which everybody waits in a line of his own.
#[derive(Clone, Debug)]
pub struct Turns {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// The most for each, and what each has.
    each: usize,
    held: HashMap<Arc<str>, usize>,
    /// Those who wait, by whom they wait for. No line is empty.
    lines: HashMap<Arc<str>, VecDeque<oneshot::Sender<Place>>>,
    /// Who has a line; the one whose turn it is comes first.
    turns: VecDeque<Arc<str>>,
}

/// The right to a place; handed on when dropped.
#[derive(Debug)]
pub struct Place {
    turns: Turns,
    whose: Arc<str>,
}

impl Turns {
    pub fn new(places: usize, each: usize) -> Self {
        let state =
            State { free: places, each, held: HashMap::new(), lines: HashMap::new(), turns: VecDeque::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A place for `whom` when it is his turn; within his line, in the order of their coming. `None` never comes: no call
    /// is dropped before it was made.
    pub async fn place(&self, whom: &Arc<str>) -> Option<Place> {
        let called = {
            let mut state = lock(&self.state);
            // Whoever gives a place up hands it on, so nobody who may have one waits while one is free.
            if state.free > 0 && state.may(whom) {
                state.free -= 1;
                state.hold(whom);
                return Some(Place { turns: self.clone(), whose: whom.clone() });
            }
            let (call, called) = oneshot::channel();
            state.wait(whom, call);
            called
        };
        called.await.ok()
    }
}

impl State {
    fn wait(&mut self, whom: &Arc<str>, call: oneshot::Sender<Place>) {
        let line = self.lines.entry(whom.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(whom.clone());
        }
        line.push_back(call);
    }

    fn may(&self, whom: &str) -> bool {
        self.held.get(whom).is_none_or(|held| *held < self.each)
    }

    fn hold(&mut self, whom: &Arc<str>) {
        *self.held.entry(whom.clone()).or_default() += 1;
    }

    /// Whose turn it is, without those who have left, and those who have as much as they may.
    fn next(&mut self) -> Option<(Arc<str>, oneshot::Sender<Place>)> {
        for _ in 0..self.turns.len() {
            let whom = self.turns.pop_front()?;
            let may = self.may(&whom);
            let Some(line) = self.lines.get_mut(&whom) else { continue };
            let mut call = None;
            if may {
                call = std::iter::from_fn(|| line.pop_front()).find(|call| !call.is_closed());
            }
            if line.is_empty() {
                self.lines.remove(&whom);
            } else {
                self.turns.push_back(whom.clone());
            }
            if let Some(call) = call {
                self.hold(&whom);
                return Some((whom, call));
            }
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (whose, call) = {
            let mut state = lock(&self.turns.state);
            release(&mut state.held, &self.whose);
            let Some(next) = state.next() else {
                state.free += 1;
                return;
            };
            next
        };
        // Who left in this very moment drops it, which hands it on.
        let _ = call.send(Place { turns: self.turns.clone(), whose });
    }
}

/// One less for him; what he has none of is not remembered.
fn release(held: &mut HashMap<Arc<str>, usize>, whose: &Arc<str>) {
    if let Some(count) = held.get_mut(whose) {
        *count -= 1;
        if *count == 0 {
            held.remove(whose);
        }
    }
}

/// So much at a time for each, and no more.
#[derive(Clone, Debug)]
pub struct Shares {
    most: usize,
    held: Arc<Mutex<HashMap<Arc<str>, usize>>>,
}

/// A part of somebody's share; given back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    whose: Arc<str>,
}

impl Shares {
    pub fn new(most: usize) -> Self {
        Self { most, held: Arc::default() }
    }

    /// `None` = he has as much as he may.
    pub fn take(&self, whose: &Arc<str>) -> Option<Share> {
        let mut all = lock(&self.held);
        let held = all.entry(whose.clone()).or_default();
        if *held >= self.most {
            return None;
        }
        *held += 1;
        Some(Share { shares: self.clone(), whose: whose.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        release(&mut lock(&self.shares.held), &self.whose);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::stream::{FuturesUnordered, StreamExt};

    fn name(whom: &str) -> Arc<str> {
        whom.into()
    }

    #[tokio::test]
    async fn who_wants_many_waits_for_his_own() {
        let turns = Turns::new(2, 2);
        let (loud, quiet) = (name("loud"), name("quiet"));
        let held = [turns.place(&loud).await, turns.place(&loud).await];
        let mut waiting = FuturesUnordered::new();
        for number in 0..100 {
            let (turns, loud) = (turns.clone(), loud.clone());
            waiting.push(async move { (turns.place(&loud).await, "loud", number) }.boxed());
            // In the order of their coming.
            assert!(waiting.next().now_or_never().is_none());
        }
        for number in 0..2 {
            let (turns, quiet) = (turns.clone(), quiet.clone());
            waiting.push(async move { (turns.place(&quiet).await, "quiet", number) }.boxed());
            assert!(waiting.next().now_or_never().is_none());
        }
        drop(held);
        let mut seen = Vec::new();
        while let Some((place, whom, number)) = waiting.next().await {
            seen.push((whom, number));
            drop(place);
        }
        let of = |whom| seen.iter().filter(|(other, _)| *other == whom).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!((of("quiet"), of("loud")), (vec![0, 1], (0..100).collect()));
        let last = seen.iter().rposition(|(whom, _)| *whom == "quiet");
        assert!(last.is_some_and(|last| last < 6), "a hundred others came first: {seen:?}");

        let state = lock(&turns.state);
        assert_eq!((state.free, state.lines.len(), state.turns.len(), state.held.len()), (2, 0, 0, 0));
    }

    #[tokio::test]
    async fn nobody_has_all_places() {
        let turns = Turns::new(4, 2);
        let (loud, quiet) = (name("loud"), name("quiet"));
        let first = turns.place(&loud).await;
        let second = turns.place(&loud).await;
        let mut third = Box::pin(turns.place(&loud));
        assert!((&mut third).now_or_never().is_none(), "two are free, and not for him");
        let held = [turns.place(&quiet).await, turns.place(&quiet).await];
        let mut another = Box::pin(turns.place(&quiet));
        assert!((&mut another).now_or_never().is_none());
        // What a neighbour gives up is not for him either.
        drop(held);
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut another).now_or_never().is_some());
        drop(first);
        assert!(third.now_or_never().is_some());
        drop(second);
        assert_eq!(lock(&turns.state).free, 4);
    }

    #[tokio::test]
    async fn who_leaves_takes_no_place_along() {
        let turns = Turns::new(1, 1);
        let (a, b) = (name("a"), name("b"));
        let held = turns.place(&a).await;
        let mut gone = Box::pin(turns.place(&a));
        let mut called = Box::pin(turns.place(&b));
        let mut last = Box::pin(turns.place(&a));
        for waiting in [&mut gone, &mut last] {
            assert!(waiting.now_or_never().is_none());
        }
        assert!((&mut called).now_or_never().is_none());
        drop(gone);
        drop(held);
        // It was called, and leaves all the same.
        drop(called);
        assert!(last.now_or_never().is_some());
        assert_eq!(lock(&turns.state).free, 1);
    }

    #[test]
    fn nobody_has_more_than_his_share() {
        let shares = Shares::new(2);
        let (a, b) = (name("a"), name("b"));
        let held = (shares.take(&a), shares.take(&a));
        assert!(shares.take(&a).is_none());
        assert!(shares.take(&b).is_some());
        drop(held);
        assert!(shares.take(&a).is_some());
        assert!(lock(&shares.held).is_empty());
    }
}
