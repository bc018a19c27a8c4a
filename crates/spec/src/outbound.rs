use std::time::Duration;

use model::PipelineName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{HttpBody, HttpClient, JsonPath, SecretText, TargetSystem, Template, TextTest};

/// An HTTP API that records are sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpTarget {
    /// How to reach it.
    pub client: HttpClient,
    /// What is called for a record that is there.
    pub upsert: OutboundRequest,
    /// What is called for a record that is gone; `None`: nothing, unless a field is cleared.
    pub delete: Option<OutboundRequest>,
    /// Many records go into one call; deletes always go alone.
    pub batch: Option<OutboundBatch>,
    /// What certain answers mean; the first rule that fits counts.
    pub answers: Vec<AnswerRule>,
    /// What becomes of nulls, for fields that are not in `null_fields`.
    pub nulls: Nulls,
    /// What becomes of the nulls of certain fields.
    pub null_fields: Vec<(String, Nulls)>,
    /// A record of which nothing is new is not sent, and of others only what is new, and the key.
    pub only_changed: bool,
    /// Header that carries the idempotency key; `None`: none does.
    pub idempotency_header: Option<String>,
    /// The API takes a repeated call for one: by its idempotency key, or because it sets a state.
    /// Otherwise a call whose outcome is unknown is not repeated.
    pub idempotent: bool,
    /// Each key is sent once for all time.
    pub once: bool,
    /// Calls that may be open at once in one loader, 1 to 256.
    pub in_flight: usize,
    /// How often a record is tried that fails where others succeed, at least 1.
    pub attempts: u32,
    /// After an outage one loader sends what has piled up at most so many times as fast as it called
    /// in the minute before, and ten times a second at least; 1 to 1000. `None`: as fast as it can.
    pub drain: Option<f64>,
}

impl HttpTarget {
    /// Returns what becomes of the nulls of a field.
    #[must_use]
    pub fn nulls_of(&self, field: &str) -> Nulls {
        let own = self.null_fields.iter().find(|(name, _)| name == field);
        own.map_or(self.nulls, |(_, nulls)| *nulls)
    }

    /// Tells whether fields are sent as null when their record is deleted.
    #[must_use]
    pub fn clears(&self) -> bool {
        self.nulls == Nulls::Clear || self.null_fields.iter().any(|(_, n)| *n == Nulls::Clear)
    }
}

impl TargetSystem {
    /// Returns what tells this system from others: its kind and where it is. How it is written to
    /// does not matter.
    #[must_use]
    pub fn place(&self) -> (&'static str, &str) {
        match self {
            Self::Postgres { url } => ("postgres", url.as_written()),
            Self::Sqlite { path } => ("sqlite", path),
            Self::Http(http) => ("http", http.client.base_url.as_written()),
            Self::Webhook(webhook) => ("webhook", webhook.client.base_url.as_written()),
        }
    }

    /// Returns the names that the records have to have values for, each with the key below the
    /// target under which it stands.
    pub(crate) fn places(&self) -> Vec<(&'static str, String)> {
        let own =
            |name: &str| ["key", "record", "record.id", "operation", "pipeline"].contains(&name);
        let (mut places, mut add) = (Vec::new(), Vec::new());
        match self {
            Self::Postgres { .. } | Self::Sqlite { .. } => {}
            Self::Http(http) => {
                add.push(("http.upsert", http.upsert.names()));
                add.extend(http.delete.iter().map(|delete| ("http.delete", delete.names())));
                let fields = http.null_fields.iter().map(|(name, _)| name.clone()).collect();
                places.push(("http.nulls", fields));
            }
            Self::Webhook(webhook) => {
                let names = webhook.event.names().map(str::to_owned).collect();
                add.push(("webhook.event", names));
            }
        }
        for (_, names) in &mut add {
            names.retain(|name: &String| !own(name));
        }
        places.extend(add);
        places
            .into_iter()
            .flat_map(|(key, names)| names.into_iter().map(move |name| (key, name)))
            .collect()
    }
}

impl OutboundRequest {
    fn names(&self) -> Vec<String> {
        let pairs = self.query.iter().chain(&self.headers).map(|(_, value)| value);
        let mut names: Vec<String> = std::iter::once(&self.path)
            .chain(pairs)
            .flat_map(Template::names)
            .map(str::to_owned)
            .collect();
        match &self.body {
            OutboundBody::Empty | OutboundBody::Full => {}
            OutboundBody::Template(HttpBody::Json(json)) => {
                names.extend(json.names().into_iter().map(str::to_owned));
            }
            OutboundBody::Template(HttpBody::Form(form)) => {
                let form = form.iter().flat_map(|(_, value)| value.names());
                names.extend(form.map(str::to_owned));
            }
        }
        names
    }
}

/// A call. Places are the fields of the record, `key`, `record`, `record.id` and `operation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundRequest {
    /// Method, in upper case.
    pub method: String,
    /// Path behind the base URL.
    pub path: Template,
    /// Query. A parameter with a place that has no value is left out.
    pub query: Vec<(String, Template)>,
    /// Headers; left out likewise.
    pub headers: Vec<(String, Template)>,
    /// Body.
    pub body: OutboundBody,
}

/// Body of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboundBody {
    /// None.
    Empty,
    /// All fields of the record as a JSON object.
    Full,
    /// Of a shape of its own.
    Template(HttpBody),
}

/// A call for many records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundBatch {
    /// Most records of one call, at least 2.
    pub size: usize,
    /// The call. Its places are `records`, which is the list of what `upsert.body` makes of each
    /// record, and `count`. [`OutboundBody::Full`]: the list itself.
    pub request: OutboundRequest,
    /// How the answer tells what became of each record; `None`: it tells of all at once.
    pub results: Option<BatchResults>,
}

/// How the answer to a call for many records tells what became of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchResults {
    /// Way to the list of results.
    pub list: JsonPath,
    /// Way in a result to the key of its record; `None`: results are in the order of the records.
    pub key: Option<JsonPath>,
    /// Way in a result to its status, which counts like that of an answer; `None`: results have none.
    pub status: Option<JsonPath>,
}

/// What certain answers mean. A rule whose conditions all hold fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRule {
    /// Statuses, from and to; empty: all.
    pub status: Vec<(u16, u16)>,
    /// A header and what has to be in it.
    pub header: Option<(String, TextTest)>,
    /// A place in the body, or in the result of a record, and what has to be there.
    pub body: Option<(JsonPath, TextTest)>,
    /// What it means.
    pub then: Verdict,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The record is there.
    Success,
    /// It did not happen; later it may.
    Retry,
    /// The record is refused for good.
    Reject,
    /// Nothing will be taken until somebody has done something.
    Stop,
}

/// What becomes of nulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// They are sent.
    Send,
    /// The field is left out.
    Skip,
    /// The field is left out, and sent as null when the record is deleted.
    Clear,
}

/// A receiver of webhooks, signed after Standard Webhooks 1.0.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookTarget {
    /// How to reach it; its base URL is where webhooks are posted.
    pub client: HttpClient,
    /// Secrets, `whsec_` and Base64; each signs, so that a receiver may know any of them.
    pub secrets: Vec<SecretText>,
    /// What is told of a record.
    pub payload: Payload,
    /// Name of the event; places as in a call, where `operation` is `created`, `updated` or
    /// `deleted`.
    pub event: Template,
    /// Calls that may be open at once in one loader, 1 to 256.
    pub in_flight: usize,
    /// How often a record is tried that fails where others succeed, at least 1.
    pub attempts: u32,
    /// As of an API.
    pub drain: Option<f64>,
    /// Waits between attempts, at least one. While the first lasts the loader keeps what it has in
    /// hand; after it, what was not delivered is set aside and sent again after each of the others.
    pub retry: Vec<Duration>,
    /// How long nothing may get through until the receiver is disabled.
    pub disable_after: Duration,
    /// How long what was delivered can be sent again; zero: not at all.
    pub keep_delivered: Duration,
}

/// Code under which a webhook that was not delivered is quarantined, until it is sent again.
pub const UNDELIVERED: &str = "undelivered";

/// Returns the key that is remembered while a receiver is disabled.
#[must_use]
pub fn disabled_key(pipeline: &PipelineName, target: &PipelineName) -> String {
    format!("{pipeline}.{target}.disabled")
}

/// Returns the key under which the last webhook is remembered that was delivered for a record's key.
#[must_use]
pub fn delivered_key(pipeline: &str, target: &str, key: &str) -> String {
    format!("{pipeline}.{target}.{key}.delivered")
}

/// A webhook that was delivered, the last one for its key, so that it can be sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: i64,
    /// The values of the record's key, joined by commas.
    pub key: String,
    /// Id of the record.
    pub record: String,
    /// Its version.
    pub version: (i64, i64),
    /// A batch message that holds the record alone, in base64.
    pub message: String,
    /// What the receiver had been told of these fields before; `None`: nothing of the key.
    pub before: Option<Map<String, Value>>,
    /// Somebody has asked for it to be sent again.
    pub again: bool,
}

/// What a webhook tells of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// All fields.
    Full,
    /// The fields that are not what they were, with the values before and now, and the key.
    Changed,
    /// The key.
    Thin,
}

impl WebhookTarget {
    /// Returns the API that a receiver of webhooks is, but for what is sent.
    #[must_use]
    pub fn as_api(&self) -> HttpTarget {
        let rule = |status| AnswerRule {
            status: vec![(status, status)],
            header: None,
            body: None,
            then: Verdict::Stop,
        };
        HttpTarget {
            client: self.client.clone(),
            upsert: OutboundRequest {
                method: "POST".to_owned(),
                path: Template::parse("").expect("the empty text has no place"),
                query: Vec::new(),
                headers: Vec::new(),
                body: OutboundBody::Full,
            },
            delete: None,
            batch: None,
            // Nobody listens there any more.
            answers: vec![rule(404), rule(410)],
            nulls: Nulls::Send,
            null_fields: Vec::new(),
            only_changed: false,
            idempotency_header: None,
            idempotent: true,
            once: false,
            in_flight: self.in_flight,
            attempts: self.attempts,
            drain: self.drain,
        }
    }
}
