//! How fast a captured table is followed, next to PostgreSQL's own receiver of the log.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde_json::{Value, json};
use testkit::postgres::Postgres;
use tests::{Layout, Role, System};

/// Rows of the backlog.
const ROWS: u64 = 200_000;
/// Transactions of one row, and the time between two of them.
const SINGLE: u64 = 400;
const PAUSE: Duration = Duration::from_millis(5);

#[expect(clippy::print_stdout, reason = "it is the result of the program")]
pub(crate) async fn measure() -> anyhow::Result<Value> {
    let source = Postgres::start_with(&[("wal_level", "logical")]);
    let url = source.create_database();
    source.execute(
        &url,
        "create table t (id bigint primary key, name text, at timestamptz not null); \
         create publication receiver for table t",
    );
    source.execute(&url, "select pg_create_logical_replication_slot('receiver', 'pgoutput')");
    let mut system = System::start(Layout::default().durable()).await;
    system
        .client
        .apply(&format!(
            "pipeline: captured\n\
             source:\n  postgres: {{url: \"{url}\", table: t, capture: {{window: 10m}}}}\n\
             key: [id]\n\
             targets:\n  store:\n    postgres: {{url: \"{}\", table: captured}}\n    audit: true\n",
            system.target
        ))
        .await;
    source.execute(&url, "insert into t values (0, 'first', clock_timestamp())");
    arrived(&system, 1).await;

    // The backlog is there before anybody reads it.
    system.service(Role::Extractor).process.kill().await;
    source.execute(
        &url,
        &format!(
            "insert into t select n, 'name ' || n, clock_timestamp() \
             from generate_series(1, {ROWS}) n"
        ),
    );
    system.service(Role::Extractor).start().await;
    arrived(&system, 2).await;
    let began = Instant::now();
    arrived(&system, ROWS + 1).await;
    let ours = rate(ROWS, began.elapsed());
    let receiver = rate(ROWS, receive(&source, &url)?);

    for id in (ROWS + 1)..=(ROWS + SINGLE) {
        source.execute(&url, &format!("insert into t values ({id}, 'x', clock_timestamp())"));
        tokio::time::sleep(PAUSE).await;
    }
    arrived(&system, ROWS + SINGLE + 1).await;
    let quantile = |share: f64| {
        let sql = format!(
            "select percentile_cont({share}) within group \
             (order by extract(epoch from _loaded_at - at) * 1000) from captured where id > {ROWS}"
        );
        system.postgres.execute(&system.target, &sql).trim().parse::<f64>()
    };
    let (median, most) = (quantile(0.5)?, quantile(0.99)?);
    println!(
        "change capture of {ROWS} rows: {ours:.0}/s into PostgreSQL; pg_recvlogical {receiver:.0}/s \
         into nothing; change to row: median {median:.1} ms, 99 % {most:.1} ms"
    );
    Ok(json!({
        "case": "change capture",
        "rows": ROWS,
        "rows_per_s": ours,
        "pg_recvlogical_rows_per_s": receiver,
        "change_to_row_median_ms": median,
        "change_to_row_p99_ms": most,
    }))
}

fn rate(rows: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "there are fewer rows")]
    let rows = rows as f64;
    (rows / time.as_secs_f64()).round()
}

/// Waits until the target has so many rows.
async fn arrived(system: &System, rows: u64) {
    loop {
        let there = "select to_regclass('captured') is not null";
        if system.postgres.execute(&system.target, there).trim() == "t" {
            let count = "select count(*) from captured";
            let found = system.postgres.execute(&system.target, count);
            if found.trim().parse::<u64>().is_ok_and(|found| found >= rows) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lets PostgreSQL's own receiver read the same part of the log.
fn receive(source: &Postgres, url: &str) -> anyhow::Result<Duration> {
    let end = source.execute(url, "select pg_current_wal_lsn()");
    let began = Instant::now();
    let status = Command::new("/usr/lib/postgresql/15/bin/pg_recvlogical")
        .args(["--start", "--slot=receiver", "--file=/dev/null", "--no-loop", "--dbname", url])
        .args(["--option=proto_version=1", "--option=publication_names=receiver", "--endpos"])
        .arg(end.trim())
        .stderr(Stdio::inherit())
        .status()?;
    ensure!(status.success(), "pg_recvlogical failed");
    Ok(began.elapsed())
}
