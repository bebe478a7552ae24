//! What one process remembers of a webhook between passes. Losing it costs a listing or a ping.

/// Process-local knowledge of one webhook.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// This process wrote the intent to register and has not heard otherwise.
    pub registering: bool,
    /// Complete listings without our registration, made in doubt.
    pub empty_listings: u32,
    /// Self-tests in a row that failed.
    pub ping_failures: u32,
    /// Passes in a row that failed.
    pub failures: u32,
}
