//! Clients that go on whatever happens to the nodes, and remember what was acknowledged to them; and what
//! a node must have of it afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// How long a client waits before it looks again for a node that is down.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// A connection, if the node is there.
pub async fn reach(url: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).ok()?;
    endpoint.connect_timeout(Duration::from_secs(1)).connect().await.ok()
}

/// Everything under `/a/`, with its value and revision, and the store's revision.
pub async fn read_all(url: &str) -> (i64, BTreeMap<String, (String, i64)>) {
    let request = RangeRequest { key: "/a/".into(), range_end: "/a0".into(), ..Default::default() };
    let channel = reach(url).await.expect("the node is ready");
    let mut client = KvClient::new(channel).max_decoding_message_size(usize::MAX);
    let answer = client.range(request).await.expect("a ready cluster answers").into_inner();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the test writes text");
    let found =
        answer.kvs.iter().map(|kv| (text(&kv.key), (text(&kv.value), kv.mod_revision))).collect();
    (answer.header.expect("an answer has a header").revision, found)
}

/// Writes distinct keys `/a/WRITER/ROUND/N`, whose values are their names, until it is told to stop.
/// Gives back (key, revision) of what was acknowledged, which `count` counts meanwhile.
pub async fn write_until(
    urls: Vec<String>,
    writer: usize,
    round: usize,
    count: Arc<AtomicUsize>,
    mut stop: watch::Receiver<bool>,
) -> Vec<(String, i64)> {
    let mut acknowledged = Vec::new();
    let mut client = None;
    for n in 0.. {
        if *stop.borrow_and_update() {
            break;
        }
        let url = &urls[(writer + n) % urls.len()];
        if client.is_none() {
            client = reach(url).await.map(KvClient::new);
        }
        let Some(connected) = &mut client else {
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        };
        let key = format!("/a/{writer}/{round}/{n}");
        let request =
            PutRequest { key: key.clone().into(), value: key.clone().into(), ..Default::default() };
        tokio::select! {
            answer = connected.put(request) => match answer {
                Ok(answer) => {
                    let header = answer.into_inner().header.expect("an answer has a header");
                    acknowledged.push((key, header.revision));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // The outcome is unknown; the key is never used again.
                Err(_) => client = None,
            },
            _ = stop.changed() => break,
        }
    }
    acknowledged
}
