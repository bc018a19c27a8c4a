//! Who did what: entries that are only ever added, each with a digest over itself and the one before.

use chrono::{DateTime, SubsecRound, Utc};
use sha2::{Digest, Sha256};

use crate::{Error, Store, value::args};

/// Entries that are checked at once.
const PAGE: i64 = 1_000;

/// Something was done, or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Counted from 1, without gaps.
    pub id: u64,
    /// When, to the microsecond.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// With what result.
    pub outcome: String,
    /// SHA-256 over the digest before it and this entry.
    pub digest: Vec<u8>,
}

/// What the check of all entries has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Entries that fit.
    pub entries: u64,
    /// Digest of the last of them.
    pub digest: Vec<u8>,
    /// The first entry that is missing or was changed.
    pub broken_at: Option<u64>,
}

type Row = (i64, DateTime<Utc>, String, String, String, String, Vec<u8>);

impl AuditEntry {
    fn of(row: Row) -> Self {
        let (id, at, actor, action, subject, outcome, digest) = row;
        Self { id: id.unsigned_abs(), at, actor, action, subject, outcome, digest }
    }

    /// Computes the digest of this entry behind the one before it.
    fn chained(&self, before: &[u8]) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(before);
        hash.update(self.id.to_be_bytes());
        hash.update(self.at.timestamp_micros().to_be_bytes());
        for text in [&self.actor, &self.action, &self.subject, &self.outcome] {
            // With lengths, so that no text can pass into its neighbour.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.finalize().to_vec()
    }
}

impl Store {
    /// Adds an entry; its id and digest are filled in here.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn add_to_audit(&self, mut entry: AuditEntry) -> Result<AuditEntry, Error> {
        entry.at = entry.at.trunc_subsecs(6);
        loop {
            let last: Option<(i64, Vec<u8>)> = self
                .pool
                .fetch_optional("select id, digest from audit order by id desc limit 1", args![])
                .await?;
            let (last, before) = last.unwrap_or_default();
            entry.id = last.unsigned_abs() + 1;
            entry.digest = entry.chained(&before);
            let added = self
                .pool
                .execute(
                    "insert into audit (id, at, actor, action, subject, outcome, digest) \
                     values ($1, $2, $3, $4, $5, $6, $7) on conflict (id) do nothing",
                    args![
                        entry.id,
                        entry.at,
                        &entry.actor,
                        &entry.action,
                        &entry.subject,
                        &entry.outcome,
                        entry.digest.clone()
                    ],
                )
                .await?;
            if added > 0 {
                return Ok(entry);
            }
            // Somebody else was faster, and this one goes behind theirs.
        }
    }

    /// Returns up to `limit` entries with a lower id than `before`, newest first.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn audit(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditEntry>, Error> {
        let rows: Vec<Row> = self
            .pool
            .fetch(
                "select id, at, actor, action, subject, outcome, digest from audit \
                 where id < $1 order by id desc limit $2",
                args![before.unwrap_or(u64::MAX), limit],
            )
            .await?;
        Ok(rows.into_iter().map(AuditEntry::of).collect())
    }

    /// Computes all digests again.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn verify_audit(&self) -> Result<Verified, Error> {
        let mut found = Verified::default();
        loop {
            let rows: Vec<Row> = self
                .pool
                .fetch(
                    "select id, at, actor, action, subject, outcome, digest from audit \
                     where id > $1 order by id limit $2",
                    args![found.entries, PAGE],
                )
                .await?;
            if rows.is_empty() {
                return Ok(found);
            }
            for entry in rows.into_iter().map(AuditEntry::of) {
                let expected = found.entries + 1;
                if entry.id != expected || entry.chained(&found.digest) != entry.digest {
                    return Ok(Verified { broken_at: Some(expected), ..found });
                }
                found.entries = entry.id;
                found.digest = entry.digest;
            }
        }
    }
}
