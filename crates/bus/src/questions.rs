//! What the scheduler asks the other stages, and what they answer. JSON on the wire.

use model::{Field, Schema};
use serde::{Deserialize, Serialize};

/// A question to the extractors. Each carries the YAML text of the pipeline; the answer's type
/// depends on the question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum ExtractQuestion {
    /// Can the source be reached, are we allowed, do the fields exist? Answer: `Checks`.
    Check {
        /// YAML text of the pipeline.
        pipeline: String,
    },
    /// What streams does the source have? Answer: `Menu`.
    Discover {
        /// YAML text of the pipeline.
        pipeline: String,
    },
    /// What do the source's records look like? Answer: `Inferred`.
    Infer {
        /// YAML text of the pipeline.
        pipeline: String,
    },
}

/// A question to the loaders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum LoadQuestion {
    /// Can the targets be reached, and are we allowed? Answer: `Checks`.
    Check {
        /// YAML text of the pipeline.
        pipeline: String,
    },
    /// What would loading such records do to the targets? Answer: `Plan`.
    Plan {
        /// YAML text of the pipeline.
        pipeline: String,
        /// Fields of the records after all steps.
        fields: Vec<Field>,
    },
}

/// Results of checks, one per connection and question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checks {
    /// The results.
    pub results: Vec<CheckResult>,
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// What was checked, such as "source orders/*.csv" or "target store".
    pub subject: String,
    /// It is as it should be.
    pub ok: bool,
    /// What was found, or what is wrong and what to do.
    pub message: String,
}

/// The streams of a source, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Menu {
    /// The streams.
    pub streams: Vec<DiscoveredStream>,
}

/// A stream of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveredStream {
    /// Name: a table, a file.
    pub name: String,
    /// Its fields, in the source's order.
    pub fields: Vec<DiscoveredField>,
}

/// A field of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveredField {
    /// Name.
    pub name: String,
    /// Type as a pipeline would write it; a source may have types that no field can have.
    #[serde(rename = "type")]
    pub field_type: String,
    /// Part of the key.
    #[serde(default)]
    pub key: bool,
    /// May not be null.
    #[serde(default)]
    pub required: bool,
}

/// What the records of a source look like.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Inferred {
    /// The schema of the sample.
    pub schema: Schema,
}

/// What loading would do, one entry per target in the pipeline's order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The targets.
    pub targets: Vec<PlannedTarget>,
}

/// What loading would do to one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTarget {
    /// Name of the target.
    pub target: String,
    /// One sentence each, such as "create table `orders` with 5 columns"; or why the target could
    /// not be looked at.
    pub outcome: PlanOutcome,
}

/// What is known about loading into a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanOutcome {
    /// What would happen, one sentence each; empty: nothing but loading.
    Actions(Vec<String>),
    /// Why the target could not be looked at.
    Unreachable(String),
}
