//! Tokens of the gRPC API.

use chrono::{DateTime, Utc};

use crate::{Error, Store, value::args};

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Name.
    pub name: String,
    /// Name of the role of its bearer.
    pub role: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it.
    pub created_by: String,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
    /// When it was ended before its time.
    pub revoked_at: Option<DateTime<Utc>>,
}

type Row = (String, String, DateTime<Utc>, String, DateTime<Utc>, Option<DateTime<Utc>>);

fn token(row: Row) -> Token {
    let (name, role, created_at, created_by, expires_at, revoked_at) = row;
    Token { name, role, created_at, created_by, expires_at, revoked_at }
}

impl Store {
    /// Stores a token and the SHA-256 of what its bearer sends. Tells whether it did: not where the
    /// name is taken, by an ended token too.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn create_token(&self, token: &Token, digest: &[u8]) -> Result<bool, Error> {
        let inserted = self
            .pool
            .execute(
                "insert into tokens \
                 (name, role, digest, created_at, created_by, expires_at, revoked_at) \
                 values ($1, $2, $3, $4, $5, $6, $7) on conflict (name) do nothing",
                args![
                    &token.name,
                    &token.role,
                    digest.to_vec(),
                    token.created_at,
                    &token.created_by,
                    token.expires_at,
                    token.revoked_at
                ],
            )
            .await?;
        Ok(inserted > 0)
    }

    /// Returns the token with that SHA-256, ended or not.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn token(&self, digest: &[u8]) -> Result<Option<Token>, Error> {
        let row: Option<Row> = self
            .pool
            .fetch_optional(
                "select name, role, created_at, created_by, expires_at, revoked_at from tokens \
                 where digest = $1",
                args![digest.to_vec()],
            )
            .await?;
        Ok(row.map(token))
    }

    /// Returns all tokens by name.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn tokens(&self) -> Result<Vec<Token>, Error> {
        let rows: Vec<Row> = self
            .pool
            .fetch(
                "select name, role, created_at, created_by, expires_at, revoked_at from tokens \
                 order by name",
                args![],
            )
            .await?;
        Ok(rows.into_iter().map(token).collect())
    }

    /// Ends a token, and tells whether there is one of that name. One that was ended stays as it is.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn revoke_token(&self, name: &str, now: DateTime<Utc>) -> Result<bool, Error> {
        let revoked = self
            .pool
            .execute(
                "update tokens set revoked_at = coalesce(revoked_at, $2) where name = $1",
                args![name, now],
            )
            .await?;
        Ok(revoked > 0)
    }
}
