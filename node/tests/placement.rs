//! A cluster that looks after itself: ranges that grow are split, leaders spread over the nodes and
//! leave one that is drained, what a dead node held is made anew, while clients write and watch. No call fails but by an error that
//! clients repeat, nothing is lost, and every watcher sees each revision once and in order.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::cluster_client::ClusterClient;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::{
    MemberAddRequest, MemberListRequest, MemberRemoveRequest, PutRequest, RangeRequest,
};
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{
    Decision, DecisionsRequest, DrainRequest, RangeInfo, RangeListRequest, RangeListResponse,
    SplitRequest, TransferRequest,
};
use harness::traffic::{channel, watch_from};
use harness::{Cluster, flotilla, http_get};
use tokio::sync::watch;
use tonic::{Code, Status};

const NODES: usize = 3;
const WRITERS: usize = 12;
/// A range is split above so many.
const SPLIT_KEYS: u64 = 1_000;
/// Keys that there will be.
const KEYS: usize = 6_000;
/// As many splits as that needs, at least.
const RANGES_MIN: usize = 5;
const SPREAD_WITHIN: Duration = Duration::from_secs(90);
/// A node is dead after ten seconds of silence, and its replicas move one after the other.
const MOVED_WITHIN: Duration = Duration::from_secs(120);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(100);

/// What a client of etcd repeats by itself.
fn is_retriable(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || status.message() == "etcdserver: too many requests"
        || status.code() == Code::Cancelled
}

/// Writes its share of all keys, in no order, once, and then again and again until it is stopped.
/// Gives back what each key had last, and how many calls had to be repeated.
async fn write(
    url: String,
    writer: usize,
    full: tokio::sync::mpsc::Sender<()>,
    stop: watch::Receiver<bool>,
) -> (BTreeMap<String, String>, usize) {
    let mut client = KvClient::new(channel(&url).await);
    let (mut written, mut repeated) = (BTreeMap::new(), 0);
    let share = KEYS / WRITERS;
    for n in 0.. {
        if n == share {
            full.send(()).await.expect("it is waited for");
        }
        if n >= share && *stop.borrow() {
            break;
        }
        let place = (n % share * WRITERS + writer) * 7_919 % KEYS;
        let (key, value) = (format!("k/{place:05}"), format!("{writer}/{n}"));
        loop {
            let put = PutRequest {
                key: key.clone().into(),
                value: value.clone().into(),
                ..PutRequest::default()
            };
            match client.put(put).await {
                Ok(_) => break,
                Err(status) => {
                    assert!(is_retriable(&status), "{key} at {url}: {status}");
                    repeated += 1;
                }
            }
        }
        written.insert(key, value);
    }
    (written, repeated)
}

/// Watches everything from the beginning: each revision once and in order, up to the last. Gives
/// back what the keys had then.
async fn watch_all(url: String, mut last: watch::Receiver<i64>) -> BTreeMap<String, String> {
    let mut answers = watch_from(&url, 1).await.expect("a watch");
    let (mut seen, mut newest) = (BTreeMap::new(), 1);
    loop {
        let end = *last.borrow();
        if end > 0 && newest == end {
            return seen;
        }
        let answer = tokio::select! {
            answer = answers.message() => answer.expect("the stream goes on").expect("no end"),
            _ = last.changed() => continue,
            () = tokio::time::sleep(CATCH_UP_WITHIN) => {
                panic!("{url}: {newest} of {end} after {CATCH_UP_WITHIN:?}")
            }
        };
        assert!(!answer.canceled, "{url}: {answer:?}");
        for event in answer.events {
            let kv = event.kv.expect("an event has a key");
            assert_eq!(kv.mod_revision, newest + 1, "{url}: each revision once, in order");
            newest = kv.mod_revision;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            seen.insert(text(&kv.key), text(&kv.value));
        }
    }
}

/// Everything there is, and the revision of that.
async fn list_all(url: &str) -> (BTreeMap<String, String>, i64) {
    let all =
        RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() };
    let answer = KvClient::new(channel(url).await).range(all).await.expect("a list").into_inner();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kvs = answer.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
    (kvs, answer.header.expect("an answer has a header").revision)
}

/// The table of the node that leads the spine, which knows sizes; `None` while none does.
async fn surveyed(urls: &[String]) -> Option<(String, RangeListResponse)> {
    for url in urls {
        let mut admin = AdminClient::new(channel(url).await);
        let answer = admin.range_list(RangeListRequest {}).await.expect("a table").into_inner();
        if answer.is_surveyed {
            return Some((url.clone(), answer));
        }
    }
    None
}

/// Waits until the leader's table is as wanted.
async fn until(
    urls: &[String],
    within: Duration,
    what: &str,
    is_so: impl Fn(&RangeListResponse) -> bool,
) -> RangeListResponse {
    let started = Instant::now();
    loop {
        let known = surveyed(urls).await;
        if let Some((_, answer)) = &known
            && is_so(answer)
        {
            eprintln!("{what}: after {:?}", started.elapsed());
            return answer.clone();
        }
        if started.elapsed() >= within {
            let decisions = decisions(urls).await;
            panic!("not {what} within {within:?}: {known:#?}\n{decisions:#?}");
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// What is on record, as each node has it.
async fn decisions(urls: &[String]) -> Vec<Vec<Decision>> {
    let mut all = Vec::new();
    for url in urls {
        let mut admin = AdminClient::new(channel(url).await);
        let answer = admin.decisions(DecisionsRequest {}).await.expect("an answer").into_inner();
        all.push(answer.decisions);
    }
    all
}

/// Ranges beside range 0 by the node that leads them.
fn leaders(ranges: &[RangeInfo]) -> BTreeMap<u64, usize> {
    let mut leaders = BTreeMap::new();
    for range in ranges.iter().filter(|range| range.range != 0) {
        *leaders.entry(range.leader).or_default() += 1;
    }
    leaders
}

async fn drain(url: &str, node: &str, is_draining: bool) -> u64 {
    let request = DrainRequest { node: node.to_owned(), is_draining };
    let answer = AdminClient::new(channel(url).await).drain(request).await;
    answer.unwrap_or_else(|error| panic!("{node}: {error}")).into_inner().node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_split_and_spread_by_themselves_and_a_drained_node_leads_nothing() {
    let limit = format!("--split-keys={SPLIT_KEYS}");
    let flags = [limit.as_str(), "--placement-interval=300ms"];
    let cluster = Cluster::start_with(&flotilla(), NODES, &flags);
    let urls = cluster.endpoints();
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = watch::channel(0);
    let (full, mut filled) = tokio::sync::mpsc::channel(WRITERS);
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(urls[n % NODES].clone(), n, full.clone(), stopped.clone())))
        .collect();
    let watchers: Vec<_> =
        urls.iter().map(|url| tokio::spawn(watch_all(url.clone(), ended.clone()))).collect();
    let started = Instant::now();
    for _ in 0..WRITERS {
        filled.recv().await.expect("writers go on");
    }
    eprintln!("{KEYS} keys are written: after {:?}", started.elapsed());

    // Small enough, and led by all.
    let spread = until(&urls, SPREAD_WITHIN, "split and spread", |known| {
        let is_small = |range: &RangeInfo| {
            range.survey.as_ref().is_some_and(|survey| survey.keys <= SPLIT_KEYS)
        };
        let leaders = leaders(&known.ranges);
        known.ranges.len() >= RANGES_MIN
            && known.ranges.iter().all(is_small)
            && leaders.len() == NODES
            && !leaders.contains_key(&0)
    });
    let spread = spread.await;
    assert_eq!(spread.nodes.len(), NODES);
    assert!(spread.nodes.iter().all(|node| node.capacity_bytes > 0), "{:?}", spread.nodes);

    // The node that leads most, the spine's leader if it is among them, is drained.
    let root = spread.ranges.iter().find(|range| range.range == 0).expect("it is always there");
    let drained = spread.nodes.iter().find(|node| node.node == root.leader).expect("a member");
    let id = drain(&urls[0], &drained.name, true).await;
    assert_eq!(id, drained.node);
    let left = until(&urls, SPREAD_WITHIN, "led by others", |known| {
        let is_empty = known.ranges.iter().all(|range| range.leader != id && range.leader != 0);
        is_empty && known.nodes.iter().any(|node| node.node == id && node.is_draining)
    });
    left.await;

    // An operator overrules placement until it looks again.
    drain(&urls[1], &format!("{id:x}"), false).await;
    let range = spread.ranges.iter().map(|range| range.range).max().expect("there are ranges");
    let request = TransferRequest { range, node: drained.name.clone() };
    let moved = AdminClient::new(channel(&urls[2]).await).transfer(request).await;
    assert_eq!(moved.expect("a voter can lead").into_inner().node, id);
    let again = until(&urls, SPREAD_WITHIN, "led by all again", |known| {
        let leaders = leaders(&known.ranges);
        leaders.len() == NODES && !leaders.contains_key(&0)
    });
    again.await;

    stop.send(true).expect("clients listen");
    let (mut written, mut repeated) = (BTreeMap::new(), 0);
    for writer in writers {
        let (keys, count) = writer.await.expect("a writer does not panic");
        written.extend(keys);
        repeated += count;
    }
    eprintln!("{repeated} calls were repeated");
    assert_eq!(written.len(), KEYS);
    let (all, newest) = list_all(&urls[1]).await;
    assert!(all == written, "what was written is what is there");
    end.send(newest).expect("watchers listen");
    for watcher in watchers {
        assert!(watcher.await.expect("a watcher does not panic") == written, "and what was seen");
    }

    // The spine has had two leaders at least, and every node knows what each of them decided.
    for decisions in decisions(&urls).await {
        let done = decisions.iter().filter(|decision| decision.outcome == "done");
        let rules: BTreeSet<&str> = done.map(|decision| decision.rule.as_str()).collect();
        for rule in ["split_large", "balance_leaders", "drain_node", "operator"] {
            assert!(rules.contains(rule), "{rule}: {decisions:#?}");
        }
        let is_told =
            |it: &Decision| it.time_ms > 0 && !it.step.is_empty() && !it.reason.is_empty();
        assert!(decisions.iter().all(is_told), "{decisions:#?}");
        let is_moved = |it: &Decision| it.step.starts_with("move_spine_leader ");
        assert!(decisions.iter().any(is_moved), "{decisions:#?}");
    }
    let (_, metrics) = http_get(cluster.nodes[0].client_port, "/metrics").expect("metrics");
    for name in ["flotilla_ranges", "flotilla_ranges_led", "flotilla_range_keys{range="] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_founded_with_ranges_for_kubernetes_and_a_quiet_one_stays_unsplit() {
    let preset = Cluster::start_with(&flotilla(), 1, &["--initial-split-preset=kubernetes"]);
    let quiet = Cluster::start_with(&flotilla(), 1, &["--placement-interval=100ms"]);
    let known = |cluster: &Cluster| {
        let url = cluster.endpoint(0);
        async move {
            let known = AdminClient::new(channel(&url).await).range_list(RangeListRequest {}).await;
            known.expect("a table").into_inner().ranges
        }
    };
    let starts: Vec<String> = known(&preset)
        .await
        .iter()
        .map(|range| String::from_utf8_lossy(&range.start).into_owned())
        .collect();
    let expected =
        ["/registry/events/", "/registry/events0", "/registry/leases/", "/registry/leases0", ""];
    assert_eq!(starts, expected);
    let mut client = KvClient::new(channel(&quiet.endpoint(0)).await);
    for n in 0..500 {
        let key = format!("{n}").into();
        let put = PutRequest { key, value: "v".into(), ..PutRequest::default() };
        client.put(put).await.expect("a lone node answers");
    }
    // Several plans later.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(known(&quiet).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_quiet_neighbours_are_merged_but_for_what_a_cluster_was_founded_with() {
    let flags = ["--initial-split-keys=k", "--placement-interval=300ms", "--merge-after=3s"];
    let cluster = Cluster::start_with(&flotilla(), NODES, &flags);
    let urls = cluster.endpoints();
    let mut client = KvClient::new(channel(&urls[0]).await);
    for key in ["a", "k", "l", "m", "n", "o", "p", "q", "z"] {
        let put = PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
        client.put(put).await.expect("it is answered");
    }
    let mut admin = AdminClient::new(channel(&urls[1]).await);
    for key in ["m", "o", "q"] {
        admin.split(SplitRequest { key: key.into() }).await.expect("it is cut");
    }
    until(&urls, SPREAD_WITHIN, "cut", |known| known.ranges.len() == 5).await;
    let merged = until(&urls, SPREAD_WITHIN, "merged", |known| known.ranges.len() == 2).await;
    assert_eq!(&merged.ranges[0].start[..], b"k");
    assert_eq!(list_all(&urls[2]).await.0.len(), 9);
    let all = decisions(&urls).await;
    let mut rules = all.iter().flatten().map(|decision| decision.rule.as_str());
    assert!(rules.any(|rule| rule == "merge_small"), "{all:?}");
}

/// Nodes that hold the range, and whether that is to change no more.
fn are_held_by(ranges: &RangeListResponse, is_so: impl Fn(&[u64]) -> bool) -> bool {
    let mut others = ranges.ranges.iter().filter(|range| range.range != 0);
    others.all(|range| !range.is_changing && is_so(&range.replicas))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_held_is_made_anew_and_a_new_one_receives_its_share() {
    let flags = [
        "--initial-split-keys=k/01000,k/02000,k/03000,k/04500",
        "--initial-range-replicas=3",
        "--placement-interval=300ms",
        "--dead-after=10s",
    ];
    let mut cluster = Cluster::start_with(&flotilla(), 4, &flags);
    let all = cluster.endpoints();
    let urls = all[..3].to_vec();
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = watch::channel(0);
    let (full, mut is_full) = tokio::sync::mpsc::channel(WRITERS);
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(urls[n % 3].clone(), n, full.clone(), stopped.clone())))
        .collect();
    let watchers: Vec<_> =
        urls.iter().map(|url| tokio::spawn(watch_all(url.clone(), ended.clone()))).collect();
    let table = until(&all, MOVED_WITHIN, "four nodes hold ranges", |table| {
        let held: BTreeSet<u64> =
            table.ranges.iter().flat_map(|it| it.replicas.iter().copied()).collect();
        held.len() == 4 && are_held_by(table, |nodes| nodes.len() == 3)
    })
    .await;
    let id_of = |table: &RangeListResponse, name: &str| {
        let node = table.nodes.iter().find(|node| node.name == name);
        node.unwrap_or_else(|| panic!("{name} is in {:?}", table.nodes)).node
    };
    for _ in 0..WRITERS {
        is_full.recv().await.expect("writers write");
    }

    let dead = id_of(&table, "n3");
    cluster.kill(3);
    until(&urls, MOVED_WITHIN, "nothing is held by who is dead", |table| {
        are_held_by(table, |nodes| nodes.len() == 3 && !nodes.contains(&dead))
    })
    .await;

    let mut members = ClusterClient::new(channel(&urls[0]).await);
    let joining = cluster.prepare_joining("n4");
    let peer_ur_ls = vec![cluster.nodes[joining].peer_url()];
    let add = MemberAddRequest { peer_ur_ls, is_learner: false };
    let added = members.member_add(add).await.expect("the others are a quorum").into_inner();
    let added = added.member.expect("it was added").id;
    cluster.spawn(joining);
    cluster.wait_ready(joining);
    // The spine may come to be led by the new node, which alone has the survey then.
    let alive = [urls.clone(), vec![cluster.endpoint(joining)]].concat();
    until(&alive, MOVED_WITHIN, "the new node has its share", |table| {
        let is_there = |range: &&RangeInfo| range.replicas.contains(&added);
        table.ranges.iter().filter(|it| it.range != 0).filter(is_there).count() >= 2
            && are_held_by(table, |nodes| nodes.len() == 3)
    })
    .await;

    let removed = members.member_remove(MemberRemoveRequest { id: dead }).await;
    removed.expect("the others are a quorum");
    let drained = drain(&urls[0], "n1", true).await;
    until(&alive, MOVED_WITHIN, "nothing is held by who is drained", |table| {
        are_held_by(table, |nodes| nodes.len() == 3 && !nodes.contains(&drained))
    })
    .await;

    stop.send(true).expect("clients listen");
    let mut written = BTreeMap::new();
    for writer in writers {
        let (own, repeated) = writer.await.expect("a writer does not panic");
        eprintln!("{} keys, {repeated} calls repeated", own.len());
        written.extend(own);
    }
    let (listed, newest) = list_all(&urls[2]).await;
    assert_eq!(listed, written, "nothing is lost");
    end.send(newest).expect("watchers listen");
    for watcher in watchers {
        assert_eq!(watcher.await.expect("a watcher does not panic"), written);
    }
    for url in [&urls[0], &urls[1], &cluster.endpoint(joining)] {
        assert_eq!(list_all(url).await.0, written, "{url}");
    }
    let steps = decisions(&urls[..1]).await.remove(0);
    for rule in ["restore_replicas", "finish_moves", "balance_replicas", "drain_node"] {
        assert!(steps.iter().any(|it| it.rule == rule), "no step of {rule}: {steps:#?}");
    }
}

/// Who votes in the spine: beyond five nodes placement sees to it, and the others serve clients and
/// hold ranges as those that vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_six_nodes_five_vote_in_the_spine_and_a_dead_one_loses_its_vote() {
    let flags = ["--placement-interval=300ms", "--dead-after=10s", "--initial-split-keys=m"];
    let mut cluster = Cluster::start_with(&flotilla(), 6, &flags);
    let urls = cluster.endpoints();
    let spine = |table: &RangeListResponse| -> BTreeSet<u64> {
        let spine = table.ranges.iter().find(|it| it.range == 0).expect("there is range 0");
        spine.replicas.iter().copied().collect()
    };
    let table =
        until(&urls, MOVED_WITHIN, "five nodes vote", |table| spine(table).len() == 5).await;
    let voters = spine(&table);
    let without = table.nodes.iter().find(|node| !voters.contains(&node.node));
    let without = without.expect("one of six").clone();
    let mut members = ClusterClient::new(channel(&urls[0]).await);
    let list = members.member_list(MemberListRequest::default()).await.expect("there is a leader");
    let list = list.into_inner().members;
    assert!(list.iter().all(|member| !member.is_learner), "{list:?}");
    let at = cluster.nodes.iter().position(|node| node.name == without.name).expect("it runs");
    let mut kv = KvClient::new(channel(&urls[at]).await);
    for key in ["a", "x"] {
        let (key, value) = (key.into(), "value".into());
        let put = PutRequest { key, value, ..PutRequest::default() };
        kv.put(put).await.expect("who does not vote serves clients");
    }

    let follower = voters.iter().copied().find(|id| {
        let range = table.ranges.iter().find(|it| it.range == 0).expect("there is range 0");
        *id != range.leader
    });
    let dead = follower.expect("five vote");
    let name = &table.nodes.iter().find(|node| node.node == dead).expect("it is a member").name;
    let dead_at = cluster.nodes.iter().position(|node| node.name == *name).expect("it ran");
    cluster.kill(dead_at);
    let alive: Vec<String> =
        (0..6).filter(|at| *at != dead_at).map(|at| urls[at].clone()).collect();
    until(&alive, MOVED_WITHIN, "another votes in the place of who is dead", |table| {
        let voters = spine(table);
        voters.len() == 5 && !voters.contains(&dead) && voters.contains(&without.node)
    })
    .await;
}
