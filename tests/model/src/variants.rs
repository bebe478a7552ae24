//! What is explored, and what must come out.

use crate::control::Control;
use crate::protocol::Protocol;
use crate::submit::Ambiguity;
use crate::world::Budget;

/// What must come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Holds,
    Fails,
}

pub struct Variant {
    pub name: &'static str,
    pub protocol: Protocol,
    pub expected: Expected,
    /// Takes minutes: only on demand.
    pub full: bool,
    /// Visits (of a state that was seen before, too) after which memory would not suffice.
    pub most: Option<usize>,
}

/// About 75 million states; with half an hour, what ends the largest exploration.
const MOST: usize = 500_000_000;
/// Two crashes, two messages lost or late, two jobs without input, three uploads, three attempts.
const BASIC: Budget = Budget {
    crashes: 2,
    losses: 2,
    input_losses: 2,
    refusals: 0,
    key_changes: 0,
    revocations: 0,
    wipes: 0,
    rollbacks: 0,
    cancellations: 0,
    uploads: 3,
    attempts: 3,
};
const KEYS: Budget = Budget { key_changes: 2, ..BASIC };
const WIPES: Budget = Budget { wipes: 1, ..BASIC };
const ROLLBACKS: Budget = Budget { rollbacks: 1, ..BASIC };
const REFUSALS: Budget = Budget { refusals: 1, ..BASIC };
/// Everything at once.
const ALL: Budget =
    Budget { refusals: 1, key_changes: 1, revocations: 1, wipes: 1, cancellations: 1, ..BASIC };

pub fn all() -> Vec<Variant> {
    let mut variants = vec![
        holds("the protocol", 2, BASIC),
        holds("the protocol", 3, BASIC),
        holds("… refusals (429)", 2, REFUSALS),
        holds("… the key is revoked", 2, Budget { revocations: 1, ..BASIC }),
        holds(
            "… the key is replaced, by one of the same project or of another",
            2,
            Budget { key_changes: 1, ..BASIC },
        ),
        holds("… the status is lost, as after a restore", 2, WIPES),
        holds("… a backup from before the first attempt is restored", 2, ROLLBACKS),
        holds("… the batch is cancelled", 2, Budget { cancellations: 1, ..BASIC }),
        Variant {
            protocol: Protocol { ambiguity: Ambiguity::Quarantine, ..Protocol::new(2, BASIC) },
            ..holds("`ambiguity: Quarantine`", 2, BASIC)
        },
    ];
    variants.extend([
        fails("no intent before the request", Control::NoIntent, 2, BASIC),
        fails("status written without comparing", Control::BlindPatch, 2, BASIC),
        fails("nothing listed, so again at once", Control::ListThenRepost, 2, BASIC),
        fails("wait, list, again: no fence", Control::WaitThenRepost, 2, BASIC),
        fails("the same", Control::WaitThenRepost, 1, BASIC),
        fails("a listing may lag for ever", Control::UnboundedLag, 1, BASIC),
        fails("uploads of one attempt share a file name", Control::SharedFileName, 2, BASIC),
        fails("any 403 proves a file gone", Control::AnyForbiddenProves, 2, KEYS),
        fails("listings count with whatever key", Control::ListingByAnotherKey, 2, KEYS),
        fails("the request is sent with another key than its intent's", Control::PostWithAnotherKey, 2, KEYS),
        fails("a lost status is taken for a new batch", Control::WipeWithoutWait, 2, WIPES),
        fails(
            "a restored backup's object is taken for a new one",
            Control::RollbackTakenForNew,
            2,
            ROLLBACKS,
        ),
        fails("a refusal closes the newest attempt, whosever it is", Control::NoClosesAnothers, 2, REFUSALS),
        fails("a recorded job that lost its input is left at that", Control::LostInputStays, 2, BASIC),
        fails("a fenced attempt is never closed", Control::NeverCloses, 2, BASIC),
    ]);
    variants.extend(
        [
            holds("… key replaced and status lost", 2, Budget { key_changes: 1, ..WIPES }),
            holds(
                "… key replaced and status lost, one crash, one loss",
                3,
                Budget { key_changes: 1, crashes: 1, losses: 1, ..WIPES },
            ),
            holds(
                "… everything at once, but that the fence takes a job's input",
                2,
                Budget { input_losses: 0, ..ALL },
            ),
            holds("… everything at once, one crash, one loss", 2, Budget { crashes: 1, losses: 1, ..ALL }),
            Variant { most: Some(MOST), ..holds("… everything at once", 3, ALL) },
        ]
        .map(|variant| Variant { full: true, ..variant }),
    );
    variants
}

fn holds(name: &'static str, controllers: usize, budget: Budget) -> Variant {
    Variant {
        name,
        protocol: Protocol::new(controllers, budget),
        expected: Expected::Holds,
        full: false,
        most: None,
    }
}

fn fails(name: &'static str, control: Control, controllers: usize, budget: Budget) -> Variant {
    let protocol = Protocol { control: Some(control), ..Protocol::new(controllers, budget) };
    Variant { name, protocol, expected: Expected::Fails, full: false, most: None }
}
