//! The JSON gateway from outside: the same bodies to Flotilla and to the distribution's etcd, whose
//! answers must be the same bytes but for the ids of the clusters, and what an etcd 3.7 says where
//! that of the distribution is older. Without an etcd the test that needs it says that it was skipped.

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use harness::{Cluster, flotilla};

const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Names of what two clusters cannot have in common.
const OWN: [&str; 4] = ["cluster_id", "member_id", "raft_term", "hash"];

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// One request over HTTP/1.0, to which no server answers in chunks.
fn request(port: u16, verb: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a time-out");
    let length = body.len();
    write!(stream, "{verb} {path} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
        .expect("it is sent");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    read.unwrap_or_else(|error| panic!("port {port} does not answer {path} {body}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn post(port: u16, path: &str, body: &str) -> Answer {
    request(port, "POST", path, "Host: a\r\n", body)
}

/// The body with the values of some names taken out.
fn without(body: &str, names: &[&str]) -> String {
    let mut body = body.to_owned();
    for name in names {
        let mark = format!("\"{name}\":");
        let mut at = 0;
        while let Some(found) = body[at..].find(&mark) {
            let begin = at + found + mark.len();
            let length = body[begin..].find([',', '}']).expect("a value ends");
            body.replace_range(begin..begin + length, "?");
            at = begin;
        }
    }
    body
}

/// The number and the text of a refusal, which older releases write in another order.
fn reason(body: &str) -> (i64, String) {
    let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let text = value["message"].as_str().unwrap_or_default().to_owned();
    (value["code"].as_i64().expect("a number"), text)
}

/// Paths and bodies in the order in which they are sent.
const CALLS: [(&str, &str); 45] = [
    ("kv/put", r#"{"key":"YQ==","value":"MQ=="}"#),
    ("kv/put", r#"{"key":"YQ==","value":"Mg==","prev_kv":true}"#),
    ("kv/put", r#"{"key":"Yg==","value":"MQ==","prevKv":true,"no_such_field":{"a":[1]}}"#),
    ("kv/put", r#"{"key":"Yw=="}"#),
    ("kv/put", "{}"),
    ("kv/put", r#"{"key":"YQ==","lease":"12345"}"#),
    ("kv/put", r#"{"key":"YQ==","value":"Mw==","ignore_value":true}"#),
    ("kv/range", r#"{"key":"YQ=="}"#),
    ("kv/range", r#"{"key":"YQ==","range_end":"eg=="}"#),
    (
        "kv/range",
        r#"{"key":"YQ==","rangeEnd":"eg==","limit":"2","sort_order":"DESCEND","sort_target":"MOD"}"#,
    ),
    ("kv/range", r#"{"key":"YQ==","range_end":"eg==","limit":1,"sort_order":2,"keys_only":true}"#),
    ("kv/range", r#"{"key":"YQ==","range_end":"eg==","count_only":true}"#),
    ("kv/range", r#"{"key":"YQ==","revision":"2","serializable":true}"#),
    ("kv/range", r#"{"key":"YQ==","revision":"99"}"#),
    ("kv/range", r#"{"key":"bm9uZQ=="}"#),
    ("kv/range", ""),
    ("kv/range", r#"{"key":"YQ=="} and more"#),
    ("kv/deleterange", r#"{"key":"Yg==","prev_kv":true}"#),
    ("kv/deleterange", r#"{"key":"Yg=="}"#),
    ("kv/deleterange", "{}"),
    (
        "kv/txn",
        r#"{"compare":[{"key":"YQ==","target":"VERSION","version":"1","result":"GREATER"}],
            "success":[{"requestRange":{"key":"YQ=="}},{"request_put":{"key":"YQ==","value":"NA=="}},
            {"request_delete_range":{"key":"Yw==","prev_kv":true}}]}"#,
    ),
    (
        "kv/txn",
        r#"{"compare":[{"key":"YQ==","target":"VALUE","value":"MQ=="}],
            "failure":[{"request_range":{"key":"YQ=="}}]}"#,
    ),
    (
        "kv/txn",
        r#"{"compare":[{"key":"YQ==","target":"CREATE","create_revision":"2"}],
            "success":[{"request_txn":{"success":[{"request_range":{"key":"YQ=="}}]}}]}"#,
    ),
    ("kv/txn", r#"{"success":[{"request_put":{"key":"YQ=="}},{"request_put":{"key":"YQ=="}}]}"#),
    ("kv/txn", r#"{"success":[{}]}"#),
    ("kv/txn", "{}"),
    ("kv/compaction", r#"{"revision":"3"}"#),
    ("kv/compaction", r#"{"revision":"3","physical":true}"#),
    ("kv/compaction", r#"{"revision":"333"}"#),
    ("kv/range", r#"{"key":"YQ==","revision":"2"}"#),
    ("lease/grant", r#"{"TTL":100,"ID":5}"#),
    ("lease/grant", r#"{"TTL":"100","ID":"5"}"#),
    ("lease/grant", r#"{"TTL":"9000000001"}"#),
    ("kv/put", r#"{"key":"bGVhc2Vk","lease":5}"#),
    ("kv/range", r#"{"key":"bGVhc2Vk"}"#),
    ("lease/leases", "{}"),
    ("kv/lease/leases", "{}"),
    ("lease/timetolive", r#"{"ID":599,"keys":true}"#),
    ("lease/revoke", r#"{"ID":5}"#),
    ("kv/lease/revoke", r#"{"ID":5}"#),
    ("lease/keepalive", r#"{"ID":77}{"ID":"78"}"#),
    ("maintenance/hash", "{}"),
    ("maintenance/transfer-leadership", r#"{"targetID":"7"}"#),
    ("maintenance/defragment", "{}"),
    ("cluster/member/add", r#"{"peerURLs":["no address"]}"#),
];

/// Locks and elections with a lease of the test's choice.
const QUEUES: [(&str, &str); 16] = [
    ("lease/grant", r#"{"TTL":100,"ID":171}"#),
    ("lock/lock", r#"{"name":"bG9jaw==","lease":"171"}"#),
    ("lock/lock", r#"{"name":"bG9jaw==","lease":171}"#),
    ("kv/range", r#"{"key":"bG9jay9hYg=="}"#),
    ("lock/lock", r#"{"name":"bG9jaw==","lease":"77"}"#),
    ("lock/unlock", r#"{"key":"bG9jay9hYg=="}"#),
    ("lock/unlock", r#"{"key":"bG9jay9hYg=="}"#),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    ("election/campaign", r#"{"name":"ZQ==","lease":171,"value":"YQ=="}"#),
    ("election/campaign", r#"{"name":"ZQ==","lease":171,"value":"Yg=="}"#),
    ("election/leader", r#"{"name":"ZQ=="}"#),
    (
        "election/proclaim",
        r#"{"leader":{"name":"ZQ==","key":"ZS9hYg==","rev":4,"lease":171},"value":"Yw=="}"#,
    ),
    ("election/proclaim", "{}"),
    ("election/resign", r#"{"leader":{"name":"ZQ==","key":"ZS9hYg==","rev":4,"lease":171}}"#),
    ("election/resign", "{}"),
    ("election/leader", r#"{"name":"ZQ=="}"#),
];

#[test]
fn every_call_is_answered_with_the_bytes_of_etcd() {
    let Some(etcd) = harness::etcd() else {
        harness::skip("no etcd is installed, so the gateway was not compared with it");
        return;
    };
    let ours = Cluster::start(&flotilla(), 1);
    let theirs = Cluster::start(&etcd, 1);
    let mut differences = Vec::new();
    for (path, body) in CALLS.iter().chain(&QUEUES) {
        let path = format!("/v3/{path}");
        let ours = post(ours.nodes[0].client_port, &path, body);
        let theirs = post(theirs.nodes[0].client_port, &path, body);
        let is_same = match (ours.status, theirs.status) {
            (200, 200) => without(&ours.body, &OWN) == without(&theirs.body, &OWN),
            // Older releases have 412 for what newer ones say 400 to.
            (400, 412) => reason(&ours.body) == reason(&theirs.body),
            (ours_code, theirs_code) => {
                ours_code == theirs_code && reason(&ours.body) == reason(&theirs.body)
            }
        };
        if !is_same {
            differences.push(format!(
                "{path} {body}\n  etcd     {} {}\n  flotilla {} {}",
                theirs.status, theirs.body, ours.status, ours.body
            ));
        }
    }
    // What has nothing but the cluster's own: the same names in the same order.
    for path in ["/v3/cluster/member/list", "/v3/maintenance/status"] {
        let names = |cluster: &Cluster| {
            let answer = post(cluster.nodes[0].client_port, path, "{}");
            let names = answer.body.split('"').skip(1).step_by(2).map(str::to_owned);
            names.filter(|word| word.chars().all(|c| c.is_ascii_alphabetic() || c == '_')).collect()
        };
        let (ours, theirs): (Vec<String>, Vec<String>) = (names(&ours), names(&theirs));
        // Newer releases tell more of their state.
        if !theirs.iter().all(|name| ours.contains(name)) {
            differences.push(format!("{path}: {theirs:?} and {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What the distribution's release has not, or answers in another way.
#[test]
fn alarms_and_hashes_are_those_of_etcd_3_7() {
    let cluster = Cluster::start(&flotilla(), 1);
    let say = |path: &str, body: &str| {
        let answer = post(cluster.nodes[0].client_port, path, body);
        (answer.status, without(&answer.body, &["cluster_id", "member_id", "raft_term", "hash"]))
    };
    const HEADER: &str = r#""header":{"cluster_id":?,"member_id":?,"revision":"1","raft_term":?}"#;
    let alarm = "/v3/maintenance/alarm";
    assert_eq!(say(alarm, "{}"), (200, format!("{{{HEADER}}}")));
    let raised = format!(r#"{{{HEADER},"alarms":[{{"memberID":"1","alarm":"NOSPACE"}}]}}"#);
    let raise = r#"{"action":"ACTIVATE","memberID":"1","alarm":"NOSPACE"}"#;
    assert_eq!(say(alarm, raise), (200, raised.clone()));
    assert_eq!(say(alarm, r#"{"action":2,"memberID":1,"alarm":1}"#), (200, raised));
    let hashed = format!(r#"{{{HEADER},"hash":?,"compact_revision":"-1","hash_revision":"1"}}"#);
    assert_eq!(say("/v3/maintenance/hashkv", "{}"), (200, hashed));
}

#[test]
fn refusals_are_those_of_etcd_3_7() {
    let cluster = Cluster::start(&flotilla(), 1);
    let port = cluster.nodes[0].client_port;
    let cases = [
        ("/v3/kv/range", "", 400, r#"{"code":3,"message":"etcdserver: key is not provided"}"#),
        ("/v3/kv/range", r#"{"key":"#, 400, r#"{"code":3,"message":"unexpected EOF"}"#),
        (
            "/v3/kv/range",
            r#"{"key":"Zm9v","limit":3.5}"#,
            400,
            r#"{"code":3,"message":"proto: (line 1:23): invalid value for int64 field limit: 3.5"}"#,
        ),
        (
            "/v3/lease/revoke",
            r#"{"ID":77}"#,
            404,
            r#"{"code":5,"message":"etcdserver: requested lease not found"}"#,
        ),
        (
            "/v3/maintenance/transfer-leadership",
            "{}",
            400,
            r#"{"code":9,"message":"etcdserver: bad leader transferee"}"#,
        ),
        (
            "/v3/maintenance/hashkv",
            r#"{"revision":99}"#,
            400,
            r#"{"code":11,"message":"etcdserver: mvcc: required revision is a future revision"}"#,
        ),
        (
            "/v3/lock/lock",
            r#"{"name":"bG9jaw==","lease":"77"}"#,
            500,
            r#"{"code":2,"message":"etcdserver: requested lease not found"}"#,
        ),
        // The distribution's etcd hangs on these now and then.
        (
            "/v3/cluster/member/remove",
            r#"{"ID":7}"#,
            404,
            r#"{"code":5,"message":"etcdserver: member not found"}"#,
        ),
        (
            "/v3/cluster/member/update",
            r#"{"ID":7,"peerURLs":["http://127.0.0.1:1"]}"#,
            404,
            r#"{"code":5,"message":"etcdserver: member not found"}"#,
        ),
        (
            "/v3/cluster/member/promote",
            r#"{"ID":7}"#,
            404,
            r#"{"code":5,"message":"etcdserver: member not found"}"#,
        ),
        ("/v3/nothing", "{}", 404, r#"{"code":5,"message":"Not Found"}"#),
        ("/v3beta/kv/range/", "{}", 404, r#"{"code":5,"message":"Not Found"}"#),
        ("/v3alpha/kv/range", "{}", 404, "404 page not found\n"),
    ];
    for (path, body, status, expected) in cases {
        let answer = post(port, path, body);
        assert_eq!((answer.status, answer.body.as_str()), (status, expected), "{path} {body}");
    }
    let answer = request(port, "PUT", "/v3/kv/range", "Host: a\r\n", "{}");
    let expected = r#"{"code":12,"message":"Method Not Allowed"}"#;
    assert_eq!((answer.status, answer.body.as_str()), (501, expected));
    // A body that could be no request is not read to its end.
    let huge = format!("{{\"key\":\"{}\"}}", "A".repeat(8 << 20));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    let head = format!("POST /v3/kv/put HTTP/1.0\r\nContent-Length: {}\r\n\r\n", huge.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(huge.as_bytes()));
    assert_eq!(post(port, "/v3/kv/put", r#"{"key":"YQ=="}"#).status, 200, "others are served");
}

#[test]
fn heads_are_those_of_etcd() {
    let flags = ["--cors", "http://a.test:80", "--host-whitelist", "127.0.0.1,good.test"];
    let cluster = Cluster::start_with(&flotilla(), 1, &flags);
    let port = cluster.nodes[0].client_port;
    let headers = "Host: good.test:1\r\nOrigin: http://a.test:80\r\n";
    let answer = request(port, "POST", "/v3/kv/put", headers, r#"{"key":"YQ=="}"#);
    assert_eq!(answer.status, 200);
    for line in [
        "content-type: application/json",
        "grpc-metadata-content-type: application/grpc",
        "access-control-allow-origin: http://a.test:80",
        "access-control-allow-methods: post, get, options, put, delete",
    ] {
        assert!(answer.head.contains(line), "{line}: {}", answer.head);
    }
    let answer = request(port, "OPTIONS", "/v3/kv/put", headers, "");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    // Nobody who names no origin is told of one, but asks what is allowed with success.
    let answer = request(port, "OPTIONS", "/health", "Host: good.test\r\n", "");
    assert_eq!(answer.status, 200);
    assert!(!answer.head.contains("access-control"), "{}", answer.head);
    let answer = request(port, "POST", "/v3/kv/put", "Host: bad.test\r\n", r#"{"key":"YQ=="}"#);
    assert_eq!(answer.status, 421);
    // What says that there must be a leader is handed on, as is every other word for the call.
    let headers = "Host: good.test\r\nGrpc-Metadata-Hasleader: true\r\nAuthorization: a.1\r\n";
    assert_eq!(request(port, "POST", "/v3/kv/range", headers, r#"{"key":"YQ=="}"#).status, 200);
    drop(cluster);
    let cluster = Cluster::start_with(&flotilla(), 1, &["--enable-grpc-gateway=false"]);
    let answer = post(cluster.nodes[0].client_port, "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found\n"));
    // Where all origins are welcome, that is said to everyone.
    assert!(answer.head.contains("access-control-allow-origin: *"), "{}", answer.head);
}

#[test]
fn streams_are_lines_as_they_come() {
    let cluster = Cluster::start(&flotilla(), 1);
    let port = cluster.nodes[0].client_port;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a time-out");
    let create = r#"{"create_request":{"key":"YQ==","start_revision":"2"}}"#;
    write!(stream, "POST /v3/watch HTTP/1.0\r\nContent-Length: {}\r\n\r\n{create}", create.len())
        .expect("it is sent");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("text"));
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(head[0].contains("200"), "{head:?}");
    let created = lines.next().expect("a line");
    assert!(created.starts_with(r#"{"result":{"header":{"#), "{created}");
    assert!(created.ends_with(r#""created":true}}"#), "{created}");
    for value in ["MQ==", "Mg=="] {
        let put = post(port, "/v3/kv/put", &format!(r#"{{"key":"YQ==","value":"{value}"}}"#));
        assert_eq!(put.status, 200);
        let line = lines.next().expect("a line");
        assert!(line.contains(&format!(r#""value":"{value}"}}}}]}}}}"#)), "{line}");
    }
    let delete = post(port, "/v3/kv/deleterange", r#"{"key":"YQ=="}"#);
    assert_eq!(delete.status, 200);
    let line = lines.next().expect("a line");
    assert!(line.contains(r#""events":[{"type":"DELETE","kv":{"key":"YQ==""#), "{line}");

    // A watch of what is compacted says so and goes on, as does one of gRPC.
    assert_eq!(post(port, "/v3/lease/grant", r#"{"TTL":100,"ID":5}"#).status, 200);
    let answer = post(port, "/v3/lease/keepalive", r#"{"ID":5} {"ID":78}"#);
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines.len(), 2, "{}", answer.body);
    assert!(lines[0].ends_with(r#""ID":"5","TTL":"100"}}"#), "{}", lines[0]);
    assert!(lines[1].ends_with(r#""ID":"78"}}"#), "{}", lines[1]);
    // What is no message ends the requests.
    let answer = post(port, "/v3/lease/keepalive", r#"{"ID":5"#);
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let answer = post(port, "/v3/maintenance/snapshot", "{}");
    assert!(answer.body.lines().all(|line| line.starts_with(r#"{"result":{"#)), "{}", answer.head);
    assert!(answer.body.contains(r#""blob":""#));
}
