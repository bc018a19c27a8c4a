use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a delivery is tried again.
const PERSISTENCE: Duration = Duration::from_secs(60);

/// Sends webhooks over one connection, as a shop does.
#[derive(Debug)]
pub struct Sender {
    addresses: Vec<SocketAddr>,
    turn: usize,
    stream: Option<TcpStream>,
    /// Lines of the head beyond the usual ones.
    more: String,
}

impl Sender {
    /// Makes a sender that takes another address when one does not answer.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>, turn: usize) -> Self {
        Self { addresses, turn, stream: None, more: String::new() }
    }

    /// Sends a header with every delivery.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.more.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Sends a delivery until it is answered 2xx. Returns how often it was sent.
    ///
    /// # Panics
    ///
    /// When it is refused for good, or for too long.
    pub async fn deliver(&mut self, pipeline: &str, id: &str, body: &str) -> u32 {
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.post(pipeline, id, body).await {
                Some(200) => return tries,
                // Not known yet, too much, or nobody there.
                None | Some(404 | 503) => {}
                Some(status) => panic!("a delivery is answered {status}"),
            }
            assert!(begun.elapsed() < PERSISTENCE, "delivery {id} is not taken");
            self.turn += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a delivery once and returns the status of the answer, if there is one.
    pub async fn post(&mut self, pipeline: &str, id: &str, body: &str) -> Option<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let address = self.addresses[self.turn % self.addresses.len()];
                let stream = TcpStream::connect(address).await.ok()?;
                stream.set_nodelay(true).ok()?;
                stream
            }
        };
        let request = format!(
            "POST /hooks/{pipeline} HTTP/1.1\r\nhost: intake\r\nx-delivery: {id}\r\n\
             {}content-length: {}\r\n\r\n{body}",
            self.more,
            body.len()
        );
        let answered = async {
            stream.write_all(request.as_bytes()).await.ok()?;
            read_answer(&mut stream).await
        };
        let status = tokio::time::timeout(PATIENCE, answered).await.ok().flatten()?;
        self.stream = Some(stream);
        Some(status)
    }
}

/// Reads one answer, whose body has a length.
async fn read_answer(stream: &mut TcpStream) -> Option<u16> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let length = stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&buffer[..length]);
        let text = std::str::from_utf8(&bytes).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let expected: usize = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            })
            .unwrap_or(0);
        if body.len() >= expected {
            return head.split(' ').nth(1)?.parse().ok();
        }
    }
}
