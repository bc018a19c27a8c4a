//! When certificates end: those of the settings, and those that the brokers show.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow, bail};
use runtime::{
    certificate::not_after,
    tls::{Tls, TlsConfig},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::finding::{Finding, Findings};

const CERTIFICATES: &str = "certificates";

/// How long before its end a certificate is told.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a server may take to show its certificate.
const PATIENCE: Duration = Duration::from_secs(10);

/// First line of a server, at most.
const GREETING: usize = 64 * 1024;

/// Looks at the files of the API's TLS.
pub(super) fn check_api(tls: Option<&TlsConfig>, findings: &mut Findings) {
    let Some(tls) = tls else { return };
    if let Err(error) = Tls::load("access.tls", tls) {
        let mend = "see that the files are there, are PEM and belong together";
        findings.add(Finding::problem(CERTIFICATES, format!("{error:#}"), mend));
        return;
    }
    let files =
        [("the API", Some(&tls.certificate)), ("the API's clients", tls.client_ca.as_ref())];
    for (whose, file) in files {
        let read = file.map(CertificateDer::pem_file_iter);
        for certificate in read.into_iter().flatten().flatten().flatten() {
            findings.add(judge(whose, &certificate, SystemTime::now()));
        }
    }
}

pub(super) async fn check(config: &bus::Config, findings: &mut Findings) {
    let Some(file) = &config.tls_ca else { return };
    let place = file.display();
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let authorities = match read {
        Ok(authorities) if !authorities.is_empty() => authorities,
        Ok(_) => {
            let what = format!("{place} holds no certificate");
            findings.add(Finding::problem(CERTIFICATES, what, "put PEM certificates into it"));
            return;
        }
        Err(error) => {
            let what = format!("{place} cannot be read: {error}");
            let mend = "see that `bus.tls_ca` names a file with PEM certificates";
            findings.add(Finding::problem(CERTIFICATES, what, mend));
            return;
        }
    };
    let now = SystemTime::now();
    for authority in &authorities {
        findings.add(judge(&format!("the authority in {place}"), authority, now));
    }
    let connector = connector(&authorities);
    for server in &config.servers {
        let shown = tokio::time::timeout(PATIENCE, shown(server, &connector)).await;
        match shown.unwrap_or_else(|_| Err(anyhow!("it has not answered in 10 seconds"))) {
            Ok((host, certificate)) => findings.add(judge(&host, &certificate, now)),
            Err(error) => {
                let mend = "see that the server speaks TLS with a certificate of the authority in \
                            `bus.tls_ca` that names this host and has not ended";
                findings.add(Finding::problem(CERTIFICATES, format!("{error:#}"), mend));
            }
        }
    }
}

fn connector(authorities: &[CertificateDer<'static>]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().cloned());
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Connects as a client of NATS does: the server greets, then both speak TLS.
async fn shown(
    server: &str,
    connector: &TlsConnector,
) -> anyhow::Result<(String, CertificateDer<'static>)> {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "4222"));
    let host = host.trim_matches(['[', ']']);
    let port: u16 = port.parse().with_context(|| format!("the port of {rest} is no number"))?;
    let name = ServerName::try_from(host.to_owned())
        .with_context(|| format!("{host} is no name of a host"))?;
    let stream = TcpStream::connect((host, port)).await;
    let mut stream = stream.with_context(|| format!("{host}:{port} cannot be reached"))?;
    let mut read = 0;
    while stream.read_u8().await.with_context(|| format!("{host}:{port} does not greet"))? != b'\n'
    {
        read += 1;
        if read > GREETING {
            bail!("{host}:{port} does not greet as a NATS server does");
        }
    }
    let stream = connector.connect(name, stream).await;
    let stream =
        stream.with_context(|| format!("{host}:{port} shows no certificate that holds"))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    let shown = shown.ok_or_else(|| anyhow!("{host}:{port} shows no certificate"))?;
    Ok((format!("{host}:{port}"), shown.clone().into_owned()))
}

fn judge(whose: &str, certificate: &CertificateDer<'_>, now: SystemTime) -> Finding {
    let Some(end) = not_after(certificate) else {
        let what = format!("the certificate of {whose} cannot be read");
        return Finding::problem(CERTIFICATES, what, "have it issued again");
    };
    let date = chrono::DateTime::<chrono::Utc>::from(end).format("%Y-%m-%d");
    let mend = "have a new one issued and put it in place";
    match end.duration_since(now) {
        Err(_) => {
            let what = format!("the certificate of {whose} has ended on {date}");
            Finding::problem(CERTIFICATES, what, mend)
        }
        Ok(left) if left < SOON => {
            let days = left.as_secs() / 86_400;
            let what = format!("the certificate of {whose} ends on {date}, in {days} days");
            Finding::warning(CERTIFICATES, what, mend)
        }
        Ok(_) => {
            Finding::good(CERTIFICATES, format!("the certificate of {whose} holds until {date}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It holds until 2036-11-21 03:44:22.
    const PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIIBbTCCAROgAwIBAgIUQ7IUCtU3j0QjKoE4S+0yPkt7OH8wCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBeDAeFw0yNjExMjQwMzQ0MjJaFw0zNjExMjEwMzQ0MjJaMAwx
CjAIBgNVBAMMAXgwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQqPpF2pbscsMUD
VDEp7xrwipmf+Q4uWTafhEG93oNEMFhcVRRZ/cptlCrpIlwISW+NoDX6KU1+ywsQ
KiZmR9UVo1MwUTAdBgNVHQ4EFgQUAackz31atbTqxKiDzY+Ir8YEfy4wHwYDVR0j
BBgwFoAUAackz31atbTqxKiDzY+Ir8YEfy4wDwYDVR0TAQH/BAUwAwEB/zAKBggq
hkjOPQQDAgNIADBFAiAwKSl01sr1couO/LTVusLDTsbg5xK3YiZC2bUW6et37AIh
AOpUcAg2GquhfGeD8gA9bgDYi8CUqJtXLSRN33MOpX84
-----END CERTIFICATE-----
";

    #[test]
    fn a_certificate_is_judged_by_its_end() {
        let certificate = CertificateDer::from_pem_slice(PEM.as_bytes()).unwrap();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(2_110_851_862);
        assert_eq!(not_after(&certificate), Some(end));
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let level = |now| {
            let mut findings = Findings::default();
            findings.add(judge("it", &certificate, now));
            findings.json()["findings"][0]["level"].clone()
        };
        assert_eq!(level(end - days(31)), "ok");
        assert_eq!(level(end - days(29)), "warning");
        assert_eq!(level(end + days(1)), "problem");
    }
}
