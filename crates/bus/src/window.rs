use std::collections::VecDeque;

use tokio_util::task::AbortOnDropHandle;

use crate::{Bus, Outgoing, PublishError};

/// How much a [`PublishWindow`] keeps in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Number of messages, at least 1.
    pub messages: usize,
    /// Size of their payloads in bytes. One message is always let in.
    pub bytes: usize,
}

impl Default for WindowLimits {
    /// 16 messages, 4 MiB: enough to keep a broker busy that syncs every message.
    fn default() -> Self {
        Self { messages: 16, bytes: 4 * 1024 * 1024 }
    }
}

/// Publishes in flight, each with a tag of the caller, yielded in the order they were pushed.
///
/// They go on while the caller does something else, and are cut off when the window is dropped.
#[derive(Debug)]
pub struct PublishWindow<T> {
    bus: Bus,
    limits: WindowLimits,
    in_flight: VecDeque<InFlight<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct InFlight<T> {
    tag: T,
    size: usize,
    publish: AbortOnDropHandle<Result<(), PublishError>>,
}

impl<T> PublishWindow<T> {
    /// Makes an empty window.
    #[must_use]
    pub fn new(bus: &Bus, limits: WindowLimits) -> Self {
        Self { bus: bus.clone(), limits, in_flight: VecDeque::new(), bytes: 0 }
    }

    /// Tells whether another message of `size` bytes may be pushed. If not, take a result with
    /// [`PublishWindow::next`] first.
    #[must_use]
    pub fn has_room(&self, size: usize) -> bool {
        self.in_flight.is_empty()
            || (self.in_flight.len() < self.limits.messages
                && self.bytes.saturating_add(size) <= self.limits.bytes)
    }

    /// Tells whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Starts to publish a message.
    pub fn push(&mut self, message: Outgoing, tag: T) {
        let size = message.size();
        let bus = self.bus.clone();
        let publish = tokio::spawn(async move { bus.publish(message).await });
        self.bytes += size;
        self.in_flight.push_back(InFlight { tag, size, publish: AbortOnDropHandle::new(publish) });
    }

    /// Waits for the oldest publish and returns its tag and result; `None` when nothing is in
    /// flight. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<(T, Result<(), PublishError>)> {
        let oldest = self.in_flight.front_mut()?;
        let result = (&mut oldest.publish).await.unwrap_or(Err(PublishError::Cancelled));
        let oldest = self.in_flight.pop_front().expect("the oldest was there");
        self.bytes -= oldest.size;
        Some((oldest.tag, result))
    }

    /// Returns the oldest publish if it has ended already.
    pub async fn next_finished(&mut self) -> Option<(T, Result<(), PublishError>)> {
        if self.in_flight.front()?.publish.is_finished() { self.next().await } else { None }
    }
}
