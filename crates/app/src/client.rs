//! How this program calls services elsewhere: by URL, with TLS and a token, over a connection that notices when it died.

use crate::config::ClientSection;
use crate::secret;
use crate::this_machine;
use anyhow::{Context, anyhow, bail};
use http::Uri;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use wire::{Channel, Credentials};

/// How long a connection may take to be made; and with TLS, to be ready for calls.
const CONNECT: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(15);
/// How often a connection is asked whether it lives, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take to tell its health.
const HEALTH_WITHIN: Duration = Duration::from_secs(5);
/// Bytes that a server may send on one stream before it waits for the reader.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// A server that cannot be called as the caller wrote it: no URL, a certificate that is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

/// A channel to `url` that connects when it is first used, and again whenever its connection ended.
///
/// # Errors
/// [`Unusable`]: the URL, a certificate or the token.
pub fn lazy(section: &ClientSection, url: &str) -> anyhow::Result<Channel> {
    let (endpoint, credentials) = prepare(section, url).map_err(unusable)?;
    Ok(wire::channel(endpoint.connect_lazy(), credentials))
}

/// The same, connected at once, so that a missing server is reported before anything is sent.
///
/// # Errors
/// [`Unusable`], or no server answers at `url`.
pub async fn connect(section: &ClientSection, url: &str) -> anyhow::Result<Channel> {
    let (endpoint, credentials) = prepare(section, url).map_err(unusable)?;
    let connected = tokio::time::timeout(READY, endpoint.connect()).await.map_err(|_| {
        let words = "what listens there says nothing: is it `distillery serve`, with TLS for https://?";
        anyhow!("{}: no connection within {} s: {words}", endpoint.uri(), READY.as_secs())
    })?;
    let channel = connected.map_err(|error| {
        let cause = root_cause(&error);
        let meaning = meaning(&cause).unwrap_or("is `distillery serve` running there?");
        anyhow!("{}: {cause}: {meaning}", endpoint.uri())
    })?;
    Ok(wire::channel(channel, credentials))
}

/// A connection that ended tells no more: which words say so is a matter of moments.
const ENDED: &str = "the connection ended without an answer: was the server stopped? If it has TLS, write https:// (--server); if it \
                     wants a client's certificate, client.certificate and client.key name one";
const UNTRUSTED: &str =
    "its certificate is signed by an authority that is not trusted here: name it (--ca, client.ca)";

/// What the words of the layers below mean, and which setting changes it.
const EXPLAINED: &[(&str, &str)] = &[
    ("UnknownIssuer", UNTRUSTED),
    ("BadSignature", UNTRUSTED),
    ("CertificateRequired", "it wants a client's certificate: client.certificate and client.key name one"),
    ("NotValidForName", "its certificate is for another name than that in the URL (--server)"),
    ("corrupt message", "it does not speak TLS there: write http:// (--server)"),
    ("h2 protocol error", ENDED),
    ("http2 error", ENDED),
    ("broken pipe", ENDED),
    ("connection reset", ENDED),
    ("connection closed", ENDED),
    ("end of file", ENDED),
    (" eof", ENDED),
];

/// What to do about a failure in the words of a layer below.
pub fn meaning(words: &str) -> Option<&'static str> {
    let words = words.to_ascii_lowercase();
    let known = EXPLAINED.iter().find(|(known, _)| words.contains(&known.to_ascii_lowercase()));
    known.map(|(_, meaning)| *meaning)
}

/// Why a call got no answer, and what to do about it: the innermost cause, whose words tell more than those around it. `None` for
/// a status that a server sent.
pub fn unanswered(status: &tonic::Status) -> Option<String> {
    let cause = root_cause(std::error::Error::source(status)?);
    let meaning = meaning(&cause).or_else(|| meaning(status.message()));
    Some(meaning.map_or_else(|| cause.clone(), |meaning| format!("{cause}: {meaning}")))
}

/// What a server says of its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Serving,
    /// It starts, loads or drains.
    NotServing,
    /// It has no service of that name.
    Unknown,
}

/// Asks for the health of `service`; an empty name means the whole server.
///
/// # Errors
/// It does not answer in time, or refuses.
pub async fn health(channel: Channel, service: &str) -> anyhow::Result<Health> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut client = HealthClient::new(channel);
    let answer = tokio::time::timeout(HEALTH_WITHIN, client.check(request)).await;
    match answer.map_err(|_| anyhow!("there was no answer within {HEALTH_WITHIN:?}"))? {
        Ok(answer) => Ok(match answer.into_inner().status() {
            ServingStatus::Serving => Health::Serving,
            ServingStatus::NotServing => Health::NotServing,
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => Health::Unknown,
        }),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(Health::Unknown),
        Err(status) => Err(anyhow!("{}", status.message())),
    }
}

/// Where what listens at `address` is reached from its own machine.
pub fn on_this_machine(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

fn unusable(error: anyhow::Error) -> anyhow::Error {
    Unusable(format!("{error:#}")).into()
}

/// The words of the innermost cause: those around it only say that something failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Checks that servers with TLS can be called with these settings.
///
/// # Errors
/// A file that cannot be read, or holds nothing of its kind.
pub fn check(section: &ClientSection) -> anyhow::Result<()> {
    prepare(section, "https://localhost").map(drop)
}

fn prepare(section: &ClientSection, url: &str) -> anyhow::Result<(Endpoint, Credentials)> {
    let uri = uri_of(url)?;
    let secret = secret::read(&section.token_env, &section.token_file).context("client.token_file")?;
    let credentials = Credentials::bearer(secret.expose()).context("the token holds what no header can")?;
    let is_secure = uri.scheme_str() == Some("https");
    if !is_secure && !credentials.is_empty() && !is_loopback(&uri) && !section.plaintext {
        bail!("{uri}: would send the token in plain text: use https://, or write client.plaintext = true");
    }
    let mut endpoint = Endpoint::from(uri)
        .user_agent(concat!("distillery/", env!("CARGO_PKG_VERSION")))?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW);
    if is_secure {
        endpoint = endpoint.tls_config(tls(section)?).context("client.ca, client.certificate, client.key")?;
    }
    Ok((endpoint, credentials))
}

/// `host:port` is plain text on this machine, and TLS elsewhere.
fn uri_of(url: &str) -> anyhow::Result<Uri> {
    let full = if url.contains("://") {
        url.to_owned()
    } else {
        let secure = format!("https://{url}");
        let is_here = secure.parse().is_ok_and(|uri| is_loopback(&uri));
        if is_here { format!("http://{url}") } else { secure }
    };
    let uri: Uri = full.parse().map_err(|_| anyhow!("`{url}` is not a URL such as https://host:7070"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        bail!("`{url}` is not a URL such as https://host:7070");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        bail!("`{url}` has a path: services are called by host and port alone, such as https://host:7070");
    }
    Ok(uri)
}

fn is_loopback(uri: &Uri) -> bool {
    this_machine::is_named(uri.host().unwrap_or_default())
}

fn tls(section: &ClientSection) -> anyhow::Result<ClientTlsConfig> {
    let given = |path: &Path| !path.as_os_str().is_empty();
    let read = |name: &str, path: &Path| {
        std::fs::read(path).with_context(|| format!("client.{name}: {} cannot be read", path.display()))
    };
    let mut tls = ClientTlsConfig::new();
    tls = if given(&section.ca) {
        tls.ca_certificate(Certificate::from_pem(read("ca", &section.ca)?))
    } else {
        tls.with_native_roots()
    };
    match (given(&section.certificate), given(&section.key)) {
        (true, true) => {
            let (certificate, key) = (read("certificate", &section.certificate)?, read("key", &section.key)?);
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        (false, false) => {}
        _ => bail!("client.certificate and client.key go together: name both, or neither"),
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_url_is_read_as_people_write_it() {
        let check = |url: &str, wanted: Result<&str, &str>| match (uri_of(url), wanted) {
            (Ok(uri), Ok(wanted)) => assert_eq!(uri.to_string(), wanted, "{url}"),
            (Err(error), Err(wanted)) => assert!(error.to_string().contains(wanted), "{error}"),
            (read, wanted) => panic!("{url}: {read:?}, wanted {wanted:?}"),
        };
        check("localhost:7070", Ok("http://localhost:7070/"));
        check("127.0.0.1:7070", Ok("http://127.0.0.1:7070/"));
        check("[::1]:7070", Ok("http://[::1]:7070/"));
        check("host:7070", Ok("https://host:7070/"));
        check("http://host:7070", Ok("http://host:7070/"));
        check("https://host", Ok("https://host/"));
        check("ftp://host", Err("is not a URL such as"));
        check("", Err("is not a URL such as"));
        check("https://host/api", Err("has a path"));
    }

    #[test]
    fn a_token_leaves_this_machine_under_tls_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut section = Config::load(None, []).unwrap().client;
        section.token_env.clear();
        section.token_file = folder.path().join("token");
        std::fs::write(&section.token_file, "0123456789abcdef").unwrap();
        let refused = prepare(&section, "http://host:7070").unwrap_err().to_string();
        assert!(refused.contains("would send the token in plain text"), "{refused}");
        assert!(prepare(&section, "http://127.0.0.1:7070").is_ok());
        section.plaintext = true;
        assert!(prepare(&section, "http://host:7070").is_ok());
        std::fs::write(&section.token_file, "two\nlines").unwrap();
        assert!(
            prepare(&section, "http://127.0.0.1:7070").unwrap_err().to_string().contains("no header can")
        );
    }
}
