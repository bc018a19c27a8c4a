use std::sync::{Arc, Mutex, PoisonError};

use tonic::Request;

/// Characters of a subject that the audit keeps.
const MOST: usize = 500;

/// To what a call is done: empty until the method says so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject(Arc<Mutex<String>>);

impl Subject {
    /// Returns the subject of a call. Where no guard stands before it, nobody reads it.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// Tells the audit to what the call is done. Names and ids only, never what is in a record.
    pub(crate) fn is(&self, subject: impl Into<String>) {
        let mut subject = subject.into();
        if let Some((end, _)) = subject.char_indices().nth(MOST) {
            subject.truncate(end);
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = subject;
    }

    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
