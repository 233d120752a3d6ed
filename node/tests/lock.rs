//! Locks and elections by their services, among each other and beside clients that follow the same
//! recipe by themselves: the distribution's etcdctl. Without one the tests that need it say that they
//! were skipped.

mod harness;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::v3electionpb::election_client::ElectionClient;
use flotilla_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use flotilla_proto::v3lockpb::lock_client::LockClient;
use flotilla_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use harness::{Cluster, flotilla};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long anything may take that need not wait for anyone.
const PROMPT: Duration = Duration::from_secs(20);
/// How long is watched that something does not happen.
const WHILE: Duration = Duration::from_millis(700);

async fn channel(cluster: &Cluster, index: usize) -> Channel {
    let endpoint = Endpoint::from_shared(cluster.endpoint(index)).expect("an address");
    endpoint.connect().await.expect("a ready node takes connections")
}

async fn lease(channel: &Channel, ttl: i64) -> i64 {
    let mut client = LeaseClient::new(channel.clone());
    let granted = client.lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await;
    granted.expect("a lease").into_inner().id
}

async fn lock(channel: &Channel, name: &str, lease: i64) -> Result<LockResponse, Status> {
    let request = LockRequest { name: name.to_owned().into(), lease };
    Ok(LockClient::new(channel.clone()).lock(request).await?.into_inner())
}

async fn unlock(channel: &Channel, key: bytes::Bytes) {
    let unlocked = LockClient::new(channel.clone()).unlock(UnlockRequest { key }).await;
    unlocked.expect("an unlock is done, whatever was there");
}

async fn keys(channel: &Channel, prefix: &str) -> Vec<(bytes::Bytes, i64)> {
    let request = pb::RangeRequest {
        key: format!("{prefix}/").into(),
        range_end: format!("{prefix}0").into(),
        ..pb::RangeRequest::default()
    };
    let answer = KvClient::new(channel.clone()).range(request).await.expect("a read");
    answer.into_inner().kvs.into_iter().map(|kv| (kv.key, kv.create_revision)).collect()
}

async fn until_there_are(channel: &Channel, prefix: &str, count: usize) {
    let there = async {
        while keys(channel, prefix).await.len() != count {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PROMPT, there).await.unwrap_or_else(|_| panic!("not {count} keys under {prefix}/"));
}

#[tokio::test]
async fn a_lock_has_one_holder_and_goes_to_those_who_wait_in_their_order() {
    let cluster = Cluster::start(&flotilla(), 3);
    let mut holders = Vec::new();
    for index in 0..5 {
        let channel = channel(&cluster, index % 3).await;
        let lease = lease(&channel, 60).await;
        let waiting = {
            let channel = channel.clone();
            tokio::spawn(async move { lock(&channel, "l", lease).await })
        };
        // Everyone has a place before the next one comes.
        until_there_are(&channel, "l", index + 1).await;
        holders.push((channel, lease, waiting));
    }
    let mut tokens = Vec::new();
    for index in 0..5 {
        let (channel, lease, waiting) = &mut holders[index];
        let held = timeout(PROMPT, waiting).await.expect("its turn has come");
        let held = held.expect("no panic").expect("it holds the lock");
        assert_eq!(held.key, format!("l/{lease:x}"));
        let header = held.header.expect("a header");
        assert!(header.revision > 0 && header.member_id != 0);
        let token = keys(channel, "l").await.into_iter().find(|(key, _)| *key == held.key);
        tokens.push(token.expect("the holder's key is there").1);
        sleep(WHILE / 5).await;
        assert!(holders[index + 1..].iter().all(|(_, _, waiting)| !waiting.is_finished()));
        unlock(&holders[index].0, held.key).await;
    }
    assert!(tokens.is_sorted_by(|a, b| a < b), "a later holder has a larger token: {tokens:?}");
}

#[tokio::test]
async fn locks_follow_their_leases_and_callers() {
    let cluster = Cluster::start(&flotilla(), 1);
    let channel = channel(&cluster, 0).await;
    // Without a lease it has one of its own.
    let first = lock(&channel, "l", 0).await.expect("nobody has it");
    let hex = std::str::from_utf8(&first.key["l/".len()..]).expect("text");
    let own = i64::from_str_radix(hex, 16).expect("a lease in hex");
    let request = pb::LeaseTimeToLiveRequest { id: own, keys: true };
    let lives = LeaseClient::new(channel.clone()).lease_time_to_live(request).await;
    let lives = lives.expect("it exists").into_inner();
    assert_eq!((lives.granted_ttl, lives.keys), (60, vec![first.key.clone()]));
    // Who asks again with the same lease has it already.
    assert_eq!(lock(&channel, "l", own).await.expect("its own").key, first.key);

    // Who hangs up leaves the queue.
    let impatient = lease(&channel, 60).await;
    let waited = timeout(WHILE, lock(&channel, "l", impatient)).await;
    assert!(waited.is_err(), "the lock is held");
    until_there_are(&channel, "l", 1).await;

    // So does who loses its lease, and hears of it when it would be its turn.
    let lost = lease(&channel, 60).await;
    let waiting = {
        let channel = channel.clone();
        tokio::spawn(async move { lock(&channel, "l", lost).await })
    };
    until_there_are(&channel, "l", 2).await;
    let revoke = pb::LeaseRevokeRequest { id: lost };
    LeaseClient::new(channel.clone()).lease_revoke(revoke).await.expect("it exists");
    sleep(WHILE).await;
    assert!(!waiting.is_finished());
    unlock(&channel, first.key).await;
    let error = timeout(PROMPT, waiting).await.expect("its turn").expect("no panic");
    let error = error.expect_err("its lease has gone");
    assert_eq!((error.code(), error.message()), (Code::Unknown, "mutex: session is expired"));

    // A holder whose lease ends has lost the lock.
    let short = lease(&channel, 2).await;
    lock(&channel, "l", short).await.expect("nobody has it");
    timeout(PROMPT, lock(&channel, "l", 0)).await.expect("it ends").expect("the next one");
    let error = lock(&channel, "l", 77).await.expect_err("no such lease");
    let expected = (Code::Unknown, "etcdserver: requested lease not found");
    assert_eq!((error.code(), error.message()), expected);
}

fn etcdctl(url: &str, arguments: &[&str]) -> Option<Child> {
    let Some(program) = harness::etcdctl() else {
        harness::skip("no etcdctl is installed, so locks were not tried beside it");
        return None;
    };
    let mut command = Command::new(program);
    command.env("ETCDCTL_API", "3").args(["--endpoints", url]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Some(command.spawn().expect("etcdctl runs"))
}

/// The lines that a process prints, as they come.
fn lines(child: &mut Child) -> tokio::sync::mpsc::Receiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn interrupt(child: &mut Child) {
    let id = i32::try_from(child.id()).expect("process ids are positive i32");
    kill_process(Pid::from_raw(id).expect("not zero"), Signal::INT).expect("it runs");
    child.wait().expect("it leaves");
}

#[tokio::test]
async fn callers_and_etcdctl_exclude_each_other() {
    let cluster = Cluster::start(&flotilla(), 1);
    let channel = channel(&cluster, 0).await;
    let held = lock(&channel, "l", 0).await.expect("nobody has it");
    let url = cluster.endpoint(0);
    let Some(mut waiting) = etcdctl(&url, &["lock", "l"]) else { return };
    let mut said = lines(&mut waiting);
    until_there_are(&channel, "l", 2).await;
    assert!(timeout(WHILE, said.recv()).await.is_err(), "etcdctl waits");
    unlock(&channel, held.key).await;
    let key = timeout(PROMPT, said.recv()).await.expect("its turn").expect("its key");
    assert!(key.starts_with("l/"), "{key}");

    // The other way round.
    let next = {
        let channel = channel.clone();
        tokio::spawn(async move { lock(&channel, "l", 0).await })
    };
    until_there_are(&channel, "l", 2).await;
    sleep(WHILE).await;
    assert!(!next.is_finished(), "etcdctl holds it");
    interrupt(&mut waiting);
    timeout(PROMPT, next).await.expect("its turn").expect("no panic").expect("the lock");
}

#[tokio::test]
async fn candidates_and_etcdctl_elect_one_leader() {
    let cluster = Cluster::start(&flotilla(), 1);
    let channel = channel(&cluster, 0).await;
    let mut election = ElectionClient::new(channel.clone());
    let name = bytes::Bytes::from_static(b"e");
    let asked = LeaderRequest { name: name.clone() };
    let error = election.leader(asked.clone()).await.expect_err("nobody stands");
    assert_eq!((error.code(), error.message()), (Code::Unknown, "election: no leader"));
    let mut observed = election.observe(asked.clone()).await.expect("a stream").into_inner();

    let stand = |value: &str, lease| CampaignRequest {
        name: name.clone(),
        lease,
        value: value.to_owned().into(),
    };
    let own = lease(&channel, 60).await;
    let elected = election.campaign(stand("one", own)).await.expect("nobody else stands");
    let elected = elected.into_inner();
    let leader = elected.leader.expect("a leader");
    assert_eq!((leader.key.clone(), leader.lease), (format!("e/{own:x}").into(), own));
    assert_eq!(elected.header.expect("a header").revision, leader.rev);
    let mut next_value = async || {
        let seen = timeout(PROMPT, observed.message()).await.expect("it is told");
        let kv = seen.expect("the stream goes on").expect("it has no end").kv.expect("a key");
        String::from_utf8(kv.value.to_vec()).expect("text")
    };
    assert_eq!(next_value().await, "one");

    let proclaim = |leader: &LeaderKey, value: &str| ProclaimRequest {
        leader: Some(leader.clone()),
        value: value.to_owned().into(),
    };
    election.proclaim(proclaim(&leader, "two")).await.expect("it leads");
    assert_eq!(next_value().await, "two");
    // Standing again with another value is proclaiming it.
    let again = election.campaign(stand("three", own)).await.expect("it leads already");
    assert_eq!(again.into_inner().leader, Some(leader.clone()));
    assert_eq!(next_value().await, "three");

    let url = cluster.endpoint(0);
    let Some(mut candidate) = etcdctl(&url, &["elect", "e", "of etcdctl"]) else { return };
    let mut said = lines(&mut candidate);
    until_there_are(&channel, "e", 2).await;
    assert!(timeout(WHILE, said.recv()).await.is_err(), "etcdctl waits");
    let Some(mut listener) = etcdctl(&url, &["elect", "--listen", "e"]) else { return };
    let mut heard = lines(&mut listener);
    assert_eq!(timeout(PROMPT, heard.recv()).await.expect("it is told"), Some(text(&leader.key)));

    let stale = LeaderKey { rev: leader.rev - 1, ..leader.clone() };
    let error = election.proclaim(proclaim(&stale, "x")).await.expect_err("another key");
    assert_eq!((error.code(), error.message()), (Code::Unknown, "election: not leader"));
    election.resign(ResignRequest { leader: Some(stale) }).await.expect("it is silent");
    let now = election.leader(asked.clone()).await.expect("a leader").into_inner();
    assert_eq!(now.kv.expect("a key").key, leader.key);

    election.resign(ResignRequest { leader: Some(leader) }).await.expect("it leads");
    let key = timeout(PROMPT, said.recv()).await.expect("its turn").expect("its key");
    assert_eq!(next_value().await, "of etcdctl");
    let now = election.leader(asked).await.expect("a leader").into_inner();
    assert_eq!(text(&now.kv.expect("a key").key), key);
    let error = election.resign(ResignRequest { leader: None }).await.expect_err("of whom?");
    assert_eq!(error.message(), "\"leader\" field must be provided");
    interrupt(&mut candidate);
    interrupt(&mut listener);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
