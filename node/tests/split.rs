//! Ranges are cut while clients write, list and watch: no call fails, nothing is lost, and every
//! watcher sees each revision once and in order.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::HashKvRequest;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{RangeListRequest, SplitRequest};
use harness::traffic::{CATCH_UP_WITHIN, PATIENT, channel, list, watch_all, write};
use harness::{Cluster, flotilla};
use tokio::sync::watch;

const WRITERS: usize = 4;
/// Cuts are made one after the other, with a pause in between.
const PAUSE: Duration = Duration::from_millis(150);

async fn cut(url: &str, key: &str) -> u64 {
    let mut admin = AdminClient::new(channel(url).await);
    let answer = admin.split(SplitRequest { key: key.to_owned().into() }).await;
    answer.unwrap_or_else(|error| panic!("a cut at {key}: {error}")).into_inner().range
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_notices_that_ranges_are_cut() {
    let mut cluster = Cluster::start_with(&flotilla(), 3, &[PATIENT]);
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
