//! Clients that write, list and watch while something is done to the cluster. None of their calls may
//! fail, and none of their answers may be wrong.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::watch_client::WatchClient;
use flotilla_proto::etcdserverpb::watch_request::RequestUnion;
use flotilla_proto::etcdserverpb::{
    PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use futures::{StreamExt, stream};
use tokio::sync::watch;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// How long a watcher may lag behind what was written.
pub const CATCH_UP_WITHIN: Duration = Duration::from_secs(20);

/// Makes nodes slow to think that another one is gone. Where a call must not fail because of what is done
/// to the cluster, it is not to fail either because the machine was busy for a second.
pub const PATIENT: &str = "--election-timeout=5000";

/// A connection whose calls end in time.
pub async fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    endpoint.timeout(ANSWER_WITHIN).connect().await.expect("the node runs")
}

/// Writes keys of its own and blind ones that all share, until it is stopped. Every call must be
/// answered. Gives back the revision of each write.
pub async fn write(
    url: String,
    writer: usize,
    stop: watch::Receiver<bool>,
) -> BTreeMap<i64, String> {
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
pub async fn list(url: String, stop: watch::Receiver<bool>) -> u64 {
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

/// A watch of everything from a revision on. The stream has no end of its own.
pub async fn watch_from(
    url: &str,
    start_revision: i64,
) -> Result<Streaming<WatchResponse>, Box<dyn Error + Send + Sync>> {
    let channel = Endpoint::from_shared(url.to_owned())?.connect().await?;
    let create = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // What is asked stays asked as long as the stream is read.
    let requests = stream::iter([request]).chain(stream::pending());
    Ok(WatchClient::new(channel).watch(requests).await?.into_inner())
}

/// Watches everything from the beginning; gives back the keys by revision up to the last.
pub async fn watch_all(url: String, mut last: watch::Receiver<i64>) -> BTreeMap<i64, String> {
    let mut answers = watch_from(&url, 1).await.expect("a watch");
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
