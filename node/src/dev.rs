//! `flotilla dev`: a throw-away cluster in one terminal. Each node is a process of this program on
//! loopback; all data is in one temporary folder, and nothing is left when it ends.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::channel;
use crate::config::Tls;
use crate::tls::Connector;

const USAGE: &str = "\
usage: flotilla dev [--nodes COUNT] [--port FIRST] [-- FLAG...]
  A throw-away cluster on loopback: data in a temporary folder, all of it gone at Ctrl-C.
  --nodes COUNT   how many nodes, 3 unless told otherwise
  --port FIRST    client port of the first node, 2379 unless told otherwise; each further node has
                  one that is higher by 10, and the next two after that are for its peers and its
                  console. Ports that are taken are replaced by others; 0: the system chooses all
  -- FLAG...      flags of each node, such as --initial-split-keys=m";

const NODES_DEFAULT: u16 = 3;
/// More than that is no cluster for one terminal.
const NODES_MAX: u16 = 9;
const PORT_DEFAULT: u16 = 2379;
/// Between the client ports of two nodes.
const PORT_STEP: u16 = 10;
/// How long the nodes may take until they serve.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether nodes are ready, or have left.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// Lines of the log of a node that left, for the terminal.
const LOG_TAIL_LINES: usize = 5;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    nodes: u16,
    port: u16,
    flags: Vec<String>,
}

/// Carries out the arguments after `dev`.
pub fn run(arguments: &[String]) -> ExitCode {
    let Some(wish) = parse(arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(live(&wish)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flotilla dev: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<Wish> {
    let mut wish = Wish { nodes: NODES_DEFAULT, port: PORT_DEFAULT, flags: Vec::new() };
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            wish.flags = rest.cloned().collect();
            break;
        }
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, value),
            None => (word.as_str(), rest.next()?.as_str()),
        };
        match flag {
            "--nodes" => wish.nodes = value.parse().ok()?,
            "--port" => wish.port = value.parse().ok()?,
            _ => return None,
        }
    }
    (1..=NODES_MAX).contains(&wish.nodes).then_some(wish)
}

/// Until a signal.
async fn live(wish: &Wish) -> anyhow::Result<()> {
    // Before anything is there that would have to be removed.
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        hang_up: signal(SignalKind::hangup())?,
    };
    let folder = tempfile::Builder::new().prefix("flotilla-dev-").tempdir()?;
    let mut cluster = Cluster::start(wish, &folder)?;
    let lived = tokio::select! {
        lived = cluster.watch(folder.path()) => lived,
        () = signals.any() => Ok(()),
    };
    cluster.end().await;
    let path = folder.path().to_owned();
    folder.close().with_context(|| format!("{} cannot be removed", path.display()))?;
    say(&format!("\nended; {} is removed", path.display()));
    lived
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// The processes; they are killed when this is dropped.
struct Cluster {
    nodes: Vec<Node>,
    tls: Connector,
}

struct Node {
    name: String,
    client_port: u16,
    console_port: u16,
    log: PathBuf,
    /// None once it has left.
    process: Option<Child>,
}

impl Cluster {
    fn start(wish: &Wish, folder: &TempDir) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        let ports = choose_ports(wish)?;
        let members: Vec<String> = (1..)
            .zip(&ports)
            .map(|(n, [_, peer_port, _])| format!("n{n}=http://127.0.0.1:{peer_port}"))
            .collect();
        let mut nodes = Vec::new();
        for (n, [client_port, peer_port, console_port]) in (1..).zip(ports) {
            let name = format!("n{n}");
            let log = folder.path().join(format!("{name}.log"));
            let (client, peer) = (
                format!("http://127.0.0.1:{client_port}"),
                format!("http://127.0.0.1:{peer_port}"),
            );
            let output = File::create(&log)?;
            let mut command = Command::new(&program);
            command
                .args(["--name", &name, "--initial-cluster-token", "flotilla-dev"])
                .arg("--data-dir")
                .arg(folder.path().join(&name))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &members.join(","), "--log-format", "console"])
                .args(["--listen-console-urls", &format!("http://127.0.0.1:{console_port}")])
                .args(&wish.flags)
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output)
                .kill_on_drop(true);
            // Whoever started this program waits for it, not for its nodes.
            command.env_remove("NOTIFY_SOCKET");
            // Variables of this terminal would count as flags.
            for (variable, _) in std::env::vars_os() {
                if variable.to_string_lossy().starts_with("ETCD_") {
                    command.env_remove(variable);
                }
            }
            let process = Some(command.spawn().context("a node cannot be started")?);
            nodes.push(Node { name, client_port, console_port, log, process });
        }
        Ok(Self { nodes, tls: Connector::open(&Tls::of_client(None, None))? })
    }

    /// Tells when all serve, and whoever leaves.
    async fn watch(&mut self, folder: &Path) -> anyhow::Result<()> {
        let began = Instant::now();
        say(&format!("{} nodes, data and logs in {}", self.nodes.len(), folder.display()));
        for node in &self.nodes {
            say(&format!("  {}  http://127.0.0.1:{}", node.name, node.client_port));
        }
        while !self.are_ready().await {
            self.bury()?;
            anyhow::ensure!(began.elapsed() < READY_WITHIN, "not ready in {READY_WITHIN:?}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let all: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.client_port)).collect();
        let first = &all[0];
        say(&format!(
            "ready after {:.1} s. In another terminal:\n  \
             export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={}\n  \
             etcdctl put greeting hello\n  \
             flotilla top --endpoint {first}\n  \
             flotilla ctl --endpoint {first} nodes\nIn a browser: http://127.0.0.1:{}\n\
             Ctrl-C ends it and removes everything.",
            began.elapsed().as_secs_f64(),
            all.join(","),
            self.nodes[0].console_port
        ));
        loop {
            self.bury()?;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether all serve linearizable reads.
    async fn are_ready(&self) -> bool {
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            let url = format!("http://127.0.0.1:{}", node.client_port);
            let page = channel::get(&self.tls, &url, "/readyz", PROBE_WITHIN).await;
            if !page.is_ok_and(|(status, _)| status == 200) {
                return false;
            }
        }
        true
    }

    /// Tells of nodes that have left. An error once all have.
    fn bury(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            let Some(process) = &mut node.process else { continue };
            if let Some(status) = process.try_wait()? {
                node.process = None;
                let log = std::fs::read(&node.log).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n    ");
                say(&format!("{} has left: {status}\n    {tail}", node.name));
            }
        }
        anyhow::ensure!(self.nodes.iter().any(|node| node.process.is_some()), "no node is left");
        Ok(())
    }

    /// Nothing is kept, so nobody needs to leave in order.
    async fn end(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                // It may have left by itself, by the same signal.
                let _ = process.kill().await;
            }
        }
    }
}

/// The ports of each node for clients, for peers and for its console, all different.
fn choose_ports(wish: &Wish) -> io::Result<Vec<[u16; 3]>> {
    // Held until all are chosen, so that none is given twice.
    let mut held = Vec::new();
    let mut choose = |wanted: Option<u16>| {
        let wanted = wanted.filter(|port| *port != 0);
        let listener = match wanted.map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))) {
            Some(Ok(listener)) => listener,
            Some(Err(_)) | None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        };
        let port = listener.local_addr()?.port();
        held.push(listener);
        io::Result::Ok(port)
    };
    let mut ports = Vec::new();
    for n in 0..wish.nodes {
        let client = match wish.port {
            0 => None,
            first => first.checked_add(n * PORT_STEP),
        };
        let after = |step| client.and_then(|port| port.checked_add(step));
        ports.push([choose(client)?, choose(after(1))?, choose(after(2))?]);
    }
    Ok(ports)
}

fn say(text: &str) {
    // A closed pipe is not worth a word.
    let _ = writeln!(io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Wish> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn arguments_are_understood_or_not() {
        let wish = |nodes, port, flags: &[&str]| {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            Some(Wish { nodes, port, flags })
        };
        assert_eq!(parsed(""), wish(3, 2379, &[]));
        assert_eq!(parsed("--nodes 1 --port=0"), wish(1, 0, &[]));
        let flags = ["--pre-vote=false", "--nodes", "7"];
        assert_eq!(parsed("--nodes=5 -- --pre-vote=false --nodes 7"), wish(5, 2379, &flags));
        for wrong in ["--nodes", "--nodes 0", "--nodes 10", "--nodes x", "--port 70000", "3"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_replaced() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("a port").port();
        let wish = Wish { nodes: 2, port, flags: Vec::new() };
        let ports = choose_ports(&wish).expect("ports");
        let mut all: Vec<u16> = ports.into_iter().flatten().collect();
        assert!(!all.contains(&port), "{all:?}");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
