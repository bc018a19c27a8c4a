use std::fmt;

use secrecy::SecretString;

/// Text that may hold references to secrets: `${env:NAME}` and `${file:/path}`.
///
/// The references are stored and shown; the secrets exist only in what [`SecretText::resolve`]
/// returns.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretText(String);

/// A secret cannot be resolved. Never holds the secret.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The environment variable is not set.
    #[error("environment variable `{0}` is not set where this service runs")]
    Variable(String),
    /// The file cannot be read.
    #[error("secret file `{path}` cannot be read")]
    File {
        /// Path of the file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The reference is not well formed.
    #[error("`{0}` is not a reference; write ${{env:NAME}} or ${{file:/path}}")]
    Reference(String),
}

impl SecretText {
    /// Takes the text as written.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text with its references unresolved.
    #[must_use]
    pub fn as_written(&self) -> &str {
        &self.0
    }

    /// Replaces each reference by its secret. A final line end of a secret file is left out.
    ///
    /// `variable` looks up environment variables.
    ///
    /// # Errors
    ///
    /// When a variable is not set, a file cannot be read or a reference is not well formed.
    pub fn resolve(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<SecretString, ResolveError> {
        let mut resolved = String::new();
        let mut rest = self.0.as_str();
        while let Some(start) = rest.find("${") {
            resolved.push_str(&rest[..start]);
            let reference = &rest[start..];
            let end =
                reference.find('}').ok_or_else(|| ResolveError::Reference(reference.to_owned()))?;
            resolved.push_str(&look_up(&reference[2..end], &variable)?);
            rest = &reference[end + 1..];
        }
        resolved.push_str(rest);
        Ok(SecretString::from(resolved))
    }
}

fn look_up(
    reference: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, ResolveError> {
    match reference.split_once(':') {
        Some(("env", name)) => {
            variable(name).ok_or_else(|| ResolveError::Variable(name.to_owned()))
        }
        Some(("file", path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ResolveError::File { path: path.to_owned(), source })?;
            Ok(text
                .strip_suffix('\n')
                .map_or(text.as_str(), |t| t.trim_end_matches('\r'))
                .to_owned())
        }
        _ => Err(ResolveError::Reference(format!("${{{reference}}}"))),
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretText").field(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let error = SecretText::new("postgres://${env:USER_X}@h/db").resolve(|_| None).unwrap_err();
        assert!(error.to_string().contains("USER_X"));
    }

    #[test]
    fn references_are_replaced_and_the_rest_stays() {
        let text = SecretText::new("a${env:X}b${env:X}c");
        let resolved = text.resolve(|name| (name == "X").then(|| "1".to_owned())).unwrap();
        assert_eq!(resolved.expose_secret(), "a1b1c");
    }

    #[test]
    fn an_open_reference_is_an_error() {
        assert!(SecretText::new("a${env:X").resolve(|_| None).is_err());
        assert!(SecretText::new("${vault:X}").resolve(|_| None).is_err());
    }
}
