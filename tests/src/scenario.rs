//! A shop, an e-mail provider, and CDNOW's purchases, as servers that are not ours.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::Process;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Orders that make a customer worth a coupon.
const WORTH_A_COUPON: u32 = 10;

/// One order, as the lines of the history have it.
#[derive(Debug, Clone)]
struct Order {
    customer: String,
    /// Year, month and day, without separators.
    day: String,
    cds: String,
    dollars: String,
}

/// CDNOW's purchases, in the order of time: 69,659 orders of 23,570 customers.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
    orders: Vec<Order>,
}

impl History {
    /// Reads the raw history.
    ///
    /// # Panics
    ///
    /// When it has not been fetched.
    #[must_use]
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/cdnow/CDNOW_master.txt");
        let text = std::fs::read_to_string(&path).expect("`make test` fetches the history");
        let mut orders: Vec<Order> = text
            .lines()
            .skip(1)
            .filter_map(|line| {
                let mut fields = line.split_whitespace().map(ToOwned::to_owned);
                let (customer, day) = (fields.next()?, fields.next()?);
                Some(Order { customer, day, cds: fields.next()?, dollars: fields.next()? })
            })
            .collect();
        orders.sort_by(|left, right| left.day.cmp(&right.day));
        Self { path, orders }
    }

    /// Returns the number of orders.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Tells whether there is no order.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Writes all orders as CSV, numbered as the shop numbers them.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    pub fn write_csv(&self, path: &Path) {
        let mut text = "number,customer,ordered_on,cds,dollars\n".to_owned();
        for (number, Order { customer, day, cds, dollars }) in (1..).zip(&self.orders) {
            let (year, month, day) = (&day[..4], &day[4..6], &day[6..]);
            writeln!(text, "{number},{customer},{year}-{month}-{day},{cds},{dollars}").unwrap();
        }
        std::fs::write(path, text).expect("the folder of the test can be written to");
    }

    /// Returns the coupons that are due after the first `orders` orders: one for each customer with
    /// ten.
    #[must_use]
    pub fn coupons(&self, orders: usize) -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for order in &self.orders[..orders.min(self.orders.len())] {
            *counts.entry(&order.customer).or_default() += 1;
        }
        let worthy = counts.into_iter().filter(|(_, count)| *count >= WORTH_A_COUPON);
        worthy.map(|(customer, _)| (customer.to_owned(), 1)).collect()
    }
}

/// A server of the scenario, on a free port.
#[derive(Debug)]
pub struct Peer {
    process: Process,
    address: String,
}

impl Peer {
    /// Starts the shop, which has released none of its orders.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn shop(folder: &Path, history: &History) -> Self {
        Self::start(folder, "shop", vec![history.path.display().to_string()], None).await
    }

    /// Starts the shop, which has only the orders since a day such as `1998-06-01`, and has released
    /// none of them.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn shop_since(folder: &Path, history: &History, day: &str) -> Self {
        Self::start(folder, "shop", vec![history.path.display().to_string()], Some(day)).await
    }

    /// Starts the provider, which takes `limit` calls in any `seconds`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn provider(folder: &Path, limit: u32, seconds: u32) -> Self {
        Self::start(folder, "provider", vec![limit.to_string(), seconds.to_string()], None).await
    }

    async fn start(
        folder: &Path,
        name: &str,
        mut arguments: Vec<String>,
        last: Option<&str>,
    ) -> Self {
        let script = format!("{}/scenario/{name}.py", env!("CARGO_MANIFEST_DIR"));
        let address_file = folder.join(format!("{name}.address"));
        arguments.insert(0, script);
        arguments.push(address_file.display().to_string());
        arguments.extend(last.map(str::to_owned));
        let log = folder.join(format!("{name}.log"));
        let mut process =
            Process::new("python3".into(), arguments, Vec::new(), folder.to_owned(), log);
        process.start().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(address) = std::fs::read_to_string(&address_file) {
                return Self { process, address };
            }
            let runs = process.pid().is_some() && Instant::now() < deadline;
            assert!(runs, "the {name} does not start: {}", process.log());
            // A file that appears is what scripts wait for.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns its URL, without a path.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.address
    }

    /// Asks for something.
    ///
    /// # Panics
    ///
    /// When the answer is none, or not 2xx.
    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, "").await
    }

    /// Tells something.
    ///
    /// # Panics
    ///
    /// As [`Peer::get`].
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", path, &body.to_string()).await
    }

    /// Has the shop release that many more orders.
    ///
    /// # Panics
    ///
    /// As [`Peer::get`].
    pub async fn release(&self, orders: usize) {
        self.post("/admin/release", &json!({"count": orders})).await;
    }

    /// Returns what the provider has seen.
    ///
    /// # Panics
    ///
    /// As [`Peer::get`].
    pub async fn report(&self) -> Report {
        let report = self.get("/admin/report").await;
        let number = |name: &str| report[name].as_u64().expect("a number");
        let coupons = report["coupons"].as_object().expect("an object");
        Report {
            coupons: coupons
                .iter()
                .map(|(customer, number)| (customer.clone(), number.as_u64().expect("a number")))
                .collect(),
            calls: number("calls"),
            violations: number("violations"),
            repeats: number("repeats"),
            busiest: number("busiest"),
        }
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let host = self.address.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).await.expect("the server listens");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the server answers");
        let log = || self.process.log();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{}", log()));
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {head}\n{body}");
        serde_json::from_str(body).expect("answers are JSON")
    }
}

/// What the provider has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Coupons by customer.
    pub coupons: BTreeMap<String, u64>,
    /// Calls, violations included.
    pub calls: u64,
    /// Calls over the quota.
    pub violations: u64,
    /// Calls whose idempotency key was known.
    pub repeats: u64,
    /// Greatest number of calls in any window.
    pub busiest: u64,
}
