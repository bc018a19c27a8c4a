//! What all gRPC servers have in common: limits, and TLS where it is wanted.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::{
    Server,
    server::{Connected, TcpConnectInfo, TcpIncoming},
};

use crate::tls::Tls;

/// Connections at the same time; more wait in the listener.
const CONNECTIONS: usize = 1024;
/// Calls at the same time over one connection; more wait at the client.
const STREAMS: u32 = 128;
/// Bytes of the headers of one call.
const HEADERS: u32 = 16 * 1024;
/// After so long a rest a client is asked whether it is still there, and has as long to answer.
const REST: Duration = Duration::from_secs(30);
/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Returns a server with limits on what one client can take: 128 calls at the same time over a
/// connection, 16 KiB of headers. A client that does not answer for a minute is let go.
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(REST))
        .http2_keepalive_timeout(Some(REST))
}

/// Returns the connections that are made to a listener, at most 1024 at the same time. With TLS a
/// client that fails to agree on keys, or takes longer than 10 seconds, is let go.
pub fn incoming(
    listener: TcpListener,
    tls: Option<Tls>,
) -> Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let accepted = TcpIncoming::from(listener).with_nodelay(Some(true)).then(move |stream| {
        let places = Arc::clone(&places);
        async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            Ok((stream?, place))
        }
    });
    let connections = accepted.map(move |accepted: io::Result<_>| {
        let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
        async move {
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => return Some(Err(error)),
            };
            let info = stream.connect_info();
            let stream: Pin<Box<dyn Transport>> = match acceptor {
                None => Box::pin(stream),
                Some(acceptor) => Box::pin(agree_on_keys(acceptor, stream).await?),
            };
            Some(Ok(Connection { stream, info, _place: place }))
        }
    });
    connections.buffer_unordered(CONNECTIONS).filter_map(std::future::ready).boxed()
}

async fn agree_on_keys(acceptor: TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client failed to agree on keys");
            None
        }
        Err(_) => {
            tracing::debug!("a client took too long to agree on keys");
            None
        }
    }
}

/// A connection, which holds its place among all until it ends.
pub struct Connection {
    stream: Pin<Box<dyn Transport>>,
    info: TcpConnectInfo,
    _place: OwnedSemaphorePermit,
}

/// TCP, with or without TLS.
trait Transport: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Transport for S {}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
