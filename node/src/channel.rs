//! A gRPC channel to a client URL of some node, for what this program asks of others as a client.

use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::tls::Connector;

/// The port of an address that names none.
const PORT_DEFAULT: u16 = 2379;

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
