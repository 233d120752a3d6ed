//! Server processes for the integration tests: starts, stops, kills and restarts nodes of any
//! binary that takes etcd's flags, on free loopback ports and in a directory of their own.
//! Knows nothing of what is stored. Every process it started is dead when a `Cluster` is dropped.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its own part of the harness"
)]

pub mod acknowledged;
pub mod traffic;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long a node may take until it serves linearizable reads.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a node may take to leave after SIGTERM.
pub const STOP_WITHIN: Duration = Duration::from_secs(20);
/// Lines of a node's log that are shown when a test fails.
const LOG_TAIL_LINES: usize = 40;
const POLL_EVERY: Duration = Duration::from_millis(20);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Ports below the range from which the kernel takes ports for outgoing connections.
const PORTS: std::ops::Range<u16> = 10_240..32_000;

/// The binary under test.
pub fn flotilla() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_flotilla"))
}

/// `FLOTILLA_TEST_SPLIT_KEYS` cuts the keyspace of every cluster, so that any test can be run with
/// several ranges: no client can tell. `FLOTILLA_TEST_LOG_LEVEL` has every node say more.
fn flags_of_all(binary: &Path) -> Vec<String> {
    let flag = |variable: &str, name: &str| {
        let value = std::env::var(variable).ok().filter(|_| binary == flotilla());
        value.map(|value| format!("{name}={value}"))
    };
    let split_keys = flag("FLOTILLA_TEST_SPLIT_KEYS", "--initial-split-keys");
    let log_level = flag("FLOTILLA_TEST_LOG_LEVEL", "--log-level");
    split_keys.into_iter().chain(log_level).collect()
}

/// The distribution's etcd, if it is installed.
pub fn etcd() -> Option<PathBuf> {
    on_path("etcd")
}

/// The distribution's etcdctl, if it is installed.
pub fn etcdctl() -> Option<PathBuf> {
    on_path("etcdctl")
}

pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Says why a test is not made. Not by the macro, whose words cargo keeps to itself when a test passes;
/// `.ci/test` repeats it at the end.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// A port of the loopback that was free a moment ago. No port is given twice by one process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start;
    // Test processes that run side by side begin at different places.
    let first = u16::try_from(u64::from(std::process::id()) * 97 % u64::from(width))
        .expect("a remainder of a u16 fits");
    for _ in 0..width {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (u32::from(first) + u32::from(step)) % u32::from(width);
        let port = PORTS.start + u16::try_from(offset).expect("a remainder of a u16 fits");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// One server: its place on disk, its ports and, while it runs, its process.
pub struct Node {
    pub name: String,
    pub client_port: u16,
    pub peer_port: u16,
    /// Where a node is asked whether it is ready when its clients speak TLS.
    metrics_port: Option<u16>,
    client_scheme: &'static str,
    peer_scheme: &'static str,
    /// Flags behind those the harness gives; a test may change them before a restart.
    pub flags: Vec<String>,
    /// Variables of its environment beside the caller's.
    pub variables: Vec<(String, String)>,
    /// `new`, or `existing` for a node that was added to a running cluster.
    state: &'static str,
    /// None for a node that discovers the first members.
    initial_cluster: Option<String>,
    folder: PathBuf,
    process: Option<Child>,
}

impl Node {
    pub fn client_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.client_scheme, self.client_port)
    }

    pub fn peer_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.peer_scheme, self.peer_port)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the process wrote to both its outputs since the first start.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

/// A cluster of processes. Dropping it kills them and removes their data.
pub struct Cluster {
    binary: PathBuf,
    pub nodes: Vec<Node>,
    folder: TempDir,
}

impl Cluster {
    /// Starts `size` nodes of `binary` and waits until each serves linearizable reads.
    pub fn start(binary: &Path, size: usize) -> Self {
        Self::start_with(binary, size, &[])
    }

    /// As `start`, with `flags` behind those the harness gives to each node.
    pub fn start_with(binary: &Path, size: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(binary, size, flags);
        for index in 0..size {
            cluster.spawn(index);
        }
        cluster.wait_all_ready();
        cluster
    }

    /// Nodes with ports and folders that were not started yet.
    pub fn prepare(binary: &Path, size: usize, flags: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("flotilla-test-")
            .tempdir()
            .expect("a folder for the nodes");
        let mut cluster = Self { binary: binary.to_owned(), nodes: Vec::new(), folder };
        for index in 0..size {
            let node = cluster.new_node(&format!("n{index}"), flags);
            cluster.nodes.push(node);
        }
        let initial_cluster = cluster.initial_cluster();
        for node in &mut cluster.nodes {
            node.initial_cluster = Some(initial_cluster.clone());
        }
        cluster
    }

    /// Has nodes that were not started yet find each other by their flags alone.
    pub fn forget_members(&mut self) {
        for node in &mut self.nodes {
            node.initial_cluster = None;
        }
    }

    /// Has nodes that were not started yet speak TLS to clients, to each other, or both.
    pub fn secure(&mut self, to_clients: bool, to_peers: bool) {
        for node in &mut self.nodes {
            if to_clients {
                node.client_scheme = "https";
                node.metrics_port = Some(free_port());
            }
            if to_peers {
                node.peer_scheme = "https";
            }
        }
        let initial_cluster = self.initial_cluster();
        for node in &mut self.nodes {
            node.initial_cluster = Some(initial_cluster.clone());
        }
    }

    /// Prepares one more node, to be started with `--initial-cluster-state existing` once it was
    /// added to the cluster. Returns its index.
    pub fn prepare_joining(&mut self, name: &str) -> usize {
        let mut node = self.new_node(name, &[]);
        node.state = "existing";
        self.nodes.push(node);
        let initial_cluster = self.initial_cluster();
        let index = self.nodes.len() - 1;
        self.nodes[index].initial_cluster = Some(initial_cluster);
        index
    }

    fn new_node(&self, name: &str, flags: &[&str]) -> Node {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).expect("a folder for a node");
        Node {
            name: name.to_owned(),
            client_port: free_port(),
            peer_port: free_port(),
            metrics_port: None,
            client_scheme: "http",
            peer_scheme: "http",
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            variables: Vec::new(),
            state: "new",
            initial_cluster: None,
            folder,
            process: None,
        }
    }

    /// `name=peer-url` of all nodes, as `--initial-cluster` wants them.
    pub fn initial_cluster(&self) -> String {
        let pairs: Vec<String> =
            self.nodes.iter().map(|node| format!("{}={}", node.name, node.peer_url())).collect();
        pairs.join(",")
    }

    pub fn endpoint(&self, index: usize) -> String {
        self.nodes[index].client_url()
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(Node::client_url).collect()
    }

    /// Starts the process of a node and returns at once. Its data, if any, is kept.
    pub fn spawn(&mut self, index: usize) {
        let binary = self.binary.clone();
        let node = &mut self.nodes[index];
        assert!(node.process.is_none(), "{} runs already", node.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(node.folder.join("log"))
            .expect("the log of a node");
        let (client_url, peer_url) = (node.client_url(), node.peer_url());
        let metrics_url = node.metrics_port.map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new(&binary);
        command
            .arg("--name")
            .arg(&node.name)
            .arg("--data-dir")
            .arg(node.data_dir())
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(node.initial_cluster.as_ref().map(|list| format!("--initial-cluster={list}")))
            .args(metrics_url.map(|url| format!("--listen-metrics-urls={url}")))
            .args(["--initial-cluster-state", node.state])
            .args(flags_of_all(&binary))
            .args(&node.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log);
        // Variables of the caller's environment would count as flags.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        command.envs(node.variables.iter().map(|(name, value)| (name, value)));
        let child = command.spawn();
        node.process = Some(child.unwrap_or_else(|error| panic!("{}: {error}", binary.display())));
    }

    /// Waits until a node answers that it serves linearizable reads, so that a leader exists.
    pub fn wait_ready(&mut self, index: usize) {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_ready(index) {
            let node = &mut self.nodes[index];
            assert!(node.is_running(), "{} left while it started", node.name);
            assert!(Instant::now() < deadline, "{} is not ready in {READY_WITHIN:?}", node.name);
            std::thread::sleep(POLL_EVERY);
        }
    }

    pub fn wait_all_ready(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].process.is_some() {
                self.wait_ready(index);
            }
        }
    }

    /// True if the node serves linearizable reads. Servers without `/readyz` are asked `/health`.
    pub fn is_ready(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let port = node.metrics_port.unwrap_or(node.client_port);
        match http_get(port, "/readyz") {
            Some((404, _)) => http_get(port, "/health")
                .is_some_and(|(_, body)| body.contains(r#""health":"true""#)),
            Some((status, _)) => status == 200,
            None => false,
        }
    }

    /// SIGKILL: the process leaves between two instructions.
    pub fn kill(&mut self, index: usize) {
        let mut child = self.nodes[index].process.take().expect("a node that runs");
        child.kill().expect("SIGKILL is sent");
        child.wait().expect("a killed child can be waited for");
    }

    /// SIGTERM, then waits until the process has left.
    pub fn stop(&mut self, index: usize) -> ExitStatus {
        let child = self.nodes[index].process.as_ref().expect("a node that runs");
        let id = i32::try_from(child.id()).expect("process ids are positive i32");
        let pid = Pid::from_raw(id).expect("process ids are not zero");
        kill_process(pid, Signal::TERM).expect("SIGTERM is sent");
        let status = self.wait_exit(index, STOP_WITHIN);
        status.unwrap_or_else(|| panic!("{} ignores SIGTERM", self.nodes[index].name))
    }

    /// How a node left by itself, if it has. It then counts as stopped.
    pub fn poll_exit(&mut self, index: usize) -> Option<ExitStatus> {
        let node = &mut self.nodes[index];
        let status = node.process.as_mut()?.try_wait().expect("a child can be waited for")?;
        node.process = None;
        Some(status)
    }

    /// Waits until a node leaves by itself. None if it still runs after `within`.
    pub fn wait_exit(&mut self, index: usize, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        let node = &mut self.nodes[index];
        let child = node.process.as_mut().expect("a node that runs");
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                node.process = None;
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Starts a stopped or killed node with its data and waits until it is ready.
    pub fn restart(&mut self, index: usize) {
        self.spawn(index);
        self.wait_ready(index);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.process.take() {
                // A node that has left already is what is wanted.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- end of the log of {}:\n{}", node.name, node.log_tail());
            }
        }
    }
}

/// GET over HTTP/1.1: status and body, or None when the port does not answer.
pub fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT)).ok()?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for item in fs::read_dir(from).expect("a folder") {
        let path = item.expect("an item").path();
        let target = to.join(path.file_name().expect("an item has a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}
