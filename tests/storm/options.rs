//! What is asked for: by cargo's usual words for tests, or by `make storm`.

use std::path::PathBuf;

/// The storm that the page tells of.
pub const FULL: (usize, usize) = (500, 200);
/// The one of every test run.
pub const SMALL: (usize, usize) = (60, 25);
const SMALL_SEED: u64 = 5;
/// Windows of seconds: 2 s of looking, a fence, 3 s of waiting.
const SMALL_DIVISOR: u32 = 300;

const LATE: u8 = 5;

const USAGE: &str = "storm [--batches N] [--kills N] [--seed N] [--divisor N] [--late PERCENT] [--fence on|off] [--record FILE --page FILE]";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub batches: usize,
    pub kills: usize,
    pub seed: u64,
    /// All windows of the operator are divided by this.
    pub divisor: u32,
    /// So many of 100 requests for a job are executed late.
    pub late: u8,
    /// Off: the operator's fence claims success and deletes nothing.
    pub fence: bool,
    /// Where a line about a full storm goes, and the page that shows the sum of all.
    pub record: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Run(Options),
    /// Say which tests there are.
    List,
    /// Another test is meant.
    Nothing,
}

impl Options {
    pub fn is_full(&self) -> bool {
        (self.batches, self.kills) == FULL && self.late == LATE && self.fence
    }
}

/// Reads the arguments. What cargo's own test runner knows is understood, or means nothing here.
pub fn read(arguments: impl Iterator<Item = String>) -> Result<Wish, String> {
    let mut options = Options {
        batches: SMALL.0,
        kills: SMALL.1,
        seed: SMALL_SEED,
        divisor: SMALL_DIVISOR,
        late: LATE,
        fence: true,
        record: None,
    };
    let (mut filters, mut skips, mut exact, mut list, mut ignored) = (vec![], vec![], false, false, false);
    let (mut record, mut page) = (None, None);
    let mut rest = arguments;
    while let Some(argument) = rest.next() {
        let (name, mut given) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (argument, None),
        };
        let mut value =
            || given.take().or_else(|| rest.next()).ok_or(format!("{name} wants a value; {USAGE}"));
        match name.as_str() {
            "--batches" => options.batches = number(&name, &value()?)?,
            "--kills" => options.kills = number(&name, &value()?)?,
            "--divisor" => options.divisor = number(&name, &value()?)?,
            "--late" => options.late = number(&name, &value()?)?,
            "--seed" => options.seed = number(&name, &value()?)?,
            "--fence" => {
                options.fence = match value()?.as_str() {
                    "on" => true,
                    "off" => false,
                    other => return Err(format!("--fence is on or off, not {other}")),
                }
            }
            "--record" => record = Some(value()?.into()),
            "--page" => page = Some(value()?.into()),
            "--list" => list = true,
            "--exact" => exact = true,
            "--ignored" => ignored = true,
            "--skip" => skips.push(value()?),
            "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" | "--shuffle-seed" => {
                value()?;
            }
            "--nocapture" | "--no-capture" | "--show-output" | "--include-ignored" | "--test" | "--bench"
            | "--quiet" | "-q" | "--shuffle" | "--report-time" => {}
            other if other.starts_with('-') => return Err(format!("{other}? {USAGE}")),
            _ => filters.push(name),
        }
    }
    if options.batches < 10 {
        return Err("--batches is at least 10".into());
    }
    if options.late > 50 {
        return Err("--late is at most 50".into());
    }
    options.record = match (record, page) {
        (Some(record), Some(page)) => Some((record, page)),
        (None, None) => None,
        _ => return Err("--record and --page go together".into()),
    };
    let fits = |filter: &String| if exact { filter == "storm" } else { "storm".contains(filter.as_str()) };
    let is_meant = (filters.is_empty() || filters.iter().any(fits)) && !skips.iter().any(fits) && !ignored;
    Ok(match (list, is_meant) {
        (_, false) => Wish::Nothing,
        (true, true) => Wish::List,
        (false, true) => Wish::Run(options),
    })
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name} wants a number, not {text:?}"))
}
