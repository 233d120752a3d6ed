//! Stores to load: endpoints that run already, or commands that are started and stopped here.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::connect;

/// How long a cluster may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take to stop when asked nicely.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Most nodes of a cluster.
const NODES_MAX: usize = 9;

/// A store as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name in reports.
    pub name: String,
    /// Where it is or how to start it.
    pub place: Place,
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It runs already at these endpoints.
    Endpoints(Vec<String>),
    /// It is started with this command, its words split at spaces.
    Command(Vec<String>),
}

impl Target {
    /// Reads `NAME=COMMAND`, `NAME=http://HOST:PORT,...` or either without a name. A command is a
    /// program that takes etcd's flags, or any with the placeholders `{name}`, `{data}`,
    /// `{client}`, `{peer}` and `{cluster}`.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) if !name.contains(['/', ' ', '-']) => (Some(name), place),
            _ => (None, text),
        };
        let words: Vec<String> = place.split_whitespace().map(str::to_owned).collect();
        let first = words.first().with_context(|| format!("{text:?} names no store"))?;
        if first.contains("://") {
            let endpoints = place.split(',').map(|url| url.trim().to_owned()).collect();
            let name = name.unwrap_or(place).to_owned();
            return Ok(Self { name, place: Place::Endpoints(endpoints) });
        }
        let program = Path::new(first)
            .file_name()
            .map_or(first.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Self { name: name.unwrap_or(&program).to_owned(), place: Place::Command(words) })
    }

    /// Starts it, or just remembers where it is, and waits until it answers. `dir` is where a
    /// started store keeps its data.
    ///
    /// # Errors
    /// A node cannot be started or does not answer in time.
    pub async fn start(&self, nodes: usize, dir: &Path) -> anyhow::Result<Cluster> {
        let mut cluster = match &self.place {
            Place::Endpoints(endpoints) => {
                Cluster { endpoints: endpoints.clone(), nodes: Vec::new(), data: None }
            }
            Place::Command(words) => Cluster::new(words, nodes, dir)?,
        };
        for node in &mut cluster.nodes {
            node.spawn()?;
        }
        let ready = connect::wait_ready(&cluster.endpoints, START_TIMEOUT).await;
        ready.with_context(|| format!("{}: {}", self.name, cluster.last_words()))?;
        Ok(cluster)
    }
}

/// A store that runs. Nodes started here are killed when it is dropped.
pub struct Cluster {
    /// Client URLs, one a node.
    pub endpoints: Vec<String>,
    nodes: Vec<Node>,
    data: Option<TempDir>,
}

struct Node {
    command: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Cluster {
    fn new(words: &[String], nodes: usize, dir: &Path) -> anyhow::Result<Self> {
        ensure!((1..=NODES_MAX).contains(&nodes), "1 to {NODES_MAX} nodes");
        let data = tempfile::Builder::new().prefix("flotilla-bench-").tempdir_in(dir)?;
        let ports = free_ports(2 * nodes)?;
        let url = |n: usize| format!("http://127.0.0.1:{}", ports[n]);
        let cluster: Vec<String> = (0..nodes).map(|n| format!("n{n}={}", url(nodes + n))).collect();
        let node = |n: usize| Node {
            command: command_line(
                words,
                &format!("n{n}"),
                &data.path().join(format!("n{n}")).to_string_lossy(),
                &url(n),
                &url(nodes + n),
                &cluster.join(","),
            ),
            log: data.path().join(format!("n{n}.log")),
            child: None,
        };
        Ok(Self {
            endpoints: (0..nodes).map(url).collect(),
            nodes: (0..nodes).map(node).collect(),
            data: Some(data),
        })
    }

    /// Process ids of the nodes that run here.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.child.as_ref().map(Child::id)).collect()
    }

    /// Whether its nodes can be killed and started again.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Kills a node at once, as a crash would.
    ///
    /// # Errors
    /// The node was not started here.
    pub fn kill(&mut self, n: usize) -> anyhow::Result<()> {
        let Some(node) = self.nodes.get_mut(n) else { bail!("the node was not started here") };
        if let Some(mut child) = node.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks every node to stop, and waits for it.
    ///
    /// # Errors
    /// A node was not started here.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        ensure!(self.is_ours(), "the store was not started here");
        for node in &mut self.nodes {
            if let Some(child) = &node.child {
                // SIGTERM through the tool, since this crate forbids unsafe code.
                let _ = Command::new("kill").arg(child.id().to_string()).status();
            }
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for node in &mut self.nodes {
            let Some(mut child) = node.child.take() else { continue };
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    child.kill()?;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Starts a node that is stopped.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self, n: usize) -> anyhow::Result<()> {
        let Some(node) = self.nodes.get_mut(n) else { bail!("the node was not started here") };
        node.spawn()
    }

    /// The end of the logs, for a cluster that does not answer.
    fn last_words(&self) -> String {
        let tail = |node: &Node| {
            let log = std::fs::read_to_string(&node.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(3).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        self.nodes.iter().map(tail).collect::<Vec<_>>().join("\n")
    }
}

impl Node {
    fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.command[0]))?;
        self.child = Some(child);
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // Already gone is as good.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        drop(self.data.take());
    }
}

fn command_line(
    words: &[String],
    name: &str,
    data: &str,
    client: &str,
    peer: &str,
    cluster: &str,
) -> Vec<String> {
    let places = [
        ("{name}", name),
        ("{data}", data),
        ("{client}", client),
        ("{peer}", peer),
        ("{cluster}", cluster),
    ];
    if words.iter().any(|word| places.iter().any(|(place, _)| word.contains(place))) {
        let fill = |word: &String| {
            places.iter().fold(word.clone(), |word, (place, value)| word.replace(place, value))
        };
        return words.iter().map(fill).collect();
    }
    let flags = [
        ("--name", name),
        ("--data-dir", data),
        ("--listen-client-urls", client),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", cluster),
    ];
    let flags = flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
    words.iter().cloned().chain(flags).collect()
}

/// Ports nobody listens on. Another process may take one before the node does; the node then
/// fails to start, and says so.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_commands_or_endpoints() {
        let target = Target::parse("new=/opt/store --quota 5").unwrap();
        assert_eq!(target.name, "new");
        assert_eq!(
            target.place,
            Place::Command(vec!["/opt/store".into(), "--quota".into(), "5".into()])
        );
        assert_eq!(Target::parse("/usr/bin/etcd --a=b").unwrap().name, "etcd");
        let running = Target::parse("x=http://a:1,http://b:2").unwrap();
        assert_eq!(running.place, Place::Endpoints(vec!["http://a:1".into(), "http://b:2".into()]));
        assert!(Target::parse("x=").is_err());
    }

    #[test]
    fn placeholders_replace_the_flags_of_etcd() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = command_line(&words("run {name} -d {data}"), "n0", "/d", "c", "p", "k");
        assert_eq!(line, ["run", "n0", "-d", "/d"]);
        let line = command_line(&words("etcd"), "n0", "/d", "c", "p", "k");
        assert!(line.windows(2).any(|pair| pair == ["--data-dir", "/d"]));
    }
}
