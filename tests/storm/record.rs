//! The running total: a line for each full storm, and the table that a page shows of their sum.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

pub const HEADER: &str = "date\tcommit\tseed\tbatches\tsubmissions\tambiguous\tkills\tduplicates\tlost\tp50_ms\tp99_ms\tsubmits_per_s";
pub const BEGIN: &str = "<!-- written by `make storm`: begin -->\n";
pub const END: &str = "<!-- written by `make storm`: end -->";

/// One storm.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub date: String,
    pub commit: String,
    pub seed: u64,
    pub batches: usize,
    pub submissions: usize,
    pub ambiguous: usize,
    pub kills: usize,
    pub duplicates: usize,
    pub lost: usize,
    /// Time to recover, in milliseconds.
    pub p50: u128,
    pub p99: u128,
    pub load: f64,
}

impl Line {
    fn read(line: &str) -> Result<Self, String> {
        fn next<T: std::str::FromStr>(
            fields: &mut std::str::Split<'_, char>,
            line: &str,
        ) -> Result<T, String> {
            let field = fields.next().ok_or_else(|| format!("too few fields: {line}"))?;
            field.parse().map_err(|_| format!("{field:?} in {line}"))
        }
        let f = &mut line.split('\t');
        let read = Self {
            date: next(f, line)?,
            commit: next(f, line)?,
            seed: next(f, line)?,
            batches: next(f, line)?,
            submissions: next(f, line)?,
            ambiguous: next(f, line)?,
            kills: next(f, line)?,
            duplicates: next(f, line)?,
            lost: next(f, line)?,
            p50: next(f, line)?,
            p99: next(f, line)?,
            load: next(f, line)?,
        };
        if f.next().is_some() { Err(format!("too many fields: {line}")) } else { Ok(read) }
    }

    fn write(&self) -> String {
        let Self { date, commit, seed, batches, submissions, ambiguous, .. } = self;
        let Self { kills, duplicates, lost, p50, p99, load, .. } = self;
        format!(
            "{date}\t{commit}\t{seed}\t{batches}\t{submissions}\t{ambiguous}\t{kills}\t{duplicates}\t{lost}\t{p50}\t{p99}\t\
             {load:.1}\n"
        )
    }
}

/// The storms that a file tells of.
pub fn lines(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = text.lines();
    match lines.next() {
        None => return Ok(vec![]),
        Some(HEADER) => {}
        Some(other) => return Err(format!("the first line is {other:?}")),
    }
    lines.map(Line::read).collect()
}

/// What the page shows of them.
pub fn table(lines: &[Line]) -> String {
    let sum = |field: fn(&Line) -> usize| lines.iter().map(field).sum::<usize>();
    let mut table = String::from(
        "| storms | batches | submissions | of them in doubt | kills | duplicates | lost |\n|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let sums = [
        sum(|line| line.batches),
        sum(|line| line.submissions),
        sum(|line| line.ambiguous),
        sum(|line| line.kills),
        sum(|line| line.duplicates),
        sum(|line| line.lost),
    ];
    let cells: Vec<String> = sums.iter().map(|sum| grouped(*sum)).collect();
    let _ = writeln!(table, "| {} | {} |", lines.len(), cells.join(" | "));
    if let Some(last) = lines.last() {
        let seconds = |millis: u128| format!("{}.{} s", millis / 1000, millis % 1000 / 100);
        let slowest = lines.iter().map(|line| line.p99).max().unwrap_or_default();
        let _ = writeln!(
            table,
            "\nThe last one: {}, commit {}, seed {}; {:.1} submissions a second before the first kill; a doubt was over after {} \
             in the middle, after {} for 99 of 100 (the slowest storm: {}).",
            last.date,
            last.commit,
            last.seed,
            last.load,
            seconds(last.p50),
            seconds(last.p99),
            seconds(slowest),
        );
    }
    table
}

/// `12 345`
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// The page with this table between its markers.
pub fn page(text: &str, table: &str) -> Result<String, String> {
    let (before, rest) = text.split_once(BEGIN).ok_or("the page has no marker of a beginning")?;
    let (_, after) = rest.split_once(END).ok_or("the page has no marker of an end")?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// Adds a storm to the file, and its sum to the page.
pub fn add(file: &Path, page_file: &Path, line: &Line) -> Result<(), String> {
    let read = |path: &Path| match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|error| format!("{}: {error}", path.display())),
    };
    let mut text = read(file)?;
    if text.is_empty() {
        text = format!("{HEADER}\n");
    }
    text += &line.write();
    let table = table(&lines(&text)?);
    let shown =
        page(&read(page_file)?, &table).map_err(|error| format!("{}: {error}", page_file.display()))?;
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write(file, &text)?;
    write(page_file, &shown)
}
