//! TLS of a server whose files are replaced while it runs.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, ensure};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::certificate::Ends;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// TLS of a gRPC server, 1.2 or newer. The files are PEM. A file that is replaced is read within
/// seconds; new connections go by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of client certificates. If set, callers need one, besides their token.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// TLS as its files stand. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    key: &'static str,
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
    /// Reads the files. `key` is the setting that names them, such as `access.tls`.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or they do not belong together.
    pub fn load(key: &'static str, settings: &TlsConfig) -> anyhow::Result<Self> {
        let read = || {
            let files = Files::read(settings)?;
            let config = Arc::new(files.config()?);
            anyhow::Ok(Arc::new(RwLock::new(Loaded { files, config })))
        };
        let current = read().with_context(|| format!("`{key}` cannot be used"))?;
        Ok(Self { key, settings: settings.clone(), current })
    }

    /// How new connections are accepted at the moment.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// Follows the files until shutdown, and tells when the certificates end, under `name` and
    /// `name_clients`.
    pub async fn follow(self, name: &'static str, shutdown: CancellationToken) {
        let ends = Ends::new();
        let mut ticks = tokio::time::interval(LOOK);
        let mut told = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match self.reload() {
                Ok(changed) => {
                    if changed || told.take().is_some() {
                        tracing::info!(setting = self.key, "the files of TLS are in use");
                    }
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(
                            setting = self.key,
                            error,
                            "the files of TLS cannot be used, those before stay in use"
                        );
                        told = Some(error);
                    }
                }
            }
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            ends.tell(name.to_owned(), &current.files.certificate);
            if let Some(authorities) = &current.files.client_ca {
                ends.tell(format!("{name}_clients"), authorities);
            }
        }
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
            certificate: read("certificate", &settings.certificate)?,
            key: read("key", &settings.key)?,
            client_ca: client_ca.map(|path| read("client_ca", path)).transpose()?,
        })
    }

    fn config(&self) -> anyhow::Result<ServerConfig> {
        let certificates = certificates("certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .context("the file of `key` holds no private key in PEM")?;
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in self::certificates("client_ca", authorities)? {
                    roots.add(authority).context("`client_ca`")?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = config
            .with_single_cert(certificates, key)
            .context("the files of `certificate` and `key` do not belong together")?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
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
        let error = format!("{:#}", Tls::load("access.tls", &tls).unwrap_err());
        assert!(
            error.contains("access.tls")
                && error.contains("`certificate`")
                && error.contains("/none.pem"),
            "{error}"
        );
    }
}
