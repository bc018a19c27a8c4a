//! What connectors remember beyond one call, shared with all other processes.

use std::{collections::HashMap, sync::Mutex};

use async_trait::async_trait;

use crate::Error;

/// Values by key, changed by compare and set.
#[async_trait]
pub trait Memory: Send + Sync {
    /// Returns what is remembered under a key.
    ///
    /// # Errors
    ///
    /// When the memory cannot be reached.
    async fn get(&self, key: &str) -> Result<Option<Remembered>, Error>;

    /// Remembers a value if the key still has this revision; `None`: if it has no value.
    ///
    /// # Errors
    ///
    /// When the memory cannot be reached; the value may have been stored then.
    async fn put(&self, key: &str, value: Vec<u8>, revision: Option<u64>) -> Result<Put, Error>;
}

/// A remembered value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The value.
    pub value: Vec<u8>,
    /// Changes with every change of the value.
    pub revision: u64,
}

/// What became of a value that was to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is remembered, with this revision.
    Stored(u64),
    /// Somebody else was faster. Nothing has changed.
    Conflict,
}

/// A memory that ends with the process and is shared with nobody.
#[derive(Debug, Default)]
pub struct LocalMemory {
    values: Mutex<(u64, HashMap<String, Remembered>)>,
}

#[async_trait]
impl Memory for LocalMemory {
    async fn get(&self, key: &str) -> Result<Option<Remembered>, Error> {
        let values = self.values.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(values.1.get(key).cloned())
    }

    async fn put(&self, key: &str, value: Vec<u8>, revision: Option<u64>) -> Result<Put, Error> {
        let mut values = self.values.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (last, values) = &mut *values;
        if values.get(key).map(|known| known.revision) != revision {
            return Ok(Put::Conflict);
        }
        *last += 1;
        values.insert(key.to_owned(), Remembered { value, revision: *last });
        Ok(Put::Stored(*last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_knows_the_last_value_changes_it() {
        let memory = LocalMemory::default();
        assert_eq!(memory.put("a", vec![1], Some(7)).await.unwrap(), Put::Conflict);
        let Put::Stored(first) = memory.put("a", vec![1], None).await.unwrap() else {
            panic!("the key is new")
        };
        assert_eq!(memory.put("a", vec![2], None).await.unwrap(), Put::Conflict);
        assert!(matches!(memory.put("a", vec![2], Some(first)).await.unwrap(), Put::Stored(_)));
        assert_eq!(memory.get("a").await.unwrap().unwrap().value, [2]);
    }
}
