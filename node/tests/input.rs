//! Input that is wrong: requests that etcd refuses, with its codes and texts, and bytes that are no
//! request at all, on both ports. Afterwards the same process still serves.

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use flotilla_proto::etcdserverpb::request_op::Request as Operation;
use flotilla_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, StatusRequest, TxnRequest,
};
use flotilla_proto::internal::PeerHello;
use harness::{Cluster, flotilla, http_get};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// How long the server may take to end a connection whose client has said all it had to say.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn client(url: &str) -> KvClient<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    KvClient::new(endpoint.connect().await.expect("the node is ready"))
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn range(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

fn operation(request: Operation) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(
    answer: Result<tonic::Response<T>, Status>,
    code: Code,
    text: &str,
) {
    match answer {
        Err(status) => assert_eq!((status.code(), status.message()), (code, text)),
        Ok(answer) => panic!("answered instead of {text:?}: {answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_requests_have_etcds_codes_and_texts_and_change_nothing() {
    let cluster = Cluster::start(&flotilla(), 1);
    let mut kv = client(&cluster.endpoint(0)).await;
    kv.put(put("a", "1")).await.expect("a put");
    kv.put(put("a", "2")).await.expect("a put");
    let answer = kv.put(put("a", "3")).await.expect("a put").into_inner();
    let newest = answer.header.expect("an answer has a header").revision;
    kv.compact(CompactionRequest { revision: newest - 1, physical: false })
        .await
        .expect("a compaction");

    let invalid = Code::InvalidArgument;
    let no_key = "etcdserver: key is not provided";
    assert_refused(kv.put(put("", "x")).await, invalid, no_key);
    assert_refused(kv.range(range("")).await, invalid, no_key);
    assert_refused(kv.delete_range(DeleteRangeRequest::default()).await, invalid, no_key);
    let compare = vec![Compare::default()];
    let answer = kv.txn(TxnRequest { compare, ..Default::default() }).await;
    assert_refused(answer, invalid, no_key);
    let failure = vec![operation(Operation::RequestPut(put("", "x")))];
    let answer = kv.txn(TxnRequest { failure, ..Default::default() }).await;
    assert_refused(answer, invalid, no_key);

    let success: Vec<_> = (0..129)
        .map(|n| operation(Operation::RequestPut(put(&format!("many/{n}"), "x"))))
        .collect();
    let answer = kv.txn(TxnRequest { success, ..Default::default() }).await;
    assert_refused(answer, invalid, "etcdserver: too many operations in txn request");

    let duplicate = "etcdserver: duplicate key given in txn request";
    let twice = || operation(Operation::RequestPut(put("twice", "x")));
    let answer = kv.txn(TxnRequest { success: vec![twice(), twice()], ..Default::default() }).await;
    assert_refused(answer, invalid, duplicate);
    let delete = DeleteRangeRequest {
        key: "t".into(),
        range_end: "u".into(),
        ..DeleteRangeRequest::default()
    };
    let success = vec![operation(Operation::RequestDeleteRange(delete)), twice()];
    let answer = kv.txn(TxnRequest { success, ..Default::default() }).await;
    assert_refused(answer, invalid, duplicate);

    let answer = kv.put(PutRequest { lease: 4711, ..put("leased", "x") }).await;
    assert_refused(answer, Code::NotFound, "etcdserver: requested lease not found");

    let future = "etcdserver: mvcc: required revision is a future revision";
    let answer = kv.range(RangeRequest { revision: newest + 1, ..range("a") }).await;
    assert_refused(answer, Code::OutOfRange, future);
    let answer = kv.compact(CompactionRequest { revision: newest + 1, physical: false }).await;
    assert_refused(answer, Code::OutOfRange, future);
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let answer = kv.range(RangeRequest { revision: newest - 2, ..range("a") }).await;
    assert_refused(answer, Code::OutOfRange, compacted);
    let answer = kv.compact(CompactionRequest { revision: newest - 1, physical: false }).await;
    assert_refused(answer, Code::OutOfRange, compacted);

    let sort = "etcdserver: invalid sort option";
    for (sort_order, sort_target) in [(3, 0), (-1, 0), (0, 5), (1, -1)] {
        let answer = kv.range(RangeRequest { sort_order, sort_target, ..range("a") }).await;
        assert_refused(answer, invalid, sort);
    }

    let answer = kv.put(PutRequest { ignore_value: true, ..put("a", "x") }).await;
    assert_refused(answer, invalid, "etcdserver: value is provided");
    let answer = kv.put(PutRequest { ignore_lease: true, lease: 1, ..put("a", "x") }).await;
    assert_refused(answer, invalid, "etcdserver: lease is provided");
    let no_such_key = "etcdserver: key not found";
    let answer = kv.put(PutRequest { ignore_value: true, ..put("none", "") }).await;
    assert_refused(answer, invalid, no_such_key);
    let answer = kv.put(PutRequest { ignore_lease: true, ..put("none", "x") }).await;
    assert_refused(answer, invalid, no_such_key);
    let success = vec![RequestOp::default()];
    let answer = kv.txn(TxnRequest { success, ..Default::default() }).await;
    assert_refused(answer, invalid, no_such_key);

    let everything =
        RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let answer = kv.range(everything).await.expect("a read").into_inner();
    assert_eq!(answer.header.expect("an answer has a header").revision, newest);
    assert_eq!((answer.count, &answer.kvs[0].value[..]), (1, &b"3"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_too_large_are_refused_and_the_connection_goes_on() {
    let mut cluster = Cluster::start(&flotilla(), 1);
    let mut kv = client(&cluster.endpoint(0)).await;
    let of_bytes = |bytes: usize| put("large", &"x".repeat(bytes));

    kv.put(of_bytes(1_500_000)).await.expect("below the limit");
    let text = "etcdserver: request is too large";
    assert_refused(kv.put(of_bytes(1_572_864)).await, Code::InvalidArgument, text);
    assert_refused(kv.put(of_bytes(2_097_000)).await, Code::InvalidArgument, text);

    for bytes in [2_097_153, 9_000_000] {
        let request = of_bytes(bytes);
        let length = request.encoded_len();
        let text = format!("grpc: received message larger than max ({length} vs. 2097152)");
        assert_refused(kv.put(request).await, Code::ResourceExhausted, &text);
    }

    kv.put(put("small", "x")).await.expect("the same connection goes on");
    let answer = kv.range(range("large")).await.expect("a read").into_inner();
    assert_eq!(answer.kvs[0].value.len(), 1_500_000, "no refused value was stored");
    assert!(cluster.nodes[0].is_running());
}

/// Noise that is the same in every run.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let stream = stream.expect("the node listens");
    stream.set_read_timeout(Some(CLOSED_WITHIN)).expect("a timeout");
    stream.set_write_timeout(Some(CLOSED_WITHIN)).expect("a timeout");
    stream
}

/// Says all of `bytes` and then nothing more. Returns what came back before the server hung up.
#[track_caller]
fn say(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    // The server may hang up in the middle, which is an answer too.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    listen(stream, bytes)
}

/// Sends a whole HTTP/1 request, and returns what is answered until the server closes. A server may
/// take a client that stops sending for one that has gone, and not answer.
fn ask(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    stream.write_all(request).expect("the server takes it");
    listen(stream, request)
}

fn listen(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let is_held =
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert!(!is_held, "a connection is held open after {start:?}");
    }
    answer
}

fn http2_frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a small frame").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(content);
    frame
}

/// A call of `Put` whose message claims `claimed` bytes and brings `sent`.
fn put_call(claimed: u32, sent: &[u8]) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Put"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).expect("a short text"));
            headers.extend(text.as_bytes());
        }
    }
    let mut message = vec![0];
    message.extend(claimed.to_be_bytes());
    message.extend(sent);
    let mut bytes = PREFACE.to_vec();
    bytes.extend(http2_frame(4, 0, 0, &[]));
    bytes.extend(http2_frame(1, 4, 1, &headers));
    bytes.extend(http2_frame(0, 1, 1, &message));
    bytes
}

async fn assert_serves(cluster: &mut Cluster, key: &str) {
    let mut kv = client(&cluster.endpoint(0)).await;
    let attempt = tokio::time::timeout(Duration::from_secs(5), kv.put(put(key, "x"))).await;
    attempt.expect("a put takes no five seconds").expect("a put");
    let node = &mut cluster.nodes[0];
    assert!(node.is_running(), "the process is still the one that was started");
    let log = node.log().to_lowercase();
    assert!(!log.contains("panic"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_client_port_ends_its_connection_and_nothing_else() {
    let mut cluster = Cluster::start(&flotilla(), 1);
    let port = cluster.nodes[0].client_port;
    for seed in 1..20 {
        say(port, &noise(seed, 1 << (seed % 17)));
    }
    say(port, b"");
    say(port, b"\r\n\r\n\r\n");
    say(port, b"GET\r\n");
    say(port, b"BREW /pot HTTP/1.1\r\nContent-Length: -7\r\n\r\n");
    say(port, b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n{");
    say(port, b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{\"key\":\"!");
    let chunked =
        b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    say(port, chunked);
    let mut endless = b"GET / HTTP/1.1\r\nX: ".to_vec();
    endless.extend(vec![b'x'; 1 << 20]);
    say(port, &endless);

    say(port, &PREFACE[..PREFACE.len() / 2]);
    say(port, PREFACE);
    for seed in 20..30 {
        say(port, &[PREFACE, &noise(seed, 5_000)].concat());
    }
    // A frame longer than was agreed, headers that cannot be unpacked, data on no stream.
    say(
        port,
        &[PREFACE, &http2_frame(4, 0, 0, &[]), &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
    );
    let packed = http2_frame(1, 5, 1, &noise(31, 300));
    say(port, &[PREFACE, &http2_frame(4, 0, 0, &[]), &packed].concat());
    let orphan = http2_frame(0, 1, 77, b"orphan");
    say(port, &[PREFACE, &http2_frame(4, 0, 0, &[]), &orphan].concat());
    // Messages that claim more than they bring, up to four gigabytes, and one that is no message.
    for (claimed, sent) in [(u32::MAX, 0), (u32::MAX, 9_000), (2_000_000, 10), (1, 0)] {
        say(port, &put_call(claimed, &noise(40, sent)));
    }
    say(port, &put_call(500, &noise(41, 500)));
    assert_serves(&mut cluster, "after").await;

    // Connections that stay, in the middle of a sentence, keep nobody else waiting.
    let held: Vec<TcpStream> = (0..100)
        .map(|n| {
            let mut stream = connect(port);
            let sentence = if n % 2 == 0 { &PREFACE[..9] } else { &b"GET /hea"[..] };
            stream.write_all(sentence).expect("a few bytes");
            stream
        })
        .collect();
    assert_serves(&mut cluster, "beside").await;
    drop(held);
    assert_serves(&mut cluster, "at last").await;
}

fn peer_frame(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a small frame");
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(crc32c::crc32c(content).to_le_bytes());
    frame.extend(content);
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_peer_port_ends_its_connection_and_nothing_else() {
    let mut cluster = Cluster::start(&flotilla(), 1);
    let endpoint = Endpoint::from_shared(cluster.endpoint(0)).expect("an address");
    let channel = endpoint.connect().await.expect("the node is ready");
    let status = MaintenanceClient::new(channel).status(StatusRequest {}).await;
    let header = status.expect("a status").into_inner().header.expect("an answer has a header");
    let port = cluster.nodes[0].peer_port;

    for seed in 1..20 {
        say(port, &noise(seed, 1 << (seed % 17)));
    }
    say(port, b"");
    say(port, b"BREW /pot HTTP/1.1\r\nContent-Length: -7\r\n\r\n");
    say(port, PREFACE);
    let answer = ask(port, b"POST /flotilla-peer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 426"), "{}", String::from_utf8_lossy(&answer));

    for protocol in ["flotilla-peer", "flotilla-snapshot"] {
        let upgrade = format!(
            "POST /{protocol} HTTP/1.1\r\nHost: x\r\n\
             Connection: upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        );
        // `after` is what follows the upgrade; the answer is what follows the response's head.
        let speak = |after: &[u8]| {
            let answer = say(port, &[upgrade.as_bytes(), after].concat());
            // A connection that is reset with input unread may take the answer along.
            if answer.is_empty() {
                return answer;
            }
            let head = b"\r\n\r\n";
            let end = answer.windows(head.len()).position(|window| window == head);
            assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
            answer[end.expect("a response has a head") + head.len()..].to_vec()
        };
        speak(b"");
        for seed in 50..60 {
            speak(&noise(seed, 3_000));
            // Framed as it should be, but not a message.
            speak(&peer_frame(&noise(seed, 3_000)));
        }
        speak(&[0xff; 8]);
        speak(&[0xff; 4_096]);
        // The largest length that is allowed, and almost nothing behind it.
        speak(&[&(80_u32 << 20).to_le_bytes()[..], &[1, 2, 3, 4, 5]].concat());
        speak(&peer_frame(&[]));

        let ours = PeerHello {
            protocol: 1,
            cluster_id: header.cluster_id,
            from: 0xbad,
            to: header.member_id,
            ..PeerHello::default()
        };
        let other_cluster = PeerHello { cluster_id: header.cluster_id ^ 1, ..ours.clone() };
        let other_member = PeerHello { to: header.member_id ^ 1, ..ours.clone() };
        let other_protocol = PeerHello { protocol: 99, ..ours.clone() };
        for hello in [other_cluster, other_member, other_protocol] {
            let answer = speak(&peer_frame(&hello.encode_to_vec()));
            let answer = PeerHello::decode(&answer[8..]).expect("an answer to the hello");
            assert_eq!(answer.cluster_id, header.cluster_id);
        }
        // A stranger who knows whom to ask for.
        let hello = peer_frame(&ours.encode_to_vec());
        for seed in 60..80 {
            let frame = peer_frame(&noise(seed, usize::try_from(seed).expect("small")));
            speak(&[&hello[..], &frame, &noise(seed, 500)].concat());
        }
        // Field 1 to 8, each as bytes of nothing: well-formed messages without content.
        for field in 1..=8_u8 {
            speak(&[&hello[..], &peer_frame(&[field << 3 | 2, 0])].concat());
        }
    }
    let log = cluster.nodes[0].log();
    assert!(log.contains("refused a peer of another cluster"), "{log}");
    assert_serves(&mut cluster, "after").await;
}

/// Eight values of a mebibyte, of which three at a time find room.
const LISTED: [&str; 8] = ["l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7"];
const NO_ROOM: &str =
    "flotilla: too many bytes of answers are under way: ask for less at a time, or later";

/// Of large answers, in whole mebibytes.
fn under_way(cluster: &Cluster) -> u64 {
    let (status, body) =
        http_get(cluster.nodes[0].client_port, "/metrics").expect("the node answers");
    assert_eq!(status, 200);
    let bytes = body.lines().find_map(|line| line.strip_prefix("flotilla_answer_bytes "));
    bytes.map_or(0, |bytes| bytes.parse::<u64>().expect("a number")) >> 20 << 20
}

fn list(count: usize) -> RangeRequest {
    let range_end = LISTED.get(count).copied().unwrap_or("m");
    RangeRequest { range_end: range_end.to_owned().into(), ..range(LISTED[0]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_without_room_are_refused_and_small_requests_go_on() {
    let budget = format!("--answer-budget-bytes={}", 4 << 20);
    let mut cluster = Cluster::start_with(&flotilla(), 1, &[&budget]);
    let mut kv = client(&cluster.endpoint(0)).await.max_decoding_message_size(64 << 20);
    let value = "v".repeat(1 << 20);
    for key in LISTED {
        kv.put(put(key, &value)).await.expect("a put");
    }
    assert_eq!(kv.range(list(3)).await.expect("room").into_inner().kvs.len(), 3);
    assert_refused(kv.range(list(8)).await, Code::ResourceExhausted, NO_ROOM);
    let by_revision = RangeRequest {
        sort_target: SortTarget::Mod as i32,
        sort_order: SortOrder::Descend as i32,
        ..list(8)
    };
    assert_refused(kv.range(by_revision).await, Code::ResourceExhausted, NO_ROOM);
    let success = vec![operation(Operation::RequestRange(list(8)))];
    let txn = TxnRequest { success, ..TxnRequest::default() };
    assert_refused(kv.txn(txn).await, Code::ResourceExhausted, NO_ROOM);
    let keys = RangeRequest { keys_only: true, ..list(8) };
    assert_eq!(kv.range(keys).await.expect("keys are small").into_inner().kvs.len(), 8);

    // A client that does not take its answer has room as long as it is there.
    let endpoint = Endpoint::from_shared(cluster.endpoint(0)).expect("an address");
    let idle = endpoint.initial_stream_window_size(65_535).connect().await.expect("a node");
    let mut idle = tonic::client::Grpc::new(idle);
    idle.ready().await.expect("a connection");
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
    let untaken = idle.server_streaming(Request::new(list(3)), path, codec).await;
    let untaken = untaken.expect("an answer begins");
    assert_eq!(under_way(&cluster), 3 << 20, "as the node tells");
    assert_refused(kv.range(list(3)).await, Code::ResourceExhausted, NO_ROOM);
    kv.range(range(LISTED[0])).await.expect("one value of a mebibyte has room");
    kv.put(put("a", "1")).await.expect("a put");
    kv.range(range("a")).await.expect("a small read");
    drop((untaken, idle));
    let mut tries = 0;
    while let Err(status) = kv.range(list(3)).await {
        assert_eq!(status.message(), NO_ROOM);
        tries += 1;
        assert!(tries < 20, "what a client took that went away is free again");
    }
    assert_serves(&mut cluster, "b").await;
}
