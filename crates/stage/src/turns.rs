use std::collections::BTreeSet;

use tokio::sync::watch;

/// Work on the messages of one queue that is going on, in the order in which they came.
///
/// Work of one queue is done side by side, because versions tell what is newer. A record that does not
/// carry all fields is an exception: where it comes before what it is a part of, the rest is older than
/// it and left out.
#[derive(Debug, Default)]
pub struct Turns {
    going_on: watch::Sender<BTreeSet<u64>>,
    last: u64,
}

/// The turn of one piece of work, which ends when this is dropped.
#[derive(Debug)]
pub struct Turn {
    going_on: watch::Sender<BTreeSet<u64>>,
    number: u64,
}

impl Turns {
    /// Begins the turn of the work that has come last.
    #[must_use]
    pub fn begin(&mut self) -> Turn {
        self.last += 1;
        let number = self.last;
        self.going_on.send_modify(|going_on| {
            going_on.insert(number);
        });
        Turn { going_on: self.going_on.clone(), number }
    }
}

impl Turn {
    /// Waits until all work that came earlier has ended. Dropping the future is safe.
    pub async fn first(&self) {
        let mut going_on = self.going_on.subscribe();
        let is_first =
            |others: &BTreeSet<u64>| others.first().is_none_or(|first| *first >= self.number);
        // The sender lives as long as this.
        drop(going_on.wait_for(is_first).await);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.going_on.send_modify(|going_on| {
            going_on.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(turn: &Turn) -> bool {
        tokio::select! {
            biased;
            () = turn.first() => false,
            () = std::future::ready(()) => true,
        }
    }

    #[tokio::test]
    async fn a_turn_waits_for_those_before_it_and_for_no_others() {
        let mut turns = Turns::default();
        let (first, second, third) = (turns.begin(), turns.begin(), turns.begin());
        first.first().await;
        assert!(waits(&second).await);
        drop(third);
        assert!(waits(&second).await);
        drop(first);
        second.first().await;
    }
}
