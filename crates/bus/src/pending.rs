use futures::TryStreamExt;
use model::PipelineName;

use crate::{Bus, BusError, Names, Stream, missing};

/// Number of messages of one pipeline that the broker holds, waiting or delivered and unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Tasks.
    pub tasks: u64,
    /// Batches for the transformers.
    pub raw: u64,
    /// Batches for the loaders, of all targets.
    pub ready: u64,
    /// Refused records for the scheduler.
    pub quarantine: u64,
    /// Ledger messages for the scheduler.
    pub ledger: u64,
}

impl Pending {
    /// Tells whether the broker holds nothing of the pipeline.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The streams whose messages only matter to the runs of a pipeline. Refused records and ledger
/// entries outlive them.
const WORK: [Stream; 3] = [Stream::Tasks, Stream::Raw, Stream::Ready];

impl Bus {
    /// Counts what the broker holds of a pipeline.
    ///
    /// A message leaves a stream only after its result is in the next one, and the streams are
    /// counted in that order, so work that moves on meanwhile is counted once or twice, but not
    /// missed. A stream that is missing holds nothing.
    ///
    /// # Errors
    ///
    /// When JetStream does not answer.
    pub async fn pending(&self, pipeline: &PipelineName) -> Result<Pending, BusError> {
        Ok(Pending {
            tasks: self.count(Stream::Tasks, pipeline).await?,
            raw: self.count(Stream::Raw, pipeline).await?,
            ready: self.count(Stream::Ready, pipeline).await?,
            quarantine: self.count(Stream::Quarantine, pipeline).await?,
            ledger: self.count(Stream::Ledger, pipeline).await?,
        })
    }

    /// Removes all work of a pipeline: tasks and batches. Its ledger entries and refused records
    /// stay for the scheduler. What a stage has in hand it may still finish.
    ///
    /// # Errors
    ///
    /// When JetStream does not answer. Repeating it is safe.
    pub async fn purge_pipeline(&self, pipeline: &PipelineName) -> Result<(), BusError> {
        for stream in WORK {
            let name = self.names().stream(stream);
            let subjects = self.names().of_pipeline(stream, pipeline);
            let handle = self.handle(&name).await?;
            match handle.purge().filter(subjects).await {
                Ok(_) => {}
                Err(error) if missing::is_missing(&error) => {}
                Err(error) => return Err(BusError::new(format!("purge `{name}`"), error)),
            }
        }
        Ok(())
    }

    /// Removes all work of a pipeline and the consumers that read it. A stage that still reads
    /// creates its consumer again, so tell them first, by removing the pipeline from its bucket.
    ///
    /// # Errors
    ///
    /// When JetStream does not answer. Repeating it is safe.
    pub async fn delete_pipeline(&self, pipeline: &PipelineName) -> Result<(), BusError> {
        for stream in WORK {
            let name = self.names().stream(stream);
            let handle = self.handle(&name).await?;
            let durables: Vec<String> = match handle.consumer_names().try_collect().await {
                Ok(durables) => durables,
                Err(error) if missing::is_missing(&error) => continue,
                Err(error) => {
                    return Err(BusError::new(format!("list the consumers of `{name}`"), error));
                }
            };
            for durable in durables.iter().filter(|name| Names::is_durable_of(name, pipeline)) {
                match handle.delete_consumer(durable).await {
                    Ok(_) => {}
                    Err(error) if missing::is_missing(&error) => {}
                    Err(error) => {
                        return Err(BusError::new(format!("delete consumer `{durable}`"), error));
                    }
                }
            }
        }
        self.purge_pipeline(pipeline).await
    }

    async fn count(&self, stream: Stream, pipeline: &PipelineName) -> Result<u64, BusError> {
        let name = self.names().stream(stream);
        let subjects = self.names().of_pipeline(stream, pipeline);
        let handle = self.handle(&name).await?;
        let counted = async {
            handle
                .info_with_subjects(&subjects)
                .await?
                .try_fold(0, |sum, (_, count)| async move { Ok(sum + count as u64) })
                .await
        };
        match counted.await {
            Ok(count) => Ok(count),
            Err(error) if missing::is_missing(&error) => Ok(0),
            Err(error) => Err(BusError::new(format!("count messages of `{name}`"), error)),
        }
    }

    async fn handle(
        &self,
        name: &str,
    ) -> Result<async_nats::jetstream::stream::Stream<()>, BusError> {
        self.jetstream()
            .get_stream_no_info(name)
            .await
            .map_err(|error| BusError::new(format!("use stream `{name}`"), error))
    }
}
