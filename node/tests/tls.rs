//! TLS from outside: clusters of processes with certificates of an authority that the test makes,
//! driven by the distribution's etcdctl. Without one the tests that need it say that they were
//! skipped.

#[path = "tls/authority.rs"]
mod authority;
mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use authority::{Authority, Holder, Pair, SILENCE_MAX};
use harness::{Cluster, flotilla, free_port};
use tempfile::TempDir;

/// How long a file that was exchanged may take to count, and a cluster to notice a node.
const COUNTS_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(200);

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("flotilla-tls-").tempdir().expect("a folder")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

fn etcdctl() -> Option<PathBuf> {
    let found = harness::etcdctl();
    if found.is_none() {
        harness::skip("no etcdctl is installed, so TLS was not tried with it");
    }
    found
}

/// An etcdctl that believes `authority` and shows `pair`.
fn client(etcdctl: &Path, url: &str, authority: &Authority, pair: Option<&Pair>) -> Command {
    let mut command = Command::new(etcdctl);
    command
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", url, "--dial-timeout=3s", "--command-timeout=10s"])
        .args(["--cacert", text(&authority.cert)])
        .stdin(Stdio::null());
    if let Some(pair) = pair {
        command.args(["--cert", text(&pair.cert), "--key", text(&pair.key)]);
    }
    command
}

fn run(command: &mut Command, args: &[&str]) -> Output {
    command.args(args).output().expect("etcdctl runs")
}

#[track_caller]
fn answer(command: &mut Command, args: &[&str]) -> String {
    let output = run(command, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &said
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + COUNTS_WITHIN;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {COUNTS_WITHIN:?}: {what}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// One node whose clients must show a certificate of `authority`.
fn one_node(authority: &Authority, more: &[&str]) -> Cluster {
    let server = authority.node("server");
    let mut flags = vec![
        "--cert-file",
        text(&server.cert),
        "--key-file",
        text(&server.key),
        "--client-cert-auth",
        "--trusted-ca-file",
        text(&authority.cert),
        "--client-crl-file",
        text(&authority.crl),
    ];
    flags.extend(more);
    let mut cluster = Cluster::prepare(&flotilla(), 1, &flags);
    cluster.secure(true, false);
    cluster.spawn(0);
    cluster.wait_ready(0);
    cluster
}

#[test]
fn a_cluster_speaks_tls_to_clients_and_between_its_nodes() {
    let Some(etcdctl) = etcdctl() else { return };
    let folder = folder();
    let authority = Authority::new(folder.path(), "ca");
    let mut cluster = Cluster::prepare(&flotilla(), 3, &[]);
    cluster.secure(true, true);
    for index in 0..3 {
        let pair = authority.node(&format!("member{index}"));
        let (cert, key, ca) = (text(&pair.cert), text(&pair.key), text(&authority.cert));
        let flags = [
            ["--cert-file", cert],
            ["--key-file", key],
            ["--trusted-ca-file", ca],
            ["--peer-cert-file", cert],
            ["--peer-key-file", key],
            ["--peer-trusted-ca-file", ca],
            ["--peer-cert-allowed-cn", "member0,member1,member2"],
        ];
        cluster.nodes[index].flags = flags.concat().into_iter().map(str::to_owned).collect();
        cluster.nodes[index].flags.push("--client-cert-auth".to_owned());
        cluster.nodes[index].flags.push("--peer-client-cert-auth".to_owned());
        cluster.spawn(index);
    }
    cluster.wait_all_ready();
    let alice = authority.client("alice");
    let urls = cluster.endpoints();
    let etcdctl = |url: &str| client(&etcdctl, url, &authority, Some(&alice));
    let health = answer(&mut etcdctl(&urls.join(",")), &["endpoint", "health"]);
    assert_eq!(health.matches("is healthy").count(), 3, "{health}");

    let mut watching = etcdctl(&urls[2]);
    watching.args(["watch", "a", "--rev=1"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watching = watching.spawn().expect("etcdctl runs");
    assert_eq!(answer(&mut etcdctl(&urls[0]), &["put", "a", "1"]), "OK\n");
    assert_eq!(answer(&mut etcdctl(&urls[1]), &["get", "a"]), "a\n1\n");
    let mut lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    let seen: Vec<String> = lines.by_ref().take(3).map(|line| line.expect("text")).collect();
    watching.kill().expect("it runs");
    watching.wait().expect("it was killed");
    assert_eq!(seen, ["PUT", "a", "1"]);

    // A node that comes back shakes hands with the others again.
    cluster.kill(1);
    assert_eq!(answer(&mut etcdctl(&urls[0]), &["put", "a", "2"]), "OK\n");
    cluster.restart(1);
    assert_eq!(answer(&mut etcdctl(&urls[1]), &["get", "a"]), "a\n2\n");
}

#[test]
fn who_shows_nothing_or_the_wrong_certificate_is_refused() {
    let Some(etcdctl) = etcdctl() else { return };
    let folder = folder();
    let authority = Authority::new(folder.path(), "ca");
    let stranger = Authority::new(folder.path(), "stranger");
    let cluster = one_node(&authority, &["--client-cert-allowed-hostname", "client.test"]);
    let good = authority.client("good");
    let revoked = authority.client("revoked");
    authority.revoke(&[&revoked]);
    let holder = Holder { common_name: "late", hosts: &["client.test"], is_expired: true };
    let expired = authority.issue("expired", &holder);
    let holder = Holder { common_name: "other", hosts: &["other.test"], is_expired: false };
    let elsewhere = authority.issue("elsewhere", &holder);
    let foreign = stranger.client("foreign");
    let url = cluster.endpoint(0);
    let put = |authority: &Authority, pair: Option<&Pair>| {
        let mut command = client(&etcdctl, &url, authority, pair);
        run(&mut command, &["put", "a", "1"]).status.success()
    };
    assert!(put(&authority, Some(&good)), "the right one is taken");
    until("the list of revoked certificates counts", || !put(&authority, Some(&revoked)));
    for (what, pair) in [
        ("no certificate", None),
        ("one of another authority", Some(&foreign)),
        ("an expired one", Some(&expired)),
        ("one of another host", Some(&elsewhere)),
    ] {
        assert!(!put(&authority, pair), "{what}");
    }
    // The other way round it is the client who refuses.
    assert!(!put(&stranger, Some(&good)));
    assert!(put(&authority, Some(&good)), "the right one is still taken");
    let log = cluster.nodes[0].log();
    assert!(log.contains("rejected connection on client endpoint"), "{log}");
}

#[test]
fn certificates_and_revocations_are_exchanged_while_the_node_runs() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "ca");
    let cluster = one_node(&authority, &[]);
    let port = cluster.nodes[0].client_port;
    let (alice, bob) = (authority.client("alice"), authority.client("bob"));
    let get = |pair: &Pair| authority.get(port, "/version", Some(pair));
    let (page, first) = get(&alice).expect("alice is a client");
    assert!(page.contains("etcdserver"), "{page}");

    let server = authority.node("server");
    until("the new certificate is shown", || {
        get(&alice).is_ok_and(|(_, shown)| shown != first && !shown.is_empty())
    });
    let (_, second) = get(&alice).expect("alice is a client");

    authority.revoke(&[&alice]);
    until("alice is revoked", || get(&alice).is_err());
    assert!(get(&bob).is_ok(), "bob is not");

    // What cannot be read leaves the old one in force.
    std::fs::write(&server.cert, "no certificate").expect("a file");
    until("the broken file is noticed", || {
        cluster.nodes[0].log().contains("certificates have changed and cannot be used")
    });
    assert_eq!(get(&bob).expect("bob is a client").1, second);
    assert!(get(&alice).is_err(), "nor are revocations forgotten");

    // Another authority altogether, as when a root is exchanged.
    let next = Authority::new(folder.path(), "next");
    next.node("server");
    std::fs::copy(&next.cert, &authority.cert).expect("a file");
    std::fs::copy(&next.crl, &authority.crl).expect("a file");
    let carol = next.client("carol");
    until("the new authority counts", || next.get(port, "/version", Some(&carol)).is_ok());
    assert!(next.get(port, "/version", Some(&bob)).is_err(), "the old one does not");
}

#[test]
fn a_peer_of_the_wrong_name_does_not_take_part() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "ca");
    let mut cluster = Cluster::prepare(&flotilla(), 3, &[]);
    cluster.secure(false, true);
    for index in 0..3 {
        let (name, host) = match index {
            0 => ("member", "127.0.0.1"),
            1 => ("member", "localhost"),
            _ => ("stranger", "127.0.0.1"),
        };
        // A certificate of hosts alone is held against the address it comes from by a resolver.
        let hosts = [host, "127.0.0.1"];
        let holder = Holder { common_name: name, hosts: &hosts, is_expired: false };
        let pair = authority.issue(&format!("peer{index}"), &holder);
        cluster.nodes[index].flags = [
            ["--peer-cert-file", text(&pair.cert)],
            ["--peer-key-file", text(&pair.key)],
            ["--peer-trusted-ca-file", text(&authority.cert)],
            ["--peer-cert-allowed-cn", "member"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        cluster.spawn(index);
    }
    cluster.wait_ready(0);
    cluster.wait_ready(1);
    until("the stranger is refused", || {
        cluster.nodes[0].log().contains("rejected connection on peer endpoint")
    });
    assert!(!cluster.is_ready(2), "who was refused has no leader");
}

#[test]
fn a_peer_that_comes_from_another_address_than_it_names_does_not_take_part() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "ca");
    let mut cluster = Cluster::prepare(&flotilla(), 1, &[]);
    cluster.secure(false, true);
    let pair = authority.node("member");
    cluster.nodes[0].flags = [
        ["--peer-cert-file", text(&pair.cert)],
        ["--peer-key-file", text(&pair.key)],
        ["--peer-trusted-ca-file", text(&authority.cert)],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect();
    cluster.spawn(0);
    cluster.wait_ready(0);
    let port = cluster.nodes[0].peer_port;
    let issue = |name: &str, hosts: &[&str]| {
        authority.issue(name, &Holder { common_name: name, hosts, is_expired: false })
    };
    let get = |pair: &Pair| authority.get(port, "/members", Some(pair));
    let (page, _) = get(&issue("by-address", &["127.0.0.1"])).expect("it names this address");
    assert!(page.contains("peerURLs"), "{page}");
    assert!(get(&issue("by-name", &["localhost"])).is_ok(), "a name that leads there");
    assert!(get(&issue("by-none", &[])).is_ok(), "nothing to compare");
    assert!(get(&issue("elsewhere", &["10.1.2.3"])).is_err());
    assert!(authority.get(port, "/members", None).is_err(), "a certificate is asked for");
    assert!(cluster.nodes[0].log().contains("does not match any of DNSNames"));
}

/// What the other end says until it hangs up. None if it does not.
fn said(port: u16, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    stream.set_read_timeout(Some(SILENCE_MAX)).expect("a time-out");
    stream.write_all(bytes).expect("it takes some bytes");
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => Some(said),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(said),
        Err(_) => None,
    }
}

#[test]
fn plain_words_and_tls_are_told_apart() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "ca");
    let server = authority.node("server");
    let (plain, secured) = (free_port(), free_port());
    let (metrics, pages) = (free_port(), free_port());
    let socket = folder.path().join("clients.sock");
    let urls =
        format!("http://127.0.0.1:{plain},https://127.0.0.1:{secured},unix://{}", text(&socket));
    let flags = [
        ["--cert-file", text(&server.cert)],
        ["--key-file", text(&server.key)],
        ["--listen-client-urls", &urls],
        ["--listen-metrics-urls", &format!("https://127.0.0.1:{metrics}")],
    ];
    let mut cluster = Cluster::prepare(&flotilla(), 1, &flags.concat());
    cluster.nodes[0].client_port = plain;
    cluster.spawn(0);
    cluster.wait_ready(0);
    let http = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = said(secured, http).expect("it hangs up");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("Client sent an HTTP request to an HTTPS server."), "{answer}");
    assert!(said(secured, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").is_some());
    assert!(said(secured, &[0xff; 64]).is_some());
    // The beginning of a handshake.
    let hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[7; 194]].concat();
    assert!(said(plain, &hello).is_some());

    let (page, _) = authority.get(secured, "/health", None).expect("no certificate is asked for");
    assert!(page.contains(r#""health":"true""#), "{page}");
    let (page, _) = authority.get(metrics, "/metrics", None).expect("metrics over TLS");
    assert!(page.contains("etcd_server_has_leader"), "{page}");
    // An address for metrics has nothing else.
    let (page, _) = authority.get(metrics, "/version", None).expect("an answer");
    assert!(page.starts_with("HTTP/1.1 404"), "{page}");
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("a socket");
    stream
        .write_all(b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("etcdserver"), "{answer}");
    drop(cluster);

    // Where pages have an address of their own, calls have none of them.
    let pages_url = format!("--listen-client-http-urls=http://127.0.0.1:{pages}");
    let mut cluster = Cluster::prepare(&flotilla(), 1, &[&pages_url]);
    cluster.spawn(0);
    let calls = cluster.nodes[0].client_port;
    until("the pages are there", || {
        harness::http_get(pages, "/readyz").is_some_and(|(code, _)| code == 200)
    });
    assert_eq!(harness::http_get(calls, "/health").map(|(code, _)| code), Some(404));
}

#[test]
fn handshakes_that_are_stuck_stop_nobody() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "ca");
    let cluster = one_node(&authority, &[]);
    let port = cluster.nodes[0].client_port;
    let alice = authority.client("alice");
    let began = Instant::now();
    let mut stuck: Vec<TcpStream> = (0..300)
        .map(|n: usize| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it is accepted");
            // Some say nothing, and some stop in the middle.
            stream.write_all(&[0x16, 3, 1, 0, 200, 1][..n % 7]).expect("it takes some bytes");
            stream
        })
        .collect();
    for _ in 0..10 {
        authority.get(port, "/health", Some(&alice)).expect("others are served");
    }
    // They are hung up on when their time is over, and not before.
    let last = stuck.last_mut().expect("there are some");
    last.set_read_timeout(Some(SILENCE_MAX)).expect("a time-out");
    let end = last.read_to_end(&mut Vec::new());
    let is_over = match &end {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    };
    assert!(is_over, "a silent handshake has an end: {end:?}");
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
}

#[test]
fn certificates_are_generated_when_that_is_wanted() {
    let Some(etcdctl) = etcdctl() else { return };
    let mut cluster = Cluster::prepare(&flotilla(), 3, &["--auto-tls", "--peer-auto-tls"]);
    cluster.secure(true, true);
    for index in 0..3 {
        cluster.spawn(index);
    }
    cluster.wait_all_ready();
    let urls = cluster.endpoints();
    let run_without_looking = |args: &[&str]| {
        let mut command = Command::new(&etcdctl);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &urls[1]]);
        run(command.args(["--insecure-skip-tls-verify", "--insecure-transport=false"]), args)
    };
    let output = run_without_looking(&["put", "a", "1"]);
    assert!(output.status.success(), "{output:?}");
    let fixtures = cluster.nodes[1].data_dir().join("fixtures");
    let shown = std::fs::read(fixtures.join("client/cert.pem")).expect("it was generated");
    assert!(fixtures.join("peer/key.pem").exists());
    let mut command = Command::new(&etcdctl);
    command.env("ETCDCTL_API", "3").args(["--endpoints", &urls[1], "--dial-timeout=2s"]);
    assert!(!run(&mut command, &["get", "a"]).status.success(), "nobody knows who signed it");
    cluster.stop(1);
    cluster.restart(1);
    assert_eq!(std::fs::read(fixtures.join("client/cert.pem")).expect("it is there"), shown);
    assert!(run_without_looking(&["get", "a"]).status.success());
}

#[test]
fn a_node_does_not_start_with_certificates_that_are_of_no_use() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "ca");
    let (one, other) = (authority.node("one"), authority.node("other"));
    let missing = folder.path().join("missing");
    let cases = [
        (&missing, &one.key, &authority.cert, "missing: No such file"),
        (&one.cert, &other.key, &authority.cert, "tls: private key does not match public key"),
        (&one.cert, &one.key, &one.key, "holds no certificate in PEM"),
    ];
    for (cert, key, ca, expected) in cases {
        let flags = [
            ["--cert-file", text(cert)],
            ["--key-file", text(key)],
            ["--trusted-ca-file", text(ca)],
        ];
        let mut cluster = Cluster::prepare(&flotilla(), 1, &flags.concat());
        cluster.secure(true, false);
        cluster.spawn(0);
        let status = cluster.wait_exit(0, COUNTS_WITHIN).expect("it leaves");
        assert!(!status.success());
        let log = cluster.nodes[0].log();
        assert!(log.contains(expected), "{expected}: {log}");
    }
}
