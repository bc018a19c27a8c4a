use connect::Error;
use model::Remedy;

use crate::support::{Captured, count};

async fn refusal(captured: &mut Captured) -> String {
    stopped(captured.try_run(false).await.map(drop))
}

fn stopped(result: Result<(), Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.remedy, Remedy::Stop, "{}", error.chain());
    format!("{}; {}", error.chain(), error.hint)
}

#[tokio::test]
async fn a_table_whose_changes_have_no_key_is_refused_before_anything_is_created() {
    for (table, expected) in [
        ("create table t (id int)", "no replica identity"),
        (
            "create table t (id int primary key); alter table t replica identity nothing",
            "no replica identity",
        ),
        (
            "create table t (id int not null unique, other int not null unique); \
             alter table t replica identity using index t_other_key",
            "does not hold `id`",
        ),
    ] {
        let mut captured = Captured::new(table);
        captured.with_key();
        let refusal = refusal(&mut captured).await;
        assert!(
            refusal.contains(expected) && refusal.contains("replica identity full"),
            "{refusal}"
        );
        assert_eq!(captured.sql("select count(*) from pg_publication"), "0");
        captured.sql("alter table t replica identity full");
        captured.run().await;
    }
}

#[tokio::test]
async fn a_view_is_refused() {
    let mut captured = Captured::new("create view t as select 1 as id");
    captured.with_key();
    assert!(refusal(&mut captured).await.contains("not a table"));
}

#[tokio::test]
async fn a_server_that_keeps_no_logical_log_is_refused_with_the_remedy() {
    let server = std::sync::Arc::new(testkit::postgres::Postgres::start());
    let mut captured = Captured::on(server, "create table t (id int primary key)");
    assert!(refusal(&mut captured).await.contains("set `wal_level = logical`"));
}

#[tokio::test]
async fn a_truncate_stops_behind_all_changes_before_it() {
    let mut captured = Captured::new("create table t (id int primary key)");
    captured.run().await;
    captured.sql("insert into t values (1)");
    captured.sql("truncate t");
    captured.sql("insert into t values (2)");
    let refusal = stopped(captured.try_run(false).await.map(drop));
    assert!(refusal.contains("was truncated") && refusal.contains("--full"), "{refusal}");
    assert_eq!(captured.model.rows().len(), 1);
    assert_eq!(count(&captured.try_run(true).await.unwrap()), 1);
    captured.sql("insert into t values (3)");
    assert_eq!(count(&captured.run().await), 1);
}

#[tokio::test]
async fn a_lost_slot_stops_until_the_table_is_read_again() {
    let mut captured = Captured::new("create table t (id int primary key)");
    captured.run().await;
    captured.sql(&format!("select pg_drop_replication_slot('{}')", captured.slot()));
    captured.sql("insert into t values (1)");
    let refusal = refusal(&mut captured).await;
    assert!(refusal.contains("may be lost") && refusal.contains("--full"), "{refusal}");
    assert_eq!(count(&captured.try_run(true).await.unwrap()), 1);
    captured.sql("insert into t values (2)");
    captured.run().await;
    captured.assert_equal().await;
}

#[tokio::test]
async fn a_slot_that_somebody_else_has_moved_stops() {
    let mut captured = Captured::new("create table t (id int primary key)");
    captured.run().await;
    captured.sql("insert into t values (1)");
    captured.sql(&format!(
        "select pg_replication_slot_advance('{}', pg_current_wal_lsn())",
        captured.slot()
    ));
    assert!(refusal(&mut captured).await.contains("moved on by something else"));
}

#[tokio::test]
async fn a_publication_that_leaves_something_out_is_refused() {
    for (publication, expected) in [
        ("for table t with (publish = 'insert')", "set (publish"),
        ("for table other", "add table"),
        ("for table t where (id > 5)", "filter in a step"),
    ] {
        let mut captured =
            Captured::new("create table t (id int primary key); create table other ()");
        captured.sql(&format!("create publication {} {publication}", captured.slot()));
        let refusal = refusal(&mut captured).await;
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[tokio::test]
async fn a_publication_that_is_gone_stops() {
    let mut captured = Captured::new("create table t (id int primary key)");
    captured.run().await;
    captured.sql(&format!("drop publication {}", captured.slot()));
    assert!(refusal(&mut captured).await.contains("--full"));
}

#[tokio::test]
async fn a_user_without_rights_is_told_which() {
    let mut captured = Captured::new(
        "create table t (id int primary key); drop role if exists reader; \
         create role reader login; grant select on t to reader",
    );
    captured.url = captured.url.replace("postgres@", "reader@");
    let refusal = refusal(&mut captured).await;
    assert!(refusal.contains("create publication"), "{refusal}");
    let owner = captured.url.replace("reader@", "postgres@");
    captured.server.execute(&owner, &format!("create publication {} for table t", captured.slot()));
    let refusal = stopped(captured.try_run(false).await.map(drop));
    assert!(refusal.contains("replication"), "{refusal}");
    captured.server.execute(&owner, "alter role reader replication");
    captured.run().await;
    captured.server.execute(&owner, "insert into t values (1)");
    assert_eq!(count(&captured.run().await), 1);
    captured.server.execute(&owner, "drop owned by reader; drop role reader");
}
