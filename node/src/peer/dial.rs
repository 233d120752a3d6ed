//! Opening a connection to a peer URL: plain HTTP requests, and upgrades to frames.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use flotilla_core::membership::url::{Endpoint, Url};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::tls::Connector;

/// How long a connection and its first answer may take.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Unacknowledged bytes older than this break a connection, so that a peer which vanished is
/// noticed though it never said so.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer to a plain request.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Anything that frames or HTTP can run over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(tls: &Connector, url: &str) -> io::Result<Box<dyn Stream>> {
    let url = Url::parse(url).map_err(io::Error::other)?;
    let (host, stream): (&str, Box<dyn Stream>) = match url.endpoint() {
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            tune(&stream)?;
            (host, Box::new(stream))
        }
        Endpoint::Unix { path } => ("", Box::new(UnixStream::connect(path).await?)),
    };
    if url.is_tls() {
        return Ok(Box::new(tls.connect(host, stream).await?));
    }
    Ok(stream)
}

pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(SILENCE_MAX))
}

/// Upgrades a new connection to frames of this protocol.
pub(super) async fn upgrade(
    tls: &Connector,
    url: &str,
    protocol: &str,
) -> io::Result<impl Stream + 'static> {
    let attempt = async {
        let stream = TokioIo::new(connect(tls, url).await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        actix::spawn(connection.with_upgrades());
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/{protocol}"))
            .header(HOST, "peer")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, protocol)
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(io::Error::other(format!("the peer answered {}", answer.status())));
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(io::Error::other)?;
        Ok(TokioIo::new(upgraded))
    };
    timeout(DIAL_TIMEOUT, attempt).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// The body and one header of a plain GET.
pub(super) async fn get(
    tls: &Connector,
    url: &str,
    path: &str,
    header: &str,
    within: Duration,
) -> io::Result<(String, Bytes)> {
    let attempt = async {
        let stream = TokioIo::new(connect(tls, url).await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        actix::spawn(connection);
        let request = Request::builder()
            .uri(path)
            .header(HOST, "peer")
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        if answer.status() != StatusCode::OK {
            return Err(io::Error::other(format!("the peer answered {}", answer.status())));
        }
        let value = answer.headers().get(header).and_then(|value| value.to_str().ok());
        let value = value.unwrap_or_default().to_owned();
        let body = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok((value, body))
    };
    timeout(within, attempt).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
