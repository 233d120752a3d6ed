//! Backups that are taken, looked at, damaged and restored: here, into an etcd, and out of one. Where
//! the distribution's etcd or its tools are missing, the tests that need them say that they were skipped.

mod harness;

#[path = "backup/series.rs"]
mod series;
#[path = "backup/state.rs"]
mod state;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flotilla_core::image::{bolt, schema};
use flotilla_proto::internal::RangeListRequest;
use flotilla_proto::internal::admin_client::AdminClient;
use harness::traffic::{PATIENT, channel};
use harness::{Cluster, etcd, etcdctl, flotilla, on_path};
use state::{Client, assert_auth_is_on};
use tempfile::TempDir;
use tonic::Code;

const BUMP: i64 = 1_000_000_000;
const USER: [&str; 2] = ["--user", "root:secret"];

fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("ETCDCTL_API", "3");
    command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn succeed(program: &Path, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {error}", program.display());
    String::from_utf8(output.stdout).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

fn save(url: &str, user: &[&str], folder: &TempDir, name: &str) -> PathBuf {
    let file = folder.path().join(name);
    let arguments = [&["snapshot", "save", text(&file), "--endpoints", url], user].concat();
    succeed(&flotilla(), &arguments);
    file
}

/// Restores into the directories of nodes that were not started yet, by any tool with etcd's flags.
fn restore(tool: &Path, file: &Path, cluster: &Cluster, flags: &[&str]) -> String {
    let initial_cluster = cluster.initial_cluster();
    let mut said = String::new();
    for node in &cluster.nodes {
        let (data_dir, peer_url) = (node.data_dir(), node.peer_url());
        let named = ["--name", &node.name, "--data-dir", text(&data_dir)];
        let of_peers = ["--initial-advertise-peer-urls", &peer_url];
        let of_all = ["snapshot", "restore", text(file), "--initial-cluster", &initial_cluster];
        said += &succeed(tool, &[&of_all, &named[..], &of_peers, flags].concat());
    }
    said
}

fn start(cluster: &mut Cluster) {
    (0..cluster.nodes.len()).for_each(|index| cluster.spawn(index));
    cluster.wait_all_ready();
}

/// etcd's tool for snapshots: a program of its own, or in older distributions etcdctl.
fn etcds_tool() -> Option<PathBuf> {
    on_path("etcdutl").or_else(etcdctl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_and_three_go_on_where_the_backup_was_taken() {
    let folder = TempDir::new().expect("a folder");
    let cluster = Cluster::start(&flotilla(), 1);
    let url = cluster.endpoint(0);
    let compacted = Client::nobody(&url).await.seed().await;
    let before = Client::root(&url).await;
    let wanted = before.state().await;
    let old = before.all(compacted + 1).await.expect("what is not compacted");
    let events = before.watch(compacted + 1, 3).await.expect("history");
    let file = save(&url, &USER, &folder, "snapshot");

    for size in [1, 3] {
        let mut restored = Cluster::prepare(&flotilla(), size, &[]);
        restore(&flotilla(), &file, &restored, &["--bump-revision=0"]);
        start(&mut restored);
        for url in restored.endpoints() {
            assert_auth_is_on(&url).await;
            let client = Client::root(&url).await;
            assert_eq!(client.state().await, wanted, "{size} nodes");
            assert_eq!(client.all(compacted + 1).await.expect("history").kvs, old.kvs);
            assert_eq!(client.watch(compacted + 1, 3).await, Ok(events.clone()));
            let refused = client.all(compacted - 1).await.expect_err("it is compacted");
            assert_eq!(refused.code(), Code::OutOfRange);
        }
        let last = size - 1;
        let client = Client::root(&restored.endpoint(0)).await;
        assert_eq!(client.put("new", "1", 0).await, wanted.revision + 1);
        // The log of a restored member begins with what came after the backup.
        restored.kill(last);
        restored.restart(last);
        let client = Client::root(&restored.endpoint(last)).await;
        let state = client.state().await;
        assert_eq!((state.revision, state.kvs.len()), (wanted.revision + 1, wanted.kvs.len() + 1));
    }

    // By default nobody takes the new history for the old one.
    let mut restored = Cluster::prepare(&flotilla(), 1, &[]);
    restore(&flotilla(), &file, &restored, &[]);
    start(&mut restored);
    let client = Client::root(&restored.endpoint(0)).await;
    let state = client.state().await;
    assert_eq!((state.revision, &state.kvs), (wanted.revision + BUMP, &wanted.kvs));
    assert_eq!(client.watch(wanted.revision + 1, 1).await, Err(wanted.revision + BUMP));
    assert_eq!(client.put("new", "1", 0).await, wanted.revision + BUMP + 1);
}

/// Both halves of the revision, whether it is a delete, and the key-value.
type Change = (i64, i64, bool, Vec<u8>);

/// The changes and the rest of what counts. Where the file comes from does not.
fn content(file: &Path) -> (Vec<Change>, schema::Facts) {
    let bytes = fs::read(file).expect("a file");
    let reader = bolt::Reader::open(&bytes[..bytes.len() - 32]).expect("a database");
    let mut changes = Vec::new();
    schema::visit_changes(&reader, &mut |it| {
        changes.push((it.revision.main, it.revision.sub, it.is_delete, it.kv.to_vec()));
        ControlFlow::Continue(())
    })
    .expect("changes");
    (changes, schema::facts(&reader).expect("facts"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lacks_ranges_gives_what_one_with_all_gives() {
    let folder = TempDir::new().expect("a folder");
    let flags = [
        "--initial-split-keys=k/2,k/5,k/8,leased/",
        "--initial-range-replicas=2",
        "--placement-interval=0",
        PATIENT,
    ];
    let cluster = Cluster::start_with(&flotilla(), 4, &flags);
    let compacted = Client::nobody(&cluster.endpoint(0)).await.seed().await;
    let client = Client::root(&cluster.endpoint(0)).await;
    let mut admin = AdminClient::new(channel(&cluster.endpoint(0)).await);
    let table = admin.range_list(client.request(RangeListRequest {})).await.expect("ranges");
    let table = table.into_inner().ranges;
    let others: Vec<_> = table.iter().filter(|range| range.range != 0).collect();
    assert_eq!(others.len(), 4);
    assert!(others.iter().all(|range| range.replicas.len() == 2), "every node lacks some");

    let files: Vec<PathBuf> = (0..4)
        .map(|index| save(&cluster.endpoint(index), &USER, &folder, &format!("of {index}")))
        .collect();
    let wanted = content(&files[0]);
    assert!(wanted.0.len() > 10 && wanted.1.compact_revision == compacted);
    for file in &files[1..] {
        assert_eq!(content(file), wanted, "{}", file.display());
    }

    // One node of the new cluster holds what many held.
    let wanted = client.all(0).await.expect("all keys");
    let mut restored = Cluster::prepare(&flotilla(), 1, &[]);
    restore(&flotilla(), &files[3], &restored, &["--bump-revision=0"]);
    start(&mut restored);
    let state = Client::root(&restored.endpoint(0)).await.state().await;
    assert_eq!(state.kvs, wanted.kvs);
    assert_eq!(state.revision, wanted.header.expect("a header").revision);
    assert_eq!(state.attached, ["leased/1", "leased/2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_starts_with_a_backup_of_ours() {
    let (Some(etcd), Some(tool)) = (etcd(), etcds_tool()) else {
        harness::skip("no etcd with its tools on the PATH");
        return;
    };
    let folder = TempDir::new().expect("a folder");
    let cluster = Cluster::start(&flotilla(), 1);
    let url = cluster.endpoint(0);
    let compacted = Client::nobody(&url).await.seed().await;
    let client = Client::root(&url).await;
    let (wanted, old) = (client.state().await, client.all(compacted).await.expect("history"));
    let file = save(&url, &USER, &folder, "snapshot");
    for format in ["simple", "json", "table"] {
        let ours = succeed(&flotilla(), &["snapshot", "status", text(&file), "-w", format]);
        let theirs = succeed(&tool, &["snapshot", "status", text(&file), "-w", format]);
        if format == "table" {
            // Older tools draw it with other lines.
            let words = |text: &str| {
                let is_word = |c: char| c.is_alphanumeric();
                text.split(|c| !is_word(c)).filter(|it| !it.is_empty()).map(str::to_owned).collect()
            };
            let (ours, theirs): (Vec<String>, Vec<String>) = (words(&ours), words(&theirs));
            assert_eq!(ours, theirs);
        } else {
            assert_eq!(ours, theirs);
        }
    }
    let mut restored = Cluster::prepare(&etcd, 1, &[]);
    restore(&tool, &file, &restored, &[]);
    start(&mut restored);
    let url = restored.endpoint(0);
    assert_auth_is_on(&url).await;
    let client = Client::root(&url).await;
    assert_eq!(client.state().await, wanted);
    assert_eq!(client.all(compacted).await.expect("history").kvs, old.kvs);
    assert_eq!(client.put("new", "1", 0).await, wanted.revision + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_an_etcd_is_restored_here() {
    let (Some(etcd), Some(etcdctl)) = (etcd(), etcdctl()) else {
        harness::skip("no etcd with etcdctl on the PATH");
        return;
    };
    let folder = TempDir::new().expect("a folder");
    let mut cluster = Cluster::start(&etcd, 1);
    let url = cluster.endpoint(0);
    let compacted = Client::nobody(&url).await.seed().await;
    let client = Client::root(&url).await;
    let (wanted, old) = (client.state().await, client.all(compacted).await.expect("history"));
    let saved = folder.path().join("saved");
    let arguments = ["--endpoints", &url, "snapshot", "save", text(&saved)];
    succeed(&etcdctl, &[&USER[..], &arguments].concat());
    assert!(cluster.stop(0).success() || cluster.nodes[0].log().contains("terminated"));
    let of_member = cluster.nodes[0].data_dir().join("member").join("snap").join("db");

    for (file, flags) in [
        (&saved, &["--bump-revision=0"][..]),
        (&of_member, &["--bump-revision=0", "--skip-hash-check"]),
    ] {
        let mut restored = Cluster::prepare(&flotilla(), 1, &[]);
        restore(&flotilla(), file, &restored, flags);
        start(&mut restored);
        let url = restored.endpoint(0);
        assert_auth_is_on(&url).await;
        let client = Client::root(&url).await;
        assert_eq!(client.state().await, wanted, "{}", file.display());
        assert_eq!(client.all(compacted).await.expect("history").kvs, old.kvs);
        assert_eq!(client.put("new", "1", 0).await, wanted.revision + 1);
    }
}

/// Each is refused with words, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_file_or_target_changes_nothing() {
    let folder = TempDir::new().expect("a folder");
    let cluster = Cluster::start(&flotilla(), 1);
    let url = cluster.endpoint(0);
    for n in 0..200 {
        Client::nobody(&url).await.put(&format!("k/{n}"), "value", 0).await;
    }
    let good = save(&url, &[], &folder, "good");
    let bytes = fs::read(&good).expect("a file");
    let target = folder.path().join("target");
    let data_dir = format!("--data-dir={}", text(&target));
    let refused = |name: &str, bytes: &[u8], flags: &[&str], reason: &str| {
        let file = folder.path().join("bad");
        fs::write(&file, bytes).expect("written");
        let arguments = [&["snapshot", "restore", text(&file), &data_dir], flags].concat();
        let output = run(&flotilla(), &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(reason), "{name}: {said}");
        assert!(!target.exists(), "{name}");
    };
    refused("nothing", b"", &[], "has no hash");
    refused("text", &b"text".repeat(200), &[], "was cut");
    refused("text with a hash", &[b't'; 512 + 32], &[], "was changed");
    for cut in [1, 33, 511, bytes.len() - 31] {
        refused("cut", &bytes[..bytes.len() - cut], &[], "was cut");
    }
    for cut in [512, 4096, bytes.len() / 2 / 512 * 512] {
        refused("cut by blocks", &bytes[..bytes.len() - cut], &[], "was changed");
    }
    refused("cut by its hash", &bytes[..bytes.len() - 32], &[], "has no hash");
    for n in 0..40 {
        let mut changed = bytes.clone();
        changed[(bytes.len() - 1) * n / 39] ^= 1 << (n % 8);
        refused("a flipped bit", &changed, &[], "was changed");
    }
    // Without its hash the file is still a database, or not.
    refused("half of it", &bytes[..bytes.len() / 2 / 512 * 512], &["--skip-hash-check"], "shorter");
    refused("zeros", &[0; 8192], &["--skip-hash-check"], "does not begin as a database");
    let other = ["--initial-cluster=other=http://localhost:2380"];
    refused("no founder", &bytes, &other, "default");

    fs::create_dir(&target).expect("a directory");
    fs::write(target.join("mine"), "precious").expect("written");
    let output = run(&flotilla(), &["snapshot", "restore", text(&good), &data_dir]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("not empty"), "{said}");
    assert_eq!(fs::read_to_string(target.join("mine")).expect("it is there"), "precious");
    let names: Vec<String> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert_eq!(names, Vec::<String>::new(), "nothing is left beside the target");

    // An empty directory is as good as none.
    fs::remove_file(target.join("mine")).expect("removed");
    succeed(&flotilla(), &["snapshot", "restore", text(&good), &data_dir]);
    assert!(target.join("member").is_dir());
}

/// Members that begin with different states must not meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_restores_another_state_founds_another_cluster() {
    let folder = TempDir::new().expect("a folder");
    let cluster = Cluster::start(&flotilla(), 1);
    let url = cluster.endpoint(0);
    let first = save(&url, &[], &folder, "first");
    Client::nobody(&url).await.put("a", "1", 0).await;
    let second = save(&url, &[], &folder, "second");
    let id = |file: &Path, flags: &[&str]| {
        let restored = folder.path().join("restored");
        let data_dir = format!("--data-dir={}", text(&restored));
        let arguments = [&["snapshot", "restore", text(file), &data_dir], flags].concat();
        let said = succeed(&flotilla(), &arguments);
        fs::remove_dir_all(&restored).expect("removed");
        let id = said.split("of cluster ").nth(1).and_then(|rest| rest.split(' ').next());
        id.expect("it names the cluster").to_owned()
    };
    let one = id(&first, &[]);
    assert_eq!(id(&first, &[]), one);
    for other in [id(&second, &[]), id(&first, &["--bump-revision=5"])] {
        assert_ne!(other, one);
    }
}
