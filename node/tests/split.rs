//! Ranges are cut while clients write, list and watch: no call fails, nothing is lost, and every
//! watcher sees each revision once and in order.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::watch_client::WatchClient;
use flotilla_proto::etcdserverpb::watch_request::RequestUnion;
use flotilla_proto::etcdserverpb::{
    HashKvRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest,
};
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{RangeListRequest, SplitRequest};
use harness::{Cluster, flotilla};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

const WRITERS: usize = 4;
/// Cuts are made one after the other, with a pause in between.
const PAUSE: Duration = Duration::from_millis(150);
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(20);

async fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    endpoint.timeout(ANSWER_WITHIN).connect().await.expect("the node runs")
}

/// Writes keys of its own and blind ones that all share, until it is stopped. Every call must be
/// answered. Gives back the revision of each write.
async fn write(url: String, writer: usize, stop: watch::Receiver<bool>) -> BTreeMap<i64, String> {
    let mut client = KvClient::new(channel(&url).await);
    let mut written = BTreeMap::new();
    for n in 0.. {
        if *stop.borrow() {
            break;
        }
        let key = if n % 4 == 0 { "shared".to_owned() } else { format!("k/{}/{writer}", n % 100) };
        let request = PutRequest {
            key: key.clone().into(),
            value: format!("{writer}/{n}").into(),
            ..PutRequest::default()
        };
        let answer = client.put(request).await;
        let answer = answer.unwrap_or_else(|error| panic!("{key} at {url}: {error}"));
        let revision = answer.into_inner().header.expect("an answer has a header").revision;
        assert!(written.insert(revision, key).is_none(), "a revision is given once");
    }
    written
}

/// Lists everything again and again: what is there never becomes less.
async fn list(url: String, stop: watch::Receiver<bool>) -> u64 {
    let mut client = KvClient::new(channel(&url).await);
    let (mut count, mut revision, mut lists) = (0, 0, 0);
    while !*stop.borrow() {
        let all = RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            keys_only: true,
            ..RangeRequest::default()
        };
        let answer = client.range(all).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let answer = answer.into_inner();
        let now = answer.header.expect("an answer has a header").revision;
        assert!(now >= revision && answer.count >= count, "{count} at {revision}, then {answer:?}");
        assert_eq!(answer.count, i64::try_from(answer.kvs.len()).expect("few keys"));
        (count, revision) = (answer.count, now);
        lists += 1;
    }
    lists
}

/// Watches everything from the beginning; gives back the keys by revision up to the last.
async fn watch_all(url: String, mut last: watch::Receiver<i64>) -> BTreeMap<i64, String> {
    let mut client = WatchClient::new(
        Endpoint::from_shared(url.clone()).expect("an address").connect().await.expect("it runs"),
    );
    let create = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: 1,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(request).await.expect("there is room");
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.watch(requests).await.expect("a watch").into_inner();
    let mut seen = BTreeMap::new();
    loop {
        let end = *last.borrow();
        if end > 0 && seen.keys().next_back() == Some(&end) {
            return seen;
        }
        let answer = tokio::select! {
            answer = answers.message() => answer.expect("the stream goes on").expect("no end"),
            _ = last.changed() => continue,
            () = tokio::time::sleep(CATCH_UP_WITHIN) => {
                panic!("{url}: {:?} of {end} after {CATCH_UP_WITHIN:?}", seen.keys().next_back())
            }
        };
        assert!(!answer.canceled, "{url}: {answer:?}");
        for event in answer.events {
            let kv = event.kv.expect("an event has a key");
            let newest = seen.keys().next_back().copied().unwrap_or(1);
            assert_eq!(kv.mod_revision, newest + 1, "{url}: each revision once, in order");
            seen.insert(kv.mod_revision, String::from_utf8_lossy(&kv.key).into_owned());
        }
    }
}

async fn cut(url: &str, key: &str) -> u64 {
    let mut admin = AdminClient::new(channel(url).await);
    let answer = admin.split(SplitRequest { key: key.to_owned().into() }).await;
    answer.unwrap_or_else(|error| panic!("a cut at {key}: {error}")).into_inner().range
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_notices_that_ranges_are_cut() {
    let mut cluster = Cluster::start(&flotilla(), 3);
    let urls = cluster.endpoints();
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = watch::channel(0);
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(urls[n % 3].clone(), n, stopped.clone())))
        .collect();
    let watchers: Vec<_> =
        urls.iter().map(|url| tokio::spawn(watch_all(url.clone(), ended.clone()))).collect();
    let lists = tokio::spawn(list(urls[1].clone(), stopped.clone()));

    let mut ids = BTreeSet::new();
    for (n, key) in ["k/5", "k/", "k/8", "shared", "k/2", "k/50", "k/55"].iter().enumerate() {
        tokio::time::sleep(PAUSE).await;
        ids.insert(cut(&urls[n % 3], key).await);
    }
    assert_eq!(ids.len(), 7, "each cut makes a range");
    assert_eq!(cut(&urls[0], "k/8").await, cut(&urls[2], "k/8").await, "a border stays one");
    tokio::time::sleep(PAUSE).await;
    stop.send(true).expect("clients listen");

    let mut written = BTreeMap::new();
    for writer in writers {
        for (revision, key) in writer.await.expect("a writer does not panic") {
            assert!(written.insert(revision, key).is_none(), "two writes at {revision}");
        }
    }
    assert!(lists.await.expect("a reader does not panic") > 0);
    let newest = *written.keys().next_back().expect("something was written");
    end.send(newest).expect("watchers listen");
    for watcher in watchers {
        let seen = watcher.await.expect("a watcher does not panic");
        assert_eq!(seen, written, "what was written is what was seen");
    }
    assert!(written.keys().copied().eq(2..=newest), "revisions have no gap");

    // All of it survives the loss of every process, and all nodes have the same.
    for index in 0..3 {
        cluster.kill(index);
    }
    for index in 0..3 {
        cluster.spawn(index);
    }
    cluster.wait_all_ready();
    let mut hashes = BTreeSet::new();
    for url in &urls {
        let mut client = MaintenanceClient::new(channel(url).await);
        let started = Instant::now();
        let hash = loop {
            let answer = client.hash_kv(HashKvRequest { revision: newest }).await;
            match answer {
                Ok(answer) => break answer.into_inner().hash,
                Err(error) => assert!(started.elapsed() < CATCH_UP_WITHIN, "{url}: {error}"),
            }
        };
        hashes.insert(hash);
        let mut admin = AdminClient::new(channel(url).await);
        let ranges = admin.range_list(RangeListRequest {}).await.expect("a table").into_inner();
        let mut known: Vec<u64> = ranges.ranges.iter().map(|range| range.range).collect();
        known.sort_unstable();
        let expected: Vec<u64> = std::iter::once(0).chain(ids.iter().copied()).collect();
        assert_eq!(known, expected, "{url}");
    }
    assert_eq!(hashes.len(), 1, "all nodes have the same");
}
