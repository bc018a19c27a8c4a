//! What an error of the database means to the caller.

use connect::Error;
use sqlx::postgres::PgDatabaseError;

use crate::sql::failure::Failure;

/// Decides what to do about an error. `what` says what was tried.
pub(super) fn failure(what: &str, error: sqlx::Error) -> Failure {
    if let sqlx::Error::Database(database) = &error
        && let Some(refusal) = database.try_downcast_ref::<PgDatabaseError>()
    {
        return refused(what, refusal);
    }
    Failure::Whole(whole(what, error))
}

/// Decides what to do about an error that concerns no single row.
pub(super) fn whole(what: &str, error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(refusal) => refused(what, refusal).into_error(),
            None => Error::stop(what, "see the cause").because("the database refused"),
        },
        sqlx::Error::Configuration(cause) => {
            Error::stop(what, "check the connection URL").because(cause)
        }
        error @ (sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_)) => {
            Error::retry(what, "check that the PostgreSQL server runs and can be reached")
                .because(error)
        }
        error => Error::stop(what, "see the cause").because(error),
    }
}

fn refused(what: &str, error: &PgDatabaseError) -> Failure {
    let code = error.code();
    let message = message(error);
    let retry = |hint: &str| Failure::Whole(Error::retry(what, hint).because(message.clone()));
    let stop = |hint: &str| Failure::Whole(Error::stop(what, hint).because(message.clone()));
    match code {
        "40001" | "40P01" | "55P03" => retry("another transaction was in the way"),
        // Statements that were prepared before the table changed.
        "0A000" if error.message().starts_with("cached plan") => {
            Failure::Stale(Error::retry(what, "the table has just changed").because(message))
        }
        "42P01" | "42703" | "42P10" | "42804" | "42883" => Failure::Stale(
            Error::stop(what, "the table has changed; run `tributary plan` to see how")
                .because(message),
        ),
        "25006" => retry("the server only reads at the moment; is it a standby?"),
        "42501" => stop("grant the user of the connection URL the right to do this"),
        "28000" | "28P01" => stop("check user and password in the connection URL"),
        "3D000" => stop("create the database, or correct the connection URL"),
        _ => match &code[..2.min(code.len())] {
            // A trigger may raise P0001 for a row; 21 is a key that the database takes for equal.
            "22" | "23" | "P0" | "21" | "44" => Failure::Data {
                code: if code.starts_with("22") { "type" } else { "constraint" },
                message,
                field: error.column().unwrap_or_default().to_owned(),
                exists: code == "23505",
            },
            "08" | "53" | "57" | "58" => retry("the server is away or short of something"),
            _ => stop("see the cause"),
        },
    }
}

/// Returns the database's reason without values of the row.
///
/// Names of constraints and columns are quoted in the messages of class 23; in class 22 the quoted
/// parts are values. A trigger's own text could hold anything.
fn message(error: &PgDatabaseError) -> String {
    let code = error.code();
    let text = error.message();
    let mut message = if code.starts_with("22") {
        let end = text.find([':', '"']).unwrap_or(text.len());
        text[..end].trim_end().to_owned()
    } else if code.starts_with("P0") {
        "refused by a trigger or function".to_owned()
    } else {
        text.to_owned()
    };
    if let Some(constraint) = error.constraint()
        && !message.contains(constraint)
    {
        message.push_str(&format!(" (constraint `{constraint}`)"));
    }
    format!("{message} ({code})")
}
