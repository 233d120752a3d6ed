//! Each node holds some of the ranges, and ranges move from node to node while clients write, list and
//! watch at all of them: no call fails, nothing is lost, and every watcher sees each revision once and
//! in order, wherever the keys are.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::cluster_client::ClusterClient;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::lease_client::LeaseClient;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::{
    CompactionRequest, HashKvRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, MemberListRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, range_request::SortTarget,
    request_op::Request, response_op::Response,
};
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{MoveReplicaRequest, RangeInfo, RangeListRequest};
use harness::traffic::{PATIENT, channel, list, watch_all, write};
use harness::{Cluster, flotilla};
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;

const NODES: usize = 4;
const WRITERS: usize = 4;
const FLAGS: [&str; 4] = [
    "--initial-split-keys=k/2,k/5,k/8,shared",
    "--initial-range-replicas=2",
    "--placement-interval=0",
    PATIENT,
];
const MOVES: usize = 8;
const PAUSE: Duration = Duration::from_millis(300);
const DECIDED_WITHIN: Duration = Duration::from_secs(30);

async fn ranges(url: &str) -> Vec<RangeInfo> {
    let mut admin = AdminClient::new(channel(url).await);
    let answer = admin.range_list(RangeListRequest {}).await.expect("a table").into_inner();
    answer.ranges.into_iter().filter(|range| range.range != 0).collect()
}

/// Has a range held by one node in the place of another. One change at a time: an earlier one may
/// still be under way.
async fn move_replica(url: &str, range: u64, add: u64, remove: u64) {
    let started = Instant::now();
    let (add, remove) = (format!("{add:x}"), format!("{remove:x}"));
    loop {
        let request = MoveReplicaRequest { range, add: add.clone(), remove: remove.clone() };
        let answer = AdminClient::new(channel(url).await).move_replica(request).await;
        let Err(error) = answer else { return };
        let is_late = started.elapsed() > DECIDED_WITHIN;
        assert!(!is_late && error.message().contains("being changed"), "range {range}: {error}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// As `move_replica`; waits until it is done.
async fn replace_replica(url: &str, range: u64, add: u64, remove: u64) {
    move_replica(url, range, add, remove).await;
    let started = Instant::now();
    loop {
        let table = ranges(url).await;
        let held = table.iter().find(|it| it.range == range).expect("it is there");
        if held.replicas.contains(&add) && !held.replicas.contains(&remove) {
            return;
        }
        assert!(started.elapsed() < DECIDED_WITHIN, "{held:?} is not moved");
        tokio::time::sleep(PAUSE / 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_notices_that_ranges_move() {
    let mut cluster = Cluster::start_with(&flotilla(), NODES, &FLAGS);
    let urls = cluster.endpoints();
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = watch::channel(0);
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(urls[n % NODES].clone(), n, stopped.clone())))
        .collect();
    let watchers: Vec<_> =
        urls.iter().map(|url| tokio::spawn(watch_all(url.clone(), ended.clone()))).collect();
    let lists: Vec<_> =
        urls.iter().map(|url| tokio::spawn(list(url.clone(), stopped.clone()))).collect();

    let members: BTreeSet<u64> =
        ranges(&urls[0]).await.iter().flat_map(|range| range.replicas.clone()).collect();
    assert_eq!(members.len(), NODES, "every node holds something");
    for n in 0..MOVES {
        tokio::time::sleep(PAUSE).await;
        let table = ranges(&urls[n % NODES]).await;
        let range = &table[n % table.len()];
        assert_eq!(range.replicas.len(), 2, "{range:?}");
        let add = members.iter().find(|node| !range.replicas.contains(node)).expect("another");
        move_replica(&urls[n % NODES], range.range, *add, range.replicas[n % 2]).await;
    }
    tokio::time::sleep(PAUSE).await;
    stop.send(true).expect("clients listen");

    let mut written = BTreeMap::new();
    for writer in writers {
        for (revision, key) in writer.await.expect("a writer does not panic") {
            assert!(written.insert(revision, key).is_none(), "two writes at {revision}");
        }
    }
    for list in lists {
        assert!(list.await.expect("a reader does not panic") > 0);
    }
    let newest = *written.keys().next_back().expect("something was written");
    end.send(newest).expect("watchers listen");
    for watcher in watchers {
        let seen = watcher.await.expect("a watcher does not panic");
        assert_eq!(seen, written, "what was written is what was seen");
    }
    assert!(written.keys().copied().eq(2..=newest), "revisions have no gap");

    // What a node does not hold is there after all processes were killed, too.
    for index in 0..NODES {
        cluster.kill(index);
    }
    for index in 0..NODES {
        cluster.spawn(index);
    }
    cluster.wait_all_ready();
    for url in &urls {
        let (stop, stopped) = watch::channel(false);
        let lists = tokio::spawn(list(url.clone(), stopped));
        tokio::time::sleep(PAUSE).await;
        stop.send(true).expect("a reader listens");
        assert!(lists.await.expect("a reader does not panic") > 0, "{url}");
        let seen = watch_all(url.clone(), ended.clone()).await;
        assert_eq!(seen, written, "{url}");
    }
    agree_about_everything(&urls, newest).await;
}

/// What is asked of the whole store is answered alike by every node, though none has all of it.
async fn agree_about_everything(urls: &[String], newest: i64) {
    const LEASE: i64 = 7;
    let keys = ["k/1/l", "k/3/l", "k/9/l", "shared/l"];
    let first = channel(&urls[0]).await;
    let grant = LeaseGrantRequest { ttl: 600, id: LEASE };
    LeaseClient::new(first.clone()).lease_grant(grant).await.expect("there is a leader");
    let mut kv = KvClient::new(first);
    for key in keys {
        let (key, value) = (key.into(), "value".into());
        let put = PutRequest { key, value, lease: LEASE, ..PutRequest::default() };
        kv.put(put).await.expect("the lease is there");
    }
    let last = newest + keys.len() as i64;
    let mut hashes = BTreeSet::new();
    for compacted in [None, Some(newest / 2), Some(newest)] {
        if let Some(revision) = compacted {
            let compaction = CompactionRequest { revision, ..CompactionRequest::default() };
            kv.compact(compaction).await.expect("it is not compacted yet");
        }
        let mut answers = BTreeSet::new();
        for url in urls {
            let channel = channel(url).await;
            let request = LeaseTimeToLiveRequest { id: LEASE, keys: true };
            let answer = LeaseClient::new(channel.clone()).lease_time_to_live(request).await;
            assert_eq!(answer.expect("there is a leader").into_inner().keys, keys, "{url}");
            let request = HashKvRequest { revision: last };
            let answer = MaintenanceClient::new(channel).hash_kv(request).await;
            let answer = answer.unwrap_or_else(|error| panic!("{url}: {error}")).into_inner();
            assert_eq!(answer.compact_revision, compacted.unwrap_or(-1), "{url}");
            answers.insert(answer.hash);
        }
        assert_eq!(answers.len(), 1, "nodes do not agree, compacted at {compacted:?}");
        hashes.extend(answers);
    }
    assert_eq!(hashes.len(), 3, "a compaction changes what is covered");
}

const READ_KEYS: usize = 1000;
const READ_VALUE_BYTES: usize = 2 << 10;
const READ_LEASE: i64 = 9;
/// How often the node that all is read at loses a range, and has it again.
const LOSSES: usize = 5;

/// One of the calls that read all keys: how many there are.
#[derive(Clone, Copy, Debug)]
enum Read {
    List,
    Sorted,
    Stream,
    Txn,
    Hash,
    Lease,
}

impl Read {
    const ALL: [Self; 6] =
        [Self::List, Self::Sorted, Self::Stream, Self::Txn, Self::Hash, Self::Lease];

    async fn count(self, channel: Channel) -> Result<usize, Status> {
        let all = RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..RangeRequest::default()
        };
        let mut kv = KvClient::new(channel.clone());
        Ok(match self {
            Self::List => kv.range(all).await?.into_inner().kvs.len(),
            Self::Sorted => {
                let request = RangeRequest { sort_target: SortTarget::Value as i32, ..all };
                kv.range(request).await?.into_inner().kvs.len()
            }
            Self::Stream => {
                let mut pieces = kv.range_stream(all).await?.into_inner();
                let mut count = 0;
                while let Some(piece) = pieces.message().await? {
                    count += piece.range_response.map_or(0, |piece| piece.kvs.len());
                }
                count
            }
            Self::Txn => {
                let request = RangeRequest { count_only: true, ..all };
                let success = vec![RequestOp { request: Some(Request::RequestRange(request)) }];
                let answer = kv.txn(TxnRequest { success, ..TxnRequest::default() }).await?;
                let one = answer.into_inner().responses.pop().and_then(|one| one.response);
                let Some(Response::ResponseRange(counted)) = one else { return Ok(0) };
                usize::try_from(counted.count).expect("a count")
            }
            Self::Hash => {
                let request = HashKvRequest { revision: 0 };
                let answer = MaintenanceClient::new(channel).hash_kv(request).await?;
                usize::try_from(answer.into_inner().hash_revision).expect("a revision") - 1
            }
            Self::Lease => {
                let request = LeaseTimeToLiveRequest { id: READ_LEASE, keys: true };
                let answer = LeaseClient::new(channel).lease_time_to_live(request).await?;
                answer.into_inner().keys.len()
            }
        })
    }
}

async fn read_again_and_again(url: String, read: Read, stop: watch::Receiver<bool>) -> u64 {
    let channel = channel(&url).await;
    let mut reads = 0;
    while !*stop.borrow() {
        let count = read.count(channel.clone()).await;
        let count = count.unwrap_or_else(|error| panic!("{read:?} {reads} at {url}: {error}"));
        assert_eq!(count, READ_KEYS, "{read:?} {reads} at {url}");
        reads += 1;
    }
    reads
}

/// A node that holds all ranges reads its own store, one that does not asks others. Which of the two it
/// is may change under a read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_lose_a_range_under_a_read_of_all() {
    let flags = ["--initial-split-keys=k/5", "--initial-range-replicas=2", FLAGS[2], PATIENT];
    let cluster = Cluster::start_with(&flotilla(), 3, &flags);
    let url = cluster.endpoints()[0].clone();
    let grant = LeaseGrantRequest { ttl: 600, id: READ_LEASE };
    LeaseClient::new(channel(&url).await).lease_grant(grant).await.expect("there is a leader");
    let mut kv = KvClient::new(channel(&url).await);
    for n in 0..READ_KEYS {
        let (key, value) = (format!("k/{n:03}").into(), vec![b'v'; READ_VALUE_BYTES].into());
        let put = PutRequest { key, value, lease: READ_LEASE, ..PutRequest::default() };
        kv.put(put).await.expect("the lease is there");
    }

    let request = MemberListRequest::default();
    let listed = ClusterClient::new(channel(&url).await).member_list(request).await;
    let listed = listed.expect("there is a leader").into_inner();
    let here = listed.header.expect("an answer has a header").member_id;
    let (stop, stopped) = watch::channel(false);
    let readers = Read::ALL
        .map(|read| tokio::spawn(read_again_and_again(url.clone(), read, stopped.clone())));
    let table = ranges(&url).await;
    for range in table.iter().filter(|range| !range.replicas.contains(&here)) {
        replace_replica(&url, range.range, here, range.replicas[0]).await;
    }
    let range = ranges(&url).await.swap_remove(0);
    let mut members = listed.members.iter().map(|member| member.id);
    let other = members.find(|node| !range.replicas.contains(node)).expect("two of three hold it");
    for _ in 0..LOSSES {
        replace_replica(&url, range.range, other, here).await;
        tokio::time::sleep(PAUSE).await;
        replace_replica(&url, range.range, here, other).await;
        tokio::time::sleep(PAUSE).await;
    }
    stop.send(true).expect("clients listen");
    for reader in readers {
        assert!(reader.await.expect("a reader does not panic") > 0);
    }
}
