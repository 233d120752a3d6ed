//! Where a call comes from, as far as its connection tells.

use std::net::IpAddr;

use crate::tls::CommonName;

/// What all calls of a connection have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The kind of address it came in by.
    pub door: Door,
    /// The address of the other end; none of a Unix socket.
    pub from: Option<IpAddr>,
    /// Over TLS.
    pub is_tls: bool,
    /// Who the client is by its certificate, which was checked against `--trusted-ca-file` and
    /// `--client-crl-file`: its user, unless it shows a token. `None` without `--client-cert-auth`
    /// and over plain connections.
    pub common_name: Option<CommonName>,
}

/// What is served at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `--listen-client-urls` alone: gRPC and all pages.
    Everything,
    /// `--listen-client-urls` beside `--listen-client-http-urls`.
    Grpc,
    /// `--listen-client-http-urls`.
    Pages,
    /// `--listen-metrics-urls`: metrics and health, and nothing that holds data.
    Metrics,
    /// `--listen-console-urls`: the console alone, which has connections of its own.
    Console,
}

impl Door {
    pub(super) fn serves_grpc(self) -> bool {
        matches!(self, Door::Everything | Door::Grpc)
    }
}
