#![doc = include_str!("../README.md")]

mod expression;
mod fields;
pub mod format;
mod http;
mod nearest;
mod outbound;
mod parse;
mod path;
mod pii;
mod pipeline;
mod places;
mod problem;
mod push;
mod reader;
mod revision;
mod secret;
mod shared;
mod template;
pub mod text;
mod triggers;
mod yaml;

pub use expression::{Expression, FUNCTIONS, InvalidExpression};
pub use fields::{castable, fields_after, flattened_name};
pub use http::{
    Answer, AnswerFormat, AnswerPlace, Auth, ErrorAction, ErrorRule, Fetch, Grant, HmacSigning,
    HttpBody, HttpClient, HttpRequest, HttpRetry, HttpSource, Incremental, KeyPlace, NewsBy,
    NewsKind, OAuth2, PageKind, Pagination, Parent, TextTest, TimeFormat, TimestampForm, Tls,
};
pub use outbound::{
    AnswerRule, BatchResults, Delivered, HttpTarget, Nulls, OutboundBatch, OutboundBody,
    OutboundRequest, Payload, UNDELIVERED, Verdict, WebhookTarget, delivered_key, disabled_key,
};
pub use parse::{is_shared, parse, parse_shared};
pub use path::{JsonPath, PathStep};
pub use pii::pii_after;
pub use pipeline::{
    Capture, Cast, Compute, CsvSource, Deletes, Encoding, Flatten, JsonLayout, JsonSource, Mode,
    Pipeline, PostgresSource, Rows, Source, SqliteSource, Step, TableRead, Target, TargetSystem,
};
pub use places::Places;
pub use problem::Problem;
pub use push::{
    GrpcIngest, HmacAlgorithm, HmacEncoding, Place, PushOperation, PushTrigger, PushedAs, Verify,
    Webhook,
};
pub use revision::Revision;
pub use secret::{ResolveError, SecretFiles, SecretText};
pub use shared::{Connection, NamedQuota, Shared};
pub use template::{
    JsonTemplate, ReadyJson, ReadyTemplate, Template, Unfilled, Values, quoted, text_of,
};
pub use triggers::{CatchUp, Cron, Every, Overlap, Triggers, Window, Windows};
