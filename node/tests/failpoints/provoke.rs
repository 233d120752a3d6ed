//! What clients and operators do so that a cluster comes to a moment. All of it may fail: nodes stop.

use std::time::Duration;

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::lease_client::LeaseClient;
use flotilla_proto::etcdserverpb::request_op::Request;
use flotilla_proto::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, PutRequest, RequestOp, TxnRequest,
};
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{
    MergeRequest, MoveReplicaRequest, RangeInfo, RangeListRequest, SplitRequest,
};
use tokio::time::timeout;
use tonic::transport::Channel;

use super::harness::acknowledged::reach;

/// How long one step may take: those who would answer may have stopped.
const STEP_WITHIN: Duration = Duration::from_secs(4);
/// Above the shortest time to live that is granted.
const TTL_SECONDS: i64 = 2;
/// Several fit into a segment of the log, and few into a batch of a restore.
pub(super) const BIG_VALUE_BYTES: usize = 1 << 20;

/// What is under way besides the writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provoke {
    /// Nothing: the writers are enough.
    Writes,
    /// Transactions over two ranges.
    Txns,
    /// Ranges are cut.
    Splits,
    /// Ranges are cut, and merged with their neighbours.
    Merges,
    /// Replicas of ranges move to the node that has none.
    Moves,
    /// Leases that nobody renews.
    Leases,
    /// Compactions up to the newest revision.
    Compactions,
    /// Long values.
    BigValues,
    /// Another node is killed and comes back, so that others lead.
    Elections,
    /// A node has missed more than the logs remember.
    Snapshots,
}

/// A transaction that was tried: two keys of different ranges, both or neither of which are there.
pub(super) type Pair = [String; 2];

/// One step. Gives back the pair of a transaction, and whether it was acknowledged.
pub(super) async fn step(what: Provoke, url: &str, round: usize, n: usize) -> Option<(Pair, bool)> {
    let channel = timeout(STEP_WITHIN, reach(url)).await.ok()??;
    match what {
        Provoke::Txns => {
            let pair = [format!("/a/0/{round}/t{n}"), format!("/a/7/{round}/t{n}")];
            let is_acknowledged = timeout(STEP_WITHIN, txn(channel, &pair)).await == Ok(true);
            return Some((pair, is_acknowledged));
        }
        Provoke::Splits => drop(timeout(STEP_WITHIN, split(channel, round, n)).await),
        Provoke::Merges => drop(timeout(STEP_WITHIN, merge(channel, round, n)).await),
        Provoke::Moves => drop(timeout(STEP_WITHIN, move_one(channel, n)).await),
        Provoke::Leases => drop(timeout(STEP_WITHIN, lease(channel, round, n)).await),
        Provoke::Compactions => drop(timeout(STEP_WITHIN, compact(channel)).await),
        Provoke::BigValues => drop(timeout(STEP_WITHIN, put_big(channel, n)).await),
        // Here the runner kills nodes.
        Provoke::Writes | Provoke::Elections | Provoke::Snapshots => {}
    }
    None
}

async fn txn(channel: Channel, pair: &Pair) -> bool {
    let put = |key: &String| {
        let request =
            PutRequest { key: key.clone().into(), value: key.clone().into(), ..Default::default() };
        RequestOp { request: Some(Request::RequestPut(request)) }
    };
    let request = TxnRequest { success: pair.iter().map(put).collect(), ..Default::default() };
    KvClient::new(channel).txn(request).await.is_ok()
}

async fn ranges(channel: &Channel) -> Vec<RangeInfo> {
    let answer = AdminClient::new(channel.clone()).range_list(RangeListRequest {}).await;
    let mut ranges = answer.map(|answer| answer.into_inner().ranges).unwrap_or_default();
    ranges.retain(|range| range.range != 0);
    ranges
}

async fn split(channel: Channel, round: usize, n: usize) {
    let key = format!("/a/{}/{round}/{n}", n % 8).into();
    // Refused, or nobody answers: the next step tries elsewhere.
    let _ = AdminClient::new(channel).split(SplitRequest { key }).await;
}

async fn merge(channel: Channel, round: usize, n: usize) {
    let ranges = ranges(&channel).await;
    let pair = ranges.windows(2).find(|pair| pair[0].end == pair[1].start);
    match pair.filter(|_| n % 2 == 1) {
        Some(pair) => {
            let request = MergeRequest { left: pair[0].range, right: pair[1].range };
            let _ = AdminClient::new(channel).merge(request).await;
        }
        None => split(channel, round, n).await,
    }
}

async fn move_one(channel: Channel, n: usize) {
    let ranges = ranges(&channel).await;
    let Some(range) = ranges.get(n % ranges.len().max(1)) else { return };
    let all = ranges.iter().flat_map(|range| range.replicas.clone());
    let Some(add) = all.into_iter().find(|node| !range.replicas.contains(node)) else { return };
    let request = MoveReplicaRequest {
        range: range.range,
        add: format!("{add:x}"),
        remove: format!("{:x}", range.replicas[n % range.replicas.len()]),
    };
    let _ = AdminClient::new(channel).move_replica(request).await;
}

async fn lease(channel: Channel, round: usize, n: usize) {
    let grant = LeaseGrantRequest { ttl: TTL_SECONDS, ..Default::default() };
    let Ok(lease) = LeaseClient::new(channel.clone()).lease_grant(grant).await else { return };
    let request = PutRequest {
        key: format!("/lease/{round}/{n}").into(),
        lease: lease.into_inner().id,
        ..Default::default()
    };
    let _ = KvClient::new(channel).put(request).await;
}

async fn compact(channel: Channel) {
    let mut client = KvClient::new(channel);
    // The same key again and again, so that there is something to remove.
    for n in 0..20 {
        let request =
            PutRequest { key: "/old".into(), value: n.to_string().into(), ..Default::default() };
        let Ok(answer) = client.put(request).await else { return };
        if n == 19 {
            let revision = answer.into_inner().header.map_or(0, |header| header.revision);
            let request = CompactionRequest { revision, ..Default::default() };
            let _ = client.compact(request).await;
        }
    }
}

async fn put_big(channel: Channel, n: usize) {
    let request = PutRequest {
        key: format!("/big/{}", n % 4).into(),
        value: vec![b'v'; BIG_VALUE_BYTES].into(),
        ..Default::default()
    };
    let _ = KvClient::new(channel).put(request).await;
}
