//! The same random requests in lockstep to Flotilla and to the distribution's etcd; every answer
//! is compared field by field. `FLOTILLA_SEED` sets the seed and `FLOTILLA_REQUESTS` the number of
//! requests. Without an etcd the tests say that they were skipped.

#[path = "differential/answers.rs"]
mod answers;
mod harness;
#[path = "differential/requests.rs"]
mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::PathBuf;

use answers::{Answer, Needed, Outcome, Release};
use bytes::Bytes;
use flotilla_proto::etcdserverpb as pb;
use harness::Cluster;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use requests::{Generator, LEASES, Request};
use tonic::transport::{Channel, Endpoint};

const SEED: u64 = 3_407;
const REQUESTS: usize = 10_000;
/// On three nodes every answer rests on the same code; what is new is who answers.
const REQUESTS_OF_THREE_NODES: usize = 4_000;
const REQUESTS_OF_FIVE_NODES: usize = 2_000;
/// A run gives up after this many differences: later ones may only follow from the first.
const DIFFERENCES_MAX: usize = 5;
/// Requests shown before the first difference.
const SHOWN_BEFORE: usize = 6;
/// Revisions at which the whole stores are compared in the end.
const FINAL_READS: i64 = 200;

/// Outcomes that any run of the full length has met. One that is missing would mean that the
/// requests became too tame to tell the stores apart.
const EXPECTED: [&str; 26] = [
    "Range: ok",
    "Range: InvalidArgument etcdserver: key is not provided",
    "Range: OutOfRange etcdserver: mvcc: required revision is a future revision",
    "Range: OutOfRange etcdserver: mvcc: required revision has been compacted",
    "Put: ok",
    "Put: InvalidArgument etcdserver: key is not provided",
    "Put: InvalidArgument etcdserver: value is provided",
    "Put: InvalidArgument etcdserver: lease is provided",
    "Put: InvalidArgument etcdserver: key not found",
    "Put: NotFound etcdserver: requested lease not found",
    "DeleteRange: ok",
    "Txn: ok",
    "Txn: InvalidArgument etcdserver: duplicate key given in txn request",
    "Txn: InvalidArgument etcdserver: too many operations in txn request",
    "Txn: InvalidArgument etcdserver: key not found",
    "Txn: NotFound etcdserver: requested lease not found",
    "Txn: OutOfRange etcdserver: mvcc: required revision is a future revision",
    "Txn: OutOfRange etcdserver: mvcc: required revision has been compacted",
    "Compact: ok",
    "Compact: OutOfRange etcdserver: mvcc: required revision has been compacted",
    "Compact: OutOfRange etcdserver: mvcc: required revision is a future revision",
    "LeaseGrant: ok",
    "LeaseGrant: FailedPrecondition etcdserver: lease already exists",
    "LeaseGrant: OutOfRange etcdserver: too large lease TTL",
    "LeaseRevoke: ok",
    "LeaseRevoke: NotFound etcdserver: requested lease not found",
];

#[tokio::test]
async fn one_node_answers_as_etcd_does() {
    compare(1, REQUESTS, &[]).await;
}

#[tokio::test]
async fn three_nodes_answer_as_etcd_does() {
    compare(3, REQUESTS_OF_THREE_NODES, &[]).await;
}

#[tokio::test]
async fn three_nodes_with_eight_ranges_answer_as_etcd_does() {
    let cuts = "--initial-split-keys=a/,a/2,b,d,k02,k06,z";
    compare(3, REQUESTS_OF_THREE_NODES, &[cuts]).await;
}

#[tokio::test]
async fn five_nodes_with_sixty_four_ranges_answer_as_etcd_does() {
    let mut cuts: Vec<String> =
        ["a", "a/", "a/1", "a/2", "a/3", "a0", "b", "b/1", "b/2", "c", "d", "z"]
            .map(str::to_owned)
            .into();
    cuts.extend((0..51).map(|n| format!("k{n:02}")));
    let flag = format!("--initial-split-keys={}", cuts.join(","));
    compare(5, REQUESTS_OF_FIVE_NODES, &[&flag]).await;
}

async fn compare(size: usize, requests: usize, flags: &[&str]) {
    let Some(etcd) = etcd() else { return };
    let ours = Cluster::start_with(&harness::flotilla(), size, flags);
    let theirs = Cluster::start(&etcd, 1);
    let mut run = Run {
        generator: Generator::new(number("FLOTILLA_SEED", SEED)),
        ours: Store::connect(&ours).await,
        theirs: Store::connect(&theirs).await,
        release: release(&theirs.endpoint(0)).await,
        met: BTreeMap::new(),
        needed: Needed::new(),
        before: VecDeque::new(),
        differences: Vec::new(),
    };
    let requests = number("FLOTILLA_REQUESTS", requests);
    for _ in 0..requests {
        let request = run.generator.next();
        run.step(request).await;
    }
    run.compare_all_revisions().await;
    for request in at_the_limits() {
        run.step(request).await;
    }
    println!("{size} nodes: {requests} requests, seed {}", number("FLOTILLA_SEED", SEED));
    println!(
        "outcomes: {:#?}\netcd {:?}, exceptions needed: {:#?}",
        run.met, run.release, run.needed
    );
    run.assert_same(0);
    let missing: Vec<_> = EXPECTED.iter().filter(|label| !run.met.contains_key(**label)).collect();
    assert!(missing.is_empty() || requests < REQUESTS, "never met: {missing:#?}");
}

async fn release(url: &str) -> Release {
    let channel = Endpoint::from_shared(url.to_owned()).expect("the harness gives URLs");
    let channel = channel.connect().await.expect("a ready node takes connections");
    let mut maintenance = MaintenanceClient::new(channel);
    let status = maintenance.status(pb::StatusRequest {}).await.expect("etcd has a status");
    let version = status.into_inner().version;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor),
        _ => panic!("etcd has the version {version:?}"),
    }
}

fn etcd() -> Option<PathBuf> {
    let found = harness::etcd();
    if found.is_none() {
        harness::skip("etcd is not installed, so nothing was compared with it");
    }
    found
}

fn number<N: std::str::FromStr>(variable: &str, otherwise: N) -> N {
    match std::env::var(variable) {
        Ok(text) => text.parse().ok().unwrap_or_else(|| panic!("{variable} is not a number")),
        Err(_) => otherwise,
    }
}

/// Requests that a run makes once: large ones, and leases that would expire during the run.
fn at_the_limits() -> Vec<Request> {
    let put = |size: usize| {
        Request::Put(pb::PutRequest {
            key: Bytes::from_static(b"large"),
            value: Bytes::from(vec![b'v'; size]),
            ..pb::PutRequest::default()
        })
    };
    // Just below and at the limit of a request, and above that of a message.
    let mut requests = vec![put(1_572_000), put(1_572_864), put(2_200_000)];
    for (id, ttl) in [(1_001, 0), (1_002, -5), (1_003, 1), (1_004, 2), (1_005, 3)] {
        requests.push(Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl }));
    }
    requests
}

struct Run {
    generator: Generator,
    ours: Store,
    theirs: Store,
    /// Of the etcd.
    release: Release,
    /// How often each kind of outcome was met.
    met: BTreeMap<String, u32>,
    needed: Needed,
    before: VecDeque<String>,
    differences: Vec<String>,
}

impl Run {
    async fn step(&mut self, request: Request) {
        let node = self.generator.below(self.ours.nodes.len());
        if depends_on_the_node(&request) {
            self.ours.catch_up().await;
        }
        let (ours, theirs) =
            tokio::join!(self.ours.nodes[node].call(&request), self.theirs.nodes[0].call(&request));
        let (mut ours, mut theirs) = (answers::outcome(ours), answers::outcome(theirs));
        // While no key is alive at the revision, etcd hashes what its unfinished compaction has yet
        // to remove, so its hash may change. Ours may not, however far its own compaction is.
        let mut attempts_left = if matches!(request, Request::HashKv(_)) { 50 } else { 0 };
        while attempts_left > 0 && !self.agrees(&request, &ours, &theirs) {
            attempts_left -= 1;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let (mine, other) = tokio::join!(
                self.ours.nodes[node].call(&request),
                self.theirs.nodes[0].call(&request)
            );
            let mine = answers::outcome(mine);
            assert_eq!(mine, ours, "the hash of a revision changed: {request:?}");
            (ours, theirs) = (mine, answers::outcome(other));
        }
        *self.met.entry(answers::label(&request, &ours)).or_default() += 1;
        if !answers::agree(&request, &ours, &theirs, self.release, &mut self.needed) {
            self.differences.push(self.report(&request, node, &ours, &theirs));
            self.assert_same(DIFFERENCES_MAX - 1);
        }
        self.learn(&request, &theirs);
        self.before.push_back(format!("{request:?}\n    -> {}", shorten(&theirs)));
        if self.before.len() > SHOWN_BEFORE {
            self.before.pop_front();
        }
    }

    fn agrees(&self, request: &Request, ours: &Outcome, theirs: &Outcome) -> bool {
        answers::agree(request, ours, theirs, self.release, &mut Needed::new())
    }

    fn assert_same(&self, differences_max: usize) {
        let count = self.differences.len();
        assert!(count <= differences_max, "{count} differences:\n{}", self.differences.join("\n"));
    }

    fn learn(&mut self, request: &Request, outcome: &Outcome) {
        let Ok(answer) = outcome else { return };
        if let (Request::Compact(request), Answer::Compact(_)) = (request, answer) {
            self.generator.compacted = request.revision;
        }
        let header = match answer {
            Answer::Put(answer) => &answer.header,
            Answer::DeleteRange(answer) => &answer.header,
            Answer::Txn(answer) => &answer.header,
            Answer::LeaseRevoke(answer) => &answer.header,
            _ => return,
        };
        let header = header.as_ref().expect("an answer has a header");
        assert!(header.revision >= self.generator.revision, "etcd's revision goes up");
        self.generator.revision = header.revision;
    }

    /// Reads the whole store at many revisions, and all leases.
    async fn compare_all_revisions(&mut self) {
        let (first, last) = (self.generator.compacted.max(1), self.generator.revision);
        let step = ((last - first) / FINAL_READS).max(1);
        let mut revision = first;
        while revision <= last {
            self.step(Request::Range(whole_store(revision))).await;
            self.step(Request::HashKv(pb::HashKvRequest { revision })).await;
            revision += step;
        }
        for id in LEASES {
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            self.step(Request::LeaseTimeToLive(request)).await;
        }
    }

    fn report(&self, request: &Request, node: usize, ours: &Outcome, theirs: &Outcome) -> String {
        let mut text = format!(
            "answers differ at revision {}, compacted {}, asked node {node}\n",
            self.generator.revision, self.generator.compacted
        );
        for line in &self.before {
            let _ = writeln!(text, "  before: {line}");
        }
        let _ = write!(text, "request: {request:#?}\nflotilla: {ours:#?}\netcd: {theirs:#?}");
        text
    }
}

fn whole_store(revision: i64) -> pb::RangeRequest {
    let zero = Bytes::from_static(b"\0");
    pb::RangeRequest { key: zero.clone(), range_end: zero, revision, ..Default::default() }
}

fn shorten(outcome: &Outcome) -> String {
    let text = format!("{outcome:?}");
    text.chars().take(300).collect()
}

/// True for a call that a node answers from what it has applied itself.
fn depends_on_the_node(request: &Request) -> bool {
    match request {
        Request::Range(read) => read.serializable,
        // A transaction of serializable reads, or of none, reads locally.
        Request::Txn(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases(_)
        | Request::HashKv(_) => true,
        _ => false,
    }
}

/// Connections to all nodes of a cluster.
struct Store {
    nodes: Vec<Clients>,
}

impl Store {
    async fn connect(cluster: &Cluster) -> Self {
        let mut nodes = Vec::new();
        for url in cluster.endpoints() {
            let endpoint = Endpoint::from_shared(url).expect("the harness gives URLs");
            let channel = endpoint.connect().await.expect("a ready node takes connections");
            nodes.push(Clients::new(&channel));
        }
        Self { nodes }
    }

    /// Brings every node to the cluster's revision: a linearizable read waits for it.
    async fn catch_up(&mut self) {
        if self.nodes.len() == 1 {
            return;
        }
        let request = pb::RangeRequest { count_only: true, ..whole_store(0) };
        let read = |node: &Clients| {
            let (mut kv, request) = (node.kv.clone(), request.clone());
            async move { kv.range(request).await }
        };
        for answer in futures::future::join_all(self.nodes.iter().map(read)).await {
            answer.expect("a healthy cluster answers reads");
        }
    }
}

struct Clients {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl Clients {
    fn new(channel: &Channel) -> Self {
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
        }
    }

    async fn call(&mut self, request: &Request) -> Result<Answer, tonic::Status> {
        let (kv, lease) = (&mut self.kv, &mut self.lease);
        Ok(match request.clone() {
            Request::Range(request) => Answer::Range(kv.range(request).await?.into_inner()),
            Request::Put(request) => Answer::Put(kv.put(request).await?.into_inner()),
            Request::DeleteRange(request) => {
                Answer::DeleteRange(kv.delete_range(request).await?.into_inner())
            }
            Request::Txn(request) => Answer::Txn(kv.txn(request).await?.into_inner()),
            Request::Compact(request) => Answer::Compact(kv.compact(request).await?.into_inner()),
            Request::LeaseGrant(request) => {
                Answer::LeaseGrant(lease.lease_grant(request).await?.into_inner())
            }
            Request::LeaseRevoke(request) => {
                Answer::LeaseRevoke(lease.lease_revoke(request).await?.into_inner())
            }
            Request::LeaseTimeToLive(request) => {
                Answer::LeaseTimeToLive(lease.lease_time_to_live(request).await?.into_inner())
            }
            Request::LeaseLeases(request) => {
                Answer::LeaseLeases(lease.lease_leases(request).await?.into_inner())
            }
            Request::HashKv(request) => {
                Answer::HashKv(self.maintenance.hash_kv(request).await?.into_inner())
            }
        })
    }
}
