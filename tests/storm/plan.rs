//! Everything that is decided before a storm begins: what is submitted, who is struck when, what goes wrong at Gemini. One
//! seed, one plan.

use std::time::Duration;

use gemini_operator::submit::Timing;
use serde_json::{Value, json};

use super::options::Options;
use super::random::Random;

/// Mean time between two kills.
const KILL_EVERY: u64 = 900;
/// So many kills for each stop …
const KILLS_PER_STOP: usize = 5;
/// … and so many stops for one that lasts longer than all windows.
const STOPS_PER_LONG_ONE: usize = 4;

/// Between two stops of a kind.
const BREATH: u64 = 500;

/// Whom a strike is for, by the number of a kind.
pub const CONTROLLERS: [usize; 2] = [0, 1];
pub const RECEIVERS: [usize; 2] = [2, 3];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Rows of each batch.
    pub rows: Vec<usize>,
    /// The first so many are submitted at once, and their requests are the load before the first kill.
    pub burst: usize,
    /// The first kill comes when so many requests for a job have come.
    pub first_kill: usize,
    /// The rest, and the strikes, by their time since then.
    pub acts: Vec<(Duration, Act)>,
    pub faults: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// So many more batches.
    Submit(usize),
    /// SIGKILL; another one is started at once.
    Kill(usize),
    /// SIGSTOP, and SIGCONT so much later.
    Stop(usize, Duration),
}

/// How long a doubt may last: a job is looked for, then its attempt is fenced and waited for.
pub fn windows(divisor: u32) -> Duration {
    let timing = Timing::divided(divisor);
    timing.first_look + timing.listing_lag
}

impl Plan {
    pub fn new(options: &Options) -> Self {
        let mut of_rows = Random::new(options.seed, "rows");
        let rows = (0..options.batches).map(|_| of_rows.of(&[1, 2, 3])).collect();
        let burst = options.batches * 2 / 5;
        let mut acts = kills(options);
        let end = acts.last().map_or(Duration::ZERO, |(at, _)| *at);
        acts.extend(waves(options.seed, options.batches - burst, end));
        acts.extend(stops(options, end));
        acts.sort_by_key(|(at, _)| *at);
        Self { rows, burst, first_kill: options.batches / 5, acts, faults: faults(options) }
    }
}

fn kills(options: &Options) -> Vec<(Duration, Act)> {
    let mut random = Random::new(options.seed, "kills");
    let mut at = Duration::ZERO;
    let kill = |_| {
        let act = (at, Act::Kill(random.of(&[CONTROLLERS, RECEIVERS].concat())));
        at += Duration::from_millis(random.between(KILL_EVERY / 9, KILL_EVERY * 17 / 9));
        act
    };
    (0..options.kills).map(kill).collect()
}

/// Work is under way until the last kill.
fn waves(seed: u64, batches: usize, end: Duration) -> Vec<(Duration, Act)> {
    let mut random = Random::new(seed, "waves");
    let mut waves = vec![];
    let mut left = batches;
    while left > 0 {
        let size = usize::try_from(random.between(1, 12)).unwrap_or(1).min(left);
        let at = random.between(0, u64::try_from(end.as_millis()).unwrap_or(u64::MAX));
        waves.push((Duration::from_millis(at), Act::Submit(size)));
        left -= size;
    }
    waves
}

/// Most are short, some last longer than all windows. One of a kind is stopped at a time, so some find no room.
fn stops(options: &Options, end: Duration) -> Vec<(Duration, Act)> {
    let mut random = Random::new(options.seed, "stops");
    let windows = u64::try_from(windows(options.divisor).as_millis()).unwrap_or(u64::MAX);
    let end = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
    let mut times: Vec<u64> =
        (0..options.kills.div_ceil(KILLS_PER_STOP)).map(|_| random.between(0, end)).collect();
    times.sort_unstable();
    let mut free = [0, 0];
    let mut stops = vec![];
    for (number, at) in times.into_iter().enumerate() {
        let kind = random.of(&[0, 0, 1]);
        let whom = random.of(&[CONTROLLERS, RECEIVERS][kind]);
        let lasts = match number % STOPS_PER_LONG_ONE {
            0 => random.between(windows, windows * 2),
            _ => random.between(50, 1_000),
        };
        if at >= free[kind] {
            free[kind] = at + lasts + BREATH;
            stops.push((Duration::from_millis(at), Act::Stop(whom, Duration::from_millis(lasts))));
        }
    }
    stops
}

/// What goes wrong at Gemini. Of the rules about one call the first that fires counts, so the shares are of what is left.
fn faults(options: &Options) -> Value {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (windows, lag) =
        (millis(windows(options.divisor)), millis(Timing::divided(options.divisor).listing_lag));
    let late = f64::from(options.late) / 100.0 / 2.0;
    let ends = [
        // Executed late: while the job is looked for, fenced or waited for, and when that is over.
        (late, "late", json!({"execute_late_ms": [0, windows]})),
        (late, "too late", json!({"execute_late_ms": [windows * 3 / 2, 2 * windows]})),
        (0.05, "request lost", json!({"drop": "request"})),
        (0.05, "answer lost", json!({"drop": "answer"})),
        (0.03, "503, but created", json!({"status": 503, "executed": true})),
        (0.03, "504, but created", json!({"status": 504, "executed": true, "form": "html"})),
        (0.04, "truncated 200", json!({"truncate_body_at": 20})),
    ];
    let mut left = 1.0;
    let mut rules = vec![];
    for (share, name, action) in ends {
        let call = json!({"call": "batches.create", "probability": share / left});
        rules.push(json!({"name": name, "match": call, "do": action}));
        left -= share;
    }
    let events = json!(["batch.succeeded", "batch.failed", "batch.cancelled", "batch.expired"]);
    let event = |share: f64| json!({"event_type": events, "probability": share});
    json!({
        "seed": options.seed,
        "rules": rules,
        "deliveries": [
            {"name": "event lost", "match": event(0.05), "do": {"lose": true}},
            {"name": "event doubled", "match": event(0.05 / 0.95), "do": {"duplicate": 1}},
        ],
        // Of the time that a job may take to be listed.
        "jobs": [{"name": "listed late", "do": {"list_lag_ms": [0, lag * 4 / 5]}}],
    })
}
