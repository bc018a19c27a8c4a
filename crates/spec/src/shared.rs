use model::{PipelineName, Quota};

use crate::Places;

/// What pipelines share: quotas and connections, checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shared {
    /// Call budgets; names are unique.
    pub quotas: Vec<NamedQuota>,
    /// Ways to other systems; names are unique.
    pub connections: Vec<Connection>,
    /// Where its parts stand in the text, for messages.
    pub places: Places,
}

/// A call budget and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedQuota {
    /// The name, under which HTTP sources and targets use it.
    pub name: PipelineName,
    /// The budget.
    pub quota: Quota,
}

/// What all pipelines of one connection share.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Connection {
    /// The name, under which sources use it.
    pub name: PipelineName,
    /// Runs that may go on at a time, over all pipelines of the connection; at least one.
    pub concurrent_runs: u32,
}

impl crate::Pipeline {
    /// Returns the quotas that the pipeline uses, each with the key that names it.
    #[must_use]
    pub fn quotas(&self) -> Vec<(&PipelineName, String)> {
        let mut quotas = Vec::new();
        if let crate::Source::Http(source) = &self.source
            && let Some(quota) = &source.client.quota
        {
            quotas.push((quota, "source.http.quota".to_owned()));
        }
        for target in &self.targets {
            let (client, kind) = match &target.system {
                crate::TargetSystem::Http(http) => (&http.client, "http"),
                crate::TargetSystem::Webhook(webhook) => (&webhook.client, "webhook"),
                crate::TargetSystem::Postgres { .. } | crate::TargetSystem::Sqlite { .. } => {
                    continue;
                }
            };
            if let Some(quota) = &client.quota {
                quotas.push((quota, format!("targets.{}.{kind}.quota", target.name)));
            }
        }
        quotas
    }
}
