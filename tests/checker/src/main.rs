//! `gemini-operator-checker --ledger FILE --audit FILE --objects FILE`: judges a run that was kept.

use std::process::ExitCode;
use std::time::Duration;

use gemini_operator_checker::{Bounds, Evidence, check};
use serde_json::Value;

const USAGE: &str = "\
usage: gemini-operator-checker --ledger FILE [--audit FILE] [--objects FILE] [--orphans FILE] [--namespace NAME]...
                               [--divisor N] [--looks N] [--late-jobs N] [--quiet-since TIME] [--restored-at TIME]...
                               [--deletion-grace SECONDS] [--unfinished BATCH]... [--forgotten BATCH]...
                               [--sink-changed BATCH]... [--receiver-lost TIME]...
                               [--receiver-stopped TIME..TIME]...

  --ledger FILE       what GET /_emulator/ledger answers
  --audit FILE        the API server's audit log, one event a line
  --objects FILE      GeminiBatches and ConfigMaps: kubectl get geminibatches,configmaps --output json
  --orphans FILE      ConfigMap gemini-operator-orphans
  --namespace NAME    only what is about this namespace
  --divisor N         all windows of the operator were divided by N
  --looks N           looks at one job that one window may have
  --late-jobs N       the run broke A1 or A4 on purpose: so many jobs may be one too many, if they were ended since
  --quiet-since TIME  from then on nothing was to happen
  --restored-at TIME  an older state of the API server was put back then
  --deletion-grace S  how much longer than its timeout a deletion may take (60)
  --unfinished BATCH  the run left it on its way
  --forgotten BATCH   it was deleted, and what it left could not be written down
  --sink-changed BATCH
                      somebody else changed its sink
  --receiver-lost TIME
                      a receiver was killed then
  --receiver-stopped TIME..TIME
                      a receiver was stopped, and went on

Ends with 1 where something is wrong, and with 2 where it cannot judge.";

fn main() -> ExitCode {
    match judge(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn judge(mut arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let (mut evidence, mut bounds, mut namespaces) = (Evidence::default(), Bounds::default(), vec![]);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--ledger" => evidence.ledger = json(&read(&value)?)?,
            "--audit" => evidence.audit = Some(read(&value)?.lines().map(json).collect::<Result<_, _>>()?),
            "--objects" => evidence.objects = items(&json(&read(&value)?)?),
            "--orphans" => evidence.orphans = Some(json(&read(&value)?)?),
            "--namespace" => namespaces.push(value),
            "--divisor" => bounds.divisor = number(&value)?,
            "--looks" => bounds.looks_per_window = number(&value)?,
            "--late-jobs" => bounds.late_jobs = number(&value)?,
            "--deletion-grace" => bounds.deletion_grace = Duration::from_secs(number(&value)?),
            "--quiet-since" => bounds.quiet_since = Some(moment(&value)?),
            "--restored-at" => bounds.restored_at.push(moment(&value)?),
            "--unfinished" => bounds.unfinished.push(value),
            "--forgotten" => bounds.forgotten.push(value),
            "--receiver-lost" => bounds.receivers_lost.push(moment(&value)?),
            "--receiver-stopped" => bounds.receivers_stopped.push(span(&value)?),
            "--sink-changed" => bounds.sinks_changed.push(value),
            other => return Err(format!("{other} is not known")),
        }
    }
    if evidence.ledger.is_null() {
        return Err("--ledger is needed".into());
    }
    if !namespaces.is_empty() {
        evidence = evidence.of_namespaces(&namespaces);
    }
    let report = check(&evidence, &bounds);
    print!("{report}");
    Ok(report.violations.is_empty())
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn span(text: &str) -> Result<(jiff::Timestamp, jiff::Timestamp), String> {
    let (from, to) = text.split_once("..").ok_or_else(|| format!("{text} is not TIME..TIME"))?;
    Ok((moment(from)?, moment(to)?))
}

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().or(list.as_array()).cloned().unwrap_or_default()
}
