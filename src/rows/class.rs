//! The closed set of row classes, and which provider codes are worth a retry.

/// What became of a row. `Ok` alone counts as success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A complete answer.
    Ok,
    /// Gemini could not serve it this time: worth another try.
    Transient,
    /// Gemini refused it, or ended it for a reason that another try does not change.
    Invalid,
    /// A safety rule stopped prompt or answer.
    Blocked,
    /// The answer ran into `maxOutputTokens`.
    Truncated,
    /// An answer without content.
    Empty,
    /// The job ended and its output has no line for the key.
    Missing,
    /// Several different lines for the key, none of them OK.
    Duplicate,
    /// The line of this key could not be read.
    BadJson,
}

impl Class {
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Transient,
        Self::Invalid,
        Self::Blocked,
        Self::Truncated,
        Self::Empty,
        Self::Missing,
        Self::Duplicate,
        Self::BadJson,
    ];

    /// The spelling of the API (`status.rows.byClass`, `errors.jsonl`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Transient => "Transient",
            Self::Invalid => "Invalid",
            Self::Blocked => "Blocked",
            Self::Truncated => "Truncated",
            Self::Empty => "Empty",
            Self::Missing => "Missing",
            Self::Duplicate => "Duplicate",
            Self::BadJson => "BadJSON",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The class of a row that came back as an error. Codes are google.rpc numbers as a rule, but HTTP numbers and the
/// names of both have been seen; what is not known to pass by itself is not tried again at the user's cost.
pub fn class_of_code(code: &str) -> Class {
    let transient = match code.parse::<u32>() {
        // CANCELLED (rows a cancelled job did not serve), UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED,
        // INTERNAL, UNAVAILABLE; and their HTTP fellows.
        Ok(number) => matches!(number, 1 | 2 | 4 | 8 | 10 | 13 | 14 | 408 | 429 | 499 | 500..=599),
        Err(_) => matches!(
            code,
            "CANCELLED"
                | "UNKNOWN"
                | "DEADLINE_EXCEEDED"
                | "RESOURCE_EXHAUSTED"
                | "ABORTED"
                | "INTERNAL"
                | "UNAVAILABLE"
        ),
    };
    if transient { Class::Transient } else { Class::Invalid }
}
