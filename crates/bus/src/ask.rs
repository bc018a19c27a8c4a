//! Questions that are answered at once, by whoever of a group is free.

use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, Message, Request, RequestErrorKind};
use futures::StreamExt;
use opentelemetry::Context;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{AskError, Bus, BusError, MAX_PAYLOAD, Subject, backoff::Backoff, trace};

/// Questions that one process answers at the same time.
const CONCURRENT_ANSWERS: usize = 16;

/// How an answer travels.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Envelope<A> {
    Answer(A),
    /// Why there is none, in words for people.
    Refusal(String),
}

impl Bus {
    /// Asks on a subject and waits for the answer of one of those who listen.
    ///
    /// # Errors
    ///
    /// [`AskError`] tells apart that nobody listens, that nobody answered in `timeout`, and that
    /// the other side refused, with its reason.
    pub async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: &Subject,
        question: &Q,
        timeout: Duration,
    ) -> Result<A, AskError> {
        let unusable = |cause| AskError::Unusable { subject: subject.clone(), cause };
        let payload = serde_json::to_vec(question).map_err(|error| unusable(error.into()))?;
        if payload.len() > MAX_PAYLOAD {
            return Err(unusable(
                format!("a question of {} bytes is too large", payload.len()).into(),
            ));
        }
        let mut headers = HeaderMap::new();
        trace::inject(&tracing::Span::current().context(), &mut headers);
        let request =
            Request::new().payload(payload.into()).headers(headers).timeout(Some(timeout));
        let answer = self.client().send_request(subject.as_str().to_owned(), request).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => AskError::NoResponders(subject.clone()),
            RequestErrorKind::TimedOut => AskError::TimedOut { subject: subject.clone(), timeout },
            _ => AskError::Broker(error.into()),
        })?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Envelope::Answer(answer)) => Ok(answer),
            Ok(Envelope::Refusal(reason)) => Err(AskError::Refused(reason)),
            Err(error) => Err(unusable(error.into())),
        }
    }

    /// Answers questions on a subject until shutdown, several at the same time. Of all who answer
    /// with the same `group`, one gets each question. What `answer` returns as `Err` is told to the
    /// one who asked, so it holds no secrets.
    pub async fn answer<Q, A, F>(
        &self,
        subject: &Subject,
        group: &str,
        shutdown: &CancellationToken,
        answer: impl Fn(Q, Context) -> F + Send + Sync + 'static,
    ) where
        Q: DeserializeOwned + Send,
        A: Serialize + Send,
        F: Future<Output = Result<A, String>> + Send,
    {
        let answer = Arc::new(answer);
        let places = Arc::new(Semaphore::new(CONCURRENT_ANSWERS));
        let tasks = TaskTracker::new();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while !shutdown.is_cancelled() {
            let listened = self
                .listen(subject, group, shutdown, &places, |message, place| {
                    let (bus, answer) = (self.clone(), Arc::clone(&answer));
                    tasks.spawn(async move {
                        bus.reply(message, answer.as_ref()).await;
                        drop(place);
                    });
                })
                .await;
            if let Err(error) = listened {
                tracing::warn!(%error, %subject, "listening for questions again");
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = backoff.wait() => {}
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn listen(
        &self,
        subject: &Subject,
        group: &str,
        shutdown: &CancellationToken,
        places: &Arc<Semaphore>,
        take: impl Fn(Message, tokio::sync::OwnedSemaphorePermit),
    ) -> Result<(), BusError> {
        let mut questions = self
            .client()
            .queue_subscribe(subject.as_str().to_owned(), group.to_owned())
            .await
            .map_err(|error| BusError::new("subscribe", error))?;
        loop {
            let place =
                Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                question = questions.next() => match question {
                    Some(message) => take(message, place),
                    None => return Err(BusError::new("listen", "the subscription has ended")),
                },
            }
        }
    }

    async fn reply<Q, A, F>(&self, message: Message, answer: &impl Fn(Q, Context) -> F)
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Future<Output = Result<A, String>>,
    {
        let Some(reply) = message.reply else { return };
        let context = message.headers.as_ref().map_or_else(Context::new, trace::extract);
        let envelope = match serde_json::from_slice(&message.payload) {
            Ok(question) => match answer(question, context).await {
                Ok(answer) => Envelope::Answer(answer),
                Err(reason) => Envelope::Refusal(reason),
            },
            Err(error) => Envelope::Refusal(format!("the question cannot be read: {error}")),
        };
        let payload = match serde_json::to_vec(&envelope) {
            Ok(payload) if payload.len() <= MAX_PAYLOAD => payload,
            Ok(payload) => refusal(&format!("the answer of {} bytes is too large", payload.len())),
            Err(error) => refusal(&format!("the answer cannot be written: {error}")),
        };
        if let Err(error) = self.client().publish(reply, payload.into()).await {
            tracing::debug!(%error, "an answer could not be sent");
        }
    }
}

fn refusal(reason: &str) -> Vec<u8> {
    serde_json::to_vec(&Envelope::<()>::Refusal(reason.to_owned())).expect("a text can be written")
}
