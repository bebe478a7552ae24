//! What the end of the one POST does to the status: the poster's half of the protocol.

use super::classify::{Refusal, Verdict};
use super::step::AttemptState;

/// The newest attempt as it stands in the status when the poster comes to record its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    pub nonce: &'a str,
    pub state: AttemptState,
}

/// What to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Nothing: it stands already, or it is not this poster's attempt any more.
    Drop,
    /// The job's name.
    Record,
    /// There is no job: the attempt is closed.
    Abandon {
        /// The next attempt needs another input file.
        forget_file: bool,
    },
    /// The outcome is unknown.
    Doubt,
}

/// What the poster of `nonce` records of `verdict`, given the newest attempt in the status.
///
/// A job's name is recorded whatever others have made of the attempt meanwhile, as long as it is the newest: the job is
/// there, and paid. A refusal closes only the poster's own attempt, never the one that came after it.
pub fn conclude(newest: Option<Standing<'_>>, nonce: &str, verdict: &Verdict) -> Conclusion {
    let Some(Standing { state, .. }) = newest.filter(|standing| standing.nonce == nonce) else {
        return Conclusion::Drop;
    };
    match (verdict, state) {
        (_, AttemptState::Recorded) => Conclusion::Drop,
        (Verdict::Yes(_), _) => Conclusion::Record,
        (_, AttemptState::Abandoned) => Conclusion::Drop,
        (Verdict::No(refusal), _) => Conclusion::Abandon {
            // 403 is how a missing file looks; a fenced one is missing, or will be in a moment.
            forget_file: matches!(refusal, Refusal::Forbidden(_)) || state == AttemptState::Fenced,
        },
        (Verdict::Ambiguous(_), AttemptState::Pending) => Conclusion::Doubt,
        (Verdict::Ambiguous(_), _) => Conclusion::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [AttemptState; 5] = [
        AttemptState::Pending,
        AttemptState::Fenced,
        AttemptState::Recorded,
        AttemptState::Abandoned,
        AttemptState::Quarantined,
    ];

    fn verdicts() -> [Verdict; 4] {
        [
            Verdict::Yes("batches/a".into()),
            Verdict::No(Refusal::Rejected("m".into())),
            Verdict::No(Refusal::Forbidden("m".into())),
            Verdict::Ambiguous("m".into()),
        ]
    }

    fn concluded(state: AttemptState, verdict: &Verdict) -> Conclusion {
        conclude(Some(Standing { nonce: "mine", state }), "mine", verdict)
    }

    #[test]
    fn another_attempt_is_never_touched() {
        for verdict in verdicts() {
            assert_eq!(conclude(None, "mine", &verdict), Conclusion::Drop);
            for state in STATES {
                let other = Some(Standing { nonce: "other", state });
                assert_eq!(conclude(other, "mine", &verdict), Conclusion::Drop, "{state:?} {verdict:?}");
            }
        }
    }

    #[test]
    fn a_job_is_recorded_unless_one_is_recorded_already() {
        let [yes, ..] = verdicts();
        for state in STATES {
            let expected =
                if state == AttemptState::Recorded { Conclusion::Drop } else { Conclusion::Record };
            assert_eq!(concluded(state, &yes), expected, "{state:?}");
        }
    }

    #[test]
    fn a_refusal_closes_an_open_attempt() {
        let [_, rejected, forbidden, _] = verdicts();
        let abandon = |forget_file| Conclusion::Abandon { forget_file };
        assert_eq!(concluded(AttemptState::Pending, &rejected), abandon(false));
        assert_eq!(concluded(AttemptState::Pending, &forbidden), abandon(true));
        assert_eq!(concluded(AttemptState::Quarantined, &rejected), abandon(false));
        assert_eq!(concluded(AttemptState::Fenced, &rejected), abandon(true));
        for state in [AttemptState::Recorded, AttemptState::Abandoned] {
            assert_eq!(concluded(state, &rejected), Conclusion::Drop, "{state:?}");
        }
    }

    #[test]
    fn a_doubt_is_told_once() {
        let [.., ambiguous] = verdicts();
        for state in STATES {
            let expected = if state == AttemptState::Pending { Conclusion::Doubt } else { Conclusion::Drop };
            assert_eq!(concluded(state, &ambiguous), expected, "{state:?}");
        }
    }
}
