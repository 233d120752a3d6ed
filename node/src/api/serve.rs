//! The connections of one worker: HTTP/1.1 and HTTP/2 on the same port, told apart by their first
//! bytes. Whatever a client sends ends its own connection at worst.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::authority::Mended;
use super::outgoing::Outgoing;
use super::service::Service;
use super::{Context, Origin};
use crate::config::Config;
use crate::runtime::{Connection, Socket};
use crate::tls::{self, Handshaken};
use crate::watch::{Hub, HubReceiver};

/// Bytes a client may send ahead on one call, and on one connection. The HTTP/2 library ends a connection
/// with too many small messages that were not read yet, about as many as half of its window has pieces of
/// 256 bytes: 32 000 here. A client that renews all of its leases, or watches anew, sends thousands.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of answers that one call may have waiting in the connection.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Calls that a client may have given up before the node took them. A client with many calls under
/// way ends them all at once when it is stopped.
const RESET_CALLS_MAX: usize = 10_000;
/// Bytes of the metadata of one call.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// How long a client may take to send the head of an HTTP/1.1 request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the connections that come in, and the watchers on them, until the worker is stopped.
pub async fn serve(
    mut context: Context,
    hub: HubReceiver,
    mut connections: mpsc::Receiver<Connection>,
) {
    context.router = context.router.on_worker();
    let hub = Hub::start(hub, &context.config, context.router.clone());
    let builder = builder(&context.config);
    let (context, builder) = (Arc::new(context), Arc::new(builder));
    while let Some(connection) = connections.recv().await {
        let from = match &connection.socket {
            Socket::Tcp(_, address) => Some(address.ip()),
            Socket::Unix(_) => None,
        };
        let door = connection.door;
        let origin = Origin { door, from, is_tls: false, common_name: None };
        let service = Service { context: context.clone(), hub: hub.clone(), origin };
        if let Err(error) = accept(connection, &builder, service) {
            tracing::debug!(%error, "a connection broke before it was served");
        }
    }
}

fn builder(config: &Config) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESET_CALLS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .auto_date_header(false);
    if let Some(pings) = config.grpc_keepalive {
        http2.keep_alive_interval(pings.interval).keep_alive_timeout(pings.timeout);
    }
    builder
}

fn accept(
    connection: Connection,
    builder: &Arc<Builder<TokioExecutor>>,
    service: Service,
) -> io::Result<()> {
    let Connection { socket, tls, door: _ } = connection;
    match socket {
        Socket::Tcp(stream, address) => {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let stream = TcpStream::from_std(stream)?;
            begin(stream, Some(address), tls, builder, service);
        }
        Socket::Unix(stream) => {
            stream.set_nonblocking(true)?;
            begin(UnixStream::from_std(stream)?, None, tls, builder, service);
        }
    }
    Ok(())
}

/// A connection with TLS is of a type of its own, so that one without pays nothing for it.
fn begin<S>(
    stream: S,
    from: Option<SocketAddr>,
    tls: Option<tls::Acceptor>,
    builder: &Arc<Builder<TokioExecutor>>,
    mut service: Service,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let builder = builder.clone();
    let Some(tls) = tls else {
        tokio::spawn(async move { run(stream, &builder, service).await });
        return;
    };
    tokio::spawn(async move {
        match tls.handshake(stream, from.map(|from| from.ip())).await {
            Ok(Handshaken { stream, common_name }) => {
                service.origin = Origin { is_tls: true, common_name, ..service.origin };
                run(stream, &builder, service).await;
            }
            Err(error) => refused(from, &error),
        }
    });
}

/// Who hangs up before saying anything is a probe of the port, and worth no line.
fn refused(from: Option<SocketAddr>, error: &io::Error) {
    let from = from.map(|from| from.to_string()).unwrap_or_default();
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            tracing::debug!(from, %error, "rejected connection on client endpoint");
        }
        _ => tracing::warn!(from, %error, "rejected connection on client endpoint"),
    }
}

async fn run<S>(stream: S, builder: &Builder<TokioExecutor>, service: Service)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served =
        builder.serve_connection(TokioIo::new(Outgoing::new(Mended::new(stream))), service).await;
    if let Err(error) = served {
        tracing::debug!(error, "a connection of a client broke");
    }
}
