//! Negative controls: each breaks one rule, outside of the code under test, and must be found out.

/// One broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// POST without writing an intent first.
    NoIntent,
    /// Status written without comparing what was read.
    BlindPatch,
    /// Nothing listed: the next attempt at once.
    ListThenRepost,
    /// Nothing listed after the wait: the next attempt, without a fence.
    WaitThenRepost,
    /// Listings may lag for ever.
    UnboundedLag,
    /// Uploads of one attempt share a name.
    SharedFileName,
    /// A file that the key cannot see counts as gone.
    AnyForbiddenProves,
    /// Listings count with whatever key.
    ListingByAnotherKey,
    /// The request is sent with the Secret's key of the moment.
    PostWithAnotherKey,
    /// An object without status goes on as if nothing had been.
    WipeWithoutWait,
    /// An object that was put back to before its first attempt goes on as if it were new.
    RollbackTakenForNew,
    /// A refusal closes the newest attempt, whosever it is.
    NoClosesAnothers,
    /// That the recorded job has lost its input is not seen.
    LostInputStays,
    /// What was waited for never comes to its end: the check of ways out must see it.
    NeverCloses,
}
