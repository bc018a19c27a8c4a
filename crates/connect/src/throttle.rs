//! What a call to a system with a quota has to ask for first.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::Error;

/// Shares named quotas with all other callers.
#[async_trait]
pub trait Throttle: Send + Sync {
    /// Waits for a place under the named quota, in fair order. Never fails for being over quota.
    /// Dropping the future gives up the place in the queue and nothing else.
    ///
    /// # Errors
    ///
    /// When there is no such quota, or what keeps its count cannot be reached.
    async fn acquire(&self, call: Call<'_>) -> Result<Permit, Error>;
}

/// A call that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Name of the quota.
    pub quota: &'a str,
    /// The pipeline that the call is made for.
    pub pipeline: &'a str,
    /// Method, in upper case.
    pub method: &'a str,
    /// Path, without query.
    pub path: &'a str,
}

/// The right to make one call. A permit that is dropped counts as a call that may have been made.
#[must_use = "a permit that is dropped counts as a call"]
pub struct Permit {
    start_by: Instant,
    counted: bool,
    done: Option<Box<dyn FnOnce(Feedback) + Send>>,
}

/// What became of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feedback {
    /// Status of the answer; `None`: there was none.
    pub status: Option<u16>,
    /// Delay that the peer asked for.
    pub retry_after: Option<Duration>,
    /// Calls that the peer says are left.
    pub remaining: Option<u64>,
    /// When the peer's count begins again, from now.
    pub reset: Option<Duration>,
    /// Any of the call may have reached the peer. False gives the place back.
    pub sent: bool,
}

impl Permit {
    /// Makes a permit; `done` is told once what became of the call.
    pub fn new(start_by: Instant, done: impl FnOnce(Feedback) + Send + 'static) -> Self {
        Self { start_by, counted: true, done: Some(Box::new(done)) }
    }

    /// Tells whether the call counts under a quota, so that what its answer says of being too many
    /// holds back the next one.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.counted
    }

    /// Returns the time by which the call must have been handed to the socket. Later the permit has
    /// to be given back and another one acquired.
    #[must_use]
    pub fn start_by(&self) -> Instant {
        self.start_by
    }

    /// Tells what became of the call.
    pub fn finish(mut self, feedback: Feedback) {
        if let Some(done) = self.done.take() {
            done(feedback);
        }
    }

    /// Gives the permit back: no call was made.
    pub fn give_back(self) {
        self.finish(Feedback::default());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Feedback { sent: true, ..Feedback::default() });
        }
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").field("start_by", &self.start_by).finish_non_exhaustive()
    }
}

/// Lets every call through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

#[async_trait]
impl Throttle for Unlimited {
    async fn acquire(&self, _call: Call<'_>) -> Result<Permit, Error> {
        let start_by = Instant::now() + Duration::from_secs(24 * 60 * 60);
        Ok(Permit { start_by, counted: false, done: None })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_dropped_permit_may_have_been_used_and_one_given_back_was_not() {
        let (told, heard) = mpsc::channel();
        let permit = || {
            let told = told.clone();
            Permit::new(Instant::now(), move |feedback| told.send(feedback).unwrap())
        };
        drop(permit());
        assert!(heard.recv().unwrap().sent);
        permit().give_back();
        assert!(!heard.recv().unwrap().sent);
        permit().finish(Feedback { status: Some(429), sent: true, ..Feedback::default() });
        assert_eq!(heard.recv().unwrap().status, Some(429));
        assert!(heard.try_recv().is_err());
    }
}
