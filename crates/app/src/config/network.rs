//! The sections of services that run apart: where the records are, where they listen, whom they let in, whom they call.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What an entry of `[server.tokens]` may hold, with its defaults.
pub(super) const TOKEN: &str = "role = \"\"\nenv = \"\"\nfile = \"\"\nexpires = \"\"\n";

/// An address that may hold a password: it does not print.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The address itself, for the one place it belongs in.
    #[cfg(feature = "harvester")]
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Address(..)")
    }
}

/// Where the records are.
#[derive(Debug, Clone, Deserialize)]
pub struct DatabaseSection {
    /// Empty for SQLite in the data folder.
    pub url: Address,
    /// The file that holds the URL.
    pub url_file: PathBuf,
    /// Connections of one process.
    pub connections_max: u32,
}

/// Where the queue and the teachers' shared limits are.
#[derive(Debug, Clone, Deserialize)]
pub struct RedisSection {
    /// Needed with a database.
    pub url: Address,
    /// The file that holds the URL.
    pub url_file: PathBuf,
    /// What every key begins with.
    pub prefix: String,
}

/// Where checkpoints are.
#[derive(Debug, Clone, Deserialize)]
pub struct CheckpointsSection {
    /// A folder, or `s3://bucket/prefix`; empty for a folder in the data folder.
    pub root: String,
    /// How a bucket is reached.
    pub s3: S3Section,
}

/// How a bucket is reached.
#[derive(Debug, Clone, Deserialize)]
pub struct S3Section {
    /// Another server than Amazon's.
    pub endpoint: String,
    /// The region.
    pub region: String,
    /// The environment variable that holds the access key.
    pub access_key_env: String,
    /// The environment variable that holds the secret key.
    pub secret_key_env: String,
}

/// Where services listen, and whom they let in.
#[derive(Debug, Clone, Deserialize)]
pub struct ServerSection {
    /// Address and port.
    pub listen: SocketAddr,
    /// A PEM file; empty for plain text.
    pub tls_certificate: PathBuf,
    /// A PEM file.
    pub tls_key: PathBuf,
    /// A PEM file of the authorities whose certificates callers must show; empty where they need none.
    pub tls_client_ca: PathBuf,
    /// Whether plain text is allowed off loopback.
    pub plaintext: bool,
    /// Whether everybody may do everything off loopback.
    pub anonymous: bool,
    /// Seconds after which a connection is asked to end; 0 for never.
    pub connection_age_seconds: u64,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once from one address.
    pub peer_connections_max: usize,
    /// Calls at once on one connection.
    pub connection_calls_max: u32,
    /// Calls at once over all connections.
    pub calls_max: usize,
    /// Bytes of the messages that are received, over all calls.
    pub messages_bytes_max: usize,
    /// Seconds between pings.
    pub keepalive_seconds: u64,
    /// Seconds of NOT_SERVING before new connections are refused.
    pub notice_seconds: u64,
    /// Seconds that calls have to finish.
    pub drain_seconds: u64,
    /// Who may call, by name.
    pub tokens: BTreeMap<String, TokenSection>,
}

/// One who may call.
#[derive(Debug, Clone, Deserialize)]
pub struct TokenSection {
    /// `read`, `submit`, `operate` or `worker`.
    pub role: String,
    /// The environment variable that holds the secret.
    pub env: String,
    /// The file that holds the secret.
    pub file: PathBuf,
    /// RFC 3339; empty for never.
    pub expires: String,
}

/// How services are reached.
#[derive(Debug, Clone, Deserialize)]
pub struct ClientSection {
    /// Where the harvester is.
    pub harvester_url: String,
    /// The environment variable that holds the token.
    pub token_env: String,
    /// The file that holds the token.
    pub token_file: PathBuf,
    /// A PEM file; empty for the operating system's authorities.
    pub ca: PathBuf,
    /// A PEM file.
    pub certificate: PathBuf,
    /// A PEM file.
    pub key: PathBuf,
    /// Whether a token is sent in plain text off loopback.
    pub plaintext: bool,
}
