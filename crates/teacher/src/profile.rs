//! A teacher as the operator configures it.

use domain::Secret;
use domain::ports::RateLimits;
use std::time::Duration;

/// Which HTTP API a teacher has: its dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// `POST {url}/chat/completions`.
    OpenAiChat,
    /// `POST {url}/completions`.
    OpenAiCompletions,
    /// `POST {url}/messages`.
    Anthropic,
    /// `POST {url}/models/{model}:generateContent`.
    Gemini,
}

impl Provider {
    /// The provider with this name in the configuration.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "openai_chat" => Some(Self::OpenAiChat),
            "openai_completions" => Some(Self::OpenAiCompletions),
            "anthropic" => Some(Self::Anthropic),
            "gemini" => Some(Self::Gemini),
            _ => None,
        }
    }

    /// The provider as OpenTelemetry's conventions name it (`gen_ai.provider.name`).
    pub(crate) fn convention(self) -> &'static str {
        match self {
            Self::OpenAiChat | Self::OpenAiCompletions => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gcp.gemini",
        }
    }
}

/// One teacher.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The name that specifications use.
    pub name: String,
    /// Its dialect.
    pub provider: Provider,
    /// The API's base, up to and with its version.
    pub url: String,
    /// The model as the server names it.
    pub model: String,
    /// Empty for none.
    pub api_key: Secret,
    /// Requests and tokens a minute.
    pub limits: RateLimits,
    /// Calls in flight at once.
    pub concurrency_max: usize,
    /// Most calls for one attempt at a prompt: the first and its retries.
    pub attempts_max: u32,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    pub idle_timeout: Duration,
    /// Longest time of a whole call.
    pub total_timeout: Duration,
    /// Price of a million tokens in.
    pub price_in_per_million: f64,
    /// Price of a million tokens out.
    pub price_out_per_million: f64,
}

impl Profile {
    /// What a call cost, in millionths of the currency: tokens times the price of a million of them.
    pub fn money_micros(&self, tokens_in: u64, tokens_out: u64) -> u64 {
        let money =
            tokens_in as f64 * self.price_in_per_million + tokens_out as f64 * self.price_out_per_million;
        money.max(0.0).round() as u64
    }
}
