use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

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

/// The secret files that a text refers to, so that whoever has resolved them once can tell when to do
/// it again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretFiles(Vec<String>);

impl SecretFiles {
    /// Finds the files in a text such as that of a pipeline, in alphabetical order.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let references = text.split("${file:").skip(1);
        let mut paths: Vec<String> =
            references.filter_map(|rest| Some(rest.split_once('}')?.0.to_owned())).collect();
        paths.sort();
        paths.dedup();
        Self(paths)
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a number that is another one when a file holds something else, or can or cannot be
    /// read any more.
    #[must_use]
    pub fn state(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for path in &self.0 {
            std::fs::read(path).ok().hash(&mut hash);
        }
        hash.finish()
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
    fn another_content_of_a_file_is_another_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let text = format!("a: ${{file:{0}}}\nb: x${{file:{0}}}y${{env:Z}}", path.display());
        let files = SecretFiles::of(&text);
        assert_eq!(files.0, [path.display().to_string()]);
        let missing = files.state();
        std::fs::write(&path, "one").unwrap();
        let one = files.state();
        std::fs::write(&path, "two").unwrap();
        assert!(missing != one && one != files.state());
        std::fs::write(&path, "one").unwrap();
        assert_eq!(files.state(), one);
        assert!(SecretFiles::of("${env:A} ${file:").is_empty());
    }

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
