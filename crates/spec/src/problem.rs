use std::{cell::RefCell, fmt};

use serde::{Deserialize, Serialize};

/// Something wrong with a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// File, as the caller named it.
    pub file: String,
    /// Line, counted from 1; 0 where no line is to blame.
    pub line: u32,
    /// Path of the key, such as `source.csv.path` or `steps[0].rename`; empty where no key is to
    /// blame.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": `{}`", self.key)?;
        }
        write!(f, ": {}; {}", self.message, self.remedy)
    }
}

/// Gathers what is wrong with one file.
pub(crate) struct Problems {
    file: String,
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: RefCell::default() }
    }

    pub(crate) fn add(
        &self,
        line: u32,
        key: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.found.borrow_mut().push(Problem {
            file: self.file.clone(),
            line,
            key: key.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Returns the problems in the order of their lines.
    pub(crate) fn into_vec(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|problem| problem.line);
        found
    }
}
