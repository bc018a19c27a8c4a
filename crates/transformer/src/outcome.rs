use model::Records;

/// What became of the records of a batch. Their numbers add up to those that came in, except where
/// the run stops.
#[derive(Debug)]
pub struct Outcome {
    /// The records that go on to the targets, in the order they came in.
    pub records: Records,
    /// Number of records that a step took out on purpose.
    pub filtered: u32,
    /// The records that cannot go on, by ascending index.
    pub refused: Vec<Refused>,
    /// What an operator may want to know. The same thing has the same text in every batch.
    pub notes: Vec<String>,
    /// The contract forbids to go on. Nothing of the batch may be passed on then.
    pub stop: Option<Stop>,
}

/// A record that cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Index in the batch.
    pub index: usize,
    /// Short name of the reason: `type`, `constraint`, `column`, `nul`, `expression`, `key`.
    pub code: &'static str,
    /// The reason in one sentence, without values.
    pub message: String,
    /// The step, such as `2 (cast)`; empty for what happens before and after all steps.
    pub step: String,
    /// The field; empty where no single field is to blame.
    pub field: String,
}

/// Why a run cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// What is wrong, with its place.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}
