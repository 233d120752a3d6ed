//! The end of a run: nothing is disturbed any more, every member must serve a write and a read,
//! the watchers must get everything, and every member must have the same bytes.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::{HashKvRequest, PutRequest};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::history::{ClientId, Outcome, ReplicaHash, Request, Stamp};
use crate::process::run::Run;
use crate::process::traffic::{call_once, connect};

/// How long a healed cluster has until every member serves.
const SERVE_WITHIN: Duration = Duration::from_secs(60);
/// Rest between the last fault and the first demand.
const CALM: Duration = Duration::from_secs(2);
/// Writes and reads that every member must serve.
const ROUNDS: usize = 3;
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long an answer to HashKV may take.
const HASH_WITHIN: Duration = Duration::from_secs(120);
/// Clients of the end are numbered from here.
const FIRST_CLIENT: u32 = 9_000;

/// What the end of a run came to.
#[derive(Debug, Default)]
pub struct Finish {
    /// From when on nothing was disturbed any more and all members served.
    pub healthy_from: Option<Stamp>,
    /// The highest revision that any answer named.
    pub head: i64,
    /// Hashes of all members.
    pub hashes: Vec<ReplicaHash>,
}

/// Heals whatever is left and makes all demands. What is not met is a finding.
pub async fn finish(run: &Arc<Run>) -> Finish {
    run.network.heal();
    for node in 0..run.nodes_count() {
        let mut held = run.node(node).await;
        held.disk.heal();
        held.may_leave = false;
        held.signal(Signal::CONT);
        let is_member = run.members().contains(&node);
        if is_member
            && !held.is_started()
            && let Err(error) = held.start(&run.target)
        {
            run.find(format!("n{node} cannot be started at the end: {error:#}"));
        }
    }
    sleep(CALM).await;
    let mut finish = Finish::default();
    let deadline = Instant::now() + SERVE_WITHIN;
    let mut is_served = true;
    for node in run.members() {
        is_served &= demand_service(run, node, deadline).await;
    }
    finish.healthy_from = is_served.then(|| run.recorder.clock.now());
    finish.head = run.recorder.notes().revision_seen;
    for node in run.members() {
        match hash(run, node).await {
            Some(hash) => finish.hashes.push(hash),
            None => run.find(format!("n{node} does not answer HashKV within {HASH_WITHIN:?}")),
        }
    }
    finish
}

/// Has one member serve writes and reads; a call that fails is made again as another call.
async fn demand_service(run: &Run, node: usize, deadline: Instant) -> bool {
    let client = ClientId(FIRST_CLIENT + u32::try_from(node).expect("few nodes"));
    for round in 0..ROUNDS {
        let put = Request::Put(PutRequest {
            key: format!("end{node}").into(),
            value: format!("end{node}.{round}").into(),
            ..PutRequest::default()
        });
        for request in [put, Request::Read(run.traffic.everything())] {
            let mut attempt = 0;
            loop {
                if Instant::now() >= deadline {
                    run.find(format!(
                        "liveness: n{node} does not serve {request} within {SERVE_WITHIN:?} \
                         after everything healed"
                    ));
                    return false;
                }
                attempt += 1;
                if let Some(channel) = connect(run, node).await {
                    let request = name_attempt(request.clone(), attempt);
                    let outcome = call_once(&run.recorder, client, node, channel, request).await;
                    if matches!(outcome, Outcome::Answered(_)) {
                        break;
                    }
                }
                sleep(RETRY_AFTER).await;
            }
        }
    }
    true
}

/// Every attempt of a put has a value of its own.
fn name_attempt(request: Request, attempt: usize) -> Request {
    match request {
        Request::Put(mut put) => {
            put.value = [put.value.as_ref(), format!(".{attempt}").as_bytes()].concat().into();
            Request::Put(put)
        }
        other => other,
    }
}

async fn hash(run: &Run, node: usize) -> Option<ReplicaHash> {
    let ask = async {
        let channel = connect(run, node).await?;
        // Zero: at the revision that the member has now.
        let request = HashKvRequest { revision: 0 };
        MaintenanceClient::new(channel).hash_kv(request).await.ok()
    };
    let answer = timeout(HASH_WITHIN, ask).await.ok()??.into_inner();
    let header = answer.header.as_ref().map_or(0, |header| header.revision);
    // Servers before 3.6 do not say what they hashed; they hash what the header names.
    let revision = if answer.hash_revision > 0 { answer.hash_revision } else { header };
    Some(ReplicaHash {
        replica: format!("n{node}"),
        revision,
        compact_revision: answer.compact_revision,
        hash: answer.hash,
    })
}
