//! An HTTP server with a quota, as an e-mail provider is one: it counts every call that arrives by
//! its own monotonic clock, and remembers when it was called too often.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What the server takes and how it answers.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// So many calls in any window of this length; more are violations.
    pub limits: Vec<(usize, Duration)>,
    /// So many calls at a time; more are violations. 0: any number.
    pub concurrency: usize,
    /// How long an answer takes.
    pub latency: Duration,
    /// Answer a violation with 429 and these headers, each ending in `\r\n`; `None`: with 200.
    pub refuse_with: Option<String>,
    /// Headers of every good answer, each ending in `\r\n`.
    pub headers: String,
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Provider {
    address: SocketAddr,
    counts: Arc<Counts>,
    _serving: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    arrivals: Mutex<Vec<Instant>>,
    paths: Mutex<Vec<String>>,
    recent: Mutex<Vec<VecDeque<Instant>>>,
    going: AtomicUsize,
    violations: AtomicU64,
}

impl Provider {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub async fn start(rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let counts = Arc::new(Counts::default());
        counts.recent().resize_with(rules.limits.len(), VecDeque::new);
        let rules = Arc::new(rules);
        let mut serving = JoinSet::new();
        serving.spawn({
            let counts = Arc::clone(&counts);
            async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(serve(stream, Arc::clone(&rules), Arc::clone(&counts)));
                    while connections.try_join_next().is_some() {}
                }
            }
        });
        Self { address, counts, _serving: serving }
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many calls have arrived.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.counts.arrivals().len()
    }

    /// Returns how many calls arrived at or after a moment and before another.
    #[must_use]
    pub fn calls_between(&self, from: Instant, to: Instant) -> usize {
        self.counts.arrivals().iter().filter(|at| (from..to).contains(at)).count()
    }

    /// Returns the time between two calls, counted from 1 in the order of arrival.
    ///
    /// # Panics
    ///
    /// When there were fewer calls.
    #[must_use]
    pub fn between(&self, first: usize, last: usize) -> Duration {
        let arrivals = self.counts.arrivals();
        arrivals[last - 1].duration_since(arrivals[first - 1])
    }

    /// Returns the paths of all calls, in the order of arrival.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.counts.paths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how many calls arrived that were too many.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.counts.violations.load(Ordering::SeqCst)
    }
}

impl Counts {
    fn arrivals(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Vec<VecDeque<Instant>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and tells whether it is one too many.
    fn arrive(&self, rules: &Rules, path: &str) -> bool {
        let mut recent = self.recent();
        let now = Instant::now();
        let mut violated = false;
        for ((most, window), recent) in rules.limits.iter().zip(recent.iter_mut()) {
            while recent.front().is_some_and(|first| now.duration_since(*first) >= *window) {
                recent.pop_front();
            }
            recent.push_back(now);
            violated |= recent.len() > *most;
        }
        self.arrivals().push(now);
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        let going = self.going.fetch_add(1, Ordering::SeqCst) + 1;
        violated |= rules.concurrency > 0 && going > rules.concurrency;
        if violated {
            self.violations.fetch_add(1, Ordering::SeqCst);
        }
        violated
    }
}

async fn serve(stream: TcpStream, rules: Arc<Rules>, counts: Arc<Counts>) {
    // Small answers go out at once.
    stream.set_nodelay(true).ok();
    let mut stream = BufReader::new(stream);
    while let Some(path) = read_request(&mut stream).await {
        let violated = counts.arrive(&rules, &path);
        if !rules.latency.is_zero() {
            tokio::time::sleep(rules.latency).await;
        }
        counts.going.fetch_sub(1, Ordering::SeqCst);
        let (status, headers) = match &rules.refuse_with {
            Some(headers) if violated => ("429 Too Many Requests", headers),
            _ => ("200 OK", &rules.headers),
        };
        let answer = format!("HTTP/1.1 {status}\r\n{headers}content-length: 2\r\n\r\n{{}}");
        if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads a request and returns its path; nothing when the connection ends.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(path)
}

/// A client with one connection, which calls one after the other.
#[derive(Debug)]
pub struct Caller {
    stream: BufReader<TcpStream>,
}

/// An answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Answer {
    /// Returns a header that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.headers.iter().find(|(header, _)| header == name)?.1.parse().ok()
    }
}

impl Caller {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Makes one call.
    ///
    /// # Errors
    ///
    /// When the connection ends.
    pub async fn call(&mut self, path: &str) -> std::io::Result<Answer> {
        let broken = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: provider\r\ncontent-length: 0\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(broken)?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        self.stream.read_exact(&mut [0; 2]).await?;
        Ok(Answer { status, headers })
    }
}
