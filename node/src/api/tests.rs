//! The API of one worker over loopback, in front of a spine that answers at once: what is checked
//! and translated here, not what a cluster decides.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use flotilla_core::auth::Auth;
use flotilla_core::command::{Answer, Command, Outcome};
use flotilla_core::memory::MemoryView;
use flotilla_core::mvcc::{self, Head};
use flotilla_core::proto::etcdserverpb::cluster_client::ClusterClient;
use flotilla_core::proto::etcdserverpb::kv_client::KvClient;
use flotilla_core::proto::etcdserverpb::lease_client::LeaseClient;
use flotilla_core::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_core::proto::etcdserverpb::watch_client::WatchClient;
use flotilla_core::proto::etcdserverpb::watch_request::RequestUnion;
use flotilla_core::proto::etcdserverpb::{self as pb, ResponseHeader};
use flotilla_core::proto::health::HealthCheckRequest;
use flotilla_core::proto::health::health_client::HealthClient;
use flotilla_core::proto::internal::{Ask, Effect, Member};
use flotilla_core::remote::{self, Owners};
use flotilla_core::spine::ranges::{Range, Ranges};
use flotilla_core::spine::{Shown, State, Status};
use flotilla_core::stage::Reach;
use flotilla_core::view::{Batch, View};
use flotilla_core::watch::Published;
use flotilla_core::{Error, GroupId, NodeId};
use futures::{StreamExt, stream};
use metrics_exporter_prometheus::PrometheusBuilder;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tonic::Code;
use tonic::transport::Channel;

use super::method::{OnLearner, unknown};
use super::policy::{self, Wishes};
use super::{Budget, Context, Door, Method};
use crate::auth::Gate;
use crate::config::Config;
use crate::router::{Board, Pending, Request, Router};
use crate::runtime::{Connection, Socket};
use crate::store::{self, Store};
use crate::watch::HubHandle;

const CLUSTER: u64 = 0xc1;
const MEMBER: u64 = 0xa1;
const TERM: u64 = 3;

/// Answers what it is asked, at once. It only knows how to put, and to compact.
struct Spine {
    store: Store,
    board: Arc<Board>,
    pending: Arc<Pending>,
    hub: HubHandle,
    seen: Arc<Mutex<Vec<Command>>>,
    other: Other,
}

/// What a node that is asked shows, and how often it refuses to.
type Other = Arc<Mutex<(MemoryView, usize)>>;

impl Actor for Spine {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1_000);
    }
}

impl Handler<Request> for Spine {
    type Result = ();

    fn handle(&mut self, request: Request, _: &mut Self::Context) {
        match request {
            Request::Ticket(n, _) if self.board.leader() != 0 => {
                self.pending.answer_ticket(n, Ok(()))
            }
            Request::Ticket(n, _) => self.pending.answer_ticket(n, Err(Error::Timeout)),
            Request::TicketUnwanted(_) | Request::QuestionUnwanted(_) | Request::Transfer(..) => {}
            Request::Question(n, question) => {
                let ask = Ask {
                    range: question.range.0,
                    revision: question.shown.head.revision,
                    compact_revision: question.shown.head.compact_revision,
                    what: Some(question.what),
                    ..Ask::default()
                };
                let mut other = self.other.lock().unwrap();
                let (view, refusals) = &mut *other;
                let told = match refusals.checked_sub(1) {
                    Some(left) => {
                        *refusals = left;
                        remote::refusal(&ask)
                    }
                    None => remote::answer(view, &ask).unwrap(),
                };
                self.pending.tell(n, told);
            }
            Request::Command(n, _, command, _) => {
                self.seen.lock().unwrap().push(command.clone());
                if let Command::LeaseKeepAlive(request) = command {
                    // Later ones are answered first.
                    let pending = self.pending.clone();
                    actix::spawn(async move {
                        let wait = Duration::from_millis(200 / request.id.unsigned_abs());
                        tokio::time::sleep(wait).await;
                        let answer = pb::LeaseKeepAliveResponse {
                            header: None,
                            id: request.id,
                            ttl: 10 * request.id,
                        };
                        pending.answer(n, Ok(Answer::LeaseKeepAlive(answer)));
                    });
                    return;
                }
                let outcome = self.carry_out(command);
                self.pending.answer(n, outcome);
            }
        }
    }
}

impl Spine {
    fn carry_out(&self, command: Command) -> Outcome {
        let header = |revision| Some(ResponseHeader { revision, ..ResponseHeader::default() });
        match command {
            Command::Put(request) => {
                let effect = Effect { key: request.key, value: request.value, ..Effect::default() };
                let revision = put(&self.store, &self.board, Some(&self.hub), &[effect]);
                let header = header(revision);
                Ok(Answer::Put(pb::PutResponse { header, prev_kv: None }))
            }
            Command::Compact(request) => {
                let Head { revision, .. } = self.board.head();
                let head = Head { revision, compact_revision: request.revision };
                self.board.set_head(head, self.board.applied_index() + 1);
                let board = self.board.clone();
                actix::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    board.set_compacted(request.revision);
                });
                let header = header(revision);
                Ok(Answer::Compact(pb::CompactionResponse { header }))
            }
            Command::MemberAdd(member) => {
                let member = pb::Member {
                    id: member.id,
                    peer_ur_ls: member.peer_urls,
                    is_learner: member.is_learner,
                    ..pb::Member::default()
                };
                Ok(Answer::MemberAdd(pb::MemberAddResponse {
                    header: None,
                    member: Some(member.clone()),
                    members: vec![member],
                }))
            }
            Command::LeaseGrant(request) => {
                let (id, ttl) = (request.id, request.ttl);
                let answer = pb::LeaseGrantResponse { id, ttl, ..Default::default() };
                Ok(Answer::LeaseGrant(answer))
            }
            Command::Alarm(_) => Ok(Answer::Alarm(pb::AlarmResponse::default())),
            _ => Err(Error::LeaseNotFound),
        }
    }
}

/// Writes as the apply thread does.
fn put(store: &Store, board: &Board, hub: Option<&HubHandle>, effects: &[Effect]) -> i64 {
    let head = board.head();
    let revision = head.revision + 1;
    let (mut batch, mut events) = (Batch::default(), Vec::new());
    let mut applier = mvcc::Applier::new(store);
    applier.apply(revision, effects, false, &mut batch, &mut events).unwrap();
    store.apply(&batch).unwrap();
    board.set_head(Head { revision, ..head }, board.applied_index() + 1);
    if let Some(hub) = hub {
        hub.publish(&Published {
            after: head.revision,
            revision,
            compact_revision: head.compact_revision,
            events: events.into_iter().map(Into::into).collect(),
        });
    }
    revision
}

struct Node {
    store: Store,
    board: Arc<Board>,
    hub: HubHandle,
    seen: Arc<Mutex<Vec<Command>>>,
    other: Other,
    address: SocketAddr,
    _dir: TempDir,
}

impl Node {
    async fn start(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store::open(&store::Options::new(dir.path().join("store"))).unwrap();
        let board = Arc::new(Board::new(CLUSTER, MEMBER));
        let pending = Arc::new(Pending::default());
        let (hub, receiver) = HubHandle::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Gate::open(&config, Arc::new(Auth::default())).unwrap());
        let router = Router::new(pending.clone(), board.clone(), store.clone(), gate.clone());
        let (store2, board2) = (store.clone(), board.clone());
        let other = Other::default();
        let spine = Spine {
            store: store2,
            board: board2,
            pending,
            hub: hub.clone(),
            seen: seen.clone(),
            other: other.clone(),
        };
        router.register(GroupId::SPINE, spine.start().recipient());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = mpsc::channel(8);
        actix::spawn(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                let socket = Socket::Tcp(stream.into_std().unwrap(), peer);
                let connection = Connection { socket, tls: None, door: Door::Everything };
                sender.send(connection).await.unwrap();
            }
        });
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let budget = Arc::new(Budget::new(config.answer_budget_bytes));
        let context = Context::new(Arc::new(config), router, metrics, None, budget);
        actix::spawn(super::serve(context, receiver, connections));
        let node = Self { store, board, hub, seen, other, address, _dir: dir };
        node.set_leader(Some(MEMBER));
        node
    }

    /// The node has come to a revision, but for the keys from b up to d, which belong to a range that
    /// is lacking.
    fn show_without_b_to_d(&self, revision: i64) {
        let mut ranges = Ranges::default();
        let span = flotilla_core::proto::Span { start: "b".into(), end: Some("d".into()) };
        ranges.insert(GroupId(7), Range::new(span, vec![NodeId(9)]));
        let head = Head { revision, compact_revision: -1 };
        self.board.set_reach(&Reach {
            shown: Shown { index: 9, head },
            owners: Arc::new(Owners::new(&ranges)),
            lacking: [GroupId(7)].into(),
        });
    }

    /// Everything up to here is in the store, and so is the spine's state.
    fn show_all(&self) {
        let head = self.board.head();
        let mut state = State::bootstrap(CLUSTER, Vec::new());
        state.restore(head.revision, head.compact_revision, Default::default(), Auth::default());
        let mut batch = Batch::default();
        state.write_all(&mut batch);
        self.store.apply(&batch).unwrap();
        let shown = Shown { index: state.position().index, head };
        self.board.set_reach(&Reach { shown, owners: Arc::default(), lacking: [].into() });
    }

    fn set_leader(&self, leader: Option<u64>) {
        let status = Status {
            is_leader: leader == Some(MEMBER),
            leader: leader.map(NodeId),
            term: TERM,
            is_learner: false,
        };
        self.board.set_status(status);
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    fn fill(&self, count: usize, value_bytes: usize) {
        let value = Bytes::from(vec![b'v'; value_bytes]);
        let effect = |n| {
            let key = format!("key{n:06}").into();
            Effect { key, value: value.clone(), ..Effect::default() }
        };
        let effects: Vec<_> = (0..count).map(effect).collect();
        put(&self.store, &self.board, None, &effects);
    }

    /// Sends bytes as they are, and returns all that comes back.
    async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The node may close the connection while bytes of ours are still on the way.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, path: &str) -> (String, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = self.raw(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.to_ascii_lowercase(), body.to_owned())
    }
}

fn test<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    System::new().block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test()).await.expect("it ends in time");
    });
}

fn prefix() -> pb::RangeRequest {
    pb::RangeRequest { key: "key".into(), range_end: "kez".into(), ..Default::default() }
}

fn error<T>(result: Result<T, tonic::Status>) -> (Code, String) {
    let status = result.err().expect("an error");
    (status.code(), status.message().to_owned())
}

#[test]
fn a_learner_answers_three_methods_and_nobody_without_a_leader_if_asked() {
    let board = Board::new(CLUSTER, MEMBER);
    let plain = Wishes::read(&http::HeaderMap::new());
    let mut headers = http::HeaderMap::new();
    headers.insert("hasleader", "true".parse().unwrap());
    let asking = Wishes::read(&headers);
    for &method in Method::ALL {
        assert_eq!(policy::admit(method, plain, &board, false), Ok(()));
        assert_eq!(policy::admit(method, asking, &board, false), Err(Error::NoLeader));
    }
    let leader = Some(NodeId(1));
    board.set_status(Status { leader, is_learner: true, ..Status::default() });
    let mut served = Vec::new();
    for &method in Method::ALL {
        let strict = policy::admit(method, plain, &board, false);
        let local = policy::admit(method, plain, &board, true);
        match method.on_learner() {
            OnLearner::Refused => {
                assert_eq!((strict, local), (Err(Error::NotSupportedForLearner), strict));
            }
            OnLearner::LocalReads => {
                assert_eq!((strict, local), (Err(Error::NotSupportedForLearner), Ok(())));
                served.push(method);
            }
            OnLearner::Served => {
                assert_eq!((strict, local), (Ok(()), Ok(())));
                served.push(method);
            }
        }
    }
    let expected = [
        Method::Range,
        Method::Status,
        Method::Snapshot,
        Method::RangeList,
        Method::Decisions,
        Method::Hot,
    ];
    assert_eq!(served, expected);
}

#[test]
fn metadata_must_be_text() {
    let board = Board::new(CLUSTER, MEMBER);
    let mut headers = http::HeaderMap::new();
    let bad = http::HeaderValue::from_bytes(b"3.\xff").unwrap();
    headers.insert("client-api-version", bad);
    let admitted = policy::admit(Method::Put, Wishes::read(&headers), &board, false);
    assert_eq!(admitted, Err(Error::InvalidClientApiVersion));
    headers.insert("client-api-version", "3.5".parse().unwrap());
    assert_eq!(policy::admit(Method::Put, Wishes::read(&headers), &board, false), Ok(()));
}

#[test]
fn every_method_is_found_by_its_path_and_nothing_else_is() {
    for &method in Method::ALL {
        let path = format!("/{}/{}", method.service(), method.name());
        assert_eq!(Method::find(&path), Some(method));
        assert_eq!(Method::find(&path[1..]), None);
    }
    assert_eq!(unknown("/etcdserverpb.KV/Get"), "unknown method Get for service etcdserverpb.KV");
    assert_eq!(unknown("/etcdserverpb.V/Get"), "unknown service etcdserverpb.V");
    assert_eq!(unknown("/x"), "malformed method name: \"/x\"");
}

#[test]
fn a_put_is_answered_with_a_whole_header() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut kv = node.kv().await;
        let request = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let header = kv.put(request).await.unwrap().into_inner().header.unwrap();
        let wanted =
            ResponseHeader { cluster_id: CLUSTER, member_id: MEMBER, revision: 2, raft_term: TERM };
        assert_eq!(header, wanted);
        let request = pb::RangeRequest { key: "k".into(), ..Default::default() };
        let answer = kv.range(request).await.unwrap().into_inner();
        assert_eq!(answer.header, Some(wanted));
        assert_eq!((answer.count, answer.kvs[0].value.as_ref()), (1, &b"v"[..]));
    });
}

#[test]
fn bad_requests_never_reach_the_spine() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut kv = node.kv().await;
        let empty = error(kv.put(pb::PutRequest::default()).await);
        assert_eq!(empty.0, Code::InvalidArgument);
        assert_eq!(empty.1, "etcdserver: key is not provided");
        let range = error(kv.range(pb::RangeRequest::default()).await);
        assert_eq!(range.1, "etcdserver: key is not provided");
        let sorted = pb::RangeRequest { sort_order: 77, ..prefix() };
        assert_eq!(error(kv.range(sorted).await).1, "etcdserver: invalid sort option");
        let future = pb::RangeRequest { revision: 99, ..prefix() };
        let future = error(kv.range(future).await);
        assert_eq!(future.0, Code::OutOfRange);
        let add = pb::MemberAddRequest { peer_ur_ls: vec!["x".to_owned()], is_learner: true };
        let mut cluster = ClusterClient::new(node.channel().await);
        let bad = error(cluster.member_add(add).await);
        assert_eq!(bad.1, "etcdserver: given member URLs are invalid");
        assert!(node.seen.lock().unwrap().is_empty());
    });
}

#[test]
fn a_message_above_the_limit_is_refused_in_the_words_of_grpc_go() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut kv = node.kv().await;
        let value = Bytes::from(vec![0; 3 << 20]);
        let request = pb::PutRequest { key: "k".into(), value, ..Default::default() };
        let bytes = prost::Message::encoded_len(&request);
        let (code, text) = error(kv.put(request).await);
        assert_eq!(code, Code::ResourceExhausted);
        assert_eq!(text, format!("grpc: received message larger than max ({bytes} vs. 2097152)"));
        let request = pb::PutRequest { key: "k".into(), ..Default::default() };
        kv.put(request).await.expect("the connection goes on");
    });
}

#[test]
fn what_is_not_served_says_so() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut grpc = tonic::client::Grpc::new(node.channel().await);
        for (path, text) in [
            ("/etcdserverpb.V/Get", "unknown service etcdserverpb.V"),
            ("/etcdserverpb.KV/Nothing", "unknown method Nothing for service etcdserverpb.KV"),
        ] {
            grpc.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<pb::PutRequest, pb::PutResponse>::default();
            let request = tonic::Request::new(pb::PutRequest::default());
            let path = http::uri::PathAndQuery::from_static(path);
            let answer = error(grpc.unary(request, path, codec).await);
            assert_eq!(answer, (Code::Unimplemented, text.to_owned()));
        }
    });
}

#[test]
fn garbage_ends_its_own_connection_only() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        node.raw("\x16\x03\x01\x02garbage\r\n\r\n\0\0\0").await;
        node.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame at all, or is it").await;
        let request = pb::PutRequest { key: "k".into(), ..Default::default() };
        node.kv().await.put(request).await.unwrap();
    });
}

#[test]
fn a_large_read_is_the_same_in_pieces() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        node.fill(3_000, 400);
        let mut kv = node.kv().await;
        let wanted = mvcc::read(&node.store, node.board.head(), &prefix()).unwrap();
        let whole = kv.range(prefix()).await.unwrap().into_inner();
        assert_eq!(whole.kvs, wanted.kvs);
        assert_eq!((whole.count, whole.more), (3_000, false));
        assert_eq!(whole.header.unwrap().revision, 2);

        let sorted = pb::RangeRequest { limit: 7, sort_order: 2, ..prefix() };
        let descending = kv.range(sorted.clone()).await.unwrap().into_inner();
        let wanted = mvcc::read(&node.store, node.board.head(), &sorted).unwrap();
        assert_eq!(descending.kvs, wanted.kvs);
        assert_eq!((descending.count, descending.more), (3_000, true));
        let count = pb::RangeRequest { count_only: true, ..prefix() };
        assert_eq!(kv.range(count).await.unwrap().into_inner().count, 3_000);
    });
}

#[test]
fn pieces_of_a_stream_make_the_answer() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        node.fill(3_000, 1_000);
        let mut kv = node.kv().await;
        for limit in [0, 2_999, 3_000, 5] {
            let request = pb::RangeRequest { limit, ..prefix() };
            let mut pieces = kv.range_stream(request.clone()).await.unwrap().into_inner();
            let mut merged = pb::RangeResponse::default();
            let mut count = 0;
            while let Some(piece) = pieces.message().await.unwrap() {
                let piece = piece.range_response.unwrap();
                assert!(merged.header.is_none(), "only the last piece has a header");
                merged.kvs.extend(piece.kvs);
                (merged.header, merged.count, merged.more) =
                    (piece.header, piece.count, piece.more);
                count += 1;
            }
            assert_eq!(merged, kv.range(request).await.unwrap().into_inner());
            assert!(limit == 5 || count > 1, "it came in pieces");
        }
        let sorted = pb::RangeRequest { sort_order: 2, ..prefix() };
        let mut pieces = kv.range_stream(sorted).await.unwrap().into_inner();
        let refused = error(pieces.message().await);
        assert_eq!(refused.1, "RangeStream does not support custom sort orders");
    });
}

#[test]
fn a_stream_whose_revision_is_compacted_ends_in_an_error() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        node.fill(20_000, 1_000);
        node.fill(1, 1);
        let mut kv = node.kv().await;
        let request = pb::RangeRequest { revision: 2, ..prefix() };
        let mut pieces = kv.range_stream(request).await.unwrap().into_inner();
        pieces.message().await.unwrap().expect("a first piece");
        let head = Head { revision: 3, compact_revision: 3 };
        node.board.set_head(head, 9);
        let failed = loop {
            match pieces.message().await {
                Ok(piece) => assert!(piece.is_some(), "it must not end well"),
                Err(status) => break status,
            }
        };
        assert_eq!(failed.message(), Error::Compacted.text());
    });
}

#[test]
fn the_quota_refuses_and_raises_the_alarm() {
    test(|| async {
        let config = Config { quota_backend_bytes: Some(1), ..Config::default() };
        let node = Node::start(config).await;
        let mut kv = node.kv().await;
        let request = pb::PutRequest { key: "k".into(), ..Default::default() };
        let refused = error(kv.put(request).await);
        assert_eq!(refused.0, Code::ResourceExhausted);
        assert_eq!(refused.1, Error::NoSpace.text());
        let alarm = pb::AlarmRequest { action: 1, member_id: MEMBER, alarm: 1 };
        assert_eq!(*node.seen.lock().unwrap(), [Command::Alarm(alarm)]);
        let delete = pb::DeleteRangeRequest { key: "k".into(), ..Default::default() };
        let _ = kv.delete_range(delete).await;
        assert_eq!(node.seen.lock().unwrap().len(), 2, "what costs nothing goes on");
    });
}

#[test]
fn a_physical_compaction_is_answered_when_it_is_done() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        node.fill(1, 1);
        let mut kv = node.kv().await;
        let request = pb::CompactionRequest { revision: 2, physical: true };
        kv.compact(request).await.unwrap();
        assert_eq!(node.board.compacted(), 2);
    });
}

#[test]
fn a_lease_without_id_is_given_one() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut lease = LeaseClient::new(node.channel().await);
        let request = pb::LeaseGrantRequest { ttl: 5, id: 0 };
        let answer = lease.lease_grant(request).await.unwrap().into_inner();
        assert!(answer.id > 0 && answer.ttl == 5);
        let request = pb::LeaseGrantRequest { ttl: 5, id: -7 };
        assert_eq!(lease.lease_grant(request).await.unwrap().into_inner().id, -7);
    });
}

#[test]
fn renewals_are_answered_in_order_and_end_with_the_last() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut lease = LeaseClient::new(node.channel().await);
        let requests = stream::iter((1..=20).map(|id| pb::LeaseKeepAliveRequest { id }));
        let answers = lease.lease_keep_alive(requests).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.unwrap()).collect().await;
        let ids: Vec<_> = answers.iter().map(|answer| (answer.id, answer.ttl)).collect();
        assert_eq!(ids, (1..=20).map(|id| (id, 10 * id)).collect::<Vec<_>>());
        assert_eq!(answers[0].header.unwrap().revision, 1);
    });
}

#[test]
fn members_are_added_under_their_id_with_a_header_without_revision() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut cluster = ClusterClient::new(node.channel().await);
        let peer_ur_ls = vec!["http://b:1".to_owned(), "http://a:1".to_owned()];
        let request = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
        let answer = cluster.member_add(request).await.unwrap().into_inner();
        let member = answer.member.unwrap();
        assert_eq!(member.peer_ur_ls, ["http://a:1", "http://b:1"]);
        assert!(member.id != 0 && member.is_learner);
        assert_eq!(answer.header.unwrap().revision, 0);
    });
}

#[test]
fn maintenance_tells_of_the_node() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        node.board.change(|notice| {
            notice.alarms.insert((1, 0xbeef));
            notice.cluster_version = "3.7.0".to_owned();
        });
        let mut maintenance = MaintenanceClient::new(node.channel().await);
        let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.version, "3.7.1");
        assert_eq!(status.errors, ["memberID:48879 alarm:NOSPACE"]);
        assert!(status.db_size > 0 && status.db_size_quota == 2 << 30);
        let listed = maintenance.alarm(pb::AlarmRequest::default()).await.unwrap().into_inner();
        assert_eq!(listed.alarms, [pb::AlarmMember { member_id: 0xbeef, alarm: 1 }]);
        let corrupt = pb::AlarmRequest { alarm: 2, ..Default::default() };
        assert!(maintenance.alarm(corrupt).await.unwrap().into_inner().alarms.is_empty());

        let moved = maintenance.move_leader(pb::MoveLeaderRequest { target_id: 5 }).await;
        assert!(moved.is_err());
        node.set_leader(None);
        let moved = maintenance.move_leader(pb::MoveLeaderRequest { target_id: 5 }).await;
        assert_eq!(error(moved).1, Error::NotLeader.text());
        let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.errors[0], "etcdserver: no leader");

        for (version, wanted) in [
            ("3", Error::WrongDowngradeVersionFormat),
            ("3.6", Error::InvalidDowngradeTargetVersion),
        ] {
            let request = pb::DowngradeRequest { action: 0, version: version.to_owned() };
            assert_eq!(error(maintenance.downgrade(request).await).1, wanted.text());
        }
        let cancel = pb::DowngradeRequest { action: 2, version: String::new() };
        let answer = maintenance.downgrade(cancel).await.unwrap().into_inner();
        assert_eq!(answer.version, "3.7");
    });
}

#[test]
fn hashes_are_of_the_history() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        node.fill(10, 10);
        let mut maintenance = MaintenanceClient::new(node.channel().await);
        let request = pb::HashKvRequest { revision: 0 };
        let answer = maintenance.hash_kv(request).await.unwrap().into_inner();
        let wanted = mvcc::hash_kv(&node.store, node.board.head(), 0).unwrap();
        assert_eq!((answer.hash, answer.hash_revision, answer.compact_revision), (wanted, 2, -1));
        let future = maintenance.hash_kv(pb::HashKvRequest { revision: 3 }).await;
        assert_eq!(error(future).1, Error::FutureRevision.text());
        let before = maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner().hash;
        node.fill(10, 10);
        let after = maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner().hash;
        assert_ne!(before, after);
        maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
        let same = maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner().hash;
        assert_eq!(after, same);
    });
}

#[test]
fn a_snapshot_comes_in_blobs_and_its_hash_last() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        node.fill(500, 1_000);
        node.show_all();
        let mut maintenance = MaintenanceClient::new(node.channel().await);
        let answers = maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.unwrap()).collect().await;
        let total: usize = answers.iter().map(|answer| answer.blob.len()).sum();
        assert_eq!(total % 512, 32);
        assert_eq!(answers.last().unwrap().blob.len(), 32);
        assert!(total > 500_000 && answers.iter().all(|answer| answer.version == "3.7.0"));
    });
}

#[test]
fn health_is_that_of_the_node() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut health = HealthClient::new(node.channel().await);
        let request = HealthCheckRequest::default();
        assert_eq!(health.check(request.clone()).await.unwrap().into_inner().status, 1);
        let other = HealthCheckRequest { service: "x".to_owned() };
        let refused = error(health.check(other.clone()).await);
        assert_eq!(refused, (Code::NotFound, "unknown service".to_owned()));
        for (request, wanted) in [(request, 1), (other, 3)] {
            let mut answers = health.watch(request).await.unwrap().into_inner();
            assert_eq!(answers.message().await.unwrap().unwrap().status, wanted);
            let next = tokio::time::timeout(Duration::from_millis(50), answers.message()).await;
            assert!(next.is_err(), "the stream stays open");
        }
    });
}

#[test]
fn pages_have_etcds_texts() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let (head, body) = node.get("/health").await;
        assert!(head.starts_with("http/1.1 200 ok"), "{head}");
        assert_eq!(body, "{\"health\":\"true\",\"reason\":\"\"}");
        let (head, body) = node.get("/version").await;
        assert!(head.contains("content-type: application/json"), "{head}");
        let wanted = "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"not_decided\",\
                      \"storage\":\"3.7.0\"}";
        assert_eq!(body, wanted);
        let (head, body) = node.get("/livez").await;
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        assert_eq!(body, "ok\n");
        let (_, body) = node.get("/readyz?verbose").await;
        let lines = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
                     [+]non_learner ok\nok\n";
        assert_eq!(body, lines);
        assert!(node.get("/metrics").await.0.contains("text/plain; version=0.0.4"));
        assert!(node.get("/nothing").await.0.starts_with("http/1.1 404"));
        let post = "POST /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = node.raw(post).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 405") && answer.contains("allow: get"), "{answer}");
    });
}

#[test]
fn pages_say_what_is_wrong() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        node.board.change(|notice| {
            notice.alarms.insert((1, MEMBER));
        });
        let (head, body) = node.get("/health").await;
        assert!(head.starts_with("http/1.1 503"), "{head}");
        assert_eq!(body, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n");
        assert!(node.get("/health?exclude=NOSPACE").await.0.starts_with("http/1.1 200"));
        assert!(node.get("/readyz").await.0.starts_with("http/1.1 200"));
        node.board.change(|notice| {
            notice.members = vec![Member { id: MEMBER, ..Member::default() }];
        });
        let (head, body) = node.get("/readyz/linearizable_read").await;
        assert!(head.starts_with("http/1.1 503"), "{head}");
        assert!(body.contains("this member is not announced yet"), "{body}");
        node.board.change(|notice| {
            notice.members.clear();
            notice.alarms = [(2, MEMBER)].into();
        });
        node.set_leader(None);
        let (_, body) = node.get("/health?exclude=CORRUPT").await;
        assert_eq!(body, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n");
        let local = node.get("/health?exclude=CORRUPT&serializable=true").await;
        assert!(local.0.starts_with("http/1.1 200"));
        let (head, body) = node.get("/readyz?exclude=serializable_read").await;
        assert!(head.starts_with("http/1.1 503"), "{head}");
        let lines = "[-]data_corruption failed: alarm activated: CORRUPT\n\
                     [-]linearizable_read failed: etcdserver: request timed out\n\
                     [+]non_learner ok\n\n";
        assert_eq!(body, lines);
        assert_eq!(node.get("/livez/serializable_read").await.1, "ok\n");
    });
}

fn create(request: pb::WatchCreateRequest) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
}

fn put_request(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

#[test]
fn a_watch_goes_on_after_the_client_has_sent_all_it_wanted_to() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut kv = node.kv().await;
        kv.put(put_request("a", "before")).await.unwrap();
        let mut client = WatchClient::new(node.channel().await);
        let now = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
        let past = pb::WatchCreateRequest { start_revision: 2, ..now.clone() };
        let requests = stream::iter([create(now), create(past)]);
        let mut answers = client.watch(requests).await.unwrap().into_inner();
        for id in 0..2 {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!((answer.created, answer.watch_id), (true, id));
            let header = answer.header.unwrap();
            assert_eq!((header.cluster_id, header.raft_term), (CLUSTER, TERM));
        }
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.watch_id, 1, "history");
        assert_eq!(answer.events[0].kv.as_ref().unwrap().value, "before");
        kv.put(put_request("a", "after")).await.unwrap();
        kv.put(put_request("b", "another key")).await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!(answer.events[0].kv.as_ref().unwrap().value, "after");
            assert_eq!(answer.header.unwrap().revision, 3);
            ids.push(answer.watch_id);
        }
        ids.sort_unstable();
        assert_eq!(ids, [0, 1]);
    });
}

#[test]
fn batches_that_found_no_room_are_read_from_the_history() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        let mut client = WatchClient::new(node.channel().await);
        let (requests, receiver) = mpsc::channel(4);
        let requested = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut answers = client.watch(requested).await.unwrap().into_inner();
        let all = pb::WatchCreateRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            ..Default::default()
        };
        requests.send(create(all)).await.unwrap();
        assert!(answers.message().await.unwrap().unwrap().created);
        // The worker is this thread: it takes no batch before the next wait.
        let count = 5_000;
        for _ in 0..count {
            let effect = Effect { key: "k".into(), ..Effect::default() };
            put(&node.store, &node.board, Some(&node.hub), &[effect]);
        }
        let mut next = 2;
        while next < 2 + count {
            let answer = answers.message().await.unwrap().unwrap();
            for event in answer.events {
                assert_eq!(event.kv.unwrap().mod_revision, next);
                next += 1;
            }
        }
    });
}

#[test]
fn a_stream_that_needs_a_leader_is_cut_off_without_one() {
    test(|| async {
        let config = Config {
            heartbeat_interval: Duration::from_millis(10),
            election_timeout: Duration::from_millis(100),
            ..Config::default()
        };
        let node = Node::start(config).await;
        let with_leader = |mut request: tonic::Request<_>| {
            request.metadata_mut().insert("hasleader", "true".parse().unwrap());
            request
        };
        let mut client = WatchClient::new(node.channel().await);
        let request = with_leader(tonic::Request::new(stream::pending().boxed()));
        let mut watching = client.watch(request).await.unwrap().into_inner();
        let mut health = HealthClient::new(node.channel().await);
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        let mut checking = health.watch(request).await.unwrap().into_inner();
        checking.message().await.unwrap().unwrap();

        node.set_leader(None);
        let wanted = (Code::Unavailable, "etcdserver: no leader".to_owned());
        assert_eq!(error(watching.message().await), wanted);
        assert_eq!(error(checking.message().await), wanted);
        let request = with_leader(tonic::Request::new(stream::pending().boxed()));
        assert_eq!(error(client.watch(request).await), wanted);
    });
}

/// Writes as the apply thread of another node does.
fn put_in_memory(view: &mut MemoryView, revision: i64, keys: &[&'static str]) {
    let value = Bytes::from(revision.to_string());
    let effect = |key: &&'static str| Effect {
        key: Bytes::from_static(key.as_bytes()),
        value: value.clone(),
        ..Effect::default()
    };
    let effects: Vec<Effect> = keys.iter().map(effect).collect();
    let (mut batch, mut events) = (Batch::default(), Vec::new());
    let mut applier = mvcc::Applier::new(view as &dyn View);
    applier.apply(revision, &effects, false, &mut batch, &mut events).unwrap();
    view.apply(&batch);
}

#[test]
fn keys_that_are_not_shown_here_are_read_from_a_node_that_shows_them() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        // Keys from b up to d belong to a range of which this node has an older state.
        let all: Vec<Effect> = ["a", "b", "c", "d"]
            .map(|key| Effect { key: key.into(), value: "2".into(), ..Effect::default() })
            .into();
        assert_eq!(put(&node.store, &node.board, None, &all), 2);
        node.show_without_b_to_d(3);
        {
            let mut other = node.other.lock().unwrap();
            put_in_memory(&mut other.0, 2, &["a", "b", "c", "d"]);
            put_in_memory(&mut other.0, 3, &["b", "bb"]);
            // It has not come so far at first.
            other.1 = 2;
        }

        let mut kv = node.kv().await;
        let texts = |kvs: &[flotilla_core::proto::mvccpb::KeyValue]| -> Vec<String> {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            kvs.iter().map(|kv| format!("{}={}", text(&kv.key), text(&kv.value))).collect()
        };
        let whole =
            pb::RangeRequest { key: "a".into(), range_end: "\0".into(), ..Default::default() };
        let answer = kv.range(whole.clone()).await.unwrap().into_inner();
        assert_eq!(texts(&answer.kvs), ["a=2", "b=3", "bb=3", "c=2", "d=2"]);
        assert_eq!((answer.count, answer.more, answer.header.unwrap().revision), (5, false, 3));
        assert_eq!(node.other.lock().unwrap().1, 0, "it was asked");

        let limited = pb::RangeRequest { limit: 2, serializable: true, ..whole.clone() };
        let answer = kv.range(limited).await.unwrap().into_inner();
        assert_eq!(texts(&answer.kvs), ["a=2", "b=3"]);
        assert_eq!((answer.count, answer.more), (5, true));
        let before = pb::RangeRequest { revision: 2, sort_order: 2, ..whole.clone() };
        let answer = kv.range(before).await.unwrap().into_inner();
        assert_eq!(texts(&answer.kvs), ["d=2", "c=2", "b=2", "a=2"]);
        let later = pb::RangeRequest { revision: 4, ..whole.clone() };
        let refused = error(kv.range(later).await);
        assert_eq!(refused.1, "etcdserver: mvcc: required revision is a future revision");

        let newer = pb::Compare {
            key: "b".into(),
            range_end: "c".into(),
            target: pb::compare::CompareTarget::Mod as i32,
            target_union: Some(pb::compare::TargetUnion::ModRevision(3)),
            ..Default::default()
        };
        let get = |request: &pb::RangeRequest| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestRange(request.clone())),
        };
        let request = pb::TxnRequest {
            compare: vec![newer],
            success: vec![get(&whole)],
            failure: Vec::new(),
        };
        let answer = kv.txn(request).await.unwrap().into_inner();
        assert!(answer.succeeded);
        let Some(pb::response_op::Response::ResponseRange(found)) = &answer.responses[0].response
        else {
            panic!("{answer:?}")
        };
        assert_eq!(texts(&found.kvs), ["a=2", "b=3", "bb=3", "c=2", "d=2"]);

        let mut pieces = kv.range_stream(whole).await.unwrap().into_inner();
        let (mut streamed, mut count) = (Vec::new(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece.unwrap().range_response.unwrap();
            streamed.extend(piece.kvs);
            count = piece.count;
        }
        assert_eq!((texts(&streamed), count), (texts(&found.kvs), 5));

        // Nobody answers any more: the client hears that, in time.
        node.other.lock().unwrap().1 = usize::MAX;
        let request = pb::RangeRequest { key: "b".into(), ..Default::default() };
        let began = std::time::Instant::now();
        assert_eq!(error(kv.range(request).await).1, "etcdserver: request timed out");
        assert!(began.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn watchers_are_sent_what_happened_to_keys_that_are_not_shown_here() {
    test(|| async {
        let node = Node::start(Config::default()).await;
        // The store has a key of the range that the range does not have.
        let old: Vec<Effect> = ["a", "b", "bx", "d"]
            .map(|key| Effect { key: key.into(), value: "old".into(), ..Effect::default() })
            .into();
        assert_eq!(put(&node.store, &node.board, None, &old), 2);
        node.show_without_b_to_d(3);
        {
            let mut other = node.other.lock().unwrap();
            put_in_memory(&mut other.0, 2, &["a", "b", "c", "d"]);
            put_in_memory(&mut other.0, 3, &["b", "bb"]);
            // It has not come so far at first.
            other.1 = 2;
        }

        let all = pb::WatchCreateRequest {
            key: "a".into(),
            range_end: "\0".into(),
            start_revision: 2,
            prev_kv: true,
            ..Default::default()
        };
        let (sender, receiver) = mpsc::channel(8);
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        sender.send(create(all.clone())).await.unwrap();
        let mut client = WatchClient::new(node.channel().await);
        let mut answers = client.watch(requests).await.unwrap().into_inner();
        let mut next = async || answers.message().await.unwrap().unwrap();
        let texts = |answer: &pb::WatchResponse| -> Vec<String> {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            let events = answer.events.iter().map(|event| {
                let kv = event.kv.as_ref().unwrap();
                let prev = event.prev_kv.as_ref().map_or("-".to_owned(), |prev| text(&prev.value));
                format!("{}:{} after {prev}", kv.mod_revision, text(&kv.key))
            });
            events.collect()
        };
        let created = next().await;
        assert!(created.created);
        assert_eq!(created.header.unwrap().revision, 3);
        let history = next().await;
        let wanted = ["2:a", "2:b", "2:c", "2:d", "3:b", "3:bb"];
        let wanted = wanted.map(|event| {
            let prev = if event == "3:b" { "2" } else { "-" };
            format!("{event} after {prev}")
        });
        assert_eq!(texts(&history), wanted);
        assert_eq!(node.other.lock().unwrap().1, 0, "it was asked");

        // A revision of two ranges comes whole, once the node shows it.
        let revision = 4;
        let effect = Effect { key: "a".into(), value: "4".into(), ..Effect::default() };
        let (mut batch, mut events) = (Batch::default(), Vec::new());
        let mut applier = mvcc::Applier::new(&node.store);
        applier.apply(revision, &[effect], false, &mut batch, &mut events).unwrap();
        node.store.apply(&batch).unwrap();
        put_in_memory(&mut node.other.lock().unwrap().0, revision, &["a", "c"]);
        node.show_without_b_to_d(revision);
        let publish = || {
            node.hub.publish(&Published {
                after: revision,
                revision,
                compact_revision: -1,
                events: Arc::new([]),
            });
        };
        publish();
        let live = next().await;
        assert_eq!(texts(&live), ["4:a after old", "4:c after 2"]);
        assert_eq!(live.header.unwrap().revision, revision);
        let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        sender.send(pb::WatchRequest { request_union: Some(progress) }).await.unwrap();
        let told = next().await;
        assert_eq!((told.watch_id, told.header.unwrap().revision), (-1, revision));
        assert!(told.events.is_empty());

        // Whoever comes back later goes on where he was.
        let rest = pb::WatchCreateRequest { start_revision: 3, range_end: "c".into(), ..all };
        sender.send(create(rest)).await.unwrap();
        assert!(next().await.created);
        let wanted = ["3:b after 2", "3:bb after -", "4:a after old"];
        assert_eq!(texts(&next().await), wanted);

        // The range is here again.
        let head = Head { revision, compact_revision: -1 };
        node.board.set_head(head, 10);
        let mut reach = Reach::clone(&node.board.reach());
        reach.lacking.clear();
        node.board.set_reach(&reach);
        let effect = Effect { key: "d".into(), value: "5".into(), ..Effect::default() };
        assert_eq!(put(&node.store, &node.board, Some(&node.hub), &[effect]), 5);
        assert_eq!(texts(&next().await), ["5:d after old"]);
    });
}
