//! The output of a job, fed in as it is downloaded, becomes one result per row: of the input, in the input's order; or,
//! where the input is not known any more, of the output itself, in the output's order.

use std::collections::{BTreeMap, HashMap};

use super::class::Class;
use super::input::short;
use super::output::{Tokens, Verdict, parse_line, recover_key};

/// Longest line that is kept. An answer with generated images comes near 20 MiB; four times that is not an answer.
pub const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;
/// How many unknown keys and bad lines are named; all are counted.
const MAX_SAMPLES: usize = 20;
/// How many causes go into the status.
const MAX_SUMMARIES: usize = 10;
/// Bytes of a message in the status.
const MAX_SUMMARY_BYTES: usize = 256;

/// What became of a row: the verdict of the line that counted, or `Missing`.
pub type RowResult = Verdict;

/// Tokens over all rows. Delivered rows are the OK ones; what was paid for others is `discarded`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: i64,
    pub output: i64,
    pub thoughts: i64,
    pub cached: i64,
    pub total: i64,
    pub discarded: i64,
}

/// Keys in the output that are not in the input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    pub count: i64,
    /// The first 20, shortened.
    pub sample: Vec<String>,
}

/// Failed rows of one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub class: Class,
    pub code: Option<String>,
    pub count: i64,
    pub sample_key: String,
    /// At most 256 bytes.
    pub message: String,
}

/// Where the keys, and with them the order of the results, come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The input that was submitted.
    Input,
    /// The output: the input has changed since, or is gone.
    Output,
}

impl Order {
    /// The spelling of the manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// Everything that the output of a job says.
#[derive(Clone, Debug, PartialEq)]
pub struct Harvest {
    pub order: Order,
    /// Keys of `rows`.
    pub keys: Vec<String>,
    /// One per key, in the same order.
    pub rows: Vec<RowResult>,
    /// Rows of the input that the output does not name, where only the output says which keys there were.
    pub missing_unnamed: i64,
    pub usage: Usage,
    /// Rows by class; classes without rows are absent. The counts sum up to the rows of the input.
    pub by_class: BTreeMap<&'static str, i64>,
    pub unknown_keys: Unknown,
    /// Lines beyond the first for a key of the input, whatever they said.
    pub duplicate_lines: i64,
    /// Number (from 1) and byte offset of lines that could not be read; the first 20.
    pub bad_lines: Vec<(u64, u64)>,
    pub bad_line_count: i64,
    /// Lines that are not blank.
    pub lines: i64,
    /// Bytes fed in.
    pub bytes: u64,
    /// The last line has no line feed and could not be read: as it looks when the rest is missing.
    pub ends_inside_line: bool,
    /// `modelVersion`s seen, with the number of answers of each.
    pub model_versions: BTreeMap<String, i64>,
}

impl Harvest {
    /// All rows, those included of which not even the key is known.
    pub fn total(&self) -> i64 {
        self.by_class.values().sum()
    }

    /// Rows with a complete answer.
    pub fn succeeded(&self) -> i64 {
        self.by_class.get(Class::Ok.as_str()).copied().unwrap_or(0)
    }

    /// Rows without one.
    pub fn failed(&self) -> i64 {
        self.total() - self.succeeded()
    }

    /// The failed rows by class and code, the most frequent first, at most ten.
    pub fn summaries(&self) -> Vec<Summary> {
        let mut causes: BTreeMap<(Class, Option<&str>), Summary> = BTreeMap::new();
        for (row, key) in self.rows.iter().zip(&self.keys).filter(|(row, _)| row.class != Class::Ok) {
            causes.entry((row.class, row.code.as_deref())).and_modify(|s| s.count += 1).or_insert_with(
                || Summary {
                    class: row.class,
                    code: row.code.clone(),
                    count: 1,
                    sample_key: key.clone(),
                    message: {
                        let message = row.message.as_deref().unwrap_or_default();
                        message[..message.floor_char_boundary(MAX_SUMMARY_BYTES)].to_owned()
                    },
                },
            );
        }
        let mut causes: Vec<_> = causes.into_values().collect();
        if self.missing_unnamed > 0 {
            causes.push(Summary {
                class: Class::Missing,
                code: None,
                count: self.missing_unnamed,
                sample_key: String::new(),
                message: "the job's output has fewer keys than the input had; which are missing is not known"
                    .into(),
            });
        }
        // The sort is stable, so equal counts stay in the order of the classes: the same harvest, the same status.
        causes.sort_by_key(|s| std::cmp::Reverse(s.count));
        causes.truncate(MAX_SUMMARIES);
        causes
    }
}

/// Takes the output in chunks of any size and keeps of each line only what its row needs.
///
/// A row has exactly one class. The first OK line of a key wins, whatever else is there. Without one, equal lines
/// count once, and lines that contradict each other make the row `Duplicate`.
#[derive(Debug)]
pub struct Collector {
    order: Order,
    /// Rows of the input, where the keys are not known beforehand.
    expected: i64,
    keys: Vec<String>,
    index: HashMap<String, usize>,
    results: Vec<Option<Verdict>>,
    /// The line that the last chunk left unfinished.
    partial: Vec<u8>,
    /// The unfinished line is over the limit: only its end is awaited.
    is_overlong: bool,
    max_line: usize,
    line_number: u64,
    line_offset: u64,
    offset: u64,
    discarded: i64,
    unknown_keys: Unknown,
    duplicate_lines: i64,
    bad_lines: Vec<(u64, u64)>,
    bad_line_count: i64,
    lines: i64,
    model_versions: BTreeMap<String, i64>,
}

impl Collector {
    /// A collector for rows with these keys, in the order of the input.
    pub fn new(keys: &[String]) -> Self {
        Self::with_max_line(keys, MAX_LINE_BYTES)
    }

    /// A collector that takes the keys as they appear in the output; the input had `expected` rows.
    pub fn open(expected: i64) -> Self {
        Self { order: Order::Output, expected, ..Self::new(&[]) }
    }

    pub(super) fn with_max_line(keys: &[String], max_line: usize) -> Self {
        Self {
            order: Order::Input,
            expected: 0,
            keys: keys.to_vec(),
            index: keys.iter().enumerate().map(|(i, key)| (key.clone(), i)).collect(),
            results: vec![None; keys.len()],
            partial: Vec::new(),
            is_overlong: false,
            max_line,
            line_number: 1,
            line_offset: 0,
            offset: 0,
            discarded: 0,
            unknown_keys: Unknown::default(),
            duplicate_lines: 0,
            bad_lines: Vec::new(),
            bad_line_count: 0,
            lines: 0,
            model_versions: BTreeMap::new(),
        }
    }

    /// Takes the next bytes of the output.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            if self.partial.is_empty() && !self.is_overlong && line.len() <= self.max_line {
                // The common case: the whole line is in this chunk and is read where it stands.
                self.line(line);
            } else {
                self.extend(line);
                self.end_of_partial();
            }
            self.offset += end as u64 + 1;
            self.line_number += 1;
            self.line_offset = self.offset;
            rest = after;
        }
        self.extend(rest);
        self.offset += rest.len() as u64;
    }

    /// Ends the output. A last line without line feed counts if it can be read.
    pub fn finish(mut self) -> Harvest {
        let bad_before = self.bad_line_count;
        self.end_of_partial();
        let ends_inside_line = self.bad_line_count > bad_before;
        let mut usage = Usage { discarded: self.discarded, ..Usage::default() };
        let mut by_class = BTreeMap::new();
        let rows: Vec<RowResult> = self
            .results
            .into_iter()
            .map(|result| {
                let row = result.unwrap_or_else(|| {
                    Verdict::failed(Class::Missing, None, "the job's output has no line for this key")
                });
                add(&mut usage, &row);
                *by_class.entry(row.class.as_str()).or_insert(0) += 1;
                row
            })
            .collect();
        let missing_unnamed = match self.order {
            Order::Input => 0,
            Order::Output => (self.expected - i64::try_from(rows.len()).unwrap_or(i64::MAX)).max(0),
        };
        if missing_unnamed > 0 {
            *by_class.entry(Class::Missing.as_str()).or_insert(0) += missing_unnamed;
        }
        Harvest {
            order: self.order,
            keys: self.keys,
            rows,
            missing_unnamed,
            usage,
            by_class,
            unknown_keys: self.unknown_keys,
            duplicate_lines: self.duplicate_lines,
            bad_lines: self.bad_lines,
            bad_line_count: self.bad_line_count,
            lines: self.lines,
            bytes: self.offset,
            ends_inside_line,
            model_versions: self.model_versions,
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = self.max_line.saturating_sub(self.partial.len());
        self.is_overlong |= bytes.len() > room;
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_of_partial(&mut self) {
        let partial = std::mem::take(&mut self.partial);
        if std::mem::take(&mut self.is_overlong) {
            self.lines += 1;
            self.bad_line(&partial);
        } else {
            self.line(&partial);
        }
    }

    fn line(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        self.lines += 1;
        match parse_line(line) {
            Ok((key, verdict)) => {
                if let Some(version) = &verdict.model_version {
                    *self.model_versions.entry(version.clone()).or_insert(0) += 1;
                }
                self.record(&key, verdict);
            }
            Err(_) => self.bad_line(line),
        }
    }

    fn bad_line(&mut self, line: &[u8]) {
        self.bad_line_count += 1;
        if self.bad_lines.len() < MAX_SAMPLES {
            self.bad_lines.push((self.line_number, self.line_offset));
        }
        let known = recover_key(line).filter(|key| self.takes(key));
        if let Some(key) = known {
            let message = format!("line {} of the output could not be read", self.line_number);
            self.record(&key, Verdict::failed(Class::BadJson, None, message));
        }
    }

    /// Whether a line of this key belongs to a row.
    fn takes(&self, key: &str) -> bool {
        self.order == Order::Output || self.index.contains_key(key)
    }

    fn record(&mut self, key: &str, verdict: Verdict) {
        if self.order == Order::Output && !self.index.contains_key(key) {
            self.index.insert(key.to_owned(), self.keys.len());
            self.keys.push(key.to_owned());
            self.results.push(Some(verdict));
            return;
        }
        let Some(slot) = self.index.get(key).and_then(|i| self.results.get_mut(*i)) else {
            self.unknown_keys.count += 1;
            if self.unknown_keys.sample.len() < MAX_SAMPLES {
                self.unknown_keys.sample.push(short(key));
            }
            self.discarded = self.discarded.saturating_add(verdict.tokens.total);
            return;
        };
        let Some(earlier) = slot else {
            *slot = Some(verdict);
            return;
        };
        self.duplicate_lines += 1;
        let lost = if earlier.class == Class::Ok {
            verdict.tokens
        } else if verdict.class == Class::Ok {
            std::mem::replace(earlier, verdict).tokens
        } else if earlier.class == Class::Duplicate || *earlier == verdict {
            verdict.tokens
        } else {
            let message = format!(
                "several lines for this key contradict each other: {} and {}",
                earlier.class, verdict.class
            );
            let both = earlier.tokens.total.saturating_add(verdict.tokens.total);
            *earlier = Verdict::failed(Class::Duplicate, None, message);
            Tokens { total: both, ..Tokens::default() }
        };
        self.discarded = self.discarded.saturating_add(lost.total);
    }
}

fn add(usage: &mut Usage, row: &RowResult) {
    let t = &row.tokens;
    if row.class == Class::Ok {
        usage.input = usage.input.saturating_add(t.input);
        usage.output = usage.output.saturating_add(t.output);
        usage.thoughts = usage.thoughts.saturating_add(t.thoughts);
        usage.cached = usage.cached.saturating_add(t.cached);
        usage.total = usage.total.saturating_add(t.total);
    } else {
        usage.discarded = usage.discarded.saturating_add(t.total);
    }
}
