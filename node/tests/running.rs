//! A node as a service: what it tells systemd, a stop that others hardly notice, a throw-away
//! cluster, and the files of `packaging`.

mod harness;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flotilla::config::{self, Notice, Outcome};
use flotilla_proto::etcdserverpb::PutRequest;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use harness::{Cluster, flotilla, http_get};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

// ---- systemd ----

/// How long a node may take until it says what is waited for.
const SAID_WITHIN: Duration = Duration::from_secs(30);
/// How long is listened that something is not said.
const WHILE: Duration = Duration::from_secs(2);
const WATCHDOG: Duration = Duration::from_secs(1);

struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, path }
    }

    fn variables(&self) -> Vec<(String, String)> {
        let variable = |name: &str, value: String| (name.to_owned(), value);
        vec![
            variable("NOTIFY_SOCKET", self.path.display().to_string()),
            variable("WATCHDOG_USEC", WATCHDOG.as_micros().to_string()),
        ]
    }

    /// The next message; None after `within`.
    fn hear(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).expect("a time-out");
        let mut bytes = [0; 256];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned())
    }

    /// Everything up to a message, which must come.
    fn hear_until(&self, wanted: &str) -> Vec<String> {
        let deadline = Instant::now() + SAID_WITHIN;
        let mut heard = Vec::new();
        while heard.last().is_none_or(|it| it != wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{wanted} was not said, but {heard:?}");
            heard.extend(self.hear(left));
        }
        heard
    }
}

#[test]
fn systemd_is_told_when_a_node_serves_turns_and_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = Manager::listen(folder.path());
    let mut cluster = Cluster::prepare(&flotilla(), 3, &[]);
    cluster.nodes[0].variables = manager.variables();
    let is_unready = || {
        let deadline = Instant::now() + WHILE;
        while Instant::now() < deadline {
            let heard = manager.hear(WHILE);
            assert!(heard.is_none_or(|it| it == "WATCHDOG=1"), "one node of three does not serve");
        }
    };
    cluster.spawn(0);
    // One of three has no leader, and does not serve.
    is_unready();
    cluster.spawn(1);
    cluster.spawn(2);
    manager.hear_until("READY=1");
    let ready = http_get(cluster.nodes[0].client_port, "/readyz");
    assert_eq!(ready.map(|(status, _)| status), Some(200), "it serves when it says so");
    // Twice in the time that systemd waits.
    let began = Instant::now();
    for _ in 0..4 {
        manager.hear_until("WATCHDOG=1");
    }
    assert!(began.elapsed() < 4 * WATCHDOG, "signs of life come too late: {:?}", began.elapsed());
    assert!(cluster.stop(0).success());
    let said = manager.hear_until("STOPPING=1");
    assert!(said[..said.len() - 1].iter().all(|it| it == "WATCHDOG=1"), "{said:?}");
    // Nor does one that the others know already.
    for index in [1, 2] {
        cluster.kill(index);
    }
    while manager.hear(Duration::from_millis(1)).is_some() {}
    cluster.spawn(0);
    is_unready();
    cluster.spawn(1);
    manager.hear_until("READY=1");
}

// ---- a stop ----

/// Without a leader that hands over, others would notice only after this.
const ELECTION_TIMEOUT: &str = "--election-timeout=10000";
/// Far above what a hand-over takes, also on a busy machine, and far below an election.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// A writer tries again when its node cannot answer.
const TRY_AGAIN: Duration = Duration::from_millis(5);
/// Of each range, one key in each round.
const KEYS: [&str; 4] = ["a", "f", "p", "z"];

fn ctl(cluster: &Cluster, words: &[&str]) -> String {
    let output = Command::new(flotilla())
        .args(["ctl", "--endpoint", &cluster.endpoint(0)])
        .args(words)
        .output()
        .expect("ctl runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes to all ranges until it is stopped; the longest time between two acknowledged writes.
async fn write(url: String, stop: watch::Receiver<bool>) -> (Duration, u64) {
    let endpoint = Endpoint::from_shared(url.clone()).expect("an address");
    let channel: Channel = endpoint.connect().await.expect("the node runs");
    let mut client = KvClient::new(channel);
    let (mut longest, mut written, mut last) = (Duration::ZERO, 0, Instant::now());
    for key in KEYS.iter().cycle() {
        if *stop.borrow() {
            break;
        }
        let request =
            PutRequest { key: (*key).into(), value: url.clone().into(), ..PutRequest::default() };
        match client.put(request).await {
            Ok(_) => {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                written += 1;
            }
            Err(_) => tokio::time::sleep(TRY_AGAIN).await,
        }
    }
    (longest.max(last.elapsed()), written)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_over_what_it_leads() {
    let flags = [ELECTION_TIMEOUT, "--initial-split-keys=b,m,t", "--placement-interval=0s"];
    let mut cluster = Cluster::start_with(&flotilla(), 3, &flags);
    let ranges = ctl(&cluster, &["ranges"]);
    let ranges: Vec<String> = ranges
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        // Below the table it may say that the leader's figures are not known yet.
        .filter(|word| word.parse::<u64>().is_ok())
        .map(str::to_owned)
        .collect();
    assert_eq!(ranges.len(), 4, "{ranges:?}");
    let mut longest = Duration::ZERO;
    for stopped in 0..3 {
        let name = cluster.nodes[stopped].name.clone();
        // It leads everything, so everything has to find another leader; the last one leads all but
        // the spine.
        for range in &ranges {
            let is_kept = stopped == 2 && range == "0";
            ctl(&cluster, &["transfer", range, if is_kept { "n0" } else { &name }]);
        }
        let (stop, stopping) = watch::channel(false);
        let others = (0..3).filter(|index| *index != stopped);
        let writers: Vec<_> = others
            .map(|index| tokio::spawn(write(cluster.endpoint(index), stopping.clone())))
            .collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = tokio::task::block_in_place(|| cluster.stop(stopped));
        assert!(status.success(), "{name}: {status}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.send(true).expect("writers write");
        for writer in writers {
            let (pause, written) = writer.await.expect("a writer ends");
            assert!(written > 0, "nothing was written while {name} stopped");
            longest = longest.max(pause);
        }
        let log = cluster.nodes[stopped].log();
        assert!(log.contains("others lead what this node led"), "{name}: {log}");
        tokio::task::block_in_place(|| cluster.restart(stopped));
    }
    println!("the longest pause of a writer was {longest:?}");
    assert!(longest < PAUSE_MAX, "a writer of another node paused for {longest:?}");
}

// ---- a throw-away cluster ----

struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        // It has left already if all is well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_throw_away_cluster_leaves_nothing() {
    let child = Command::new(flotilla())
        .args(["dev", "--nodes", "3", "--port", "0", "--", "--initial-split-keys=m"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut dev = Dev(child.expect("it starts"));
    let mut lines = BufReader::new(dev.0.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("it says more").expect("text");
    let first = line();
    let folder = PathBuf::from(first.split(" in ").nth(1).expect("the folder is told"));
    assert!(first.starts_with("3 nodes"), "{first}");
    let ports: Vec<u16> = (0..3)
        .map(|_| line().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port"))
        .collect();
    let ready = line();
    assert!(ready.starts_with("ready after"), "{ready}");
    for port in &ports {
        assert_eq!(http_get(*port, "/readyz").map(|(status, _)| status), Some(200));
    }
    assert!(folder.join("n3.log").is_file());

    let pid = Pid::from_raw(i32::try_from(dev.0.id()).expect("an id")).expect("an id");
    kill_process(pid, Signal::INT).expect("it runs");
    let status = dev.0.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert!(!folder.exists(), "{} is left", folder.display());
    for port in ports {
        assert_eq!(http_get(port, "/readyz"), None, "a node is left");
    }
}

// ---- packaging ----

fn packaged(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("node is in the workspace");
    std::fs::read_to_string(root.join("packaging").join(name)).expect("a packaged file")
}

/// What a node makes of settings; none of them may be unknown to it.
fn understood(args: &[&str], env: &BTreeMap<String, String>) -> config::Config {
    let no_file = |_: &Path| panic!("no file was named");
    let outcome = config::parse(args.iter().map(OsString::from), env, &no_file);
    let Ok(Outcome::Run(config, notices)) = outcome else {
        panic!("{args:?} {env:?}: {outcome:?}")
    };
    for notice in notices {
        let is_harmless = matches!(notice, Notice::NoMeaning { .. });
        assert!(is_harmless, "{notice}");
    }
    *config
}

#[test]
fn the_environment_file_of_the_unit_is_understood() {
    let text = packaged("flotilla.env");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let env: BTreeMap<String, String> = lines
        .map(|line| line.split_once('=').expect("a name and a value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let config = understood(&[], &env);
    assert_eq!(config.initial_members().len(), 3);
    config.check_first_start().expect("a cluster can be founded with it");
    let unit = packaged("flotilla.service");
    for line in ["Type=notify", "EnvironmentFile=/etc/flotilla/flotilla.env", "WatchdogSec=30s"] {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
}

#[test]
fn the_procfile_founds_one_cluster() {
    let text = packaged("Procfile");
    let mut names = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (_, command) = line.split_once(": ").expect("a name and a command");
        let words: Vec<&str> = command.split(' ').map(|word| word.trim_matches('\'')).collect();
        assert_eq!(words[0], "flotilla");
        let config = understood(&words[1..], &BTreeMap::new());
        config.check_first_start().expect("a cluster can be founded with it");
        assert_eq!(config.initial_members().len(), 3);
        names.push(config.name);
    }
    assert_eq!(names, ["infra1", "infra2", "infra3"]);
}

#[test]
fn the_image_is_told_what_a_container_needs() {
    let text = packaged("Containerfile");
    let env: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| {
            let line = line.trim_start_matches("ENV").trim().trim_end_matches('\\').trim_end();
            line.starts_with("ETCD_").then(|| line.split_once('='))?
        })
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(env.len(), 3);
    let no_file = |_: &Path| panic!("no file was named");
    let outcome = config::parse(std::iter::empty(), &env, &no_file);
    assert!(matches!(outcome, Ok(Outcome::Run(..))), "{outcome:?}");
}
