//! Watches the nodes from outside: who leads, in which term, who has left without being told to.
//! None of this is part of the history; it shows whether a fault had an effect.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::{RangeRequest, StatusRequest, StatusResponse};
use tokio::time::{sleep, timeout};

use crate::history::Stamp;
use crate::process::run::Run;
use crate::process::traffic::connect;

/// How often every node is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How long a read may take for a node to count as serving.
const SERVE_WITHIN: Duration = Duration::from_secs(1);
/// How many lines of a log are kept with a finding.
const LAST_LINES: usize = 8;

/// What was seen of the cluster.
#[derive(Debug, Default)]
pub struct Monitor {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Member id of each node, once it has told.
    ids: BTreeMap<usize, u64>,
    /// Who led since when, in which term; a new line for each change.
    leaders: Vec<Leadership>,
}

/// A node that led from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// When it was first seen.
    pub since: Stamp,
    /// The node, if its member id is known.
    pub node: Option<usize>,
    /// Its term.
    pub term: u64,
}

impl Monitor {
    /// The leader of the highest term that any node has told of.
    pub fn leader(&self) -> Option<usize> {
        self.seen().leaders.last().and_then(|last| last.node)
    }

    /// The highest term in which a leader was seen.
    pub fn term(&self) -> u64 {
        self.seen().leaders.last().map_or(0, |last| last.term)
    }

    /// Everyone who led.
    pub fn leaderships(&self) -> Vec<Leadership> {
        self.seen().leaders.clone()
    }

    /// Member id of a node, if it was ever heard of.
    pub fn member_id(&self, node: usize) -> Option<u64> {
        self.seen().ids.get(&node).copied()
    }

    /// Forgets the member id of a node that becomes another member.
    pub fn forget(&self, node: usize) {
        self.seen().ids.remove(&node);
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics while looking")
    }

    /// True if the node answers a linearizable read.
    pub async fn serves(&self, run: &Run, node: usize) -> bool {
        let read = async {
            let channel = connect(run, node).await?;
            let request = RangeRequest { key: "ready".into(), ..RangeRequest::default() };
            KvClient::new(channel).range(request).await.ok()
        };
        timeout(SERVE_WITHIN, read).await.ok().flatten().is_some()
    }

    /// Asks a node for its state.
    pub async fn ask(&self, run: &Run, node: usize) -> Option<StatusResponse> {
        let ask = async {
            let channel = connect(run, node).await?;
            MaintenanceClient::new(channel).status(StatusRequest {}).await.ok()
        };
        let status = timeout(ANSWER_WITHIN, ask).await.ok()??.into_inner();
        self.take(run, node, &status);
        Some(status)
    }

    fn take(&self, run: &Run, node: usize, status: &StatusResponse) {
        let now = run.recorder.clock.now();
        let mut seen = self.seen();
        if let Some(header) = &status.header {
            seen.ids.insert(node, header.member_id);
        }
        let leader = seen.ids.iter().find(|(_, id)| **id == status.leader).map(|(node, _)| *node);
        let term = status.raft_term;
        if status.leader == 0 {
            return;
        }
        let is_news = match seen.leaders.last() {
            None => true,
            Some(last) => {
                term > last.term || (term == last.term && last.node.is_none() && leader.is_some())
            }
        };
        if is_news {
            seen.leaders.push(Leadership { since: now, node: leader, term });
        }
    }
}

/// Asks all members over and over, and notices those that leave by themselves.
pub async fn look(run: Arc<Run>) {
    while !run.is_over() {
        let asked: Vec<_> = run
            .members()
            .into_iter()
            .map(|node| {
                let run = Arc::clone(&run);
                tokio::spawn(async move { run.monitor.ask(&run, node).await })
            })
            .collect();
        for asked in asked {
            // Nobody is told of a node that does not answer; that is what faults do.
            let _ = asked.await;
        }
        for node in run.members() {
            let mut held = run.node(node).await;
            let Some(status) = held.take_exit() else { continue };
            if held.may_leave {
                held.left = Some(status);
                run.remark(format!("{} left by itself, {status}", held.name));
            } else {
                let words = held.last_words(LAST_LINES);
                run.find(format!("{} left by itself, {status}; it wrote:\n{words}", held.name));
            }
        }
        sleep(ASK_EVERY).await;
    }
}
