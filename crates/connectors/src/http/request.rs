//! Requests with their places filled.

use bytes::Bytes;
use connect::Error;
use reqwest::Method;
use spec::{HttpBody, HttpRequest, ReadyJson, ReadyTemplate, Values};

use super::client::{Client, Content, Outgoing, setting};

/// A request whose secrets are resolved.
#[derive(Clone)]
pub(crate) struct ReadyRequest {
    method: Method,
    path: ReadyTemplate,
    query: Vec<(String, ReadyTemplate)>,
    headers: Vec<(String, ReadyTemplate)>,
    body: Option<ReadyBody>,
}

#[derive(Clone)]
enum ReadyBody {
    Json(ReadyJson),
    Form(Vec<(String, ReadyTemplate)>),
}

/// What a filled request adds to.
pub(crate) struct Filled<'a> {
    /// Values of the places.
    pub(crate) values: Values<'a>,
    /// More parameters of the query.
    pub(crate) query: &'a [(String, String)],
}

impl ReadyRequest {
    /// Resolves the secrets of a request.
    ///
    /// # Errors
    ///
    /// When a secret cannot be resolved.
    pub(crate) fn new(
        config: &HttpRequest,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let named = |templates: &[(String, spec::Template)]| {
            templates
                .iter()
                .map(|(name, template)| {
                    Ok((name.clone(), template.resolve(variable).map_err(setting)?))
                })
                .collect::<Result<Vec<_>, Error>>()
        };
        Ok(Self {
            method: config.method.parse().map_err(setting)?,
            path: config.path.resolve(variable).map_err(setting)?,
            query: named(&config.query)?,
            headers: named(&config.headers)?,
            body: match &config.body {
                None => None,
                Some(HttpBody::Json(json)) => {
                    Some(ReadyBody::Json(json.resolve(variable).map_err(setting)?))
                }
                Some(HttpBody::Form(form)) => Some(ReadyBody::Form(named(form)?)),
            },
        })
    }

    /// Fills the places and makes a call of it.
    ///
    /// # Errors
    ///
    /// When a place of the path or within a text has no value.
    pub(crate) fn fill(&self, client: &Client, filled: &Filled<'_>) -> Result<Outgoing, Error> {
        let missing = |unfilled: spec::Unfilled| {
            Error::stop(
                unfilled.to_string(),
                "give it a value: under `config`, with `tributary run NAME --set key=value`, or in \
                 the record that it is taken from",
            )
        };
        let path = self.path.fill(filled.values, escape_path).map_err(missing)?;
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(Error::stop(
                "a value makes the path lead elsewhere",
                "see which value has only dots",
            ));
        }
        let mut url = client.url(&path)?;
        let given = optional(&self.query, filled.values);
        if !given.is_empty() || !filled.query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(given);
            pairs.extend_pairs(filled.query);
        }
        let content = match &self.body {
            None => None,
            Some(ReadyBody::Json(json)) => Some(Content {
                media_type: "application/json",
                bytes: Bytes::from(json.fill(filled.values).map_err(missing)?),
            }),
            Some(ReadyBody::Form(form)) => {
                let pairs = optional(form, filled.values);
                let mut text = url::form_urlencoded::Serializer::new(String::new());
                text.extend_pairs(pairs);
                Some(Content {
                    media_type: "application/x-www-form-urlencoded",
                    bytes: Bytes::from(text.finish()),
                })
            }
        };
        Ok(Outgoing {
            method: self.method.clone(),
            url,
            headers: optional(&self.headers, filled.values),
            content,
        })
    }
}

/// Fills what can be filled; the rest is left out.
fn optional(templates: &[(String, ReadyTemplate)], values: Values<'_>) -> Vec<(String, String)> {
    let fill = |(name, template): &(String, ReadyTemplate)| {
        Some((name.clone(), template.fill(values, str::to_owned).ok()?))
    };
    templates.iter().filter_map(fill).collect()
}

/// Writes a value so that it is one segment of a path.
pub(crate) fn escape_path(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            escaped.push_str(&super::sign::hex(&[byte]).to_ascii_uppercase());
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_one_segment() {
        assert_eq!(escape_path("a/b?c#d e%2F"), "a%2Fb%3Fc%23d%20e%252F");
        assert_eq!(escape_path("ä-1.5_~"), "%C3%A4-1.5_~");
    }
}
