//! The connections of browsers: HTTP/1.1 and HTTP/2 on one port, with TLS if the address says so. Whatever
//! a browser sends ends its own connection at worst.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::page::{self, From};
use super::{CONNECTIONS_MAX, Desk};
use crate::runtime::{Connection, Socket};
use crate::tls;

/// How long a browser may take to send the head of its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// No connection is kept longer; a browser connects again by itself.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
/// Requests that one connection of HTTP/2 may have open.
const STREAMS_MAX: u32 = 32;
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: u32 = 16 << 10;

/// Serves the connections that come in.
pub(super) async fn serve(desk: Arc<Desk>, mut connections: mpsc::Receiver<Connection>) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX);
    let (builder, places) = (Arc::new(builder), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    while let Some(connection) = connections.recv().await {
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        if let Err(error) = begin(connection, place, &builder, &desk) {
            tracing::debug!(%error, "a browser's connection broke before it was served");
        }
    }
}

fn begin(
    connection: Connection,
    place: OwnedSemaphorePermit,
    builder: &Arc<Builder<TokioExecutor>>,
    desk: &Arc<Desk>,
) -> io::Result<()> {
    let Connection { socket, tls, door: _ } = connection;
    let (builder, desk) = (builder.clone(), desk.clone());
    match socket {
        Socket::Tcp(stream, address) => {
            stream.set_nonblocking(true)?;
            let stream = TcpStream::from_std(stream)?;
            let served = secured(stream, Some(address), tls, builder, desk);
            tokio::spawn(limited(served, place));
        }
        Socket::Unix(stream) => {
            stream.set_nonblocking(true)?;
            let stream = UnixStream::from_std(stream)?;
            tokio::spawn(limited(secured(stream, None, tls, builder, desk), place));
        }
    }
    Ok(())
}

async fn limited(served: impl Future<Output = ()>, place: OwnedSemaphorePermit) {
    // One that is cut off in the middle of an answer asks again.
    let _ = timeout(CONNECTION_LIFE, served).await;
    drop(place);
}

async fn secured<S>(
    stream: S,
    from: Option<SocketAddr>,
    tls: Option<tls::Acceptor>,
    builder: Arc<Builder<TokioExecutor>>,
    desk: Arc<Desk>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(tls) = tls else {
        let from = From { is_tls: false, common_name: None };
        return run(stream, from, &builder, desk).await;
    };
    match tls.handshake(stream, from.map(|from| from.ip())).await {
        Ok(shaken) => {
            let from = From { is_tls: true, common_name: shaken.common_name };
            run(shaken.stream, from, &builder, desk).await;
        }
        Err(error) => tracing::debug!(?from, %error, "a browser's handshake came to nothing"),
    }
}

async fn run<S>(stream: S, from: From, builder: &Builder<TokioExecutor>, desk: Arc<Desk>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let from = Arc::new(from);
    let service = service_fn(move |request| {
        let (desk, from) = (desk.clone(), from.clone());
        async move { Ok::<_, Infallible>(page::answer(&desk, &from, request).await) }
    });
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "a browser's connection broke");
    }
}
