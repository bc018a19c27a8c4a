use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, ensure};
use futures::{Stream, StreamExt};
use runtime::certificate::not_after;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::TcpIncoming;

use super::TlsConfig;
use crate::core::Scheduler;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How long a client may take to agree on keys.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that agree on keys at once; more wait in the listener.
const HANDSHAKES: usize = 1024;

/// A connection whose keys are agreed on, or why the listener has none.
type Accepted = io::Result<TlsStream<TcpStream>>;

/// TLS of the API as its files stand. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    settings: TlsConfig,
    current: Arc<RwLock<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    files: Files,
    config: Arc<ServerConfig>,
}

/// What the files hold.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or they do not belong together.
    pub(crate) fn load(settings: &TlsConfig) -> anyhow::Result<Self> {
        let files = Files::read(settings)?;
        let config = Arc::new(files.config()?);
        let current = Arc::new(RwLock::new(Loaded { files, config }));
        Ok(Self { settings: settings.clone(), current })
    }

    /// Agrees on keys with whoever connects. A client that fails to, or takes too long, is let go.
    pub(crate) fn accept(
        self,
        incoming: TcpIncoming,
    ) -> Pin<Box<dyn Stream<Item = Accepted> + Send>> {
        let handshakes = incoming.map(move |stream| {
            let acceptor = TlsAcceptor::from(self.config());
            async move {
                let stream = match stream {
                    Ok(stream) => stream,
                    Err(error) => return Some(Err(error)),
                };
                match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => Some(Ok(stream)),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a client failed to agree on keys");
                        None
                    }
                    Err(_) => {
                        tracing::debug!("a client took too long to agree on keys");
                        None
                    }
                }
            }
        });
        handshakes.buffer_unordered(HANDSHAKES).filter_map(std::future::ready).boxed()
    }

    fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// Takes the files as they stand and returns whether they have changed. Those that cannot be
    /// used change nothing.
    fn reload(&self) -> anyhow::Result<bool> {
        let files = Files::read(&self.settings)?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).files == files {
            return Ok(false);
        }
        let config = Arc::new(files.config()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Loaded { files, config };
        Ok(true)
    }
}

impl Files {
    fn read(settings: &TlsConfig) -> anyhow::Result<Self> {
        let client_ca = settings.client_ca.as_ref();
        Ok(Self {
            certificate: read("access.tls.certificate", &settings.certificate)?,
            key: read("access.tls.key", &settings.key)?,
            client_ca: client_ca.map(|path| read("access.tls.client_ca", path)).transpose()?,
        })
    }

    fn config(&self) -> anyhow::Result<ServerConfig> {
        let certificates = certificates("access.tls.certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .context("the file of `access.tls.key` holds no private key in PEM")?;
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in self::certificates("access.tls.client_ca", authorities)? {
                    roots.add(authority).context("`access.tls.client_ca`")?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = config.with_single_cert(certificates, key).context(
            "the files of `access.tls.certificate` and `access.tls.key` do not belong together",
        )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// Follows the files of TLS, and tells when the certificates end, until shutdown.
pub(crate) async fn watch(scheduler: Scheduler, tls: Option<Tls>) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(LOOK);
    let mut told = None;
    loop {
        tokio::select! {
            () = scheduler.shutdown().cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        if let Some(tls) = &tls {
            match tls.reload() {
                Ok(changed) => {
                    if changed || told.take().is_some() {
                        tracing::info!("the files of `access.tls` are in use");
                    }
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(
                            error,
                            "the files of `access.tls` cannot be used, those before stay in use"
                        );
                        told = Some(error);
                    }
                }
            }
        }
        tell_ends(&scheduler, tls.as_ref());
    }
}

fn tell_ends(scheduler: &Scheduler, tls: Option<&Tls>) {
    if let Some(tls) = tls {
        let current = tls.current.read().unwrap_or_else(PoisonError::into_inner);
        tell_end(scheduler, "api", &current.files.certificate);
        if let Some(authorities) = &current.files.client_ca {
            tell_end(scheduler, "clients", authorities);
        }
    }
    // The connection to the broker tells when this file is of no use.
    if let Some(Ok(authorities)) = scheduler.config().bus.tls_ca.as_ref().map(std::fs::read) {
        tell_end(scheduler, "bus", &authorities);
    }
}

/// Tells the first end of the certificates in a file.
fn tell_end(scheduler: &Scheduler, certificate: &'static str, pem: &[u8]) {
    let ends = CertificateDer::pem_slice_iter(pem).filter_map(|one| not_after(&one.ok()?));
    if let Some(end) = ends.min() {
        scheduler.metrics().certificate_ends(certificate, end);
    }
}

fn certificates(key: &str, pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("the file of `{key}` is no PEM"))?;
    ensure!(!certificates.is_empty(), "the file of `{key}` holds no certificate in PEM");
    Ok(certificates)
}

fn read(key: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path)
        .with_context(|| format!("`{key}` names a file that cannot be read: {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named() {
        let tls =
            TlsConfig { certificate: "/none.pem".into(), key: "/none.key".into(), client_ca: None };
        let error = Tls::load(&tls).unwrap_err().to_string();
        assert!(error.contains("access.tls.certificate") && error.contains("/none.pem"), "{error}");
    }
}
