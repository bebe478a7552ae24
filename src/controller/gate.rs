//! One gate for each API key, before the paid request: a refusal for quota (429) of one batch slows all batches of that
//! key down, and they come back one by one and not all in the same second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::submit::Timing;

/// How far apart submissions of one key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gate {
    /// Distance of two submissions; zero: as they come.
    interval: Duration,
    /// No submission before.
    next: Instant,
}

/// Gates by the key's fingerprint.
#[derive(Default)]
pub struct Gates(Mutex<HashMap<String, Gate>>);

impl Gate {
    /// A 429: closed for as long as the provider asks, then half as often as before.
    fn refused(self, asked: Option<Duration>, timing: &Timing, spread: f64, now: Instant) -> Self {
        let interval = self.interval.saturating_mul(2).clamp(timing.gate_interval, timing.gate_interval_max);
        let pause = asked.unwrap_or_default().max(interval).mul_f64(spread);
        Self { interval, next: self.next.max(now + pause) }
    }

    /// A job: twice as often from here on, and freely again when that is often enough.
    fn accepted(self, timing: &Timing) -> Self {
        let interval = self.interval / 2;
        Self { interval: if interval < timing.gate_interval { Duration::ZERO } else { interval }, ..self }
    }
}

impl Gates {
    /// How long the gate stays closed.
    pub fn left(&self, fingerprint: &str) -> Duration {
        let gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates
            .get(fingerprint)
            .map_or(Duration::ZERO, |gate| gate.next.saturating_duration_since(Instant::now()))
    }

    /// Takes the next place, or says how long the gate stays closed.
    pub fn enter(&self, fingerprint: &str) -> Result<(), Duration> {
        let now = Instant::now();
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(gate) = gates.get_mut(fingerprint) else { return Ok(()) };
        if gate.next > now {
            return Err(gate.next - now);
        }
        gate.next = now + gate.interval.mul_f64(spread());
        Ok(())
    }

    /// Gemini refused a submission for its quota.
    pub fn refused(&self, fingerprint: &str, asked: Option<Duration>, timing: &Timing) {
        let now = Instant::now();
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gate =
            gates.entry(fingerprint.to_owned()).or_insert(Gate { interval: Duration::ZERO, next: now });
        *gate = gate.refused(asked, timing, spread(), now);
    }

    /// Gemini took a submission.
    pub fn accepted(&self, fingerprint: &str, timing: &Timing) {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get_mut(fingerprint) {
            *gate = gate.accepted(timing);
        }
    }
}

/// Between 0.8 and 1.2, at random.
fn spread() -> f64 {
    0.8 + 0.4 * f64::from(getrandom::u32().unwrap_or_default().to_le_bytes()[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_close_it_and_jobs_open_it() {
        let (timing, now) = (Timing::production(), Instant::now());
        let open = Gate { interval: Duration::ZERO, next: now };
        let once = open.refused(None, &timing, 1.0, now);
        assert_eq!((once.interval, once.next), (timing.gate_interval, now + timing.gate_interval));
        let twice = once.refused(None, &timing, 1.0, now);
        assert_eq!(twice.interval, timing.gate_interval * 2);
        let asked = once.refused(Some(Duration::from_mins(20)), &timing, 1.2, now);
        assert_eq!(asked.next, now + Duration::from_mins(24));
        let often = (0..50).fold(open, |gate, _| gate.refused(None, &timing, 1.0, now));
        assert_eq!(often.interval, timing.gate_interval_max);
        assert_eq!(twice.accepted(&timing).interval, timing.gate_interval);
        assert_eq!(once.accepted(&timing).interval, Duration::ZERO);
    }

    #[test]
    fn a_sooner_answer_does_not_open_it_before_a_later_one() {
        let (timing, now) = (Timing::production(), Instant::now());
        let long = Gate { interval: Duration::ZERO, next: now }.refused(
            Some(Duration::from_hours(1)),
            &timing,
            1.0,
            now,
        );
        assert_eq!(long.refused(None, &timing, 1.0, now).next, long.next);
    }

    #[test]
    fn one_at_a_time() {
        let (gates, timing) = (Gates::default(), Timing::production());
        assert_eq!((gates.enter("a"), gates.enter("a")), (Ok(()), Ok(())));
        gates.refused("a", None, &timing);
        assert!(gates.enter("a").is_err());
        assert!(gates.left("a") > Duration::ZERO);
        assert_eq!((gates.enter("b"), gates.left("b")), (Ok(()), Duration::ZERO), "another key");
    }
}
