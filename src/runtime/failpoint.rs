//! Named points at which this process dies, stops or panics when a test says so, and switches that break what it does on
//! purpose. Only with the feature `failpoints`: no other program knows the two variables.
//!
//! `GEMINI_OPERATOR_FAIL="PLACE.SIDE=ACTION[@N];…"`: the N-th time (1) that something is reached, `before` it or `after`
//! it, `kill`, `stop`, `term` (signals to itself) or `panic`. `GEMINI_OPERATOR_BREAK="SWITCH;…"`.

use std::io::Write;
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const FAIL: &str = "GEMINI_OPERATOR_FAIL";
const BREAK: &str = "GEMINI_OPERATOR_BREAK";

static PLAN: OnceLock<Plan> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

#[derive(Debug, Default)]
struct Plan {
    armed: Vec<Armed>,
    broken: Vec<String>,
}

#[derive(Debug)]
struct Armed {
    /// As it was written, for the announcement.
    text: String,
    place: String,
    side: Side,
    action: Action,
    nth: u64,
    hits: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
    Term,
    Panic,
}

/// Reads what is asked for; `places` and `switches` are all that there are. The error is one line.
pub fn install(places: &[&str], switches: &[&str]) -> Result<(), String> {
    let read = |name| std::env::var(name).unwrap_or_default();
    let plan = Plan {
        armed: items(&read(FAIL)).map(|item| arm(item, places)).collect::<Result<_, _>>()?,
        broken: items(&read(BREAK)).map(|item| switch(item, switches)).collect::<Result<_, _>>()?,
    };
    PLAN.set(plan).map_err(|_| format!("{FAIL} was read already"))
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|item| !item.is_empty())
}

fn arm(item: &str, places: &[&str]) -> Result<Armed, String> {
    let wrong = |what: &str| format!("{FAIL}: {item:?}: {what}");
    let (point, action) = item.split_once('=').ok_or_else(|| wrong("not PLACE.SIDE=ACTION[@N]"))?;
    let (place, side) = point.split_once('.').ok_or_else(|| wrong("not PLACE.SIDE=ACTION[@N]"))?;
    if !places.contains(&place) {
        return Err(wrong(&format!("no such place; places are {}", places.join(", "))));
    }
    let (action, nth) = action.split_once('@').unwrap_or((action, "1"));
    Ok(Armed {
        text: item.to_owned(),
        place: place.to_owned(),
        side: match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return Err(wrong("sides are before, after")),
        },
        action: match action {
            "kill" => Action::Kill,
            "stop" => Action::Stop,
            "term" => Action::Term,
            "panic" => Action::Panic,
            _ => return Err(wrong("actions are kill, stop, term, panic")),
        },
        nth: nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(|| wrong("N is a number from 1"))?,
        hits: AtomicU64::new(0),
    })
}

fn switch(item: &str, switches: &[&str]) -> Result<String, String> {
    if switches.contains(&item) {
        return Ok(item.to_owned());
    }
    Err(format!("{BREAK}: {item:?}: no such switch; switches are {}", switches.join(", ")))
}

/// Whether this is to be broken.
pub fn is_broken(switch: &str) -> bool {
    PLAN.get().is_some_and(|plan| plan.broken.iter().any(|broken| broken == switch))
}

/// Does here what was asked for, if anything was.
pub fn reached(place: &str, side: Side) {
    let armed = PLAN.get().map_or(&[][..], |plan| &plan.armed);
    for point in armed.iter().filter(|point| point.place == place && point.side == side) {
        if point.hits.fetch_add(1, Ordering::SeqCst) + 1 == point.nth {
            act(point);
        }
    }
}

fn act(point: &Armed) {
    // Whoever armed the point waits for these words.
    let words = format!("failpoint reached: {}", point.text);
    let done = match point.action {
        Action::Stop => shell(STOP, &words),
        Action::Kill | Action::Term | Action::Panic => {
            // Before anything happens, and written at once.
            let _ = writeln!(std::io::stderr(), "{words}");
            match point.action {
                Action::Kill => shell("kill -s KILL \"$1\"", &words),
                Action::Term => shell("kill -s TERM \"$1\"", &words),
                #[allow(clippy::panic)] // What it is there for.
                Action::Panic | Action::Stop => panic!("{words}"),
            }
        }
    };
    if !done.is_ok_and(|status| status.success()) {
        let _ = writeln!(std::io::stderr(), "failpoint failed: {}", point.text);
        std::process::abort();
    }
}

/// One thread takes the signal and tells the others: until it has, this one would go on past its point. So nobody is told
/// that the process has stopped before all of it has.
const STOP: &str = r#"
kill -s STOP "$1" || exit 1
tries=0
until grep -q '^State:[[:space:]]*T' "/proc/$1/status"; do
  tries=$((tries + 1)); [ "$tries" -lt 1000 ] || exit 1
  sleep 0.01
done
echo "$0" >&2"#;

/// The standard library sends no signals. Returns when the script has ended.
fn shell(script: &str, words: &str) -> std::io::Result<ExitStatus> {
    let process = std::process::id().to_string();
    Command::new("sh").args(["-c", script, words, &process]).status()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [&str; 2] = ["here", "there"];

    #[test]
    fn a_point_is_read_with_its_side_action_and_count() {
        let point = arm("here.after=stop@3", &PLACES).unwrap();
        assert_eq!((point.place.as_str(), point.side, point.action), ("here", Side::After, Action::Stop));
        assert_eq!(point.nth, 3);
        assert_eq!(arm("there.before=panic", &PLACES).unwrap().nth, 1);
        assert_eq!(items(" here.after=kill ; ;there.before=term;").count(), 2);
    }

    #[test]
    fn what_is_wrong_is_told_in_one_line() {
        for (item, words) in [
            ("here", "not PLACE.SIDE=ACTION[@N]"),
            ("here=kill", "not PLACE.SIDE=ACTION[@N]"),
            ("nowhere.before=kill", "no such place; places are here, there"),
            ("here.during=kill", "sides are before, after"),
            ("here.before=sleep", "actions are kill, stop, term, panic"),
            ("here.before=kill@0", "N is a number from 1"),
            ("here.before=kill@x", "N is a number from 1"),
        ] {
            let said = arm(item, &PLACES).unwrap_err();
            assert_eq!(said, format!("GEMINI_OPERATOR_FAIL: {item:?}: {words}"));
        }
        let said = switch("gate", &["fence"]).unwrap_err();
        assert_eq!(said, "GEMINI_OPERATOR_BREAK: \"gate\": no such switch; switches are fence");
    }
}
