use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use connect::Limits;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::support::{Captured, logical};

/// Writes at random until told to stop.
async fn write(url: String, seed: u64, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(seed);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    while !stop.load(Ordering::Relaxed) {
        let mut transaction = pool.begin().await.unwrap();
        for _ in 0..random.random_range(1..20) {
            let id: i32 = random.random_range(0..400);
            let sql = match random.random_range(0..10) {
                0..4 => {
                    "insert into t values ($1, $2) on conflict (id) do update set v = excluded.v"
                }
                4..7 => "update t set v = v + $2 where id = $1",
                7..9 => "delete from t where id = $1 and $2 > 0",
                _ => {
                    "update t set id = id + 1000, v = $2 where id = $1 \
                     and not exists (select 1 from t o where o.id = $1 + 1000)"
                }
            };
            let query = sqlx::query(sql).bind(id).bind(random.random_range(1..1000_i32));
            // Two writers may get in each other's way.
            if query.execute(&mut *transaction).await.is_err() {
                break;
            }
        }
        if random.random_bool(0.9) {
            transaction.commit().await.ok();
        } else {
            transaction.rollback().await.ok();
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..4))).await;
    }
    pool.close().await;
}

/// Reads with interruptions at random places while others write. After each, reading goes on either
/// from the last chunk, or from an earlier one that happened to be loaded.
async fn survive(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut captured = Captured::new("create table t (id int primary key, v int)");
    captured.sql("insert into t select n, 0 from generate_series(1, 300) n");
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|n| tokio::spawn(write(captured.url.clone(), seed * 10 + n, Arc::clone(&stop))))
        .collect();
    for _ in 0..15 {
        let limits = Limits { chunk_records: random.random_range(3..60), ..Limits::default() };
        let most = random.random_range(1..8);
        let (chunks, ended) = captured
            .run_some(false, most, limits)
            .await
            .unwrap_or_else(|error| panic!("seed {seed}: {}", error.chain()));
        if !ended && random.random_bool(0.8) {
            let place = random.random_range(0..chunks.len());
            captured.loaded(chunks[place].cursor.clone());
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    // The first of these may be the end of the snapshot.
    captured.run().await;
    captured.run().await;
    captured.assert_equal().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_however_reading_is_interrupted() {
    for seed in 1..=3 {
        survive(seed).await;
    }
}

#[tokio::test]
async fn a_snapshot_goes_on_behind_its_last_row_and_deletes_meanwhile_count() {
    let mut captured = Captured::new("create table t (id int primary key, v int)");
    captured.sql("insert into t select n, 0 from generate_series(1, 100) n");
    let limits = Limits { chunk_records: 10, ..Limits::default() };
    let (chunks, ended) = captured.run_some(false, 3, limits).await.unwrap();
    assert!(!ended);
    captured.loaded(chunks[1].cursor.clone());
    captured.sql("delete from t where id in (5, 50); update t set v = 1 where id in (6, 60)");
    captured.sql("insert into t values (0, 0), (101, 0)");
    let chunks = captured.run().await;
    assert_eq!(crate::support::count(&chunks), 80);
    captured.run().await;
    captured.assert_equal().await;
}

#[tokio::test]
async fn a_server_can_be_stopped_while_it_is_followed() {
    let server = Arc::new(logical());
    let mut captured = Captured::on(Arc::clone(&server), "create table t (id int primary key)")
        .with("window: 10m");
    captured.run().await;
    let source = captured.source();
    let part = source.parts(&captured.cursors, false).await.unwrap().with_news.remove(0);
    let mut reader = source.open("", &part.cursor, 1, Limits::default()).await.unwrap();
    captured.sql("insert into t values (1)");
    let chunk = reader.next().await.unwrap().unwrap();
    assert_eq!(chunk.records.len(), 1);
    drop(source);
    drop(captured);
    let began = std::time::Instant::now();
    let stopped = tokio::task::spawn_blocking(move || drop(Arc::try_unwrap(server).unwrap()));
    // The server waits for us to take everything, and the window would be long.
    while let Ok(Some(_)) = reader.next().await {}
    stopped.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
