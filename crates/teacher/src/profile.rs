//! A teacher as the operator configures it: where it is, what it is sent, and what it costs.

use crate::{Question, Tokens};
use domain::Secret;
use domain::budget::CallBound;
use domain::ports::RateLimits;
use serde_json::{Map, Value};
use std::fmt;
use std::time::Duration;

/// Tokens that a chat template adds to a prompt, at most.
const FRAME_TOKENS_MAX: u64 = 128;
/// What binary fractions of a price may add up to, in millionths of the currency; less than that is no cost.
const ROUNDING_MICROS: f64 = 1e-6;

/// Fewest tokens that Gemini 2.5 Pro thinks with: it cannot be switched off.
const PRO_THINKING_TOKENS_MIN: u32 = 128;

/// How a model's thinking is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thinking {
    /// It has none, or knows no such parameter.
    None,
    /// By a number of tokens.
    Budget(u32),
    /// By a level (Gemini 3), which is never quite none.
    Level(&'static str),
}

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

    /// Whether every server of it has a batch API. Of OpenAI's many, few have.
    pub fn has_batches(self) -> bool {
        match self {
            Self::Anthropic | Self::Gemini => true,
            Self::OpenAiChat | Self::OpenAiCompletions => false,
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

/// How the limit of a completion's tokens is called in OpenAI's dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokensParameter {
    /// What every server but OpenAI's newer models takes.
    #[default]
    MaxTokens,
    /// What OpenAI's reasoning models take, and no other name.
    MaxCompletionTokens,
}

impl TokensParameter {
    /// The parameter with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::MaxTokens, Self::MaxCompletionTokens].into_iter().find(|parameter| parameter.name() == name)
    }

    /// The key in the request.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// Which parameters a model takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// The name of the limit of tokens.
    pub tokens_parameter: TokensParameter,
    /// Whether the temperature is sent.
    pub send_temperature: bool,
    /// Whether the nucleus mass is sent.
    pub send_top_p: bool,
    /// Whether stop sequences are sent; completions are cut at them when they are read in any case.
    pub send_stop: bool,
    /// Whether the number of the sample is sent as a seed.
    pub send_seed: bool,
    /// Whether the model may think before it answers, where that can be switched.
    pub thinking: bool,
    /// Tokens for thoughts, beside those of the answer.
    pub thinking_tokens_max: u32,
    /// Further keys of the request's body, merged last.
    pub body: Map<String, Value>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            tokens_parameter: TokensParameter::default(),
            send_temperature: true,
            send_top_p: true,
            send_stop: true,
            send_seed: true,
            thinking: false,
            thinking_tokens_max: 0,
            body: Map::new(),
        }
    }
}

/// What a million tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Prices {
    /// Tokens in.
    pub in_per_million: f64,
    /// Tokens out, thoughts included.
    pub out_per_million: f64,
    /// Tokens in that the server had in its cache; `None` for the price of tokens in.
    pub cached_per_million: Option<f64>,
    /// Tokens in that the server wrote into its cache; `None` for the price of tokens in.
    pub written_per_million: Option<f64>,
}

impl Prices {
    fn cached(&self) -> f64 {
        self.cached_per_million.unwrap_or(self.in_per_million)
    }

    fn written(&self) -> f64 {
        self.written_per_million.unwrap_or(self.in_per_million)
    }
}

/// One teacher.
#[derive(Clone)]
pub struct Profile {
    /// The name that specifications use.
    pub name: String,
    /// Its dialect.
    pub provider: Provider,
    /// The API's base, up to and with its version; a query is kept at the end of every address.
    pub url: String,
    /// The model as the server names it.
    pub model: String,
    /// Which model answers, in the operator's words, where the server does not tell; empty where it does.
    pub identity: String,
    /// Empty for none.
    pub api_key: Secret,
    /// The header that the key is sent in, alone; empty for the provider's own.
    pub key_header: String,
    /// Further headers.
    pub headers: Vec<(String, Secret)>,
    /// What is sent.
    pub parameters: Parameters,
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
    /// What it costs.
    pub prices: Prices,
    /// Whether it has a batch API.
    pub batch: bool,
    /// The part of the prices that a question in a batch costs.
    pub price_batch_factor: f64,
}

/// A profile's address may contain a key, so it is not printed whole.
impl fmt::Debug for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Profile")
            .field("name", &self.name)
            .field("provider", &self.provider)
            .field("url", &shown_url(&self.url))
            .field("model", &self.model)
            .field("headers", &headers)
            .field("prices", &self.prices)
            .finish_non_exhaustive()
    }
}

impl Profile {
    /// A profile with the defaults of the configuration, without key, limits and prices.
    pub fn new(name: &str, provider: Provider, url: &str, model: &str) -> Self {
        Self {
            name: name.to_owned(),
            provider,
            url: url.to_owned(),
            model: model.to_owned(),
            identity: String::new(),
            api_key: Secret::default(),
            key_header: String::new(),
            headers: Vec::new(),
            parameters: Parameters::default(),
            limits: RateLimits::default(),
            concurrency_max: 8,
            attempts_max: 5,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            total_timeout: Duration::from_secs(600),
            prices: Prices::default(),
            batch: provider.has_batches(),
            price_batch_factor: 0.5,
        }
    }

    /// Which model answers, as the operator says; `None` where that is left to the server.
    pub fn identity(&self) -> Option<&str> {
        Some(self.identity.trim()).filter(|identity| !identity.is_empty())
    }

    /// Whether a call costs anything: without prices, a budget in money would never end.
    pub fn has_prices(&self) -> bool {
        let Prices { in_per_million, out_per_million, .. } = self.prices;
        in_per_million > 0.0 || out_per_million > 0.0
    }

    /// How the thinking of Gemini's models is limited.
    pub(crate) fn gemini_thinking(&self) -> Thinking {
        let parameters = &self.parameters;
        let model = self.model.rsplit('/').next().unwrap_or_default();
        let is_pro = model.contains("pro");
        if model.starts_with("gemini-2.5") || model.ends_with("-latest") {
            let least = if is_pro { PRO_THINKING_TOKENS_MIN } else { 0 };
            let wanted = if parameters.thinking { parameters.thinking_tokens_max } else { 0 };
            return Thinking::Budget(wanted.max(least));
        }
        match (model.starts_with("gemini-3"), parameters.thinking) {
            (true, false) => Thinking::Level(if is_pro { "low" } else { "minimal" }),
            (true, true) | (false, _) => Thinking::None,
        }
    }

    /// Tokens that the model may think, beside those of its answer.
    fn thinking_tokens(&self) -> u32 {
        let wanted = if self.parameters.thinking { self.parameters.thinking_tokens_max } else { 0 };
        match (self.provider, self.gemini_thinking()) {
            (Provider::Gemini, Thinking::Budget(tokens)) => tokens,
            (Provider::Gemini, Thinking::None | Thinking::Level(_))
            | (Provider::OpenAiChat | Provider::OpenAiCompletions | Provider::Anthropic, _) => wanted,
        }
    }

    /// The tokens that are asked for: those of the answer and of the thoughts before it.
    pub(crate) fn tokens_sent(&self, question: &Question) -> u32 {
        question.sampling.tokens_max.saturating_add(self.thinking_tokens())
    }

    /// The most that one call for `question` can cost. No tokenizer makes more tokens than a text has bytes; a chat's frame
    /// has some of its own; and every token counts at the dearest price it can have.
    pub fn bound(&self, question: &Question) -> CallBound {
        let bytes = question.prompt.len().saturating_add(question.instruction.len());
        let tokens_in = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(FRAME_TOKENS_MAX);
        let tokens_out = u64::from(self.tokens_sent(question));
        let dearest = self.prices.in_per_million.max(self.prices.cached()).max(self.prices.written());
        let money = tokens_in as f64 * dearest + tokens_out as f64 * self.prices.out_per_million;
        CallBound { tokens: tokens_in.saturating_add(tokens_out), money_micros: whole_micros(money) }
    }

    /// What so many tokens cost at the plain prices, in millionths of the currency.
    pub fn price(&self, tokens_in: u64, tokens_out: u64) -> u64 {
        self.money_micros(&Tokens { tokens_in, cached: 0, written: 0, tokens_out })
    }

    /// What tokens cost, in millionths of the currency: tokens times the price of a million of them, rounded up, so that a sum
    /// is never less than what was paid.
    pub(crate) fn money_micros(&self, tokens: &Tokens) -> u64 {
        let cached = tokens.cached.min(tokens.tokens_in);
        let written = tokens.written.min(tokens.tokens_in - cached);
        let plain = tokens.tokens_in - cached - written;
        whole_micros(
            plain as f64 * self.prices.in_per_million
                + cached as f64 * self.prices.cached()
                + written as f64 * self.prices.written()
                + tokens.tokens_out as f64 * self.prices.out_per_million,
        )
    }
}

fn whole_micros(money: f64) -> u64 {
    (money.max(0.0) - ROUNDING_MICROS).ceil().max(0.0) as u64
}

/// An address without what may be a secret: its user, its query and its fragment.
pub(crate) fn shown_url(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) =
                rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;

    fn question(prompt: &str, tokens_max: u32) -> Question {
        Question {
            instruction: String::new(),
            prompt: prompt.to_owned(),
            sampling: Sampling { temperature: 0.0, top_p: 1.0, tokens_max, stop: Vec::new(), sample: 0 },
        }
    }

    fn priced(prices: Prices) -> Profile {
        Profile { prices, ..Profile::new("test", Provider::OpenAiChat, "http://host/v1", "small") }
    }

    #[test]
    fn every_token_has_its_price() {
        let prices = Prices {
            in_per_million: 1.0,
            out_per_million: 5.0,
            cached_per_million: Some(0.1),
            written_per_million: Some(1.25),
        };
        let check = |prices: Prices, counts: [u64; 4], micros: u64| {
            let [tokens_in, cached, written, tokens_out] = counts;
            let tokens = Tokens { tokens_in, cached, written, tokens_out };
            assert_eq!(priced(prices).money_micros(&tokens), micros, "{counts:?}");
        };
        check(prices, [100, 0, 0, 10], 150);
        check(prices, [100, 50, 40, 10], 115);
        check(prices, [100, 0, 40, 0], 110);
        check(prices, [1, 1, 0, 0], 1);
        check(prices, [10, 900, 900, 0], 1);
        check(
            Prices { cached_per_million: None, written_per_million: None, ..prices },
            [100, 50, 40, 10],
            150,
        );
        check(Prices { in_per_million: 0.15, ..Prices::default() }, [20, 0, 0, 0], 3);
        check(Prices { in_per_million: -3.0, ..Prices::default() }, [20, 0, 0, 0], 0);
        check(Prices { out_per_million: f64::MAX, ..Prices::default() }, [0, 0, 0, u64::MAX], u64::MAX);
    }

    #[test]
    fn a_bound_is_never_less_than_a_cost() {
        let prices = Prices {
            in_per_million: 0.3,
            out_per_million: 2.5,
            cached_per_million: Some(0.075),
            written_per_million: Some(0.375),
        };
        let profile = priced(prices);
        let asked = question(&"x".repeat(872), 100);
        assert_eq!(profile.bound(&asked), CallBound { tokens: 1_100, money_micros: 625 });
        let thinking = Parameters { thinking: true, thinking_tokens_max: 900, ..Parameters::default() };
        let thinking = Profile { parameters: thinking, ..profile.clone() };
        assert_eq!(thinking.bound(&asked).tokens, 2_000);
        assert_eq!(profile.bound(&question("", u32::MAX)).tokens, 128 + u64::from(u32::MAX));
        for written in [0, 500, 1_000] {
            let most = Tokens { tokens_in: 1_000, cached: 1_000 - written, written, tokens_out: 100 };
            assert!(profile.money_micros(&most) <= profile.bound(&asked).money_micros, "{written}");
        }
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        let check = |url: &str, shown: &str| assert_eq!(shown_url(url), shown);
        check("http://host:80/v1", "http://host:80/v1");
        check("https://me:s3cret@host/v1?key=s3cret#x", "https://host/v1");
        check("https://me:s3cret@host", "https://host");
        check("https://host?key=s3cret@other/", "https://host");
        check("host/v1?key=s3cret", "host/v1");
        let profile = Profile {
            url: "https://me:s3cret@host/v1?key=s3cret".to_owned(),
            api_key: Secret::new("s3cret"),
            headers: vec![("api-key".to_owned(), Secret::new("s3cret"))],
            ..priced(Prices::default())
        };
        assert!(!format!("{profile:?}").contains("s3cret"), "{profile:?}");
    }
}
