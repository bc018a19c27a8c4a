use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::PipelineName;
use spec::Pipeline;
use stage::{Failure, Pipelines};
use tokio_util::sync::CancellationToken;

use crate::Program;

/// Revisions whose programs are kept.
const KEPT_REVISIONS: usize = 2;

/// A revision ready for its batches.
pub(crate) struct Compiled {
    pub(crate) program: Program,
    pub(crate) targets: Vec<PipelineName>,
}

/// The programs of one pipeline, compiled when first needed and when a secret has changed.
pub(crate) struct Programs {
    pipeline: PipelineName,
    pipelines: Pipelines,
    compiled: Mutex<BTreeMap<u32, (u64, Arc<Compiled>)>>,
}

impl Programs {
    pub(crate) fn new(pipeline: PipelineName, pipelines: Pipelines) -> Self {
        Self { pipeline, pipelines, compiled: Mutex::default() }
    }

    /// Returns the program of a revision, which is waited for.
    pub(crate) async fn get(
        &self,
        revision: u32,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Compiled>, Failure> {
        let stored = self.pipelines.get(&self.pipeline, revision, shutdown).await?;
        let secrets = stored.secrets_state();
        if let Some((state, compiled)) = self.kept().get(&revision)
            && *state == secrets
        {
            return Ok(Arc::clone(compiled));
        }
        let compiled = Arc::new(compile(stored.pipeline()?)?);
        let mut kept = self.kept();
        kept.insert(revision, (secrets, Arc::clone(&compiled)));
        while kept.len() > KEPT_REVISIONS {
            kept.pop_first();
        }
        Ok(compiled)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, (u64, Arc<Compiled>)>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compile(pipeline: &Pipeline) -> Result<Compiled, Failure> {
    let stop = |reason: String, hint: &str| Failure::Stop { reason, hint: hint.to_owned() };
    let schema = pipeline.schema.as_ref().ok_or_else(|| {
        stop(format!("pipeline `{}` has no schema yet", pipeline.name), "start the run again")
    })?;
    let program = Program::compile(pipeline, schema, &|name| std::env::var(name).ok())
        .map_err(|error| stop(stage::chain(&error), error.hint()))?;
    let targets = pipeline.targets.iter().map(|target| target.name.clone()).collect();
    Ok(Compiled { program, targets })
}
