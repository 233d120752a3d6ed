//! Members that come and go while clients write: learners, their promotion, a removal, and the
//! leadership that is handed over on request.

mod harness;

use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::cluster_client::ClusterClient;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MoveLeaderRequest, PutRequest, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use harness::{Cluster, flotilla};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Small enough that a few hundred writes truncate the log, and a joining node needs a snapshot.
const FLAGS: [&str; 4] = ["--snapshot-count", "50", "--snapshot-catchup-entries", "10"];
/// Longer than the five seconds for which a cluster must have been connected before it changes.
const CHANGE_WITHIN: Duration = Duration::from_secs(20);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(100);
const NOT_IN_SYNC: &str =
    "etcdserver: can only promote a learner member which is in sync with leader";

async fn channel(url: &str) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(8));
    endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
}

async fn put(url: &str, key: &str) -> Result<(), Status> {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: vec![b'v'; 100].into(),
        ..Default::default()
    };
    KvClient::new(channel(url).await?).put(request).await.map(drop)
}

/// Each write has one attempt.
async fn assert_writes_go_on(urls: &[String], prefix: &str) {
    for n in 0..30 {
        let url = &urls[n % urls.len()];
        let answer = put(url, &format!("{prefix}/{n}")).await;
        assert!(answer.is_ok(), "{prefix}/{n} at {url}: {answer:?}");
    }
}

async fn range(url: &str, key: &str, serializable: bool) -> Result<RangeResponse, Status> {
    let request =
        RangeRequest { key: key.to_owned().into(), serializable, ..RangeRequest::default() };
    Ok(KvClient::new(channel(url).await?).range(request).await?.into_inner())
}

async fn status(url: &str) -> Result<StatusResponse, Status> {
    let mut client = MaintenanceClient::new(channel(url).await?);
    Ok(client.status(StatusRequest {}).await?.into_inner())
}

async fn list(url: &str) -> Vec<Member> {
    let mut client = ClusterClient::new(channel(url).await.expect("the node runs"));
    let request = MemberListRequest { linearizable: true };
    client.member_list(request).await.expect("a list").into_inner().members
}

async fn add_learner(url: &str, peer_url: &str) -> Result<u64, Status> {
    let request = MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
    let answer = ClusterClient::new(channel(url).await?).member_add(request).await?.into_inner();
    Ok(answer.member.expect("the added member").id)
}

async fn remove(url: &str, id: u64) -> Result<(), Status> {
    let mut client = ClusterClient::new(channel(url).await?);
    client.member_remove(MemberRemoveRequest { id }).await.map(drop)
}

async fn promote(url: &str, id: u64) -> Result<Vec<Member>, Status> {
    let mut client = ClusterClient::new(channel(url).await?);
    Ok(client.member_promote(MemberPromoteRequest { id }).await?.into_inner().members)
}

async fn move_leader(url: &str, target_id: u64) -> Result<(), Status> {
    let mut client = MaintenanceClient::new(channel(url).await?);
    client.move_leader(MoveLeaderRequest { target_id }).await.map(drop)
}

/// Tries again while the answer is an error with one of these texts.
async fn retry<T, F: Future<Output = Result<T, Status>>>(
    texts: &[&str],
    within: Duration,
    attempt: impl Fn() -> F,
) -> T {
    let started = Instant::now();
    loop {
        match attempt().await {
            Ok(answer) => return answer,
            Err(status) => {
                let is_expected = texts.iter().any(|text| status.message() == *text);
                assert!(is_expected && started.elapsed() < within, "{status:?}");
            }
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    match answer {
        Err(status) => assert_eq!((status.code(), status.message()), (code, text)),
        Ok(answer) => panic!("answered instead of {text:?}: {answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_as_a_learner_is_promoted_and_leaves() {
    let mut cluster = Cluster::start_with(&flotilla(), 3, &FLAGS);
    let old = cluster.endpoints();
    for n in 0..300 {
        put(&old[n % 3], &format!("first/{n}")).await.expect("a healthy cluster");
    }
    // Until all peers were connected for five seconds.
    let unhealthy = ["etcdserver: unhealthy cluster"];

    // An address with a slip of the pen: nobody will ever answer there.
    let mistyped =
        retry(&unhealthy, CHANGE_WITHIN, || add_learner(&old[0], "http://127.0.0.1:1")).await;
    assert_writes_go_on(&old, "mistyped").await;
    let answer = add_learner(&old[1], "http://127.0.0.1:2").await;
    let text = "etcdserver: too many learner members in cluster";
    assert_refused(answer, Code::FailedPrecondition, text);
    // A learner is in no quorum: two of three voters still are one.
    cluster.kill(2);
    let started = Instant::now();
    while put(&old[0], "two/of/three").await.is_err() {
        assert!(started.elapsed() < CHANGE_WITHIN, "two of three voters cannot write");
    }
    assert_writes_go_on(&old[..2], "two").await;
    cluster.restart(2);
    remove(&old[0], mistyped).await.expect("a learner can go at any time");
    assert_refused(remove(&old[0], mistyped).await, Code::NotFound, "etcdserver: member not found");

    let new = cluster.prepare_joining("n3");
    cluster.nodes[new].flags = FLAGS.map(str::to_owned).to_vec();
    let (new_url, peer_url) = (cluster.endpoint(new), cluster.nodes[new].peer_url());
    let learner = retry(&unhealthy, CHANGE_WITHIN, || add_learner(&old[1], &peer_url)).await;
    for url in &old {
        assert_refused(promote(url, learner).await, Code::FailedPrecondition, NOT_IN_SYNC);
    }
    assert_writes_go_on(&old, "not-started").await;

    cluster.spawn(new);
    let started = Instant::now();
    loop {
        let seen = range(&new_url, "not-started/29", true).await;
        if seen.as_ref().is_ok_and(|answer| answer.count == 1) {
            break;
        }
        assert!(started.elapsed() < CATCH_UP_WITHIN, "the learner lags: {seen:?}");
        tokio::time::sleep(POLL_EVERY).await;
    }
    let log = cluster.nodes[new].log();
    assert!(log.contains("receiving a snapshot"), "the log was truncated before: {log}");
    for key in ["first/0", "first/299", "two/29"] {
        assert_eq!(
            range(&new_url, key, true).await.expect("a serializable read").count,
            1,
            "{key}"
        );
    }
    let text = "etcdserver: rpc not supported for learner";
    assert_refused(range(&new_url, "first/0", false).await, Code::FailedPrecondition, text);
    assert_refused(put(&new_url, "from/learner").await, Code::FailedPrecondition, text);
    assert!(status(&new_url).await.expect("status is local").is_learner);

    let members = retry(&[NOT_IN_SYNC], CATCH_UP_WITHIN, || promote(&old[0], learner)).await;
    assert_eq!(members.len(), 4);
    let text = "etcdserver: can only promote a learner member";
    assert_refused(promote(&old[0], learner).await, Code::FailedPrecondition, text);
    cluster.wait_ready(new);
    let started = Instant::now();
    loop {
        let members = list(&new_url).await;
        assert_eq!(members.len(), 4);
        assert!(members.iter().all(|member| !member.is_learner), "{members:?}");
        // A member that has started has announced its name and client URLs.
        if members.iter().all(|member| !member.name.is_empty() && !member.client_ur_ls.is_empty()) {
            break;
        }
        assert!(started.elapsed() < CATCH_UP_WITHIN, "{members:?}");
        tokio::time::sleep(POLL_EVERY).await;
    }

    cluster.kill(new);
    cluster.restart(new);
    cluster.kill(0);
    let started = Instant::now();
    while put(&new_url, "three/of/four").await.is_err() {
        assert!(started.elapsed() < CHANGE_WITHIN, "three of four voters cannot write");
    }
    assert_writes_go_on(&[new_url.clone(), old[1].clone(), old[2].clone()], "three").await;
    cluster.restart(0);
    assert_eq!(range(&old[0], "three/29", false).await.expect("a read").count, 1);

    retry(&unhealthy, CHANGE_WITHIN, || remove(&old[0], learner)).await;
    let exit = cluster.wait_exit(new, CHANGE_WITHIN).expect("a removed node stops by itself");
    assert!(exit.success(), "{exit}: {}", cluster.nodes[new].log_tail());
    let log = cluster.nodes[new].log().to_lowercase();
    assert!(!log.contains("panic"), "{log}");
    let started = Instant::now();
    // The removed node may have been the leader.
    while put(&old[0], "gone").await.is_err() {
        assert!(started.elapsed() < CHANGE_WITHIN, "three voters cannot write");
    }
    assert_writes_go_on(&old, "three-again").await;
    assert_eq!(list(&old[2]).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_to_a_follower_and_to_nobody_else() {
    let cluster = Cluster::start(&flotilla(), 3);
    let urls = cluster.endpoints();
    let mut ids = Vec::new();
    let mut leader = 0;
    for url in &urls {
        let status = status(url).await.expect("a status");
        ids.push(status.header.expect("an answer has a header").member_id);
        leader = status.leader;
    }
    let at = ids.iter().position(|id| *id == leader).expect("a ready cluster has a leader");
    let next = (at + 1) % 3;

    let precondition = Code::FailedPrecondition;
    let text = "etcdserver: bad leader transferee";
    assert_refused(move_leader(&urls[at], 0x4711).await, precondition, text);
    assert_refused(
        move_leader(&urls[next], ids[next]).await,
        precondition,
        "etcdserver: not leader",
    );
    move_leader(&urls[at], ids[at]).await.expect("the leader already leads");
    assert_eq!(status(&urls[at]).await.expect("a status").leader, ids[at]);

    move_leader(&urls[at], ids[next]).await.expect("a follower takes over");
    assert_eq!(status(&urls[at]).await.expect("a status").leader, ids[next]);
    for (n, url) in urls.iter().enumerate() {
        let answer = put(url, &format!("moved/{n}")).await;
        assert!(answer.is_ok(), "{url}: {answer:?}");
        assert_eq!(status(url).await.expect("a status").leader, ids[next]);
    }
}
