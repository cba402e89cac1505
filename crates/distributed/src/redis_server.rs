//! The Redis that the replicas of one cluster share, and its failures.

use domain::Fault;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, InfoDict};
use std::time::Duration;

/// The oldest version that has every command in use.
const OLDEST: u32 = 7;
const CONNECT_MAX: Duration = Duration::from_secs(2);
const RESPONSE_MAX: Duration = Duration::from_secs(5);
/// Tries to reconnect before the calls that wait for it fail.
const RECONNECTS: usize = 2;
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Why a Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The URL cannot be read.
    #[error(
        "the URL of Redis cannot be read: it looks like redis://user:password@host:6379/0, or rediss:// for TLS"
    )]
    Url,
    /// The prefix cannot be part of a key.
    #[error("the key prefix `{0}` cannot be used: give it letters, digits, `-` and `_` only")]
    Prefix(String),
    /// It does not answer, or refuses us.
    #[error("Redis cannot be reached: {0}")]
    Unavailable(String),
    /// It is too old.
    #[error("Redis has version {0}, and {OLDEST}.0 is needed: use a newer one")]
    Older(String),
    /// It removes keys of ours when its memory is full.
    #[error(
        "Redis removes keys when its memory is full (`maxmemory-policy {0}`): set `maxmemory-policy noeviction` in its configuration"
    )]
    Evicts(String),
}

impl RedisError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Url | Self::Prefix(_) => Fault::Invalid,
            Self::Unavailable(_) => Fault::Unavailable,
            Self::Older(_) | Self::Evicts(_) => Fault::Conflict,
        }
    }
}

/// A connection to Redis that reconnects, and the part of it that is ours: every key begins with `prefix`, so
/// that several clusters can share a server.
#[derive(Clone)]
pub struct RedisServer {
    client: Client,
    connection: ConnectionManager,
    prefix: String,
}

impl std::fmt::Debug for RedisServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RedisServer").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl RedisServer {
    /// Connects.
    ///
    /// # Errors
    /// See [`RedisError`].
    pub async fn connect(url: &str, prefix: &str) -> Result<Self, RedisError> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        if prefix.is_empty() || !prefix.chars().all(allowed) {
            return Err(RedisError::Prefix(prefix.chars().take(64).collect()));
        }
        // The error would repeat the URL, which holds the password.
        let client = Client::open(url).map_err(|_| RedisError::Url)?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(RESPONSE_MAX))
            .set_number_of_retries(RECONNECTS)
            .set_min_delay(RECONNECT_PAUSE)
            .set_max_delay(RECONNECT_PAUSE_MAX);
        let unavailable = |error: redis::RedisError| RedisError::Unavailable(error.to_string());
        let connection =
            ConnectionManager::new_with_config(client.clone(), settings).await.map_err(unavailable)?;
        let server = Self { client, connection, prefix: prefix.to_owned() };
        let info = info(&mut server.connection(), "server").await.map_err(unavailable)?;
        let version: String = info.get("redis_version").unwrap_or_default();
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < OLDEST) {
            return Err(RedisError::Older(version));
        }
        match evicts(&mut server.connection()).await.map_err(unavailable)? {
            Some(policy) => Err(RedisError::Evicts(policy)),
            None => Ok(server),
        }
    }

    /// A handle of the shared connection, for commands that are answered at once.
    pub(crate) fn connection(&self) -> ConnectionManager {
        self.connection.clone()
    }

    /// A connection of its own, for a command that the server answers within `block`.
    pub(crate) async fn blocking_connection(
        &self,
        block: Duration,
    ) -> redis::RedisResult<MultiplexedConnection> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(block + RESPONSE_MAX));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&settings).await?;
        // One is opened after every loss of the server, which may have come back with other settings.
        if let Some(policy) = evicts(&mut connection).await? {
            tracing::warn!(error = %RedisError::Evicts(policy), "the work queue may lose keys, and is filled again when it does");
        }
        Ok(connection)
    }

    /// One of our keys. The braces keep all of them on one node of a Redis Cluster, as scripts over several keys need.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.prefix)
    }
}

async fn info(connection: &mut impl ConnectionLike, section: &str) -> redis::RedisResult<InfoDict> {
    redis::cmd("INFO").arg(section).query_async(connection).await
}

/// The policy by which the server removes keys when its memory is full; `None` where it removes none.
async fn evicts(connection: &mut impl ConnectionLike) -> redis::RedisResult<Option<String>> {
    let memory = info(connection, "memory").await?;
    let is_bounded = memory.get::<u64>("maxmemory").is_some_and(|bytes| bytes > 0);
    Ok(memory.get::<String>("maxmemory_policy").filter(|policy| is_bounded && policy != "noeviction"))
}
