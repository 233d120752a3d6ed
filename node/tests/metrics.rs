//! `/metrics` against etcd's: every name that etcd 3.7 has is there with its type, labels and buckets,
//! or stands below with the reason why it has no meaning here. So dashboards and alerts made for
//! etcd work.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::etcdserverpb::alarm_request::AlarmAction;
use flotilla_proto::etcdserverpb::cluster_client::ClusterClient;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::lease_client::LeaseClient;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::request_op::Request;
use flotilla_proto::etcdserverpb::watch_client::WatchClient;
use flotilla_proto::etcdserverpb::watch_request::RequestUnion;
use futures::{StreamExt, stream};
use harness::{Cluster, flotilla, http_get};
use tonic::transport::{Channel, Endpoint};

/// Names, types, labels and buckets of etcd 3.7, and whether its dashboard or alerts use them.
const ETCD_METRICS: &str = include_str!("metrics/etcd.tsv");

/// Names that are not here, by what they begin with, and why.
const ABSENT: [(&str, &str); 14] = [
    ("go_", "there is no Go runtime"),
    ("up", "made by Prometheus itself"),
    ("etcd_server_go_version", "there is no Go runtime"),
    ("etcd_grpc_proxy_", "there is no proxy in this program"),
    ("etcd_debugging_store_", "leftovers of etcd's v2 store"),
    (
        "etcd_debugging_disk_backend_commit_",
        "phases of a commit of bbolt; etcd_disk_backend_commit_duration_seconds has the whole",
    ),
    (
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        "there is no index in memory that compaction could hold up",
    ),
    (
        "etcd_debugging_mvcc_keys_total",
        "no node counts the keys of all ranges; flotilla_range_keys has those of each on its leader",
    ),
    (
        "etcd_debugging_mvcc_pending_events_total",
        "events wait as blocks that all watchers of a worker share, so there is no count of each",
    ),
    (
        "etcd_debugging_server_watch_send_loop_",
        "no stream has a loop: a response is encoded once for all watchers that want it",
    ),
    ("etcd_debugging_snap_save_", "the state is not written to snapshot files"),
    ("etcd_snap_fsync_duration_seconds", "the state is not written to snapshot files"),
    (
        "etcd_server_apply_duration_seconds",
        "entries are applied in batches, not one by one; flotilla_apply_seconds has the batches",
    ),
    ("etcd_server_feature_enabled", "etcd's feature gates change nothing here"),
];

/// How long probes of peers and looks at leases may take until they are shown.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

struct Row {
    name: &'static str,
    kind: &'static str,
    labels: BTreeSet<&'static str>,
    buckets: &'static str,
    is_watched: bool,
}

fn table() -> Vec<Row> {
    let row = |line: &'static str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, kind, labels, buckets, dashboard, alerts] = columns[..] else {
            panic!("six columns: {line}")
        };
        let labels = labels.split(',').filter(|label| !label.is_empty()).collect();
        let is_watched = !dashboard.is_empty() || !alerts.is_empty();
        Row { name, kind, labels, buckets, is_watched }
    };
    ETCD_METRICS.lines().skip(1).map(row).collect()
}

fn reason(name: &str) -> Option<&'static str> {
    let found = ABSENT
        .iter()
        .find(|(begin, _)| name == *begin || (begin.ends_with('_') && name.starts_with(begin)));
    found.map(|(_, reason)| *reason)
}

/// What a page says of one name.
#[derive(Debug, Default)]
struct Shown {
    kind: String,
    /// Labels of its samples, without `le`.
    labels: BTreeSet<BTreeSet<String>>,
    /// Upper ends of buckets.
    buckets: BTreeSet<String>,
}

fn read_page(page: &str, shown: &mut BTreeMap<String, Shown>) {
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            kind.clone_into(&mut shown.entry(name.to_owned()).or_default().kind);
            continue;
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let (series, _) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.trim_end_matches('}')),
            None => (series, ""),
        };
        let mut names = BTreeSet::new();
        let mut end = None;
        for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").expect("a label and its value");
            match label {
                "le" => end = Some(value.trim_end_matches('"').to_owned()),
                label => drop(names.insert(label.to_owned())),
            }
        }
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|base| shown.get(*base).is_some_and(|it| it.kind == "histogram"));
        let entry = shown.entry(base.unwrap_or(name).to_owned()).or_default();
        entry.labels.insert(names);
        entry.buckets.extend(end);
    }
}

/// `exp(first,factor,count)` as the ends of buckets.
fn ends(buckets: &str) -> Vec<f64> {
    if buckets.starts_with("client_golang") {
        return vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    }
    let numbers = buckets.trim_start_matches("exp(").trim_end_matches(')');
    let numbers: Vec<f64> = numbers.split(',').map(|it| it.parse().expect("a number")).collect();
    let [first, factor, count] = numbers[..] else { panic!("three numbers: {buckets}") };
    let mut end = first;
    (0..count as u32)
        .map(|_| {
            let this = end;
            end *= factor;
            this
        })
        .collect()
}

async fn channel(url: String) -> Channel {
    Endpoint::from_shared(url).expect("an address").connect().await.expect("a node that runs")
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..pb::PutRequest::default() }
}

/// Something of everything that is counted.
async fn use_everything(cluster: &mut Cluster) {
    let channel = channel(cluster.endpoint(0)).await;
    let mut kv = KvClient::new(channel.clone());
    for n in 0..20 {
        kv.put(put(&format!("k{n}"))).await.expect("a put");
    }
    let ops = ["a", "b"].map(|key| pb::RequestOp { request: Some(Request::RequestPut(put(key))) });
    let txn = pb::TxnRequest { success: ops.to_vec(), ..pb::TxnRequest::default() };
    let revision = kv.txn(txn).await.expect("a txn").into_inner().header.expect("one").revision;
    let read = pb::RangeRequest { key: "a".into(), ..pb::RangeRequest::default() };
    kv.range(read).await.expect("a read");
    kv.compact(pb::CompactionRequest { revision, physical: true }).await.expect("a compaction");

    let mut lease = LeaseClient::new(channel.clone());
    let id = lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await;
    let id = id.expect("a lease").into_inner().id;
    let renewals = lease.lease_keep_alive(stream::iter([pb::LeaseKeepAliveRequest { id }])).await;
    renewals.expect("a stream").into_inner().next().await.expect("an answer").expect("renewed");
    lease.lease_revoke(pb::LeaseRevokeRequest { id }).await.expect("a revocation");

    let create = pb::WatchCreateRequest { key: "a".into(), ..pb::WatchCreateRequest::default() };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = stream::iter([create]).chain(stream::pending());
    let mut watch = WatchClient::new(channel.clone()).watch(requests).await.expect("a watch");
    watch.get_mut().message().await.expect("a watch").expect("it is created");

    let mut maintenance = MaintenanceClient::new(channel.clone());
    maintenance.defragment(pb::DefragmentRequest {}).await.expect("space");
    maintenance.hash(pb::HashRequest {}).await.expect("a hash");
    maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("a hash");
    let mut backup = maintenance.snapshot(pb::SnapshotRequest {}).await.expect("a backup");
    while backup.get_mut().message().await.expect("a backup").is_some() {}

    // A learner is sent a snapshot, and becomes a voter.
    let mut members = ClusterClient::new(channel);
    let voter = members.member_list(pb::MemberListRequest::default()).await;
    let voter = voter.expect("members").into_inner().members[0].id;
    let refused = members.member_promote(pb::MemberPromoteRequest { id: voter }).await;
    refused.expect_err("a voter cannot be promoted");
    let index = cluster.prepare_joining("learner");
    let peer_ur_ls = vec![cluster.nodes[index].peer_url()];
    let added = members.member_add(pb::MemberAddRequest { peer_ur_ls, is_learner: true }).await;
    let id = added.expect("a learner").into_inner().member.expect("one").id;
    cluster.spawn(index);
    let deadline = Instant::now() + SHOWN_WITHIN;
    while members.member_promote(pb::MemberPromoteRequest { id }).await.is_err() {
        assert!(Instant::now() < deadline, "the learner does not catch up");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    cluster.wait_ready(index);

    let (alarm, action) = (pb::AlarmType::Nospace as i32, AlarmAction::Activate as i32);
    let request = pb::AlarmRequest { action, member_id: id, alarm };
    maintenance.alarm(request).await.expect("an alarm");
}

fn scrape(cluster: &Cluster) -> BTreeMap<String, Shown> {
    let mut shown = BTreeMap::new();
    for node in &cluster.nodes {
        http_get(node.client_port, "/health").expect("a page");
        let (status, page) = http_get(node.client_port, "/metrics").expect("a page");
        assert_eq!(status, 200);
        read_page(&page, &mut shown);
    }
    shown
}

/// What is wrong with one name.
fn check(row: &Row, shown: &BTreeMap<String, Shown>) -> Option<String> {
    let Row { name, kind, labels, buckets, .. } = row;
    let Some(found) = shown.get(*name) else { return Some(format!("{name} is missing")) };
    if found.kind != *kind {
        return Some(format!("{name} is a {}, and a {kind} in etcd", found.kind));
    }
    for these in &found.labels {
        if !these.iter().map(String::as_str).eq(labels.iter().copied()) {
            return Some(format!("{name} has labels {these:?}, and {labels:?} in etcd"));
        }
    }
    if *kind == "histogram" {
        let wanted = ends(buckets);
        let mut ours: Vec<f64> = found.buckets.iter().map(|it| number(it)).collect();
        ours.sort_by(f64::total_cmp);
        let same = |(a, b): (&f64, &f64)| (a - b).abs() <= b.abs() * 1e-9;
        let is_same = ours.len() == wanted.len() + 1 && ours.iter().zip(&wanted).all(same);
        if !is_same {
            return Some(format!("{name} has buckets {ours:?}, and {wanted:?} in etcd"));
        }
    }
    None
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => text.parse().expect("a number"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_of_etcd_is_there_or_has_a_reason_not_to_be() {
    // A member is added to a cluster that was founded a moment ago.
    let flags = ["--metrics=extensive", "--strict-reconfig-check=false"];
    let mut cluster = Cluster::start_with(&flotilla(), 3, &flags);
    use_everything(&mut cluster).await;
    let table = table();
    let expected: Vec<&Row> = table.iter().filter(|row| reason(row.name).is_none()).collect();
    let deadline = Instant::now() + SHOWN_WITHIN;
    let shown = loop {
        let shown = scrape(&cluster);
        let wrong: Vec<String> = expected.iter().filter_map(|row| check(row, &shown)).collect();
        if wrong.is_empty() {
            break shown;
        }
        assert!(Instant::now() < deadline, "{}", wrong.join("\n"));
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    for row in &table {
        if let Some(reason) = reason(row.name) {
            assert!(!shown.contains_key(row.name), "{} is there, though: {reason}", row.name);
            assert!(
                !row.is_watched || row.name == "up",
                "a dashboard or an alert needs {}, though: {reason}",
                row.name
            );
        }
    }
    // Nothing looks like etcd's that is not.
    let known: BTreeSet<&str> = table.iter().map(|row| row.name).collect();
    for name in shown.keys().filter(|name| !name.starts_with("flotilla_")) {
        assert!(known.contains(name.as_str()), "etcd has no {name}");
    }
}

#[test]
fn every_reason_is_for_a_name_of_etcd() {
    let table = table();
    for (begin, reason) in ABSENT {
        let is_for = |row: &&Row| row.name == begin || row.name.starts_with(begin);
        assert!(table.iter().any(|row| is_for(&row)), "nothing begins with {begin}: {reason}");
    }
}
