use std::time::SystemTime;

use futures::{StreamExt, TryStreamExt, future, stream};

use crate::{Bus, BusError, Queue, Stream, missing};

/// What waits in one queue of tasks or batches, what is being worked on included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// The queue.
    pub queue: Queue,
    /// Its messages, at least 1.
    pub messages: u64,
    /// Their size in bytes. JetStream counts bytes by stream, so this is the lane's share by messages.
    pub bytes: u64,
    /// When the oldest of them was published, by the broker's clock; `None` if it left meanwhile.
    pub oldest: Option<SystemTime>,
}

/// The streams that stages take work from.
const WORK: [Stream; 3] = [Stream::Tasks, Stream::Raw, Stream::Ready];

/// Lanes whose oldest message is asked for at the same time.
const ASKED: usize = 16;

impl Bus {
    /// Returns all lanes in which something waits, in no order.
    ///
    /// It is one request per stream, and one per lane, which fetches the lane's oldest message.
    ///
    /// # Errors
    ///
    /// When JetStream does not answer. A stream that is missing holds nothing.
    pub async fn lanes(&self) -> Result<Vec<Lane>, BusError> {
        let found = WORK.into_iter().map(|stream| self.lanes_of(stream));
        Ok(future::try_join_all(found).await?.concat())
    }

    async fn lanes_of(&self, of: Stream) -> Result<Vec<Lane>, BusError> {
        let name = self.names().stream(of);
        let failed = |error| BusError::new(format!("count messages of `{name}`"), error);
        let handle = self.jetstream().get_stream_no_info(&name).await;
        let handle = handle.map_err(|error| failed(error.into()))?;
        let counted = async {
            let counting = handle.info_with_subjects(self.names().all_of(of)).await?;
            let state = (counting.info.state.messages, counting.info.state.bytes);
            Ok::<_, crate::error::Cause>((state, counting.try_collect::<Vec<_>>().await?))
        };
        let ((messages, bytes), counts) = match counted.await {
            Ok(counted) => counted,
            Err(error) if missing::is_missing(&*error) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let lanes = counts.into_iter().filter_map(|(subject, count)| {
            let queue = self.names().queue_of(&subject)?;
            let count = count as u64;
            let bytes = u128::from(bytes) * u128::from(count) / u128::from(messages.max(1));
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            Some((subject, Lane { queue, messages: count, bytes, oldest: None }))
        });
        let handle = &handle;
        let dated = lanes.map(|(subject, lane)| async move {
            let oldest = handle.get_first_raw_message_by_subject(subject, 1).await;
            Lane { oldest: oldest.ok().map(|message| message.time.into()), ..lane }
        });
        Ok(stream::iter(dated).buffer_unordered(ASKED).collect().await)
    }
}
