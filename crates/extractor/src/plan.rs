use bus::{MAX_PAYLOAD, Outgoing, PublishWindow, TaskKind, WindowLimits};
use bytes::Bytes;
use connect::{PartCursor, Source};
use model::Remedy;
use serde::{Deserialize, Serialize};
use stage::{Failure, retry::Backoff};
use tokio_util::sync::CancellationToken;
use wire::{
    Message,
    ledger::{Noted, PartsPlanned, ledger_entry::Event},
    task::{ExtractPart, PlanParts, Task, task},
};

use crate::{
    metrics::Metrics,
    progress,
    reading::stopped,
    service::{Service, Work},
};

/// Positions that are set aside for a part whose last position cannot be known.
const UNKNOWN_SPAN: u64 = 1 << 32;

/// The parts of a run. Kept until the run ends, because the source may have other parts by the time
/// that the task is delivered again.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    parts: Vec<Planned>,
    gone: Vec<String>,
    notes: Vec<String>,
    extraction_end: i64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Planned {
    name: String,
    cursor: String,
    extraction_base: i64,
}

impl Plan {
    /// Gives every part its extraction times, later ones to later parts.
    fn new(parts: connect::Parts, extraction_base: i64) -> Self {
        let mut base = extraction_base;
        let planned = parts.with_news.into_iter().map(|part| {
            let extraction_base = base;
            let span = if part.span == 0 { UNKNOWN_SPAN } else { part.span };
            base = base.saturating_add_unsigned(span.saturating_add(1));
            Planned { name: part.name, cursor: part.cursor, extraction_base }
        });
        let parts_planned = planned.collect();
        Self { parts: parts_planned, gone: parts.gone, notes: parts.notes, extraction_end: base }
    }
}

/// Finds the parts that have news and makes a task of each.
pub(crate) async fn plan(
    service: &Service,
    work: &Work,
    asked: &PlanParts,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    if progress::is_paused(&service.progress, work.run, work.attempt).await {
        return Ok(());
    }
    let key = progress::plan_key(work.run, work.attempt);
    let plan = match progress::load(&service.progress, &key).await? {
        Some(plan) => plan,
        None => {
            let plan = find(service, work, asked, shutdown).await?;
            let size = serde_json::to_vec(&plan).map_or(0, |text| text.len());
            if size > MAX_PAYLOAD {
                let reason = format!("{} parts are too many for one run", plan.parts.len());
                let hint = "give the source a narrower path, in several pipelines".to_owned();
                return Err(Failure::Stop { reason, hint });
            }
            progress::store(&service.progress, &key, &plan).await?;
            plan
        }
    };
    hand_out(service, work, asked, &plan).await?;
    let mut events: Vec<Event> = plan.notes.into_iter().map(noted).collect();
    events.push(Event::PartsPlanned(PartsPlanned {
        parts: plan.parts.into_iter().map(|part| part.name).collect(),
        extraction_end: plan.extraction_end,
        gone: plan.gone,
    }));
    service.record(work, events).await?;
    runtime::fault::point("extractor.planned");
    Ok(())
}

fn noted(text: String) -> Event {
    Event::Noted(Noted { stage: "extractor".to_owned(), text })
}

async fn find(
    service: &Service,
    work: &Work,
    asked: &PlanParts,
    shutdown: &CancellationToken,
) -> Result<Plan, Failure> {
    let source = service.source(work, &asked.accepted_fields, shutdown).await?;
    let cursors: Vec<PartCursor> = asked
        .cursors
        .iter()
        .map(|cursor| PartCursor { part: cursor.part.clone(), cursor: cursor.cursor.clone() })
        .collect();
    let metrics = Metrics::new(work.pipeline.as_str());
    let mut backoff = Backoff::new(service.config.retry);
    loop {
        let error = match look(source.as_ref(), &cursors, asked.full, shutdown).await? {
            Ok(parts) => return Ok(Plan::new(parts, asked.extraction_base)),
            Err(error) => error,
        };
        let delay = match error.remedy {
            Remedy::Retry { after } => backoff.fail(after),
            Remedy::Quarantine | Remedy::Stop => return Err(stopped(&error)),
        };
        if backoff.is_spent() {
            return Err(Failure::Later { reason: error.chain(), delay });
        }
        metrics.retried();
        let delay_ms = delay.as_millis();
        tracing::warn!(error = error.chain(), delay_ms, "looking for parts again");
        tokio::select! {
            () = shutdown.cancelled() => return Err(Failure::Shutdown),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

async fn look(
    source: &dyn Source,
    cursors: &[PartCursor],
    full: bool,
    shutdown: &CancellationToken,
) -> Result<Result<connect::Parts, connect::Error>, Failure> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Failure::Shutdown),
        parts = source.parts(cursors, full) => Ok(parts),
    }
}

/// Publishes one task per part.
async fn hand_out(
    service: &Service,
    work: &Work,
    asked: &PlanParts,
    plan: &Plan,
) -> Result<(), Failure> {
    let subject = service.bus.names().task(TaskKind::Extract, &work.pipeline);
    let mut window = PublishWindow::new(&service.bus, WindowLimits::default());
    for (index, part) in plan.parts.iter().enumerate() {
        let index = u32::try_from(index).expect("a plan that fits a message has fewer parts");
        let task = Task {
            run: work.run.to_string(),
            pipeline: work.pipeline.to_string(),
            revision: work.revision,
            attempt: work.attempt,
            options: work.asked(),
            work: Some(task::Work::ExtractPart(ExtractPart {
                part: part.name.clone(),
                index,
                cursor: part.cursor.clone(),
                extraction_base: part.extraction_base,
                sequence: 0,
                accepted_fields: asked.accepted_fields.clone(),
            })),
        };
        let payload = Bytes::from(task.encode_to_vec());
        while !window.has_room(payload.len()) {
            window.next().await.map_or(Ok(()), |((), result)| result)?;
        }
        let id = format!("{}#{}/{index}", work.run, work.attempt);
        window.push(Outgoing::new(subject.clone(), payload).with_id(id), ());
    }
    while let Some(((), result)) = window.next().await {
        result?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use connect::{Part, Parts};

    use super::*;

    #[test]
    fn a_later_part_is_newer_than_any_record_of_an_earlier_one() {
        let part = |name: &str, span| Part { name: name.to_owned(), cursor: String::new(), span };
        let parts = Parts {
            with_news: vec![part("a", 10), part("b", 0), part("c", 5)],
            ..Parts::default()
        };
        let plan = Plan::new(parts, 1_000);
        let bases: Vec<_> = plan.parts.iter().map(|part| part.extraction_base).collect();
        assert_eq!(bases[0], 1_000);
        assert!(bases[1] > 1_000 + 10);
        assert!(bases[2] > bases[1] + (1 << 32));
        assert!(plan.extraction_end > bases[2] + 5);
    }
}
