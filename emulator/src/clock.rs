//! The emulator's clock: real time plus an offset that the admin API moves forward.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// Nanoseconds since the Unix epoch (good until the year 2262).
pub type Nanos = i64;

pub const MILLI: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000 * MILLI;
pub const HOUR: Nanos = 3_600 * SECOND;

#[derive(Debug)]
pub struct Clock {
    offset: AtomicI64,
    moved: watch::Sender<u64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { offset: AtomicI64::new(0), moved: watch::Sender::new(0) }
    }
}

impl Clock {
    /// The virtual time.
    pub fn now(&self) -> Nanos {
        real().saturating_add(self.offset.load(Ordering::SeqCst))
    }

    /// How far the virtual time is ahead of the real one.
    pub fn offset(&self) -> Nanos {
        self.offset.load(Ordering::SeqCst)
    }

    /// Moves the virtual time forward and wakes whoever waits for it.
    pub fn advance(&self, by: Nanos) {
        let _ = self
            .offset
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_add(by.max(0))));
        self.moved.send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    /// Waits until the virtual time has reached `at`.
    pub async fn until(&self, at: Nanos) {
        let mut moved = self.moved.subscribe();
        loop {
            let left = at.saturating_sub(self.now());
            if left <= 0 {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_nanos(left.unsigned_abs())) => {}
                _ = moved.changed() => {}
            }
        }
    }
}

/// The real time.
pub fn real() -> Nanos {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC, as the API prints it.
pub fn rfc3339(at: Nanos) -> String {
    timestamp(at).to_string()
}

/// The date form of `Retry-After`.
pub fn http_date(at: Nanos) -> String {
    timestamp(at).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn timestamp(at: Nanos) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(at)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// Seconds with an optional unit: `5s`, `250ms`, `2m`, `24h`, `0`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a duration like 5s, 250ms or 2m"))?;
    let millis = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration like 5s, 250ms or 2m"))
}

/// A duration on this clock.
pub fn nanos(duration: Duration) -> Nanos {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        assert!(parse_duration("5 s").is_err());
        assert!(parse_duration("").is_err());
        assert!(parse_duration("99999999999999999999s").is_err());
    }
}
