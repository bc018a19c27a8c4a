//! Single documents that a service needs for itself, such as the keys of an identity provider.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use connect::Error;
use reqwest::Method;
use spec::{Auth, HttpClient, SecretText, Tls};

use super::client::{Client, Outgoing};
use crate::Context;

/// How long a document may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest document in bytes.
const MOST_BYTES: usize = 1024 * 1024;

/// Fetches a document over HTTP. Redirects are not followed; private addresses are dialled only if
/// `allow_private` is set. `ca` signs the server's certificate instead of the system's authorities.
///
/// # Errors
///
/// When the URL cannot be used, the answer is not 200, or the document has more than 1 MiB.
pub async fn document(
    url: &str,
    ca: Option<SecretText>,
    allow_private: bool,
) -> Result<Bytes, Error> {
    let config = HttpClient {
        base_url: SecretText::new(url),
        auth: Auth::None,
        headers: Vec::new(),
        timeout: TIMEOUT,
        allow_private,
        quota: None,
        tls: Tls { ca, ..Tls::default() },
        max_answer: MOST_BYTES,
    };
    let context = Context::alone(Arc::new(|name| std::env::var(name).ok()));
    let client = Client::new(&config, "", &context)?;
    let outgoing = Outgoing {
        method: Method::GET,
        url: client.base(),
        headers: vec![("accept".to_owned(), "application/json".to_owned())],
        content: None,
    };
    let answer = client.send(&outgoing).await.map_err(|failed| failed.error)?;
    if answer.status != 200 {
        return Err(Error::stop(
            format!("`{url}` is answered with status {}", answer.status),
            "correct the URL, or look after the server",
        ));
    }
    Ok(answer.body)
}
