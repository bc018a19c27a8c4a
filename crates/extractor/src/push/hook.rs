//! The webhook of one revision: whom it believes, and how it reads a body.

use std::net::IpAddr;

use bytes::Bytes;
use connectors::{
    Variables,
    pushed::{self, Object},
};
use hyper::header::HeaderMap;
use model::{Operation, PipelineName};
use spec::{Place, PushOperation, PushedAs, Verify, Webhook};

use super::{
    answer::Rejection,
    item::{Item, Pushed},
    seen::delivery,
    verify::{InvalidVerify, Verifier, usual_ids},
};

/// Ids of deliveries are remembered up to this length.
const MAX_ID: usize = 256;

/// Records of one request.
const MAX_RECORDS: usize = 65_536;

/// A webhook, ready to be used.
pub(crate) struct Hook {
    pipeline: PipelineName,
    pub(crate) revision: u32,
    pub(crate) verifier: Verifier,
    webhook: Webhook,
    ids: Vec<Place>,
}

/// A body whose sender is believed.
struct Document<'a> {
    body: &'a Bytes,
    headers: &'a HeaderMap,
}

impl Hook {
    pub(crate) fn new(
        pipeline: PipelineName,
        revision: u32,
        webhook: &Webhook,
        variables: &Variables,
    ) -> Result<Self, InvalidVerify> {
        let verifier = Verifier::new(&webhook.verify, variables)?;
        let ids = match &webhook.id {
            Some(place) => vec![place.clone()],
            None => usual_ids(&webhook.verify),
        };
        Ok(Self { pipeline, revision, verifier, webhook: webhook.clone(), ids })
    }

    /// Greatest size of a body.
    pub(crate) fn body_limit(&self) -> usize {
        self.webhook.body_limit
    }

    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let allowed = &self.webhook.allow_addresses;
        allowed.is_empty()
            || allowed.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// Returns what a service that only wants to know whether somebody is there has to hear.
    pub(crate) fn challenge(&self, body: &Bytes) -> Option<String> {
        if !matches!(self.webhook.verify, Verify::Slack { .. }) {
            return None;
        }
        let object = Object::parse(std::str::from_utf8(body).ok()?).ok()?;
        let kind = pushed::scalar(object.member("type")?)?;
        (kind == "url_verification").then(|| pushed::scalar(object.member("challenge")?))?
    }

    /// Reads the records of a body whose sender is believed.
    ///
    /// A repeated delivery is told by its id alone, never by its content: a customer that changes
    /// and changes back is pushed twice with the same content.
    pub(crate) fn read(&self, headers: &HeaderMap, body: &Bytes) -> Result<Vec<Item>, Rejection> {
        let document = Document { body, headers };
        let text = std::str::from_utf8(body)
            .map_err(|_| Rejection::Malformed("the body is not UTF-8".to_owned()))?;
        let trimmed = text.trim();
        if trimmed.starts_with('[') && self.webhook.records.is_empty() {
            // A list without anything around it: each element is a delivery of its own.
            let elements = list(trimmed)?;
            let mut items = Vec::with_capacity(elements.len());
            for (index, element) in elements.into_iter().enumerate() {
                let root = object(element)?;
                let id = self.id(&document, &root)?.map(|(id, in_header)| match in_header {
                    // One header stands for all of them.
                    true => format!("{id}#{index}"),
                    false => id,
                });
                items.extend(self.item(&document, &root, vec![element], id)?);
            }
            return Ok(items);
        }
        let root = object(trimmed)?;
        let records = match self.webhook.records.as_slice() {
            [] => vec![trimmed],
            path => {
                let found = root.find(path).ok_or_else(|| {
                    let way = path.join(".");
                    Rejection::Malformed(format!("there is nothing at `{way}` in the body"))
                });
                // What is ignored need not look like the rest.
                match found {
                    Ok(found) if found.starts_with('[') => list(found)?,
                    Ok(found) => vec![found],
                    Err(_) if self.operation(&document, &root) == PushedAs::Ignore => Vec::new(),
                    Err(rejection) => return Err(rejection),
                }
            }
        };
        let id = self.id(&document, &root)?.map(|(id, _)| id);
        Ok(self.item(&document, &root, records, id)?.into_iter().collect())
    }

    fn item(
        &self,
        document: &Document<'_>,
        root: &Object<'_>,
        records: Vec<&str>,
        id: Option<String>,
    ) -> Result<Option<Item>, Rejection> {
        let operation = match self.operation(document, root) {
            PushedAs::Ignore => return Ok(None),
            PushedAs::Upsert => Operation::Upsert,
            PushedAs::Patch => Operation::Patch,
            PushedAs::Delete => Operation::Delete,
        };
        let mut pushed = Vec::with_capacity(records.len());
        for record in records {
            let object = object(record)?;
            match &self.webhook.hint {
                // What is gone cannot be fetched.
                Some(path) if operation != Operation::Delete => {
                    let id = object.find(path).and_then(pushed::scalar).ok_or_else(|| {
                        let way = path.join(".");
                        Rejection::Malformed(format!("there is no id at `{way}` in the record"))
                    })?;
                    pushed.push(Pushed::Hint(id));
                }
                _ => {
                    super::item::fits(&object)?;
                    pushed.push(Pushed::Record { json: slice(document.body, record), operation });
                }
            }
        }
        let delivery = id.as_ref().map(|id| delivery(&self.pipeline, id));
        Ok(Some(Item { id, delivery, pushed }))
    }

    /// Returns the id of a delivery, and whether a header has it.
    fn id(
        &self,
        document: &Document<'_>,
        root: &Object<'_>,
    ) -> Result<Option<(String, bool)>, Rejection> {
        for place in &self.ids {
            if let Some(id) = document.find(place, root).filter(|id| !id.is_empty()) {
                if id.len() > MAX_ID || id.chars().any(char::is_control) {
                    let reason = format!("the id of the delivery has more than {MAX_ID} bytes");
                    return Err(Rejection::Malformed(reason));
                }
                return Ok(Some((id, matches!(place, Place::Header(_)))));
            }
        }
        match &self.webhook.id {
            Some(Place::Header(name)) => {
                Err(Rejection::Malformed(format!("the header `{name}` with the id is missing")))
            }
            Some(Place::Field(path)) => {
                let way = path.join(".");
                Err(Rejection::Malformed(format!("there is no id at `{way}` in the body")))
            }
            None => Ok(None),
        }
    }

    fn operation(&self, document: &Document<'_>, root: &Object<'_>) -> PushedAs {
        match &self.webhook.operation {
            PushOperation::Always(operation) => *operation,
            PushOperation::By { place, words, other } => {
                let found = document.find(place, root);
                let known = found.and_then(|text| words.iter().find(|(word, _)| *word == text));
                known.map_or(*other, |(_, operation)| *operation)
            }
        }
    }
}

impl Document<'_> {
    fn find(&self, place: &Place, root: &Object<'_>) -> Option<String> {
        match place {
            Place::Header(name) => {
                self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
            }
            Place::Field(path) => root.find(path).and_then(pushed::scalar),
        }
    }
}

fn object(text: &str) -> Result<Object<'_>, Rejection> {
    Object::parse(text).map_err(|error| Rejection::Malformed(error.to_string()))
}

fn list(text: &str) -> Result<Vec<&str>, Rejection> {
    let elements =
        pushed::elements(text).map_err(|error| Rejection::Malformed(error.to_string()))?;
    if elements.len() > MAX_RECORDS {
        let reason = format!("a request has at most {MAX_RECORDS} records");
        return Err(Rejection::Malformed(reason));
    }
    Ok(elements)
}

/// Returns a part of the body without copying it.
fn slice(body: &Bytes, part: &str) -> Bytes {
    body.slice_ref(part.as_bytes())
}
