use model::{PipelineName, Schema};
use serde::{Deserialize, Serialize};

use crate::{Pipeline, Problem};

/// A stored revision of a pipeline, as the stages find it in the key-value bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Name of the pipeline.
    pub name: PipelineName,
    /// Number, counted from 1.
    pub revision: u32,
    /// The text that the user wrote. Secrets are references.
    pub yaml: String,
    /// The schema of the source, declared or inferred; `None`: not inferred yet.
    pub schema: Option<Schema>,
}

impl Revision {
    /// Parses the text. The stored schema becomes the pipeline's: it was inferred, or knows fields
    /// that were accepted since the text was written.
    ///
    /// # Errors
    ///
    /// The problems of the text, which was written for another version of Tributary then.
    pub fn pipeline(&self) -> Result<Pipeline, Vec<Problem>> {
        let mut pipeline = crate::parse(self.name.as_str(), &self.yaml)?;
        if self.schema.is_some() {
            pipeline.schema.clone_from(&self.schema);
        }
        Ok(pipeline)
    }
}
