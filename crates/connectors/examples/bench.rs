#![allow(clippy::all, clippy::unwrap_used, clippy::print_stdout, missing_docs, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
use std::{io::Write, sync::Arc, time::Instant};
use arrow_array::*;
use model::*;
use connect::Target as _;

const N: i64 = 1_000_000;
fn rows(from: i64, to: i64, changed: bool) -> RecordBatch {
    let h = |n: i64, s: i64| { let mut x = (n as u64).wrapping_mul(0x9E3779B97F4A7C15) ^ (s as u64).wrapping_mul(0xBF58476D1CE4E5B9); x ^= x >> 31; x = x.wrapping_mul(0x94D049BB133111EB); (x ^ (x >> 29)) as i64 & i64::MAX };
    let is_changed = |n: i64| changed && n % 10 == 3;
    let r = from..to;
    let t = |f: &dyn Fn(i64) -> String| Arc::new(StringArray::from_iter_values(r.clone().map(|n| f(n)))) as ArrayRef;
    let cols: Vec<(&str, FieldType, ArrayRef)> = vec![
        ("id", FieldType::Integer, Arc::new(Int64Array::from_iter_values(r.clone()))),
        ("email", FieldType::Text, t(&|n| format!("user{}@example{}.com", n, h(n,1)%50))),
        ("first_name", FieldType::Text, t(&|n| format!("First{}", h(n,2)%1000))),
        ("last_name", FieldType::Text, t(&|n| format!("Lastname{}", h(n,3)%10000))),
        ("phone", FieldType::Text, t(&|n| format!("+49{:010}", h(n,4)%10_000_000_000))),
        ("city", FieldType::Text, t(&|n| format!("City {}", h(n,5)%500))),
        ("country", FieldType::Text, t(&|n| format!("C{}", h(n,6)%90))),
        ("birthday", FieldType::Date, Arc::new(Date32Array::from_iter_values(r.clone().map(|n| (h(n,7)%20000) as i32)))),
        ("created_at", FieldType::Timestamp, Arc::new(TimestampMicrosecondArray::from_iter_values(r.clone().map(|n| 1_500_000_000_000_000 + h(n,8)%100_000_000_000_000)).with_timezone("UTC"))),
        ("updated_at", FieldType::Timestamp, Arc::new(TimestampMicrosecondArray::from_iter_values(r.clone().map(|n| 1_700_000_000_000_000 + if is_changed(n) { 1_000_000 } else { 0 })).with_timezone("UTC"))),
        ("balance", FieldType::Decimal{precision:12,scale:2}, Arc::new(Decimal128Array::from_iter_values(r.clone().map(|n| (h(n,9)%1_000_000 + if is_changed(n) {7} else {0}) as i128)).with_data_type(FieldType::Decimal{precision:12,scale:2}.arrow()))),
        ("active", FieldType::Boolean, Arc::new(BooleanArray::from(r.clone().map(|n| n%3==0).collect::<Vec<_>>()))),
    ];
    let (f, a): (Vec<_>, Vec<_>) = cols.into_iter().map(|(n,t,a)| (t.arrow_field(n), a)).unzip();
    RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(f)), a).unwrap()
}
fn batches(changed: bool, base: i64, versions: bool) -> Vec<Batch> {
    let run = RunId::generate();
    (0..N/2000).map(|b| {
        let columns = rows(b*2000, (b+1)*2000, changed);
        let v = versions.then(|| columns.column(9).as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap().values().to_vec());
        Batch { header: BatchHeader { pipeline: "p".parse().unwrap(), revision:1, run, attempt:1, batch: BatchId::from_wire(b.to_string()), part:0, sequence: b as u32, cursor_before:String::new(), cursor_after:String::new(), extracted:2000},
            records: Records { columns, presence: vec![], ids: Ids::Positions{prefix:"f:".into()}, positions: ((b*2000) as u64..((b+1)*2000) as u64).collect(), extraction_base: base, versions: v, operations: None } }
    }).collect()
}
fn csv(path: &str, changed: bool) {
    let mut f = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for b in 0..N/2000 { let r = rows(b*2000,(b+1)*2000,changed);
        for i in 0..r.num_rows() { let s = |c: usize| r.column(c).as_any().downcast_ref::<StringArray>().unwrap().value(i).to_owned();
            let id = r.column(0).as_any().downcast_ref::<Int64Array>().unwrap().value(i);
            let d = r.column(7).as_any().downcast_ref::<Date32Array>().unwrap().value_as_date(i).unwrap();
            let ts = |c: usize| r.column(c).as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap().value_as_datetime(i).unwrap();
            let bal = r.column(10).as_any().downcast_ref::<Decimal128Array>().unwrap().value_as_string(i);
            let a = r.column(11).as_any().downcast_ref::<BooleanArray>().unwrap().value(i);
            writeln!(f, "{id},{},{},{},{},{},{},{d},{}Z,{}Z,{bal},{a}", s(1),s(2),s(3),s(4),s(5),s(6),ts(8),ts(9)).unwrap();
        } }
}
const DDL: &str = "(id bigint primary key,email text,first_name text,last_name text,phone text,city text,country text,birthday date,created_at timestamptz,updated_at timestamptz,balance numeric(12,2),active boolean)";
async fn ours(url: &str, table: &str, data: &Arc<Vec<Batch>>, writers: usize, newest: bool, label: &str) {
    let pipeline = spec::Pipeline { name: "p".parse().unwrap(), description: String::new(), source: spec::Source::Sqlite(spec::SqliteSource{path:"x".into(), read: spec::TableRead{table:"t".into(),key:vec![],cursor:None,lag:Default::default()}}), triggers: Default::default(), schema: None, contract: Default::default(), steps: vec![], key: vec!["id".into()], newest_by: newest.then(|| "updated_at".into()),
        targets: vec![spec::Target{name:"t".parse().unwrap(), system: match url.strip_prefix("sqlite:") { Some(p) => spec::TargetSystem::Sqlite{path: p.into()}, None => spec::TargetSystem::Postgres{url: spec::SecretText::new(url)} }, table: table.into(), mode: spec::Mode::Upsert, deletes: spec::Deletes::Hard, audit: false}], places: Default::default() };
    let vars: connectors::Variables = Arc::new(|_| None);
    let start = Instant::now();
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut tasks = vec![];
    for _ in 0..writers {
        let t = connectors::target(&pipeline, &pipeline.targets[0], &vars).unwrap(); let data = data.clone(); let next = next.clone();
        tasks.push(tokio::spawn(async move { let (mut l, mut u) = (0,0); loop { let i = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst)*16; if i >= data.len() {break;}
            let w = t.write(&data[i..(i+16).min(data.len())]).await.map_err(|e| e.chain()).unwrap(); for w in w { l += w.loaded; u += w.unchanged; assert!(w.refused.is_empty()); } } (l,u) }));
    }
    let (mut l, mut u) = (0,0); for t in tasks { let (a,b) = t.await.unwrap(); l+=a; u+=b; }
    println!("{label} writers={writers}: {:.2}s loaded={l} unchanged={u}", start.elapsed().as_secs_f64());
}
#[tokio::main]
async fn main() {
    let pg = testkit::postgres::Postgres::start();
    let url = pg.create_database();
    csv("/tmp/sqlbench_a.csv", false); csv("/tmp/sqlbench_b.csv", true);
    { let _ = std::fs::remove_file("/tmp/sqlbench.db"); let a = Arc::new(batches(false, 1_000_000_000, true)); let b = Arc::new(batches(true, 5_000_000_000, true)); ours("sqlite:/tmp/sqlbench.db", "o", &a, 1, true, "sqlite first").await; ours("sqlite:/tmp/sqlbench.db", "o", &b, 1, true, "sqlite upsert").await; let _ = std::fs::remove_file("/tmp/sqlbench.db"); let _ = std::fs::remove_file("/tmp/sqlbench.db-wal"); let _ = std::fs::remove_file("/tmp/sqlbench.db-shm"); }
    for newest in [false] {
    let a = Arc::new(batches(false, 1_000_000_000, newest)); let b = Arc::new(batches(true, 5_000_000_000, newest));
    for round in 0..1 {
        pg.execute(&url, "drop table if exists l; drop table if exists o1; drop table if exists o2; checkpoint");
        pg.execute(&url, &format!("create table l {DDL}"));
        let s = Instant::now(); pg.execute(&url, "\\copy l from '/tmp/sqlbench_a.csv' csv"); println!("round {round} copy: {:.2}s", s.elapsed().as_secs_f64());
        pg.execute(&url, "checkpoint");
        ours(&url, "o1", &a, 1, newest, "first").await;
        pg.execute(&url, "checkpoint");
        ours(&url, "o2", &a, 2, newest, "first").await;
        pg.execute(&url, "vacuum analyze l; "); pg.execute(&url, "vacuum analyze o1"); pg.execute(&url, "vacuum analyze o2"); pg.execute(&url, "checkpoint");
        std::fs::write("/tmp/sqlbench.sql", "create temp table s (like l);\n\\copy s from '/tmp/sqlbench_b.csv' csv\ninsert into l select * from s on conflict (id) do update set email=excluded.email,first_name=excluded.first_name,last_name=excluded.last_name,phone=excluded.phone,city=excluded.city,country=excluded.country,birthday=excluded.birthday,created_at=excluded.created_at,updated_at=excluded.updated_at,balance=excluded.balance,active=excluded.active;\n").unwrap();
        let s = Instant::now(); let o = std::process::Command::new("psql").args(["-q","-f","/tmp/sqlbench.sql",&url]).output().unwrap(); assert!(o.status.success()); println!("round {round} limit upsert: {:.2}s {}", s.elapsed().as_secs_f64(), String::from_utf8_lossy(&o.stderr));
        pg.execute(&url, "checkpoint");
        ours(&url, "o1", &b, 1, newest, "upsert 10%").await;
        pg.execute(&url, "checkpoint");
        ours(&url, "o2", &b, 2, newest, "upsert 10%").await;
        pg.execute(&url, "checkpoint");
        if round == 0 { ours(&url, "o2", &b, 2, newest, "upsert again").await; }
        let c = std::process::Command::new("psql").args(["-Atc","select (select md5(string_agg(l::text,',' order by id)) from l) = (select md5(string_agg(row(id,email,first_name,last_name,phone,city,country,birthday,created_at,updated_at,balance,active)::text,',' order by id)) from o2)",&url]).output().unwrap(); println!("equal {}", String::from_utf8_lossy(&c.stdout));
        if round == 0 {
            use connect::Limits;
            let p = spec::PostgresSource{url: spec::SecretText::new(&url), read: spec::TableRead{table:"l".into(),key:vec![],cursor:None,lag:Default::default()}};
            let pl = spec::Pipeline { name: "p".parse().unwrap(), description: String::new(), source: spec::Source::Postgres(p), triggers: Default::default(), schema: None, contract: Default::default(), steps: vec![], key: vec!["id".into()], newest_by: None, targets: vec![], places: Default::default() };
            let vars: connectors::Variables = Arc::new(|_| None);
            let src = connectors::source(&pl, None, &[], &vars).unwrap();
            let s = Instant::now(); let mut r = src.open("", "", 1, Limits::default()).await.unwrap(); let mut n = 0; let mut c = 0; while let Some(k) = r.next().await.unwrap() { n += k.records.len(); c += 1; }
            println!("read {n} rows in {c} chunks: {:.2}s", s.elapsed().as_secs_f64());
            let s = Instant::now(); pg.execute(&url, "\\copy (select * from l order by id) to '/dev/null' csv"); println!("copy out: {:.2}s", s.elapsed().as_secs_f64());
        }
    }}
    let _ = std::fs::remove_file("/tmp/sqlbench_a.csv"); let _ = std::fs::remove_file("/tmp/sqlbench_b.csv");
}
