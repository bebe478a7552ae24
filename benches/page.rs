//! The page that shows the figures.

use std::fs;
use std::path::Path;

use crate::{Line, Wanted};

const BEGIN: &str = "<!-- figures -->";
const END: &str = "<!-- end of figures -->";

/// The lines as a table.
pub fn table(lines: &[Line]) -> String {
    let row = |line: &Line| {
        let wanted = match line.wanted {
            Wanted::AtLeast(bar) => format!("≥ {bar}"),
            Wanted::AtMost(bar) => format!("≤ {bar}"),
        };
        let met = if line.is_met() { "met" } else { "**not met**" };
        let (bar, what, value, figures) = (line.bar, &line.what, line.value, &line.figures);
        format!("| {bar} | {what} | {value:.2} × | {wanted} × | {met} | {figures} |\n")
    };
    let head = "| bar | what | is | wanted | | figures |\n|---|---|---|---|---|---|\n";
    let met = lines.iter().filter(|line| line.is_met()).count();
    let sum = format!("\n{met} of {} are met.\n", lines.len());
    head.to_owned() + &lines.iter().map(row).collect::<String>() + &sum
}

/// Puts the table between the markers of the page.
pub fn write(page: &Path, table: &str) {
    let text = fs::read_to_string(page).expect("the page is there");
    let (before, rest) = text.split_once(BEGIN).expect("the page has a marker");
    let (_, after) = rest.split_once(END).expect("the page has a second marker");
    let day = jiff::Timestamp::now().strftime("%F");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let figures = format!("{before}{BEGIN}\n\n{day}, {cores} cores.\n\n{table}\n{END}{after}");
    fs::write(page, figures).expect("the page can be written");
}
