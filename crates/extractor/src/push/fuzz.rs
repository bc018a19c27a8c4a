use std::sync::Arc;

use bytes::Bytes;
use connectors::Variables;
use hyper::header::HeaderMap;
use model::PipelineName;
use spec::Webhook;

use super::{body, hook::Hook};

/// Every secret: 24 bytes that no input knows how to sign with.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Reads a request of any content as the webhook of a pipeline does, and tells whether its sender is
/// believed at the time 0.
///
/// # Panics
///
/// When the webhook cannot be set up, or a body grows beyond its limit.
pub fn read_request(
    pipeline: &PipelineName,
    webhook: &Webhook,
    headers: &HeaderMap,
    raw: &Bytes,
) -> bool {
    let variables: Variables = Arc::new(|_| Some(SECRET.to_owned()));
    let hook = Hook::new(pipeline.clone(), 1, webhook, &variables).expect("every secret is known");
    let is_believed = hook.verifier.verify(headers, raw, 0);
    let Ok(coding) = body::coding(headers) else { return is_believed };
    if let Ok(text) = body::decoded(raw, coding, hook.body_limit()) {
        assert!(text.len() <= hook.body_limit());
        drop(hook.challenge(&text));
        drop(hook.read(headers, &text));
    }
    is_believed
}
