//! TLS as etcd's flags describe it: what this node shows, whom it believes, and the handshakes of
//! both ends. Files are looked at while the node runs, and what they say holds from the next
//! handshake on; connections that stand are left alone.
//!
//! Owns certificates and handshakes; knows nothing of what is said afterwards.

mod acceptor;
mod connector;

mod files;
mod watched;

mod certificate;
mod crl;
mod verify;

mod generate;
mod versions;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use acceptor::{Acceptor, Handshaken};
pub use certificate::CommonName;
pub use connector::Connector;
pub use files::Error;

use crate::config::{Config, Tls, Url};

/// Both ends of both sides of a node.
#[derive(Clone)]
pub struct Ends {
    /// For the addresses of clients, and of the console.
    pub clients: Option<Acceptor>,
    /// For the addresses of metrics, which compare a certificate with where it comes from.
    pub metrics: Option<Acceptor>,
    /// For the addresses of peers.
    pub peers: Option<Acceptor>,
    /// For connections to peers.
    pub to_peers: Connector,
}

impl Ends {
    /// Reads what the configuration names, and generates what it wants generated.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let generated = config.data_dir.join("fixtures");
        let urls = || {
            let of_clients = [&config.listen_client_urls, &config.listen_client_http_urls];
            of_clients.into_iter().chain([&config.listen_console_urls]).flatten()
        };
        let client_tls =
            with_generated(&config.client_tls, urls().collect(), || generated.join("client"))?;
        let peer_tls =
            with_generated(&config.peer_tls, config.listen_peer_urls.iter().collect(), || {
                generated.join("peer")
            })?;
        let accept = |tls: &Tls| match tls.server {
            Some(_) => Acceptor::open(tls).map(Some),
            None => Ok(None),
        };
        let clients = accept(&client_tls)?;
        let compares = |tls: &Tls| !tls.skip_client_san_verification;
        let metrics = clients.clone();
        Ok(Self {
            clients,
            metrics: metrics.map(|it| it.comparing_addresses(compares(&client_tls))),
            peers: accept(&peer_tls)?.map(|it| it.comparing_addresses(compares(&peer_tls))),
            to_peers: Connector::open(&peer_tls)?,
        })
    }
}

/// The same with the key pair that is shown, which is generated if that is wanted.
fn with_generated(
    tls: &Tls,
    urls: Vec<&Url>,
    folder: impl FnOnce() -> std::path::PathBuf,
) -> Result<Tls, Error> {
    let mut tls = tls.clone();
    if tls.is_auto {
        tls.server = Some(generate::key_pair(&folder(), &urls, tls.validity_years)?);
    }
    Ok(tls)
}

/// The one implementation of cryptography that is used, whatever else is linked in.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
