use connect::Error;

/// Why a statement failed, as far as it matters to what is done next.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Values of some row do not fit the table.
    Data {
        /// Short name of the reason.
        code: &'static str,
        /// The database's reason, without values.
        message: String,
        /// Column to blame, or empty.
        field: String,
        /// The reason is that such a row exists already.
        exists: bool,
    },
    /// The table has changed since its shape was looked at.
    Stale(Error),
    /// Something that concerns all rows.
    Whole(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Whole(error)
    }
}

impl Failure {
    /// Turns it into an error for all rows.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Data { message, .. } => {
                Error::stop(message, "change the table or the pipeline so that the rows fit")
            }
            Self::Stale(error) | Self::Whole(error) => error,
        }
    }
}
