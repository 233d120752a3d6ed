//! Starting and stopping a store on loopback, and reading what its processes have cost.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// Clock ticks a second in /proc, fixed by the kernel's interface on Linux.
const TICKS_PER_SEC: f64 = 100.0;
/// How long a node may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running cluster of a binary that takes etcd's flags.
pub struct Cluster {
    nodes: Vec<Child>,
    /// Client URLs.
    pub endpoints: Vec<String>,
    _data: TempDir,
}

impl Cluster {
    /// Starts `size` nodes on ports from `port` on.
    ///
    /// # Errors
    /// A node does not start.
    pub fn start(binary: &Path, size: usize, port: u16) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let urls = |offset: u16| -> Vec<String> {
            let size = u16::try_from(size).expect("clusters are small");
            (0..size).map(|n| format!("http://127.0.0.1:{}", port + 2 * n + offset)).collect()
        };
        let (clients, peers) = (urls(0), urls(1));
        let initial: Vec<String> =
            peers.iter().enumerate().map(|(n, url)| format!("n{n}={url}")).collect();
        let mut cluster = Self { nodes: Vec::new(), endpoints: clients.clone(), _data: data };
        for n in 0..size {
            let dir = cluster._data.path().join(format!("n{n}"));
            let log = std::fs::File::create(cluster._data.path().join(format!("n{n}.log")))?;
            let node = Command::new(binary)
                .args(["--name", &format!("n{n}")])
                .arg("--data-dir")
                .arg(&dir)
                .args(["--listen-client-urls", &clients[n]])
                .args(["--advertise-client-urls", &clients[n]])
                .args(["--listen-peer-urls", &peers[n]])
                .args(["--initial-advertise-peer-urls", &peers[n]])
                .args(["--initial-cluster", &initial.join(",")])
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("start {}", binary.display()))?;
            cluster.nodes.push(node);
        }
        let deadline = Instant::now() + START_TIMEOUT;
        for url in &clients {
            let address = url.trim_start_matches("http://");
            while TcpStream::connect(address).is_err() {
                ensure!(Instant::now() < deadline, "{url} does not answer");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(cluster)
    }

    /// CPU seconds all nodes have used.
    ///
    /// # Errors
    /// A node has died.
    pub fn cpu_secs(&self) -> anyhow::Result<f64> {
        self.nodes.iter().map(|node| cpu_secs(node.id())).sum()
    }

    /// Resident bytes of all nodes.
    ///
    /// # Errors
    /// A node has died.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.nodes.iter().map(|node| resident_bytes(node.id())).sum()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // Already gone is as good.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn cpu_secs(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(')').context("/proc/pid/stat has a name")?;
    let field = |n: usize| -> anyhow::Result<f64> {
        Ok(rest.split_whitespace().nth(n).context("/proc/pid/stat is short")?.parse()?)
    };
    Ok((field(11)? + field(12)?) / TICKS_PER_SEC)
}

fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().nth(1))
        .context("/proc/pid/status has no VmRSS")?
        .parse()?;
    Ok(kib * 1024)
}
