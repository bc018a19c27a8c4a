use bus::questions::{ExtractQuestion, LoadQuestion};
use serde::de::DeserializeOwned;

use crate::{core::Scheduler, error::Error};

/// Asks one of the extractors.
pub(crate) async fn ask_extractor<A: DeserializeOwned>(
    scheduler: &Scheduler,
    question: &ExtractQuestion,
) -> Result<A, Error> {
    let subject = scheduler.bus().names().ask_extract();
    let timeout = scheduler.config().ask_timeout;
    let answer = scheduler.bus().ask(&subject, question, timeout).await;
    answer.map_err(|source| Error::Ask { stage: "extractor", source })
}

/// Asks one of the loaders.
pub(crate) async fn ask_loader<A: DeserializeOwned>(
    scheduler: &Scheduler,
    question: &LoadQuestion,
) -> Result<A, Error> {
    let subject = scheduler.bus().names().ask_load();
    let timeout = scheduler.config().ask_timeout;
    let answer = scheduler.bus().ask(&subject, question, timeout).await;
    answer.map_err(|source| Error::Ask { stage: "loader", source })
}
