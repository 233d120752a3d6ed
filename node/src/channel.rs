//! Ways to a client URL of some node, for what this program asks of others as a client: a gRPC
//! channel, and a page.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::tls::Connector;

/// The port of an address that names none.
const PORT_DEFAULT: u16 = 2379;

/// Bytes of a page.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not an address.
    #[error("{0} names no host")]
    NoHost(String),
    /// Nobody is there, or it is not who it should be.
    #[error("{url} cannot be reached: {source}")]
    Unreachable {
        /// Who was called.
        url: String,
        /// What came of it.
        source: tonic::transport::Error,
    },
}

/// Connects to an address with or without TLS. `tune` may set what the connection keeps to.
///
/// # Errors
/// See `Error`.
pub async fn connect(
    tls: &Connector,
    url: &str,
    tune: impl FnOnce(Endpoint) -> Endpoint,
    within: Duration,
) -> Result<Channel, Error> {
    let no_host = || Error::NoHost(url.to_owned());
    let unreachable = |source| Error::Unreachable { url: url.to_owned(), source };
    let uri: Uri = url.parse().map_err(|_| no_host())?;
    let is_tls = uri.scheme_str() == Some("https");
    let authority = uri.authority().ok_or_else(no_host)?;
    let (host, port) = (authority.host().to_owned(), authority.port_u16().unwrap_or(PORT_DEFAULT));
    // The handshake is this program's own; to the library every connection is plain.
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(unreachable)?;
    let endpoint = tune(endpoint).connect_timeout(within);
    if !is_tls {
        return endpoint.connect().await.map_err(unreachable);
    }
    let tls = tls.clone();
    let connect = service_fn(move |_: Uri| {
        let (tls, host) = (tls.clone(), host.clone());
        async move {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, port)).await?;
            tls.connect(host, stream).await.map(TokioIo::new)
        }
    });
    endpoint.connect_with_connector(connect).await.map_err(unreachable)
}

/// The status and text of a page at an address with or without TLS.
///
/// # Errors
/// Nobody is there, or it is not who it should be, or does not answer in time.
pub async fn get(
    tls: &Connector,
    url: &str,
    path: &str,
    within: Duration,
) -> io::Result<(u16, String)> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let authority =
        uri.authority().ok_or_else(|| io::Error::other(format!("{url} has no host")))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let page = async {
        let port = authority.port_u16().unwrap_or(PORT_DEFAULT);
        let stream = TcpStream::connect((host, port)).await?;
        match uri.scheme_str() {
            Some("https") => ask(tls.connect(host, stream).await?, authority.as_str(), path).await,
            _ => ask(stream, authority.as_str(), path).await,
        }
    };
    timeout(within, page).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn ask<S>(stream: S, host: &str, path: &str) -> io::Result<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::builder().uri(path).header(HOST, host).body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.map_err(io::Error::other)?).await;
    let answer = answer.map_err(io::Error::other)?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), PAGE_BYTES_MAX).collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
