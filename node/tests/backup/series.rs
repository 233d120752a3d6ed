//! Directories of backups: increments that are taken while a cluster is written to, and the states that are
//! made of them, which are compared with what the cluster itself said of each revision.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::mvccpb::KeyValue;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::request_op::Request as Operation;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::Channel;

use super::harness::traffic::{PATIENT, channel};
use super::harness::{Cluster, flotilla};
use super::state::Client;
use super::{BUMP, USER, run, start, succeed, text};

const KEYS: usize = 12;
/// Longer than any test.
const TTL: i64 = 3_000;
const WITHIN: Duration = Duration::from_secs(30);

/// Writes what comes to its mind.
struct Traffic {
    rng: StdRng,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    leases: Vec<i64>,
    revision: i64,
}

fn key(n: usize) -> bytes::Bytes {
    format!("k/{n:02}").into()
}

impl Traffic {
    async fn new(url: &str, seed: u64) -> Self {
        let (rng, channel) = (StdRng::seed_from_u64(seed), channel(url).await);
        let (kv, lease) = (KvClient::new(channel.clone()), LeaseClient::new(channel));
        Self { rng, kv, lease, leases: Vec::new(), revision: 1 }
    }

    async fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step().await;
        }
    }

    async fn step(&mut self) {
        let header = match self.rng.random_range(0..100) {
            0..50 => {
                let put = self.put(None).await;
                self.kv.put(put).await.expect("a put").into_inner().header
            }
            50..62 => {
                let request = self.delete(None);
                self.kv.delete_range(request).await.expect("a delete").into_inner().header
            }
            62..68 => {
                let from = self.rng.random_range(0..KEYS);
                let range_end = key(from + 3);
                let request = pb::DeleteRangeRequest { key: key(from), range_end, prev_kv: false };
                self.kv.delete_range(request).await.expect("a delete").into_inner().header
            }
            68..94 => {
                let numbers = sample(&mut self.rng, KEYS, 4);
                let mut success = Vec::new();
                for (place, n) in numbers.into_iter().enumerate() {
                    let request = if place % 2 == 0 {
                        Operation::RequestPut(self.put(Some(n)).await)
                    } else {
                        Operation::RequestDeleteRange(self.delete(Some(n)))
                    };
                    success.push(pb::RequestOp { request: Some(request) });
                }
                let request = pb::TxnRequest { success, ..Default::default() };
                self.kv.txn(request).await.expect("a transaction").into_inner().header
            }
            _ => {
                let Some(id) = self.leases.pop() else { return };
                let request = pb::LeaseRevokeRequest { id };
                self.lease.lease_revoke(request).await.expect("a revoke").into_inner().header
            }
        };
        self.revision = self.revision.max(header.expect("a header").revision);
    }

    async fn put(&mut self, n: Option<usize>) -> pb::PutRequest {
        let n = n.unwrap_or_else(|| self.rng.random_range(0..KEYS));
        let lease = if self.rng.random_range(0..4) > 0 { 0 } else { self.some_lease().await };
        let long = if self.rng.random_range(0..10) == 0 { 20_000 } else { 3 };
        let value = format!("{}{}", self.rng.random::<u64>(), "x".repeat(long)).into();
        pb::PutRequest { key: key(n), value, lease, ..Default::default() }
    }

    fn delete(&mut self, n: Option<usize>) -> pb::DeleteRangeRequest {
        let n = n.unwrap_or_else(|| self.rng.random_range(0..KEYS));
        pb::DeleteRangeRequest { key: key(n), ..Default::default() }
    }

    async fn some_lease(&mut self) -> i64 {
        if self.leases.len() < 3 {
            let request = pb::LeaseGrantRequest { id: 0, ttl: TTL };
            let answer = self.lease.lease_grant(request).await.expect("a lease").into_inner();
            self.leases.push(answer.id);
        }
        self.leases[self.rng.random_range(0..self.leases.len())]
    }
}

fn backup(verb: &str, dir: &Path, flags: &[&str]) -> String {
    succeed(&flotilla(), &[&["backup", verb, text(dir)], flags].concat())
}

fn refused(verb: &str, dir: &Path, flags: &[&str]) -> String {
    let output = run(&flotilla(), &[&["backup", verb, text(dir)], flags].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{verb} {flags:?}: {said}");
    said
}

fn names(dir: &Path, suffix: &str) -> Vec<String> {
    let names = fs::read_dir(dir).expect("a directory");
    let names = names.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(suffix)).collect();
    names.sort();
    names
}

/// A cluster of one node, made of a directory.
fn restored(dir: &Path, flags: &[&str]) -> Cluster {
    let mut cluster = Cluster::prepare(&flotilla(), 1, &[]);
    let node = &cluster.nodes[0];
    let (data_dir, peer_url) = (node.data_dir(), node.peer_url());
    let (name, initial_cluster) = (node.name.clone(), cluster.initial_cluster());
    let of_member = ["--name", &name, "--data-dir", text(&data_dir)];
    let of_cluster =
        ["--initial-cluster", &initial_cluster, "--initial-advertise-peer-urls", &peer_url];
    backup("restore", dir, &[&of_member[..], &of_cluster, flags].concat());
    start(&mut cluster);
    cluster
}

/// Places and keys of the first changes.
async fn first_changes(client: &Client) -> Vec<(i64, bytes::Bytes)> {
    const COUNT: usize = 100;
    let mut changes = client.watch(2, COUNT).await.expect("history");
    changes.truncate(COUNT);
    changes
}

async fn kvs_at(client: &Client, revision: i64) -> Vec<KeyValue> {
    client.all(revision).await.unwrap_or_else(|error| panic!("{revision}: {error}")).kvs
}

/// Every key with a lease is attached to it, and no other.
async fn assert_attached(client: &Client, kvs: &[KeyValue]) {
    let mut of_lease: BTreeMap<i64, BTreeSet<bytes::Bytes>> = BTreeMap::new();
    for kv in kvs.iter().filter(|kv| kv.lease != 0) {
        of_lease.entry(kv.lease).or_default().insert(kv.key.clone());
    }
    let mut leases = LeaseClient::new(client.channel.clone());
    for (id, keys) in of_lease {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        let lease = leases.lease_time_to_live(request).await.expect("a lease").into_inner();
        assert_eq!(lease.keys.into_iter().collect::<BTreeSet<_>>(), keys, "{id}");
        assert_eq!(lease.granted_ttl, TTL);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_revision_is_restored_as_it_was() {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path().join("backups");
    let mut cluster =
        Cluster::prepare(&flotilla(), 3, &[PATIENT, "--initial-split-keys=k/03,k/07"]);
    start(&mut cluster);
    let mut traffic = Traffic::new(&cluster.endpoint(0), 1).await;
    let mut taken = Vec::new();
    for round in 0..4 {
        traffic.steps(30).await;
        // Any node will do.
        let said = backup("take", &dir, &["--endpoints", &cluster.endpoint(round % 3)]);
        assert_eq!(said.contains("a base is taken"), round == 0, "{said}");
        taken.push(traffic.revision);
    }
    assert_eq!(backup("take", &dir, &["--endpoints", &cluster.endpoint(1)]), "", "nothing is new");
    let last = traffic.revision;
    assert_eq!((names(&dir, ".db").len(), names(&dir, ".inc").len()), (1, 3));
    let can = format!("can be restored: revisions 1 to {last}\n");
    assert!(backup("status", &dir, &[]).contains(&can));
    assert!(backup("verify", &dir, &[]).contains(&can));
    let status: serde_json::Value =
        serde_json::from_str(&backup("status", &dir, &["-w", "json"])).expect("JSON");
    assert_eq!(status["restorable"], serde_json::json!([{ "first": 1, "last": last }]));
    assert_eq!(status["increments"][2]["last"], last);

    let old = Client::nobody(&cluster.endpoint(0)).await;
    let mut wanted = BTreeMap::new();
    for revision in 1..=last {
        wanted.insert(revision, kvs_at(&old, revision).await);
    }
    let changes = first_changes(&old).await;
    let is_together = |pair: &[(i64, bytes::Bytes)]| pair[0].0 == pair[1].0;
    assert!(changes.windows(2).any(is_together), "some are of one revision");
    let has = |is: fn(&KeyValue) -> bool| wanted.values().flatten().any(is);
    assert!(has(|kv| kv.lease != 0) && has(|kv| kv.version > 1));

    // The whole history, below the base's revision and behind it.
    let whole = restored(&dir, &["--bump-revision=0"]);
    let client = Client::nobody(&whole.endpoint(0)).await;
    for (revision, kvs) in &wanted {
        assert_eq!(&kvs_at(&client, *revision).await, kvs, "{revision}");
    }
    assert_eq!(first_changes(&client).await, changes);
    assert_attached(&client, &wanted[&last]).await;
    drop(whole);

    for revision in [taken[0] - 3, taken[0] + 1, taken[2] + 5] {
        let at = format!("--revision={revision}");
        let cut = restored(&dir, &[&at, "--bump-revision=0"]);
        let client = Client::nobody(&cut.endpoint(0)).await;
        assert_eq!(kvs_at(&client, 0).await, wanted[&revision], "{revision}");
        assert_eq!(kvs_at(&client, revision - 1).await, wanted[&(revision - 1)]);
        if revision > taken[0] {
            assert_attached(&client, &wanted[&revision]).await;
        }
        assert_eq!(client.put("new", "1", 0).await, revision + 1);
    }

    // By default nobody takes the new history for the old one.
    let revision = taken[1] + 2;
    let bumped = restored(&dir, &["--revision", &revision.to_string()]);
    let client = Client::nobody(&bumped.endpoint(0)).await;
    assert_eq!(kvs_at(&client, 0).await, wanted[&revision]);
    assert_eq!(client.watch(revision + 1, 1).await, Err(revision + BUMP));
    assert_eq!(client.put("new", "1", 0).await, revision + BUMP + 1);

    let prefixed = restored(&dir, &["--prefix=k/1", "--bump-revision=0"]);
    let client = Client::nobody(&prefixed.endpoint(0)).await;
    let mut kvs = wanted[&last].clone();
    kvs.retain(|kv| kv.key.starts_with(b"k/1"));
    assert_eq!(kvs_at(&client, 0).await, kvs);
    assert_attached(&client, &kvs).await;
    // A history with holes is nobody's to watch, nor is it one to be verified.
    assert_eq!(client.watch(last - 1, 1).await, Err(last));
    assert_eq!(client.put("new", "1", 0).await, last + 1);
}

fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    flotilla::calendar::moment(since.as_secs(), Some(since.subsec_micros()))
}

/// Damage and gaps are named, and nothing is made of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_or_missing_is_named() {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path().join("backups");
    let mut cluster = Cluster::prepare(&flotilla(), 1, &[]);
    start(&mut cluster);
    let url = cluster.endpoint(0);
    let endpoint = ["--endpoints", &url];
    let before = now();
    let mut traffic = Traffic::new(&url, 2).await;
    let (mut taken, mut moments) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        traffic.steps(8).await;
        backup("take", &dir, &endpoint);
        taken.push(traffic.revision);
        moments.push(now());
        // Moments are told apart by milliseconds.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let target = folder.path().join("target");
    let data_dir = format!("--data-dir={}", text(&target));
    for (revision, moment) in taken.iter().zip(&moments) {
        let said = backup("restore", &dir, &[&data_dir, "--time", moment]);
        let wanted = format!("revision {revision} is the last that was recorded by ");
        assert!(said.starts_with(&wanted), "{said}");
        let is_newest = Some(revision) == taken.last();
        assert_eq!(said.contains("nothing later is there"), is_newest, "{said}");
        fs::remove_dir_all(&target).expect("it was made");
    }
    let nothing = |flags: &[&str], reason: &str| {
        let said = refused("restore", &dir, &[&[&data_dir[..]], flags].concat());
        assert!(said.contains(reason), "{flags:?}: {said}");
        assert!(!target.exists(), "{flags:?}");
    };
    nothing(&["--time", &before], "nothing was recorded by");
    let beyond = (taken[3] + 1).to_string();
    nothing(&["--revision", &beyond], &format!("the newest revision in {}", text(&dir)));

    let increments = names(&dir, ".inc");
    let path = dir.join(&increments[1]);
    let bytes = fs::read(&path).expect("an increment");
    let at = (taken[1] + 1).to_string();
    for n in 0..10 {
        let mut changed = bytes.clone();
        changed[(bytes.len() - 1) * n / 9] ^= 1 << (n % 8);
        fs::write(&path, changed).expect("written");
        nothing(&["--revision", &at], &increments[1]);
        assert!(refused("verify", &dir, &[]).contains(&increments[1]));
    }
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    nothing(&[], &increments[1]);
    // What does not need it is there.
    backup("restore", &dir, &[&data_dir, "--revision", &taken[1].to_string()]);
    fs::remove_dir_all(&target).expect("it was made");

    fs::copy(dir.join(&increments[2]), &path).expect("copied");
    nothing(&[], &increments[1]);
    fs::remove_file(&path).expect("removed");
    let missing = format!("no increment with revision {at} is there");
    nothing(&[], &missing);
    nothing(&["--revision", &at], &missing);
    assert!(refused("verify", &dir, &[]).contains(&missing));
    assert!(backup("status", &dir, &[]).contains(&format!("MISSING: {missing}")));
    // It is said, and what comes after can be restored again.
    let said = backup("take", &dir, &endpoint);
    assert!(said.contains(&format!("a base is taken: {missing}")), "{said}");
    backup("restore", &dir, &[&data_dir]);
    fs::remove_dir_all(&target).expect("it was made");

    let bases = names(&dir, ".db");
    let newest = dir.join(bases.last().expect("a base"));
    let mut bytes = fs::read(&newest).expect("a base");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).expect("written");
    nothing(&[], bases.last().expect("a base"));
    assert!(refused("verify", &dir, &[]).contains(bases.last().expect("a base")));

    let other = Cluster::start(&flotilla(), 1);
    let said = refused("take", &dir, &["--endpoints", &other.endpoint(0)]);
    assert!(said.contains("another cluster needs another directory"), "{said}");

    // Founded anew in its place: with its id, and before long with its revisions.
    cluster.kill(0);
    fs::remove_dir_all(cluster.nodes[0].data_dir()).expect("removed");
    cluster.restart(0);
    let said = refused("take", &dir, &endpoint);
    assert!(said.contains("this is another history"), "{said}");
    let mut anew = Traffic::new(&url, 5).await;
    while anew.revision <= traffic.revision {
        anew.step().await;
    }
    let said = refused("take", &dir, &endpoint);
    assert!(said.contains("the cluster does not have what"), "{said}");
}

/// `flotilla backup take --follow`, which ends with the test.
struct Follower(Child);

impl Follower {
    fn start(dir: &Path, urls: &str) -> Self {
        let mut command = Command::new(flotilla());
        command.args(["backup", "take", text(dir), "--endpoints", urls]);
        command.args(["--follow", "--interval=200ms"]).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it starts"))
    }

    fn stop(mut self) {
        let pid = Pid::from_raw(self.0.id().try_into().expect("a process")).expect("a process");
        kill_process(pid, Signal::TERM).expect("SIGTERM is sent");
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until_restorable(dir: &Path, revision: i64) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let output = run(&flotilla(), &["backup", "status", text(dir), "-w", "json"]);
        if output.status.success() {
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let runs = status["restorable"].as_array().expect("runs");
            if runs.iter().any(|run| run["last"].as_i64() >= Some(revision)) {
                return;
            }
        }
        assert!(Instant::now() < deadline, "revision {revision} is not taken within {WITHIN:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_followed_through_restarts_and_gaps_are_told() {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path().join("backups");
    let mut cluster = Cluster::start(&flotilla(), 1);
    let url = cluster.endpoint(0);
    // Nobody is at the first address.
    let urls = format!("http://127.0.0.1:1,{url}");
    let follower = Follower::start(&dir, &urls);
    let mut traffic = Traffic::new(&url, 3).await;
    traffic.steps(40).await;
    until_restorable(&dir, traffic.revision);
    let refused_to = refused("take", &dir, &["--endpoints", &url]);
    assert!(refused_to.contains("another backup is under way"), "{refused_to}");

    // A node that is killed is asked again when it is back.
    cluster.kill(0);
    cluster.restart(0);
    let mut traffic = Traffic::new(&url, 4).await;
    traffic.steps(20).await;
    until_restorable(&dir, traffic.revision);
    drop(follower);
    traffic.steps(10).await;
    let follower = Follower::start(&dir, &urls);
    traffic.steps(10).await;
    until_restorable(&dir, traffic.revision);
    traffic.steps(5).await;
    // What was received becomes an increment before it ends.
    std::thread::sleep(Duration::from_millis(100));
    follower.stop();
    backup("take", &dir, &["--endpoints", &url]);
    let reached = traffic.revision;
    assert_eq!(names(&dir, ".db").len(), 1);
    assert!(backup("verify", &dir, &[]).contains(&format!("revisions 1 to {reached}\n")));

    traffic.steps(12).await;
    let client = Client::nobody(&url).await;
    let compacted = traffic.revision - 1;
    client.compact(compacted).await;
    let said = backup("take", &dir, &["--endpoints", &url]);
    let reason =
        format!("a base is taken: revision {} is compacted at {compacted} before", reached + 1);
    assert!(said.contains(&reason), "{said}");
    let status = backup("status", &dir, &[]);
    let hole =
        format!("MISSING: revisions {} to {} cannot be restored", reached + 1, compacted - 1);
    assert!(status.contains(&hole), "{status}");
    let data_dir = format!("--data-dir={}", text(&folder.path().join("target")));
    let within = (reached + 1).to_string();
    let said = refused("restore", &dir, &[&data_dir, "--revision", &within]);
    assert!(said.contains(&format!("no increment with revision {within} is there")), "{said}");

    // From here on there is no hole any more.
    traffic.steps(5).await;
    backup("take", &dir, &["--endpoints", &url]);
    let wanted = kvs_at(&client, traffic.revision).await;
    let restored = restored(&dir, &["--bump-revision=0"]);
    let new = Client::nobody(&restored.endpoint(0)).await;
    assert_eq!(kvs_at(&new, 0).await, wanted);

    // With the hole's other side, what is before it is let go.
    let said = backup("take", &dir, &["--endpoints", &url, "--base-every=0", "--keep=1"]);
    assert!(said.contains("the newest base is old enough"), "{said}");
    assert_eq!((names(&dir, ".db").len(), names(&dir, ".inc").len()), (1, 0));
    backup("verify", &dir, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_that_change_ask_for_a_base() {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path().join("backups");
    let cluster = Cluster::start(&flotilla(), 1);
    let url = cluster.endpoint(0);
    let endpoint = ["--endpoints", &url];
    let client = Client::nobody(&url).await;
    client.put("a", "1", 0).await;
    backup("take", &dir, &endpoint);
    // Writes, and turns authentication on.
    client.seed().await;
    let said = refused("take", &dir, &endpoint);
    assert!(said.contains("user name is empty"), "{said}");
    let as_root = [&endpoint[..], &USER].concat();
    let said = backup("take", &dir, &as_root);
    assert!(said.contains("a base is taken"), "{said}");
    assert_eq!(backup("take", &dir, &as_root), "", "they are the same");
    let root = Client::root(&url).await;
    let role = root.request(pb::AuthRoleAddRequest { name: "writer".to_owned() });
    AuthClient::new(root.channel.clone()).role_add(role).await.expect("a role");
    let said = backup("take", &dir, &as_root);
    assert!(said.contains("a base is taken: users or roles were changed"), "{said}");
    let restored = restored(&dir, &["--bump-revision=0"]);
    let (old, new) = (Client::root(&url).await, Client::root(&restored.endpoint(0)).await);
    assert_eq!(new.state().await, old.state().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_is_put_back_into_a_running_cluster() {
    let folder = TempDir::new().expect("a folder");
    let dir = folder.path().join("backups");
    let cluster = Cluster::start(&flotilla(), 1);
    let url = cluster.endpoint(0);
    let client = Client::nobody(&url).await;
    let mut lease = LeaseClient::new(client.channel.clone());
    for id in [5, 6] {
        let request = pb::LeaseGrantRequest { id, ttl: TTL };
        lease.lease_grant(request).await.expect("a lease");
    }
    for n in 0..300 {
        client.put(&format!("p/{n:03}"), &format!("old {n}"), 0).await;
    }
    client.put("p/leased", "old", 5).await;
    client.put("p/of a lease that ends", "old", 6).await;
    client.put("q", "old", 0).await;
    backup("take", &dir, &["--endpoints", &url]);
    let then = client.put("p/later", "new", 0).await - 1;
    for n in 0..200 {
        client.put(&format!("p/{n:03}"), "new", 0).await;
    }
    for n in 200..250 {
        client.delete(&format!("p/{n:03}")).await;
    }
    client.delete("p/leased").await;
    lease.lease_revoke(pb::LeaseRevokeRequest { id: 6 }).await.expect("a revoke");
    client.put("q", "new", 0).await;
    backup("take", &dir, &["--endpoints", &url]);

    let before = keys_and_values(&client).await;
    let at = format!("--revision={then}");
    let flags = ["--prefix=p/", "--endpoints", &url, &at];
    let said = backup("apply", &dir, &[&flags[..], &["--dry-run"]].concat());
    let counts = "251 put, 0 deleted, 50 unchanged, 1 that were not there left alone, 1 whose \
                  lease is gone left out";
    assert!(said.ends_with(&format!("would be: {counts}\n")), "{said}");
    assert_eq!(keys_and_values(&client).await, before, "nothing was written");

    let said = backup("apply", &dir, &flags);
    assert!(said.ends_with(&format!("{counts}, in 2 transactions\n")), "{said}");
    let mut after = keys_and_values(&client).await;
    assert_eq!(after.remove("p/later").as_deref(), Some("new"));
    assert_eq!(after.remove("q").as_deref(), Some("new"));
    assert_eq!(after.remove("p/leased").as_deref(), Some("old"));
    assert_eq!(after.len(), 300);
    assert!(after.iter().all(|(key, value)| *value == format!("old {}", number(key))), "{after:?}");

    let exact = [&flags[..], &["--exact", "--without-leases", "--max-txn-ops=1"]].concat();
    let said = backup("apply", &dir, &exact);
    assert!(said.ends_with("1 put, 1 deleted, 301 unchanged, in 2 transactions\n"), "{said}");
    let after = keys_and_values(&client).await;
    assert!(!after.contains_key("p/later") && after.contains_key("p/of a lease that ends"));
    let said = backup("apply", &dir, &exact);
    assert!(said.ends_with("0 put, 0 deleted, 302 unchanged, in 0 transactions\n"), "{said}");
}

async fn keys_and_values(client: &Client) -> BTreeMap<String, String> {
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    kvs_at(client, 0).await.into_iter().map(|kv| (text(kv.key), text(kv.value))).collect()
}

fn number(key: &str) -> usize {
    key.rsplit('/').next().and_then(|digits| digits.parse().ok()).expect("a number")
}
