//! How long the main job takes, next to the least that PostgreSQL needs for the same rows.
//!
//! `bench webhooks` measures only what is pushed, `bench capture` only change capture, `bench polling`
//! only an HTTP API, `bench dead-target` only a target beside a dead one. `bench [ROWS] [ROUNDS]`,
//! 1,000,000 customers and 3 rounds if they are not given, measures these as well. Every round measures
//! every case and its limit, one after the other, so that both meet the same machine. Prints a table of
//! medians and writes `bench.json` beside the folder of the binary.

mod capture;
mod dead_target;
mod limit;
mod measure;
mod polling;
mod report;
mod webhooks;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use tests::{Customer, Customers, Edition, Layout, System, binary};

use crate::{
    limit::Psql,
    measure::{Measured, measure},
    report::Case,
};

/// Everything that the cases share.
struct Bench {
    system: System,
    psql: Psql,
    customers: Customers,
    /// Database that the third case reads.
    source: String,
    first: PathBuf,
    second: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match std::env::args().nth(1).as_deref() {
        Some("webhooks") => return webhooks::measure().await.map(drop),
        Some("polling") => return polling::measure().await.map(drop),
        Some("dead-target") => return dead_target::measure().await.map(drop),
        Some("capture") => return capture::measure().await.map(drop),
        _ => {}
    }
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (rows, rounds): (u64, u64) = (number(1_000_000)?, number(3)?);

    let mut bench = Bench::prepare(rows).await?;
    let mut cases = vec![
        Case::new("CSV to PostgreSQL, first load", "psql \\copy", rows),
        Case::new("CSV to PostgreSQL, upsert, 10 % changed", "copy, insert on conflict", rows),
        Case::new("PostgreSQL to PostgreSQL", "psql copy out | copy in", rows),
    ];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let (load, upsert) = bench.files(round).await?;
        cases[0].ours.push(load);
        cases[1].ours.push(upsert);
        let (load, upsert) = bench.files_limit().await?;
        cases[0].limit.push(load);
        cases[1].limit.push(upsert);
        cases[2].ours.push(bench.table(round).await?);
        cases[2].limit.push(bench.table_limit().await?);
    }
    report::print(&cases);
    let folder = binary();
    let folder = folder.ancestors().nth(2).context("the binary lies in target/release")?;
    let file = folder.join("bench.json");
    report::write(&cases, &file)?;
    drop(bench);
    let webhooks = webhooks::measure().await?;
    report::add(&file, webhooks)?;
    report::add(&file, capture::measure().await?)?;
    report::add(&file, polling::measure().await?)?;
    report::add(&file, dead_target::measure().await?)
}

impl Bench {
    async fn prepare(rows: u64) -> anyhow::Result<Self> {
        let system = System::start(Layout::default().durable()).await;
        let customers = Customers::new(1, rows);
        let (first, second) = (system.folder().join("1.csv"), system.folder().join("2.csv"));
        customers.write_csv(&first, Edition::First)?;
        customers.write_csv(&second, Edition::Second)?;
        let psql = Psql::new();
        let source = system.postgres.create_database();
        psql.run(&source, &[&format!("create table customers ({})", Customer::COLUMNS)])?;
        psql.run(&source, &[&copy("customers", &first)])?;
        psql.run(&source, &["vacuum analyze customers"])?;
        Ok(Self { system, psql, customers, source, first, second })
    }

    /// Loads the file, and then the changed one over it.
    async fn files(&mut self, round: u64) -> anyhow::Result<(Measured, Measured)> {
        let name = format!("files-{round}");
        let input = self.system.folder().join("customers.csv");
        let path = input.display().to_string();
        self.apply(&name, &format!("csv: {{path: \"{path}\"}}"), "newest_by: updated_at\n").await;
        let mut measured = Vec::new();
        let editions =
            [(self.first.clone(), Edition::First), (self.second.clone(), Edition::Second)];
        for (file, edition) in editions {
            std::fs::copy(&file, &input)?;
            measured.push(self.run(&name, edition).await?);
        }
        let upsert = measured.pop().context("two runs")?;
        Ok((measured.pop().context("two runs")?, upsert))
    }

    /// Does the same with nothing but psql.
    async fn files_limit(&mut self) -> anyhow::Result<(Measured, Measured)> {
        let (psql, target) = (self.psql.clone(), self.system.target.clone());
        psql.run(&target, &["drop table if exists by_psql"])?;
        psql.run(&target, &[&format!("create table by_psql ({})", Customer::COLUMNS)])?;
        let load = copy("by_psql", &self.first);
        let load = measure(&mut self.system, async |_| psql.run(&target, &[&load])).await?;
        let columns: Vec<&str> = Customer::HEADER.split(',').collect();
        let set: Vec<String> =
            columns.iter().skip(1).map(|name| format!("{name} = excluded.{name}")).collect();
        let upsert = [
            "begin".to_owned(),
            "create temporary table changed (like by_psql) on commit drop".to_owned(),
            copy("changed", &self.second),
            format!(
                "insert into by_psql select * from changed on conflict (id) do update set {}",
                set.join(", ")
            ),
            "commit".to_owned(),
        ];
        let upsert: Vec<&str> = upsert.iter().map(String::as_str).collect();
        let upsert = measure(&mut self.system, async |_| psql.run(&target, &upsert)).await?;
        self.expect("by_psql", Edition::Second)?;
        Ok((load, upsert))
    }

    async fn table(&mut self, round: u64) -> anyhow::Result<Measured> {
        let name = format!("table-{round}");
        let source = format!("postgres: {{url: \"{}\", table: customers}}", self.source);
        self.apply(&name, &source, "").await;
        self.run(&name, Edition::First).await
    }

    async fn table_limit(&mut self) -> anyhow::Result<Measured> {
        let (psql, source, target) =
            (self.psql.clone(), self.source.clone(), self.system.target.clone());
        psql.run(&target, &["drop table if exists by_psql"])?;
        psql.run(&target, &[&format!("create table by_psql ({})", Customer::COLUMNS)])?;
        let pipe = async |_: &System| psql.pipe(&source, "customers", &target, "by_psql");
        let measured = measure(&mut self.system, pipe).await?;
        self.expect("by_psql", Edition::First)?;
        Ok(measured)
    }

    async fn apply(&self, name: &str, source: &str, newest_by: &str) {
        let table = name.replace('-', "_");
        let target = &self.system.target;
        let schema = tests::SCHEMA;
        let yaml = format!(
            "pipeline: {name}\nsource:\n  {source}\nschema: {schema}\nkey: [id]\n{newest_by}\
             targets:\n  store:\n    postgres: {{url: \"{target}\", table: {table}}}\n"
        );
        self.system.client.apply(&yaml).await;
    }

    /// Runs a pipeline over its whole source and checks what the target then holds.
    async fn run(&mut self, name: &str, edition: Edition) -> anyhow::Result<Measured> {
        let request = wire::control::StartRunRequest {
            pipeline: name.to_owned(),
            full: true,
            ..wire::control::StartRunRequest::default()
        };
        let measured = measure(&mut self.system, async |system: &System| {
            let run = system.client.start_with(request.clone()).await;
            system.client.succeeded(&run).await;
            Ok(())
        })
        .await?;
        let table = name.replace('-', "_");
        self.expect(&table, edition)?;
        let dropped = edition == Edition::Second || name.starts_with("table");
        if dropped {
            self.psql.run(&self.system.target, &[&format!("drop table {table}")])?;
        }
        Ok(measured)
    }

    fn expect(&self, table: &str, edition: Edition) -> anyhow::Result<()> {
        let found = self.system.fingerprint_of(table);
        ensure!(found == self.customers.fingerprint(edition), "`{table}` is not what the file is");
        Ok(())
    }
}

fn copy(table: &str, file: &std::path::Path) -> String {
    format!("\\copy {table} from '{}' with (format csv, header)", file.display())
}
