//! The threads of a node: which worker runs what, and how connections come to them. The only file
//! that starts workers; the log, the apply thread, snapshots and the console start their own.
//!
//! Each worker is one thread with a current-thread runtime. A client's connection stays on one
//! worker with all of its requests and watchers. The spine's actor and the peers run on the main
//! thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_core::membership::url::{Endpoint, Url};
use flotilla_core::watch::Published;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::api::{self, Door};
use crate::config::Config;
use crate::peer;
use crate::router::Router;
use crate::spans::Spans;
use crate::tls;
use crate::watch::HubHandle;

/// Connections that may wait for a worker.
pub const CONNECTIONS_WAITING_MAX: usize = 1_024;
/// Pause after a connection could not be accepted: descriptors come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection on its way to a worker.
pub struct Connection {
    /// As it was accepted.
    pub socket: Socket,
    /// Does the handshake, which is yet to come, on a listener with TLS.
    pub tls: Option<tls::Acceptor>,
    /// What is served on it.
    pub door: Door,
}

/// A connection as it was accepted.
pub enum Socket {
    /// Over TCP.
    Tcp(std::net::TcpStream, SocketAddr),
    /// Over a Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// Where clients come in.
pub struct ClientListener {
    bound: Bound,
    is_tls: bool,
    door: Door,
}

impl ClientListener {
    fn acceptor(&self, ends: &tls::Ends) -> Option<tls::Acceptor> {
        let acceptor = match self.door {
            Door::Everything | Door::Grpc | Door::Pages | Door::Console => &ends.clients,
            Door::Metrics => &ends.metrics,
        };
        self.is_tls.then(|| {
            acceptor.clone().expect("the configuration has a certificate for each https address")
        })
    }
}

/// All ports of a node.
pub struct Listeners {
    /// For clients.
    pub clients: Vec<ClientListener>,
    /// For peers.
    pub peers: Vec<peer::Listener>,
    /// For the console.
    pub consoles: Vec<ClientListener>,
}

impl Listeners {
    /// Takes the ports, before anything is done to the data.
    ///
    /// # Errors
    /// A port is taken or not allowed.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let (mut clients, mut consoles) = (Vec::new(), Vec::new());
        let calls = match config.listen_client_http_urls.is_empty() {
            true => Door::Everything,
            false => Door::Grpc,
        };
        let doors = [
            (calls, &config.listen_client_urls),
            (Door::Pages, &config.listen_client_http_urls),
            (Door::Metrics, &config.listen_metrics_urls),
            (Door::Console, &config.listen_console_urls),
        ];
        for (door, urls) in doors {
            for url in urls {
                let bound = bind(url).await.with_context(|| format!("listen on {url}"))?;
                let side = if door == Door::Console { &mut consoles } else { &mut clients };
                side.push(ClientListener { bound, is_tls: url.is_tls(), door });
            }
        }
        let mut peers = Vec::new();
        for url in &config.listen_peer_urls {
            let socket = match bind(url).await.with_context(|| format!("listen on {url}"))? {
                Bound::Tcp(listener) => peer::Socket::Tcp(listener),
                Bound::Unix(listener) => peer::Socket::Unix(listener),
            };
            peers.push(peer::Listener { socket, is_tls: url.is_tls() });
        }
        Ok(Self { clients, peers, consoles })
    }
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

async fn bind(url: &Url) -> io::Result<Bound> {
    Ok(match url.endpoint() {
        Endpoint::Tcp { host, port } => {
            let host = if host.is_empty() { "0.0.0.0" } else { host };
            Bound::Tcp(TcpListener::bind((host, *port)).await?)
        }
        Endpoint::Unix { path } => {
            // A socket file that a killed process left behind is in nobody's use.
            if std::os::unix::net::UnixStream::connect(path).is_err() {
                let _ = std::fs::remove_file(path);
            }
            Bound::Unix(UnixListener::bind(path)?)
        }
    })
}

/// The workers that serve clients.
pub struct Workers {
    connections: Vec<mpsc::Sender<Connection>>,
    hubs: Vec<HubHandle>,
    arbiters: Vec<actix::Arbiter>,
}

impl Workers {
    /// Starts the configured number of workers, one a core if none is given.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(
        config: &Arc<Config>,
        router: &Router,
        metrics: PrometheusHandle,
        spans: Option<&Arc<Spans>>,
    ) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.workers == 0 { cores } else { config.workers };
        let budget = Arc::new(api::Budget::new(config.answer_budget_bytes));
        let mut workers = Self { connections: Vec::new(), hubs: Vec::new(), arbiters: Vec::new() };
        for _ in 0..count {
            let (sender, receiver) = mpsc::channel(CONNECTIONS_WAITING_MAX);
            let (hub, hub_receiver) = HubHandle::channel();
            let (config, router, metrics) = (config.clone(), router.clone(), metrics.clone());
            let context =
                api::Context::new(config, router, metrics, spans.cloned(), budget.clone());
            let arbiter = actix::Arbiter::new();
            let is_started = arbiter.spawn_fn(move || {
                actix::spawn(api::serve(context, hub_receiver, receiver));
            });
            anyhow::ensure!(is_started, "a worker did not start");
            workers.connections.push(sender);
            workers.hubs.push(hub);
            workers.arbiters.push(arbiter);
        }
        Ok(workers)
    }

    /// Hands every batch to the watchers of every worker.
    pub fn publisher(&self) -> Box<dyn Fn(&Published) + Send> {
        let hubs = self.hubs.clone();
        Box::new(move |published| {
            for hub in &hubs {
                hub.publish(published);
            }
        })
    }

    /// Accepts connections and deals them out in turn, until what it returns is dropped.
    pub fn accept(&self, listeners: Vec<ClientListener>, ends: &tls::Ends) -> Accepting {
        Accepting::start(listeners, ends, &self.connections)
    }

    /// Ends the workers.
    pub fn stop(self) {
        for arbiter in self.arbiters {
            arbiter.stop();
            // A worker that panicked has ended the process already.
            let _ = arbiter.join();
        }
    }
}

/// Accepts connections until it is dropped.
pub struct Accepting {
    tasks: Vec<JoinHandle<()>>,
}

impl Accepting {
    /// Hands the connections that come in to these in turn.
    pub fn start(
        listeners: Vec<ClientListener>,
        ends: &tls::Ends,
        to: &[mpsc::Sender<Connection>],
    ) -> Self {
        let tasks = listeners.into_iter().map(|listener| {
            let tls = listener.acceptor(ends);
            actix::spawn(accept(listener, tls, to.to_vec()))
        });
        Self { tasks: tasks.collect() }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept(
    listener: ClientListener,
    tls: Option<tls::Acceptor>,
    workers: Vec<mpsc::Sender<Connection>>,
) {
    let mut turn = 0;
    loop {
        match accept_one(&listener.bound).await {
            Ok(socket) => {
                turn = (turn + 1) % workers.len();
                let connection = Connection { socket, tls: tls.clone(), door: listener.door };
                if workers[turn].send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_one(listener: &Bound) -> io::Result<Socket> {
    match listener {
        Bound::Tcp(listener) => {
            let (stream, address): (TcpStream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Socket::Tcp(stream.into_std()?, address))
        }
        Bound::Unix(listener) => {
            let (stream, _): (UnixStream, _) = listener.accept().await?;
            Ok(Socket::Unix(stream.into_std()?))
        }
    }
}
