//! Every name that the broker sees. No other file spells one.

use std::fmt;

use model::PipelineName;

use crate::{ConfigError, Service};

/// A stream of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Work for the extractors and loaders.
    Tasks,
    /// Batches as the source has them.
    Raw,
    /// Batches as a target wants them.
    Ready,
    /// Records that a stage refused.
    Quarantine,
    /// What every stage did.
    Ledger,
}

impl Stream {
    /// All streams.
    pub const ALL: [Self; 5] =
        [Self::Tasks, Self::Raw, Self::Ready, Self::Quarantine, Self::Ledger];

    /// The first token of its subjects, after the prefix.
    fn token(self) -> &'static str {
        match self {
            Self::Tasks => "task",
            Self::Raw => "raw",
            Self::Ready => "ready",
            Self::Quarantine => "quarantine",
            Self::Ledger => "ledger",
        }
    }

    /// Its name in settings and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Raw => "raw",
            Self::Ready => "ready",
            Self::Quarantine => "quarantine",
            Self::Ledger => "ledger",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A key-value bucket of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Pipeline revisions: `<name>.<revision>`, and the current one under `<name>`.
    Pipelines,
    /// How far the parts of a run were read: `<run>.<attempt>.<part index>`; its parts:
    /// `<run>.<attempt>.plan`; `<run>.ended` once it was ended before its time.
    Progress,
    /// What HTTP targets have sent last: `<pipeline>.<target>.<hash of the record's key>`.
    Sent,
    /// Quotas with their use: `<name>`.
    Quotas,
}

impl Bucket {
    /// All buckets.
    pub const ALL: [Self; 4] = [Self::Pipelines, Self::Progress, Self::Sent, Self::Quotas];
}

/// What a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Find the parts of the source that have news; for the extractor.
    Plan,
    /// Read one part; for the extractor.
    Extract,
    /// Remove what a snapshot did not see; for the loader.
    Sweep,
    /// Read single objects whose ids were pushed; for the extractor.
    Fetch,
}

impl TaskKind {
    const ALL: [Self; 4] = [Self::Plan, Self::Extract, Self::Sweep, Self::Fetch];

    fn token(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Extract => "extract",
            Self::Sweep => "sweep",
            Self::Fetch => "fetch",
        }
    }
}

/// What a consumer reads. Queues of one stream never overlap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Tasks of one kind for one pipeline.
    Tasks {
        /// The kind.
        kind: TaskKind,
        /// The pipeline.
        pipeline: PipelineName,
    },
    /// Batches of one pipeline, as the source has them.
    Raw {
        /// The pipeline.
        pipeline: PipelineName,
    },
    /// Batches of one pipeline for one target.
    Ready {
        /// The pipeline.
        pipeline: PipelineName,
        /// Name of the target.
        target: PipelineName,
    },
    /// Refused records of all pipelines.
    Quarantine,
    /// Ledger entries of all pipelines.
    Ledger,
}

impl Queue {
    /// Returns the pipeline whose messages are in it, where it is one.
    #[must_use]
    pub fn pipeline(&self) -> Option<&PipelineName> {
        match self {
            Self::Tasks { pipeline, .. }
            | Self::Raw { pipeline }
            | Self::Ready { pipeline, .. } => Some(pipeline),
            Self::Quarantine | Self::Ledger => None,
        }
    }

    /// Returns the stream that the queue is a part of.
    #[must_use]
    pub fn stream(&self) -> Stream {
        match self {
            Self::Tasks { .. } => Stream::Tasks,
            Self::Raw { .. } => Stream::Raw,
            Self::Ready { .. } => Stream::Ready,
            Self::Quarantine => Stream::Quarantine,
            Self::Ledger => Stream::Ledger,
        }
    }
}

/// A subject to publish to or ask on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject(String);

impl Subject {
    /// Returns the subject as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Builds the names of one installation, all under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Makes the names under `prefix`.
    ///
    /// # Errors
    ///
    /// When `prefix` is not 1 to 32 of `a-z`, `0-9`, `_` and `-`, starting with a letter.
    pub fn new(prefix: &str) -> Result<Self, ConfigError> {
        let valid = prefix.len() <= 32 && prefix.parse::<PipelineName>().is_ok();
        if valid {
            Ok(Self { prefix: prefix.to_owned() })
        } else {
            Err(ConfigError::Prefix(prefix.to_owned()))
        }
    }

    /// Subject of tasks.
    #[must_use]
    pub fn task(&self, kind: TaskKind, pipeline: &PipelineName) -> Subject {
        self.subject(Stream::Tasks, &[kind.token(), pipeline.as_str()])
    }

    /// Subject of batches as the source has them.
    #[must_use]
    pub fn raw(&self, pipeline: &PipelineName) -> Subject {
        self.subject(Stream::Raw, &[pipeline.as_str()])
    }

    /// Subject of batches as a target wants them.
    #[must_use]
    pub fn ready(&self, pipeline: &PipelineName, target: &PipelineName) -> Subject {
        self.subject(Stream::Ready, &[pipeline.as_str(), target.as_str()])
    }

    /// Subject of refused records.
    #[must_use]
    pub fn quarantine(&self, pipeline: &PipelineName) -> Subject {
        self.subject(Stream::Quarantine, &[pipeline.as_str()])
    }

    /// Subject of ledger entries.
    #[must_use]
    pub fn ledger(&self, pipeline: &PipelineName) -> Subject {
        self.subject(Stream::Ledger, &[pipeline.as_str()])
    }

    /// Subject on which pushed deliveries are told.
    #[must_use]
    pub fn deliveries(&self) -> Subject {
        Subject(format!("{}.deliveries", self.prefix))
    }

    /// Name of the stream that keeps them for a while.
    pub(crate) fn deliveries_stream(&self) -> String {
        format!("{}_deliveries", self.prefix).to_ascii_uppercase()
    }

    /// Subject of questions to the extractors.
    #[must_use]
    pub fn ask_extract(&self) -> Subject {
        Subject(format!("{}.ask.extract", self.prefix))
    }

    /// Subject of questions to the loaders.
    #[must_use]
    pub fn ask_load(&self) -> Subject {
        Subject(format!("{}.ask.load", self.prefix))
    }

    /// Name of a stream.
    #[must_use]
    pub fn stream(&self, stream: Stream) -> String {
        format!("{}_{stream}", self.prefix).to_ascii_uppercase()
    }

    /// All subjects of a stream.
    pub(crate) fn all_of(&self, stream: Stream) -> String {
        format!("{}.{}.>", self.prefix, stream.token())
    }

    /// The subjects of one pipeline in a stream.
    pub(crate) fn of_pipeline(&self, stream: Stream, pipeline: &PipelineName) -> String {
        let subject = match stream {
            Stream::Tasks => self.subject(stream, &["*", pipeline.as_str()]),
            Stream::Ready => self.subject(stream, &[pipeline.as_str(), "*"]),
            Stream::Raw | Stream::Quarantine | Stream::Ledger => {
                self.subject(stream, &[pipeline.as_str()])
            }
        };
        subject.0
    }

    /// The subjects of a queue.
    pub(crate) fn filter(&self, queue: &Queue) -> String {
        match queue {
            Queue::Tasks { kind, pipeline } => self.task(*kind, pipeline).0,
            Queue::Raw { pipeline } => self.raw(pipeline).0,
            Queue::Ready { pipeline, target } => self.ready(pipeline, target).0,
            Queue::Quarantine | Queue::Ledger => self.all_of(queue.stream()),
        }
    }

    /// The stream that takes a subject.
    pub(crate) fn stream_of(&self, subject: &Subject) -> Option<Stream> {
        let rest = subject.0.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let token = rest.split('.').next()?;
        Stream::ALL.into_iter().find(|stream| stream.token() == token)
    }

    /// The pipeline that a subject of a stream speaks of.
    pub(crate) fn pipeline_of(&self, subject: &str) -> Option<PipelineName> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let mut tokens = rest.split('.');
        let stream = tokens.next()?;
        let name = if stream == Stream::Tasks.token() { tokens.nth(1) } else { tokens.next() };
        name?.parse().ok()
    }

    /// The queue that takes what is on a subject of the work streams: tasks and batches.
    pub(crate) fn queue_of(&self, subject: &str) -> Option<Queue> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let tokens: Vec<&str> = rest.split('.').collect();
        let (stream, rest) = tokens.split_first()?;
        let stream = Stream::ALL.into_iter().find(|known| known.token() == *stream)?;
        match (stream, rest) {
            (Stream::Tasks, [kind, pipeline]) => Some(Queue::Tasks {
                kind: TaskKind::ALL.into_iter().find(|known| known.token() == *kind)?,
                pipeline: pipeline.parse().ok()?,
            }),
            (Stream::Raw, [pipeline]) => Some(Queue::Raw { pipeline: pipeline.parse().ok()? }),
            (Stream::Ready, [pipeline, target]) => Some(Queue::Ready {
                pipeline: pipeline.parse().ok()?,
                target: target.parse().ok()?,
            }),
            _ => None,
        }
    }

    /// The subjects of tasks of one kind.
    pub(crate) fn tasks_of(&self, kind: TaskKind) -> String {
        format!("{}.{}.{}.*", self.prefix, Stream::Tasks.token(), kind.token())
    }

    /// What the subjects begin with on which a service takes answers.
    pub(crate) fn inbox(&self, service: Service) -> String {
        format!("_INBOX_{}_{}", self.prefix, service.name())
    }

    /// Name of the stream behind a bucket.
    pub(crate) fn bucket_stream(&self, bucket: Bucket) -> String {
        format!("KV_{}", self.bucket(bucket))
    }

    /// Subject on which a consumer is asked for messages.
    pub(crate) fn next_message(&self, stream: &str, durable: &str) -> String {
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}")
    }

    /// Name of the durable consumer of a queue. `=` is in no name, so no two queues share one.
    pub(crate) fn durable(&self, queue: &Queue) -> String {
        match queue {
            Queue::Tasks { kind, pipeline } => format!("{}={pipeline}", kind.token()),
            Queue::Raw { pipeline } => format!("transform={pipeline}"),
            Queue::Ready { pipeline, target } => format!("load={pipeline}={target}"),
            Queue::Quarantine | Queue::Ledger => "scheduler".to_owned(),
        }
    }

    /// Tells whether a durable consumer belongs to a pipeline.
    pub(crate) fn is_durable_of(durable: &str, pipeline: &PipelineName) -> bool {
        durable.split('=').nth(1) == Some(pipeline.as_str())
    }

    /// Name of a bucket.
    #[must_use]
    pub fn bucket(&self, bucket: Bucket) -> String {
        let name = match bucket {
            Bucket::Pipelines => "pipelines",
            Bucket::Progress => "progress",
            Bucket::Sent => "sent",
            Bucket::Quotas => "quotas",
        };
        format!("{}_{name}", self.prefix)
    }

    fn subject(&self, stream: Stream, tokens: &[&str]) -> Subject {
        Subject(format!("{}.{}.{}", self.prefix, stream.token(), tokens.join(".")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PipelineName {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_that_would_break_a_subject_is_refused() {
        for prefix in ["", "a.b", "A", "a b", "a>", &"a".repeat(33)] {
            assert!(Names::new(prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn two_queues_never_share_a_consumer() {
        let names = Names::new("t").unwrap();
        let left = Queue::Ready { pipeline: name("a-b"), target: name("c") };
        let right = Queue::Ready { pipeline: name("a"), target: name("b-c") };
        assert_ne!(names.durable(&left), names.durable(&right));
        assert!(Names::is_durable_of(&names.durable(&left), &name("a-b")));
        assert!(!Names::is_durable_of(&names.durable(&left), &name("a")));
    }

    #[test]
    fn names_are_stable() {
        let names = Names::new("tributary").unwrap();
        let (pipeline, target) = (name("shop"), name("store"));
        assert_eq!(names.stream(Stream::Raw), "TRIBUTARY_RAW");
        assert_eq!(names.task(TaskKind::Plan, &pipeline).as_str(), "tributary.task.plan.shop");
        assert_eq!(names.ready(&pipeline, &target).as_str(), "tributary.ready.shop.store");
        assert_eq!(names.of_pipeline(Stream::Tasks, &pipeline), "tributary.task.*.shop");
        let sweep = names.task(TaskKind::Sweep, &pipeline);
        assert_eq!(names.stream_of(&sweep), Some(Stream::Tasks));
        assert_eq!(names.stream_of(&names.ask_load()), None);
        assert_eq!(names.pipeline_of(sweep.as_str()), Some(pipeline.clone()));
        let ready = names.ready(&pipeline, &target);
        assert_eq!(names.pipeline_of(ready.as_str()), Some(pipeline.clone()));
        let queue = Queue::Ready { pipeline: pipeline.clone(), target };
        assert_eq!(names.queue_of(ready.as_str()), Some(queue));
        let queue = Queue::Tasks { kind: TaskKind::Sweep, pipeline };
        assert_eq!(names.queue_of(sweep.as_str()), Some(queue));
        assert_eq!(names.queue_of("tributary.ledger.shop"), None);
        assert_eq!(names.bucket(Bucket::Progress), "tributary_progress");
    }
}
