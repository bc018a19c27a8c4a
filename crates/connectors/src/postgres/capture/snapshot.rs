//! The rows that are there before the log is followed.
//!
//! A temporary slot tells a place in the log and gives a snapshot of the table at exactly this place.
//! It is needed only until the snapshot is taken over by the session that reads.

use async_trait::async_trait;
use connect::{Chunk, Error, Limits};
use pgwire_replication::{Lsn, ReplicationClient};
use sqlx::{Connection as _, PgConnection};
use twox_hash::XxHash3_64;

use super::super::{
    error::whole,
    reader::{Copies, Reading},
};
use super::{
    connection::Connection,
    cursor::{Cursor, Log, Snapshot},
};
use crate::sql::{self, quote::statement};

/// Reads the snapshot, and ends at the place in the log behind it.
pub(super) struct Reader {
    rows: sql::reader::Reader,
    at: Lsn,
    /// Position of the last record.
    row: u64,
    ended: bool,
    extraction_base: i64,
}

impl Reader {
    /// Starts behind `cursor`; without one at the beginning.
    ///
    /// Where the reading goes on, the rest of the rows is newer than those before. The log from the
    /// first place on makes them equal.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or has no place for a slot.
    pub(super) async fn start(
        connection: &Connection,
        reading: Reading,
        slot: &str,
        cursor: Option<Snapshot>,
        extraction_base: i64,
        limits: Limits,
    ) -> Result<Self, Error> {
        let mut exporter = connection.session().await?;
        let (here, name) = export(connection, &mut exporter, slot, extraction_base).await?;
        let session = import(&reading, &name).await.map_err(|error| whole(&reading.what, error))?;
        drop(exporter);
        let Snapshot { at, rows } =
            cursor.unwrap_or_else(|| Snapshot { at: here, rows: sql::cursor::Cursor::default() });
        let ids = format!("{slot}:{at}");
        let row = rows.row;
        let copies = Copies::within(reading, session);
        let lag = std::time::Duration::ZERO;
        let rows = sql::reader::Reader::start(copies, ids, lag, rows, extraction_base, limits);
        Ok(Self { rows, at, row, ended: false, extraction_base })
    }

    fn end(&mut self) -> Cursor {
        self.ended = true;
        Cursor::Log(Log::behind(self.at, self.row))
    }
}

#[async_trait]
impl connect::Reader for Reader {
    async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        if self.ended {
            return Ok(None);
        }
        let Some(mut chunk) = self.rows.next().await? else {
            let cursor = self.end();
            return Ok(Some(super::only_cursor(&cursor, self.extraction_base)));
        };
        let rows = sql::cursor::Cursor::parse(&chunk.cursor)?;
        self.row = rows.row;
        let cursor =
            if rows.end { self.end() } else { Cursor::Snapshot(Snapshot { at: self.at, rows }) };
        chunk.cursor = cursor.to_text();
        Ok(Some(chunk))
    }
}

/// Makes a place in the log with a snapshot, which lives as long as the session does nothing else.
async fn export(
    connection: &Connection,
    session: &mut ReplicationClient,
    slot: &str,
    extraction_base: i64,
) -> Result<(Lsn, String), Error> {
    let seed = format!(
        "{slot} {extraction_base} {} {:?}",
        std::process::id(),
        tokio::time::Instant::now()
    );
    let name = format!("tributary_snapshot_{:016x}", XxHash3_64::oneshot(seed.as_bytes()));
    let create =
        format!("CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT");
    let rows = session.simple_query(&create).await.map_err(|error| connection.failed(error))?;
    let text = |column: usize| {
        let value = rows.first().and_then(|row| row.get(column)).cloned().flatten();
        value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let place = text(1).and_then(|place| Lsn::parse(&place).ok());
    match (place, text(2)) {
        (Some(place), Some(name)) => Ok((place, name)),
        _ => Err(Error::stop("the server gives no snapshot", "report this")),
    }
}

/// Opens a transaction that sees the table as it was exported.
async fn import(reading: &Reading, name: &str) -> Result<PgConnection, sqlx::Error> {
    let mut session = PgConnection::connect_with(&reading.options).await?;
    sqlx::raw_sql("begin isolation level repeatable read read only").execute(&mut session).await?;
    let name = name.replace('\'', "''");
    sqlx::raw_sql(statement(format!("set transaction snapshot '{name}'")))
        .execute(&mut session)
        .await?;
    Ok(session)
}
