//! What an error of SQLite means to the caller.

use connect::Error;

use crate::sql::failure::Failure;

/// Primary result codes. Source: sqlite.org, "Result and Error Codes".
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READ_ONLY: u32 = 8;
const IO: u32 = 10;
const FULL: u32 = 13;
const CANNOT_OPEN: u32 = 14;
const SCHEMA: u32 = 17;
const TOO_BIG: u32 = 18;
const CONSTRAINT: u32 = 19;
const MISMATCH: u32 = 20;

/// Decides what to do about an error. `what` says what was tried.
pub(super) fn failure(what: &str, error: sqlx::Error) -> Failure {
    let sqlx::Error::Database(refusal) = &error else {
        return Failure::Whole(match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) => {
                Error::retry(what, "another process may be writing the file").because(error)
            }
            error => Error::stop(what, "see the cause").because(error),
        });
    };
    let extended = refusal.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0);
    // Messages of SQLite name tables and columns, never values.
    let message = refusal.message().to_owned();
    let retry = |hint: &str| Failure::Whole(Error::retry(what, hint).because(message.clone()));
    let stop = |hint: &str| Failure::Whole(Error::stop(what, hint).because(message.clone()));
    match extended & 0xff {
        BUSY | LOCKED => retry("another process is writing the file"),
        IO | FULL => retry("the disk is full or does not work"),
        READ_ONLY | CANNOT_OPEN => stop("check that the path exists and may be written"),
        CONSTRAINT | MISMATCH | TOO_BIG => Failure::Data {
            code: if extended & 0xff == MISMATCH { "type" } else { "constraint" },
            field: column(&message),
            exists: refusal.is_unique_violation(),
            message,
        },
        SCHEMA => Failure::Stale(Error::retry(what, "the table has just changed").because(message)),
        1 if message.contains("no such") || message.contains("has no column") => Failure::Stale(
            Error::stop(what, "the table has changed; run `tributary plan` to see how")
                .because(message),
        ),
        // A trigger's `raise` ends in a constraint error; all else is about the whole.
        _ => stop("see the cause"),
    }
}

/// Decides what to do about an error that concerns no single row.
pub(super) fn whole(what: &str, error: sqlx::Error) -> Error {
    failure(what, error).into_error()
}

/// Finds the column in `NOT NULL constraint failed: table.column`.
fn column(message: &str) -> String {
    let named = message.rsplit_once(" failed: ").map(|(_, names)| names);
    let one = named.filter(|names| !names.contains(", "));
    one.and_then(|name| name.rsplit_once('.'))
        .map(|(_, column)| column.to_owned())
        .unwrap_or_default()
}
