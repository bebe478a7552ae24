//! Bounds around one object's work: a panic in it, or a peer that never ends, must not become everybody's problem.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;

use super::error::Error;

/// Turns a panic into an error of this one object. The runtime polls all reconciles in one task, so that a panic of
/// one would end the process, and again after each restart.
pub async fn guarded<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    // What the work holds is dropped; what it shares is replaced as a whole or guarded by locks that survive a panic.
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or(Err(Error::Panicked))
}

/// How bounded work ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Bounded<T> {
    Done(T),
    /// There is something that must not wait for it; it was dropped where it stood.
    Interrupted,
}

/// Does `work` until `interrupted` ends first, or `limit` has passed. The work may be dropped at any await.
pub async fn bounded<T>(
    what: &'static str,
    limit: Duration,
    interrupted: impl Future<Output = ()>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<Bounded<T>, Error> {
    tokio::select! {
        biased;
        done = work => done.map(Bounded::Done),
        () = interrupted => Ok(Bounded::Interrupted),
        () = tokio::time::sleep(limit) => Err(Error::TooSlow(what, limit)),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn a_panic_is_an_error_of_this_one_work() {
        let broken = async {
            tokio::task::yield_now().await;
            panic!("what the object made of us")
        };
        let seen: Result<(), Error> = guarded(broken).await;
        assert!(matches!(&seen, Err(Error::Panicked)));
        assert!(!seen.unwrap_err().to_string().contains("what the object"), "its words are not repeated");
        assert_eq!(guarded(async { Ok(7) }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_without_end_is_ended() {
        let never = || pending::<Result<(), Error>>();
        let late = bounded("it", Duration::from_millis(5), pending(), never()).await;
        assert!(matches!(late, Err(Error::TooSlow("it", _))));
        let interrupted = bounded("it", LONG, ready(()), never()).await;
        assert_eq!(interrupted.unwrap(), Bounded::Interrupted);
        // What is finished counts, whatever else happens in the same moment.
        let done = bounded("it", LONG, ready(()), async { Ok(7) }).await;
        assert_eq!(done.unwrap(), Bounded::Done(7));
    }
}
