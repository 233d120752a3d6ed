//! A cluster that has lost its quorum for good becomes a cluster of the member that is left, with
//! everything that this member has; and grows again.

mod harness;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::cluster_client::ClusterClient;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::{
    DeleteRangeRequest, MemberAddRequest, MemberListRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, request_op::Request,
};
use harness::{Cluster, flotilla};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// How long the writes and reads of one test may be tried again, each without an effect so far.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Clusters that are lost under writes.
const ROUNDS: usize = 2;
const SPLIT: &str = "--initial-split-keys=key/0100,key/0200,other";

/// Keys with their values and revisions.
type Rows = BTreeMap<String, (Vec<u8>, i64)>;

async fn channel(url: &str) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(8));
    endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
}

fn put_request(key: &str, value: &str) -> PutRequest {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    PutRequest { key, value, ..PutRequest::default() }
}

/// Writes, and says what was acknowledged.
async fn fill(url: &str, rows: &mut Rows, prefix: &str, count: usize) {
    let mut client = KvClient::new(channel(url).await.expect("the node serves"));
    for n in 0..count {
        let (key, value) = (format!("{prefix}/{n:04}"), format!("{prefix} {n}"));
        let answer = client.put(put_request(&key, &value)).await.expect("a put").into_inner();
        rows.insert(key, (value.into_bytes(), answer.header.expect("a header").revision));
    }
}

/// A transaction that concerns several ranges.
async fn write_everywhere(url: &str, rows: &mut Rows, value: &str) {
    let keys = ["across", "key/0150x", "key/0250x", "other/x"];
    let op = |key: &&str| RequestOp { request: Some(Request::RequestPut(put_request(key, value))) };
    let request = TxnRequest { success: keys.iter().map(op).collect(), ..TxnRequest::default() };
    let mut client = KvClient::new(channel(url).await.expect("the node serves"));
    let answer = client.txn(request).await.expect("a transaction").into_inner();
    let revision = answer.header.expect("a header").revision;
    for key in keys {
        rows.insert(key.to_owned(), (value.to_owned().into_bytes(), revision));
    }
}

async fn read_all(url: &str) -> Result<(Rows, i64), Status> {
    let everything =
        RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
    let answer = KvClient::new(channel(url).await?).range(everything).await?.into_inner();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = answer.kvs.iter().map(|kv| (text(&kv.key), (kv.value.to_vec(), kv.mod_revision)));
    Ok((rows.collect(), answer.header.expect("a header").revision))
}

async fn until_read(url: &str) -> (Rows, i64) {
    let deadline = Instant::now() + SERVED_WITHIN;
    loop {
        match read_all(url).await {
            Ok(read) => return read,
            Err(error) => assert!(Instant::now() < deadline, "{url} serves no reads: {error}"),
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn members(url: &str) -> Vec<String> {
    let mut client = ClusterClient::new(channel(url).await.expect("the node serves"));
    let answer = client.member_list(MemberListRequest::default()).await.expect("a list");
    answer.into_inner().members.into_iter().map(|member| member.name).collect()
}

/// Runs `flotilla recover` on the data of a node; gives back whether it was done, and what was said.
fn recover(cluster: &Cluster, index: usize, flags: &[&str], input: &str) -> (bool, String) {
    let answers = cluster.nodes[index].data_dir().with_file_name("answers");
    std::fs::write(&answers, input).expect("a file");
    let output = Command::new(flotilla())
        .arg("recover")
        .args(flags)
        .arg(cluster.nodes[index].data_dir())
        .stdin(Stdio::from(std::fs::File::open(answers).expect("a file")))
        .output()
        .expect("the program runs");
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// What was written can have come about.
fn verify(cluster: &Cluster, index: usize) {
    let output = Command::new(flotilla())
        .arg("verify")
        .arg(cluster.nodes[index].data_dir())
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A member that is alone serves what it had, and writes; then the cluster grows again.
async fn serves_and_grows(cluster: &mut Cluster, index: usize, mut acknowledged: Rows) {
    let url = cluster.endpoint(index);
    let (rows, revision) = until_read(&url).await;
    assert_eq!(rows, acknowledged, "everything that was acknowledged, and nothing else");
    assert_eq!(members(&url).await, [cluster.nodes[index].name.clone()]);
    fill(&url, &mut acknowledged, "key", 30).await;
    fill(&url, &mut acknowledged, "zzz", 30).await;
    write_everywhere(&url, &mut acknowledged, "after").await;
    let (rows, now) = until_read(&url).await;
    assert_eq!((rows, now), (acknowledged.clone(), revision + 61));

    let joining = cluster.prepare_joining("fresh");
    let add =
        MemberAddRequest { peer_ur_ls: vec![cluster.nodes[joining].peer_url()], is_learner: false };
    let mut client = ClusterClient::new(channel(&url).await.expect("the node serves"));
    client.member_add(add).await.expect("a member is added");
    cluster.spawn(joining);
    cluster.wait_ready(joining);
    fill(&cluster.endpoint(joining), &mut acknowledged, "joined", 10).await;
    assert_eq!(until_read(&cluster.endpoint(joining)).await.0, acknowledged);
    assert_eq!(until_read(&url).await.0, acknowledged);
}

#[tokio::test]
async fn a_new_cluster_is_forced() {
    let mut cluster = Cluster::start_with(&flotilla(), 3, &["--snapshot-count=200"]);
    let mut acknowledged = Rows::new();
    for prefix in ["key", "later"] {
        fill(&cluster.endpoint(0), &mut acknowledged, prefix, 250).await;
    }
    write_everywhere(&cluster.endpoint(1), &mut acknowledged, "before").await;
    // A linearizable read of the member that is left: it has it all.
    assert_eq!(until_read(&cluster.endpoint(2)).await.0, acknowledged);
    for index in 0..3 {
        cluster.kill(index);
    }
    cluster.nodes[2].flags.push("--force-new-cluster".to_owned());
    cluster.restart(2);
    let log = cluster.nodes[2].log();
    assert!(log.contains("surely here: everything up to revision"), "{log}");
    serves_and_grows(&mut cluster, 2, acknowledged.clone()).await;
    // Started again with the flag, it throws out who was added, as etcd does.
    cluster.kill(3);
    cluster.stop(2);
    cluster.restart(2);
    assert_eq!(members(&cluster.endpoint(2)).await, ["n2"]);
}

#[tokio::test]
async fn a_node_is_recovered_with_all_ranges() {
    let mut cluster = Cluster::start_with(&flotilla(), 3, &[SPLIT, "--snapshot-count=100"]);
    let mut acknowledged = Rows::new();
    for round in 0..4 {
        let prefix = if round % 2 == 0 { "key" } else { "other" };
        fill(&cluster.endpoint(0), &mut acknowledged, prefix, 250).await;
        write_everywhere(&cluster.endpoint(1), &mut acknowledged, &format!("round {round}")).await;
    }
    assert_eq!(until_read(&cluster.endpoint(2)).await.0, acknowledged);
    let (is_done, text) = recover(&cluster, 2, &["--yes"], "");
    assert!(!is_done && text.contains("already open"), "of a node that runs: {text}");
    for index in [0, 1, 2] {
        cluster.kill(index);
    }

    let (is_done, text) = recover(&cluster, 2, &[], "no\n");
    assert!(!is_done && text.contains("nothing was changed"), "{text}");
    for removed in ["n0", "n1"] {
        assert!(text.contains(&format!(" {removed} ")), "{removed}: {text}");
    }
    assert!(text.contains("surely here: everything up to revision"), "{text}");
    assert!(!text.contains("missing") && !text.contains("dropped"), "{text}");
    let (is_done, text) = recover(&cluster, 2, &[], "recover\n");
    assert!(is_done, "{text}");
    let (is_done, text) = recover(&cluster, 2, &[], "");
    assert!(is_done && text.contains("alone already"), "{text}");
    verify(&cluster, 2);
    cluster.restart(2);
    serves_and_grows(&mut cluster, 2, acknowledged).await;
    // One of those that were thrown out hears of it.
    cluster.spawn(0);
    let status = cluster.wait_exit(0, SERVED_WITHIN).expect("it leaves");
    assert!(status.success(), "{status:?}: {}", cluster.nodes[0].log_tail());
}

/// One replica of each range, so that a member has a part of them only.
#[tokio::test]
async fn ranges_that_are_nowhere_are_given_up_on_demand_only() {
    let flags = [SPLIT, "--initial-range-replicas=1", "--placement-interval=0"];
    let mut cluster = Cluster::start_with(&flotilla(), 3, &flags);
    let mut acknowledged = Rows::new();
    fill(&cluster.endpoint(0), &mut acknowledged, "key", 250).await;
    fill(&cluster.endpoint(0), &mut acknowledged, "other", 50).await;
    fill(&cluster.endpoint(0), &mut acknowledged, "before", 50).await;
    assert_eq!(until_read(&cluster.endpoint(2)).await.0, acknowledged);
    for index in 0..3 {
        cluster.kill(index);
    }
    let (is_done, text) = recover(&cluster, 2, &["--yes"], "");
    assert!(!is_done && text.contains("there is no replica here of range "), "{text}");
    cluster.nodes[2].flags.push("--force-new-cluster".to_owned());
    cluster.spawn(2);
    let status = cluster.wait_exit(2, SERVED_WITHIN).expect("it leaves");
    assert_eq!(status.code(), Some(1), "{}", cluster.nodes[2].log_tail());

    let (is_done, text) = recover(&cluster, 2, &["--yes", "--give-up-lost-ranges"], "");
    assert!(is_done, "{text}");
    verify(&cluster, 2);
    cluster.nodes[2].flags.retain(|flag| flag != "--force-new-cluster");
    cluster.restart(2);
    let (rows, _) = until_read(&cluster.endpoint(2)).await;
    let lost: Vec<&String> = acknowledged.keys().filter(|key| !rows.contains_key(*key)).collect();
    assert!(!lost.is_empty() && lost.len() < acknowledged.len(), "some ranges: {lost:?}");
    for range in ["key/0100", "key/0200", "other"].iter().zip(1..) {
        let is_lost = text.contains(&format!("lost: range {} ", range.1));
        let has_keys = rows.keys().any(|key| key.starts_with(&range.0[..range.0.len() - 1]));
        assert!(is_lost || has_keys, "{range:?}: {text}");
    }
    acknowledged = rows;
    serves_and_grows(&mut cluster, 2, acknowledged).await;
}

/// Writes keys of its own until the node is gone; gives back what was acknowledged, with revisions.
async fn write_until_killed(url: String, prefix: String) -> Vec<(String, i64)> {
    let mut acknowledged = Vec::new();
    let Ok(channel) = channel(&url).await else { return acknowledged };
    let mut client = KvClient::new(channel);
    for n in 0.. {
        let key = format!("{prefix}/{n:05}");
        let Ok(answer) = client.put(put_request(&key, &prefix)).await else { break };
        acknowledged.push((key, answer.into_inner().header.expect("a header").revision));
    }
    acknowledged
}

/// Deletes and puts the same keys in all ranges, as one, until the node is gone.
async fn change_everywhere_until_killed(url: String) {
    let Ok(channel) = channel(&url).await else { return };
    let mut client = KvClient::new(channel);
    for n in 0.. {
        let key = |place: &str| format!("{place}/txn");
        let keys = ["across", "key/0150", "key/0250", "other"].map(key);
        let op = |key: &String| {
            let delete = DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
            let request = match n % 3 {
                2 => Request::RequestDeleteRange(delete),
                _ => Request::RequestPut(put_request(key, &n.to_string())),
            };
            RequestOp { request: Some(request) }
        };
        let txn = TxnRequest { success: keys.iter().map(op).collect(), ..TxnRequest::default() };
        if client.txn(txn).await.is_err() {
            return;
        }
    }
}

/// What the member says to be there for sure is there, wherever it stood in each of the logs.
#[tokio::test]
async fn what_is_said_to_be_there_is_there_after_a_loss_under_writes() {
    for round in 0..ROUNDS {
        let flags = [SPLIT, "--snapshot-count=300", "--snapshot-catchup-entries=50"];
        let mut cluster = Cluster::start_with(&flotilla(), 3, &flags);
        let mut writers = Vec::new();
        for (n, place) in ["across", "key/0150", "key/0250", "other"].iter().enumerate() {
            for index in 0..2 {
                let url = cluster.endpoint(index);
                let prefix = format!("{place}/{n}{index}");
                writers.push(tokio::spawn(write_until_killed(url, prefix)));
            }
        }
        let changing = tokio::spawn(change_everywhere_until_killed(cluster.endpoint(0)));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let order = if round % 2 == 0 { [2, 1, 0] } else { [0, 1, 2] };
        order.iter().for_each(|index| cluster.kill(*index));
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.extend(writer.await.expect("a writer ends"));
        }
        changing.await.expect("it ends");
        assert!(!acknowledged.is_empty(), "nothing was written");

        let (is_done, text) = recover(&cluster, 2, &["--yes"], "");
        assert!(is_done, "{text}");
        let sure: Option<i64> = text
            .lines()
            .find_map(|line| line.strip_prefix("surely here: everything up to revision "))
            .map(|revision| revision.parse().expect("a revision"));
        let newest: i64 = text
            .split_once("acknowledged after revision ")
            .and_then(|(_, rest)| rest.split_once(',')?.0.parse().ok())
            .expect("the newest revision here");
        verify(&cluster, 2);
        cluster.restart(2);
        let (rows, revision) = until_read(&cluster.endpoint(2)).await;
        for (key, acknowledged_at) in &acknowledged {
            let found = rows.get(key).map(|(_, revision)| *revision);
            let is_sure = sure.is_some_and(|sure| *acknowledged_at <= sure);
            assert!(
                found == Some(*acknowledged_at)
                    || found.is_none() && !is_sure
                    // It was numbered where nobody is left.
                    || *acknowledged_at > newest,
                "{key} of revision {acknowledged_at} is at {found:?}: {text}"
            );
        }
        let last = acknowledged.iter().map(|(_, revision)| *revision).max();
        if let Some(sure) = sure {
            assert!(last.is_none_or(|last| sure + 1_000 > last), "{sure} of {last:?}: {text}");
        }
        let mut after = Rows::new();
        fill(&cluster.endpoint(2), &mut after, "key/0160", 20).await;
        fill(&cluster.endpoint(2), &mut after, "other/after", 20).await;
        write_everywhere(&cluster.endpoint(2), &mut after, "after").await;
        assert!(after.values().all(|(_, at)| *at > revision), "revisions go on: {after:?}");
        let now = until_read(&cluster.endpoint(2)).await.0;
        assert!(after.iter().all(|(key, value)| now.get(key) == Some(value)));
    }
}
