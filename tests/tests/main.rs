//! Stories of the whole system. See the crate's documentation.

#![allow(clippy::unwrap_used, reason = "whatever fails here fails a test")]

mod access;
mod broker_users;
mod canaries;
mod capture;
mod chart;
mod clocks;
mod cluster;
mod crash_points;
mod deliveries;
mod first_sync;
mod full_stream;
mod kills;
mod monitoring;
mod outages;
mod outbound;
mod poison;
mod push;
mod python;
mod quotas;
mod readme;
mod renewal;
mod repetition;
mod replicas;
mod rotation;
mod scenario;
mod schedule;
mod traces;
mod up;

use tests::{Customers, Edition, System, Tap};

/// Records of a run that has to survive a fault.
const RECORDS: u64 = 100_000;

/// A run of the customers that is going on.
struct Story {
    system: System,
    tap: Tap,
    customers: Customers,
    run: String,
}

impl Story {
    /// Writes the customers as `files` files, stores the pipeline and starts a run. The services
    /// that are needed for that have been started.
    async fn begin(system: System, seed: u64, files: u64) -> Self {
        let tap = system.tap().await;
        Self::begin_with(system, tap, seed, files).await
    }

    async fn begin_with(system: System, tap: Tap, seed: u64, files: u64) -> Self {
        let customers = Customers::new(seed, RECORDS);
        system.write_customers(customers, files, Edition::First);
        system.client.apply(&system.customers_pipeline()).await;
        let run = system.client.start("customers").await;
        Self { system, tap, customers, run }
    }

    /// Waits for the end of the run: it succeeds with balanced books, everything was extracted, and
    /// the target holds exactly what the source does.
    async fn ends_complete(&self) -> wire::control::Run {
        let run = self.system.client.succeeded(&self.run).await;
        let ledger = run.ledger.as_ref().expect("a run has books");
        assert_eq!(ledger.extracted, RECORDS, "{run:#?}");
        assert_eq!(self.system.fingerprint(), self.customers.fingerprint(Edition::First));
        run
    }

    /// Asserts that the run is still going on, so that what happens next happens in its middle.
    async fn is_running(&self) {
        let run = self.system.client.run(&self.run).await;
        assert_eq!(run.state(), wire::control::RunState::Running, "{run:#?}");
    }
}
