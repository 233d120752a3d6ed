//! One cluster under load, of which nodes are stopped at one moment after the other.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flotilla::failpoint::Failpoint;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::{HashKvRequest, RangeRequest, StatusRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::harness::acknowledged::{reach, read_all, write_until};
use super::harness::{Cluster, flotilla};
use super::provoke::{self, Pair, Provoke};

/// Writers that load the cluster at the same time.
const WRITERS: usize = 8;
/// How long it may take to come to a point.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// What a node misses while it is down, in acknowledged writes, so that it needs a snapshot: a multiple of
/// what the logs of all groups remember.
const MISSED_WRITES: usize = 400;
/// Writes that are acknowledged before a node is started anew with a point.
const FIRST_WRITES: usize = 20;
/// How long writes may take to be so many.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);
/// Clients go on for a while without the node.
const WITHOUT: Duration = Duration::from_millis(200);
/// How long nodes may take until they show the same.
const AGREED_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// What `abort` ends a process with.
const SIGABRT: i32 = 6;

/// Which nodes stop when they come to the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Armed {
    /// Node 0.
    One,
    /// All but node 0.
    Others,
    /// Every node: only one of them comes to it, whichever leads.
    All,
}

/// A point and how a cluster is brought to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) point: Failpoint,
    pub(super) armed: Armed,
    /// How often it is passed first.
    pub(super) passes: u32,
    pub(super) provoke: Provoke,
}

pub(super) struct Trial {
    cluster: Cluster,
    round: usize,
    known: BTreeMap<String, i64>,
    newest: i64,
    /// Keys of transactions that were acknowledged.
    known_of_txns: Vec<String>,
    /// Transactions that were tried, whether they were acknowledged or not.
    pairs: Vec<Pair>,
    is_replicated_everywhere: bool,
}

impl Trial {
    pub(super) fn start(size: usize, flags: &[&str]) -> Self {
        Self {
            cluster: Cluster::start_with(&flotilla(), size, flags),
            round: 0,
            known: BTreeMap::new(),
            newest: 1,
            known_of_txns: Vec::new(),
            pairs: Vec::new(),
            is_replicated_everywhere: true,
        }
    }

    /// Not every node has every range, so there is no hash of all that a node has.
    pub(super) fn with_replicas_apart(self) -> Self {
        Self { is_replicated_everywhere: false, ..self }
    }

    /// Stops one node at a point while clients write, and looks at what it left and that nothing that was
    /// acknowledged is lost.
    pub(super) async fn stop_at(&mut self, case: Case) {
        self.stop(case, None).await;
    }

    /// The same, and the node is stopped at another point when it starts again.
    pub(super) async fn stop_at_and_again(&mut self, case: Case, next: Failpoint) {
        self.stop(case, Some(next)).await;
    }

    async fn stop(&mut self, case: Case, next: Option<Failpoint>) {
        let Case { point, armed, provoke, .. } = case;
        self.round += 1;
        let count = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = watch::channel(false);
        let writers = self.write(&count, &stopped);
        let armed: Vec<usize> = match armed {
            Armed::One => vec![0],
            Armed::Others => (1..self.cluster.nodes.len()).collect(),
            Armed::All => (0..self.cluster.nodes.len()).collect(),
        };
        self.arm(case, &armed, &count).await;

        let began = Instant::now();
        let mut n = 0;
        let (victim, status) = loop {
            if let Some(left) = self.who_left(&armed) {
                break left;
            }
            let name = point.name();
            assert!(began.elapsed() < STOPPED_WITHIN, "{name} was not reached by {provoke:?}");
            if provoke == Provoke::Elections {
                self.disturb_leader().await;
            }
            let url = self.cluster.endpoint(n % self.cluster.nodes.len());
            if let Some((pair, is_acknowledged)) = provoke::step(provoke, &url, self.round, n).await
            {
                if is_acknowledged {
                    self.known_of_txns.extend(pair.clone());
                }
                self.pairs.push(pair);
            }
            n += 1;
            tokio::time::sleep(POLL_EVERY).await;
        };
        let took = began.elapsed();
        self.assert_stopped_at(victim, status, point);
        if let Some(next) = next {
            self.stop_again_at(victim, next);
        }
        tokio::time::sleep(WITHOUT).await;
        stop.send(true).expect("writers listen");
        for writer in writers {
            for (key, revision) in writer.await.expect("a writer does not panic") {
                assert!(self.known.insert(key, revision).is_none(), "keys are distinct");
                self.newest = self.newest.max(revision);
            }
        }
        let written = count.load(Ordering::Relaxed);

        // The others may have come to it, too; those that have not are stopped anywhere.
        for &node in &armed {
            if self.who_left(&[node]).is_none() && self.cluster.nodes[node].is_running() {
                self.cluster.kill(node);
            }
            let data = self.cluster.nodes[node].data_dir();
            assert_sound(point.name(), &data);
            self.cluster.nodes[node].variables.clear();
            self.cluster.spawn(node);
        }
        for node in 0..self.cluster.nodes.len() {
            if !self.cluster.nodes[node].is_running() {
                self.cluster.spawn(node);
            }
        }
        self.cluster.wait_all_ready();
        self.look(point).await;
        println!(
            "| `{}` | {provoke:?} | {armed:?} | {:.1} | {written} |",
            point.name(),
            took.as_secs_f64(),
        );
    }

    fn write(
        &self,
        count: &Arc<AtomicUsize>,
        stopped: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<Vec<(String, i64)>>> {
        (0..WRITERS)
            .map(|writer| {
                let (urls, count) = (self.cluster.endpoints(), count.clone());
                tokio::spawn(write_until(urls, writer, self.round, count, stopped.clone()))
            })
            .collect()
    }

    /// Starts the nodes anew with the point.
    async fn arm(&mut self, case: Case, armed: &[usize], count: &AtomicUsize) {
        let is_snapshot = case.provoke == Provoke::Snapshots;
        wait_for_writes(count, FIRST_WRITES).await;
        if is_snapshot {
            self.cluster.kill(0);
        }
        for &node in armed {
            if self.cluster.nodes[node].is_running() {
                self.cluster.kill(node);
            }
            let passes = match case.passes {
                0 => String::new(),
                count => format!("{count}*off->"),
            };
            let spec = format!("{}={passes}return", case.point.name());
            self.cluster.nodes[node].variables = vec![("FAILPOINTS".to_owned(), spec)];
            if !(is_snapshot && node == 0) {
                self.cluster.spawn(node);
            }
        }
        if is_snapshot {
            wait_for_writes(count, MISSED_WRITES).await;
            self.cluster.spawn(0);
        }
    }

    fn stop_again_at(&mut self, node: usize, point: Failpoint) {
        assert_sound("before the next start", &self.cluster.nodes[node].data_dir());
        let spec = format!("{}=return", point.name());
        self.cluster.nodes[node].variables = vec![("FAILPOINTS".to_owned(), spec)];
        self.cluster.spawn(node);
        let status = self.cluster.wait_exit(node, STOPPED_WITHIN);
        let status = status.unwrap_or_else(|| panic!("{} was not reached", point.name()));
        self.assert_stopped_at(node, status, point);
        println!("| `{}` | next start |", point.name());
    }

    fn who_left(&mut self, among: &[usize]) -> Option<(usize, ExitStatus)> {
        among.iter().find_map(|&node| {
            let status = self.cluster.poll_exit(node)?;
            Some((node, status))
        })
    }

    /// Kills whoever of the others leads, and starts it again.
    async fn disturb_leader(&mut self) {
        let url = self.cluster.endpoint(1);
        let leads = async {
            let mut client = MaintenanceClient::new(reach(&url).await?);
            let status = client.status(StatusRequest {}).await.ok()?.into_inner();
            Some(status.header?.member_id == status.leader)
        };
        let node = if leads.await == Some(true) { 1 } else { 2 };
        self.cluster.kill(node);
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.cluster.spawn(node);
    }

    fn assert_stopped_at(&self, node: usize, status: ExitStatus, point: Failpoint) {
        let (name, log) = (point.name(), self.cluster.nodes[node].log());
        assert_eq!(status.signal(), Some(SIGABRT), "{name}: {status}");
        let last = log.lines().rev().find(|line| line.contains("stopped at failpoint"));
        let expected = format!("flotilla: stopped at failpoint {name}");
        assert_eq!(last, Some(&expected[..]), "the node stopped for another reason");
    }

    /// Every node has everything that was acknowledged, and every transaction whole or not at all.
    async fn look(&mut self, point: Failpoint) {
        let name = point.name();
        for url in self.cluster.endpoints() {
            let (revision, found) = read_all(&url).await;
            assert!(revision >= self.newest, "{name}: revision {revision} after {}", self.newest);
            for (key, written) in &self.known {
                let (value, at) =
                    found.get(key).unwrap_or_else(|| panic!("{name}: {url} has lost {key}"));
                assert_eq!((value, at), (key, written), "{name}: {url}");
            }
            for key in &self.known_of_txns {
                assert!(found.contains_key(key), "{name}: {url} has lost {key} of a transaction");
            }
            for [one, other] in &self.pairs {
                let at = |key| found.get(key).map(|(_, revision)| *revision);
                assert_eq!(at(one), at(other), "{name}: {url} has half of a transaction");
            }
            self.newest = self.newest.max(revision);
        }
    }

    /// All nodes have the same and are sound, and no lease that expired has left a key.
    pub(super) async fn end(mut self) {
        self.wait_for_leases().await;
        if self.is_replicated_everywhere {
            self.agree().await;
        }
        for node in 0..self.cluster.nodes.len() {
            self.cluster.stop(node);
            assert_sound("at the end", &self.cluster.nodes[node].data_dir());
        }
    }

    async fn wait_for_leases(&self) {
        let began = Instant::now();
        loop {
            let channel = reach(&self.cluster.endpoint(0)).await.expect("the node is ready");
            let request = RangeRequest {
                key: "/lease/".into(),
                range_end: "/lease0".into(),
                ..Default::default()
            };
            let answer = KvClient::new(channel).range(request).await;
            let count = answer.map(|answer| answer.into_inner().count);
            if matches!(count, Ok(0)) {
                return;
            }
            assert!(began.elapsed() < AGREED_WITHIN, "keys of leases that expired: {count:?}");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn agree(&self) {
        let began = Instant::now();
        loop {
            let mut hashes = Vec::new();
            for url in self.cluster.endpoints() {
                let channel = reach(&url).await.expect("the node is ready");
                let request = HashKvRequest { revision: self.newest };
                let answer = MaintenanceClient::new(channel).hash_kv(request).await;
                hashes.push(answer.ok().map(|it| {
                    let answer = it.into_inner();
                    (answer.hash, answer.compact_revision)
                }));
            }
            if hashes[0].is_some() && hashes.iter().all(|hash| *hash == hashes[0]) {
                return;
            }
            assert!(began.elapsed() < AGREED_WITHIN, "nodes differ: {hashes:?}");
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

/// Waits until so many more were acknowledged.
async fn wait_for_writes(count: &AtomicUsize, more: usize) {
    let (began, before) = (Instant::now(), count.load(Ordering::Relaxed));
    while count.load(Ordering::Relaxed) < before + more {
        assert!(began.elapsed() < WRITTEN_WITHIN, "the cluster does not serve");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// What the verifier says of a directory is that it is sound.
#[track_caller]
pub(super) fn assert_sound(what: &str, data: &Path) {
    let output = Command::new(flotilla()).arg("verify").arg(data).output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("0 findings in"), "{what}: {said}");
}
