//! A member whose store was changed behind its back, with checksums that are right: who compares it with
//! the others finds it.

mod harness;

use std::time::{Duration, Instant};

use flotilla::store::{self, Options, Store};
use flotilla_core::proto::etcdserverpb::alarm_request::AlarmAction;
use flotilla_core::proto::etcdserverpb::kv_client::KvClient;
use flotilla_core::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_core::proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, PutRequest, RangeRequest,
};
use flotilla_core::view::{Batch, Column, View};
use harness::{Cluster, flotilla, http_get};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const SEEN_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(100);

async fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(8));
    endpoint.connect().await.expect("the node serves")
}

async fn put(url: &str, key: &str) -> Result<(), Status> {
    let value = format!("value of {key}").into();
    let request = PutRequest { key: key.to_owned().into(), value, ..PutRequest::default() };
    KvClient::new(channel(url).await).put(request).await.map(drop)
}

fn store_of(cluster: &Cluster, index: usize) -> Store {
    let dir = cluster.nodes[index].data_dir().join("member/store");
    store::open(&Options::new(dir)).expect("a store")
}

fn row_of(store: &Store, key: &str) -> Vec<u8> {
    store.get(Column::Key, key.as_bytes()).expect("readable").expect("the key").to_vec()
}

/// Changes one letter in the value of a key, in the row that reads find.
fn damage(cluster: &Cluster, index: usize, key: &str) {
    let store = store_of(cluster, index);
    let mut row = row_of(&store, key);
    let at = row.windows(5).rposition(|word| word == b"value").expect("the value is in the row");
    row[at] = b'V';
    let mut batch = Batch::default();
    batch.put(Column::Key, key.as_bytes().to_vec(), row);
    store.apply(&batch).expect("a write");
    store.close().expect("closed");
}

async fn corrupt_members(url: &str) -> Vec<u64> {
    let request = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
    let answer = MaintenanceClient::new(channel(url).await).alarm(request).await;
    let alarms = answer.expect("the alarms").into_inner().alarms;
    let corrupt = alarms.into_iter().filter(|alarm| alarm.alarm == i32::from(AlarmType::Corrupt));
    corrupt.map(|alarm| alarm.member_id).collect()
}

/// Three members, one of which was changed while it was down.
async fn damaged(flags: &[&str]) -> Cluster {
    let mut cluster = Cluster::start_with(&flotilla(), 3, flags);
    for n in 0..50 {
        put(&cluster.endpoint(0), &format!("key/{n:02}")).await.expect("a put");
    }
    let everything =
        RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
    let mut client = KvClient::new(channel(&cluster.endpoint(2)).await);
    assert_eq!(client.range(everything).await.expect("a read").into_inner().count, 50);
    cluster.stop(2);
    damage(&cluster, 2, "key/07");
    cluster
}

#[tokio::test]
async fn a_member_that_holds_something_else_does_not_start() {
    let gate = "--feature-gates=InitialCorruptCheck=true";
    let mut cluster = damaged(&[gate, "--initial-split-keys=key/20,key/40"]).await;
    cluster.spawn(2);
    let status = cluster.wait_exit(2, SEEN_WITHIN).expect("it leaves");
    let log = cluster.nodes[2].log();
    assert!(!status.success() && log.contains("found data inconsistency with peers"), "{log}");
    // The others go on, and start with the check.
    put(&cluster.endpoint(0), "after").await.expect("a put");
    cluster.stop(1);
    cluster.restart(1);
    assert!(cluster.nodes[1].log().contains("other members hold the same"));
    put(&cluster.endpoint(1), "after").await.expect("a put");
}

/// The members for which the alarm is raised, once there are any.
async fn found(url: &str) -> Vec<u64> {
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let members = corrupt_members(url).await;
        if !members.is_empty() {
            return members;
        }
        assert!(Instant::now() < deadline, "nobody finds it");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn compact(url: &str, revision: i64) {
    let request = CompactionRequest { revision, physical: true };
    KvClient::new(channel(url).await).compact(request).await.expect("a compaction");
}

#[tokio::test]
async fn a_compaction_finds_who_holds_something_else_unasked() {
    let mut cluster =
        damaged(&["--compact-hash-check-time=500ms", "--rebuild-wrong-data=false"]).await;
    compact(&cluster.endpoint(0), 20).await;
    // Long enough for a comparison of those that are up.
    tokio::time::sleep(3 * Duration::from_secs(1)).await;
    assert!(corrupt_members(&cluster.endpoint(0)).await.is_empty(), "they hold the same");
    cluster.restart(2);
    compact(&cluster.endpoint(0), 30).await;
    assert_eq!(found(&cluster.endpoint(0)).await.len(), 1);
    let logs: String = cluster.nodes.iter().map(|node| node.log()).collect();
    assert!(logs.contains("members hold different data: looking again"), "{logs}");
}

#[tokio::test]
async fn the_leader_finds_who_holds_something_else() {
    let mut cluster = damaged(&["--corrupt-check-time=500ms", "--rebuild-wrong-data=false"]).await;
    let before = corrupt_members(&cluster.endpoint(0)).await;
    assert!(before.is_empty(), "those that are up hold the same: {before:?}");
    cluster.spawn(2);
    let found = found(&cluster.endpoint(0)).await;
    let (_, body) = http_get(cluster.nodes[2].client_port, "/members").unwrap_or_default();
    assert_eq!(found.len(), 1, "{body}");
    // Whoever led: at least twice, as nobody is called wrong by one look.
    let compared = |index: usize| {
        let port = cluster.nodes[index].client_port;
        let (_, metrics) = http_get(port, "/metrics").expect("the node answers");
        let name = "flotilla_data_comparisons_total{result=\"wrong\"} ";
        let count = metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
        count.unwrap_or(0)
    };
    let all: u64 = (0..3).map(compared).sum();
    assert!(all >= 2, "{all} comparisons have found it");
    let refused = put(&cluster.endpoint(0), "after").await.expect_err("a write under the alarm");
    assert_eq!(refused.code(), Code::DataLoss);
    assert_eq!(refused.message(), "etcdserver: corrupt cluster");
    let (status, body) = http_get(cluster.nodes[0].client_port, "/health").expect("an answer");
    assert_eq!((status, body.contains("ALARM CORRUPT")), (503, true), "{body}");
}

/// Whichever range the wrong row is in, the spine's own among them, and whoever leads.
#[tokio::test]
async fn who_holds_something_else_is_rebuilt_from_the_others() {
    for split in ["--initial-split-keys=", "--initial-split-keys=key/05,key/40"] {
        let mut cluster = damaged(&["--corrupt-check-time=500ms", split]).await;
        cluster.spawn(2);
        assert_eq!(found(&cluster.endpoint(0)).await.len(), 1);
        let deadline = Instant::now() + SEEN_WITHIN;
        while !corrupt_members(&cluster.endpoint(0)).await.is_empty() {
            assert!(Instant::now() < deadline, "{split}: {}", cluster.nodes[2].log());
            tokio::time::sleep(POLL_EVERY).await;
        }
        put(&cluster.endpoint(2), "after").await.expect("a put");
        cluster.stop(2);
        let log = cluster.nodes[2].log();
        assert!(log.contains("rebuilt: others hold the same"), "{split}: {log}");
        let store = store_of(&cluster, 2);
        let row = row_of(&store, "key/07");
        assert!(row.windows(15).any(|words| words == b"value of key/07"), "{split}: {row:?}");
        store.close().expect("closed");
        cluster.restart(2);
        put(&cluster.endpoint(2), "at last").await.expect("a put");
    }
}
