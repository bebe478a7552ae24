//! Every crash point of a webhook: the controller dies there, and the next one heals what is left; or it stops there, the next
//! one does its work, and it goes on with what it knew before. Where a signing secret got lost, which is shown once, it gets
//! another one, by two rotations at most; there is one endpoint, and none in the end.

mod judge;
mod life;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use gemini_operator::webhook::points;

use crate::run::Action;
use crate::side_by_side::side_by_side;
use life::{Life, Revocation, run};

pub const SIDES: [&str; 2] = ["before", "after"];

/// How the call ends that the case is about, the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Answered,
    RequestLost,
    AnswerLost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub life: Life,
    pub end: End,
    /// `PLACE.SIDE`
    pub place: &'static str,
    pub side: &'static str,
    /// `Kill` or `Stop`.
    pub action: Action,
}

impl Case {
    /// What befalls the controller.
    pub fn armed(&self) -> String {
        // The first ping proves the registration, the second the rotation.
        let is_second = matches!(self.life, Life::Rotated(_)) && self.place.starts_with('w');
        format!("{}.{}={}{}", self.place, self.side, self.action.name(), if is_second { "@2" } else { "" })
    }

    /// Whether nobody may hold the secret that Gemini signs with, when its controller dies.
    pub fn may_lose_a_secret(&self) -> bool {
        let is_between = match (self.place, self.side) {
            // The keyring has it, but nobody knows yet whose it is.
            ("w3-create" | "k1-rotate", "after") | ("w4-keep", _) | ("w5-record" | "k2-store", "before") => {
                true
            }
            _ => self.place.starts_with('h'),
        };
        is_between || self.end == End::AnswerLost
    }
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (place, side, action) = (self.place, self.side, self.action.name());
        write!(f, "{place}.{side}={action}, {:?}, {:?}", self.life, self.end)
    }
}

const ENDS: [End; 3] = [End::Answered, End::RequestLost, End::AnswerLost];
const REVOCATIONS: [Revocation; 2] = [Revocation::After24h, Revocation::Immediately];
const PING: [&str; 3] = ["w6-test", "w7-ping", "w8-proof"];
const RECOVERY: [&str; 4] = ["h0-lost", "h1-recover", "h2-replace", "h4-healed"];

fn of(life: Life, ends: &[End], places: &[&'static str]) -> Vec<Case> {
    let mut cases = vec![];
    for &end in ends {
        for &place in places {
            cases.extend(SIDES.map(|side| Case { life, end, place, side, action: Action::Kill }));
        }
    }
    cases
}

/// Each place where each life passes it, with every end of its call that leads there.
fn full() -> Vec<Case> {
    let registration = [&["w0-path", "w1-claim", "w2-intent", "w3-create", "w5-record"], &PING[..]].concat();
    let twins = [&RECOVERY[..], &["h3-prune"]].concat();
    let rotation = [&["k0-turn", "k1-rotate", "k2-store", "k3-turned"], &PING[..]].concat();
    let rotations = REVOCATIONS.into_iter().flat_map(|kind| of(Life::Rotated(kind), &ENDS, &rotation));
    let mut cases = of(Life::Registered, &ENDS, &registration);
    // A secret whose answer was lost is not stored but replaced.
    cases.extend(of(Life::Registered, &[End::Answered, End::RequestLost], &["w4-keep"]));
    cases.extend(of(Life::Registered, &[End::AnswerLost], &RECOVERY));
    // Not with a lost answer too: that would be a third secret.
    cases.extend(of(Life::Twins, &[End::Answered, End::RequestLost], &twins));
    cases.extend(rotations);
    cases.extend(of(Life::Revoked, &[End::Answered], &RECOVERY));
    cases.extend(of(Life::Changed, &ENDS, &["u0-update", "u1-in-line"]));
    cases.extend(of(Life::Moved, &[End::Answered], &["l0-leave", "l1-left"]));
    cases.extend(of(Life::External, &[End::Answered], &["w1-claim", "e0-copy"]));
    cases.extend(of(Life::Deleted, &ENDS, &["x0-deregister", "x1-forget", "x2-release"]));
    cases
}

/// Wherever two controllers can be at the same.
fn stops() -> Vec<Case> {
    let rotation = ["k0-turn", "k1-rotate", "k2-store", "k3-turned"];
    let lives: [(Life, &[&'static str]); 6] = [
        (Life::Registered, &["w2-intent", "w3-create", "w4-keep", "w5-record"]),
        (Life::Twins, &RECOVERY),
        (Life::Rotated(Revocation::After24h), &rotation),
        (Life::Rotated(Revocation::Immediately), &rotation),
        (Life::Changed, &["u0-update", "u1-in-line"]),
        (Life::Deleted, &["x0-deregister", "x1-forget", "x2-release"]),
    ];
    let all = lives.into_iter().flat_map(|(life, places)| of(life, &[End::Answered], places));
    all.map(|case| Case { action: Action::Stop, ..case }).collect()
}

/// Each side of each place once, and of a rotation with both kinds; and a controller that goes on where its request takes
/// the secret away that another one has just stored.
fn selection() -> Vec<Case> {
    let mut chosen = BTreeMap::new();
    for case in full().into_iter().filter(|case| case.end == End::Answered) {
        let kind = if case.place.starts_with('k') { Some(format!("{:?}", case.life)) } else { None };
        chosen.entry((case.place, case.side, kind)).or_insert(case);
    }
    let overtaken =
        stops().into_iter().filter(|c| matches!(c.place, "w3-create" | "h1-recover" | "k1-rotate"));
    chosen.into_values().chain(overtaken).collect()
}

fn cases() -> Vec<Case> {
    match std::env::var("MATRIX").unwrap_or_default().as_str() {
        "" => selection(),
        "full" => [full(), stops()].concat(),
        other => panic!("MATRIX={other}: it is `full`, or not given"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_and_its_secret_whatever_dies_wherever() {
    let rotations = side_by_side("hooks", cases(), run).await;
    let most = rotations.iter().max().copied().unwrap_or_default();
    println!("hooks: {} cases, at most {most} rotations beyond the one that was asked for", rotations.len());
}

/// A case ends well only if its process has met its point: so a place that no case names was never met.
#[test]
fn every_crash_point_of_a_webhook_is_met_from_both_sides() {
    for cases in [selection(), full()] {
        for place in points::NAMES {
            for side in SIDES {
                assert!(cases.iter().any(|c| (c.place, c.side) == (*place, side)), "{place}.{side}");
            }
        }
        let known = |case: &Case| points::NAMES.contains(&case.place);
        assert!(cases.iter().all(known), "a place that does not exist");
    }
    for kind in REVOCATIONS {
        let of_kind = |case: &&Case| case.life == Life::Rotated(kind) && case.place.starts_with('k');
        assert_eq!(selection().iter().filter(of_kind).count(), 8 + 2, "{kind:?}");
    }
    assert!(selection().iter().any(|case| case.life == Life::Deleted));
}
