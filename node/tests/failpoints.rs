//! A node is stopped at each of the moments at which a crash would be worst, while clients write: it leaves
//! a sound disk, starts again, and nothing that was acknowledged is lost. Every point is reached.
//!
//! `bash .ci/failpoints` runs it, as it needs a build of its own, and prints what was reached.

mod harness;

#[path = "failpoints/provoke.rs"]
mod provoke;
#[path = "failpoints/trial.rs"]
mod trial;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flotilla::failpoint::Failpoint::{self, *};
use flotilla_proto::etcdserverpb::PutRequest;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use harness::acknowledged::{reach, read_all};
use harness::{Cluster, flotilla};
use provoke::Provoke;
use tempfile::TempDir;
use trial::Armed::{All, One, Others};
use trial::{Case, Trial, assert_sound};

/// Few entries until the store is flushed and the log is cut, and few that slow followers are left.
const SHORT_LOG: [&str; 2] = ["--snapshot-count=50", "--snapshot-catchup-entries=10"];
/// How long a process may take to come to a point that it comes to by itself.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
const SIGABRT: i32 = 6;

const fn case(point: Failpoint, armed: trial::Armed, passes: u32, provoke: Provoke) -> Case {
    Case { point, armed, passes, provoke }
}

const WRITES: [Case; 26] = [
    case(VoteBeforeWrite, One, 0, Provoke::Elections),
    case(VoteAfterFlush, One, 0, Provoke::Elections),
    case(WalBeforeWrite, One, 100, Provoke::Writes),
    case(WalBeforeFlush, One, 100, Provoke::Writes),
    case(WalAfterFlush, One, 100, Provoke::Writes),
    case(WalAfterFlush, All, 100, Provoke::Writes),
    case(ApplyBeforeBatch, One, 100, Provoke::Writes),
    case(ApplyAfterBatch, One, 100, Provoke::Writes),
    case(ApplyAfterAnswers, One, 100, Provoke::Writes),
    case(StoreFlushed, One, 2, Provoke::Writes),
    case(StoreHeadWritten, One, 2, Provoke::Writes),
    case(StoreHeadRenamed, One, 2, Provoke::Writes),
    case(CompactionSlice, One, 5, Provoke::Compactions),
    case(CompactionEnd, One, 2, Provoke::Compactions),
    case(TxnPrepared, All, 2, Provoke::Txns),
    case(TxnPrepared, All, 0, Provoke::Splits),
    case(TxnDecided, All, 2, Provoke::Txns),
    case(TxnDecided, All, 0, Provoke::Splits),
    case(SplitWritten, One, 0, Provoke::Splits),
    case(SplitBegun, One, 0, Provoke::Splits),
    case(MergeWritten, One, 0, Provoke::Merges),
    case(LeaseExpired, All, 1, Provoke::Leases),
    case(StartLogRead, One, 0, Provoke::Writes),
    case(StartKnown, One, 0, Provoke::Writes),
    case(StartRangeBegun, One, 0, Provoke::Writes),
    case(StartRangeBegun, One, 1, Provoke::Writes),
];

/// Range 0 shares the store with others, so what a snapshot replaces is exchanged row by row or by files.
const SNAPSHOTS: [Case; 10] = [
    case(SnapshotChunkSent, Others, 0, Provoke::Snapshots),
    case(SnapshotBegun, One, 0, Provoke::Snapshots),
    case(SnapshotChunkWritten, One, 0, Provoke::Snapshots),
    case(SnapshotSealed, One, 0, Provoke::Snapshots),
    case(InstallBegun, One, 0, Provoke::Snapshots),
    case(ExchangeBatch, One, 1, Provoke::Snapshots),
    case(ExchangeBeforeLast, One, 0, Provoke::Snapshots),
    case(InstallWritten, One, 0, Provoke::Snapshots),
    case(InstallFlushed, One, 0, Provoke::Snapshots),
    case(InstallDone, One, 0, Provoke::Snapshots),
];

/// Of a range, whose rows come as files.
const BETWEEN_FILES: [Case; 2] = [
    case(InstallBetweenFiles, One, 0, Provoke::Snapshots),
    case(InstallBetweenFiles, One, 1, Provoke::Snapshots),
];

/// Of range 0 alone, which takes the place of the whole store.
const REPLACEMENTS: [Case; 3] = [
    case(ReplaceRowsCopied, One, 0, Provoke::Snapshots),
    case(ReplaceFlushed, One, 0, Provoke::Snapshots),
    case(InstallDone, One, 0, Provoke::Snapshots),
];

const MOVES: [Case; 1] = [case(LeaveSlice, All, 0, Provoke::Moves)];

const SEGMENTS: [Case; 2] = [
    case(WalSegmentMade, One, 0, Provoke::BigValues),
    case(WalSegmentFreed, One, 0, Provoke::BigValues),
];

/// Stopped at the one, and at its next start at the other.
const TWICE: (Case, Failpoint) =
    (case(InstallBetweenFiles, One, 0, Provoke::Snapshots), StartExchangeDone);

/// On the first start of a node.
const FOUNDING: [Failpoint; 4] = [StoreCreated, StoreHeadRenamed, StartLogRead, StartKnown];

/// While a data directory is made of a backup.
const RESTORE: [Failpoint; 3] = [RestoreBatch, RestoreFilled, RestoreBeforeName];

fn groups() -> [&'static [Case]; 6] {
    [&WRITES, &SNAPSHOTS, &BETWEEN_FILES, &REPLACEMENTS, &MOVES, &SEGMENTS]
}

async fn carry_out(mut trial: Trial, cases: &[Case]) {
    println!("| point | under way | armed | stopped after, s | writes acknowledged |");
    for case in cases {
        trial.stop_at(*case).await;
    }
    trial.end().await;
}

#[test]
fn every_point_is_reached_by_a_test_and_listed_for_readers() {
    let of_cases = groups().into_iter().flatten().map(|case| case.point);
    let others = FOUNDING.into_iter().chain(RESTORE).chain([TWICE.1]);
    let tested: BTreeSet<&str> = of_cases.chain(others).map(Failpoint::name).collect();
    let all: BTreeSet<&str> = Failpoint::ALL.iter().map(|(_, name)| *name).collect();
    assert_eq!(tested, all);

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/failpoints.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let (_, points) = page.split_once("## The points").expect("a list");
    let listed: BTreeSet<&str> = points
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(listed, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_and_what_is_done_to_ranges() {
    let flags =
        [&SHORT_LOG[..], &["--initial-split-keys=/a/3,/a/6", "--placement-interval=0"]].concat();
    let flags = [&flags[..], &["--compaction-batch-limit=100"]].concat();
    carry_out(Trial::start(3, &flags), &WRITES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_beside_ranges() {
    let flags =
        [&SHORT_LOG[..], &["--initial-split-keys=/a/3,/a/6", "--placement-interval=0"]].concat();
    carry_out(Trial::start(3, &flags), &[&SNAPSHOTS[..], &BETWEEN_FILES].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_ends_an_interrupted_install_is_interrupted_too() {
    let flags =
        [&SHORT_LOG[..], &["--initial-split-keys=/a/3,/a/6", "--placement-interval=0"]].concat();
    let (case, next) = TWICE;
    let mut trial = Trial::start(3, &flags);
    trial.stop_at_and_again(case, next).await;
    trial.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_of_everything() {
    let flags = [&SHORT_LOG[..], &["--placement-interval=0"]].concat();
    carry_out(Trial::start(3, &flags), &REPLACEMENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_that_move() {
    let flags = ["--initial-split-keys=/a/3,/a/6", "--initial-range-replicas=2"];
    let flags = [&flags[..], &["--placement-interval=0"]].concat();
    carry_out(Trial::start(3, &flags).with_replicas_apart(), &MOVES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_of_the_log() {
    carry_out(Trial::start(1, &SHORT_LOG), &SEGMENTS).await;
}

async fn put(url: &str, key: &str, value: Vec<u8>) {
    let channel = reach(url).await.expect("the node is ready");
    let request =
        PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
    KvClient::new(channel).put(request).await.unwrap_or_else(|error| panic!("{key}: {error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start() {
    for point in FOUNDING {
        let mut cluster = Cluster::prepare(&flotilla(), 1, &[]);
        let spec = format!("{}=return", point.name());
        cluster.nodes[0].variables = vec![("FAILPOINTS".to_owned(), spec)];
        cluster.spawn(0);
        let status = cluster.wait_exit(0, STOPPED_WITHIN);
        let signal = status.and_then(|status| status.signal());
        assert_eq!(signal, Some(SIGABRT), "{}: {status:?}", point.name());
        assert_sound(point.name(), &cluster.nodes[0].data_dir());
        cluster.nodes[0].variables.clear();
        cluster.restart(0);
        put(&cluster.endpoint(0), "/a/1", b"1".to_vec()).await;
        cluster.kill(0);
        cluster.restart(0);
        let (_, found) = read_all(&cluster.endpoint(0)).await;
        assert_eq!(found.len(), 1, "{}", point.name());
        println!("| `{}` | first start |", point.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore() {
    let folder = TempDir::new().expect("a folder");
    let source = Cluster::start(&flotilla(), 1);
    let url = source.endpoint(0);
    // More than a batch of a restore.
    for n in 0..6 {
        put(&url, &format!("/big/{n}"), vec![b'v'; provoke::BIG_VALUE_BYTES]).await;
    }
    put(&url, "/a/1", b"1".to_vec()).await;
    let backup = folder.path().join("backup");
    let save = Command::new(flotilla())
        .args(["snapshot", "save", "--endpoints", &url])
        .arg(&backup)
        .output()
        .expect("it runs");
    assert!(save.status.success(), "{}", String::from_utf8_lossy(&save.stderr));

    for point in RESTORE {
        let mut cluster = Cluster::prepare(&flotilla(), 1, &[]);
        let (node, initial_cluster) = (&cluster.nodes[0], cluster.initial_cluster());
        let data = node.data_dir();
        let restore = |spec: &str| {
            let mut command = Command::new(flotilla());
            command.args(["snapshot", "restore"]).arg(&backup);
            command.args(["--name", &node.name, "--data-dir"]).arg(&data);
            command.args(["--initial-advertise-peer-urls", &node.peer_url()]);
            command.args(["--initial-cluster", &initial_cluster, "--bump-revision=0"]);
            command.env("FAILPOINTS", spec).output().expect("it runs").status
        };
        let status = restore(&format!("{}=return", point.name()));
        assert_eq!(status.signal(), Some(SIGABRT), "{}: {status}", point.name());
        assert!(!data.exists(), "{}: a part of a backup has the name", point.name());
        let status = restore("");
        assert!(status.success(), "{}: {status}", point.name());
        assert_sound(point.name(), &data);
        cluster.spawn(0);
        cluster.wait_ready(0);
        let (_, found) = read_all(&cluster.endpoint(0)).await;
        assert_eq!(found.len(), 1, "{}", point.name());
        println!("| `{}` | restore |", point.name());
    }
}
