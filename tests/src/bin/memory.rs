//! How much memory every process needs for a file that is larger than any of them may be.
//!
//! `memory [MIB] [LIMIT_MIB]`: size of the file, 2048 if it is not given, and the most that a service
//! or the broker may use, 150. Fails when one uses more.

use std::{
    fs,
    io::{BufWriter, Write},
    path::Path,
    time::Instant,
};

use anyhow::{Context, ensure};
use tests::{Customer, Customers, Edition, Fingerprint, Layout, System, Usage};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are the result")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (mib, limit): (u64, u64) = (number(2048)?, number(150)?);

    let mut system = System::start(Layout::default()).await;
    let path = system.folder().join("customers-1.csv");
    let (rows, fingerprint) = write(&path, mib << 20).context("write the file")?;
    println!("{rows} customers, {} MiB", fs::metadata(&path)?.len() >> 20);

    system.client.apply(&system.customers_pipeline()).await;
    let started = Instant::now();
    let run = system.client.start("customers").await;
    let run = system.client.succeeded(&run).await;
    println!("run {} succeeded after {:.1} s", run.id, started.elapsed().as_secs_f64());
    ensure!(system.fingerprint() == fingerprint, "the target is not what the source is");

    let mut too_large = Vec::new();
    for service in system.services() {
        let usage = service.usage();
        println!("{:<12} {:>6.1} MiB at most", service.role.name(), usage.peak_mib());
        if usage.peak_bytes >= limit << 20 {
            too_large.push(service.role.name());
        }
    }
    let nats = system.nats.pid().and_then(Usage::of).context("the broker runs")?;
    println!("{:<12} {:>6.1} MiB at most", "nats-server", nats.peak_mib());
    if nats.peak_bytes >= limit << 20 {
        too_large.push("nats-server");
    }
    ensure!(too_large.is_empty(), "{limit} MiB or more: {}", too_large.join(", "));
    Ok(())
}

/// Writes customers until the file has `bytes`, and returns their number and fingerprint.
fn write(path: &Path, bytes: u64) -> anyhow::Result<(u64, Fingerprint)> {
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    writeln!(file, "{}", Customer::HEADER)?;
    let (mut written, mut line, mut fingerprint) = (0, String::new(), Fingerprint::default());
    for customer in Customers::new(7, u64::from(u32::MAX)).rows(Edition::First) {
        line.clear();
        customer.write_csv(&mut line);
        file.write_all(line.as_bytes())?;
        fingerprint.add(&customer.canonical());
        written += line.len() as u64;
        if written >= bytes {
            break;
        }
    }
    file.flush()?;
    Ok((fingerprint.rows, fingerprint))
}
