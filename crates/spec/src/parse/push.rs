//! The trigger `push`, and what it asks of the rest of the pipeline.

use std::time::Duration;

use super::{optional, secrets};
use crate::{
    GrpcIngest, HmacAlgorithm, HmacEncoding, Pipeline, Place, PushOperation, PushTrigger, PushedAs,
    Source, Verify, Webhook,
    problem::Problems,
    reader::{At, Keys},
};

const SCHEMES: [&str; 9] = [
    "standard_webhooks",
    "stripe",
    "github",
    "shopify",
    "slack",
    "hmac",
    "basic",
    "bearer",
    "none",
];

/// What Standard Webhooks, Stripe and Slack recommend.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);
const BODY_LIMIT: usize = 1024 * 1024;
const MAX_BODY_LIMIT: usize = 64 * 1024 * 1024;
const SECRETS: &str = "list references to secrets: `secrets: [\"${env:NAME}\"]`";

pub(super) fn push(at: &At<'_>) -> Option<PushTrigger> {
    let keys = at.keys(&["webhook", "grpc"])?;
    let webhook = optional(&keys, "webhook", |at| webhook(at).map(Some));
    let grpc = optional(&keys, "grpc", grpc);
    let push = PushTrigger { webhook: webhook?, grpc: grpc? };
    if push.webhook.is_none() && push.grpc.is_none() {
        at.problem("nothing may push", "add `webhook: {verify: …}` or `grpc: {bearer: […]}`");
        return None;
    }
    Some(push)
}

fn grpc(at: &At<'_>) -> Option<Option<GrpcIngest>> {
    if !at.is_map() {
        if at.text()? == "none" {
            return Some(Some(GrpcIngest::default()));
        }
        at.problem(
            "it is not said who may call",
            "write `grpc: {bearer: [\"${env:NAME}\"]}`, or `grpc: none` to take records from everybody",
        );
        return None;
    }
    let keys = at.keys(&["bearer"])?;
    let bearer = secrets_of(&keys, "bearer")?;
    Some(Some(GrpcIngest { bearer }))
}

fn webhook(at: &At<'_>) -> Option<Webhook> {
    let keys =
        at.keys(&["verify", "allow_addresses", "records", "id", "operation", "hint", "limits"])?;
    let verify = keys
        .require("verify", "say how requests are verified, such as `verify: {github: {secrets: […]}}`, or `verify: none`")
        .and_then(|at| verify(&at));
    let allow_addresses = optional(&keys, "allow_addresses", |at| {
        at.items("list addresses or networks: `allow_addresses: [10.0.0.0/8]`")?
            .iter()
            .map(network)
            .collect()
    });
    let records = optional(&keys, "records", path);
    let id = optional(&keys, "id", |at| {
        let keys = at.keys(&["header", "field"])?;
        place(&keys).map(Some)
    });
    let operation = match keys.get("operation") {
        Some(at) => operation(&at),
        None => Some(PushOperation::Always(PushedAs::Upsert)),
    };
    let hint = optional(&keys, "hint", |at| {
        let keys = at.keys(&["field"])?;
        path(&keys.require("field", "name the field that holds the id: `hint: {field: id}`")?)
            .map(Some)
    });
    let body_limit = match keys.get("limits") {
        Some(at) => body_limit(&at),
        None => Some(BODY_LIMIT),
    };
    Some(Webhook {
        verify: verify?,
        allow_addresses: allow_addresses?,
        records: records?,
        id: id?,
        operation: operation?,
        hint: hint?,
        body_limit: body_limit?,
    })
}

fn network(at: &At<'_>) -> Option<ipnet::IpNet> {
    let text = at.text()?;
    let network = text
        .parse::<ipnet::IpNet>()
        .ok()
        .or_else(|| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from));
    if network.is_none() {
        at.problem(
            format!("`{text}` is neither an address nor a network"),
            "write `203.0.113.7`, `10.0.0.0/8` or `2001:db8::/32`",
        );
    }
    network
}

fn path(at: &At<'_>) -> Option<Vec<String>> {
    let text = at.name()?;
    let keys: Vec<String> = text.split('.').map(str::to_owned).collect();
    if keys.iter().any(String::is_empty) {
        at.problem(
            "a key on the way is empty",
            "join the keys by dots, outermost first: `data.id`",
        );
        return None;
    }
    Some(keys)
}

fn header(at: &At<'_>) -> Option<String> {
    let text = at.name()?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.bytes().all(token) {
        at.problem(
            format!("`{text}` is not the name of a header"),
            "write a name such as `X-Signature`",
        );
        return None;
    }
    Some(text.to_ascii_lowercase())
}

fn place(keys: &Keys<'_>) -> Option<Place> {
    match keys.only(&["header", "field"], "place")? {
        ("header", at) => header(&at).map(Place::Header),
        (_, at) => path(&at).map(Place::Field),
    }
}

const OPERATIONS: [(&str, PushedAs); 4] = [
    ("upsert", PushedAs::Upsert),
    ("patch", PushedAs::Patch),
    ("delete", PushedAs::Delete),
    ("ignore", PushedAs::Ignore),
];

fn operation(at: &At<'_>) -> Option<PushOperation> {
    if !at.is_map() {
        return at.word(&OPERATIONS[..3]).map(PushOperation::Always);
    }
    let keys = at.keys(&["header", "field", "upsert", "patch", "delete", "ignore", "other"])?;
    let place = place(&keys);
    let mut words: Vec<(String, PushedAs)> = Vec::new();
    let mut sound = true;
    for (word, stands_for) in OPERATIONS {
        let Some(at) = keys.get(word) else { continue };
        let Some(names) = at.names("list the texts that stand for it") else {
            sound = false;
            continue;
        };
        for name in names {
            if words.iter().any(|(known, _)| *known == name) {
                at.problem(
                    format!("`{name}` stands for two operations"),
                    "list it under one of them",
                );
                sound = false;
            }
            words.push((name, stands_for));
        }
    }
    let other = match keys.get("other") {
        Some(at) => at.word(&OPERATIONS),
        None => Some(PushedAs::Upsert),
    };
    sound.then_some(())?;
    Some(PushOperation::By { place: place?, words, other: other? })
}

fn body_limit(at: &At<'_>) -> Option<usize> {
    let keys = at.keys(&["body"])?;
    let at = keys.require("body", "add `body: 1MiB`")?;
    let text = at.text()?;
    let size = size(&text);
    match size {
        Some(size) if (1..=MAX_BODY_LIMIT).contains(&size) => Some(size),
        _ => {
            at.problem(
                format!("`{text}` is not a size that a body may have"),
                "write a whole number with its unit, such as `256KiB` or `1MiB`, at most `64MiB`",
            );
            None
        }
    }
}

fn size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

fn verify(at: &At<'_>) -> Option<Verify> {
    if !at.is_map() {
        return at.word(&[("none", ())]).map(|()| Verify::None);
    }
    let keys = at.keys(&SCHEMES)?;
    let (scheme, at) = keys.only(&SCHEMES, "way to verify")?;
    match scheme {
        "standard_webhooks" => {
            let (secrets, tolerance) = timed(&at)?;
            Some(Verify::StandardWebhooks { secrets, tolerance })
        }
        "stripe" => {
            let (secrets, tolerance) = timed(&at)?;
            Some(Verify::Stripe { secrets, tolerance })
        }
        "slack" => {
            let (secrets, tolerance) = timed(&at)?;
            Some(Verify::Slack { secrets, tolerance })
        }
        "github" => {
            Some(Verify::GitHub { secrets: secrets_of(&at.keys(&["secrets"])?, "secrets")? })
        }
        "shopify" => {
            Some(Verify::Shopify { secrets: secrets_of(&at.keys(&["secrets"])?, "secrets")? })
        }
        "hmac" => hmac(&at),
        "basic" => {
            let keys = at.keys(&["user", "passwords"])?;
            let user = keys.require("user", "name the user").and_then(|at| at.name());
            let passwords = secrets_of(&keys, "passwords");
            Some(Verify::Basic { user: user?, passwords: passwords? })
        }
        "bearer" => Some(Verify::Bearer { tokens: secrets_of(&at.keys(&["tokens"])?, "tokens")? }),
        _ if at.boolean()? => Some(Verify::None),
        _ => {
            at.problem("`none: false` verifies nothing", "name another way to verify");
            None
        }
    }
}

fn timed(at: &At<'_>) -> Option<(Vec<crate::SecretText>, Duration)> {
    let keys = at.keys(&["secrets", "tolerance"])?;
    let secrets = secrets_of(&keys, "secrets");
    let tolerance = match keys.get("tolerance") {
        Some(at) => at.duration(),
        None => Some(TOLERANCE),
    };
    Some((secrets?, tolerance?))
}

fn hmac(at: &At<'_>) -> Option<Verify> {
    let keys = at.keys(&["secrets", "header", "algorithm", "encoding", "prefix"])?;
    let secrets = secrets_of(&keys, "secrets");
    let header = keys
        .require("header", "name the header that holds the signature")
        .and_then(|at| header(&at));
    let algorithm = match keys.get("algorithm") {
        Some(at) => {
            at.word(&[("sha256", HmacAlgorithm::Sha256), ("sha512", HmacAlgorithm::Sha512)])
        }
        None => Some(HmacAlgorithm::Sha256),
    };
    let encoding = match keys.get("encoding") {
        Some(at) => at.word(&[("hex", HmacEncoding::Hex), ("base64", HmacEncoding::Base64)]),
        None => Some(HmacEncoding::Hex),
    };
    let prefix = optional(&keys, "prefix", At::text);
    Some(Verify::Hmac {
        secrets: secrets?,
        header: header?,
        algorithm: algorithm?,
        encoding: encoding?,
        prefix: prefix?,
    })
}

fn secrets_of(keys: &Keys<'_>, key: &str) -> Option<Vec<crate::SecretText>> {
    let at = keys.require(key, SECRETS)?;
    let items = at.items(SECRETS)?;
    if items.is_empty() {
        at.problem("the list is empty", SECRETS);
        return None;
    }
    let secrets: Vec<_> = items.iter().map(secrets::secret).collect();
    secrets.into_iter().collect()
}

/// Checks what only the whole pipeline tells.
pub(super) fn check(pipeline: &Pipeline, problems: &Problems) {
    let push = pipeline.triggers.push.as_ref();
    let only_pushed = matches!(pipeline.source, Source::Push);
    let add = |path: &str, message: &str, remedy: &str| {
        problems.add(pipeline.places.line(path), path, message, remedy);
    };
    match push {
        None if only_pushed => add(
            "source.push",
            "the source has nothing but what is pushed, and nothing may push",
            "add `triggers: {push: {webhook: {verify: …}}}` or `triggers: {push: {grpc: {bearer: […]}}}`",
        ),
        Some(_) if !only_pushed && pipeline.newest_by.is_none() => add(
            "triggers.push",
            "records of this pipeline come by push and from the source, and nothing tells which of \
             two is newer",
            "add `newest_by: <field>` with the field that grows with every change, such as the \
             time of the last change",
        ),
        _ => {}
    }
    if only_pushed && pipeline.schema.is_none() {
        add(
            "source.push",
            "what is pushed cannot be looked at before it comes",
            "declare the fields: `schema: {id: integer, name: text}`",
        );
    }
    let triggers = &pipeline.triggers;
    let reads = [
        ("triggers.every", triggers.every.is_some()),
        ("triggers.cron", !triggers.cron.is_empty()),
        ("triggers.after", !triggers.after.is_empty()),
        ("triggers.continuous", triggers.continuous),
    ];
    for (place, _) in reads.iter().filter(|(_, declared)| *declared && only_pushed) {
        add(
            place,
            "the source has nothing but what is pushed, so there is nothing to read",
            "remove it",
        );
    }
    let hinted =
        push.and_then(|push| push.webhook.as_ref()).is_some_and(|hook| hook.hint.is_some());
    let fetches = matches!(&pipeline.source, Source::Http(http) if http.fetch.is_some());
    if hinted && !fetches {
        add(
            "triggers.push.webhook.hint",
            "a hint is only the id of an object, and the source cannot fetch objects by their ids",
            "use an `http` source with `fetch`, or push whole records and remove `hint`",
        );
    }
}
