//! How the broker stands, as it reports itself back: old servers take settings and ignore them.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::{kv, stream};
use serde_json::{Value, json};

use crate::{Bucket, Bus, BusError, Stream, error::Cause, missing};

/// A stream as it was found, those of buckets included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// Name of the stream.
    pub name: String,
    /// Whether it exists.
    pub exists: bool,
    /// Settings that are not what they have to be.
    pub differences: Vec<Difference>,
    /// Copies that are not up to date or not there: the names of their servers.
    pub lagging: Vec<String>,
    /// Bytes it holds.
    pub bytes: u64,
    /// Bytes it may hold; 0: unlimited.
    pub max_bytes: u64,
}

/// A setting that is not what it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the setting, as NATS spells it.
    pub setting: &'static str,
    /// What the server reports; `null` where it knows no such setting.
    pub found: String,
    /// What was asked for.
    pub wanted: String,
    /// Whether it can be changed while the stream exists.
    pub changeable: bool,
}

/// How far the broker's clock is from this process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    /// By how much at least, whatever the way of question and answer took; zero if they may agree.
    pub at_least: Duration,
    /// Whether the broker is ahead.
    pub ahead: bool,
}

/// How full a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The stream.
    pub stream: Stream,
    /// Bytes it holds.
    pub bytes: u64,
    /// Bytes it may hold.
    pub max_bytes: u64,
}

/// Settings that are compared, by their names in the API, and whether they can be changed.
const COMPARED: [(&str, bool); 10] = [
    ("subjects", true),
    ("retention", false),
    ("discard", true),
    ("storage", false),
    ("max_bytes", true),
    ("max_msgs", true),
    ("max_msgs_per_subject", true),
    ("max_age", true),
    ("duplicate_window", true),
    ("num_replicas", true),
];

impl Bus {
    /// Compares all streams and buckets with what they have to be. Changes nothing.
    ///
    /// # Errors
    ///
    /// When JetStream does not answer, is not enabled, or may not be asked.
    pub async fn inspect(&self) -> Result<Vec<StreamReport>, BusError> {
        let streams = Stream::ALL.into_iter().map(|stream| self.wanted_stream(stream));
        let buckets = Bucket::ALL.into_iter().map(|bucket| as_stream(&self.wanted_bucket(bucket)));
        let wanted = streams.chain([self.wanted_deliveries()]).chain(buckets);
        let mut reports = Vec::new();
        for wanted in wanted {
            reports.push(self.report(&wanted).await?);
        }
        Ok(reports)
    }

    /// Tells how full the streams are.
    ///
    /// # Errors
    ///
    /// As [`Bus::inspect`].
    pub async fn rooms(&self) -> Result<Vec<Room>, BusError> {
        let mut rooms = Vec::new();
        for stream in Stream::ALL {
            let report = self.report(&self.wanted_stream(stream)).await?;
            let (bytes, max_bytes) = (report.bytes, report.max_bytes);
            rooms.push(Room { stream, bytes, max_bytes });
        }
        Ok(rooms)
    }

    /// Compares the broker's clock with `now`, this process's.
    ///
    /// # Errors
    ///
    /// When the broker does not answer, or the streams are missing.
    pub async fn clock_skew(&self, now: impl Fn() -> SystemTime) -> Result<Skew, BusError> {
        let name = self.names().stream(Stream::Tasks);
        let before = now();
        let answer = self.stream_info(&name).await;
        let after = now();
        let failed = |cause: Cause| BusError::new("tell its time", cause);
        let answer = answer.map_err(failed)?;
        let told = answer["ts"].as_str().ok_or_else(|| failed("there is no time".into()))?;
        let told =
            chrono::DateTime::parse_from_rfc3339(told).map_err(|error| failed(error.into()))?;
        let told = SystemTime::from(told);
        Ok(match (told.duration_since(after), before.duration_since(told)) {
            (Ok(ahead), _) => Skew { at_least: ahead, ahead: true },
            (_, Ok(behind)) => Skew { at_least: behind, ahead: false },
            _ => Skew { at_least: Duration::ZERO, ahead: false },
        })
    }

    async fn report(&self, wanted: &stream::Config) -> Result<StreamReport, BusError> {
        let name = wanted.name.clone();
        let info = match self.stream_info(&name).await {
            Ok(info) => info,
            Err(error) if missing::is_missing(&*error) => {
                let (differences, lagging) = (Vec::new(), Vec::new());
                let (exists, bytes, max_bytes) = (false, 0, 0);
                return Ok(StreamReport { name, exists, differences, lagging, bytes, max_bytes });
            }
            Err(error) => return Err(BusError::new(format!("describe stream `{name}`"), error)),
        };
        let wanted = serde_json::to_value(wanted).expect("settings are texts and numbers");
        Ok(StreamReport {
            name,
            exists: true,
            differences: differences(&info["config"], &wanted),
            lagging: lagging(&info["cluster"]),
            bytes: info["state"]["bytes"].as_u64().unwrap_or(0),
            max_bytes: info["config"]["max_bytes"].as_u64().unwrap_or(0),
        })
    }

    /// The answer as it is: the client library leaves out what it does not know.
    async fn stream_info(&self, name: &str) -> Result<Value, Cause> {
        let subject = format!("STREAM.INFO.{name}");
        let answer = self.jetstream().request::<_, _, Value>(subject, &json!({})).await?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => {
                let error: async_nats::jetstream::Error = serde_json::from_value(error.clone())?;
                Err(error.into())
            }
        }
    }
}

/// What the client library makes of a bucket, as far as it is compared.
fn as_stream(bucket: &kv::Config) -> stream::Config {
    stream::Config {
        name: format!("KV_{}", bucket.bucket),
        subjects: vec![format!("$KV.{}.>", bucket.bucket)],
        retention: stream::RetentionPolicy::Limits,
        discard: stream::DiscardPolicy::New,
        storage: bucket.storage,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: bucket.history,
        max_age: bucket.max_age,
        num_replicas: bucket.num_replicas,
        // As long as the values live, two minutes at most.
        duplicate_window: match bucket.max_age {
            Duration::ZERO => Duration::from_secs(120),
            age => age.min(Duration::from_secs(120)),
        },
        ..stream::Config::default()
    }
}

fn differences(found: &Value, wanted: &Value) -> Vec<Difference> {
    // All of these mean unlimited or the default.
    let absent = |value: &Value| value.is_null() || [json!(0), json!(-1)].contains(value);
    COMPARED
        .into_iter()
        .filter(|(setting, _)| {
            let (found, wanted) = (&found[*setting], &wanted[*setting]);
            found != wanted && !(absent(found) && absent(wanted))
        })
        // The server fills in what was left to it.
        .filter(|(setting, _)| !(*setting == "duplicate_window" && absent(&wanted[*setting])))
        .map(|(setting, changeable)| Difference {
            setting,
            found: found[setting].to_string(),
            wanted: wanted[setting].to_string(),
            changeable,
        })
        .collect()
}

fn lagging(cluster: &Value) -> Vec<String> {
    let replicas = cluster["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    replicas
        .iter()
        .filter(|replica| replica["offline"] == json!(true) || replica["current"] == json!(false))
        .map(|replica| replica["name"].as_str().unwrap_or("a server").to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_the_server_left_out_is_a_difference() {
        let wanted = json!({"retention": "workqueue", "discard": "new", "max_age": 0});
        assert_eq!(differences(&wanted, &wanted), []);
        let found = json!({"retention": "workqueue"});
        let found = differences(&found, &wanted);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].setting, found[0].found.as_str()), ("discard", "null"));
    }

    #[test]
    fn copies_that_are_away_are_named() {
        let cluster = json!({"leader": "a", "replicas": [
            {"name": "b", "current": true},
            {"name": "c", "current": false, "offline": true},
        ]});
        assert_eq!(lagging(&cluster), ["c"]);
        assert!(lagging(&Value::Null).is_empty());
    }
}
