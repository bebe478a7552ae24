//! Metrics of the controller. Labels come from closed sets; no object names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Kind and outcome of a reconcile.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReconcileLabels {
    pub kind: &'static str,
    pub outcome: &'static str,
}

/// How a submission ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabels {
    pub outcome: &'static str,
}

#[derive(Clone, Default)]
pub struct Metrics {
    pub reconciles: Family<ReconcileLabels, Counter>,
    pub submissions: Family<OutcomeLabels, Counter>,
    pub duplicate_jobs: Counter,
    pub sweeps: Counter,
    pub sweep_rescues: Counter,
    pub malformed: Counter,
    pub orphans: Gauge,
    pub orphans_given_up: Counter,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("gemini_operator");
        r.register("reconciles", "Finished reconciles by kind and outcome", self.reconciles.clone());
        r.register("submissions", "POSTs of a batch job by outcome", self.submissions.clone());
        r.register(
            "duplicate_jobs",
            "Jobs that were one too many for their batch; they were cancelled and deleted",
            self.duplicate_jobs.clone(),
        );
        r.register("sweeps", "Listings of a key's jobs", self.sweeps.clone());
        r.register(
            "sweep_rescues",
            "Ends of jobs that a sweep found, and that no delivery had told two minutes after",
            self.sweep_rescues.clone(),
        );
        r.register(
            "malformed_objects",
            "Objects that were skipped because they cannot be read",
            self.malformed.clone(),
        );
        r.register(
            "orphans",
            "Deleted batches that may have left something at Gemini, which is still looked for",
            self.orphans.clone(),
        );
        r.register(
            "orphans_given_up",
            "Deleted batches that may have left something at Gemini, which is not looked for any more",
            self.orphans_given_up.clone(),
        );
    }
}
