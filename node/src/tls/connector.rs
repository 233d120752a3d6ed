//! The connecting end.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{self, Error};
use super::watched::Watched;
use super::{verify, versions};
use crate::config::Tls;

/// The name that is asked for over a socket of this machine.
const LOCAL: &str = "localhost";

/// Does the handshakes of connections that a node begins.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<Tls>,
    /// `None` while nothing is given: what this machine trusts is read when it is needed.
    client: Option<Watched<ClientConfig>>,
}

impl Connector {
    /// For the connections of one side.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should.
    pub fn open(tls: &Tls) -> Result<Self, Error> {
        let is_given = tls.server.is_some() || tls.client.is_some() || tls.trusted_ca.is_some();
        let client = is_given.then(|| Watched::open(tls, client)).transpose()?;
        Ok(Self { tls: Arc::new(tls.clone()), client })
    }

    /// Does one handshake with `host`, a name or an address; empty for a socket of this machine.
    /// The caller sets the deadline.
    ///
    /// # Errors
    /// The other end is not who it should be, or does not want this one.
    pub async fn connect<S>(&self, host: &str, io: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let host = if host.is_empty() { LOCAL } else { host };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let client = match &self.client {
            Some(client) => client.current(),
            None => Arc::new(client(&self.tls).map_err(io::Error::other)?),
        };
        TlsConnector::from(client).connect(name, io).await
    }
}

fn client(tls: &Tls) -> Result<ClientConfig, Error> {
    let provider = versions::provider(tls);
    let verifier = verify::of_servers(tls, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions::versions(tls))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut client = match tls.client.as_ref().or(tls.server.as_ref()) {
        Some(pair) => {
            let (chain, key) = files::key_pair(pair)?;
            let made = builder.with_client_auth_cert(chain, key);
            made.map_err(|error| files::of_pair(pair, error))?
        }
        None => builder.with_no_client_auth(),
    };
    client.resumption = Resumption::disabled();
    Ok(client)
}
