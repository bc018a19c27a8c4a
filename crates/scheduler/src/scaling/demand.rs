use std::{collections::HashMap, fmt, time::Duration};

use model::PipelineName;

use super::survey::Waiting;

/// A stage that can have more or fewer replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Extractor,
    Transformer,
    Loader,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Extractor, Self::Transformer, Self::Loader];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Extractor => "extractor",
            Self::Transformer => "transformer",
            Self::Loader => "loader",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a trigger asks for, read from its metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Demand {
    stage: Stage,
    pipeline: Option<PipelineName>,
    target: Option<PipelineName>,
    /// Tasks or batches that one replica is to have.
    pub(crate) backlog: f64,
    /// Age in seconds that the oldest is to have with one replica.
    pub(crate) age: Option<f64>,
}

/// The metadata of a trigger cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidDemand {
    #[error("`stage` is missing in the trigger's metadata; use extractor, transformer or loader")]
    NoStage,
    #[error("`stage` is `{0}`; use extractor, transformer or loader")]
    Stage(String),
    #[error("`{key}` is `{found}`; use the name of a {key}")]
    Name { key: &'static str, found: String },
    #[error("`{key}` is `{found}`; use a number above 0")]
    Number { key: &'static str, found: String },
    #[error("`target` needs `pipeline`, and belongs to the loader")]
    Target,
    #[error("`{0}` is not known; use stage, pipeline, target, backlog and age")]
    Key(String),
}

/// Keys that KEDA adds by itself, or reads.
const OF_KEDA: [&str; 7] = [
    "enableTLS",
    "scalerAddress",
    "tlsCertFile",
    "caCert",
    "tlsClientCert",
    "tlsClientKey",
    "unsafeSsl",
];

/// Tasks or batches that one replica has, unless the trigger says otherwise.
const BACKLOG: f64 = 20.0;

impl Demand {
    pub(crate) fn read(metadata: &HashMap<String, String>) -> Result<Self, InvalidDemand> {
        let known = ["stage", "pipeline", "target", "backlog", "age"];
        let unknown =
            |key: &&String| !known.contains(&key.as_str()) && !OF_KEDA.contains(&key.as_str());
        if let Some(key) = metadata.keys().find(unknown) {
            return Err(InvalidDemand::Key(key.clone()));
        }
        let stage = metadata.get("stage").ok_or(InvalidDemand::NoStage)?;
        let found = Stage::ALL.into_iter().find(|known| known.as_str() == stage);
        let stage = found.ok_or_else(|| InvalidDemand::Stage(stage.clone()))?;
        let name = |key| {
            let named = metadata.get(key).map(|text| {
                text.parse::<PipelineName>()
                    .map_err(|_| InvalidDemand::Name { key, found: text.clone() })
            });
            named.transpose()
        };
        let number = |key| {
            let written = metadata.get(key).map(|text| {
                let number = text.parse::<f64>().ok().filter(|found| *found > 0.0);
                let number = number.filter(|found| found.is_finite());
                number.ok_or_else(|| InvalidDemand::Number { key, found: text.clone() })
            });
            written.transpose()
        };
        let (pipeline, target) = (name("pipeline")?, name("target")?);
        if target.is_some() && (pipeline.is_none() || stage != Stage::Loader) {
            return Err(InvalidDemand::Target);
        }
        let (backlog, age) = (number("backlog")?.unwrap_or(BACKLOG), number("age")?);
        Ok(Self { stage, pipeline, target, backlog, age })
    }

    /// Name of the metric that counts what waits.
    pub(crate) fn backlog_metric(&self) -> String {
        format!("tributary-{}-backlog", self.stage)
    }

    /// Name of the metric that tells the age of the oldest, in seconds.
    pub(crate) fn age_metric(&self) -> String {
        format!("tributary-{}-age", self.stage)
    }

    /// Counts what waits and tells the age of the oldest. What is held up by a quota only does not
    /// count.
    pub(crate) fn of(&self, waiting: &[Waiting]) -> (u64, Duration) {
        let meant = waiting.iter().filter(|lane| {
            lane.stage == self.stage
                && !lane.is_held
                && self.pipeline.as_ref().is_none_or(|name| *name == lane.pipeline)
                && self.target.as_ref().is_none_or(|name| lane.target.as_ref() == Some(name))
        });
        meant.fold((0, Duration::ZERO), |(messages, age), lane| {
            (messages + lane.messages, age.max(lane.age))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(metadata: &[(&str, &str)]) -> Result<Demand, InvalidDemand> {
        let owned = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Demand::read(&owned.collect())
    }

    #[test]
    fn metadata_that_cannot_be_used_is_named() {
        assert_eq!(read(&[]), Err(InvalidDemand::NoStage));
        for (metadata, named) in [
            (&[("stage", "painter")][..], "painter"),
            (&[("stage", "loader"), ("pipline", "a")], "pipline"),
            (&[("stage", "loader"), ("pipeline", "A b")], "pipeline"),
            (&[("stage", "loader"), ("backlog", "0")], "backlog"),
            (&[("stage", "loader"), ("backlog", "NaN")], "backlog"),
            (&[("stage", "loader"), ("age", "soon")], "age"),
            (&[("stage", "loader"), ("target", "store")], "target"),
            (&[("stage", "extractor"), ("pipeline", "a"), ("target", "b")], "target"),
        ] {
            let told = read(metadata).unwrap_err().to_string();
            assert!(told.contains(named), "{told}");
        }
        let demand = read(&[("stage", "loader"), ("scalerAddress", "a:1")]).unwrap();
        assert_eq!((demand.backlog, demand.age), (BACKLOG, None));
    }

    #[test]
    fn only_what_is_meant_counts_and_not_what_waits_for_a_quota() {
        let lane = |stage, pipeline: &str, target: Option<&str>, messages, age, is_held| Waiting {
            stage,
            pipeline: pipeline.parse().unwrap(),
            target: target.map(|target| target.parse().unwrap()),
            messages,
            bytes: 0,
            age: Duration::from_secs(age),
            is_held,
        };
        let waiting = [
            lane(Stage::Loader, "orders", Some("store"), 7, 5, false),
            lane(Stage::Loader, "orders", Some("mail"), 90, 600, true),
            lane(Stage::Loader, "people", Some("store"), 4, 9, false),
            lane(Stage::Transformer, "orders", None, 1, 1, false),
        ];
        let of = |metadata: &[(&str, &str)]| {
            let (messages, age) = read(metadata).unwrap().of(&waiting);
            (messages, age.as_secs())
        };
        assert_eq!(of(&[("stage", "loader")]), (11, 9));
        assert_eq!(of(&[("stage", "loader"), ("pipeline", "orders")]), (7, 5));
        let mail = [("stage", "loader"), ("pipeline", "orders"), ("target", "mail")];
        assert_eq!(of(&mail), (0, 0));
        assert_eq!(of(&[("stage", "extractor")]), (0, 0));
    }
}
