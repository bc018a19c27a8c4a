//! A table is captured while the extractor is killed and its server restarts.

use std::time::{Duration, Instant};

use testkit::postgres::Postgres;
use tests::{Layout, Role, Seed, System};

const PATIENCE: Duration = Duration::from_secs(120);
/// What both sides are compared by.
const CHECKSUM: &str = "select count(*), md5(string_agg(concat_ws('|', id, v, length(large), \
    md5(large)), ',' order by id)) from";

/// Changes some rows at random, in one transaction.
fn change(source: &Postgres, url: &str, seed: &mut Seed) {
    let (from, by) = (seed.between(1, 3_000), seed.between(1, 1_000));
    source.execute(
        url,
        &format!(
            "begin; \
             insert into t select n, {by}, repeat(md5(n::text), 200) \
                 from generate_series({from}, {from} + 20) n \
                 on conflict (id) do update set v = excluded.v; \
             update t set v = v + {by} where id % 7 = {by} % 7 and id < {from}; \
             delete from t where id between {from} + 5 and {from} + 9; \
             update t set id = id + 10000 where id = {from} \
                 and not exists (select 1 from t o where o.id = {from} + 10000); \
             commit"
        ),
    );
}

/// Waits until the target is what the source is.
async fn until_equal(source: &Postgres, url: &str, system: &System) {
    let expected = source.execute(url, &format!("{CHECKSUM} t"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let there = "select to_regclass('captured') is not null";
        let found = if system.postgres.execute(&system.target, there).trim() == "t" {
            system.postgres.execute(&system.target, &format!("{CHECKSUM} captured"))
        } else {
            String::new()
        };
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found} instead of {expected}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_table_survives_kills_of_the_extractor_and_restarts_of_its_server() {
    let mut seed = Seed::of_test("capture");
    let mut source = Postgres::start_with(&[("wal_level", "logical")]);
    let url = source.create_database();
    source.execute(
        &url,
        "create table t (id int primary key, v bigint, large text); \
         alter table t alter large set storage external; \
         insert into t select n, 0, repeat(md5(n::text), 100) from generate_series(1, 2000) n",
    );
    let mut system = System::start(Layout::for_faults()).await;
    let yaml = format!(
        "pipeline: captured\n\
         source:\n  postgres: {{url: \"{url}\", table: t, capture: {{window: 3s}}}}\n\
         triggers: {{continuous: true}}\n\
         key: [id]\n\
         targets:\n  store: {{postgres: {{url: \"{}\", table: captured}}}}\n",
        system.target
    );
    system.client.apply(&yaml).await;
    until_equal(&source, &url, &system).await;
    for round in 0..4 {
        for _ in 0..10 {
            change(&source, &url, &mut seed);
        }
        match round {
            1 => source.restart(),
            3 => {
                source.kill();
                source.restart();
            }
            _ => {
                let extractor = system.service(Role::Extractor);
                extractor.process.kill().await.expect("the process was running");
                extractor.start().await;
            }
        }
        for _ in 0..5 {
            change(&source, &url, &mut seed);
        }
    }
    until_equal(&source, &url, &system).await;
    // Everything is loaded and confirmed: the server keeps nothing but what has come since.
    let slot = source.execute(
        &url,
        "select wal_status from pg_replication_slots where slot_name = 'tributary_captured'",
    );
    assert_eq!(slot.trim(), "reserved");
}
