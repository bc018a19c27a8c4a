use crate::support::{Database, Stages, at, on_both, started};
on_both! { speed; }
async fn speed(database: Database) {
    let (store, run) = started(&database).await;
    let stages = Stages { run: run.id, attempt: 1 };
    let n = 5000u32;
    let t = std::time::Instant::now();
    store.record(vec![stages.planned(&["a"], 9)], at(2)).await.unwrap();
    let mut settles = std::time::Duration::ZERO;
    let mut worst = std::time::Duration::ZERO;
    for chunk in 0..(n / 50) {
        let entries: Vec<_> = (chunk * 50..chunk * 50 + 50).flat_map(|s| stages.batch(0, s)).collect();
        store.record(entries, at(2)).await.unwrap();
        let s = std::time::Instant::now();
        store.settle_run(run.id, at(2)).await.unwrap();
        if chunk == 2000 && database.address.starts_with("postgres") {
            let c = std::process::Command::new("psql").arg(&database.address).arg("-c").arg(format!("set enable_nestloop=off; explain analyze select b.part, b.sequence, b.cursor_after, cast(case when (b.records = b.quarantined or (t.batch is not null and ( b.records - b.quarantined - t.filtered - t.quarantined = 0 or (select count(*) from outcomes o where o.run_id = b.run_id and o.attempt = b.attempt and o.batch = b.batch and o.loaded + o.unchanged + o.quarantined = b.records - b.quarantined - t.filtered - t.quarantined) >= case when b.only_target is not null then 1 else ( select count(*) from run_targets x where x.run_id = b.run_id) end))) then 1 else 0 end as bigint) as done from parts p join batches b on b.run_id = p.run_id and b.attempt = p.attempt and b.part = p.part left join transforms t on t.run_id = b.run_id and t.attempt = b.attempt and t.batch = b.batch where p.run_id = '{0}' and p.attempt = 1 and not p.completed and not b.voided and b.sequence >= p.loaded_batches - 50 and b.sequence < p.loaded_batches + 1000 order by b.part, b.sequence; explain analyze select b.only_target, count(*) as batches, cast(sum(b.records) as bigint) as records from batches b left join transforms t on t.run_id = b.run_id and t.attempt = b.attempt and t.batch = b.batch where b.run_id = '{0}' and not b.voided group by b.only_target; explain analyze select o.target, cast(sum(o.loaded) as bigint) as loaded from outcomes o join batches b on b.run_id = o.run_id and b.attempt = o.attempt and b.batch = o.batch where b.run_id = '{0}' and not b.voided group by o.target", run.id)).output().unwrap();
            eprintln!("{}{}", String::from_utf8_lossy(&c.stdout), String::from_utf8_lossy(&c.stderr));
            return;
        }
        settles += s.elapsed();
        worst = worst.max(s.elapsed());
    }
    store.record(vec![stages.part_ended(0, n)], at(2)).await.unwrap();
    let b = store.settle_run(run.id, at(2)).await.unwrap().books;
    assert!(b.balanced);
    let total = t.elapsed();
    let e = std::time::Instant::now();
    store.end_run(run.id, store::RunState::Succeeded, "", "", at(3)).await.unwrap();
    eprintln!("{} total {total:?} settles {settles:?} worst {worst:?} end {:?}", &database.address[..8], e.elapsed());
}
