//! How much tests without an end of their own do: little with the other tests, as much as `make soak` asks for.

/// What the environment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Hostile messages.
    pub messages: u64,
    /// Minutes of floods, and rounds of kills and cuts, which take about a minute each; 0 with the other tests.
    pub minutes: u64,
}

impl Effort {
    /// `DISTILLERY_SOAK_MESSAGES` and `DISTILLERY_SOAK_MINUTES`.
    ///
    /// # Panics
    /// One of them is not a number.
    #[allow(clippy::disallowed_methods, reason = "the environment may ask for more")]
    #[allow(clippy::panic, reason = "helpers of tests fail loudly")]
    pub fn asked(messages: u64) -> Self {
        let number = |name: &str, otherwise: u64| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
            Err(_) => otherwise,
        };
        Self {
            messages: number("DISTILLERY_SOAK_MESSAGES", messages),
            minutes: number("DISTILLERY_SOAK_MINUTES", 0),
        }
    }

    /// Rounds of what takes about a minute; at least one.
    pub fn rounds() -> u64 {
        Self::asked(0).minutes.max(1)
    }
}
