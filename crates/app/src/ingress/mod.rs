//! The ingress: the one way in from outside. `tls` says what is shown, `connections` accepts and ends, `calls` counts and
//! traces, `guard` lets calls in by `tokens` and `access`, `incoming` bounds what their
//! messages take, `outgoing` ends answers in time, `web` makes calls of what is no gRPC.
//!
//! Invariants: a method that `access` does not know reaches no service; a secret is kept as its digest and compared in
//! constant time; every wait has a bound.

mod access;
mod calls;
mod connections;
mod guard;
mod incoming;
mod outgoing;
mod tls;
mod tokens;
mod web;

use crate::config::{ConfigError, ServerSection};
use anyhow::{Context, bail};
use calls::Meters;
pub(crate) use calls::Observed;
use connections::Limits;
use guard::Guard;
use std::net::SocketAddr;
use tokens::Guests;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use web::{Origin, Shared, Web};

/// A listener that knows whom to let in.
pub struct Ingress {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    guard: Guard,
}

impl std::fmt::Debug for Ingress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ingress").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Ingress {
    /// Listens, as the configuration says.
    ///
    /// # Errors
    /// The address is taken; TLS or a token cannot be used; the address is reachable from elsewhere, and neither guarded
    /// nor left open in so many words.
    pub async fn open(section: &ServerSection) -> anyhow::Result<Self> {
        let wrong = |error: anyhow::Error| ConfigError::new("configuration", format!("{error:#}"));
        let tls = tls::acceptor(section).map_err(wrong)?;
        let guests = Guests::open(&section.tokens).map_err(wrong)?;
        check_exposure(section, tls.is_some()).map_err(wrong)?;
        let listener = TcpListener::bind(section.listen)
            .await
            .with_context(|| format!("server.listen: {} cannot be listened at", section.listen))?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            tls,
            limits: Limits::of(section),
            guard: Guard::new(guests, section.calls_max, section.messages_bytes_max),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to reach it by, on this machine.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves `routes`, whose services have these names, until `closing`; then accepts no more, ends watches, lets calls
    /// finish within the drain time, and returns. The series of its calls are there at once.
    ///
    /// # Errors
    /// The definitions of the API say nothing of HTTP.
    pub fn serve(
        self,
        routes: Routes,
        services: &[&str],
        closing: CancellationToken,
    ) -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
        let meters = Meters::new(services);
        let origin = Origin { is_open: self.guard.is_open(), is_local: self.address.ip().is_loopback() };
        let shared = Shared::new(services, self.guard.room(), origin)?;
        let service = Observed::counted(self.guard.before(routes.prepare()), meters);
        Ok(connections::serve(self.listener, self.tls, self.limits, Web::new(shared, service), closing))
    }
}

/// Whether a server of this section has TLS.
///
/// # Errors
/// No server can be started with it: a file of its TLS, or what it would leave open.
pub fn has_tls(section: &ServerSection) -> anyhow::Result<bool> {
    let has_tls = tls::acceptor(section)?.is_some();
    check_exposure(section, has_tls)?;
    Ok(has_tls)
}

/// What can be reached from other machines is guarded, or left open in so many words.
fn check_exposure(section: &ServerSection, has_tls: bool) -> anyhow::Result<()> {
    if section.anonymous && !section.tokens.is_empty() {
        bail!("server.anonymous: is true, and there are tokens: remove one or the other");
    }
    if section.listen.ip().is_loopback() {
        return Ok(());
    }
    let place = format!("server.listen: {} can be reached from other machines", section.listen);
    if !has_tls && !section.plaintext {
        bail!("{place}: name server.tls_certificate and server.tls_key, or write server.plaintext = true");
    }
    if section.tokens.is_empty() && !section.anonymous {
        bail!("{place}: name who may call in [server.tokens], or write server.anonymous = true");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, TokenSection};

    #[tokio::test]
    async fn an_open_door_is_asked_for_in_so_many_words() {
        let check = |change: &dyn Fn(&mut ServerSection), wanted: Option<&str>| {
            let mut section = Config::load(None, []).unwrap().server;
            section.listen = "0.0.0.0:0".parse().unwrap();
            change(&mut section);
            let outcome = check_exposure(&section, !section.tls_key.as_os_str().is_empty());
            match (outcome, wanted) {
                (Ok(()), None) => {}
                (Err(error), Some(wanted)) => assert!(error.to_string().contains(wanted), "{error}"),
                (outcome, wanted) => panic!("{outcome:?}, wanted {wanted:?}"),
            }
        };
        let token = || TokenSection {
            role: "read".to_owned(),
            env: "X".to_owned(),
            file: Default::default(),
            expires: String::new(),
        };
        check(&|section| section.listen = "127.0.0.1:0".parse().unwrap(), None);
        check(&|section| section.listen = "[::1]:0".parse().unwrap(), None);
        check(&|_| {}, Some("server.plaintext = true"));
        check(&|section| section.plaintext = true, Some("server.anonymous = true"));
        check(&|section| section.tls_key = "key.pem".into(), Some("server.anonymous = true"));
        check(
            &|section| {
                section.plaintext = true;
                section.tokens.insert("ci".to_owned(), token());
            },
            None,
        );
        check(
            &|section| {
                section.tls_key = "key.pem".into();
                section.anonymous = true;
            },
            None,
        );
        check(
            &|section| {
                section.anonymous = true;
                section.tokens.insert("ci".to_owned(), token());
            },
            Some("remove one or the other"),
        );
    }
}
