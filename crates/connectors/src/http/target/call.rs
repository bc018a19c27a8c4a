//! From records to calls.

use std::cell::Cell;

use bytes::Bytes;
use connect::Error;
use reqwest::Method;
use serde_json::{Map, Value};
use spec::{
    HttpBody, HttpTarget, Nulls, OutboundBody, OutboundRequest, ReadyJson, ReadyTemplate, Unfilled,
    Values,
};

use super::{
    super::client::{Client, Content, Outgoing, setting},
    item::{Item, Places},
    sent::Known,
};
use crate::Variables;

/// A request whose secrets are resolved.
pub(crate) struct Ready {
    method: Method,
    path: ReadyTemplate,
    query: Vec<(String, ReadyTemplate)>,
    headers: Vec<(String, ReadyTemplate)>,
    body: ReadyBody,
}

enum ReadyBody {
    Empty,
    Full,
    Json(ReadyJson),
    Form(Vec<(String, ReadyTemplate)>),
}

impl Ready {
    pub(crate) fn new(request: &OutboundRequest, variables: &Variables) -> Result<Self, Error> {
        let variables = &**variables;
        let all = |pairs: &[(String, spec::Template)]| {
            pairs
                .iter()
                .map(|(name, value)| Ok((name.clone(), value.resolve(variables)?)))
                .collect::<Result<Vec<_>, spec::ResolveError>>()
                .map_err(setting)
        };
        Ok(Self {
            method: Method::from_bytes(request.method.as_bytes()).map_err(setting)?,
            path: request.path.resolve(variables).map_err(setting)?,
            query: all(&request.query)?,
            headers: all(&request.headers)?,
            body: match &request.body {
                OutboundBody::Empty => ReadyBody::Empty,
                OutboundBody::Full => ReadyBody::Full,
                OutboundBody::Template(HttpBody::Json(json)) => {
                    ReadyBody::Json(json.resolve(variables).map_err(setting)?)
                }
                OutboundBody::Template(HttpBody::Form(form)) => ReadyBody::Form(all(form)?),
            },
        })
    }

    /// Fills everything but the body.
    fn head(&self, client: &Client, values: Values<'_>) -> Result<Outgoing, NotFilled> {
        let lost = Cell::new(false);
        let path = self.path.fill(values, |text| {
            // It would name another resource: the one above, or all of them.
            lost.set(lost.get() || matches!(text, "" | "." | ".."));
            escape(text)
        })?;
        if lost.get() {
            return Err(NotFilled::Path);
        }
        let mut url = client.url(&path)?;
        for (name, value) in filled(&self.query, values) {
            url.query_pairs_mut().append_pair(&name, &value);
        }
        let headers = filled(&self.headers, values);
        Ok(Outgoing { method: self.method.clone(), url, headers, content: None })
    }

    fn content(&self, values: Values<'_>, full: &str) -> Result<Option<Content>, NotFilled> {
        Ok(match &self.body {
            ReadyBody::Empty => None,
            ReadyBody::Full => Some(json(full.to_owned())),
            ReadyBody::Json(template) => Some(json(template.fill(values)?)),
            ReadyBody::Form(form) => {
                let mut pairs = url::form_urlencoded::Serializer::new(String::new());
                pairs.extend_pairs(filled(form, values));
                Some(Content {
                    media_type: "application/x-www-form-urlencoded",
                    bytes: pairs.finish().into(),
                })
            }
        })
    }
}

/// A call could not be made of a record.
pub(crate) enum NotFilled {
    /// The record lacks a value.
    Value(Unfilled),
    /// A value of the record cannot stand in a path.
    Path,
    /// Something is wrong with the target.
    Target(Error),
}

impl From<Unfilled> for NotFilled {
    fn from(unfilled: Unfilled) -> Self {
        Self::Value(unfilled)
    }
}

impl From<Error> for NotFilled {
    fn from(error: Error) -> Self {
        Self::Target(error)
    }
}

/// Fills pairs, and leaves out those that have a place without a value, or with null.
fn filled(pairs: &[(String, ReadyTemplate)], values: Values<'_>) -> Vec<(String, String)> {
    let known = |name: &str| values(name).filter(|value| value != "null");
    pairs
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.fill(&known, str::to_owned).ok()?)))
        .collect()
}

fn json(text: String) -> Content {
    Content { media_type: "application/json", bytes: Bytes::from(text) }
}

/// Writes a value as a segment of a path.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'.' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The calls of a target.
pub(crate) struct Calls {
    pub(crate) upsert: Ready,
    pub(crate) delete: Option<Ready>,
    pub(crate) batch: Option<Ready>,
    config: HttpTarget,
    pipeline: String,
    target: String,
    key_fields: Vec<String>,
}

impl Calls {
    pub(crate) fn new(
        config: &HttpTarget,
        pipeline: &spec::Pipeline,
        target: &str,
        variables: &Variables,
    ) -> Result<Self, Error> {
        let ready = |request: &OutboundRequest| Ready::new(request, variables);
        Ok(Self {
            upsert: ready(&config.upsert)?,
            delete: config.delete.as_ref().map(ready).transpose()?,
            batch: config.batch.as_ref().map(|batch| ready(&batch.request)).transpose()?,
            config: config.clone(),
            pipeline: pipeline.name.to_string(),
            target: target.to_owned(),
            key_fields: pipeline.key.clone(),
        })
    }

    /// Tells whether a record leads to a call at all.
    pub(crate) fn concerns(&self, item: &Item) -> bool {
        !item.is_gone() || self.delete.is_some() || (!self.config.once && self.config.clears())
    }

    /// Returns what is to be sent of a record; `None`: nothing of it is new.
    pub(crate) fn values(&self, item: &Item, known: &Known) -> Option<Map<String, Value>> {
        if item.is_gone() && self.delete.is_none() {
            let mut values = Map::new();
            for (name, value) in &item.values {
                if self.key_fields.contains(name) {
                    values.insert(name.clone(), value.clone());
                } else if self.config.nulls_of(name) == Nulls::Clear {
                    values.insert(name.clone(), Value::Null);
                }
            }
            return Some(values);
        }
        let mut values = item.values.clone();
        if self.config.only_changed
            && !item.is_gone()
            && let Some(before) = known.sent.as_ref().and_then(|sent| sent.values.as_ref())
        {
            values.retain(|name, value| {
                self.key_fields.contains(name) || before.get(name) != Some(value)
            });
            if values.keys().all(|name| self.key_fields.contains(name)) {
                return None;
            }
        }
        values.retain(|name, value| !value.is_null() || self.config.nulls_of(name) == Nulls::Send);
        Some(values)
    }

    fn operation(item: &Item) -> &'static str {
        if item.is_gone() { "deleted" } else { "upserted" }
    }

    fn key_of(&self, item: &Item) -> String {
        if self.config.once {
            item.fact_of_key(&self.pipeline, &self.target)
        } else {
            item.fact(&self.pipeline, &self.target)
        }
    }

    fn identify(&self, outgoing: &mut Outgoing, key: String) {
        if let Some(header) = &self.config.idempotency_header {
            outgoing.headers.push((header.clone(), key));
        }
    }

    /// Makes the call for one record.
    pub(crate) fn single(
        &self,
        client: &Client,
        item: &Item,
        values: &Map<String, Value>,
    ) -> Result<Outgoing, NotFilled> {
        let ready = match &self.delete {
            Some(delete) if item.is_gone() => delete,
            _ => &self.upsert,
        };
        // What is not sent may still be needed to find the way.
        let all = self.places(item, &item.values);
        let mut outgoing = all.filled(|values| ready.head(client, values))?;
        let full = Value::Object(values.clone()).to_string();
        outgoing.content =
            self.places(item, values).filled(|values| ready.content(values, &full))?;
        self.identify(&mut outgoing, self.key_of(item));
        Ok(outgoing)
    }

    /// Returns what a record is in the list of a batch.
    pub(crate) fn entry(
        &self,
        item: &Item,
        values: &Map<String, Value>,
    ) -> Result<String, NotFilled> {
        let full = Value::Object(values.clone()).to_string();
        Ok(match &self.upsert.body {
            ReadyBody::Json(json) => {
                self.places(item, values).filled(|values| json.fill(values))?
            }
            ReadyBody::Empty | ReadyBody::Full | ReadyBody::Form(_) => full,
        })
    }

    /// Makes the call for several records, whose entries are given.
    pub(crate) fn several<'a>(
        &self,
        client: &Client,
        entries: impl Iterator<Item = (&'a Item, &'a str)>,
    ) -> Result<Outgoing, NotFilled> {
        let ready = self.batch.as_ref().unwrap_or(&self.upsert);
        let (mut list, mut keys, mut count) = (String::from("["), Vec::new(), 0_usize);
        for (item, entry) in entries {
            if count > 0 {
                list.push(',');
            }
            list.push_str(entry);
            keys.push(self.key_of(item));
            count += 1;
        }
        list.push(']');
        let values = |name: &str| match name {
            "records" => Some(list.clone()),
            "count" => Some(count.to_string()),
            _ => None,
        };
        let mut outgoing = ready.head(client, &values)?;
        outgoing.content = ready.content(&values, &list)?;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.identify(&mut outgoing, super::item::digest(&keys));
        Ok(outgoing)
    }

    fn places<'a>(&'a self, item: &'a Item, values: &'a Map<String, Value>) -> Places<'a> {
        Places { item, values, pipeline: &self.pipeline, operation: Self::operation(item) }
    }
}

impl NotFilled {
    /// Says why a record cannot be sent, without values.
    ///
    /// # Errors
    ///
    /// When the target is to blame, not the record.
    pub(crate) fn reason(self) -> Result<(String, String), Error> {
        match self {
            Self::Value(unfilled) => Ok((unfilled.to_string(), unfilled.0)),
            Self::Path => Ok((
                "a value that the path needs is empty or consists of dots".to_owned(),
                String::new(),
            )),
            Self::Target(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_within_its_segment() {
        for (value, segment) in
            [("a/b?c#d", "a%2Fb%3Fc%23d"), ("a.b", "a.b"), ("ä 1", "%C3%A4%201")]
        {
            assert_eq!(escape(value), segment);
        }
    }
}
