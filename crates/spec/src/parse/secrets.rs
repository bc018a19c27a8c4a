use crate::{SecretText, reader::At};

const REFERENCES: &str = "write `${env:NAME}` or `${file:/path}`";

/// Reads a text whose secrets have to be references.
pub(super) fn secret(at: &At<'_>) -> Option<SecretText> {
    let text = at.text()?;
    match references(&text) {
        Err(reference) => {
            at.problem(format!("`{reference}` is not a reference to a secret"), REFERENCES);
            None
        }
        Ok((_, 0)) => {
            at.problem("a secret stands here in clear", REFERENCES);
            None
        }
        Ok(_) => Some(SecretText::new(text)),
    }
}

/// Reads a connection URL. A password in it has to be a reference.
pub(super) fn url(at: &At<'_>) -> Option<SecretText> {
    let text = at.text()?;
    let (rest, _) = match references(&text) {
        Ok(found) => found,
        Err(reference) => {
            at.problem(format!("`{reference}` is not a reference to a secret"), REFERENCES);
            return None;
        }
    };
    if rest.starts_with(HIDDEN) {
        return Some(SecretText::new(text));
    }
    let Some(address) =
        ["postgres://", "postgresql://"].iter().find_map(|scheme| rest.strip_prefix(scheme))
    else {
        at.problem(
            "the text is not a PostgreSQL URL",
            "write `postgres://user:${env:PASSWORD}@host:5432/database`, or a reference to the \
             whole URL",
        );
        return None;
    };
    let end = address.find(['/', '?']).unwrap_or(address.len());
    let password = address[..end]
        .rsplit_once('@')
        .and_then(|(user, _)| user.split_once(':'))
        .map_or("", |(_, password)| password);
    let parameter = rest
        .split_once('?')
        .map_or("", |(_, query)| query)
        .split('&')
        .find_map(|pair| pair.strip_prefix("password="))
        .unwrap_or("");
    if [password, parameter].iter().any(|text| text.contains(|c| c != HIDDEN)) {
        at.problem(
            "the URL holds a password in clear",
            "put the password into an environment variable and write `${env:NAME}` in its place",
        );
        return None;
    }
    Some(SecretText::new(text))
}

/// Stands for a reference in a text that is looked at.
const HIDDEN: char = '\u{1}';

/// Returns the text with each reference hidden, and the number of references; or what looks like a
/// reference and is none.
fn references(text: &str) -> Result<(String, usize), String> {
    let mut hidden = String::new();
    let mut count = 0;
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        hidden.push_str(&rest[..start]);
        let reference = &rest[start..];
        let Some(end) = reference.find('}') else {
            // What follows may be a secret.
            return Err("${…".to_owned());
        };
        let sound = match reference[2..end].split_once(':') {
            Some(("env", name)) => is_variable(name),
            Some(("file", path)) => path.starts_with('/') && path.len() > 1,
            _ => false,
        };
        if !sound {
            return Err(reference[..=end].to_owned());
        }
        hidden.push(HIDDEN);
        count += 1;
        rest = &reference[end + 1..];
    }
    hidden.push_str(rest);
    Ok((hidden, count))
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
