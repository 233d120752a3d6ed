//! The accepting end: one handshake, with a limit on its time and on how many are under way.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use rustls::ServerConfig;
use rustls::server::{Acceptor as Beginning, NoServerSessionStorage};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::{CommonName, Holder};
use super::files::{self, Error};
use super::watched::Watched;
use super::{verify, versions};
use crate::config::Tls;
use crate::metrics::HANDSHAKES_FAILED;

/// How long a handshake may take, from the first byte that is waited for to the last.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes of one side that may be under way; who comes then is hung up on. Each holds a
/// descriptor and some kilobytes.
const HANDSHAKES_MAX: usize = 4_096;
/// What may be agreed on to be spoken. gRPC needs the first; `curl` and probes may take the second.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// To someone who speaks HTTP without TLS, in Go's words.
const NO_TLS_SPOKEN: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Does the handshakes of a side's listeners.
#[derive(Clone)]
pub struct Acceptor {
    server: Watched<ServerConfig>,
    pub(super) under_way: Arc<Semaphore>,
    /// The common name of a client's certificate says who it is.
    names_clients: bool,
    /// A certificate must name the address it comes from, if it names any.
    compares_address: bool,
}

/// A connection on which TLS is spoken.
pub struct Handshaken<S> {
    /// Encrypted from here on.
    pub stream: TlsStream<S>,
    /// Of the client's certificate, which was checked. `None` without `--client-cert-auth`, and
    /// when the certificate has none.
    pub common_name: Option<CommonName>,
}

impl Acceptor {
    pub(super) fn open(tls: &Tls) -> Result<Self, Error> {
        Ok(Self {
            server: Watched::open(tls, server)?,
            under_way: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            names_clients: tls.client_cert_auth,
            compares_address: false,
        })
    }

    /// The same, which holds certificates against the addresses they come from.
    pub(super) fn comparing_addresses(self, compares_address: bool) -> Self {
        Self { compares_address, ..self }
    }

    /// Does one handshake. `from` is the other end's address, if it has one.
    ///
    /// # Errors
    /// It failed, took too long, or there are too many. The connection is closed.
    pub async fn handshake<S>(&self, io: S, from: Option<IpAddr>) -> io::Result<Handshaken<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshaken = self.limited(io, from).await;
        if handshaken.is_err() {
            counter!(HANDSHAKES_FAILED).increment(1);
        }
        handshaken
    }

    async fn limited<S>(&self, io: S, from: Option<IpAddr>) -> io::Result<Handshaken<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Ok(_place) = self.under_way.try_acquire() else {
            let text = format!("{HANDSHAKES_MAX} handshakes are under way");
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        };
        timeout(HANDSHAKE_TIMEOUT, self.shake(io, from)).await.unwrap_or_else(|_| {
            let text = format!("the handshake took more than {HANDSHAKE_TIMEOUT:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    async fn shake<S>(&self, io: S, from: Option<IpAddr>) -> io::Result<Handshaken<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let beginning = LazyConfigAcceptor::new(Beginning::default(), io);
        tokio::pin!(beginning);
        let begun = match beginning.as_mut().await {
            Ok(begun) => begun,
            Err(error) => {
                if let Some(mut io) = beginning.take_io().filter(|_| speaks_no_tls(&error)) {
                    // It may have gone already.
                    let _ = io.write_all(NO_TLS_SPOKEN).await;
                    let _ = io.shutdown().await;
                }
                return Err(error);
            }
        };
        // What was read last counts for whoever begins now.
        let stream = begun.into_stream(self.server.current()).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let mut common_name = None;
        if let Some(shown) = shown {
            if let Some(from) = from.filter(|_| self.compares_address) {
                verify::comes_from(shown, from).await?;
            }
            if self.names_clients {
                common_name = Holder::read(shown).map_err(io::Error::other)?.common_name;
            }
        }
        Ok(Handshaken { stream, common_name })
    }
}

fn speaks_no_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

fn server(tls: &Tls) -> Result<ServerConfig, Error> {
    let provider = versions::provider(tls);
    let verifier = verify::of_clients(tls, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions::versions(tls))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let pair = tls.server.as_ref().expect("an acceptor is made only with a key pair");
    let (chain, key) = files::key_pair(pair)?;
    let mut server =
        builder.with_single_cert(chain, key).map_err(|error| files::of_pair(pair, error))?;
    if let Some(pair) = &tls.client {
        // Nothing uses it, yet a mistake in it is told.
        files::key_pair(pair)?;
    }
    server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    // A session that is resumed shows no certificate again: one that was revoked would go on.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}
