//! The console of real nodes: what it tells, whom it lets look, where it listens, and that a browser shows
//! it.

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::etcdserverpb::auth_client::AuthClient;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::lease_client::LeaseClient;
use flotilla_proto::internal::TransferRequest;
use flotilla_proto::internal::admin_client::AdminClient;
use harness::{Cluster, flotilla, free_port, on_path, skip};
use serde_json::Value;

/// Two looks and what the leader tells of load come within.
const TOLD_WITHIN: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const PARTS: [&str; 9] =
    ["cluster", "members", "map", "ranges", "heat", "watches", "leases", "hot", "decisions"];
/// What the browser may take, its start included.
const BROWSER_WITHIN: Duration = Duration::from_secs(90);

/// Status, head and body of a request over HTTP/1.1.
fn ask(port: u16, verb: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the node runs");
    stream.set_read_timeout(Some(TOLD_WITHIN)).expect("a timeout");
    let request = format!("{verb} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// What a record begins with by which TLS refuses what is no handshake.
const ALERT_OF_TLS: u8 = 21;
const HOST: &str = "Host: localhost\r\n";

fn get(port: u16, part: &str) -> Value {
    let (status, _, body) = ask(port, "GET", &format!("/api/{part}"), HOST);
    assert_eq!(status, 200, "{part}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{part}: {error}: {body}"))
}

/// What a part tells once this is so.
fn wait(port: u16, part: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + TOLD_WITHIN;
    loop {
        let told = get(port, part);
        if is_so(&told) {
            return told;
        }
        assert!(Instant::now() < deadline, "{part} tells {told:#}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("{name} of {value:#}"))
}

/// A cluster of which each node has a console, and their ports.
fn start(size: usize, flags: &[&str]) -> (Cluster, Vec<u16>) {
    let mut cluster = Cluster::prepare(&flotilla(), size, flags);
    let ports: Vec<u16> = cluster.nodes.iter().map(|_| free_port()).collect();
    for (node, port) in cluster.nodes.iter_mut().zip(&ports) {
        node.flags.push(format!("--listen-console-urls=http://127.0.0.1:{port}"));
    }
    (0..size).for_each(|index| cluster.spawn(index));
    cluster.wait_all_ready();
    (cluster, ports)
}

async fn put(cluster: &Cluster, keys: impl Iterator<Item = String>) {
    let mut client = KvClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    for key in keys {
        let put = pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
        client.put(put).await.expect("a put");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_of_the_whole_cluster() {
    let (mut cluster, ports) = start(3, &["--initial-split-keys=b,m\u{7f}", "--zone=attic"]);
    put(&cluster, (0..600).map(|n| format!("{}/{}", ["a", "c", "z"][n % 3], n / 3 % 5))).await;
    let mut leases = LeaseClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    let grant = pb::LeaseGrantRequest { ttl: 600, id: 0x1234 };
    leases.lease_grant(grant).await.expect("a lease");
    let asked = tokio::task::block_in_place(|| {
        let sum = |told: &Value| told["keys"].as_u64().unwrap_or(0);
        for &port in &ports {
            // Followers tell the same as the leader.
            let told = wait(port, "cluster", |told| sum(told) >= 15 && told["reached_count"] == 3);
            assert_eq!((&told["is_surveyed"], &told["ranges_count"]), (&true.into(), &3.into()));
            assert!(told["leader"]["name"].is_string(), "{told:#}");

            let map = get(port, "map");
            let cells = items(&map, "cells");
            let borders: Vec<&Value> = cells.iter().map(|cell| &cell["from"]).collect();
            assert_eq!(borders, ["", "b", r"m\x7f"], "in the order of keys, escaped");
            assert!(
                cells.iter().all(|cell| cell["held"] == serde_json::json!([1, 1, 1])),
                "{map:#}"
            );
            let ranges = get(port, "ranges");
            assert_eq!((items(&ranges, "ranges").len(), &ranges["more"]), (3, &0.into()));
            assert_eq!(get(port, "ranges?first=2")["ranges"][0]["range"], 0, "range 0 comes last");

            let is_told = |it: &Value| it["figures"].is_object() && it["survey"].is_object();
            let members = wait(port, "members", |told| items(told, "members").iter().all(is_told));
            let names: Vec<&Value> =
                items(&members, "members").iter().map(|member| &member["name"]).collect();
            assert_eq!(names, ["n0", "n1", "n2"]);
            for member in items(&members, "members") {
                assert_eq!(member["survey"]["zone"], "attic");
                assert!(member["figures"]["store_bytes"].as_f64() > Some(0.0), "{member:#}");
            }
            let leases = wait(port, "leases", |told| told["leases_count"] == 1);
            assert_eq!(leases["ending"][0]["lease"], "0000000000001234");
            assert_eq!(leases["ending"][0]["ttl_seconds"], 600);
            let hot = get(port, "hot");
            assert_eq!(hot["clients"][0]["name"], "127.0.0.1", "{hot:#}");
            assert_eq!(items(&get(port, "watches"), "members").len(), 3);
        }
        let load = |column: &Value| -> u64 {
            let writes = column["writes_per_second"].as_array();
            writes.map_or(0, |rows| rows.iter().filter_map(Value::as_u64).sum())
        };
        let heat =
            wait(ports[0], "heat", |told| items(told, "columns").iter().any(|it| load(it) > 0));
        assert_eq!(items(&heat, "rows").len(), 3);
        assert_eq!(heat["columns_max"], 360);
        heat
    });
    drop(asked);

    let mut admin = AdminClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    let transfer = TransferRequest { range: 1, node: "n2".to_owned() };
    admin.transfer(transfer).await.expect("a transfer");
    tokio::task::block_in_place(|| {
        let told = wait(ports[1], "decisions", |told| !items(told, "decisions").is_empty());
        let steps: Vec<&str> =
            items(&told, "decisions").iter().filter_map(|it| it["step"].as_str()).collect();
        assert!(steps.contains(&"transfer_leader range=1 to=n2"), "{told:#}");
        cluster.kill(2);
        let told = wait(ports[0], "cluster", |told| told["reached_count"] == 2);
        assert_eq!(told["members_count"], 3);
        let members = get(ports[0], "members");
        assert_eq!(members["members"][2]["is_reached"], false);
    });
}

#[test]
fn it_answers_as_a_careful_server_does() {
    let (_cluster, ports) = start(1, &[]);
    let port = ports[0];
    for path in ["/", "/console.css", "/main.js", "/icon.svg", "/api/cluster", "/nowhere"] {
        let (status, head, body) = ask(port, "GET", path, HOST);
        assert_eq!(status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
        let policy = "content-security-policy: default-src 'none'; script-src 'self';";
        for header in [policy, "x-content-type-options: nosniff", "x-frame-options: deny"] {
            assert!(head.contains(header), "{path}: {head}");
        }
        assert!(!head.contains("unsafe") && !body.is_empty(), "{path}");
    }
    for (verb, path, headers, expected) in [
        ("HEAD", "/api/cluster", HOST, 200),
        ("POST", "/api/cluster", HOST, 405),
        ("DELETE", "/", HOST, 405),
        ("GET", "/api/ranges?first=-1", HOST, 400),
        ("GET", "/api/ranges?order=sideways", HOST, 400),
        ("GET", "/api/../etc/passwd", HOST, 404),
        ("GET", "/metrics", HOST, 404),
        ("GET", "/", "Host: evil.example\r\n", 421),
        ("GET", "/", "", 421),
        ("GET", "/", "Host: [::1]:1\r\n", 200),
        // Nobody needs a name while authentication is off.
        ("GET", "/api/cluster", "Host: localhost\r\nAuthorization: Basic !\r\n", 200),
    ] {
        let (status, _, body) = ask(port, verb, path, headers);
        assert_eq!(status, expected, "{verb} {path} {headers}: {body}");
        if status >= 400 {
            let error: Value = serde_json::from_str(&body).expect("JSON");
            assert!(error["error"].is_string(), "{error}");
        }
    }
    // Clients are not served here, and the console is not served to clients' addresses.
    let client_port = _cluster.nodes[0].client_port;
    assert_eq!(ask(client_port, "GET", "/api/cluster", HOST).0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_authentication_on_only_root_may_look() {
    let (cluster, ports) = start(1, &["--bcrypt-cost=4"]);
    let port = ports[0];
    assert_eq!(ask(port, "GET", "/", HOST).0, 200);
    let mut auth = AuthClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    for name in ["root", "alice"] {
        let (name, password) = (name.to_owned(), format!("{name}'s:secret"));
        let user = pb::AuthUserAddRequest { name, password, ..Default::default() };
        auth.user_add(user).await.expect("a user");
    }
    let (user, role) = ("root".to_owned(), "root".to_owned());
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await.expect("a role");
    auth.auth_enable(pb::AuthEnableRequest {}).await.expect("it is on");

    let with = |pair: &str| {
        let headers = format!("{HOST}Authorization: Basic {}\r\n", STANDARD.encode(pair));
        move |path: &str| ask(port, "GET", path, &headers)
    };
    for path in ["/", "/main.js", "/nowhere"]
        .into_iter()
        .map(str::to_owned)
        .chain(PARTS.map(|part| format!("/api/{part}")))
    {
        let (status, head, _) = ask(port, "GET", &path, HOST);
        assert_eq!(status, 401, "{path}");
        assert!(head.contains("www-authenticate: basic realm="), "{head}");
        assert_eq!(with("root:wrong")(&path).0, 401, "{path}");
        assert_eq!(with("alice:alice's:secret")(&path).0, 403, "{path}");
        let expected = if path == "/nowhere" { 404 } else { 200 };
        assert_eq!(with("root:root's:secret")(&path).0, expected, "{path}");
    }
    // What was right is forgotten with the next change.
    let authenticate =
        pb::AuthenticateRequest { name: "root".to_owned(), password: "root's:secret".to_owned() };
    let token = auth.authenticate(authenticate).await.expect("a token").into_inner().token;
    assert_eq!(ask(port, "GET", "/", &format!("{HOST}Authorization: Bearer {token}\r\n")).0, 200);
    let mut change = tonic::Request::new(pb::AuthUserChangePasswordRequest {
        name: "root".to_owned(),
        password: "new".to_owned(),
        ..Default::default()
    });
    change.metadata_mut().insert("token", token.parse().expect("a token"));
    auth.user_change_password(change).await.expect("another password");
    assert_eq!(with("root:root's:secret")("/").0, 401);
    assert_eq!(with("root:new")("/").0, 200);
}

#[test]
fn it_listens_elsewhere_than_on_loopback_only_if_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(flotilla())
        .args(["--listen-console-urls=http://0.0.0.0:1", "--data-dir"])
        .arg(folder.path())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("not on loopback") && text.contains("--console-allow-public"), "{text}");

    let port = free_port();
    let url = format!("--listen-console-urls=http://0.0.0.0:{port}");
    let _cluster = Cluster::start_with(&flotilla(), 1, &[&url, "--console-allow-public"]);
    assert_eq!(ask(port, "GET", "/", HOST).0, 200);
}

#[test]
fn an_address_of_https_speaks_tls() {
    let port = free_port();
    let url = format!("--listen-console-urls=https://127.0.0.1:{port}");
    let _cluster = Cluster::start_with(&flotilla(), 1, &["--auto-tls", &url]);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the node runs");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it listens");
    let mut kind = [0];
    stream.read_exact(&mut kind).expect("it answers");
    assert_eq!(kind, [ALERT_OF_TLS]);
}

#[test]
fn a_node_that_is_not_told_to_has_no_console() {
    let cluster = Cluster::start(&flotilla(), 1);
    assert!(!cluster.nodes[0].log().contains("console"), "nothing is said of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_ranges_members_and_decisions() {
    let Some(browser) =
        ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(on_path)
    else {
        return skip("the page of the console was not shown: no chromium on the path");
    };
    let (cluster, ports) = start(3, &["--initial-split-keys=g,p"]);
    put(&cluster, (0..200).map(|n| format!("{}/<b>{}", ["a", "h", "z"][n % 3], n % 7))).await;
    let mut admin = AdminClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    for node in ["n1", "n2"] {
        let transfer = TransferRequest { range: 1, node: node.to_owned() };
        admin.transfer(transfer).await.expect("a transfer");
    }
    let page = tokio::task::block_in_place(|| {
        wait(ports[0], "cluster", |told| told["is_surveyed"] == true && told["reached_count"] == 3);
        let is_last = |it: &Value| it["step"] == "transfer_leader range=1 to=n2";
        wait(ports[0], "decisions", |told| items(told, "decisions").iter().any(is_last));
        shown(&browser, &format!("http://127.0.0.1:{}/", ports[0]))
    });
    let has = |text: &str| assert!(page.contains(text), "{text} is missing in {page}");
    has("<title>n0 · Flotilla</title>");
    has("3 ranges on 3 members");
    assert_eq!(page.matches("data-cell=").count(), 3, "a column for each range");
    for name in ["n0", "n1", "n2"] {
        has(&format!("led by {name}"));
        has(&format!("</i> {name}"));
    }
    has("leads the spine");
    has("transfer_leader range=1 to=n2");
    has("was asked for");
    has("127.0.0.1");
    assert!(!page.contains("The node does not answer"), "{page}");
    assert!(!page.contains("<b>0"), "what keys hold is text");
}

/// The page as a browser has it after some seconds.
fn shown(browser: &PathBuf, url: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--virtual-time-budget=8000", "--window-size=1400,1000", "--dump-dom", url])
        .arg(format!("--user-data-dir={}", folder.path().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    let mut out = child.stdout.take().expect("its output");
    let reader = std::thread::spawn(move || {
        let mut page = String::new();
        out.read_to_string(&mut page).map(|_| page)
    });
    let deadline = Instant::now() + BROWSER_WITHIN;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the browser takes more than {BROWSER_WITHIN:?}");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    reader.join().expect("nobody panicked").expect("UTF-8")
}
