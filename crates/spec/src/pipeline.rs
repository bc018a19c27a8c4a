use std::time::Duration;

use model::{Contract, FieldType, PipelineName, Schema};

use crate::{HttpSource, HttpTarget, Places, SecretText, Triggers, WebhookTarget};

/// One declared flow, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Name.
    pub name: PipelineName,
    /// What it is for; may be empty.
    pub description: String,
    /// Where records come from.
    pub source: Source,
    /// The connection that the source shares with those of other pipelines.
    pub connection: Option<PipelineName>,
    /// What starts a run besides a user.
    pub triggers: Triggers,
    /// The records of the source; `None`: inferred before the first run.
    pub schema: Option<Schema>,
    /// What happens when source and schema disagree.
    pub contract: Contract,
    /// Fields of the source that say who somebody is. They are masked wherever they are shown, and
    /// the pipeline needs services that seal what they keep.
    pub pii: Vec<String>,
    /// Steps, in order.
    pub steps: Vec<Step>,
    /// The fields after all steps that identify a record. Empty only if every target appends.
    pub key: Vec<String>,
    /// Field after all steps whose greater value is newer: integer, date or timestamp.
    pub newest_by: Option<String>,
    /// Where records go; at least one, names are unique.
    pub targets: Vec<Target>,
    /// Where its parts stand in the text, for messages.
    pub places: Places,
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// CSV or TSV files.
    Csv(CsvSource),
    /// JSON or NDJSON files.
    Json(JsonSource),
    /// An HTTP API.
    Http(Box<HttpSource>),
    /// A PostgreSQL table.
    Postgres(PostgresSource),
    /// A table of an SQLite file.
    Sqlite(SqliteSource),
    /// Nothing but what is pushed.
    Push,
}

impl Source {
    /// Returns the word that selects this kind in YAML.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Csv(_) => "csv",
            Self::Json(_) => "json",
            Self::Http(_) => "http",
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
            Self::Push => "push",
        }
    }
}

impl Source {
    /// Tells whether a run may read a range of it: of a cursor that the user knows.
    #[must_use]
    pub fn has_ranges(&self) -> bool {
        match self {
            Self::Csv(_) | Self::Json(_) | Self::Push => false,
            Self::Postgres(postgres) => {
                postgres.capture.is_none() && postgres.read.cursor.is_some()
            }
            Self::Sqlite(sqlite) => sqlite.read.cursor.is_some(),
            Self::Http(http) => http.incremental.is_some(),
        }
    }
}

/// CSV or TSV files. Gzip is recognised by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvSource {
    /// Path or glob pattern; relative to the directory the extractor works in. Files are read in
    /// the order of their paths.
    pub path: String,
    /// Byte between fields.
    pub delimiter: u8,
    /// Byte around fields; `None`: quotes are ordinary characters.
    pub quote: Option<u8>,
    /// Encoding of files without a byte order mark.
    pub encoding: Encoding,
    /// Unquoted texts that mean null. An unquoted empty field is always null.
    pub null_values: Vec<String>,
}

/// Encoding of a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// ISO 8859-1.
    Latin1,
    /// Windows code page 1252.
    Windows1252,
}

/// JSON files. Gzip is recognised by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonSource {
    /// Path or glob pattern, as for CSV.
    pub path: String,
    /// How records lie in a file.
    pub layout: JsonLayout,
}

/// How records lie in a JSON file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonLayout {
    /// One document; the records are the elements of the array under these keys, outermost first.
    /// Empty: the document is the array.
    Array(Vec<String>),
    /// One record per line (NDJSON).
    Lines,
}

/// A PostgreSQL table.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresSource {
    /// Connection URL.
    pub url: SecretText,
    /// What to read.
    pub read: TableRead,
    /// Changes come from the server's log instead of queries. There is a table, and neither
    /// cursor nor lag.
    pub capture: Option<Capture>,
}

/// Change capture by logical replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Replication slot; `None`: `tributary_<pipeline>`. Lower case letters, digits and `_`.
    pub slot: Option<String>,
    /// Publication; `None`: the same name as the slot.
    pub publication: Option<String>,
    /// How long a run follows the log; zero: until it has what was there when it began.
    pub window: Duration,
}

/// A table of an SQLite file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteSource {
    /// Path of the file; relative to the directory the extractor works in.
    pub path: String,
    /// What to read.
    pub read: TableRead,
}

/// What to read of a database, and how to know what is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRead {
    /// Where the rows come from.
    pub rows: Rows,
    /// Columns that identify a row. Empty: the primary key; never empty for a query.
    pub key: Vec<String>,
    /// Column that grows with every change. `None`: every run reads the whole table.
    pub cursor: Option<String>,
    /// Rows younger than this are left to the next run's second look: every run starts so much
    /// before the greatest cursor value that it has seen, for rows that were committed late.
    pub lag: Duration,
}

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// A table or view, with its schema if it is not in the default one: `shop.orders`.
    Table(String),
    /// A `select` statement, without a semicolon at its end.
    Query(String),
}

/// One transform step. Fields are named as the steps before left them.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Gives fields new names, old to new.
    Rename(Vec<(String, String)>),
    /// Keeps only these fields, in this order.
    Keep(Vec<String>),
    /// Removes these fields.
    Drop(Vec<String>),
    /// Changes types.
    Cast(Vec<Cast>),
    /// Replaces null and absent by a value, written as it would be in a CSV file.
    Default(Vec<(String, String)>),
    /// Removes white space at both ends of texts.
    Trim(Vec<String>),
    /// Makes texts lower case.
    Lower(Vec<String>),
    /// Makes texts upper case.
    Upper(Vec<String>),
    /// Takes fields out of a JSON object.
    Flatten(Flatten),
    /// Puts fields into one JSON object and removes them.
    Nest {
        /// Fields to put in, under their names.
        fields: Vec<String>,
        /// Name of the new field.
        into: String,
    },
    /// Cuts a text at every separator; the last field takes the rest; missing pieces are null.
    Split {
        /// Field to cut; it stays.
        field: String,
        /// Separator, not empty.
        separator: String,
        /// Names of the new fields, at least two.
        into: Vec<String>,
    },
    /// Joins the texts of fields that are not null.
    Join {
        /// Fields to join; they stay.
        fields: Vec<String>,
        /// Put between the texts.
        separator: String,
        /// Name of the new field.
        into: String,
    },
    /// Replaces texts by their HMAC-SHA-256 in hexadecimal.
    Hash {
        /// Fields to replace.
        fields: Vec<String>,
        /// The key.
        key: SecretText,
    },
    /// Replaces all characters but the last ones by `*`.
    Mask {
        /// Fields to mask.
        fields: Vec<String>,
        /// Number of characters that stay readable.
        keep_last: u32,
    },
    /// Keeps the records for which a CEL expression is true.
    Filter(String),
    /// Keeps the newest of the records of a batch that agree in these fields.
    Dedupe(Vec<String>),
    /// Computes fields with CEL expressions.
    Compute(Vec<Compute>),
}

impl Step {
    /// Returns the word that selects this step in YAML.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rename(_) => "rename",
            Self::Keep(_) => "keep",
            Self::Drop(_) => "drop",
            Self::Cast(_) => "cast",
            Self::Default(_) => "default",
            Self::Trim(_) => "trim",
            Self::Lower(_) => "lower",
            Self::Upper(_) => "upper",
            Self::Flatten(_) => "flatten",
            Self::Nest { .. } => "nest",
            Self::Split { .. } => "split",
            Self::Join { .. } => "join",
            Self::Hash { .. } => "hash",
            Self::Mask { .. } => "mask",
            Self::Filter(_) => "filter",
            Self::Dedupe(_) => "dedupe",
            Self::Compute(_) => "compute",
        }
    }
}

/// A change of type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast {
    /// The field.
    pub field: String,
    /// Its new type.
    pub to: FieldType,
    /// Formats to try for dates and timestamps, in order (strftime); empty: ISO 8601.
    pub formats: Vec<String>,
    /// Character before the decimal places of numbers in text: `.` or `,`. The other one of the two,
    /// spaces and apostrophes may separate thousands.
    pub decimal_point: char,
}

/// Fields to take out of a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flatten {
    /// The field that holds the object; it is removed.
    pub field: String,
    /// Put before the names of the new fields; `<field>_` unless set.
    pub prefix: String,
    /// Keys of the object with the types of the new fields. A key with dots walks into nested
    /// objects; the dots become `_` in the name.
    pub fields: Vec<(String, FieldType)>,
}

/// A computed field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compute {
    /// Name; an existing field of that name is replaced.
    pub field: String,
    /// CEL expression over the fields.
    pub expression: String,
    /// Type of the result.
    pub field_type: FieldType,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Name, unique in the pipeline, with the rules of pipeline names.
    pub name: PipelineName,
    /// The system.
    pub system: TargetSystem,
    /// Table, with its schema if it is not in the default one; empty where there are no tables.
    pub table: String,
    /// How records are written.
    pub mode: Mode,
    /// What a delete does.
    pub deletes: Deletes,
    /// Adds `_run`, `_record` and `_loaded_at` to every row.
    pub audit: bool,
}

/// The system that a target lives in.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetSystem {
    /// PostgreSQL.
    Postgres {
        /// Connection URL.
        url: SecretText,
    },
    /// An SQLite file.
    Sqlite {
        /// Path of the file; relative to the directory the loader works in.
        path: String,
    },
    /// An HTTP API.
    Http(Box<HttpTarget>),
    /// A receiver of webhooks.
    Webhook(Box<WebhookTarget>),
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Insert or update by key; an older version changes nothing.
    Upsert,
    /// Insert if no row has the record's id.
    Append,
    /// Upsert; at the end of the run, remove the rows it did not see.
    Snapshot {
        /// Largest share of the rows that one run may remove without a confirmation, in percent.
        max_loss_percent: f64,
    },
}

/// What a delete does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deletes {
    /// The row is removed.
    #[default]
    Hard,
    /// The row gets a time in `_deleted_at`.
    Soft,
    /// Nothing.
    Ignore,
}
