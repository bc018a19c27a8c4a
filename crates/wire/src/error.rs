use model::Remedy;

/// A message is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are no protobuf message of the expected kind.
    #[error("`{field}` is not readable as protobuf")]
    Malformed {
        /// Path of the field at which reading stopped.
        field: String,
    },
    /// A field is readable but its content contradicts the contract.
    #[error("`{field}` is invalid: {reason}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What is wrong, without any value of a record.
        reason: String,
    },
}

impl DecodeError {
    /// Returns what to do: the same bytes never become readable, so the message is quarantined.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        Remedy::Quarantine
    }

    pub(crate) fn malformed(field: impl Into<String>) -> Self {
        Self::Malformed { field: field.into() }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}
