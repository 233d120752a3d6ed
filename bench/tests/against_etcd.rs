//! The real program against the distribution's etcd: short loads, a trace recorded and replayed,
//! a comparison, and etcd's own `benchmark` flags.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where Debian and its kin install etcd.
const ETCD: &str = "/usr/bin/etcd";
/// How long etcd may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

struct Etcd {
    child: Child,
    endpoint: String,
    dir: tempfile::TempDir,
}

impl Etcd {
    /// Starts one node, or says loudly that there is none.
    fn start() -> Option<Self> {
        if !Path::new(ETCD).exists() {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {ETCD} is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let listeners: Vec<TcpListener> =
            (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let url = |n: usize| format!("http://{}", listeners[n].local_addr().unwrap());
        let (client, peer) = (url(0), url(1));
        drop(listeners);
        let child = Command::new(ETCD)
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let endpoint = client.trim_start_matches("http://").to_owned();
        let etcd = Self { child, endpoint, dir };
        let deadline = Instant::now() + START_TIMEOUT;
        let probe = ["benchmark", "put", "--total=1", "--endpoints", &etcd.endpoint];
        while !bench(&probe).status.success() {
            assert!(Instant::now() < deadline, "etcd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(etcd)
    }

    /// Runs a load command on it and returns the report.
    fn load(&self, command: &[&str]) -> Value {
        let json = self.dir.path().join("report.json");
        let html = self.dir.path().join("report.html");
        let (json_text, html_text) = (json.to_str().unwrap(), html.to_str().unwrap());
        let mut arguments = command.to_vec();
        arguments.extend(["--endpoints", &self.endpoint, "--json", json_text, "--html", html_text]);
        arguments.extend(["--quiet", "--warmup", "200ms", "--duration", "1s"]);
        let output = bench(&arguments);
        assert!(output.status.success(), "{command:?}: {}", text(&output));
        let page = std::fs::read_to_string(&html).unwrap();
        assert!(page.contains("<svg") && !page.contains("<script") && !page.contains("src="));
        serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flotilla-bench")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What every report of a load must say.
fn check_load(report: &Value, operation: &str) {
    let load = &report["loads"][0];
    assert!(load["answered"].as_u64().unwrap() > 10, "{load}");
    assert!(load["rate"].as_f64().unwrap() > 10.0);
    assert_eq!(load["failures"].as_array().unwrap().len(), 0, "{}", load["failures"]);
    assert_eq!(report["violations"]["count"], 0, "{}", report["violations"]);
    assert!(report["version"].as_str().unwrap().starts_with("3."));
    assert!(report["verdict"]["is_fit"] == false, "one store alone is not fit to quote");
    let latency = &load["by_operation"][operation];
    let ms = |name: &str| latency[name].as_f64().unwrap();
    assert!(ms("p50_ms") > 0.0 && ms("p50_ms") <= ms("p99_ms") && ms("p9999_ms") <= ms("max_ms"));
    assert!(load["usage"]["generator_cpu_secs"].as_f64().unwrap() >= 0.0);
    assert!(report["flush_before"]["p50_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn loads_and_replay() {
    let Some(etcd) = Etcd::start() else { return };
    let trace = etcd.dir.path().join("trace");
    let trace = trace.to_str().unwrap();
    check_load(&etcd.load(&["run", "put", "--keys", "100", "--record", trace]), "put");
    check_load(&etcd.load(&["run", "get", "--keys", "100"]), "get");
    check_load(&etcd.load(&["run", "list", "--keys", "50", "--list-limit", "20"]), "list");

    // An answer larger than the window of its stream.
    let large = ["run", "list-all", "--keys", "300", "--value-size", "10000", "--outstanding", "2"];
    check_load(&etcd.load(&large), "list");

    let open =
        etcd.load(&["run", "put", "--keys", "100", "--rate", "200", "--arrivals", "poisson"]);
    check_load(&open, "put");
    let due = open["loads"][0]["due"].as_u64().unwrap();
    assert!((120..=290).contains(&due), "{due} requests are due at 200 a second");

    let replayed = etcd.load(&["replay", trace, "--speed", "2"]);
    check_load(&replayed, "put");
    let lines = std::fs::read_to_string(trace).unwrap().lines().count() as u64;
    assert_eq!(replayed["loads"][0]["due"].as_u64().unwrap(), lines, "all of the trace is due");

    // Watches are held, and every event is checked, by this workload.
    let kubernetes = etcd.load(&["run", "kubernetes", "--outstanding", "16"]);
    check_load(&kubernetes, "cas");
    check_load(&etcd.load(&["run", "ycsb-a", "--keys", "100"]), "get");
    check_load(&etcd.load(&["run", "discovery", "--outstanding", "8"]), "grant");
    check_load(&etcd.load(&["run", "lock", "--outstanding", "8"]), "lock");
    check_load(&etcd.load(&["run", "election", "--outstanding", "8"]), "campaign");
}

#[test]
fn etcds_own_flags_and_summary() {
    let Some(etcd) = Etcd::start() else { return };
    let run = |arguments: &[&str]| {
        let mut all = vec!["benchmark", "--endpoints", &etcd.endpoint, "--clients=8", "--conns=2"];
        all.extend(arguments);
        let output = bench(&all);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    };
    let lines = ["Summary:", "  Requests/sec:\t", "Response time histogram:", "  99% in "];
    for arguments in [
        &["put", "--total=200", "--key-space-size", "50", "--sequential-keys"][..],
        &["range", "a", "z", "--total=100", "--consistency=s"],
        &["txn-put", "--total=100", "--key-space-size=8", "--txn-ops=4"],
        &["txn-mixed", "--total=100", "--key-space-size=8", "--rw-ratio=2"],
        &["lease-keepalive", "--total=100"],
        &["stm", "--total=50", "--keys=4", "--keys-per-txn=2", "--isolation=ss"],
        &["watch-latency", "--streams=2", "--watchers-per-stream=2", "--put-total=20"],
    ] {
        let seen = run(arguments);
        for line in lines {
            assert!(seen.contains(line), "{arguments:?}: {line:?} is not in\n{seen}");
        }
    }
    let seen = run(&["watch", "--streams=2", "--watch-per-stream=5", "--put-total=20"]);
    assert!(
        seen.contains("Watch creation summary:") && seen.contains("Watch events received summary:")
    );
    let refused = bench(&["benchmark", "put", "--cacert=ca.pem"]);
    assert!(!refused.status.success() && text(&refused).contains("TLS is not supported"));
}

#[test]
fn two_stores_by_turns() {
    if !Path::new(ETCD).exists() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {ETCD} is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    let (a, b) = (format!("a={ETCD}"), format!("b={ETCD}"));
    let arguments = [
        "compare",
        "--target",
        &a,
        "--target",
        &b,
        "--rows",
        "P1,P12",
        "--repetitions",
        "2",
        "--duration",
        "400ms",
        "--warmup",
        "200ms",
        "--scale",
        "0.01",
        "--quiet",
        "--json",
        json.to_str().unwrap(),
    ];
    let output = bench(&arguments);
    assert!(output.status.success(), "{}", text(&output));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let row = &report["rows"][0];
    assert_eq!(row["id"], "P1");
    assert_eq!(row["error"], Value::Null);
    let throughput = row["metrics"].as_array().unwrap();
    let throughput = throughput.iter().find(|metric| metric["name"] == "throughput").unwrap();
    assert_eq!(throughput["values"][0].as_array().unwrap().len(), 2);
    let ratio = &throughput["ratios"][1];
    assert!(ratio["low"].as_f64().unwrap() <= ratio["high"].as_f64().unwrap());
    assert_eq!(row["gates"].as_array().unwrap().len(), 2);
    assert_eq!(report["verdict"]["is_fit"], false, "two short repetitions are not fit to quote");
    let refused = bench(&["compare", "--target", &a, "--target", &b, "--rows", "P22"]);
    assert!(!refused.status.success() && text(&refused).contains("not built"));
}
