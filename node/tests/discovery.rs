//! Clusters whose members meet at a running cluster: of this program, and of etcd where one is
//! installed. Without one the test that needs it says that it was skipped.

mod harness;

use std::path::Path;
use std::time::Duration;

use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::etcdserverpb::cluster_client::ClusterClient;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use harness::{Cluster, etcd, flotilla};
use tonic::transport::{Channel, Endpoint};

/// How long a node may take until it leaves because it is not wanted.
const LEAVES_WITHIN: Duration = Duration::from_secs(20);

async fn channel(url: String) -> Channel {
    Endpoint::from_shared(url).expect("an address").connect().await.expect("a node that runs")
}

async fn put(place: &Cluster, key: &str, value: &str) {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let mut client = KvClient::new(channel(place.endpoint(0)).await);
    let request = pb::PutRequest { key, value, ..pb::PutRequest::default() };
    client.put(request).await.expect("a write");
}

async fn members(cluster: &Cluster, index: usize) -> Vec<String> {
    let mut client = ClusterClient::new(channel(cluster.endpoint(index)).await);
    let list = client.member_list(pb::MemberListRequest { linearizable: true }).await;
    let mut names: Vec<String> =
        list.expect("members").into_inner().members.into_iter().map(|it| it.name).collect();
    names.sort();
    names
}

/// Nodes that know nothing but the place and the token.
fn strangers(place: &Cluster, size: usize, token: &str) -> Cluster {
    let endpoints = format!("--discovery-endpoints={}", place.endpoint(0));
    let token = format!("--discovery-token={token}");
    let mut cluster = Cluster::prepare(&flotilla(), size, &[&endpoints, &token]);
    cluster.forget_members();
    cluster
}

async fn meet_at(binary: &Path) {
    let place = Cluster::start(binary, 1);
    put(&place, "/_etcd/registry/new/_config/size", "3").await;
    let mut cluster = strangers(&place, 3, "new");
    for index in 0..3 {
        cluster.spawn(index);
        // They come one after another, so the first ones have to wait.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    cluster.wait_all_ready();
    assert_eq!(members(&cluster, 2).await, ["n0", "n1", "n2"]);
    // Who is a member asks nobody any more.
    drop(place);
    cluster.stop(1);
    cluster.restart(1);
    assert_eq!(members(&cluster, 1).await.len(), 3);
}

#[tokio::test]
async fn members_meet_at_a_cluster_of_this_program() {
    meet_at(&flotilla()).await;
}

#[tokio::test]
async fn members_meet_at_an_etcd() {
    let Some(etcd) = etcd() else {
        harness::skip("no etcd is installed, so none was met at");
        return;
    };
    meet_at(&etcd).await;
}

#[tokio::test]
async fn who_is_not_wanted_at_the_place_leaves_and_says_why() {
    let place = Cluster::start(&flotilla(), 1);
    put(&place, "/_etcd/registry/bad/_config/size", "three").await;
    put(&place, "/_etcd/registry/full/_config/size", "1").await;
    put(&place, "/_etcd/registry/full/members/1", "other=http://127.0.0.1:1").await;
    let cases = [("none", "size key not found"), ("bad", "size key is bad"), ("full", "is full")];
    for (token, reason) in cases {
        let mut cluster = strangers(&place, 1, token);
        cluster.spawn(0);
        let status = cluster.wait_exit(0, LEAVES_WITHIN).expect("it leaves");
        let log = cluster.nodes[0].log();
        assert!(!status.success() && log.contains(reason), "{token}: {status}: {log}");
    }
}
