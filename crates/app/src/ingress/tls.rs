//! What the server shows and asks for: its certificate, and with mutual TLS a certificate of the caller.

use crate::config::ServerSection;
use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// The TLS of `section`; `None` where it names no certificate.
///
/// # Errors
/// A file that cannot be read or holds nothing of its kind; a certificate without its key.
pub(super) fn acceptor(section: &ServerSection) -> anyhow::Result<Option<TlsAcceptor>> {
    let given = |path: &Path| !path.as_os_str().is_empty();
    match (given(&section.tls_certificate), given(&section.tls_key)) {
        (true, true) => {}
        (true, false) => bail!("server.tls_key: is missing: name the key of server.tls_certificate"),
        (false, true) => bail!("server.tls_certificate: is missing: name the certificate of server.tls_key"),
        (false, false) if given(&section.tls_client_ca) => {
            bail!(
                "server.tls_client_ca: asks callers for certificates, which needs TLS: name server.tls_certificate"
            );
        }
        (false, false) => return Ok(None),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if given(&section.tls_client_ca) {
        let roots = roots(&section.tls_client_ca).context("server.tls_client_ca")?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let chain = certificates(&section.tls_certificate).context("server.tls_certificate")?;
    let key = PrivateKeyDer::from_pem_file(&section.tls_key).with_context(|| {
        format!("server.tls_key: {} holds no private key in PEM", section.tls_key.display())
    })?;
    let mut config = builder
        .with_single_cert(chain, key)
        .context("server.tls_certificate: does not go with server.tls_key")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || format!("{} holds no certificate in PEM", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .with_context(read)?
        .collect::<Result<_, _>>()
        .with_context(read)?;
    if chain.is_empty() {
        bail!("{}", read());
    }
    Ok(chain)
}

fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}
