//! Connections to the endpoints of one store, dealt out to the slots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use flotilla_proto::etcdserverpb as pb;
use prost::Message as _;

use crate::wire::{Channel, Code, Connection, Method, Options, Status};

/// Most connections of a run.
const CONNECTIONS_MAX: usize = 10_000;
/// Pause between attempts while a store starts.
const START_PAUSE: Duration = Duration::from_millis(20);

/// Open connections.
#[derive(Clone)]
pub struct Pool {
    channels: Vec<Arc<Channel>>,
}

impl Pool {
    /// Opens `count` connections, dealt over the endpoints in turn.
    ///
    /// # Errors
    /// An endpoint cannot be reached or its URL is not understood.
    pub async fn open(
        endpoints: &[String],
        count: usize,
        options: &Options,
    ) -> anyhow::Result<Self> {
        ensure!(!endpoints.is_empty(), "no endpoints");
        ensure!((1..=CONNECTIONS_MAX).contains(&count), "1 to {CONNECTIONS_MAX} connections");
        let mut channels = Vec::with_capacity(count);
        for n in 0..count {
            let address = address(&endpoints[n % endpoints.len()])?;
            channels.push(Arc::new(Channel::open(&address, options.clone()).await?));
        }
        Ok(Self { channels })
    }

    /// The connection of a slot.
    #[must_use]
    pub fn channel(&self, slot: usize) -> Arc<Channel> {
        self.channels[slot % self.channels.len()].clone()
    }

    /// How many connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// A pool has at least one connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Asks a member how it is.
    ///
    /// # Errors
    /// The call fails.
    pub async fn status(&self) -> Result<pb::StatusResponse, Status> {
        let request = pb::StatusRequest::default().encode_to_vec();
        let answer = self.channels[0].unary(Method::Status, &request).await?;
        pb::StatusResponse::decode(answer)
            .map_err(|error| Status::new(Code::INTERNAL, error.to_string()))
    }
}

/// Host and port of an endpoint.
///
/// # Errors
/// TLS, which this generator does not speak, or no port.
pub fn address(endpoint: &str) -> anyhow::Result<String> {
    if endpoint.starts_with("https://") || endpoint.starts_with("unixs://") {
        bail!("{endpoint}: TLS is not supported; aim at a plain http:// endpoint");
    }
    let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let port = address.rsplit_once(':').map(|(_, port)| port);
    ensure!(
        port.is_some_and(|port| port.parse::<u16>().is_ok()),
        "{endpoint}: host:port is needed"
    );
    Ok(address.into())
}

/// Logs in, if `user` is given as NAME:PASSWORD.
///
/// # Errors
/// The endpoint refuses.
pub async fn log_in(endpoints: &[String], user: Option<&str>) -> anyhow::Result<Options> {
    let mut options = Options::default();
    let Some(user) = user else { return Ok(options) };
    let Some((name, password)) = user.split_once(':') else {
        bail!("--user needs NAME:PASSWORD; asking for a password is not supported");
    };
    let endpoint = endpoints.first().context("no endpoints")?;
    let connection = Connection::open(&address(endpoint)?, options.clone()).await?;
    let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    let answer = connection.unary(Method::Authenticate, &request.encode_to_vec()).await?;
    options.token = Some(pb::AuthenticateResponse::decode(answer)?.token);
    Ok(options)
}

/// Waits until every endpoint answers a linearizable read. Returns how long that took.
///
/// # Errors
/// It takes longer than `limit`.
pub async fn wait_ready(endpoints: &[String], limit: Duration) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let options = Options { call_timeout: Duration::from_secs(1), ..Options::default() };
    let request = pb::RangeRequest { key: "ready".into(), ..Default::default() }.encode_to_vec();
    for endpoint in endpoints {
        let address = address(endpoint)?;
        loop {
            let answered = match Connection::open(&address, options.clone()).await {
                Ok(connection) => connection.unary(Method::Range, &request).await.map(|_| ()),
                Err(status) => Err(status),
            };
            match answered {
                Ok(()) => break,
                Err(status) if began.elapsed() > limit => {
                    bail!("{endpoint} is not ready: {status}")
                }
                Err(_) => tokio::time::sleep(START_PAUSE).await,
            }
        }
    }
    Ok(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_etcd_reads_them() {
        assert_eq!(address("http://127.0.0.1:2379").unwrap(), "127.0.0.1:2379");
        assert_eq!(address("localhost:2379/").unwrap(), "localhost:2379");
        assert!(address("https://localhost:2379").is_err() && address("localhost").is_err());
    }
}
