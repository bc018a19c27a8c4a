//! Tasks that belong together: when one fails or panics, all end and the failure is returned.

use std::{collections::HashMap, future::Future, time::Duration};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// A task ended in a way that it should not.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// It returned an error.
    #[error("`{task}` failed")]
    Failed {
        /// Name of the task.
        task: String,
        /// What it returned.
        source: anyhow::Error,
    },
    /// It panicked.
    #[error("`{task}` panicked: {message}")]
    Panicked {
        /// Name of the task.
        task: String,
        /// Text of the panic, as far as it has one.
        message: String,
    },
    /// It was still going when the deadline after the shutdown had passed, and was cut off.
    #[error("{} did not end within {deadline:?} and was cut off", quoted(.tasks))]
    CutOff {
        /// Names of the tasks, sorted.
        tasks: Vec<String>,
        /// The deadline.
        deadline: Duration,
    },
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// A set of named tasks. Dropping it cuts all of them off.
#[derive(Debug)]
pub struct Tasks {
    shutdown: CancellationToken,
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
}

impl Tasks {
    /// Makes an empty set whose tasks end with `shutdown`.
    #[must_use]
    pub fn new(shutdown: &CancellationToken) -> Self {
        Self { shutdown: shutdown.child_token(), set: JoinSet::new(), names: HashMap::new() }
    }

    /// Returns the token that the tasks have to watch. It is cancelled with the process, and when
    /// one of the tasks fails.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Starts a task. It may end by itself with `Ok`.
    pub fn spawn<F, E>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<anyhow::Error>,
    {
        let handle = self.set.spawn(async move { task.await.map_err(Into::into) });
        self.names.insert(handle.id(), name.into());
    }

    /// Waits until all tasks have ended.
    ///
    /// From the shutdown or the first failure on, the others have `deadline` to end.
    ///
    /// # Errors
    ///
    /// The first failure or panic; [`TaskError::CutOff`] where there was none and the deadline
    /// passed.
    pub async fn wait(mut self, deadline: Duration) -> Result<(), TaskError> {
        let mut first = None;
        loop {
            let next = tokio::select! {
                next = self.set.join_next_with_id() => next,
                () = self.shutdown.cancelled() => break,
            };
            match next {
                Some(outcome) => self.note(outcome, &mut first),
                None => return first.map_or(Ok(()), Err),
            }
            if first.is_some() {
                self.shutdown.cancel();
            }
        }
        let end = Instant::now() + deadline;
        loop {
            match timeout_at(end, self.set.join_next_with_id()).await {
                Ok(Some(outcome)) => self.note(outcome, &mut first),
                Ok(None) => return first.map_or(Ok(()), Err),
                Err(_) => break,
            }
        }
        let mut tasks: Vec<String> = self.names.into_values().collect();
        tasks.sort();
        self.set.shutdown().await;
        let cut = TaskError::CutOff { tasks, deadline };
        match first {
            Some(first) => {
                tracing::warn!(reason = %cut, "shutdown took too long");
                Err(first)
            }
            None => Err(cut),
        }
    }

    /// Takes an ended task out and keeps the first failure; later ones are logged.
    fn note(
        &mut self,
        outcome: Result<(Id, anyhow::Result<()>), JoinError>,
        first: &mut Option<TaskError>,
    ) {
        let (id, failure) = match outcome {
            Ok((id, Ok(()))) => (id, None),
            Ok((id, Err(source))) => (id, Some(Ok(source))),
            Err(error) => (error.id(), Some(Err(error))),
        };
        let task = self.names.remove(&id).unwrap_or_default();
        let error = match failure {
            None => return,
            Some(Ok(source)) => TaskError::Failed { task, source },
            Some(Err(error)) => TaskError::Panicked { task, message: panic_message(error) },
        };
        match first {
            None => *first = Some(error),
            Some(_) => tracing::warn!(error = %chain(&error), "another task failed as well"),
        }
    }
}

fn panic_message(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else {
        return "cancelled".to_owned();
    };
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn until(token: CancellationToken) -> anyhow::Result<()> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_ends_the_others_and_is_returned() {
        let mut tasks = Tasks::new(&CancellationToken::new());
        tasks.spawn("good", until(tasks.shutdown()));
        tasks.spawn("bad", async { Err(anyhow::anyhow!("no power")) });
        let error = tasks.wait(DEADLINE).await.unwrap_err();
        assert_eq!(chain(&error), "`bad` failed: no power");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_an_error_with_its_text() {
        let mut tasks = Tasks::new(&CancellationToken::new());
        tasks.spawn("good", until(tasks.shutdown()));
        tasks.spawn("bad", async {
            if true {
                panic!("index out of range");
            }
            anyhow::Ok(())
        });
        let error = tasks.wait(DEADLINE).await.unwrap_err();
        assert_eq!(error.to_string(), "`bad` panicked: index out of range");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_cut_off_and_named() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(&shutdown);
        tasks.spawn("stuck", async {
            pending::<()>().await;
            anyhow::Ok(())
        });
        tasks.spawn("good", until(tasks.shutdown()));
        shutdown.cancel();
        let error = tasks.wait(DEADLINE).await.unwrap_err();
        assert_eq!(error.to_string(), "`stuck` did not end within 30s and was cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_may_end_by_themselves() {
        let mut tasks = Tasks::new(&CancellationToken::new());
        tasks.spawn("a", async { anyhow::Ok(()) });
        assert!(tasks.wait(DEADLINE).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_from_outside_is_no_error() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(&shutdown);
        tasks.spawn("a", until(tasks.shutdown()));
        shutdown.cancel();
        assert!(tasks.wait(DEADLINE).await.is_ok());
    }
}
