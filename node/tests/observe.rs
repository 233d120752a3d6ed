//! What an operator sees of a running node: its log, at a level that can be changed, and
//! `flotilla top`.

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::PutRequest;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use harness::{Cluster, flotilla, http_get};
use serde_json::Value;

/// How long a line may take until it is in the log.
const LOGGED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Status and body of a request over HTTP/1.1.
fn ask(port: u16, verb: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the node runs");
    let length = body.len();
    let request = format!(
        "{verb} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    (status, body.to_owned())
}

fn lines(text: &str) -> Vec<Value> {
    let parsed = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    parsed.collect()
}

#[test]
fn the_level_of_the_log_is_changed_while_the_node_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("copy.log");
    let outputs = format!("--log-outputs=stderr,{}", file.display());
    let cluster = Cluster::start_with(&flotilla(), 1, &[&outputs]);
    let port = cluster.nodes[0].client_port;
    let is_debug = |line: &Value| line["level"] == "debug";
    for line in lines(&cluster.nodes[0].log()) {
        for key in ["level", "ts", "caller", "msg"] {
            assert!(line[key].is_string(), "{key} of {line}");
        }
        assert!(!is_debug(&line), "{line}");
    }
    let path = "/config/local/log";
    // The texts and codes of etcd 3.4.
    assert_eq!(ask(port, "GET", path, "").0, 405);
    let nonsense = ask(port, "PUT", path, r#"{"Level":"nonsense"}"#);
    assert_eq!(nonsense, (400, r#"{"message":"Invalid log level nonsense"}"#.to_owned()));
    let garbage = ask(port, "PUT", path, "x");
    assert_eq!(garbage, (400, r#"{"message":"Invalid json body"}"#.to_owned()));
    assert_eq!(ask(port, "PUT", path, r#"{"Level":"DEBUG"}"#), (204, String::new()));
    // The machine tells where it stands now and then.
    let deadline = Instant::now() + LOGGED_WITHIN;
    while !lines(&cluster.nodes[0].log()).iter().any(is_debug) {
        assert!(Instant::now() < deadline, "nothing is said at the level debug");
        std::thread::sleep(LOOK_AGAIN);
    }
    assert_eq!(ask(port, "PUT", path, r#"{"Level":"ERROR"}"#).0, 204);
    std::thread::sleep(LOOK_AGAIN);
    let before = cluster.nodes[0].log();
    // Whatever this asks for is no error of the node.
    http_get(port, "/health").expect("a page");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(cluster.nodes[0].log(), before, "only errors are logged");
    let copy = std::fs::read_to_string(&file).expect("the second output");
    assert_eq!(lines(&copy), lines(&before), "every output has every line");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_logged_with_where_its_time_went() {
    let slow = |cluster: &Cluster| -> Vec<Value> {
        let all = lines(&cluster.nodes[0].log());
        let is_slow =
            |line: &Value| line["msg"] == "a request took long" && line["method"] == "Put";
        all.into_iter().filter(is_slow).collect()
    };
    for (flag, is_logged) in [
        ("--warning-unary-request-duration=1us", true),
        // A machine that is busy for a second is no slow request.
        ("--warning-unary-request-duration=1m", false),
    ] {
        let cluster = Cluster::start_with(&flotilla(), 1, &[flag]);
        let mut client = KvClient::connect(cluster.endpoint(0)).await.expect("a ready node");
        let put = PutRequest { key: "a".into(), value: "v".into(), ..PutRequest::default() };
        client.put(put).await.expect("a put");
        let found = slow(&cluster);
        assert_eq!(found.len(), usize::from(is_logged), "{flag}: {found:?}");
        for line in found {
            let number = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key}: {line}"));
            let phases = [
                "queue_us",
                "route_us",
                "propose_us",
                "flush_us",
                "replicate_us",
                "order_us",
                "apply_us",
                "encode_us",
            ]
            .map(number);
            assert_eq!(phases.iter().sum::<u64>(), number("took_us"), "{line}");
            assert!(phases[3] > 0, "a flush takes its time: {line}");
            assert_eq!((&line["code"], &line["level"]), (&"Ok".into(), &"warn".into()), "{line}");
        }
    }
}

#[test]
fn the_second_api_is_refused_with_the_way_of_the_third() {
    let cluster = Cluster::start(&flotilla(), 1);
    let (status, body) = ask(cluster.nodes[0].client_port, "GET", "/v2/keys/a", "");
    assert_eq!(status, 404);
    assert!(body.starts_with("404 page not found\n") && body.contains("/v3/"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_key_its_prefix_and_its_client_are_listed() {
    let cluster = Cluster::start(&flotilla(), 1);
    let mut client = KvClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    let put = |key: String| PutRequest { key: key.into(), ..PutRequest::default() };
    // One call in 16 is looked at: that none of these is has a chance of 1 in 10^14.
    for n in 0..500 {
        client.put(put("/shop/carts/hot".to_owned())).await.expect("a put");
        if n % 50 == 0 {
            client.put(put(format!("/shop/users/{n}"))).await.expect("a put");
        }
    }
    let ctl = |words: &[&str]| {
        let mut command = Command::new(flotilla());
        let output = command.args(words).args(["--endpoint", &cluster.endpoint(0)]).output();
        let output = output.expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).expect("text")
    };
    let shown = [ctl(&["ctl", "top"]), ctl(&["top", "--once"])];
    for text in shown {
        let first_of = |head: &str| {
            let mut lines = text.lines().skip_while(|line| !line.starts_with(head)).skip(1);
            let line = lines.next().unwrap_or_else(|| panic!("{head}: {text}"));
            line.split_whitespace().next().unwrap_or_default().to_owned()
        };
        assert_eq!(first_of("KEY "), "/shop/carts/hot", "{text}");
        assert_eq!(first_of("PREFIX "), "/shop/", "{text}");
        assert!(text.lines().any(|line| line.starts_with("/shop/carts/ ")), "{text}");
        assert_eq!(first_of("CLIENT "), "127.0.0.1", "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_members_and_ranges_with_their_load() {
    let mut cluster = Cluster::start_with(&flotilla(), 3, &["--initial-split-keys=m"]);
    let mut client = KvClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    let writer = tokio::spawn(async move {
        // One may fail when a node is killed.
        let put = || PutRequest { key: "a".into(), value: "v".into(), ..PutRequest::default() };
        while client.put(put()).await.is_ok() {}
    });
    let top = |cluster: &Cluster| {
        let mut command = Command::new(flotilla());
        command.args(["top", "--once", "--endpoint", &cluster.endpoint(0)]);
        let output = command.output().expect("top runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).expect("text")
    };
    let frame = tokio::task::block_in_place(|| top(&cluster));
    println!("{frame}");
    let row = |frame: &str, name: &str| -> Vec<String> {
        let found = frame.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        let found = found.unwrap_or_else(|| panic!("{name} is missing: {frame}"));
        found.split_whitespace().map(str::to_owned).collect()
    };
    let first = frame.lines().next().expect("a line");
    assert!(first.contains("3 members, 2 ranges, revision "), "{first}");
    let roles: Vec<String> = ["n0", "n1", "n2"].map(|name| row(&frame, name)[2].clone()).into();
    assert_eq!(roles.iter().filter(|role| *role == "leader").count(), 1, "{roles:?}");
    // All replicas put what is written to one of them.
    for name in ["n0", "n1", "n2"] {
        let puts: u64 = row(&frame, name)[4].parse().expect("a rate");
        assert!(puts > 0, "{frame}");
    }
    assert!(!frame.contains('\u{1b}'), "no control characters");
    assert!(frame.lines().any(|line| line.starts_with("RANGE")), "{frame}");

    cluster.kill(2);
    let frame = tokio::task::block_in_place(|| top(&cluster));
    assert_eq!(row(&frame, "n2")[2..4], ["not", "reached"], "{frame}");
    writer.abort();
}

/// A disk that takes four seconds for a flush, which is more than two election timeouts.
#[test]
fn a_log_whose_disk_does_not_answer_is_told_of() {
    let mut cluster = Cluster::prepare(&flotilla(), 3, &["--election-timeout=1000"]);
    cluster.nodes[2].flags.push("--wal-flush-delay=4s".to_owned());
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.wait_ready(0);
    cluster.wait_ready(1);
    let stalls = |index: usize| {
        let (status, body) =
            http_get(cluster.nodes[index].client_port, "/metrics").expect("the node answers");
        assert_eq!(status, 200);
        let count = body.lines().find_map(|line| line.strip_prefix("flotilla_log_stalls_total "));
        count.map_or(0, |count| count.parse::<u64>().expect("a number"))
    };
    let since = Instant::now();
    let told = |message: &str| {
        let lines = lines(&cluster.nodes[2].log());
        lines.iter().any(|line| line["msg"].as_str().is_some_and(|it| it.starts_with(message)))
    };
    while !(told("the log's disk does not answer") && told("the log's disk answers again")) {
        assert!(since.elapsed() < LOGGED_WITHIN, "{}", cluster.nodes[2].log_tail());
        std::thread::sleep(LOOK_AGAIN);
    }
    assert!(stalls(2) >= 1);
    assert_eq!(stalls(0), 0);
}
