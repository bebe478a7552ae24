//! Counters of the receiver. No label holds the name of an object, a path, or anything else that a sender chooses.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::signature::Rejection;

/// What became of an authentic delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Stored in a batch.
    Accepted,
    /// Said nothing new: the same was stored less than a minute ago.
    Redundant,
    /// The same delivery was stored before.
    Duplicate,
    /// For a batch that this webhook does not serve, or that is gone.
    Foreign,
    /// For a job that no batch has recorded; kept for a minute.
    Early,
    /// Of a type that is not ours.
    UnknownType,
    /// A self-test.
    Ping,
    /// Authentic, but nothing can be read from it.
    Unusable,
    /// Could not be stored: the sender was asked to come again.
    Unavailable,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Redundant => "redundant",
            Self::Duplicate => "duplicate",
            Self::Foreign => "foreign",
            Self::Early => "early",
            Self::UnknownType => "unknown_type",
            Self::Ping => "ping",
            Self::Unusable => "unusable",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of an event that came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EarlyOutcome {
    /// Its batch appeared, and it was stored there.
    Applied,
    /// No batch appeared within the minute: not ours.
    Foreign,
    /// Had to go for want of room, or could not be stored in time.
    Dropped,
}

impl EarlyOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Foreign => "foreign",
            Self::Dropped => "dropped",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PatchLabel {
    kind: &'static str,
    outcome: &'static str,
}

/// All metrics of the receiver. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    deliveries: Family<OutcomeLabel, Counter>,
    early: Family<OutcomeLabel, Counter>,
    rejections: Family<ReasonLabel, Counter>,
    jwks_fetches: Family<OutcomeLabel, Counter>,
    patches: Family<PatchLabel, Histogram, fn() -> Histogram>,
    /// Open connections.
    pub connections: Gauge,
    /// Connections closed because there were too many.
    pub connections_refused: Counter,
}

fn seconds() -> Histogram {
    // 1 ms to 8 s: a patch takes a few milliseconds, its sender is told to come again after 2 s, and it is given up
    // after 10 s.
    Histogram::new([0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0])
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            deliveries: Family::default(),
            early: Family::default(),
            rejections: Family::default(),
            jwks_fetches: Family::default(),
            patches: Family::new_with_constructor(seconds),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("gemini_operator_receiver");
        registry.register(
            "deliveries",
            "Authentic deliveries by what became of them",
            metrics.deliveries.clone(),
        );
        registry.register(
            "early_events",
            "Events that came before their batch had recorded the job, by what became of them",
            metrics.early.clone(),
        );
        registry.register("rejections", "Refused requests by reason", metrics.rejections.clone());
        registry.register(
            "jwks_fetches",
            "Calls for the provider's public keys by what came of them",
            metrics.jwks_fetches.clone(),
        );
        registry.register(
            "patch_duration_seconds",
            "Duration of status patches by kind and outcome",
            metrics.patches.clone(),
        );
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register(
            "connections_refused",
            "Connections closed because there were too many",
            metrics.connections_refused.clone(),
        );
        metrics
    }

    pub fn delivery(&self, outcome: Outcome) {
        self.deliveries.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }

    pub fn early(&self, outcome: EarlyOutcome, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.early.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc_by(count);
    }

    pub fn rejection(&self, reason: Rejection) {
        self.rejections.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// `fetched`, or why not.
    pub fn jwks_fetch(&self, outcome: &'static str) {
        self.jwks_fetches.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub fn patch(&self, kind: &'static str, outcome: &'static str, seconds: f64) {
        self.patches.get_or_create(&PatchLabel { kind, outcome }).observe(seconds);
    }

    #[cfg(test)]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.deliveries.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).get()
    }

    #[cfg(test)]
    pub fn jwks_fetched(&self, outcome: &'static str) -> u64 {
        self.jwks_fetches.get_or_create(&OutcomeLabel { outcome }).get()
    }

    #[cfg(test)]
    pub fn rejected(&self, reason: Rejection) -> u64 {
        self.rejections.get_or_create(&ReasonLabel { reason: reason.as_str() }).get()
    }
}
