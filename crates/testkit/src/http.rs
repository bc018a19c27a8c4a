//! An HTTP server whose answers are scripted, and which remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::gate::Gate;

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    /// When its last byte was read.
    pub at: Instant,
    /// Method, in upper case.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Request {
    /// Returns the value of a header; `name` is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// An answer.
    Answer {
        /// Status.
        status: u16,
        /// Headers besides the length.
        headers: Vec<(String, String)>,
        /// Body.
        body: Vec<u8>,
    },
    /// The answer comes after a while.
    Slow(Duration, Box<Reply>),
    /// The answer comes when the gate is open.
    Held(Gate, Box<Reply>),
    /// A head that promises a body and the first half of it; then the connection is cut.
    Half,
    /// The connection is cut without an answer.
    Cut,
    /// There is never an answer.
    Silence,
}

impl Reply {
    /// An answer without headers.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.into() }
    }

    /// Adds a header to an answer.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

type Script = Box<dyn Fn(&Request, usize) -> Reply + Send + Sync>;

struct Shared {
    script: Mutex<Script>,
    seen: watch::Sender<Vec<Request>>,
}

/// A server on the loopback interface that ends with this value.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinSet<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a server. The script is given each request and the number of requests before it.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub async fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            seen: watch::Sender::new(Vec::new()),
        });
        let serving = Some(serve(listener, Arc::clone(&shared)));
        Self { address, shared, serving }
    }

    /// Starts a server that answers everything with `status` and an empty body.
    ///
    /// # Panics
    ///
    /// As [`Server::start`].
    pub async fn always(status: u16) -> Self {
        Self::start(move |_, _| Reply::new(status, "")).await
    }

    /// Returns the URL of the server, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers from now on as another script says.
    pub fn answer(&self, script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    /// Returns the requests so far, in the order in which they came in.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.seen.borrow().clone()
    }

    /// Returns the number of requests so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.seen.borrow().len()
    }

    /// Waits until `condition` holds of the requests, and returns them.
    ///
    /// # Panics
    ///
    /// Never: the server outlives the wait.
    pub async fn wait_for(&self, mut condition: impl FnMut(&[Request]) -> bool) -> Vec<Request> {
        let mut seen = self.shared.seen.subscribe();
        let seen = seen.wait_for(|seen| condition(seen)).await;
        seen.expect("the server outlives the wait").clone()
    }

    /// Cuts all connections and refuses new ones.
    pub async fn stop(&mut self) {
        if let Some(mut serving) = self.serving.take() {
            serving.shutdown().await;
        }
    }

    /// Listens again where it has listened before.
    ///
    /// # Panics
    ///
    /// When the port was taken meanwhile.
    pub async fn restart(&mut self) {
        self.stop().await;
        let listener = TcpListener::bind(self.address).await.expect("the port is still free");
        self.serving = Some(serve(listener, Arc::clone(&self.shared)));
    }
}

fn serve(listener: TcpListener, shared: Arc<Shared>) -> JoinSet<()> {
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                // What a client does to its connection is no matter of the server.
                converse(stream, &shared).await.ok();
            });
            while connections.try_join_next().is_some() {}
        }
    });
    serving
}

async fn converse(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await? {
        let head_only = request.method == "HEAD";
        let mut reply = Reply::Cut;
        shared.seen.send_modify(|seen| {
            let script = shared.script.lock().unwrap_or_else(PoisonError::into_inner);
            reply = script(&request, seen.len());
            seen.push(request);
        });
        loop {
            match reply {
                Reply::Slow(delay, next) => {
                    tokio::time::sleep(delay).await;
                    reply = *next;
                }
                Reply::Held(gate, next) => {
                    gate.pass().await;
                    reply = *next;
                }
                Reply::Answer { status, headers, body } => {
                    let mut text =
                        format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\n", body.len());
                    for (name, value) in headers {
                        text.push_str(&format!("{name}: {value}\r\n"));
                    }
                    text.push_str("\r\n");
                    let mut bytes = text.into_bytes();
                    if !head_only {
                        bytes.extend(body);
                    }
                    stream.write_all(&bytes).await?;
                    break;
                }
                Reply::Half => {
                    let half = b"HTTP/1.1 200 Scripted\r\nContent-Length: 100\r\n\r\n{\"half\":";
                    stream.write_all(half).await?;
                    return stream.shutdown().await;
                }
                Reply::Cut => return Ok(()),
                Reply::Silence => {
                    // Until the client gives up.
                    while stream.read_buf(&mut buffer).await? > 0 {}
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Reads one request; `None` at the end of the connection.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse::<usize>().ok()).unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = buffer.drain(..length).collect();
    Ok(Some(Request { at: Instant::now(), method, path, headers, body }))
}
