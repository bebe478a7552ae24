//! Which request, and which of them: a rule. What happens to it: a fault.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::breakpoint::Hold;
use crate::request::{Target, Verb};
use crate::snapshot::Snapshot;

/// What happens instead of what should.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Everything waits for this long first.
    Delay(Duration),
    /// The connection is closed; nothing reaches the API server.
    DropRequest,
    /// The API server has done it; the connection is closed.
    DropAnswer,
    /// An error of this code; nothing reaches the API server.
    Answer { code: u16, retry_after: Option<u32> },
    /// The API server has done it; an error of this code says that it may not have.
    ApplyThenAnswer { code: u16 },
    /// Held until the test says go: see [`crate::Breakpoint`].
    Hold(Hold),
    /// The world as it was: lists and objects are old, and watches stand still.
    Stale(Snapshot),
    /// Watches stand still.
    FreezeWatch,
    /// The event of a watch is lost.
    DropEvent,
    /// Instead of this event, a watch ends with an ERROR event of code 410.
    EndWatch,
}

/// What of an exchange a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Request,
    /// One event of a watch.
    Event,
}

impl Fault {
    fn is_at(&self, stage: Stage, verb: Verb) -> bool {
        match self {
            Self::FreezeWatch | Self::DropEvent | Self::EndWatch => stage == Stage::Event,
            Self::Stale(_) => (stage == Stage::Event) == (verb == Verb::Watch),
            _ => stage == Stage::Request,
        }
    }
}

/// Whether it is this one's turn, of those that fit.
#[derive(Clone, Debug)]
enum Turn {
    Always,
    /// These, counted from 1.
    Nth(Vec<u64>),
    /// From this one on.
    From(u64),
    Every(u64),
    /// In so many of a hundred, by this seed.
    Percent(u64, u64),
}

/// A question about a request, or about an event of a watch, and its body.
#[derive(Clone)]
struct Question(Arc<Answer>);

type Answer = dyn Fn(&Target, &[u8]) -> bool + Send + Sync;

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A fault and the requests (or watch events) that it is for.
#[derive(Clone, Debug)]
pub struct Rule {
    verbs: Vec<Verb>,
    resources: Vec<String>,
    namespace: Option<String>,
    name: Option<String>,
    question: Option<Question>,
    turn: Turn,
    times: u64,
    fault: Fault,
}

impl Rule {
    /// A rule for all requests; for a fault of watch events, all events.
    pub fn new(fault: Fault) -> Self {
        Self {
            verbs: vec![],
            resources: vec![],
            namespace: None,
            name: None,
            question: None,
            turn: Turn::Always,
            times: u64::MAX,
            fault,
        }
    }

    #[must_use]
    pub fn verbs(mut self, verbs: &[Verb]) -> Self {
        self.verbs = verbs.to_vec();
        self
    }

    /// With its subresource: `geminibatches/status` is not `geminibatches`.
    #[must_use]
    pub fn resources(mut self, resources: &[&str]) -> Self {
        self.resources = resources.iter().map(|r| (*r).to_owned()).collect();
        self
    }

    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Of the object; of an event, of the object that it shows.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Only where this is so of the target and the body: of a request what is to be kept, of a watch the event.
    #[must_use]
    pub fn only_if(mut self, so: impl Fn(&Target, &[u8]) -> bool + Send + Sync + 'static) -> Self {
        self.question = Some(Question(Arc::new(so)));
        self
    }

    /// Only these of those that fit, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: &[u64]) -> Self {
        self.turn = Turn::Nth(nth.to_vec());
        self
    }

    #[must_use]
    pub fn from(mut self, from: u64) -> Self {
        self.turn = Turn::From(from);
        self
    }

    #[must_use]
    pub fn every(mut self, every: u64) -> Self {
        self.turn = Turn::Every(every.max(1));
        self
    }

    #[must_use]
    pub fn percent(mut self, percent: u64, seed: u64) -> Self {
        self.turn = Turn::Percent(percent, seed);
        self
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    fn fits(&self, target: &Target, body: &[u8]) -> bool {
        let any = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        (self.verbs.is_empty() || self.verbs.contains(&target.verb))
            && (self.resources.is_empty() || self.resources.contains(&target.resource))
            && any(&self.namespace, &target.namespace)
            && any(&self.name, &target.name)
            && self.question.as_ref().is_none_or(|question| question.0(target, body))
    }
}

impl Turn {
    fn is(&self, n: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(nth) => nth.contains(&n),
            Self::From(from) => n >= *from,
            Self::Every(every) => n.is_multiple_of(*every),
            Self::Percent(percent, seed) => mixed(seed.wrapping_add(n)) % 100 < *percent,
        }
    }
}

/// `SplitMix64`: the same numbers for the same seed, everywhere.
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(u64);

struct Added {
    id: u64,
    rule: Rule,
    /// Requests that fitted so far.
    seen: u64,
    /// Those that got the fault.
    fired: u64,
}

/// The rules as they stand, and word of each change.
pub(crate) struct Rules {
    all: Mutex<Vec<Added>>,
    changed: watch::Sender<u64>,
}

impl Rules {
    pub fn new() -> Self {
        Self { all: Mutex::default(), changed: watch::Sender::new(0) }
    }

    pub fn add(&self, rule: Rule) -> RuleId {
        let mut id = 0;
        self.changed.send_modify(|changes| {
            *changes += 1;
            id = *changes;
        });
        self.lock().push(Added { id, rule, seen: 0, fired: 0 });
        RuleId(id)
    }

    pub fn keep(&self, keep: impl Fn(RuleId) -> bool) {
        self.lock().retain(|added| keep(RuleId(added.id)));
        self.changed.send_modify(|changes| *changes += 1);
    }

    pub fn fired(&self, id: RuleId) -> u64 {
        self.lock().iter().find(|added| added.id == id.0).map_or(0, |added| added.fired)
    }

    /// The fault of the first rule whose turn it is. Every rule that fits counts it.
    pub fn fault(&self, target: &Target, body: &[u8], stage: Stage) -> Option<Fault> {
        let mut found = None;
        for added in self.lock().iter_mut() {
            if !added.rule.fault.is_at(stage, target.verb) || !added.rule.fits(target, body) {
                continue;
            }
            added.seen += 1;
            if found.is_none() && added.fired < added.rule.times && added.rule.turn.is(added.seen) {
                added.fired += 1;
                found = Some(added.rule.fault.clone());
            }
        }
        found
    }

    /// Whether watches stand still for this target; a standing watch is no event, so nothing is counted.
    pub fn is_frozen(&self, target: &Target) -> bool {
        let frozen = |added: &Added| {
            matches!(added.rule.fault, Fault::FreezeWatch | Fault::Stale(_)) && added.rule.fits(target, &[])
        };
        self.lock().iter().any(frozen)
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Added>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(rule: Rule, count: u64) -> Vec<u64> {
        let rules = Rules::new();
        rules.add(rule);
        let target = Target {
            verb: Verb::Get,
            resource: "things".into(),
            namespace: "ns".into(),
            name: "a".into(),
            dry_run: false,
            metadata_only: false,
        };
        (1..=count).filter(|_| rules.fault(&target, b"body", Stage::Request).is_some()).collect::<Vec<_>>()
    }

    fn drop_request() -> Rule {
        Rule::new(Fault::DropRequest)
    }

    #[test]
    fn turns_are_counted() {
        assert_eq!(fired(drop_request(), 3), [1, 2, 3]);
        assert_eq!(fired(drop_request().nth(&[2, 4]), 5), [2, 4]);
        assert_eq!(fired(drop_request().from(4), 5), [4, 5]);
        assert_eq!(fired(drop_request().every(2), 5), [2, 4]);
        assert_eq!(fired(drop_request().every(2).times(1), 5), [2]);
        assert_eq!(fired(drop_request().resources(&["things/status"]), 5), [] as [u64; 0]);
        assert_eq!(fired(drop_request().name("b"), 5), [] as [u64; 0]);
        assert_eq!(fired(drop_request().verbs(&[Verb::List]), 5), [] as [u64; 0]);
        assert_eq!(fired(drop_request().only_if(|_, body| body == b"body").nth(&[2]), 3), [2]);
        assert_eq!(fired(drop_request().only_if(|target, _| target.name == "b"), 5), [] as [u64; 0]);
        let third = fired(drop_request().percent(30, 7), 1000).len();
        assert!((250..350).contains(&third), "{third}");
        assert_eq!(fired(drop_request().percent(30, 7), 50), fired(drop_request().percent(30, 7), 50));
    }
}
