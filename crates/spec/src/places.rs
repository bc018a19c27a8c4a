use std::collections::BTreeMap;

/// Where the parts of a pipeline stand in the text that it was read from.
///
/// Where something is written is no part of what it means: two pipelines that differ only in their
/// places are equal.
#[derive(Debug, Clone, Default)]
pub struct Places {
    file: String,
    lines: BTreeMap<String, u32>,
}

impl Places {
    pub(crate) fn new(file: &str, lines: BTreeMap<String, u32>) -> Self {
        Self { file: file.to_owned(), lines }
    }

    /// Returns the file, as the caller of [`crate::parse()`] named it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns the line of a key path, or of the nearest key around it; 0 if nothing is known.
    #[must_use]
    pub fn line(&self, path: &str) -> u32 {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return 0,
            }
        }
    }
}

impl PartialEq for Places {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}
