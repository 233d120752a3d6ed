//! Power and process loss: what was acknowledged is there afterwards, revisions never go back, and
//! a cluster that lost a leader or its quorum says so and recovers.

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::{PutRequest, RangeRequest, StatusRequest, StatusResponse};
use harness::acknowledged::{reach, read_all, write_until};
use harness::{Cluster, flotilla};
use tonic::{Code, Status};

/// Writers that load the cluster at the same time.
const WRITERS: usize = 8;

async fn put(url: &str, key: &str, value: &str, within: Duration) -> Result<i64, Status> {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    let attempt = async {
        let channel = reach(url).await.ok_or_else(|| Status::unavailable("not reachable"))?;
        let answer = KvClient::new(channel).put(request).await?.into_inner();
        Ok(answer.header.expect("an answer has a header").revision)
    };
    tokio::time::timeout(within, attempt)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("test")))
}

async fn status(url: &str) -> Option<StatusResponse> {
    let mut client = MaintenanceClient::new(reach(url).await?);
    Some(client.status(StatusRequest {}).await.ok()?.into_inner())
}

/// Loads, kills these nodes in the middle, restarts them, and compares with what was acknowledged.
async fn survive(size: usize, rounds: usize, victims: impl Fn(usize) -> Vec<usize>) {
    let mut cluster = Cluster::start(&flotilla(), size);
    let mut known: BTreeMap<String, i64> = BTreeMap::new();
    let mut newest = 1;
    for round in 0..rounds {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (urls, count) = (cluster.endpoints(), Arc::default());
                tokio::spawn(write_until(urls, writer, round, count, stopped.clone()))
            })
            .collect();
        // Not a multiple of anything, so that the moment differs within flushes and batches.
        tokio::time::sleep(Duration::from_millis(250 + 37 * (round as u64 % 7))).await;
        let killed = victims(round);
        for &index in &killed {
            cluster.kill(index);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.send(true).expect("writers listen");
        let mut acknowledged_count = 0;
        for writer in writers {
            for (key, revision) in writer.await.expect("a writer does not panic") {
                acknowledged_count += 1;
                assert!(known.insert(key, revision).is_none(), "keys are distinct");
                newest = newest.max(revision);
            }
        }
        assert!(acknowledged_count > 0, "round {round} acknowledged nothing: it proves nothing");
        for index in killed {
            cluster.spawn(index);
        }
        cluster.wait_all_ready();
        for url in cluster.endpoints() {
            let (revision, found) = read_all(&url).await;
            assert!(revision >= newest, "round {round}: revision {revision} after {newest}");
            for (key, written) in &known {
                let (value, at) =
                    found.get(key).unwrap_or_else(|| panic!("round {round}: {key} is lost"));
                assert_eq!((value, at), (key, written), "round {round}");
            }
            newest = newest.max(revision);
        }
        let mut revisions: Vec<i64> = known.values().copied().collect();
        revisions.sort_unstable();
        revisions.dedup();
        assert_eq!(revisions.len(), known.len(), "each write has a revision of its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_killed_under_load_loses_nothing_it_acknowledged() {
    survive(1, 8, |_| vec![0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_killed_one_by_one_and_all_at_once_lose_nothing() {
    survive(3, 12, |round| if round % 4 == 3 { vec![0, 1, 2] } else { vec![round % 3] }).await;
}

async fn leader_of(cluster: &Cluster, among: &[usize]) -> Option<(usize, u64)> {
    for &index in among {
        if let Some(status) = status(&cluster.endpoint(index)).await
            && status.header.as_ref().is_some_and(|header| header.member_id == status.leader)
        {
            return Some((index, status.raft_term));
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_a_lost_quorum_is_admitted() {
    let mut cluster = Cluster::start(&flotilla(), 3);
    let (leader, term) =
        leader_of(&cluster, &[0, 1, 2]).await.expect("a ready cluster has a leader");
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    put(&cluster.endpoint(leader), "before", "1", Duration::from_secs(5)).await.expect("healthy");

    cluster.kill(leader);
    let killed = Instant::now();
    let url = cluster.endpoint(others[0]);
    while put(&url, "after", "1", Duration::from_secs(8)).await.is_err() {
        assert!(killed.elapsed() < Duration::from_secs(10), "no new leader");
    }
    let gap = killed.elapsed();
    assert!(gap < Duration::from_secs(5), "writes came back after {gap:?}");
    let (second, second_term) = leader_of(&cluster, &others).await.expect("a new leader");
    assert!(second_term > term, "a new leader has a new term");

    let last = *others.iter().find(|index| **index != second).expect("three nodes");
    cluster.kill(second);
    let error = put(&cluster.endpoint(last), "never", "1", Duration::from_secs(15))
        .await
        .expect_err("one of three cannot write");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().starts_with("etcdserver: request timed out"), "{error}");
    let status = status(&cluster.endpoint(last)).await.expect("status is local");
    assert_eq!(status.leader, 0);
    assert!(status.errors.contains(&"etcdserver: no leader".to_owned()), "{:?}", status.errors);
    let mut client = KvClient::new(reach(&cluster.endpoint(last)).await.expect("it runs"));
    let request = RangeRequest { key: "before".into(), serializable: true, ..Default::default() };
    let answer = client.range(request).await.expect("serializable reads are local").into_inner();
    assert_eq!(answer.count, 1);

    cluster.spawn(leader);
    cluster.spawn(second);
    cluster.wait_all_ready();
    put(&cluster.endpoint(last), "healed", "1", Duration::from_secs(8)).await.expect("healed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::start(&flotilla(), 3);
    let (leader, _) = leader_of(&cluster, &[0, 1, 2]).await.expect("a ready cluster has a leader");
    let other = (leader + 1) % 3;
    let exit = cluster.stop(leader);
    assert!(exit.success(), "{exit}");
    // An election would take at least the election timeout of one second.
    let revision = put(&cluster.endpoint(other), "next", "1", Duration::from_millis(900)).await;
    assert!(revision.is_ok(), "{revision:?}");
}
