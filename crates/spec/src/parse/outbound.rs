//! The targets `http` and `webhook`.

use std::time::Duration;

use super::{
    http::{self, CLIENT_KEYS},
    http_rules::{statuses, test},
    http_source::json_path,
    optional, secrets,
};
use crate::{
    AnswerRule, BatchResults, HttpBody, HttpTarget, Nulls, OutboundBatch, OutboundBody,
    OutboundRequest, Payload, SecretText, Template, Verdict, WebhookTarget,
    reader::{At, Keys},
};

const REQUEST_KEYS: [&str; 5] = ["method", "path", "query", "headers", "body"];
const METHODS: [(&str, &str); 4] =
    [("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH"), ("DELETE", "DELETE")];
const IN_FLIGHT: usize = 8;
const ATTEMPTS: u32 = 8;
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(20);
/// Waits between the attempts at a webhook, as Standard Webhooks recommends them.
const RETRY_SECONDS: [u64; 7] = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000];
const MOST_WAITS: usize = 20;
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const DISABLE_AFTER: Duration = Duration::from_secs(5 * 24 * 60 * 60);
const KEEP_DELIVERED: Duration = Duration::from_secs(3 * 24 * 60 * 60);

pub(super) fn http_target(at: &At<'_>) -> Option<HttpTarget> {
    const OWN: [&str; 13] = [
        "headers",
        "upsert",
        "delete",
        "batch",
        "answers",
        "nulls",
        "only_changed",
        "idempotency_header",
        "idempotent",
        "mode",
        "in_flight",
        "attempts",
        "drain",
    ];
    let keys = at.keys(&[&CLIENT_KEYS[..], &OWN].concat())?;
    let client = http::client(&keys);
    let headers = optional(&keys, "headers", http::headers);
    let upsert = keys
        .require("upsert", "add `upsert: {method: PUT, path: \"/customers/{{ key }}\"}`")
        .and_then(|at| request(&at.keys(&REQUEST_KEYS)?, &[], OutboundBody::Full));
    let delete = optional(&keys, "delete", |at| {
        request(&at.keys(&REQUEST_KEYS)?, &[], OutboundBody::Empty).map(Some)
    });
    let batch = optional(&keys, "batch", |at| batch(at).map(Some));
    let answers = optional(&keys, "answers", |at| {
        let rules: Vec<_> = at
            .items("list rules such as `{status: 409, then: success}`")?
            .iter()
            .map(rule)
            .collect();
        rules.into_iter().collect()
    });
    let nulls = match keys.get("nulls") {
        Some(at) => nulls(&at),
        None => Some((Nulls::Send, Vec::new())),
    };
    let only_changed = optional(&keys, "only_changed", At::boolean);
    let idempotency_header = match keys.get("idempotency_header") {
        Some(at) if at.text().as_deref() == Some("none") => Some(None),
        Some(at) => http::header_name(&at.name()?, &at).map(Some),
        None => Some(Some("idempotency-key".to_owned())),
    };
    let idempotent = match keys.get("idempotent") {
        Some(at) => at.word(&[("by_key", true), ("no", false)]),
        None => Some(true),
    };
    let once = optional(&keys, "mode", |at| at.word(&[("upsert", false), ("once", true)]));
    let in_flight = number(&keys, "in_flight", IN_FLIGHT, 256);
    let attempts = number(&keys, "attempts", ATTEMPTS as usize, 1000);
    let drain = optional(&keys, "drain", |at| drain(at).map(Some));
    let mut client = client?;
    client.headers = headers?;
    let (nulls, null_fields) = nulls?;
    let target = HttpTarget {
        client,
        upsert: upsert?,
        delete: delete?,
        batch: batch?,
        answers: answers?,
        nulls,
        null_fields,
        only_changed: only_changed?,
        idempotency_header: idempotency_header?,
        idempotent: idempotent?,
        once: once?,
        in_flight: in_flight?,
        attempts: u32::try_from(attempts?).ok()?,
        drain: drain?,
    };
    if target.batch.is_some()
        && matches!(target.upsert.body, OutboundBody::Template(HttpBody::Form(_)))
    {
        at.problem("a form holds one record, not those of a batch", "use `body: {json: …}`");
        return None;
    }
    if target.once && (target.only_changed || target.delete.is_some()) {
        at.problem(
            "with `mode: once` nothing is sent again that could have changed",
            "remove `only_changed` and `delete`",
        );
        return None;
    }
    Some(target)
}

fn request(keys: &Keys<'_>, names: &[&str], body: OutboundBody) -> Option<OutboundRequest> {
    let method = keys
        .require("method", "add `method: POST`")
        .and_then(|at| at.word(&METHODS).map(str::to_owned));
    let path = keys.require("path", "add `path: \"/customers/{{ key }}\"`").and_then(|at| {
        let path = http::template(&at, names)?;
        if path.as_written().contains(['?', '#']) || path.as_written().contains("://") {
            at.problem(
                "a path has neither host nor query",
                "put the host into `base_url` and parameters into `query`",
            );
            return None;
        }
        Some(path)
    });
    let query = optional(keys, "query", |at| http::templates(at, names));
    let headers = optional(keys, "headers", |at| {
        let entries = at.entries("write headers as `Name: value`")?;
        let headers = entries
            .iter()
            .map(|(name, at)| Some((http::header_name(name, at)?, http::template(at, names)?)));
        headers.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
    });
    let body = match keys.get("body") {
        Some(at) => self::body(&at, names),
        None => Some(body),
    };
    Some(OutboundRequest {
        method: method?,
        path: path?,
        query: query?,
        headers: headers?,
        body: body?,
    })
}

fn body(at: &At<'_>, names: &[&str]) -> Option<OutboundBody> {
    if !at.is_map() {
        return at
            .word(&[("full", true), ("none", false)])
            .map(|full| if full { OutboundBody::Full } else { OutboundBody::Empty });
    }
    let keys = at.keys(&["json", "form"])?;
    match keys.only(&["json", "form"], "kind of body")? {
        ("json", at) => http::json_template(&at, names).map(HttpBody::Json),
        (_, at) => http::templates(&at, names).map(HttpBody::Form),
    }
    .map(OutboundBody::Template)
}

fn batch(at: &At<'_>) -> Option<OutboundBatch> {
    let keys = at.keys(&[&["size", "results"], &REQUEST_KEYS[..]].concat())?;
    let size = keys.require("size", "add `size: 100`").and_then(|at| {
        let size: usize = at.number("a number of records")?;
        if !(2..=10_000).contains(&size) {
            at.problem("a batch has 2 to 10000 records", "write such a number");
            return None;
        }
        Some(size)
    });
    let request = request(&keys, &["records", "count"], OutboundBody::Full);
    let results = optional(&keys, "results", |at| {
        let keys = at.keys(&["list", "key", "status"])?;
        let list = optional(&keys, "list", json_path);
        let key = optional(&keys, "key", |at| json_path(at).map(Some));
        let status = optional(&keys, "status", |at| json_path(at).map(Some));
        Some(Some(BatchResults { list: list?, key: key?, status: status? }))
    });
    Some(OutboundBatch { size: size?, request: request?, results: results? })
}

fn rule(at: &At<'_>) -> Option<AnswerRule> {
    let keys = at.keys(&["status", "header", "body", "then"])?;
    let status = optional(&keys, "status", statuses);
    let header = optional(&keys, "header", |at| {
        let keys = at.keys(&["name", "equals", "matches"])?;
        let at = keys.require("name", "name the header")?;
        Some(Some((http::header_name(&at.name()?, &at)?, test(&keys)?)))
    });
    let body = optional(&keys, "body", |at| {
        let keys = at.keys(&["path", "equals", "matches"])?;
        let path = json_path(&keys.require("path", "say where in the body: `path: error.code`")?)?;
        Some(Some((path, test(&keys)?)))
    });
    let then = keys.require("then", "add `then: success`").and_then(|at| {
        at.word(&[
            ("success", Verdict::Success),
            ("retry", Verdict::Retry),
            ("reject", Verdict::Reject),
            ("stop", Verdict::Stop),
        ])
    });
    let rule = AnswerRule { status: status?, header: header?, body: body?, then: then? };
    if rule.status.is_empty() && rule.header.is_none() && rule.body.is_none() {
        at.problem("the rule fits every answer", "add `status`, `header` or `body`");
        return None;
    }
    Some(rule)
}

fn nulls(at: &At<'_>) -> Option<(Nulls, Vec<(String, Nulls)>)> {
    const WORDS: [(&str, Nulls); 3] =
        [("send", Nulls::Send), ("skip", Nulls::Skip), ("clear", Nulls::Clear)];
    if !at.is_map() {
        return at.word(&WORDS).map(|all| (all, Vec::new()));
    }
    let keys = at.keys(&["default", "fields"])?;
    let default = match keys.get("default") {
        Some(at) => at.word(&WORDS),
        None => Some(Nulls::Send),
    };
    let fields = optional(&keys, "fields", |at| {
        let entries = at.entries("write `field: skip`")?;
        let fields = entries.iter().map(|(name, at)| Some((name.clone(), at.word(&WORDS)?)));
        fields.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
    });
    Some((default?, fields?))
}

fn number(keys: &Keys<'_>, key: &str, usual: usize, most: usize) -> Option<usize> {
    let Some(at) = keys.get(key) else { return Some(usual) };
    let number: usize = at.number("a number")?;
    if !(1..=most).contains(&number) {
        at.problem(format!("the number is not between 1 and {most}"), "write such a number");
        return None;
    }
    Some(number)
}

/// Reads how many times as fast as before what has piled up is sent.
fn drain(at: &At<'_>) -> Option<f64> {
    let times: f64 = at.number("how many times as fast as before")?;
    if !(1.0..=1000.0).contains(&times) {
        at.problem("what piles up is sent 1 to 1000 times as fast as before", "write `drain: 4`");
        return None;
    }
    Some(times)
}

pub(super) fn webhook_target(at: &At<'_>) -> Option<WebhookTarget> {
    const SECRETS: &str = "list secrets: `secrets: [\"${env:WEBHOOK_SECRET}\"]`";
    const OWN: [&str; 11] = [
        "url",
        "secrets",
        "headers",
        "payload",
        "event",
        "retry",
        "disable_after",
        "keep_delivered",
        "in_flight",
        "attempts",
        "drain",
    ];
    let client_keys = CLIENT_KEYS.iter().filter(|key| **key != "base_url");
    let known: Vec<&str> = client_keys.chain(&OWN).copied().collect();
    let keys = at.keys(&known)?;
    let url = keys
        .require("url", "add `url: \"https://example.com/hook\"`")
        .and_then(|at| http::url(&at));
    let client = url.and_then(|url| http::client_at(&keys, url));
    let headers = optional(&keys, "headers", http::headers);
    let signing = keys.require("secrets", SECRETS).and_then(|at| {
        let items = at.items(SECRETS)?;
        if items.is_empty() {
            at.problem("the list is empty", SECRETS);
            return None;
        }
        let signing: Vec<Option<SecretText>> = items.iter().map(secrets::secret).collect();
        signing.into_iter().collect::<Option<Vec<_>>>()
    });
    let payload = match keys.get("payload") {
        Some(at) => at.word(&[
            ("full", Payload::Full),
            ("changed", Payload::Changed),
            ("thin", Payload::Thin),
        ]),
        None => Some(Payload::Full),
    };
    let event = match keys.get("event") {
        Some(at) => http::template(&at, &[]),
        None => Template::parse("{{ pipeline }}.{{ operation }}").ok(),
    };
    let in_flight = number(&keys, "in_flight", IN_FLIGHT, 256);
    let attempts = number(&keys, "attempts", ATTEMPTS as usize, 1000);
    let drain = optional(&keys, "drain", |at| drain(at).map(Some));
    let retry = match keys.get("retry") {
        Some(at) => waits(&at),
        None => Some(RETRY_SECONDS.map(Duration::from_secs).to_vec()),
    };
    let disable_after = match keys.get("disable_after") {
        Some(at) => at.duration(),
        None => Some(DISABLE_AFTER),
    };
    let keep_delivered = match keys.get("keep_delivered") {
        Some(at) => at.duration(),
        None => Some(KEEP_DELIVERED),
    };
    let mut client = client?;
    client.headers = headers?;
    if keys.get("timeout").is_none() {
        client.timeout = WEBHOOK_TIMEOUT;
    }
    Some(WebhookTarget {
        client,
        secrets: signing?,
        payload: payload?,
        event: event?,
        in_flight: in_flight?,
        attempts: u32::try_from(attempts?).ok()?,
        drain: drain?,
        retry: retry?,
        disable_after: disable_after?,
        keep_delivered: keep_delivered?,
    })
}

/// Reads the waits between attempts.
fn waits(at: &At<'_>) -> Option<Vec<Duration>> {
    const LIST: &str = "list waits: `retry: [5s, 5m, 30m, 2h]`";
    let items = at.items(LIST)?;
    if items.is_empty() || items.len() > MOST_WAITS {
        at.problem(format!("there are {} waits", items.len()), "list 1 to 20 of them");
        return None;
    }
    let waits: Vec<Option<Duration>> = items
        .iter()
        .map(|at| {
            let wait = at.duration()?;
            if wait > LONGEST_WAIT {
                at.problem("the wait is longer than a week", "write `7d` or less");
                return None;
            }
            Some(wait)
        })
        .collect();
    waits.into_iter().collect()
}
