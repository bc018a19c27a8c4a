use secrecy::SecretString;

use crate::{Error, database::Pool};

/// The database of the control plane. Cheap to clone; all clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: Pool,
}

impl Store {
    /// Connects to `postgres://…` or opens the file of `sqlite://path`, creating it if it is
    /// missing, and brings the tables up to date. Several processes may do so at once; one of them
    /// changes the tables and the others wait.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached or changed. Tables that a later version has added to are
    /// left as they are.
    pub async fn open(address: &SecretString, connections: u32) -> Result<Self, Error> {
        Ok(Self { pool: Pool::open(address, connections).await? })
    }

    /// Makes new connections to another address of the same database, such as one with another
    /// password. Those that are there stay until they end.
    ///
    /// # Errors
    ///
    /// When it is no address of such a database.
    pub fn set_address(&self, address: &SecretString) -> Result<(), Error> {
        self.pool.set_address(address)
    }

    /// Tells whether the database answers.
    pub async fn is_reachable(&self) -> bool {
        self.pool.fetch::<(i64,)>("select cast(1 as bigint)", Vec::new()).await.is_ok()
    }

    /// Waits for the statements in hand and closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
