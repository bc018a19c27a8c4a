use std::{str::FromStr, time::Duration};

use connect::Error;
use secrecy::ExposeSecret;
use spec::SecretText;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// Connections of one source or target at the same time.
const MOST_CONNECTIONS: u32 = 8;
/// How long to wait for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads a connection URL. Nothing is reached yet.
///
/// # Errors
///
/// Stops the run when a secret cannot be resolved or the URL is not one.
pub(super) fn options(
    url: &SecretText,
    variables: &crate::Variables,
) -> Result<PgConnectOptions, Error> {
    let shown = url.as_written();
    let resolved = url.resolve(|name| variables(name)).map_err(|cause| {
        Error::stop(
            "the URL of the PostgreSQL database cannot be put together",
            "set the variable or file that it refers to where this service runs",
        )
        .because(cause)
    })?;
    // The cause is left out: it may quote the URL, which holds the password.
    let options = PgConnectOptions::from_str(resolved.expose_secret()).map_err(|_| {
        let shown = if shown.contains('@') && !shown.contains("${") { "the URL" } else { shown };
        Error::stop(
            format!("{shown} is not the URL of a PostgreSQL database"),
            "write `postgres://user:password@host:5432/database`",
        )
    })?;
    Ok(options.application_name("tributary").options([
        ("timezone", "UTC"),
        ("datestyle", "ISO"),
        ("intervalstyle", "iso_8601"),
        ("bytea_output", "hex"),
        ("extra_float_digits", "1"),
        ("client_min_messages", "warning"),
        ("jit", "off"),
    ]))
}

/// Makes a pool that connects when it is first used.
pub(super) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(MOST_CONNECTIONS)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(true)
        .connect_lazy_with(options)
}

/// Names the server and database without credentials.
pub(super) fn address(options: &PgConnectOptions) -> String {
    format!(
        "{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or("postgres")
    )
}
