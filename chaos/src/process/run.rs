//! What the parts of a run share: the nodes, the network between them, the record, and how far
//! the run is.

use std::path::PathBuf;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use crate::history::Stamp;
use crate::process::monitor::Monitor;
use crate::process::net::Network;
use crate::process::node::Node;
use crate::process::record::Recorder;
use crate::process::target::Target;
use crate::process::traffic::Traffic;

/// How often it is looked whether a node answers.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// A run and everything in it.
#[derive(Debug)]
pub struct Run {
    /// The program under test.
    pub target: Target,
    /// Where everything of the run is kept.
    pub folder: PathBuf,
    /// What is written down.
    pub recorder: Recorder,
    /// What the clients have in common.
    pub traffic: Traffic,
    /// What is known of the nodes' health and leaders.
    pub monitor: Monitor,
    /// The network between the nodes.
    pub network: Network,
    nodes: Vec<Mutex<Node>>,
    /// What never changes of each node: URL for clients.
    client_urls: Vec<String>,
    members: StdMutex<Vec<usize>>,
    findings: StdMutex<Vec<String>>,
    remarks: StdMutex<Vec<(Stamp, String)>>,
    is_under_load: AtomicBool,
    is_over: AtomicBool,
    /// Revision at which the run ended; zero while it goes on.
    final_head: AtomicI64,
}

impl Run {
    /// A run that has not begun. The first `members_count` nodes are the founding members.
    pub fn new(
        target: Target,
        folder: PathBuf,
        recorder: Recorder,
        traffic: Traffic,
        network: Network,
        nodes: Vec<Node>,
        members_count: usize,
    ) -> Self {
        Self {
            target,
            folder,
            recorder,
            traffic,
            monitor: Monitor::default(),
            network,
            client_urls: nodes.iter().map(|node| node.client_url.clone()).collect(),
            nodes: nodes.into_iter().map(Mutex::new).collect(),
            members: StdMutex::new((0..members_count).collect()),
            findings: StdMutex::default(),
            remarks: StdMutex::default(),
            is_under_load: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
            final_head: AtomicI64::new(0),
        }
    }

    /// Nodes, members or not.
    pub fn nodes_count(&self) -> usize {
        self.nodes.len()
    }

    /// A node, for as long as the guard lives.
    pub async fn node(&self, node: usize) -> MutexGuard<'_, Node> {
        self.nodes[node].lock().await
    }

    /// URL for clients of a node.
    pub fn client_url(&self, node: usize) -> String {
        self.client_urls[node].clone()
    }

    /// The nodes that belong to the cluster.
    pub fn members(&self) -> Vec<usize> {
        self.members.lock().expect("nobody panics with the members").clone()
    }

    /// Changes who belongs to the cluster.
    pub fn set_members(&self, members: Vec<usize>) {
        *self.members.lock().expect("nobody panics with the members") = members;
    }

    /// Writes down something that breaks a promise by itself.
    pub fn find(&self, finding: String) {
        self.findings.lock().expect("nobody panics with the findings").push(finding);
    }

    /// What was found besides the history.
    pub fn findings(&self) -> Vec<String> {
        self.findings.lock().expect("nobody panics with the findings").clone()
    }

    /// Writes down something that a reader of the report should know.
    pub fn remark(&self, remark: String) {
        let now = self.recorder.clock.now();
        self.remarks.lock().expect("nobody panics with the remarks").push((now, remark));
    }

    /// The remarks so far, in order.
    pub fn remarks(&self) -> Vec<(Stamp, String)> {
        self.remarks.lock().expect("nobody panics with the remarks").clone()
    }

    /// True while clients make calls.
    pub fn is_under_load(&self) -> bool {
        self.is_under_load.load(Ordering::Relaxed)
    }

    /// Ends the calls of the clients.
    pub fn end_load(&self) {
        self.is_under_load.store(false, Ordering::Relaxed);
    }

    /// The revision at which the run ended, once that is known.
    pub fn final_head(&self) -> Option<i64> {
        Some(self.final_head.load(Ordering::Relaxed)).filter(|head| *head > 0)
    }

    /// Tells the watchers up to where they have to read.
    pub fn set_final_head(&self, head: i64) {
        self.final_head.store(head, Ordering::Relaxed);
    }

    /// True once nobody is waited for any more.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Ends the run.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Waits until a node answers a linearizable read. Returns whether it did in time. A node
    /// that leaves meanwhile is not waited for.
    pub async fn wait_ready(&self, node: usize, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if self.monitor.serves(self, node).await {
                return true;
            }
            if !self.node(node).await.is_started() {
                return false;
            }
            sleep(POLL_EVERY).await;
        }
        false
    }
}
