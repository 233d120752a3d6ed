//! Where the time of a request went, as its client and the log are told: in each kind of request the
//! phases that it has, and no others. Phases are compared with each other and with delays that the
//! tests make, as the machine may be as slow as it likes.

mod harness;

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{
    DeleteRangeRequest, MoveLeaderRequest, PutRequest, RangeRequest, RequestOp, StatusRequest,
    TxnRequest, maintenance_client::MaintenanceClient,
};
use harness::{Cluster, flotilla};
use serde_json::Value;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request};

const NAMES: [&str; 8] =
    ["queue", "route", "propose", "flush", "replicate", "order", "apply", "encode"];
/// What a flush takes longer where a test says so.
const DELAY: Duration = Duration::from_millis(300);
/// The machine may stop for a moment just where it would mislead a test.
const TRIES: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

type Phases = BTreeMap<String, u64>;

fn asking<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("flotilla-phases", "1".parse().expect("text"));
    request
}

fn told(metadata: &MetadataMap) -> Option<Phases> {
    let text = metadata.get("flotilla-phases")?.to_str().expect("text");
    let parts: Vec<(&str, &str)> =
        text.split(';').map(|part| part.split_once('=').expect("a pair")).collect();
    assert_eq!(parts.iter().map(|(name, _)| *name).collect::<Vec<_>>(), NAMES, "{text}");
    let number = |text: &str| text.parse().expect("microseconds");
    Some(parts.into_iter().map(|(name, micros)| (name.to_owned(), number(micros))).collect())
}

fn put(key: &str) -> PutRequest {
    let key = key.as_bytes().to_vec().into();
    PutRequest { key, value: "v".into(), ..PutRequest::default() }
}

fn read(key: &str, serializable: bool) -> RangeRequest {
    let key = key.as_bytes().to_vec().into();
    RangeRequest { key, serializable, ..RangeRequest::default() }
}

/// A transaction that puts all of these.
fn puts(keys: &[&str]) -> TxnRequest {
    let put = |key: &&str| RequestOp { request: Some(Op::RequestPut(put(key))) };
    TxnRequest { success: keys.iter().map(put).collect(), ..TxnRequest::default() }
}

async fn phases_of_put(client: &mut KvClient<Channel>, key: &str) -> Phases {
    let answer = client.put(asking(put(key))).await.expect("a put");
    told(answer.metadata()).expect("it was asked for")
}

/// Asks until the phases are as they should be on a machine that does not stop just then.
async fn until_seen(
    client: &mut KvClient<Channel>,
    key: &str,
    is_seen: impl Fn(&Phases) -> bool,
) -> Phases {
    let mut all = Vec::new();
    for _ in 0..TRIES {
        let phases = phases_of_put(client, key).await;
        if is_seen(&phases) {
            return phases;
        }
        all.push(phases);
    }
    panic!("never seen: {all:#?}");
}

fn others(phases: &Phases, but: &[&str]) -> u64 {
    phases.iter().filter(|(name, _)| !but.contains(&name.as_str())).map(|(_, took)| took).sum()
}

fn slow_puts(cluster: &Cluster) -> Vec<Value> {
    let log = cluster.nodes[0].log();
    let lines = log.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    lines
        .filter(|line: &Value| line["msg"] == "a request took long" && line["method"] == "Put")
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_shows_as_flush_in_the_trailer_and_in_the_log() {
    let delay = format!("--wal-flush-delay={}ms", DELAY.as_millis());
    let flags = [delay.as_str(), "--warning-unary-request-duration=100ms"];
    let cluster = Cluster::start_with(&flotilla(), 1, &flags);
    let mut client = KvClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    let delay_us = DELAY.as_micros() as u64;
    let is_flush = |phases: &Phases| phases["flush"] > others(phases, &["flush"]);
    let phases = until_seen(&mut client, "a", |phases| {
        assert!(phases["flush"] >= delay_us, "{phases:?}");
        is_flush(phases)
    })
    .await;
    assert_eq!((phases["route"], phases["order"]), (0, 0), "{phases:?}");
    let lines = slow_puts(&cluster);
    assert!(!lines.is_empty(), "every put is slow");
    for line in &lines {
        let number = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key}: {line}"));
        let logged: Phases =
            NAMES.iter().map(|name| ((*name).to_owned(), number(&format!("{name}_us")))).collect();
        assert_eq!(logged.values().sum::<u64>(), number("took_us"), "{line}");
        assert!(logged["flush"] >= delay_us, "{line}");
    }
    let is_logged = |line: &Value| NAMES.iter().all(|it| line[format!("{it}_us")] == phases[*it]);
    assert!(lines.iter().any(is_logged), "the log says what the client was told: {lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_request_has_its_phases() {
    let cluster = Cluster::start_with(&flotilla(), 1, &["--initial-split-keys=m"]);
    let mut client = KvClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    let has = |phases: &Phases, names: &[&str]| names.iter().all(|name| phases[*name] > 0);
    let lacks = |phases: &Phases, names: &[&str]| names.iter().all(|name| phases[*name] == 0);

    let phases = phases_of_put(&mut client, "a").await;
    assert!(has(&phases, &["queue", "flush"]) && lacks(&phases, &["route", "order"]), "{phases:?}");
    // Another range: the spine gives the number, by an entry of its own.
    let phases = phases_of_put(&mut client, "z").await;
    assert!(has(&phases, &["queue", "flush", "order"]), "{phases:?}");
    // Over both: locks, a ticket and evaluation first, then the spine decides.
    let answer = client.txn(asking(puts(&["a", "z"]))).await.expect("a transaction");
    let phases = told(answer.metadata()).expect("asked for");
    assert!(has(&phases, &["queue", "propose", "order"]), "{phases:?}");
    assert!(lacks(&phases, &["route", "flush", "replicate"]), "{phases:?}");

    let of_no_log = ["route", "propose", "flush", "replicate"];
    let answer = client.range(asking(read("z", false))).await.expect("a read");
    let phases = told(answer.metadata()).expect("asked for");
    assert!(has(&phases, &["queue", "order"]) && lacks(&phases, &of_no_log), "{phases:?}");
    let answer = client.range(asking(read("z", true))).await.expect("a read");
    let phases = told(answer.metadata()).expect("asked for");
    assert!(lacks(&phases, &of_no_log) && lacks(&phases, &["order"]), "{phases:?}");
    // Nothing is deleted: the answer is a read.
    let nothing = DeleteRangeRequest { key: "b".into(), ..DeleteRangeRequest::default() };
    let answer = client.delete_range(asking(nothing)).await.expect("a delete");
    let phases = told(answer.metadata()).expect("asked for");
    assert!(has(&phases, &["order"]) && lacks(&phases, &of_no_log), "{phases:?}");

    // An error is told of as well, and nobody is told who does not ask.
    let refused = client.put(asking(put(""))).await.expect_err("a key is missing");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let phases = told(refused.metadata()).expect("asked for");
    assert!(lacks(&phases, &of_no_log), "{phases:?}");
    let answer = client.put(put("a")).await.expect("a put");
    assert_eq!(told(answer.metadata()), None);
    let refused = client.put(put("")).await.expect_err("a key is missing");
    assert_eq!(told(refused.metadata()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_the_leader_and_slow_followers_show_at_the_node_that_was_asked() {
    let mut cluster = Cluster::prepare(&flotilla(), 3, &["--initial-split-keys=m"]);
    // The leader's own disk is quick, so that it is the others who are waited for.
    for index in [1, 2] {
        let delay = format!("--wal-flush-delay={}ms", DELAY.as_millis());
        cluster.nodes[index].flags.push(delay);
    }
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.wait_all_ready();
    let delay_us = DELAY.as_micros() as u64;
    for index in 0..3 {
        lead(&cluster).await;
        let mut client = KvClient::connect(cluster.endpoint(index)).await.expect("a ready node");
        until_seen(&mut client, "a", |phases| {
            // Only followers forward, and the leader waits for one of them.
            (phases["route"] > 0) == (index != 0)
                && phases["flush"] + phases["replicate"] >= delay_us
                && phases["replicate"] > others(phases, &["replicate"])
        })
        .await;
    }
    // Whoever leads the other range: most of the time is somewhere in both logs.
    let mut client = KvClient::connect(cluster.endpoint(1)).await.expect("a ready node");
    let waits = ["flush", "replicate", "order"];
    until_seen(&mut client, "z", |phases| {
        waits.iter().map(|name| phases[*name]).sum::<u64>() > others(phases, &waits)
    })
    .await;
}

/// Has the spine led by the first node.
async fn lead(cluster: &Cluster) {
    let mut wanted = MaintenanceClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    for _ in 0..TRIES {
        let status = wanted.status(StatusRequest {}).await.expect("a status").into_inner();
        let me = status.header.expect("a header").member_id;
        if status.leader == me {
            return;
        }
        for endpoint in cluster.endpoints() {
            let mut client = MaintenanceClient::connect(endpoint).await.expect("a ready node");
            let request = MoveLeaderRequest { target_id: me };
            // Only the leader does so.
            if client.move_leader(request).await.is_ok() {
                break;
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    panic!("the first node does not come to lead");
}
