use std::time::Duration;

use model::PipelineName;
use serde::{Deserialize, Serialize};

use crate::{Encoding, HmacAlgorithm, HmacEncoding, JsonPath, JsonTemplate, SecretText, Template};

/// How to reach an HTTP API; sources and targets share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpClient {
    /// URL that all paths are joined to.
    pub base_url: SecretText,
    /// How calls prove who makes them.
    pub auth: Auth,
    /// Headers of every call.
    pub headers: Vec<(String, SecretText)>,
    /// Time that one call may take, its answer included.
    pub timeout: Duration,
    /// Private, loopback, link-local and metadata addresses may be dialled.
    pub allow_private: bool,
    /// Quota that every call is counted under.
    pub quota: Option<PipelineName>,
    /// Certificates.
    pub tls: Tls,
    /// Greatest size of an answer in bytes, after decompression.
    pub max_answer: usize,
}

/// Certificates, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Certificates that sign the server's; `None`: those that the system trusts.
    pub ca: Option<SecretText>,
    /// Our certificate with its chain.
    pub certificate: Option<SecretText>,
    /// Its key; given if and only if the certificate is.
    pub key: Option<SecretText>,
}

/// How calls prove who makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// A key at a named place.
    ApiKey {
        /// Kind of place.
        place: KeyPlace,
        /// Name of the header, parameter or cookie.
        name: String,
        /// The key.
        value: SecretText,
    },
    /// HTTP Basic.
    Basic {
        /// User.
        user: SecretText,
        /// Password.
        password: SecretText,
    },
    /// A fixed token.
    Bearer(SecretText),
    /// A token from a token endpoint.
    OAuth2(OAuth2),
    /// Every call is signed.
    Hmac(HmacSigning),
}

/// Where an API key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a header.
    Header,
    /// In the query.
    Query,
    /// In a cookie.
    Cookie,
}

/// How a token is got. It is renewed before it ends, and once after an answer 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth2 {
    /// URL of the token endpoint.
    pub token_url: SecretText,
    /// What is exchanged for the token.
    pub grant: Grant,
    /// The client.
    pub client_id: SecretText,
    /// Its secret; public clients have none.
    pub client_secret: Option<SecretText>,
    /// The client is named in the form, not by HTTP Basic.
    pub client_in_body: bool,
    /// Scopes, separated by spaces.
    pub scope: Option<String>,
    /// More fields of the form.
    pub parameters: Vec<(String, SecretText)>,
}

/// What is exchanged for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// The client's own credentials.
    ClientCredentials,
    /// A token that a user gave once. A new one that comes with an answer replaces it.
    RefreshToken(SecretText),
}

/// How calls are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacSigning {
    /// The key.
    pub secret: SecretText,
    /// Hash.
    pub algorithm: HmacAlgorithm,
    /// How the header writes the signature.
    pub encoding: HmacEncoding,
    /// Name of the header that holds the signature, in lower case.
    pub header: String,
    /// What stands before the signature.
    pub prefix: String,
    /// What is signed: a text with places `method`, `host`, `path`, `query`, `body`, `timestamp`.
    pub message: Template,
    /// Name of the header that holds the time, in lower case.
    pub timestamp_header: Option<String>,
    /// How the time is written.
    pub timestamp: TimestampForm,
}

/// How the time of a signed call is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampForm {
    /// Seconds since 1970-01-01 UTC.
    Seconds,
    /// Milliseconds since 1970-01-01 UTC.
    Milliseconds,
    /// `2026-11-23T22:00:00Z`.
    Rfc3339,
}

/// An HTTP API that is asked for records.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSource {
    /// How to reach it.
    pub client: HttpClient,
    /// Values for `{{ config.… }}`.
    pub config: Vec<(String, String)>,
    /// What is asked.
    pub request: HttpRequest,
    /// How records lie in an answer.
    pub answer: Answer,
    /// Fields that identify a record; empty: its content and its place do.
    pub key: Vec<String>,
    /// How an answer leads to the next one.
    pub paginate: Pagination,
    /// How only news are asked for.
    pub incremental: Option<Incremental>,
    /// Records of another resource, for each of which the request is made.
    pub parent: Option<Parent>,
    /// How a single object is asked for, by `{{ id }}`.
    pub fetch: Option<Fetch>,
    /// What certain answers mean; the first rule that fits counts.
    pub errors: Vec<ErrorRule>,
    /// How calls are repeated.
    pub retry: HttpRetry,
    /// Answers that take so many times as long as usual make the source be read more slowly; 0:
    /// never.
    pub slow_down_factor: f64,
    /// Ask with `If-None-Match` and `If-Modified-Since` where answers allow it.
    pub conditional: bool,
}

/// A request with places for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method, in upper case.
    pub method: String,
    /// Path behind the base URL.
    pub path: Template,
    /// Query. A parameter with a place that has no value is left out.
    pub query: Vec<(String, Template)>,
    /// Headers; left out likewise.
    pub headers: Vec<(String, Template)>,
    /// Body.
    pub body: Option<HttpBody>,
}

/// Body of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpBody {
    /// `application/json`.
    Json(JsonTemplate),
    /// `application/x-www-form-urlencoded`.
    Form(Vec<(String, Template)>),
}

/// How records lie in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Format.
    pub format: AnswerFormat,
    /// Way to the records: a list of objects, or one object. In XML the elements on the way,
    /// without the root.
    pub records: JsonPath,
}

/// Format of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerFormat {
    /// One JSON document.
    Json,
    /// One JSON object per line.
    Lines,
    /// CSV with a header.
    Csv {
        /// Byte between fields.
        delimiter: u8,
        /// Byte around fields.
        quote: Option<u8>,
        /// Encoding without a byte order mark.
        encoding: Encoding,
        /// Unquoted texts that mean null.
        null_values: Vec<String>,
    },
    /// XML: attributes and child elements are fields.
    Xml,
}

/// How an answer leads to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pagination {
    /// The way.
    pub kind: PageKind,
    /// Parameter that asks for the size of a page.
    pub size_param: Option<String>,
    /// Records of a full page: a page with fewer is the last one.
    pub size: Option<u64>,
    /// Where an answer says `true` or `false` about there being more.
    pub more: Option<JsonPath>,
}

/// The way from an answer to the next one. `param` is the parameter of the query that carries what
/// leads on; without it, a template does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageKind {
    /// There is one answer.
    Single,
    /// Found out from the first answer.
    Auto,
    /// Pages have numbers: `{{ page.number }}`.
    Number {
        /// Parameter.
        param: Option<String>,
        /// Number of the first page.
        first: u64,
    },
    /// Pages begin at a record: `{{ page.offset }}`.
    Offset {
        /// Parameter.
        param: Option<String>,
    },
    /// An answer has a token for the next one: `{{ page.cursor }}`.
    Cursor {
        /// Where the token is.
        from: AnswerPlace,
        /// Parameter.
        param: Option<String>,
    },
    /// An answer has the URL of the next one.
    NextLink(JsonPath),
    /// A `Link` header has the URL of the next one.
    LinkHeader,
    /// The next page begins behind the last record: `{{ page.last }}`.
    LastKey {
        /// Field of the record.
        field: JsonPath,
        /// Parameter.
        param: Option<String>,
    },
}

/// A place in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerPlace {
    /// In the body.
    Body(JsonPath),
    /// In a header, its name in lower case.
    Header(String),
}

/// How only news are asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Incremental {
    /// What tells new from old.
    pub by: NewsBy,
    /// Parameter for the beginning, `{{ cursor.from }}`, or for the token, `{{ cursor.token }}`.
    pub param: Option<String>,
    /// Parameter for the end, `{{ cursor.to }}`.
    pub until_param: Option<String>,
}

/// What tells new from old.
#[derive(Debug, Clone, PartialEq)]
pub enum NewsBy {
    /// A field that grows with every change.
    Field {
        /// Way to it in a record.
        field: JsonPath,
        /// What its values are.
        kind: NewsKind,
        /// Where the first run begins, in units of `kind`.
        start: Option<i64>,
        /// Where everything ends, in units of `kind`; it is not part of it.
        end: Option<i64>,
        /// So much before the greatest value seen is asked for again, in units of `kind`.
        lookback: i64,
        /// A run asks for pieces of this length, one after the other, in units of `kind`.
        step: Option<i64>,
        /// Records that are older than what was asked for are left out here, because the API does
        /// not do it.
        filter: bool,
    },
    /// A token that the last answer of a run has for the next run.
    Token(AnswerPlace),
}

/// What the values of a growing field are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewsKind {
    /// Moments, microseconds since 1970-01-01 UTC.
    Timestamp(TimeFormat),
    /// Days since 1970-01-01, with their strftime format; `None`: ISO 8601.
    Date(Option<String>),
    /// Whole numbers.
    Number,
}

/// How moments are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// ISO 8601.
    Iso,
    /// Seconds since 1970-01-01 UTC.
    Seconds,
    /// Milliseconds since 1970-01-01 UTC.
    Milliseconds,
    /// strftime.
    Format(String),
}

/// Records of another resource, for each of which a request is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// What is asked.
    pub request: HttpRequest,
    /// How its records lie in an answer.
    pub answer: Answer,
    /// How an answer leads to the next one.
    pub paginate: Pagination,
    /// Field that identifies a parent.
    pub key: JsonPath,
    /// Fields that the records of the child get: name and way in the parent.
    pub include: Vec<(String, JsonPath)>,
}

/// How a single object is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// What is asked, with `{{ id }}`.
    pub request: HttpRequest,
    /// Way to the object in the answer.
    pub records: JsonPath,
    /// Field that holds the id, for objects that are gone.
    pub id_field: Option<String>,
}

/// What certain answers mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorRule {
    /// Statuses, from and to; empty: all.
    pub status: Vec<(u16, u16)>,
    /// A header and what has to be in it.
    pub header: Option<(String, TextTest)>,
    /// A place in the body and what has to be there.
    pub body: Option<(JsonPath, TextTest)>,
    /// What is done.
    pub then: ErrorAction,
}

/// What a text has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextTest {
    /// Anything.
    Present,
    /// This text.
    Equals(String),
    /// A text that a regular expression matches as a whole.
    Matches(String),
}

/// What is done about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorAction {
    /// Ask again.
    Retry,
    /// Take it for an answer without records.
    Ignore,
    /// Leave this parent, or this fetched object, out.
    Skip,
    /// Log in again, then ask again.
    RefreshLogin,
    /// Begin with the first page again.
    RestartPaging,
    /// Stop the run.
    Fail,
}

/// How calls are repeated: after a random time up to `first`, twice that, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpRetry {
    /// Calls in all for one answer, at least 1.
    pub attempts: u32,
    /// Greatest wait before the first repetition.
    pub first: Duration,
    /// Greatest wait before any.
    pub most: Duration,
    /// Greatest wait that an answer may ask for; more than that is cut.
    pub most_asked: Duration,
}

impl Default for HttpRetry {
    fn default() -> Self {
        Self {
            attempts: 6,
            first: Duration::from_millis(500),
            most: Duration::from_secs(30),
            most_asked: Duration::from_secs(10 * 60),
        }
    }
}
