//! `flotilla verify`: finds nothing on what real nodes leave behind, whatever was done to them; names
//! what was planted; changes nothing; and leaves alone what is in use.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use flotilla::store;
use flotilla_core::GroupId;
use flotilla_core::mvcc::layout::Revision;
use flotilla_core::range::stored::Stored;
use flotilla_core::spine::State;
use flotilla_core::view::{Batch, Column, View};
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use flotilla_proto::etcdserverpb::{CompactionRequest, PutRequest};
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{
    MergeRequest, MoveReplicaRequest, RangeInfo, RangeListRequest, SplitRequest,
};
use harness::traffic::{PATIENT, channel, write};
use harness::{Cluster, copy_folder, flotilla};
use tokio::sync::watch;
use tonic::Status;

const DONE_WITHIN: Duration = Duration::from_secs(40);
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(400);

fn run(arguments: &[&str], data: &Path) -> (i32, String) {
    let output = Command::new(flotilla()).args(arguments).arg(data).output();
    let Output { status, stdout, stderr } = output.expect("the binary runs");
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (status.code().unwrap_or_else(|| panic!("{status}: {said}")), said)
}

/// Verifies, and looks that nothing was changed by it.
fn verify(data: &Path) -> (i32, String) {
    let before = fingerprint(data);
    let outcome = run(&["verify"], data);
    assert_eq!(before, fingerprint(data), "a verify changes nothing");
    outcome
}

#[track_caller]
fn assert_clean(what: &str, data: &Path) {
    let (code, said) = verify(data);
    assert_eq!(code, 0, "{what}: {said}");
    assert!(said.contains("0 findings in"), "{what}: {said}");
}

/// Names of all files and folders with what is in them.
fn fingerprint(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for item in fs::read_dir(folder).expect("a folder") {
        let path = item.expect("an item").path();
        if path.is_dir() {
            found.extend(fingerprint(&path));
            found.insert(path, 0);
        } else {
            let mut hasher = DefaultHasher::new();
            fs::read(&path).expect("a file").hash(&mut hasher);
            found.insert(path, hasher.finish());
        }
    }
    found
}

async fn ranges(url: &str) -> Vec<RangeInfo> {
    let mut admin = AdminClient::new(channel(url).await);
    let answer = admin.range_list(RangeListRequest {}).await.expect("a table").into_inner();
    answer.ranges.into_iter().filter(|range| range.range != 0).collect()
}

/// Asks until it is done: an earlier change may still be under way.
async fn until_done<T, F: Future<Output = Result<T, Status>>>(
    what: &str,
    ask: impl Fn() -> F,
) -> T {
    let started = Instant::now();
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(error) => assert!(started.elapsed() < DONE_WITHIN, "{what}: {error}"),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn cut(url: &str, key: &str) -> u64 {
    let answer = until_done("cut", || async {
        let request = SplitRequest { key: key.to_owned().into() };
        AdminClient::new(channel(url).await).split(request).await
    });
    answer.await.into_inner().range
}

async fn merge(url: &str, left: u64, right: u64) {
    let started = Instant::now();
    // The outcome of an attempt may be unknown.
    while ranges(url).await.iter().any(|range| range.range == right) {
        let request = MergeRequest { left, right };
        let answer = AdminClient::new(channel(url).await).merge(request).await;
        let Err(error) = answer else { return };
        assert!(started.elapsed() < DONE_WITHIN, "merge: {error}");
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn move_to(url: &str, range: &RangeInfo, add: u64) {
    let (number, remove) = (range.range, format!("{:x}", range.replicas[0]));
    until_done("move", || async {
        let (add, remove) = (format!("{add:x}"), remove.clone());
        let request = MoveReplicaRequest { range: number, add, remove };
        AdminClient::new(channel(url).await).move_replica(request).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_found_after_kills_amid_a_split_a_merge_and_a_move() {
    const NODES: usize = 3;
    let flags = [
        "--initial-split-keys=k/3,k/6",
        "--initial-range-replicas=2",
        "--placement-interval=0",
        "--snapshot-count=200",
        PATIENT,
    ];
    let mut cluster = Cluster::start_with(&flotilla(), NODES, &flags);
    let urls = cluster.endpoints();
    let (stop, stopped) = watch::channel(false);
    let writers: Vec<_> =
        (0..NODES).map(|n| tokio::spawn(write(urls[n].clone(), n, stopped.clone()))).collect();
    tokio::time::sleep(PAUSE).await;

    let table = ranges(&urls[0]).await;
    let nodes: BTreeSet<u64> = table.iter().flat_map(|range| range.replicas.clone()).collect();
    assert_eq!(nodes.len(), NODES, "every node holds something: {table:?}");
    let left = table.iter().find(|range| range.start == "k/3").expect("it was founded with it");
    let right = cut(&urls[0], "k/4").await;
    tokio::time::sleep(PAUSE).await;
    merge(&urls[1], left.range, right).await;
    let moved = table.iter().find(|range| range.start == "k/6").expect("it was founded with it");
    let add = nodes.iter().find(|node| !moved.replicas.contains(node)).expect("another node");
    move_to(&urls[2], moved, *add).await;
    // Behind it, so that one that is cut off remains.
    cut(&urls[1], "k/8").await;
    let revision = 20;
    let compaction = CompactionRequest { revision, ..CompactionRequest::default() };
    KvClient::new(channel(&urls[0]).await).compact(compaction).await.expect("it is past");
    stop.send(true).expect("clients listen");
    for writer in writers {
        assert!(!writer.await.expect("a writer does not panic").is_empty());
    }

    let (code, said) = verify_running(&cluster.nodes[1].data_dir());
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("Error: ") && said.contains("already open"), "{said}");

    for index in 0..NODES {
        cluster.kill(index);
    }
    for index in 0..NODES {
        assert_clean(&format!("node {index}, killed"), &cluster.nodes[index].data_dir());
    }
    // Killed while they start: they replay, send each other what they lack, and flush.
    for index in 0..NODES {
        cluster.spawn(index);
    }
    tokio::time::sleep(PAUSE).await;
    for index in 0..NODES {
        cluster.kill(index);
        assert_clean(&format!("node {index}, killed again"), &cluster.nodes[index].data_dir());
    }
    for index in 0..NODES {
        cluster.spawn(index);
    }
    cluster.wait_all_ready();
    for index in 0..NODES {
        assert!(cluster.stop(index).success());
        let data = cluster.nodes[index].data_dir();
        assert_clean(&format!("node {index}, stopped"), &data);
        let (code, said) = run(&["dump", "--group", "0"], &data);
        assert!(code == 0 && said.starts_with("group 0: term "), "{code}: {said}");
    }
}

/// The files of a node that runs change by themselves.
fn verify_running(data: &Path) -> (i32, String) {
    run(&["verify"], data)
}

/// A directory of a node that was stopped, to be put back after each harm.
struct Patient {
    pristine: tempfile::TempDir,
    copy: tempfile::TempDir,
}

impl Patient {
    async fn filled() -> Self {
        let flags = ["--initial-split-keys=m", "--placement-interval=0"];
        let mut cluster = Cluster::start_with(&flotilla(), 1, &flags);
        let mut client = KvClient::new(channel(&cluster.endpoint(0)).await);
        for n in 0..120 {
            let key = format!("{}/{}", if n % 2 == 0 { "a" } else { "z" }, n % 50);
            let (key, value) = (key.into(), format!("{n:04}").repeat(100).into());
            client.put(PutRequest { key, value, ..PutRequest::default() }).await.expect("a put");
        }
        assert!(cluster.stop(0).success());
        let [pristine, scratch] = [0; 2].map(|_| tempfile::tempdir().expect("a folder"));
        copy_folder(&cluster.nodes[0].data_dir(), pristine.path());
        Self { pristine, copy: scratch }
    }

    fn harmed(&self, harm: impl FnOnce(&Path)) -> PathBuf {
        let data = self.copy.path().join("data");
        let _ = fs::remove_dir_all(&data);
        copy_folder(self.pristine.path(), &data);
        harm(&data);
        data
    }

    /// The finding of this name, with these words in its line, is made of a copy that harm was done to.
    fn assert_found(&self, what: &str, name: &str, words: &[&str], harm: impl FnOnce(&Path)) {
        let (code, said) = verify(&self.harmed(harm));
        assert_eq!(code, 1, "{what}: {said}");
        let line = |line: &&str| {
            line.starts_with(&format!("found: {name}: "))
                && words.iter().all(|it| line.contains(it))
        };
        assert!(said.lines().any(|it| line(&it)), "{what}: no {name} with {words:?}: {said}");
    }

    /// As `assert_found`, with a change of the store's rows that no checksum tells.
    fn assert_row_found(
        &self,
        what: &str,
        name: &str,
        words: &[&str],
        change: impl FnOnce(&dyn View, &mut Batch),
    ) {
        self.assert_found(what, name, words, |data| {
            let store = store::open(&store::Options::new(data.join("member/store")));
            let store = store.expect("a store");
            let mut batch = Batch::default();
            change(&store, &mut batch);
            store.apply(&batch).expect("the rows change");
            store.flush().expect("they are on the disk");
            store.close().expect("the store is closed");
        });
    }
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let all = fingerprint(folder).into_keys();
    all.filter(|path| path.extension().is_some_and(|it| it == end)).collect()
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("the file");
    bytes[at] ^= 0x10;
    fs::write(file, bytes).expect("the changed file");
}

/// Where the frames of the log's first file are.
fn frames(file: &Path) -> Vec<usize> {
    const UNIT_BYTES: usize = 4096;
    const MAGIC: [u8; 4] = 0xf107_f2a3_u32.to_le_bytes();
    let bytes = fs::read(file).expect("the log");
    let units = (UNIT_BYTES..bytes.len()).step_by(UNIT_BYTES);
    units.filter(|at| bytes[*at..*at + 4] == MAGIC).collect()
}

fn event(revision: i64) -> [u8; 16] {
    Revision { main: revision, sub: 0 }.encode()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_planted_damage_has_a_name() {
    let patient = Patient::filled().await;
    assert_clean("untouched", &patient.harmed(|_| ()));

    let log = |data: &Path| files(&data.join("member/wal"), "wal").swap_remove(0);
    let frames = frames(&log(patient.pristine.path()));
    assert!(frames.len() > 20, "{frames:?}");
    let middle = frames[frames.len() / 2] + 70;
    patient.assert_found("middle of the log", "log-damaged", &["damaged at byte"], |data| {
        flip(&log(data), middle);
    });
    // The last but one: behind what was written last, a node that stops says that it did.
    let tail = frames[frames.len() - 2] + 70;
    patient.assert_found("tail of the log", "log-damaged", &["damaged at byte"], |data| {
        flip(&log(data), tail);
    });
    // As if it had been killed amid its last writes: they could be torn, but the store has them.
    let last = frames[frames.len() - 10..].to_vec();
    patient.assert_found("end of the log", "covered", &["its log ends at"], |data| {
        let mut bytes = fs::read(log(data)).expect("the log");
        for at in last {
            bytes[at + 64..at + 100].fill(0x5a);
            bytes[at..at + 4].fill(0);
        }
        fs::write(log(data), bytes).expect("the changed log");
    });
    patient.assert_found("file of the store", "store-damaged", &[".sst"], |data| {
        let tables = files(&data.join("member/store"), "sst");
        let largest = tables.iter().max_by_key(|path| fs::metadata(path).map_or(0, |it| it.len()));
        flip(largest.expect("a table"), 100);
    });
    for (part, name) in [("wal", "log-missing"), ("store", "store-missing")] {
        patient.assert_found(part, name, &[], |data| {
            fs::remove_dir_all(data.join("member").join(part)).expect("it is there");
        });
    }

    patient.assert_row_found("deleted row", "event-missing", &["119.0"], |_, batch| {
        batch.delete(Column::Revision, event(119).to_vec());
    });
    patient.assert_row_found("changed value", "event-differs", &["119.0"], |view, batch| {
        let row = view.get(Column::Revision, &event(119)).expect("readable").expect("an event");
        let mut changed = row.to_vec();
        *changed.last_mut().expect("it has a value") ^= 1;
        batch.put(Column::Revision, event(119).to_vec(), changed);
    });
    let range = GroupId(1);
    patient.assert_row_found("covered too much", "covered", &["group 1"], |view, batch| {
        let mut stored = Stored::load(view, range).expect("readable").expect("a range");
        stored.position.seq += 1;
        stored.write(range, batch);
    });
    patient.assert_row_found("covered too little", "covered", &["group 1"], |view, batch| {
        let mut stored = Stored::load(view, range).expect("readable").expect("a range");
        let (seq, noted) = (stored.position.seq - 1, stored.noted.min(stored.position.seq - 1));
        (stored.position.seq, stored.noted) = (seq, noted);
        stored.write(range, batch);
    });
    patient.assert_row_found("the spine is behind", "position", &["group 0"], |view, batch| {
        let state = State::load(view).expect("readable").expect("a state");
        let mut position = state.position();
        position.index -= 20;
        position.write(batch);
    });
    patient.assert_row_found("the spine is ahead", "covered", &["group 0"], |view, batch| {
        let state = State::load(view).expect("readable").expect("a state");
        let mut position = state.position();
        position.index += 20;
        position.write(batch);
    });
}

#[test]
fn what_is_no_data_directory_is_not_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, said) = run(&["verify"], folder.path());
    assert!(code == 2 && said.contains("no data directory"), "{code}: {said}");
    let (code, said) = run(&["verify", "--nonsense=1"], folder.path());
    assert!(code == 2 && said.contains("usage: flotilla verify"), "{code}: {said}");
    assert!(fingerprint(folder.path()).is_empty());
}
