use sha2::{Digest, Sha256};

/// Number of rows and the sum of a hash of each: equal for equal sets of rows, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint {
    /// Number of rows.
    pub rows: u64,
    /// Sum of the first 60 bits of each row's SHA-256.
    pub sum: u128,
}

impl Fingerprint {
    /// Adds a row, written as one text.
    ///
    /// # Panics
    ///
    /// Never: a hash has more than eight bytes.
    pub fn add(&mut self, row: &str) {
        let hash = Sha256::digest(row.as_bytes());
        let first: [u8; 8] = hash[..8].try_into().expect("a hash has more than eight bytes");
        self.rows += 1;
        self.sum += u128::from(u64::from_be_bytes(first) >> 4);
    }

    /// Returns SQL for PostgreSQL that computes the same from `row`, an expression that writes a row
    /// of `table` as one text.
    #[must_use]
    pub fn sql(row: &str, table: &str) -> String {
        format!(
            "select count(*), coalesce(sum(\
             ('x' || substr(encode(sha256(convert_to(t, 'UTF8')), 'hex'), 1, 15))::bit(60)::bigint\
             ), 0) from (select {row} as t from {table}) as texts"
        )
    }

    /// Reads what `psql` prints for [`Fingerprint::sql`].
    ///
    /// # Panics
    ///
    /// When the text is something else.
    #[must_use]
    pub fn parse(printed: &str) -> Self {
        let (rows, sum) = printed.trim().split_once('|').expect("two columns");
        Self { rows: rows.parse().expect("a count"), sum: sum.parse().expect("a sum") }
    }
}
