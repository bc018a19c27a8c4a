//! Time, CPU and memory of one piece of work.

use std::{collections::BTreeMap, time::Instant};

use tests::{System, Usage};

/// What one piece of work took.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// Wall time in seconds.
    pub(crate) seconds: f64,
    /// CPU seconds of every process.
    pub(crate) cpu_s: BTreeMap<String, f64>,
    /// Peak resident memory of every process in MiB.
    pub(crate) peak_mib: BTreeMap<String, f64>,
}

const POSTGRES: &str = "postgres";

/// Does the work and measures it. What PostgreSQL has still to write from before is written first.
pub(crate) async fn measure(
    system: &mut System,
    work: impl AsyncFnOnce(&System) -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    system.sql("checkpoint");
    let processes = processes(system);
    for (name, pid) in &processes {
        Usage::forget_peak(*pid);
        if name == POSTGRES {
            tests::children(*pid).into_iter().for_each(Usage::forget_peak);
        }
    }
    let before = usages(&processes);
    let started = Instant::now();
    work(system).await?;
    let seconds = started.elapsed().as_secs_f64();
    // What a client's backend has used is known of it, or of its parent once that has noticed the
    // end; this answer comes after both.
    let clients = "select count(*) from pg_stat_activity where application_name = 'psql'";
    while system.sql(clients) != "1" {}
    let after = usages(&processes);
    let cpu = |(name, usage): (&String, &Usage)| {
        (name.clone(), usage.cpu_s - before.get(name).map_or(0.0, |before| before.cpu_s))
    };
    Ok(Measured {
        seconds,
        cpu_s: after.iter().map(cpu).collect(),
        peak_mib: after.iter().map(|(name, usage)| (name.clone(), usage.peak_mib())).collect(),
    })
}

/// Returns name and id of every process.
fn processes(system: &mut System) -> Vec<(String, u32)> {
    let mut processes = vec![(POSTGRES.to_owned(), system.postmaster())];
    processes.extend(system.nats.pid().map(|pid| ("nats-server".to_owned(), pid)));
    let services = system.services().iter();
    processes.extend(
        services
            .filter_map(|service| Some((service.role.name().to_owned(), service.process.pid()?))),
    );
    processes
}

fn usages(processes: &[(String, u32)]) -> BTreeMap<String, Usage> {
    let look = |(name, pid): &(String, u32)| {
        let usage = if name == POSTGRES { Usage::of_family(*pid) } else { Usage::of(*pid) };
        Some((name.clone(), usage?))
    };
    processes.iter().filter_map(look).collect()
}
