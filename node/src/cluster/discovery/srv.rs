//! Members by SRV records: `_etcd-server-ssl._tcp` of a domain names those that speak TLS,
//! `_etcd-server._tcp` those that do not. Which of them is this node, its addresses tell.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use flotilla_core::membership::url::Endpoint;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::config::Url;

/// Services by the scheme of their addresses, in the order in which etcd asks for them.
const SERVICES: [(&str, &str); 2] = [("https", "etcd-server-ssl"), ("http", "etcd-server")];
/// A longer list is none of members.
const MEMBERS_MAX: usize = 64;

/// Why the DNS does not name the members.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine has no resolver.
    #[error("the DNS cannot be asked: {0}")]
    NoResolver(String),
    /// Neither service has records.
    #[error("{0}")]
    NoRecords(String),
    /// A record names what is no address.
    #[error("SRV record {0}: {1}")]
    Address(String, String),
    /// No end of records.
    #[error("{0} SRV records are more than the {MEMBERS_MAX} members that a cluster may have")]
    TooMany(usize),
}

/// Members and their peer addresses, by the resolver of this machine. This node has the name it was
/// given, others get numbers: they tell their names once they run.
///
/// # Errors
/// See `Error`.
pub(super) async fn find(
    domain: &str,
    suffix: &str,
    name: &str,
    own: &[Url],
) -> Result<Vec<(String, Url)>, Error> {
    let no_resolver = |error: hickory_resolver::net::NetError| Error::NoResolver(error.to_string());
    let builder = TokioResolver::builder_tokio().map_err(no_resolver)?;
    find_with(&builder.build().map_err(no_resolver)?, domain, suffix, name, own).await
}

/// The same by a resolver.
///
/// # Errors
/// See `Error`.
pub(super) async fn find_with(
    resolver: &TokioResolver,
    domain: &str,
    suffix: &str,
    name: &str,
    own: &[Url],
) -> Result<Vec<(String, Url)>, Error> {
    let mut own_addresses = BTreeSet::new();
    for url in own {
        if let Endpoint::Tcp { host, port } = url.endpoint() {
            own_addresses.extend(addresses(resolver, host, *port).await);
        }
    }
    let (mut members, mut refusals) = (Vec::new(), Vec::new());
    // A stranger must not have this node's name, should that be a number.
    let mut numbers = (0..).map(|n: u32| n.to_string()).filter(|number| number != name);
    for (scheme, service) in SERVICES {
        let service = match suffix {
            "" => service.to_owned(),
            suffix => format!("{service}-{suffix}"),
        };
        let question = format!("_{service}._tcp.{}.", domain.trim_end_matches('.'));
        let answer = match resolver.lookup(question.as_str(), RecordType::SRV).await {
            Ok(answer) => answer,
            Err(error) => {
                refusals.push(format!("error querying DNS SRV records for _{service} {error}"));
                continue;
            }
        };
        for record in answer.answers() {
            let RData::SRV(srv) = &record.data else { continue };
            let host = srv.target.to_utf8();
            let (host, port) = (host.trim_end_matches('.'), srv.port);
            let text = format!("{scheme}://{host}:{port}");
            let url = Url::parse(&text)
                .map_err(|error| Error::Address(text.clone(), error.to_string()))?;
            let found = addresses(resolver, host, port).await;
            let is_own = own.contains(&url) || !own_addresses.is_disjoint(&found);
            let name = match is_own {
                true => name.to_owned(),
                false => numbers.next().expect("numbers do not end"),
            };
            tracing::info!(name, url = text, "found in an SRV record");
            members.push((name, url));
        }
    }
    match members.len() {
        0 => Err(Error::NoRecords(refusals.join("; "))),
        count if count > MEMBERS_MAX => Err(Error::TooMany(count)),
        _ => Ok(members),
    }
}

/// Where a host is; nowhere, if its name is unknown: other members need not be there yet.
async fn addresses(resolver: &TokioResolver, host: &str, port: u16) -> BTreeSet<SocketAddr> {
    match resolver.lookup_ip(host).await {
        Ok(found) => found.iter().map(|ip| SocketAddr::new(ip, port)).collect(),
        Err(error) => {
            tracing::warn!(host, %error, "a host cannot be resolved");
            BTreeSet::new()
        }
    }
}
