//! Every window of the operator in one value.

use std::time::Duration;

/// Windows of the protocol and of the quiet life around it. Production uses [`Timing::production`]; tests and the
/// demo divide all of them by one number, so that no proportion changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From reading the object to sending the request: older knowledge must not be paid on.
    pub submit_gate: Duration,
    /// How long an unknown outcome is looked for in listings before its attempt is fenced. It does not make anything
    /// safe: it spares a job that is there and only not listed yet the loss of its input file.
    pub first_look: Duration,
    /// How long a created job may stay invisible to a complete listing (assumption A1): the wait after a fence, and how
    /// long an unknown outcome is looked for before a person is asked.
    pub listing_lag: Duration,
    /// Complete listings that must have been made within that time.
    pub listings_required: u32,
    /// Distance of those listings.
    pub listing_spacing: Duration,
    /// Sweep of a key whose webhook is healthy.
    pub sweep_tracked: Duration,
    /// Sweep of a key without a healthy webhook.
    pub sweep_bare: Duration,
    /// Sweep of a key whose webhook was seen to lose deliveries.
    pub sweep_rescuing: Duration,
    /// A job whose end no delivery has told after this long is one that the sweep had to find.
    pub rescue_after: Duration,
    /// A webhook is not healthy for so long after the last such job.
    pub rescue_memory: Duration,
    /// An event costs at most one GET per job in this time.
    pub look_spacing: Duration,
    /// An event claims an end that the GET does not show: when to look again.
    pub look_again: [Duration; 4],
    /// A job of an attempt that was closed, or of a deletion that gave up, is still looked for for this long.
    pub duplicates_watch: Duration,
    /// How much longer than its timeout a deletion waits until what it may leave is written down.
    pub orphan_patience: Duration,
    /// What a watch may have missed in the cluster is seen after this long.
    pub relist: Duration,
    /// A missing or refused API key is read again this often.
    pub secret_reread: Duration,
    /// A refused API key that did not change is tried again this often.
    pub credentials_retry: Duration,
    /// An uploaded file that expires sooner than this is uploaded again.
    pub file_margin: Duration,
    /// First pause after a definite no; doubles up to [`Self::attempt_pause_max`].
    pub attempt_pause: Duration,
    pub attempt_pause_max: Duration,
    /// Distance of two submissions of one key after a refusal for its quota; doubles up to
    /// [`Self::gate_interval_max`].
    pub gate_interval: Duration,
    pub gate_interval_max: Duration,
    /// First pause after any other failure; doubles up to [`Self::retry_max`].
    pub retry: Duration,
    pub retry_max: Duration,
    /// Longest pause after a failure of the API server: what it held up goes on within a minute of its return.
    pub kube_retry_max: Duration,
    /// A job that was asked to cancel is looked at this often.
    pub cancel_look: Duration,
    /// A ping that has not arrived by then has failed.
    pub ping_timeout: Duration,
    /// First pause before the next ping; doubles up to [`Self::ping_pause_max`].
    pub ping_pause: Duration,
    pub ping_pause_max: Duration,
    /// A deletion gives up after `spec.deletionTimeout` divided by this.
    pub divisor: u32,
}

impl Timing {
    pub const fn production() -> Self {
        const fn secs(n: u64) -> Duration {
            Duration::from_secs(n)
        }
        const fn mins(n: u64) -> Duration {
            Duration::from_mins(n)
        }
        Self {
            submit_gate: secs(20),
            first_look: mins(10),
            listing_lag: mins(15),
            listings_required: 3,
            listing_spacing: mins(5),
            sweep_tracked: mins(10),
            sweep_bare: mins(1),
            sweep_rescuing: secs(30),
            rescue_after: mins(2),
            rescue_memory: mins(30),
            look_spacing: secs(30),
            look_again: [secs(30), mins(1), mins(2), mins(5)],
            duplicates_watch: Duration::from_hours(72),
            orphan_patience: secs(30),
            relist: mins(10),
            secret_reread: mins(1),
            credentials_retry: mins(10),
            file_margin: mins(60),
            attempt_pause: mins(1),
            attempt_pause_max: mins(60),
            gate_interval: secs(5),
            gate_interval_max: mins(10),
            retry: secs(5),
            retry_max: mins(10),
            kube_retry_max: secs(30),
            cancel_look: secs(10),
            ping_timeout: mins(1),
            ping_pause: mins(1),
            ping_pause_max: mins(60),
            divisor: 1,
        }
    }

    /// All windows divided by `divisor` (at least 1). The gate stays: it guards against a slow process, and a test
    /// machine is no faster than a production one.
    pub fn divided(divisor: u32) -> Self {
        let divisor = divisor.max(1);
        let p = Self::production();
        let d = |window: Duration| window / divisor;
        Self {
            submit_gate: p.submit_gate,
            first_look: d(p.first_look),
            listing_lag: d(p.listing_lag),
            listings_required: p.listings_required,
            listing_spacing: d(p.listing_spacing),
            sweep_tracked: d(p.sweep_tracked),
            sweep_bare: d(p.sweep_bare),
            sweep_rescuing: d(p.sweep_rescuing),
            rescue_after: d(p.rescue_after),
            rescue_memory: d(p.rescue_memory),
            look_spacing: d(p.look_spacing),
            look_again: p.look_again.map(d),
            duplicates_watch: d(p.duplicates_watch),
            orphan_patience: d(p.orphan_patience),
            relist: d(p.relist),
            secret_reread: d(p.secret_reread),
            credentials_retry: d(p.credentials_retry),
            file_margin: d(p.file_margin),
            attempt_pause: d(p.attempt_pause),
            attempt_pause_max: d(p.attempt_pause_max),
            gate_interval: d(p.gate_interval),
            gate_interval_max: d(p.gate_interval_max),
            retry: d(p.retry),
            retry_max: d(p.retry_max),
            kube_retry_max: d(p.kube_retry_max),
            cancel_look: d(p.cancel_look),
            ping_timeout: d(p.ping_timeout),
            ping_pause: d(p.ping_pause),
            ping_pause_max: d(p.ping_pause_max),
            divisor,
        }
    }

    /// Between two self-tests of a webhook; never so short that one would begin before the one before has failed. Its times
    /// are kept in whole seconds, hence the two.
    pub fn self_test(&self, asked: Duration) -> Duration {
        (asked / self.divisor).max(self.ping_timeout.saturating_add(Duration::from_secs(2)))
    }

    /// Pause before try number `failures + 1`: doubling, capped.
    pub fn pause(first: Duration, max: Duration, failures: u32) -> Duration {
        first.saturating_mul(2u32.saturating_pow(failures.min(20))).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dividing_keeps_proportions() {
        let (one, many) = (Timing::production(), Timing::divided(300));
        assert_eq!(one, Timing::divided(1));
        assert_eq!(one, Timing::divided(0));
        assert_eq!(many.listing_lag, Duration::from_secs(3));
        assert_eq!(many.listing_lag / many.listings_required, many.listing_spacing);
        assert_eq!(many.submit_gate, one.submit_gate);
    }

    #[test]
    fn pauses_double_and_stop_growing() {
        let (first, max) = (Duration::from_secs(5), Duration::from_mins(10));
        let pauses = [0, 1, 2, 7, 500].map(|n| Timing::pause(first, max, n).as_secs());
        assert_eq!(pauses, [5, 10, 20, 600, 600]);
    }
}
