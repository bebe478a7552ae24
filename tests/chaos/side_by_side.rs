//! Many cases, several at a time: they mostly wait. One that fails does not end the others.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

const AT_A_TIME: usize = 12;
/// Shared by all tests of this binary.
static SEATS: Semaphore = Semaphore::const_new(AT_A_TIME);

/// Runs all of them in the task of the caller, as children end with the thread that made them. What they return; panics if
/// one failed, having named each.
pub async fn side_by_side<C: Display, T>(what: &str, cases: Vec<C>, run: impl AsyncFn(&C) -> T) -> Vec<T> {
    // One case by (a part of) its name.
    let only = std::env::var("CASE").unwrap_or_default();
    let cases: Vec<C> = cases.into_iter().filter(|case| case.to_string().contains(&only)).collect();
    let (begun, total) = (Instant::now(), cases.len());
    println!("{what}: {total} cases, {AT_A_TIME} at a time");
    let run = &run;
    let mut running = futures::stream::iter(cases)
        .map(async |case| {
            let _seat = SEATS.acquire().await;
            (AssertUnwindSafe(run(&case)).catch_unwind().await, case.to_string())
        })
        .buffer_unordered(AT_A_TIME);
    let (mut good, mut failed) = (vec![], vec![]);
    while let Some((ended, case)) = running.next().await {
        match ended {
            Ok(value) => good.push(value),
            Err(panic) => failed.push(format!("FAILED {case}: {}", words(&*panic))),
        }
        let done = good.len() + failed.len();
        if done % 20 == 0 || done == total {
            println!("{what}: {done}/{total} after {:.0?}, {} failed", begun.elapsed(), failed.len());
        }
    }
    assert!(failed.is_empty(), "{what}: {} of {total} cases\n{}", failed.len(), failed.join("\n"));
    good
}

/// The first line of what a panic says: everything was printed when it happened.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
    text.lines().next().unwrap_or_default().to_owned()
}
