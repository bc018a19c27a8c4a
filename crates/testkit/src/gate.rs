//! A place where the code under test waits until the test lets it on.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Holds whoever passes until it is opened. Cloning gives a second handle.
#[derive(Debug, Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }
}

impl Gate {
    /// Makes a closed gate.
    #[must_use]
    pub fn closed() -> Self {
        Self::default()
    }

    /// Waits at the gate until it is open; an open gate lets everybody pass.
    pub async fn pass(&self) {
        self.arrived.add_permits(1);
        drop(self.open.acquire().await);
    }

    /// Waits until somebody has come to the gate; each arrival is seen once.
    ///
    /// # Panics
    ///
    /// Never: the gate is not closed for good.
    pub async fn arrived(&self) {
        self.arrived.acquire().await.expect("the gate is never closed for good").forget();
    }

    /// Opens the gate for all who are there and all who come.
    pub fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}
