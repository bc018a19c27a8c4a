use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use model::{Ages, PipelineName, RunId};

use crate::Error;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $column:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Returns the word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(Error::unreadable($column, "an unknown word")),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// State of a run.
    RunState, "runs.state" {
        /// It is due, and waits for a place or for the run before it.
        Waiting = "waiting",
        /// Work is going on.
        Running = "running",
        /// Its window has ended; it goes on in the next one.
        Paused = "paused",
        /// Everything is accounted for.
        Succeeded = "succeeded",
        /// A stage cannot go on.
        Failed = "failed",
        /// Ended by a user.
        Cancelled = "cancelled",
        /// It was due and did not take place.
        Skipped = "skipped",
    }
}

impl RunState {
    /// Tells whether the run is over, whichever way.
    #[must_use]
    pub fn has_ended(self) -> bool {
        match self {
            Self::Waiting | Self::Running | Self::Paused => false,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped => true,
        }
    }

    /// Tells whether stages may be at work for it.
    #[must_use]
    pub fn is_going(self) -> bool {
        match self {
            Self::Running | Self::Paused => true,
            Self::Waiting | Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped => {
                false
            }
        }
    }
}

words! {
    /// What started a run.
    Trigger, "runs.trigger_kind" {
        /// A user.
        Manual = "manual",
        /// An interval.
        Interval = "interval",
        /// The calendar.
        Cron = "cron",
        /// Runs of other pipelines that have succeeded.
        After = "after",
        /// The end of the run before it.
        Continuous = "continuous",
        /// A user who wants a range of the source to be read again.
        Backfill = "backfill",
        /// Other systems, which push records.
        Push = "push",
        /// A user who wants quarantined records to be tried again.
        Replay = "replay",
    }
}

impl Trigger {
    /// Tells whether a run of it reads its source.
    #[must_use]
    pub fn reads(self) -> bool {
        match self {
            Self::Manual
            | Self::Interval
            | Self::Cron
            | Self::After
            | Self::Continuous
            | Self::Backfill => true,
            Self::Push | Self::Replay => false,
        }
    }

    /// Tells whether the time or other runs have started it.
    #[must_use]
    pub fn is_due(self) -> bool {
        match self {
            Self::Interval | Self::Cron | Self::After | Self::Continuous => true,
            Self::Manual | Self::Backfill | Self::Push | Self::Replay => false,
        }
    }
}

words! {
    /// How far a snapshot target is with removing what the run did not see.
    SweepState, "run_targets.sweep" {
        /// The target is no snapshot.
        None = "none",
        /// It begins when the books balance.
        Pending = "pending",
        /// It was handed to the loaders.
        Issued = "issued",
        /// It is left out, because something of the run is quarantined.
        Withheld = "withheld",
        /// It is done.
        Done = "done",
    }
}

/// A range of the source's cursor, as the user wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Range {
    /// From here on; `None`: from the beginning.
    pub from: Option<String>,
    /// Up to here; `None`: to the end.
    pub to: Option<String>,
}

/// What reading a source has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls that were made, repeated ones included.
    pub calls: u64,
    /// Bytes of the answers.
    pub received_bytes: u64,
    /// Time waited for a place under a quota, milliseconds.
    pub waited_quota_ms: u64,
    /// Time paused because the source answered slowly, milliseconds.
    pub slowed_ms: u64,
    /// Calls that were answered with *not modified*.
    pub not_modified: u64,
}

/// A run to create.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Name of the pipeline.
    pub pipeline: PipelineName,
    /// Its revision, which has to be the current one.
    pub revision: u32,
    /// What started it.
    pub trigger: Trigger,
    /// What made it due; `None`: a user.
    pub due_key: Option<String>,
    /// When it was due; `None`: a user started it.
    pub due_at: Option<DateTime<Utc>>,
    /// The connection on which it takes a place.
    pub connection: Option<PipelineName>,
    /// Runs that may go on at once on the connection; `None`: any number.
    pub places: Option<u32>,
    /// Who gets a place first: the greatest.
    pub priority: u8,
    /// Parameters by name.
    pub parameters: BTreeMap<String, String>,
    /// Read only this, and leave the loaded cursors alone.
    pub range: Option<Range>,
    /// Read everything, whatever the cursors say.
    pub full: bool,
    /// A snapshot may remove any share of the rows.
    pub confirm_loss: bool,
    /// Fields that the source has and that are accepted from now on.
    pub accepted_fields: Vec<String>,
    /// The targets, in the pipeline's order.
    pub targets: Vec<NewRunTarget>,
}

/// A target of a run.
#[derive(Debug, Clone)]
pub struct NewRunTarget {
    /// Its name.
    pub name: String,
    /// What the run did not see is removed at its end.
    pub sweep: bool,
}

/// One execution of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Id.
    pub id: RunId,
    /// Name of the pipeline.
    pub pipeline: PipelineName,
    /// Revision of the pipeline.
    pub revision: u32,
    /// What started it.
    pub trigger: Trigger,
    /// State.
    pub state: RunState,
    /// How often it was handed out, counted from 1.
    pub attempt: u32,
    /// When it was created.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it was due; `None`: a user started it.
    pub due_at: Option<DateTime<Utc>>,
    /// Due times that a skipped run stands for, the first of them being `due_at`.
    pub skipped: u64,
    /// The last of them.
    pub skipped_until: Option<DateTime<Utc>>,
    /// The connection on which it takes a place.
    pub connection: Option<PipelineName>,
    /// Who gets a place first: the greatest.
    pub priority: u8,
    /// Parameters by name.
    pub parameters: BTreeMap<String, String>,
    /// Read only this, and leave the loaded cursors alone.
    pub range: Option<Range>,
    /// Since when it has been going, without pauses.
    pub active_since: Option<DateTime<Utc>>,
    /// How long it was going before, milliseconds.
    pub active_ms: u64,
    /// What reading the source has cost.
    pub usage: Usage,
    /// How old changes were when they were loaded; empty until the run ends, and where records carry
    /// no time of their change.
    pub ages: Ages,
    /// Why it failed.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
    /// Extraction time at which the run begins, nanoseconds since 1970-01-01 UTC.
    pub extraction_base: i64,
    /// The same for its current attempt.
    pub attempt_base: i64,
    /// Read everything, whatever the cursors say.
    pub full: bool,
    /// A snapshot may remove any share of the rows.
    pub confirm_loss: bool,
    /// Fields that the source has and that are accepted.
    pub accepted_fields: Vec<String>,
    /// When the books moved last.
    pub last_progress_at: DateTime<Utc>,
    /// The parts of the source are known.
    pub planned: bool,
    /// The books.
    pub books: Books,
}

/// The books of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    /// Records that the extractor read.
    pub extracted: u64,
    /// Batches that the extractor read.
    pub batches: u64,
    /// Batches that the transformer finished.
    pub batches_transformed: u64,
    /// Records that a step took out on purpose.
    pub filtered: u64,
    /// Records quarantined by the extractor or the transformer.
    pub quarantined: u64,
    /// Every part of the source was read to its end.
    pub extraction_ended: bool,
    /// Everything that was extracted is accounted for, in every target.
    pub balanced: bool,
    /// One per target, in the pipeline's order.
    pub targets: Vec<TargetBooks>,
}

impl Books {
    /// Tells whether anything was quarantined, by any stage.
    #[must_use]
    pub fn any_quarantined(&self) -> bool {
        self.quarantined > 0 || self.targets.iter().any(|target| target.quarantined > 0)
    }
}

/// The books of a run for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetBooks {
    /// Name of the target.
    pub target: String,
    /// Records that changed the target.
    pub loaded: u64,
    /// Records that the target already had, or had newer.
    pub unchanged: u64,
    /// Records that the target refused.
    pub quarantined: u64,
    /// Records that are not accounted for yet.
    pub missing: u64,
    /// How far the removal of what the run did not see is.
    pub sweep: SweepState,
    /// How often the removal was handed out.
    pub sweep_attempt: u32,
    /// Rows that were removed.
    pub swept: u64,
}

#[derive(sqlx::FromRow)]
pub(crate) struct RunRow {
    id: String,
    pipeline: String,
    revision: i64,
    trigger_kind: String,
    state: String,
    attempt: i64,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    due_at: Option<DateTime<Utc>>,
    skipped: i64,
    skipped_until: Option<DateTime<Utc>>,
    connection: Option<String>,
    priority: i64,
    parameters: String,
    range_from: Option<String>,
    range_to: Option<String>,
    active_since: Option<DateTime<Utc>>,
    active_ms: i64,
    calls: i64,
    received_bytes: i64,
    waited_quota_ms: i64,
    slowed_ms: i64,
    not_modified: i64,
    ages: Option<String>,
    reason: String,
    hint: String,
    extraction_base: i64,
    attempt_base: i64,
    full_read: bool,
    confirm_loss: bool,
    accepted_fields: String,
    last_progress_at: DateTime<Utc>,
    planned: bool,
    extracted: i64,
    batches: i64,
    batches_transformed: i64,
    filtered: i64,
    quarantined: i64,
    extraction_ended: bool,
    balanced: bool,
}

/// The columns of [`RunRow`], to begin a statement with.
macro_rules! select_run {
    ($rest:literal) => {
        concat!(
            "select id, pipeline, revision, trigger_kind, state, attempt, started_at, ended_at, \
             reason, hint, extraction_base, attempt_base, full_read, confirm_loss, \
             accepted_fields, last_progress_at, planned, extracted, batches, \
             batches_transformed, filtered, quarantined, extraction_ended, balanced, due_at, \
             skipped, skipped_until, connection, priority, parameters, range_from, range_to, \
             active_since, active_ms, calls, received_bytes, waited_quota_ms, slowed_ms, \
             not_modified, ages from runs ",
            $rest
        )
    };
}
pub(crate) use select_run;

#[derive(sqlx::FromRow)]
pub(crate) struct TargetRow {
    pub(crate) run_id: String,
    target: String,
    loaded: i64,
    unchanged: i64,
    quarantined: i64,
    missing: i64,
    sweep: String,
    sweep_attempt: i64,
    swept: i64,
}

/// The columns of [`TargetRow`], to begin a statement with.
macro_rules! select_target {
    ($rest:literal) => {
        concat!(
            "select run_id, target, loaded, unchanged, quarantined, missing, sweep, \
             sweep_attempt, swept from run_targets ",
            $rest
        )
    };
}
pub(crate) use select_target;

/// Counts are never negative; a negative number of missing records means that more arrived than
/// left, which is not balanced either, and shows as its size.
pub(crate) fn count(number: i64) -> u64 {
    number.unsigned_abs()
}

fn small(number: i64, column: &'static str) -> Result<u32, Error> {
    u32::try_from(number).map_err(|error| Error::unreadable(column, error))
}

impl RunRow {
    pub(crate) fn into_run(self, targets: Vec<TargetBooks>) -> Result<Run, Error> {
        Ok(Run {
            id: self.id.parse().map_err(|error| Error::unreadable("runs.id", error))?,
            pipeline: self
                .pipeline
                .parse()
                .map_err(|error| Error::unreadable("runs.pipeline", error))?,
            revision: small(self.revision, "runs.revision")?,
            range: match self.trigger_kind.parse()? {
                Trigger::Backfill => Some(Range { from: self.range_from, to: self.range_to }),
                Trigger::Manual
                | Trigger::Interval
                | Trigger::Cron
                | Trigger::After
                | Trigger::Continuous
                | Trigger::Push
                | Trigger::Replay => None,
            },
            trigger: self.trigger_kind.parse()?,
            state: self.state.parse()?,
            attempt: small(self.attempt, "runs.attempt")?,
            started_at: self.started_at,
            ended_at: self.ended_at,
            due_at: self.due_at,
            skipped: count(self.skipped),
            skipped_until: self.skipped_until,
            connection: self
                .connection
                .map(|name| name.parse())
                .transpose()
                .map_err(|error| Error::unreadable("runs.connection", error))?,
            priority: u8::try_from(self.priority)
                .map_err(|error| Error::unreadable("runs.priority", error))?,
            parameters: serde_json::from_str(&self.parameters)
                .map_err(|error| Error::unreadable("runs.parameters", error))?,
            active_since: self.active_since,
            active_ms: count(self.active_ms),
            usage: Usage {
                calls: count(self.calls),
                received_bytes: count(self.received_bytes),
                waited_quota_ms: count(self.waited_quota_ms),
                slowed_ms: count(self.slowed_ms),
                not_modified: count(self.not_modified),
            },
            ages: read_ages(self.ages.as_deref())?,
            reason: self.reason,
            hint: self.hint,
            extraction_base: self.extraction_base,
            attempt_base: self.attempt_base,
            full: self.full_read,
            confirm_loss: self.confirm_loss,
            accepted_fields: serde_json::from_str(&self.accepted_fields)
                .map_err(|error| Error::unreadable("runs.accepted_fields", error))?,
            last_progress_at: self.last_progress_at,
            planned: self.planned,
            books: Books {
                extracted: count(self.extracted),
                batches: count(self.batches),
                batches_transformed: count(self.batches_transformed),
                filtered: count(self.filtered),
                quarantined: count(self.quarantined),
                extraction_ended: self.extraction_ended,
                balanced: self.balanced,
                targets,
            },
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// Reads how old changes were.
pub(crate) fn read_ages(text: Option<&str>) -> Result<Ages, Error> {
    let Some(text) = text else { return Ok(Ages::default()) };
    serde_json::from_str(text).map_err(|error| Error::unreadable("ages", error))
}

impl TargetRow {
    pub(crate) fn into_books(self) -> Result<TargetBooks, Error> {
        Ok(TargetBooks {
            target: self.target,
            loaded: count(self.loaded),
            unchanged: count(self.unchanged),
            quarantined: count(self.quarantined),
            missing: count(self.missing),
            sweep: self.sweep.parse()?,
            sweep_attempt: small(self.sweep_attempt, "run_targets.sweep_attempt")?,
            swept: count(self.swept),
        })
    }
}
