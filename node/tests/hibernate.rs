//! Ranges that nobody uses sleep: they send nothing, wake at once for a request, and get another
//! leader when theirs is gone.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::{HashKvRequest, PutRequest};
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{RangeInfo, RangeListRequest};
use harness::traffic::{channel, watch_from};
use harness::{Cluster, flotilla, http_get};
use tokio::sync::watch;
use tonic::transport::Channel;

const RANGES: usize = 64;
/// Puts at each node, each to another range that sleeps.
const PUTS_PER_NODE: usize = 12;
/// Ranges are elected, idle for an election timeout, and asleep.
const ASLEEP_WITHIN: Duration = Duration::from_secs(60);
/// Long enough for thirty heartbeats of a range that is awake.
const SILENCE: Duration = Duration::from_secs(3);
/// Half an election timeout: nobody had to be elected.
const WOKEN_WITHIN: Duration = Duration::from_millis(500);
/// Until the ranges of a node that was killed have another leader.
const LED_WITHIN: Duration = Duration::from_secs(20);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Where the range of this number begins.
fn border(range: usize) -> String {
    format!("r{range:03}")
}

async fn put(client: &mut KvClient<Channel>, key: &str) -> Result<i64, tonic::Status> {
    let (key, value) = (key.to_owned().into(), "value".into());
    let answer = client.put(PutRequest { key, value, ..PutRequest::default() }).await?;
    Ok(answer.into_inner().header.expect("an answer has a header").revision)
}

async fn ranges(url: &str) -> Vec<RangeInfo> {
    let mut admin = AdminClient::new(channel(url).await);
    let table = admin.range_list(RangeListRequest {}).await.expect("a table").into_inner();
    table.ranges.into_iter().filter(|range| range.range != 0).collect()
}

/// A metric without labels; one that was never touched is not there yet, and 0.
fn metric(port: u16, name: &str) -> u64 {
    let (status, body) = http_get(port, "/metrics").expect("the node answers");
    assert_eq!(status, 200);
    let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name} is {value}")))
}

async fn until_asleep(ports: &[u16]) {
    let started = Instant::now();
    loop {
        let asleep: Vec<u64> =
            ports.iter().map(|port| metric(*port, "flotilla_ranges_asleep")).collect();
        if asleep.iter().all(|count| *count == RANGES as u64) {
            return;
        }
        assert!(started.elapsed() < ASLEEP_WITHIN, "of {RANGES} ranges sleep {asleep:?}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Nothing is said and nobody wakes, though before that ranges have spoken.
async fn check_silent(ports: &[u16]) {
    let counts = || -> Vec<(u64, u64)> {
        let count = |port: &u16| {
            let messages = metric(*port, "flotilla_range_messages_total");
            (messages, metric(*port, "flotilla_range_wakes_total"))
        };
        ports.iter().map(count).collect()
    };
    let before = counts();
    assert!(before.iter().all(|(messages, _)| *messages > 0), "ranges were elected: {before:?}");
    tokio::time::sleep(SILENCE).await;
    assert_eq!(counts(), before, "messages and wakes of ranges that sleep");
}

/// Watches everything from the beginning up to the last; gives back the keys by revision.
async fn watch_all(url: String, mut last: watch::Receiver<i64>) -> BTreeMap<i64, String> {
    let mut answers = watch_from(&url, 1).await.expect("a watch");
    let mut seen = BTreeMap::new();
    let mut deadline = None;
    loop {
        let (newest, end) = (seen.keys().next_back().copied().unwrap_or(1), *last.borrow());
        if end > 0 {
            if newest == end {
                return seen;
            }
            deadline.get_or_insert(Instant::now() + CATCH_UP_WITHIN);
        }
        let is_late = deadline.is_some_and(|deadline| Instant::now() > deadline);
        assert!(!is_late, "{url}: saw {newest} of {end} after {CATCH_UP_WITHIN:?}");
        let answer = tokio::select! {
            answer = answers.message() => answer.expect("the stream goes on").expect("no end"),
            _ = last.changed() => continue,
            () = tokio::time::sleep(POLL_EVERY) => continue,
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

/// Puts at every node to ranges that sleep, and gives back how long each took.
async fn wake_some(urls: &[String], written: &mut BTreeMap<i64, String>) -> Vec<Duration> {
    let mut took = Vec::new();
    for (node, url) in urls.iter().enumerate() {
        let mut client = KvClient::new(channel(url).await);
        for n in 0..PUTS_PER_NODE {
            let key = format!("{}/{node}", border(node * PUTS_PER_NODE + n));
            let started = Instant::now();
            let revision = put(&mut client, &key).await;
            let revision = revision.unwrap_or_else(|error| panic!("{key} at {url}: {error}"));
            took.push(started.elapsed());
            written.insert(revision, key);
        }
    }
    took
}

/// Waits until a node knows another leader than `gone` of each of these.
async fn until_led(url: &str, orphans: &BTreeSet<u64>, gone: u64) -> Duration {
    let started = Instant::now();
    loop {
        let table = ranges(url).await;
        let left: Vec<u64> = table
            .iter()
            .filter(|it| orphans.contains(&it.range) && (it.leader == 0 || it.leader == gone))
            .map(|it| it.range)
            .collect();
        if left.is_empty() {
            return started.elapsed();
        }
        assert!(started.elapsed() < LED_WITHIN, "{url}: nobody leads {left:?}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_that_nobody_uses_sleep() {
    let borders: Vec<String> = (0..RANGES).map(border).collect();
    let flag = format!("--initial-split-keys={}", borders.join(","));
    // Placement would wake some to spread their leaders.
    let mut cluster = Cluster::start_with(&flotilla(), 3, &[&flag, "--placement-interval=0"]);
    let urls = cluster.endpoints();
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.client_port).collect();
    let mut written = BTreeMap::new();

    until_asleep(&ports).await;
    check_silent(&ports).await;

    let table = ranges(&urls[0]).await;
    assert_eq!(table.len(), RANGES);
    assert!(table.iter().all(|range| range.leader != 0), "who sleeps has a leader: {table:?}");
    let mut led = BTreeMap::<u64, BTreeSet<u64>>::new();
    for range in &table {
        led.entry(range.leader).or_default().insert(range.range);
    }
    let (gone, orphans) =
        led.into_iter().max_by_key(|(_, ranges)| ranges.len()).expect("some lead");
    let victim = index_of(&urls, gone).await;
    let survivors: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
    let (end, ended) = watch::channel(0);
    let watchers: Vec<_> = survivors
        .iter()
        .map(|index| tokio::spawn(watch_all(urls[*index].clone(), ended.clone())))
        .collect();

    let mut took = wake_some(&urls, &mut written).await;
    took.sort_unstable();
    assert!(took[took.len() / 2] < WOKEN_WITHIN, "puts to ranges that slept took {took:?}");
    assert!(ports.iter().any(|port| metric(*port, "flotilla_range_wakes_total") > 0));
    until_asleep(&ports).await;

    // The leader of ranges that sleep is gone: who follows it hears of that from its node.
    cluster.kill(victim);
    let led_after = until_led(&urls[survivors[0]], &orphans, gone).await;
    until_led(&urls[survivors[1]], &orphans, gone).await;
    println!("{} ranges had another leader after {led_after:?}", orphans.len());
    for index in &survivors {
        let mut client = KvClient::new(channel(&urls[*index]).await);
        for range in &table {
            let key = format!("{}/after", String::from_utf8_lossy(&range.start));
            let revision = put(&mut client, &key).await;
            let revision = revision.unwrap_or_else(|error| panic!("{key}: {error}"));
            written.insert(revision, key);
        }
    }
    let here: Vec<u16> = survivors.iter().map(|index| ports[*index]).collect();
    until_asleep(&here).await;
    check_silent(&here).await;

    // It comes back: it is told all that it missed, and all sleep again.
    cluster.restart(victim);
    until_asleep(&ports).await;
    let newest = *written.keys().next_back().expect("something was written");
    assert!(written.keys().copied().eq(2..=newest), "revisions have no gap");
    end.send(newest).expect("watchers listen");
    for watcher in watchers {
        assert_eq!(watcher.await.expect("a watcher does not panic"), written);
    }
    let mut hashes = BTreeSet::new();
    for url in &urls {
        let mut client = MaintenanceClient::new(channel(url).await);
        let answer = client.hash_kv(HashKvRequest { revision: newest }).await;
        hashes.insert(answer.expect("a node that shows it all").into_inner().hash);
    }
    assert_eq!(hashes.len(), 1, "all nodes have the same");
    check_silent(&ports).await;
}

/// Which of the nodes has this id.
async fn index_of(urls: &[String], id: u64) -> usize {
    for (index, url) in urls.iter().enumerate() {
        let mut client = KvClient::new(channel(url).await);
        let request =
            flotilla_proto::etcdserverpb::RangeRequest { key: "any".into(), ..Default::default() };
        let answer = client.range(request).await.expect("an answer").into_inner();
        if answer.header.expect("an answer has a header").member_id == id {
            return index;
        }
    }
    panic!("no node has the id {id:x}");
}
