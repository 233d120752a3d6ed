//! Data directories that are damaged, incomplete, in use or somebody else's. A node either says
//! what is wrong and leaves, or serves what it acknowledged; it never serves anything else.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::{PutRequest, RangeRequest};
use harness::{Cluster, copy_folder, flotilla, free_port};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Small enough that the store is flushed to files several times while it is filled.
const FLAGS: [&str; 2] = ["--snapshot-count", "50"];
const KEYS: usize = 250;
const DECIDED_WITHIN: Duration = Duration::from_secs(30);
/// The first bytes of every frame of the log.
const FRAME_MAGIC: [u8; 4] = 0xf107_f2a3_u32.to_le_bytes();
const FRAME_UNIT_BYTES: u64 = 4096;

type Rows = BTreeMap<String, (Vec<u8>, i64)>;

async fn client(url: &str) -> Result<KvClient<Channel>, Status> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(8));
    let channel = endpoint.connect().await;
    Ok(KvClient::new(channel.map_err(|error| Status::unavailable(error.to_string()))?))
}

/// Writes and returns what was acknowledged.
async fn fill(url: &str, prefix: &str, keys: usize) -> Rows {
    let mut client = client(url).await.expect("the node is ready");
    let mut rows = Rows::new();
    for n in 0..keys {
        let (key, value) = (format!("{prefix}/{n:04}"), format!("{n:04}").repeat(250).into_bytes());
        let request = PutRequest {
            key: key.clone().into(),
            value: value.clone().into(),
            ..PutRequest::default()
        };
        let answer = client.put(request).await.expect("a put").into_inner();
        rows.insert(key, (value, answer.header.expect("an answer has a header").revision));
    }
    rows
}

async fn read_all(url: &str, serializable: bool) -> Result<Rows, Status> {
    let everything = RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        serializable,
        ..RangeRequest::default()
    };
    let answer = client(url).await?.range(everything).await?.into_inner();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = answer.kvs.iter();
    Ok(rows.map(|kv| (text(&kv.key), (kv.value.to_vec(), kv.mod_revision))).collect())
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).expect("a folder") {
        let path = item.expect("an item").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("the file");
    bytes[at] ^= 0x10;
    fs::write(file, bytes).expect("the changed file");
}

/// Where the last byte is that is not zero: segments of the log are longer than what they hold.
fn used_bytes(file: &Path) -> usize {
    let bytes = fs::read(file).expect("the file");
    bytes.iter().rposition(|byte| *byte != 0).expect("the file holds something") + 1
}

fn wal_file(data: &Path) -> PathBuf {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "wal");
    // The newest is one that was only prepared, if there are several.
    files(&data.join("member/wal")).into_iter().find(is_segment).expect("a segment of the log")
}

/// What became of a start.
#[derive(Debug)]
enum Outcome {
    /// It left with an exit code that is not zero, and wrote this.
    Refused(String),
    /// It answered linearizable reads with what was acknowledged, and wrote this.
    Served(String),
}

/// One node whose directory can be put back to what a SIGKILL left behind.
struct Patient {
    cluster: Cluster,
    pristine: tempfile::TempDir,
    acknowledged: Rows,
}

impl Patient {
    async fn filled(flags: &[&str], keys: usize) -> Self {
        let mut cluster = Cluster::start_with(&flotilla(), 1, flags);
        let acknowledged = fill(&cluster.endpoint(0), "key", keys).await;
        cluster.kill(0);
        let pristine = tempfile::tempdir().expect("a folder");
        copy_folder(&cluster.nodes[0].data_dir(), pristine.path());
        Self { cluster, pristine, acknowledged }
    }

    /// Starts the node on a copy that `harm` was done to, and looks what it does. Fails if it
    /// panics, leaves as if all were well, or serves anything but what was acknowledged.
    async fn start_after(&mut self, what: &str, harm: impl FnOnce(&Path)) -> Outcome {
        let data = self.cluster.nodes[0].data_dir();
        fs::remove_dir_all(&data).expect("the directory of the last start");
        copy_folder(self.pristine.path(), &data);
        harm(&data);
        let log_start = self.cluster.nodes[0].log().len();
        self.cluster.spawn(0);
        let outcome = self.decide(what, log_start).await;
        let log = &self.cluster.nodes[0].log()[log_start..];
        assert!(!log.contains("panicked"), "{what}: {log}");
        outcome
    }

    async fn decide(&mut self, what: &str, log_start: usize) -> Outcome {
        let deadline = Instant::now() + DECIDED_WITHIN;
        loop {
            let exit = self.cluster.wait_exit(0, Duration::from_millis(50));
            let log = self.cluster.nodes[0].log()[log_start..].to_owned();
            if let Some(exit) = exit {
                // A process that was ended by a signal has no code.
                assert!(exit.code().is_some_and(|code| code != 0), "{what}: {exit}: {log}");
                return Outcome::Refused(log);
            }
            if self.cluster.is_ready(0)
                && let Ok(rows) = read_all(&self.cluster.endpoint(0), false).await
            {
                assert!(rows == self.acknowledged, "{what}: other data is served: {log}");
                self.cluster.kill(0);
                let log = self.cluster.nodes[0].log()[log_start..].to_owned();
                return Outcome::Served(log);
            }
            assert!(Instant::now() < deadline, "{what}: neither refused nor served: {log}");
        }
    }

    async fn assert_refused(&mut self, what: &str, texts: &[&str], harm: impl FnOnce(&Path)) {
        match self.start_after(what, harm).await {
            Outcome::Refused(log) => {
                for text in texts {
                    assert!(log.contains(text), "{what}: no {text:?} in: {log}");
                }
            }
            Outcome::Served(log) => panic!("{what}: not noticed: {log}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_the_log_is_named_and_a_torn_tail_costs_nothing() {
    let mut patient = Patient::filled(&FLAGS, KEYS).await;
    let untouched = patient.start_after("untouched", |_| ()).await;
    assert!(matches!(untouched, Outcome::Served(..)), "{untouched:?}");

    let file = wal_file(patient.pristine.path());
    let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
    let bytes = fs::read(&file).expect("the log");
    let used = used_bytes(&file);
    for part in 0..6 {
        // Zeros between frames belong to nobody.
        let from = used * part / 7;
        let at = from + bytes[from..].iter().position(|byte| *byte != 0).expect("more follows");
        let what = format!("bit of byte {at} of the log");
        let texts = [&name[..], "damaged at byte"];
        patient.assert_refused(&what, &texts, |data| flip(&wal_file(data), at)).await;
    }

    for length in [0, 20, used / 2] {
        let cut = |data: &Path| {
            let file = fs::File::options().write(true).open(wal_file(data)).expect("the log");
            file.set_len(length as u64).expect("a shorter log");
        };
        let texts = [&name[..], "damaged at byte"];
        patient.assert_refused(&format!("log cut to {length} bytes"), &texts, cut).await;
    }

    let half_a_frame = |data: &Path| {
        let file = fs::File::options().write(true).open(wal_file(data)).expect("the log");
        let mut frame = FRAME_MAGIC.to_vec();
        frame.extend([0x5a; 700]);
        let at = (used as u64).next_multiple_of(FRAME_UNIT_BYTES);
        file.write_all_at(&frame, at).expect("room behind the last frame");
    };
    match patient.start_after("half a frame at the end", half_a_frame).await {
        Outcome::Served(log) => assert!(log.contains("unfinished write"), "{log}"),
        Outcome::Refused(log) => panic!("an interrupted write is no damage: {log}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_the_store_is_named_or_costs_nothing() {
    let mut patient = Patient::filled(&FLAGS, KEYS).await;
    let store = patient.pristine.path().join("member/store");
    let mut kinds = BTreeMap::<&str, usize>::new();
    for file in files(&store) {
        let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let Some(kind) = ["MANIFEST", "CURRENT", "HEAD", ".sst"].into_iter().find(|kind| {
            name.contains(kind) && fs::metadata(&file).is_ok_and(|file| file.len() > 0)
        }) else {
            continue;
        };
        let count = kinds.entry(kind).or_default();
        *count += 1;
        // Every table looks alike.
        if *count > 4 {
            continue;
        }
        let relative =
            file.strip_prefix(patient.pristine.path()).expect("it is in there").to_owned();
        let at = fs::read(&file).expect("the file").len() / 2;
        let outcome = patient.start_after(&name, |data| flip(&data.join(&relative), at)).await;
        match outcome {
            Outcome::Refused(log) => assert!(log.contains("damaged"), "{name}: {log}"),
            // What was served is what was acknowledged: `start_after` has compared it.
            Outcome::Served(..) => assert_eq!(kind, ".sst", "{name}: not noticed"),
        }
    }
    let found: Vec<&str> = kinds.into_keys().collect();
    assert_eq!(found, [".sst", "CURRENT", "HEAD", "MANIFEST"], "{:?}", files(&store));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_its_log_and_a_log_without_its_store_are_refused() {
    let remove = |part: &'static str| {
        move |data: &Path| fs::remove_dir_all(data.join(part)).expect("a part of the directory")
    };
    let mut patient = Patient::filled(&FLAGS, KEYS).await;
    patient.assert_refused("no log", &["the log is missing"], remove("member/wal")).await;
    patient.assert_refused("no store", &["the store is empty"], remove("member/store")).await;

    // So few writes that all of them are in the log and none in the store's files.
    let mut patient = Patient::filled(&[], 5).await;
    let missing = ["the log is missing"];
    patient.assert_refused("no log of few writes", &missing, remove("member/wal")).await;
    patient.assert_refused("no store", &["the store is empty"], remove("member/store")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_directory_does_not_come_back_as_itself() {
    let mut cluster = Cluster::start(&flotilla(), 3);
    let acknowledged = fill(&cluster.endpoint(0), "key", 20).await;
    cluster.kill(2);
    fs::remove_dir_all(cluster.nodes[2].data_dir()).expect("its directory goes");
    cluster.spawn(2);
    let exit = cluster.wait_exit(2, DECIDED_WITHIN).expect("it must not run");
    assert_eq!(exit.code(), Some(1), "{}", cluster.nodes[2].log_tail());
    let log = cluster.nodes[2].log();
    assert!(log.contains("has already been bootstrapped"), "{log}");
    let rows = read_all(&cluster.endpoint(1), false).await;
    assert_eq!(rows.expect("two of three serve"), acknowledged);
}

/// Starts a node that should not get far, on ports and a directory of the test's choice.
fn start_alone(data: &Path, client_port: u16, peer_port: u16) -> Output {
    let client_url = format!("http://127.0.0.1:{client_port}");
    let peer_url = format!("http://127.0.0.1:{peer_port}");
    let mut child = Command::new(flotilla())
        .args(["--name", "n0", "--data-dir"])
        .arg(data)
        .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
        .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
        .args(["--initial-cluster", &format!("n0={peer_url}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let deadline = Instant::now() + DECIDED_WITHIN;
    while child.try_wait().expect("a child can be waited for").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("SIGKILL is sent");
            panic!("it runs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("the outputs of a child")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_data_or_ports_leaves_the_first_alone() {
    let cluster = Cluster::start(&flotilla(), 1);
    let acknowledged = fill(&cluster.endpoint(0), "key", 20).await;
    let node = &cluster.nodes[0];
    let elsewhere = tempfile::tempdir().expect("a folder");
    let folder = elsewhere.path().join("data");
    for (what, data, client_port, peer_port, text) in [
        ("data", node.data_dir(), free_port(), free_port(), "already open"),
        ("client port", folder.clone(), node.client_port, free_port(), "in use"),
        ("peer port", folder.clone(), free_port(), node.peer_port, "in use"),
    ] {
        let output = start_alone(&data, client_port, peer_port);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.code().is_some_and(|code| code != 0), "{what}: {said}");
        assert!(said.contains(text) && !said.contains("panicked"), "{what}: {said}");
        assert!(!folder.exists(), "{what}: data was created beside a taken port");
        let rows = read_all(&cluster.endpoint(0), false).await;
        assert_eq!(rows.expect("the first process serves"), acknowledged, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_of_another_cluster_is_kept_out() {
    let mut ours = Cluster::start(&flotilla(), 3);
    let acknowledged = fill(&ours.endpoint(0), "ours", 30).await;
    let mut theirs = Cluster::start(&flotilla(), 3);
    let stranger = fill(&theirs.endpoint(0), "theirs", 7).await;
    for index in 0..3 {
        theirs.kill(index);
    }

    ours.kill(0);
    let data = ours.nodes[0].data_dir();
    let aside = data.with_extension("aside");
    fs::rename(&data, &aside).expect("our directory steps aside");
    copy_folder(&theirs.nodes[0].data_dir(), &data);
    ours.spawn(0);
    let deadline = Instant::now() + DECIDED_WITHIN;
    loop {
        assert!(Instant::now() < deadline, "nobody noticed: {}", ours.nodes[0].log_tail());
        let is_gone = !ours.nodes[0].is_running();
        if is_gone || ours.nodes[0].log().contains("refused a peer of another cluster") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..3 {
        assert!(!ours.is_ready(0), "it has no quorum of its own cluster");
        if let Ok(rows) = read_all(&ours.endpoint(0), true).await {
            // Without its quorum it may not know that the newest of its writes are committed.
            let is_theirs = rows.iter().all(|(key, row)| stranger.get(key) == Some(row));
            assert!(is_theirs, "the two clusters are mixed: {:?}", rows.keys());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for index in [1, 2] {
        let rows = read_all(&ours.endpoint(index), false).await;
        assert_eq!(rows.expect("two of three serve"), acknowledged);
    }

    if ours.nodes[0].is_running() {
        ours.kill(0);
    } else {
        let exit = ours.wait_exit(0, Duration::ZERO).expect("it has left");
        assert_ne!(exit.code(), Some(0));
    }
    let log = ours.nodes[0].log();
    assert!(!log.contains("panicked"), "{log}");
    fs::remove_dir_all(&data).expect("their directory goes");
    fs::rename(&aside, &data).expect("our directory comes back");
    ours.restart(0);
    let rows = read_all(&ours.endpoint(0), false).await;
    assert_eq!(rows.expect("a node that is back serves"), acknowledged);
    let absent = read_all(&theirs.endpoint(0), true).await.expect_err("it was killed");
    assert_eq!(absent.code(), Code::Unavailable);
}
