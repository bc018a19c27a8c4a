//! What starts a run besides a user, and what holds for runs that are started so.

use std::{fmt, time::Duration};

use chrono::NaiveDateTime;
use chrono_tz::Tz;
use croner::{
    Cron as Schedule,
    parser::{CronParser, Seconds, Year},
};
use model::PipelineName;

use crate::PushTrigger;

/// What starts a run besides a user.
#[derive(Debug, Clone, PartialEq)]
pub struct Triggers {
    /// A run starts again and again after such a time.
    pub every: Option<Every>,
    /// A run starts at these times of the calendar.
    pub cron: Vec<Cron>,
    /// The zone of `cron` and `windows`.
    pub timezone: Tz,
    /// When due runs may start and may read their source.
    pub windows: Windows,
    /// A run starts when a run of each of these pipelines has succeeded since the last time.
    pub after: Vec<PipelineName>,
    /// A run starts as soon as the last one has ended.
    pub continuous: bool,
    /// What happens when a run is due while the last one is going.
    pub overlap: Overlap,
    /// What happens with runs that were due while no scheduler was there.
    pub catch_up: CatchUp,
    /// Who gets a place on a connection first: the greatest, 0 to 9.
    pub priority: u8,
    /// A run that has been going longer fails.
    pub max_duration: Option<Duration>,
    /// Other systems send records by themselves.
    pub push: Option<PushTrigger>,
}

impl Triggers {
    /// The priority of a pipeline that declares none.
    pub const USUAL_PRIORITY: u8 = 5;
}

impl Default for Triggers {
    fn default() -> Self {
        Self {
            every: None,
            cron: Vec::new(),
            timezone: Tz::UTC,
            windows: Windows::default(),
            after: Vec::new(),
            continuous: false,
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
            priority: Self::USUAL_PRIORITY,
            max_duration: None,
            push: None,
        }
    }
}

/// An interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every {
    /// Time between two due times; at least one second.
    pub interval: Duration,
    /// A due time comes at most so much later, by an amount that it decides itself; less than the
    /// interval.
    pub jitter: Duration,
}

/// Times of the calendar: five fields, or six with seconds first.
#[derive(Clone)]
pub struct Cron {
    text: String,
    schedule: Schedule,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .dom_and_dow(false)
            .build();
        let schedule = parser.parse(text).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), schedule })
    }

    /// Returns it as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns what finds its times.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.text).finish()
    }
}

/// When due runs may start and may read their source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Windows {
    /// Only in one of these; empty: always.
    pub allowed: Vec<Window>,
    /// Not in any of these.
    pub forbidden: Vec<Window>,
}

/// A span of time as the clock on the wall shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Window {
    /// On days of the week.
    Weekly {
        /// The days on which it begins, Monday first.
        days: [bool; 7],
        /// Minute of the day at which it begins, 0 to 1439.
        from: u16,
        /// Minute at which it ends, 1 to 1440; before `from`: on the next day.
        to: u16,
    },
    /// Once.
    Once {
        /// When it begins.
        from: NaiveDateTime,
        /// When it ends.
        to: NaiveDateTime,
    },
}

/// What happens when a run is due while the last one is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// The new one is recorded as skipped.
    #[default]
    Skip,
    /// The new one waits.
    Queue,
    /// The old one is cancelled.
    Cancel,
}

/// What happens with runs that were due while no scheduler was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// The last one takes place, the others are recorded as skipped.
    #[default]
    One,
    /// All take place, one after the other.
    All,
    /// All are recorded as skipped.
    None,
}
