//! Which rule of the plan applies: counters beside the rules, and chance that depends on the seed only.

use serde_json::{Value, json};

use crate::calls::Call;
use crate::digest::unit;
use crate::faults::{
    CallFault, CallMatch, DeliveryFault, DeliveryMatch, JobFault, JobMatch, OneOrMany, Options, Plan,
    RowMatch, Rule,
};
use crate::rows::Outcome;

/// A rule with its history.
#[derive(Clone, Debug)]
struct Active<M, D> {
    rule: Rule<M, D>,
    label: String,
    seen: u64,
    fired: u64,
}

/// When a rule fires, of what it has seen.
struct When<'a> {
    nth: &'a [u64],
    from: Option<u64>,
    every: Option<u64>,
    probability: Option<f64>,
}

impl<M, D> Active<M, D> {
    fn new(kind: &str, position: usize, rule: Rule<M, D>) -> Self {
        let label = rule.name.clone().unwrap_or_else(|| format!("{kind}[{position}]"));
        Self { rule, label, seen: 0, fired: 0 }
    }

    /// Counts one match and says whether the rule fires; `word` decides chance (the count, where it is empty).
    fn fires(&mut self, when: impl Fn(&M) -> When<'_>, seed: u64, word: &str) -> bool {
        self.seen += 1;
        let count = self.seen.to_string();
        let word = if word.is_empty() { &count } else { word };
        let when = when(&self.rule.when);
        let fires = (when.nth.is_empty() || when.nth.contains(&self.seen))
            && when.from.is_none_or(|from| self.seen >= from)
            && when.every.is_none_or(|every| every > 0 && self.seen.is_multiple_of(every))
            && when.probability.is_none_or(|share| unit(seed, &["rule", &self.label, word]) < share)
            && self.rule.times.is_none_or(|times| self.fired < times);
        if fires {
            self.fired += 1;
        }
        fires
    }
}

/// A fault that fired: its rule's name and a word for further chance.
#[derive(Clone, Debug)]
pub struct Fired<D> {
    pub label: String,
    pub action: D,
    pub seed: u64,
    pub word: String,
}

/// The plan in force.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    seed: u64,
    rules: Vec<Active<CallMatch, CallFault>>,
    deliveries: Vec<Active<DeliveryMatch, DeliveryFault>>,
    jobs: Vec<Active<JobMatch, JobFault>>,
    rows: Vec<Active<RowMatch, crate::faults::RowFault>>,
    pub options: Options,
}

/// What a rule may ask about a call.
pub struct CallFacts<'a> {
    pub call: Call,
    pub path: &'a str,
    pub query: &'a str,
    pub body: &'a [u8],
    pub key: Option<&'a str>,
    pub project: Option<&'a str>,
}

pub struct DeliveryFacts<'a> {
    pub event_type: &'a str,
    pub webhook: Option<&'a str>,
    pub batch: Option<&'a str>,
    pub url: &'a str,
    pub project: &'a str,
    pub attempt: u64,
}

pub struct RowFacts<'a> {
    pub key: Option<&'a str>,
    pub index: u64,
    pub prompt: &'a str,
    pub display_name: &'a str,
    pub project: &'a str,
    pub first: bool,
}

impl Faults {
    pub fn new(plan: Plan, seed: u64) -> Self {
        let mut faults =
            Self { seed: plan.seed.unwrap_or(seed), options: plan.options.clone(), ..Self::default() };
        faults.append(plan);
        faults
    }

    /// Adds the rules of another plan; its seed and options are not taken.
    pub fn append(&mut self, plan: Plan) {
        for rule in plan.rules {
            self.rules.push(Active::new("rules", self.rules.len(), rule));
        }
        for rule in plan.deliveries {
            self.deliveries.push(Active::new("deliveries", self.deliveries.len(), rule));
        }
        for rule in plan.jobs {
            self.jobs.push(Active::new("jobs", self.jobs.len(), rule));
        }
        for rule in plan.rows {
            self.rows.push(Active::new("rows", self.rows.len(), rule));
        }
    }

    /// The first rule that fires for a call.
    pub fn call(&mut self, facts: &CallFacts<'_>) -> Option<Fired<CallFault>> {
        let seed = self.seed;
        self.rules
            .iter_mut()
            .filter(|active| matches_call(&active.rule.when, facts))
            .find_map(|active| active.fires(call_when, seed, "").then(|| fired(active, seed)))
    }

    pub fn delivery(&mut self, facts: &DeliveryFacts<'_>) -> Option<Fired<DeliveryFault>> {
        let seed = self.seed;
        self.deliveries
            .iter_mut()
            .filter(|active| matches_delivery(&active.rule.when, facts))
            .find_map(|active| active.fires(delivery_when, seed, "").then(|| fired(active, seed)))
    }

    pub fn job(&mut self, display_name: &str, model: &str, project: &str) -> Option<Fired<JobFault>> {
        let seed = self.seed;
        self.jobs
            .iter_mut()
            .filter(|active| {
                let when = &active.rule.when;
                contains(when.display_name_contains.as_deref(), display_name)
                    && when
                        .model
                        .as_deref()
                        .is_none_or(|wanted| wanted.trim_start_matches("models/") == model)
                    && when.project.as_deref().is_none_or(|wanted| wanted == project)
            })
            .find_map(|active| active.fires(job_when, seed, "").then(|| fired(active, seed)))
    }

    /// What the plan wants of a row. Chance goes by the row's key, so that the same rows are hit in every run.
    pub fn row(&mut self, facts: &RowFacts<'_>) -> Option<Outcome> {
        if self.rows.is_empty() {
            return None;
        }
        let seed = self.seed;
        let word = facts.key.map_or_else(|| facts.index.to_string(), str::to_owned);
        self.rows
            .iter_mut()
            .filter(|active| matches_row(&active.rule.when, facts))
            .find_map(|active| active.fires(row_when, seed, &word).then(|| active.rule.action.outcome()))
    }

    pub fn wants_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    /// The plan and how often each rule matched and fired.
    pub fn show(&self) -> Value {
        json!({
            "seed": self.seed,
            "options": self.options,
            "rules": show(&self.rules),
            "deliveries": show(&self.deliveries),
            "jobs": show(&self.jobs),
            "rows": show(&self.rows),
        })
    }
}

fn show<M: serde::Serialize, D: serde::Serialize>(rules: &[Active<M, D>]) -> Value {
    rules
        .iter()
        .map(|active| {
            json!({
                "name": active.label,
                "match": active.rule.when,
                "do": active.rule.action,
                "times": active.rule.times,
                "seen": active.seen,
                "fired": active.fired,
            })
        })
        .collect()
}

fn fired<M, D: Clone>(active: &Active<M, D>, seed: u64) -> Fired<D> {
    Fired {
        label: active.label.clone(),
        action: active.rule.action.clone(),
        seed,
        word: format!("{}#{}", active.label, active.fired),
    }
}

fn contains(wanted: Option<&str>, text: &str) -> bool {
    wanted.is_none_or(|wanted| text.contains(wanted))
}

fn among(wanted: Option<&OneOrMany<String>>, value: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| value.is_some_and(|value| wanted.has(&value.to_owned())))
}

fn matches_call(when: &CallMatch, facts: &CallFacts<'_>) -> bool {
    const LOOKED_AT: usize = 1 << 20;
    when.call.as_ref().is_none_or(|wanted| wanted.has(&facts.call))
        && contains(when.path_contains.as_deref(), facts.path)
        && contains(when.query_contains.as_deref(), facts.query)
        && when.key.as_deref().is_none_or(|wanted| facts.key == Some(wanted))
        && when.project.as_deref().is_none_or(|wanted| facts.project == Some(wanted))
        && when.body_contains.as_deref().is_none_or(|wanted| {
            String::from_utf8_lossy(&facts.body[..facts.body.len().min(LOOKED_AT)]).contains(wanted)
        })
}

fn matches_delivery(when: &DeliveryMatch, facts: &DeliveryFacts<'_>) -> bool {
    among(when.event_type.as_ref(), Some(facts.event_type))
        && when.webhook.as_deref().is_none_or(|wanted| facts.webhook == Some(wanted))
        && when.batch.as_deref().is_none_or(|wanted| facts.batch == Some(wanted))
        && when.project.as_deref().is_none_or(|wanted| facts.project == wanted)
        && contains(when.url_contains.as_deref(), facts.url)
        && (when.attempt.is_empty() || when.attempt.contains(&facts.attempt))
}

fn matches_row(when: &RowMatch, facts: &RowFacts<'_>) -> bool {
    among(when.key.as_ref(), facts.key)
        && when.index.as_ref().is_none_or(|wanted| wanted.has(&facts.index))
        && contains(when.prompt_contains.as_deref(), facts.prompt)
        && contains(when.display_name_contains.as_deref(), facts.display_name)
        && when.project.as_deref().is_none_or(|wanted| facts.project == wanted)
        && (facts.first || !when.first_attempt_only)
}

fn call_when(when: &CallMatch) -> When<'_> {
    When { nth: &when.nth, from: when.from, every: when.every, probability: when.probability }
}

fn delivery_when(when: &DeliveryMatch) -> When<'_> {
    When { nth: &when.nth, from: when.from, every: when.every, probability: when.probability }
}

fn job_when(when: &JobMatch) -> When<'_> {
    When { nth: &when.nth, from: when.from, every: when.every, probability: when.probability }
}

fn row_when(when: &RowMatch) -> When<'_> {
    When { nth: &when.nth, from: when.from, every: when.every, probability: when.probability }
}
