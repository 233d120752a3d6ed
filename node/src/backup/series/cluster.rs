//! What is asked of a running cluster: calls that any client may make, so that any node will do, also one of
//! an etcd.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use flotilla_core::image::frames;
use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::mvccpb::{Event, KeyValue};
use futures::{StreamExt, stream};
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::range_request::{SortOrder, SortTarget};
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::ctl::{self, Target, Token};

/// For an answer that needs no more than a look.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a node may not know a token, and how often it is asked.
const TOKEN_KNOWN_WITHIN: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Leases that are asked for at a time.
const LEASES_TOGETHER_MAX: usize = 32;
/// Keys that are read at a time, with their values.
const PAGE_KEYS: i64 = 100;
/// Bytes of a message. A frame of an increment takes what one has.
const MESSAGE_BYTES_MAX: usize = frames::CONTENT_BYTES_MAX - (1 << 10);

/// All keys: from the first there can be, with no end.
const FIRST_KEY: &[u8] = &[0];
const NO_END: &[u8] = &[0];

type Caller = InterceptedService<Channel, Token>;

/// A way to one node.
#[derive(Clone)]
pub(super) struct Cluster {
    caller: Caller,
}

/// What a watcher is told.
#[derive(Debug)]
pub(super) enum Told {
    Events {
        events: Vec<Event>,
        /// The last event ends its revision.
        is_whole: bool,
    },
    /// What was asked for is compacted at this revision.
    Compacted(i64),
}

/// A watcher of all keys.
pub(super) struct Watcher {
    answers: Streaming<pb::WatchResponse>,
}

impl Cluster {
    /// Connects to a node that knows the user.
    pub(super) async fn connect(target: &Target) -> anyhow::Result<Self> {
        let dialer = target.dialer().await?;
        let channel = dialer.streaming(target.url()).await?;
        let cluster = Self { caller: InterceptedService::new(channel, dialer.token()) };
        let deadline = Instant::now() + TOKEN_KNOWN_WITHIN;
        loop {
            match cluster.first_key().await {
                // A node that lags behind does not know the token yet that another has just given.
                Err(status) if status.code() == Code::Unauthenticated => {
                    if Instant::now() >= deadline {
                        return Err(ctl::describe(status));
                    }
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                answer => {
                    answer.map_err(ctl::describe)?;
                    return Ok(cluster);
                }
            }
        }
    }

    /// The cluster and its revision, which is that of no write before the call or of a later one.
    pub(super) async fn revision(&self) -> anyhow::Result<(u64, i64)> {
        let header = self.first_key().await.map_err(ctl::describe)?.header;
        let header = header.context("an answer has no header")?;
        Ok((header.cluster_id, header.revision))
    }

    async fn first_key(&self) -> Result<pb::RangeResponse, Status> {
        let (key, range_end) = (FIRST_KEY.into(), NO_END.into());
        let request =
            pb::RangeRequest { key, range_end, limit: 1, keys_only: true, ..Default::default() };
        within(self.kv().range(request)).await
    }

    /// Counts the changes of users and roles. 0 of an etcd that does not tell.
    pub(super) async fn auth_revision(&self) -> anyhow::Result<u64> {
        let mut client = AuthClient::new(self.caller.clone());
        let answer = within(client.auth_status(pb::AuthStatusRequest {})).await;
        Ok(answer.map_err(ctl::describe)?.auth_revision)
    }

    /// Granted seconds of those leases that are there.
    pub(super) async fn ttls(&self, ids: Vec<i64>) -> anyhow::Result<BTreeMap<i64, i64>> {
        let asked = stream::iter(ids).map(|id| async move {
            let mut client = LeaseClient::new(self.caller.clone());
            let request = pb::LeaseTimeToLiveRequest { id, keys: false };
            match within(client.lease_time_to_live(request)).await {
                Ok(answer) if answer.ttl >= 0 => Ok(Some((id, answer.granted_ttl))),
                Ok(_) => Ok(None),
                Err(status) if status.code() == Code::NotFound => Ok(None),
                Err(status) => Err(ctl::describe(status)),
            }
        });
        let mut asked = asked.buffer_unordered(LEASES_TOGETHER_MAX);
        let mut ttls = BTreeMap::new();
        while let Some(answer) = asked.next().await {
            ttls.extend(answer?);
        }
        Ok(ttls)
    }

    /// Watches all keys from a revision on.
    pub(super) async fn watch(&self, from: i64) -> anyhow::Result<Watcher> {
        let create = pb::WatchCreateRequest {
            key: FIRST_KEY.into(),
            range_end: NO_END.into(),
            start_revision: from,
            fragment: true,
            ..Default::default()
        };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The client's side does not end by itself.
        let requests = stream::iter([request]).chain(stream::pending());
        let client = WatchClient::new(self.caller.clone());
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answers = within(client.watch(requests)).await.map_err(ctl::describe)?;
        Ok(Watcher { answers })
    }

    /// Keys from one on and before another, as they are now: as many as fit into a page, and whether
    /// there are more.
    pub(super) async fn page(
        &self,
        key: bytes::Bytes,
        range_end: bytes::Bytes,
    ) -> anyhow::Result<(Vec<KeyValue>, bool)> {
        let request = pb::RangeRequest {
            key,
            range_end,
            limit: PAGE_KEYS,
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Key.into(),
            ..Default::default()
        };
        let mut client = self.kv().max_decoding_message_size(usize::MAX);
        let answer = within(client.range(request)).await.map_err(ctl::describe)?;
        Ok((answer.kvs, answer.more))
    }

    /// A key as it was at a revision: one or none. `None` if the revision is compacted.
    pub(super) async fn key_at(
        &self,
        key: bytes::Bytes,
        revision: i64,
    ) -> anyhow::Result<Option<Vec<KeyValue>>> {
        let request = pb::RangeRequest { key, revision, ..Default::default() };
        let mut client = self.kv().max_decoding_message_size(MESSAGE_BYTES_MAX);
        match within(client.range(request)).await {
            Ok(answer) => Ok(Some(answer.kvs)),
            Err(status) if status.message().contains("compacted") => Ok(None),
            Err(status) => Err(ctl::describe(status)),
        }
    }

    /// Carries out a transaction. Whether its comparisons held.
    pub(super) async fn txn(&self, request: pb::TxnRequest) -> anyhow::Result<bool> {
        Ok(within(self.kv().txn(request)).await.map_err(ctl::describe)?.succeeded)
    }

    fn kv(&self) -> KvClient<Caller> {
        KvClient::new(self.caller.clone())
    }
}

impl Watcher {
    /// The next that is told, whenever that is. May be given up and asked again.
    pub(super) async fn next(&mut self) -> anyhow::Result<Told> {
        loop {
            let answer = self.answers.message().await.map_err(ctl::describe)?;
            let answer = answer.ok_or_else(|| anyhow!("the node ended the watch"))?;
            if answer.compact_revision > 0 {
                return Ok(Told::Compacted(answer.compact_revision));
            }
            if answer.canceled {
                bail!("the node refuses the watch: {}", answer.cancel_reason);
            }
            if !answer.events.is_empty() {
                return Ok(Told::Events { events: answer.events, is_whole: !answer.fragment });
            }
        }
    }
}

async fn within<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, call).await;
    let answer = answer.unwrap_or_else(|_| {
        let text = format!("the node does not answer within {} s", ANSWER_WITHIN.as_secs());
        Err(Status::deadline_exceeded(text))
    });
    Ok(answer?.into_inner())
}
