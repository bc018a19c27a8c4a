use std::sync::Arc;

use connect::{LocalMemory, Memory, RunOptions, Throttle, Unlimited};

use crate::{Variables, http::Tokens};

/// What a connector needs of the process that it works in. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Looks up environment variables, for secret references.
    pub variables: Variables,
    /// Shares quotas with all other callers.
    pub throttle: Arc<dyn Throttle>,
    /// Remembers what has to outlive the process.
    pub memory: Arc<dyn Memory>,
    /// What the run was started with; nothing for a target.
    pub options: Arc<RunOptions>,
    /// Tokens that are still good, for all clients of the process.
    pub(crate) tokens: Tokens,
}

impl Context {
    /// Makes a context with quotas and a memory.
    #[must_use]
    pub fn new(variables: Variables, throttle: Arc<dyn Throttle>, memory: Arc<dyn Memory>) -> Self {
        Self { variables, throttle, memory, options: Arc::default(), tokens: Tokens::default() }
    }

    /// Makes a context that is alone: without quotas, with a memory that ends with the process.
    #[must_use]
    pub fn alone(variables: Variables) -> Self {
        Self::new(variables, Arc::new(Unlimited), Arc::new(LocalMemory::default()))
    }

    /// Returns the same context for one run.
    #[must_use]
    pub fn for_run(&self, options: RunOptions) -> Self {
        Self { options: Arc::new(options), ..self.clone() }
    }
}
