//! PURE: whether a fetched output is all of it.

use super::collect::Harvest;

/// So often the same length, with fewer lines than rows were answered: the rows are missing in the file itself.
const SHORT_FETCHES: u32 = 3;
/// So often the same length, although it looks cut: there is no more to be had, and what is there counts. Some hours,
/// because here something speaks for a fault on the way.
const CUT_FETCHES: u32 = 24;

/// Earlier fetches of the same output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Length of the last one.
    pub bytes: u64,
    /// How often in a row it was this one; 0 before the first.
    pub times: u32,
}

impl Fetched {
    /// With one more fetch, of `bytes`.
    #[must_use]
    pub fn and(self, bytes: u64) -> Self {
        let times = if self.times > 0 && self.bytes == bytes { self.times.saturating_add(1) } else { 1 };
        Self { bytes, times }
    }
}

/// What a fetch is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wholeness {
    Whole,
    /// Fetch again; says why.
    Again(String),
}

/// Judges what was fetched. `size` is what Gemini says of the file, if it says anything: then nothing else counts.
/// `answered` rows must have a line at least; a row can truly have none, so fewer lines are believed when they come
/// again and again. `fetched` counts this fetch too.
pub fn wholeness(harvest: &Harvest, size: Option<u64>, answered: i64, fetched: Fetched) -> Wholeness {
    let bytes = harvest.bytes;
    let (why, believed_after) = match size {
        Some(size) if size == bytes => return Wholeness::Whole,
        Some(size) => (format!("{bytes} of {size} bytes arrived"), CUT_FETCHES),
        None if harvest.ends_inside_line => {
            (format!("the {bytes} bytes that arrived end inside a line"), CUT_FETCHES)
        }
        None if harvest.lines < answered => {
            (format!("{} lines arrived for {answered} answered rows", harvest.lines), SHORT_FETCHES)
        }
        None => return Wholeness::Whole,
    };
    if fetched.times >= believed_after {
        Wholeness::Whole
    } else {
        Wholeness::Again(format!("{why}; fetching again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Collector;

    const TWO: &str = "{\"key\":\"a\",\"error\":{\"code\":3}}\n{\"key\":\"b\",\"error\":{\"code\":3}}\n";

    fn harvest(output: &str) -> Harvest {
        let mut collector = Collector::new(&["a", "b", "c"].map(String::from));
        collector.push(output.as_bytes());
        collector.finish()
    }

    /// The number of the fetch that is believed, out of many equal ones.
    fn believed(output: &str, size: Option<usize>, answered: i64) -> Option<u32> {
        let harvest = harvest(output);
        let mut fetched = Fetched::default();
        (1..100).find(|_| {
            fetched = fetched.and(harvest.bytes);
            wholeness(&harvest, size.map(|n| n as u64), answered, fetched) == Wholeness::Whole
        })
    }

    #[test]
    fn the_size_decides_where_it_is_known_and_lines_where_it_is_not() {
        let (full, cut) = (TWO.len(), &TWO[..TWO.len() - 5]);
        for (what, output, size, answered, expected) in [
            ("all there", TWO, Some(full), 2, Some(1)),
            ("a row without a line, in a file that is all there", TWO, Some(full), 3, Some(1)),
            (
                "a last line that cannot be read, in a file that is all there",
                cut,
                Some(cut.len()),
                2,
                Some(1),
            ),
            ("shorter than the file, at the end of a line", TWO, Some(full + 1), 2, Some(CUT_FETCHES)),
            ("longer than the file", TWO, Some(full - 1), 2, Some(CUT_FETCHES)),
            ("all there, as far as lines tell", TWO, None, 2, Some(1)),
            ("without the last line feed", TWO.trim_end(), None, 2, Some(1)),
            ("cut inside the last line, which makes the lines enough", cut, None, 2, Some(CUT_FETCHES)),
            ("a row without a line", TWO, None, 3, Some(SHORT_FETCHES)),
            ("nothing at all", "", None, 1, Some(SHORT_FETCHES)),
            ("nothing, as nothing was answered", "", None, 0, Some(1)),
        ] {
            assert_eq!(believed(output, size, answered), expected, "{what}");
        }
    }

    #[test]
    fn only_the_same_length_again_and_again_is_believed() {
        let short = harvest(TWO);
        let mut fetched = Fetched::default();
        for other in [short.bytes - 1, short.bytes, short.bytes + 1].repeat(4) {
            fetched = fetched.and(other);
            let again = wholeness(&short, None, 3, fetched);
            assert_eq!(again, Wholeness::Again("2 lines arrived for 3 answered rows; fetching again".into()));
        }
    }

    #[test]
    fn every_cut_of_an_output_of_unknown_length_is_noticed() {
        for end in 0..TWO.len() {
            let harvest = harvest(&TWO[..end]);
            let verdict = wholeness(&harvest, None, 2, Fetched::default().and(harvest.bytes));
            // Without its last line feed alone, nothing is missing.
            assert_eq!(verdict == Wholeness::Whole, end == TWO.len() - 1, "cut at {end}");
        }
    }
}
