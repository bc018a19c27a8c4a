//! Follows the log from a place in it, for the time of a window.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use connect::{Chunk, Error, Limits};
use futures::FutureExt;
use pgwire_replication::{Lsn, ReplicationClient, ReplicationEvent};
use sqlx::{PgPool, Postgres, pool::PoolConnection};
use tokio::time::Instant;

use super::{
    super::{catalog, error::whole},
    connection::Connection,
    cursor::{Cursor, Log, Within},
    fetch,
    message::{self, Message, Old, Relation, Tuple, Value},
    rows::{Change, Layout, Rows},
    slot::Names,
    value::Column,
};
use crate::sql::columns::Declared;

/// How long a change waits for the next one, to go in one batch with it.
const LULL: Duration = Duration::from_millis(2);
/// How long a change waits at most.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// How long the server may take to end the session.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is followed, and how long.
pub(super) struct Following {
    pub(super) names: Names,
    pub(super) relation: u32,
    pub(super) key: Vec<String>,
    pub(super) declared: Declared,
    pub(super) pool: PgPool,
    pub(super) connection: Connection,
    pub(super) window: Duration,
    /// Where the log ended when the window began.
    pub(super) end: Lsn,
    pub(super) extraction_base: i64,
    pub(super) limits: Limits,
}

/// Gives the changes of the table.
pub(super) struct Reader {
    following: Following,
    client: ReplicationClient,
    /// Behind what was taken.
    place: Log,
    /// Behind what was given away.
    given: Log,
    /// The transaction that is being read.
    transaction: Option<Within>,
    described: Option<Relation>,
    rows: Option<Rows>,
    /// When the oldest change was taken that is not given away.
    oldest: Option<Instant>,
    deadline: Instant,
    /// The server waits for us, so this is the last transaction.
    ending: bool,
    /// Why nothing can be read behind `place`.
    stopped: Option<Error>,
    ended: bool,
}

impl Reader {
    pub(super) fn new(following: Following, client: ReplicationClient, place: Log) -> Self {
        Self {
            deadline: Instant::now() + following.window,
            following,
            client,
            place,
            given: place,
            transaction: None,
            described: None,
            rows: None,
            oldest: None,
            ending: false,
            stopped: None,
            ended: false,
        }
    }

    fn has_rows(&self) -> bool {
        self.rows.as_ref().is_some_and(|rows| !rows.is_empty())
    }

    fn is_full(&self) -> bool {
        self.rows.as_ref().is_some_and(|rows| rows.is_full(self.following.limits))
    }

    /// Tells whether the window ends here: only between transactions.
    fn is_over(&self) -> bool {
        let window_is_over = if self.following.window.is_zero() {
            self.place.at >= self.following.end
        } else {
            Instant::now() >= self.deadline
        };
        self.transaction.is_none() && (self.ending || window_is_over)
    }

    /// Waits for the next message, but not longer than what was taken may wait.
    async fn receive(&mut self) -> Result<Option<ReplicationEvent>, Error> {
        let until = match self.oldest {
            Some(oldest) => Some((Instant::now() + LULL).min(oldest + LONGEST_WAIT)),
            None if self.transaction.is_none() && !self.following.window.is_zero() => {
                Some(self.deadline)
            }
            None => None,
        };
        let event = match self.client.recv().now_or_never() {
            Some(event) => event,
            None => match until {
                Some(until) => match tokio::time::timeout_at(until, self.client.recv()).await {
                    Ok(event) => event,
                    Err(_) => return Ok(None),
                },
                None => self.client.recv().await,
            },
        };
        match event.map_err(|error| self.following.connection.failed(error))? {
            Some(event) => Ok(Some(event)),
            None => Err(Error::retry(
                &*self.following.names.what,
                "the server has ended the session; check that it runs",
            )),
        }
    }

    /// Takes a message. Returns a chunk that has to be given away before.
    async fn take(&mut self, event: ReplicationEvent) -> Result<Option<Chunk>, Error> {
        match event {
            ReplicationEvent::Begin { final_lsn, .. } => {
                self.transaction = Some(Within { commit: final_lsn, changes: 0 });
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                self.transaction = None;
                self.place.within = None;
                self.place.at = self.place.at.max(end_lsn);
            }
            ReplicationEvent::KeepAlive { wal_end, reply_requested, .. } => {
                // All transactions up to here were told, and none of them is open.
                if self.transaction.is_none() {
                    self.place.at = self.place.at.max(wal_end);
                }
                // It hears from us all the time, so it asks only because it wants to shut down.
                self.ending |= reply_requested;
            }
            ReplicationEvent::XLogData { data, .. } => {
                let message = message::read(&data).map_err(|cause| {
                    Error::stop(&*self.following.names.what, "report this").because(cause)
                })?;
                return self.take_message(message).await;
            }
            ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. } => {}
        }
        Ok(None)
    }

    async fn take_message(&mut self, message: Message<'_>) -> Result<Option<Chunk>, Error> {
        let ours = self.following.relation;
        match message {
            Message::Relation(relation) if relation.id == ours => {
                if self.described.as_ref() == Some(&relation) {
                    return Ok(None);
                }
                let chunk = if self.has_rows() { Some(self.give().await?) } else { None };
                self.describe(relation).await?;
                return Ok(chunk);
            }
            Message::Insert { relation, new } if relation == ours => {
                if let Some(id) = self.next_change() {
                    self.record(&new, false, false, id)?;
                }
            }
            Message::Update { relation, old, new } if relation == ours => {
                if let Some(id) = self.next_change() {
                    self.update(old, new, id).await?;
                }
            }
            Message::Delete { relation, old } if relation == ours => {
                if let Some(id) = self.next_change() {
                    let (values, only_identity) = match &old {
                        Old::Key(values) => (values, true),
                        Old::Full(values) => (values, false),
                    };
                    self.record(values, true, only_identity, id)?;
                }
            }
            Message::Truncate { relations } if relations.contains(&ours) => {
                self.stopped = Some(Error::stop(
                    format!(
                        "table `{}` was truncated, and a pipeline does not empty its targets by \
                         itself",
                        self.following.names.table.plain()
                    ),
                    "empty the targets yourself or leave them as they are, then run once with \
                     `--full`",
                ));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Counts a change, and returns the id of its record unless it was read before.
    fn next_change(&mut self) -> Option<String> {
        let within = self.transaction.as_mut()?;
        within.changes += 1;
        let read = self
            .place
            .within
            .is_some_and(|place| place.commit == within.commit && place.changes >= within.changes);
        if read {
            return None;
        }
        self.place.within = Some(*within);
        Some(format!("{}:{}/{}", self.following.names.slot, within.commit, within.changes))
    }

    /// Takes the new values of a row. Those that the log does not tell are read from the table, so
    /// that the record is whole: records may overtake each other on their way, and a patch that
    /// overtakes what it belongs to would lose the rest.
    async fn update(
        &mut self,
        old: Option<Old<'_>>,
        mut new: Tuple<'_>,
        id: String,
    ) -> Result<(), Error> {
        let layout = self.layout()?;
        self.check_width(&layout, &new)?;
        if let Some(old) = &old {
            let (values, only_identity) = match old {
                Old::Key(values) => (values, true),
                Old::Full(values) => (values, false),
            };
            self.check_width(&layout, values)?;
            for (index, value) in new.iter_mut().enumerate() {
                if *value == Value::Unchanged && (!only_identity || layout.identity[index]) {
                    *value = values[index];
                }
            }
            if layout.key_of(values) != layout.key_of(&new) {
                self.record(values, true, only_identity, format!("{id}-old"))?;
            }
        }
        if !new.contains(&Value::Unchanged) {
            return self.record(&new, false, false, id);
        }
        let mut connection = self.connect().await?;
        let names = &self.following.names;
        let kept = fetch::unchanged(&mut connection, names, &layout, &new).await?;
        for (index, text) in &kept {
            new[*index] = text.as_ref().map_or(Value::Null, |text| Value::Text(text.as_bytes()));
        }
        self.record(&new, false, false, id)
    }

    fn record(
        &mut self,
        values: &Tuple<'_>,
        deletes: bool,
        only_identity: bool,
        id: String,
    ) -> Result<(), Error> {
        let layout = self.layout()?;
        self.check_width(&layout, values)?;
        self.place.row += 1;
        let position = self.place.row;
        let limits = self.following.limits;
        if let Some(rows) = &mut self.rows {
            rows.take(Change { values, deletes, only_identity, id, position }, limits);
        }
        self.oldest.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn layout(&self) -> Result<Arc<Layout>, Error> {
        self.rows.as_ref().map(|rows| Arc::clone(&rows.layout)).ok_or_else(|| self.malformed())
    }

    fn check_width(&self, layout: &Layout, values: &Tuple<'_>) -> Result<(), Error> {
        if values.len() == layout.columns.len() { Ok(()) } else { Err(self.malformed()) }
    }

    fn malformed(&self) -> Error {
        Error::stop(&*self.following.names.what, "report this").because(message::Malformed)
    }

    async fn connect(&self) -> Result<PoolConnection<Postgres>, Error> {
        let connected = self.following.pool.acquire().await;
        connected.map_err(|error| whole(&self.following.names.what, error))
    }

    /// Looks at the columns that the table has from here on.
    async fn describe(&mut self, relation: Relation) -> Result<(), Error> {
        let following = &self.following;
        let what = &following.names.what;
        let mut connection = self.connect().await?;
        let columns = catalog::described(&mut connection, &relation.columns)
            .await
            .map_err(|error| whole(what, error))?;
        drop(connection);
        if columns.len() != relation.columns.len() {
            return Err(Error::stop(&**what, "run once with `--full`")
                .because("the type of a column is gone, so that its old values cannot be read"));
        }
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        let table = format!("table `{}`", following.names.table.plain());
        following.declared.check(&table, &names)?;
        let mut key = Vec::with_capacity(following.key.len());
        for name in &following.key {
            crate::sql::columns::column_exists(&table, name, &names)?;
            key.extend(names.iter().position(|column| column == name));
        }
        let layout = Layout {
            columns: columns.iter().map(Column::new).collect(),
            identity: relation.identity.clone(),
            key,
        };
        self.rows = Some(Rows::new(Arc::new(layout)));
        self.described = Some(relation);
        Ok(())
    }

    /// Gives away what was taken.
    async fn give(&mut self) -> Result<Chunk, Error> {
        self.oldest = None;
        self.given = self.place;
        let cursor = Cursor::Log(self.place);
        let base = self.following.extraction_base;
        let Some(rows) = self.rows.as_ref().filter(|rows| !rows.is_empty()) else {
            return Ok(super::only_cursor(&cursor, base));
        };
        let mut connection =
            if rows.layout.converts() { Some(self.connect().await?) } else { None };
        let what = &self.following.names.what;
        let Some(rows) = &mut self.rows else { return Err(self.malformed()) };
        let (records, refused) = rows.finish(base, connection.as_deref_mut(), what).await?;
        Ok(Chunk { records, refused, cursor: cursor.to_text() })
    }

    /// Ends the session, so that the next one finds the slot free.
    async fn leave(&mut self) {
        self.ended = true;
        if tokio::time::timeout(FAREWELL, self.client.shutdown()).await.is_err() {
            self.client.abort();
        }
    }
}

#[async_trait]
impl connect::Reader for Reader {
    async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        loop {
            if self.ended {
                return Ok(None);
            }
            if self.is_full() {
                return self.give().await.map(Some);
            }
            if let Some(error) = self.stopped.take() {
                if self.has_rows() {
                    self.stopped = Some(error);
                    return self.give().await.map(Some);
                }
                return Err(error);
            }
            if self.is_over() {
                self.leave().await;
                let moved = self.has_rows() || self.place != self.given;
                return if moved { self.give().await.map(Some) } else { Ok(None) };
            }
            match self.receive().await? {
                Some(event) => {
                    if let Some(chunk) = self.take(event).await? {
                        return Ok(Some(chunk));
                    }
                }
                None if self.has_rows() => return self.give().await.map(Some),
                None => {}
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.client.abort();
    }
}
