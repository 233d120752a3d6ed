//! Ranges are merged and cut anew while clients write, list and watch, and while nodes are killed: no
//! client notices a merge, nothing is lost, every watcher sees each revision once and in order, and
//! nothing of the ranges that were merged is left on any disk.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla::{store, wal};
use flotilla_core::GroupId;
use flotilla_core::range::stored;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::{PutRequest, RangeRequest};
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{MergeRequest, RangeInfo, RangeListRequest, SplitRequest};
use harness::traffic::{list, watch_from};
use harness::{Cluster, flotilla as binary};
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const WRITERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(150);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const MERGED_WITHIN: Duration = Duration::from_secs(60);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(40);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Range 0 has what is before the first.
const BORDERS: [&str; 4] = ["k/", "k/2", "k/5", "k/8"];

/// What was written, by revision: key and value.
type History = BTreeMap<i64, (String, String)>;

async fn channel(url: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    endpoint.connect_timeout(Duration::from_secs(1)).timeout(ANSWER_WITHIN).connect().await.ok()
}

/// Writes until it is stopped, and gives back what was acknowledged. If no call may fail, none does.
async fn write(url: String, writer: usize, may_fail: bool, stop: watch::Receiver<bool>) -> History {
    let mut written = History::new();
    let mut client = None;
    for n in 0.. {
        if *stop.borrow() {
            break;
        }
        if client.is_none() {
            client = channel(&url).await.map(KvClient::new);
        }
        let Some(connected) = client.as_mut() else {
            assert!(may_fail, "{url} does not answer");
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        };
        let key = if n % 4 == 0 { "shared".to_owned() } else { format!("k/{}/{writer}", n % 100) };
        let value = format!("{writer}/{n}/{may_fail}");
        let (key_bytes, value_bytes) = (key.clone().into(), value.clone().into());
        let request = PutRequest { key: key_bytes, value: value_bytes, ..PutRequest::default() };
        match connected.put(request).await {
            Ok(answer) => {
                let header = answer.into_inner().header.expect("an answer has a header");
                let before = written.insert(header.revision, (key, value));
                assert!(before.is_none(), "a revision is given once");
            }
            Err(error) => {
                assert!(may_fail, "{key} at {url}: {error}");
                client = None;
            }
        }
    }
    written
}

/// Watches everything from the beginning, goes on after its node was killed, and gives back what it
/// saw up to the last revision.
async fn watch_all(url: String, last: watch::Receiver<i64>) -> History {
    let mut seen = History::new();
    let mut ends_at = None;
    loop {
        let newest = seen.keys().next_back().copied().unwrap_or(1);
        let _ = watch_on(&url, newest + 1, &last, &mut seen).await;
        let end = *last.borrow();
        if end > 0 && seen.keys().next_back().is_some_and(|newest| *newest >= end) {
            return seen;
        }
        if end > 0 {
            let ends_at = *ends_at.get_or_insert_with(|| Instant::now() + CATCH_UP_WITHIN);
            assert!(Instant::now() < ends_at, "{url}: {:?} of {end}", seen.keys().next_back());
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Until the stream ends, nothing comes for a while, or the last revision was seen.
async fn watch_on(
    url: &str,
    start_revision: i64,
    last: &watch::Receiver<i64>,
    seen: &mut History,
) -> Option<()> {
    let mut answers = watch_from(url, start_revision).await.ok()?;
    let mut last = last.clone();
    loop {
        let end = *last.borrow();
        if end > 0 && seen.keys().next_back().is_some_and(|newest| *newest >= end) {
            return Some(());
        }
        let answer = tokio::select! {
            answer = answers.message() => answer.ok()??,
            _ = last.changed() => continue,
            () = tokio::time::sleep(CATCH_UP_WITHIN) => return None,
        };
        assert!(!answer.canceled, "{url}: {answer:?}");
        for event in answer.events {
            let kv = event.kv.expect("an event has a key");
            let newest = seen.keys().next_back().copied().unwrap_or(1);
            assert_eq!(kv.mod_revision, newest + 1, "{url}: each revision once, in order");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            seen.insert(kv.mod_revision, (text(&kv.key), text(&kv.value)));
        }
    }
}

async fn ranges(url: &str) -> Option<Vec<RangeInfo>> {
    let mut admin = AdminClient::new(channel(url).await?);
    Some(admin.range_list(RangeListRequest {}).await.ok()?.into_inner().ranges)
}

/// The ranges on both sides of a border, as a node knows them.
async fn neighbours(url: &str, key: &str) -> Option<MergeRequest> {
    let ranges = ranges(url).await?;
    let right = ranges.iter().find(|it| it.range != 0 && it.start == key.as_bytes())?;
    let left = ranges.iter().find(|it| it.range != 0 && it.end == right.start)?;
    Some(MergeRequest { left: left.range, right: right.range })
}

async fn merge(url: &str, request: MergeRequest) -> Result<u64, tonic::Status> {
    let channel = channel(url).await.ok_or_else(|| tonic::Status::unavailable("not reachable"))?;
    Ok(AdminClient::new(channel).merge(request).await?.into_inner().range)
}

/// Asks until the border is gone, whoever of the attempts removed it. Gives back the range that ceased.
async fn merge_at(urls: &[String], key: &str) -> u64 {
    let started = Instant::now();
    let mut ceased = None;
    for url in urls.iter().cycle() {
        match (neighbours(url, key).await, ceased) {
            (Some(request), _) => match merge(url, request).await {
                Ok(range) => {
                    assert_eq!(range, request.left);
                    return request.right;
                }
                // Its outcome may be unknown.
                Err(_) => ceased = Some(request.right),
            },
            (None, Some(ceased)) if ranges(url).await.is_some() => return ceased,
            (None, _) => {}
        }
        assert!(started.elapsed() < MERGED_WITHIN, "no merge at {key}");
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    unreachable!("there are urls")
}

/// Asks until a range begins at the key. Gives it back.
async fn cut_at(urls: &[String], key: &str) -> u64 {
    let started = Instant::now();
    for url in urls.iter().cycle() {
        if let Some(channel) = channel(url).await {
            let request = SplitRequest { key: key.to_owned().into() };
            if let Ok(answer) = AdminClient::new(channel).split(request).await {
                return answer.into_inner().range;
            }
        }
        assert!(started.elapsed() < MERGED_WITHIN, "no cut at {key}");
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    unreachable!("there are urls")
}

/// What a node that was stopped has on its disk: the ranges in its store, those that are said to have
/// ended, and the groups in its log.
fn on_disk(cluster: &Cluster, index: usize) -> (BTreeSet<u64>, BTreeSet<u64>, BTreeSet<u64>) {
    let folder = cluster.nodes[index].data_dir().join("member");
    let store = store::open(&store::Options::new(folder.join("store"))).expect("a store");
    let numbers = |ids: Vec<GroupId>| ids.into_iter().map(|range| range.0).collect();
    let here = numbers(stored::ids(&store).expect("rows of ranges"));
    let ended = numbers(stored::ended_ids(&store).expect("rows of ranges"));
    store.close().expect("the store is closed");
    let options = wal::Options::new(folder.join("wal"));
    let (log, recovered) =
        wal::open(options, Box::new(|_| {}), Box::new(|error| panic!("{error}"))).expect("a log");
    log.close();
    (here, ended, recovered.groups.keys().map(|range| range.0).collect())
}

/// Clients at work.
struct Load {
    stop: watch::Sender<bool>,
    writers: Vec<tokio::task::JoinHandle<History>>,
}

impl Load {
    fn start(urls: &[String], may_fail: bool) -> Self {
        let (stop, stopped) = watch::channel(false);
        let writer = |n: usize| write(urls[n % 3].clone(), n, may_fail, stopped.clone());
        let writers = (0..WRITERS).map(|n| tokio::spawn(writer(n))).collect();
        Self { stop, writers }
    }

    async fn stop(self, written: &mut History) {
        self.stop.send(true).expect("clients listen");
        for writer in self.writers {
            let acknowledged = writer.await.expect("a writer does not panic");
            assert!(!acknowledged.is_empty(), "a writer wrote nothing: it proves nothing");
            for (revision, what) in acknowledged {
                assert!(written.insert(revision, what).is_none(), "two writes at {revision}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_merged_under_clients_and_crashes() {
    let mut cluster = Cluster::start(&binary(), 3);
    let urls: Vec<String> = cluster.endpoints();
    let shared: Arc<[String]> = urls.clone().into();
    for key in BORDERS {
        cut_at(&urls[..1], key).await;
    }
    let (end, ended) = watch::channel(0);
    let watchers: Vec<_> =
        urls.iter().map(|url| tokio::spawn(watch_all(url.clone(), ended.clone()))).collect();
    let (mut written, mut ceased) = (History::new(), BTreeSet::new());

    // Nobody dies: no client notices.
    let load = Load::start(&urls, false);
    let (stop_lists, lists_stopped) = watch::channel(false);
    let lists = tokio::spawn(list(urls[1].clone(), lists_stopped));
    for (n, key) in ["k/5", "k/2", "k/8", "k/5", "k/2"].iter().enumerate() {
        tokio::time::sleep(PAUSE).await;
        assert!(ceased.insert(merge_at(&urls[n % 3..=n % 3], key).await), "an id comes back");
        tokio::time::sleep(PAUSE).await;
        cut_at(&urls[(n + 1) % 3..=(n + 1) % 3], key).await;
    }
    load.stop(&mut written).await;
    stop_lists.send(true).expect("a reader listens");
    assert!(lists.await.expect("a reader does not panic") > 0);
    let first = neighbours(&urls[0], "k/2").await.expect("there is a border").left;
    let refused = merge(&urls[0], MergeRequest { left: 0, right: first }).await;
    assert_eq!(refused.expect_err("range 0 is not merged").code(), Code::FailedPrecondition);
    let gone = *ceased.first().expect("some were merged");
    let refused = merge(&urls[0], MergeRequest { left: first, right: gone }).await;
    assert_eq!(refused.expect_err("it is gone").code(), Code::NotFound);

    // Nodes are killed while ranges are merged.
    let load = Load::start(&urls, true);
    for round in 0..6_usize {
        let key = BORDERS[1 + round % 3];
        let merging = shared.clone();
        let merging = tokio::spawn(async move { merge_at(&merging, key).await });
        tokio::time::sleep(Duration::from_millis(5 + 17 * round as u64)).await;
        cluster.kill(round % 3);
        tokio::time::sleep(PAUSE).await;
        cluster.spawn(round % 3);
        assert!(ceased.insert(merging.await.expect("it ends")), "an id comes back");
        tokio::task::block_in_place(|| cluster.wait_ready(round % 3));
        cut_at(&urls, key).await;
    }
    load.stop(&mut written).await;

    // While a node is down a merge is refused, and clients go on.
    cluster.kill(2);
    let request = neighbours(&urls[0], "k/5").await.expect("there is a border");
    let refused = merge(&urls[0], request).await.expect_err("a replica is down");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let load = Load::start(&[urls[0].clone(), urls[1].clone(), urls[0].clone()], true);
    tokio::time::sleep(PAUSE).await;
    load.stop(&mut written).await;
    cluster.restart(2);

    // Everything is one range again.
    for key in &BORDERS[1..] {
        assert!(ceased.insert(merge_at(&urls, key).await), "an id comes back");
    }
    let read = RangeRequest { key: "k/".into(), range_end: "l".into(), ..RangeRequest::default() };
    let mut client = KvClient::new(channel(&urls[0]).await.expect("the node runs"));
    let answer = client.range(read).await.expect("an answer").into_inner();
    let newest = answer.header.expect("an answer has a header").revision;
    end.send(newest).expect("watchers listen");
    let mut histories = Vec::new();
    for watcher in watchers {
        let mut seen = watcher.await.expect("a watcher does not panic");
        seen.retain(|revision, _| *revision <= newest);
        histories.push(seen);
    }
    assert!(histories.iter().all(|seen| *seen == histories[0]), "all see the same");
    for (revision, what) in &written {
        assert_eq!(histories[0].get(revision), Some(what), "acknowledged at {revision}");
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let found: BTreeMap<String, String> =
        answer.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
    let in_span = histories[0].values().filter(|(key, _)| key.starts_with("k/")).cloned();
    assert_eq!(found, in_span.collect(), "what is there is what was seen last");

    for url in &urls {
        let started = Instant::now();
        loop {
            let known: Vec<u64> =
                ranges(url).await.expect("a table").iter().map(|range| range.range).collect();
            if known == [first, 0] {
                break;
            }
            assert!(started.elapsed() < CATCH_UP_WITHIN, "{url} has {known:?}");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
    // The first start may still find what the last merge left.
    tokio::time::sleep(PAUSE).await;
    for index in 0..3 {
        assert!(cluster.stop(index).success());
        let (here, ended, in_log) = on_disk(&cluster, index);
        assert_eq!(here, BTreeSet::from([first]), "in the store of node {index}");
        assert!(ended.is_subset(&ceased), "{ended:?} ended on node {index} of {ceased:?}");
        let of_log = in_log.iter().filter(|range| ceased.contains(range));
        assert_eq!(of_log.count(), 0, "in the log of node {index}: {in_log:?}");
    }
}
