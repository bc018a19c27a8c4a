//! How long those who push wait for others to share a message with.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// So many share a message well enough; more of them are not waited for.
const CROWD: usize = 32;

/// Gathers what shares a message. Each message costs the broker a sync of its disk and every stage
/// behind a turn, so those of a stream of pushes are `wait` apart. What comes alone goes at once.
#[derive(Debug)]
pub(crate) struct Gather {
    wait: Duration,
    most: usize,
    /// When the last message left.
    last: Option<Instant>,
}

impl Gather {
    /// Makes a gatherer of at most `most` items a message.
    pub(crate) fn new(wait: Duration, most: usize) -> Self {
        Self { wait, most, last: None }
    }

    /// Waits for what makes the next message; nothing when no more will come. `others` tells how many
    /// could have sent something: when all of them wait for their answer there is nobody to wait for.
    pub(crate) async fn next<T>(
        &mut self,
        items: &mut mpsc::Receiver<T>,
        others: impl Fn() -> usize,
    ) -> Vec<T> {
        let mut taken = Vec::new();
        items.recv_many(&mut taken, self.most).await;
        if let Some(due) = self.last.map(|last| last + self.wait) {
            while taken.len() < self.most.min(CROWD)
                && taken.len() < others()
                && Instant::now() < due
            {
                let room = self.most - taken.len();
                match timeout_at(due, items.recv_many(&mut taken, room)).await {
                    Ok(more) if more > 0 => {}
                    Ok(_) | Err(_) => break,
                }
            }
        }
        self.last = Some(Instant::now());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(5);

    async fn send(sender: &mpsc::Sender<u32>, count: usize) {
        for _ in 0..count {
            sender.send(1).await.unwrap();
        }
    }

    /// Returns how many items the next message has, and how long they were waited for.
    async fn next(
        gather: &mut Gather,
        items: &mut mpsc::Receiver<u32>,
        others: usize,
    ) -> (usize, Duration) {
        let begun = Instant::now();
        let taken = gather.next(items, || others).await;
        (taken.len(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_alone_goes_at_once_and_a_stream_is_grouped() {
        let (sender, mut items) = mpsc::channel(100);
        let mut gather = Gather::new(WAIT, 50);
        send(&sender, 1).await;
        assert_eq!(next(&mut gather, &mut items, 9).await, (1, Duration::ZERO));
        tokio::spawn(async move {
            loop {
                send(&sender, 1).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let (count, waited) = next(&mut gather, &mut items, 9).await;
        assert!((5..=6).contains(&count) && waited == WAIT, "{count} after {waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_who_waits_as_well() {
        let (sender, mut items) = mpsc::channel(100);
        let mut gather = Gather::new(WAIT, 50);
        for count in [3, 3] {
            send(&sender, count).await;
            assert_eq!(next(&mut gather, &mut items, 3).await, (3, Duration::ZERO));
        }
        send(&sender, CROWD + 1).await;
        assert_eq!(next(&mut gather, &mut items, 90).await, (CROWD + 1, Duration::ZERO));
        send(&sender, 60).await;
        assert_eq!(next(&mut gather, &mut items, 90).await, (50, Duration::ZERO));
        drop(sender);
        assert_eq!(next(&mut gather, &mut items, 90).await, (10, Duration::ZERO));
        assert_eq!(next(&mut gather, &mut items, 90).await.0, 0);
    }
}
