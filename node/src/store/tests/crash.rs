//! Killed at any moment, the store holds exactly the first so many batches, and all that a
//! finished flush covered. The killed process is this test program, run anew for one test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::failpoint::act::KILL_AT;

/// What a child process is to do; without it the tests that children run do nothing.
const ROLE: &str = "FLOTILLA_STORE_TEST_DIR";
/// How long a child may take to its first flush on a machine that has other things to do.
const START_MAX: Duration = Duration::from_secs(60);

/// The directory that a child is to work in.
pub(super) fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(ROLE).map(Into::into)
}

/// Runs one test of this program in a process of its own.
pub(super) fn child(test: &str, dir: &Path, crash_at: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, dir)
        .env(KILL_AT, crash_at)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a child until it kills itself at the named point.
pub(super) fn crash_at(test: &str, dir: &Path, crash_at: &str) {
    let status: ExitStatus = child(test, dir, crash_at).wait().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(9), "the child did not come to {crash_at}: {status:?}");
}

/// The batch after `n` others: changes in every column, among them rows of earlier batches.
fn batch(n: u64) -> Batch {
    let mut numbers = Numbers(n);
    let mut batch = Batch::default();
    for sub in 0..=numbers.below(4) {
        let key = format!("key {}", numbers.below(500));
        let value = vec![b'v'; numbers.below(600) as usize];
        let mut event = n.to_be_bytes().to_vec();
        event.push(sub as u8);
        if numbers.below(4) == 0 {
            batch.delete(Column::Key, key.clone());
        } else {
            batch.put(Column::Key, key.clone(), [n.to_string().as_bytes(), &value].concat());
        }
        batch.put(Column::Revision, event, value);
        batch.put(Column::History, format!("{key} {}", n % 50), n.to_string());
    }
    if n >= 300 {
        // Falls behind like a compaction does, in runs.
        for old in [n - 300, n - 299] {
            batch.delete(Column::Revision, [&old.to_be_bytes()[..], &[0]].concat());
        }
    }
    let lease = format!("lease {}", numbers.below(20));
    if n.is_multiple_of(2) {
        batch.put(Column::LeaseKey, lease, n.to_string());
    } else {
        batch.delete(Column::LeaseKey, lease);
    }
    batch.put(Column::Meta, "batches", (n + 1).to_be_bytes().to_vec());
    batch
}

fn batches_of(store: &Store) -> u64 {
    let count = store.get(Column::Meta, b"batches").unwrap();
    count.map_or(0, |count| u64::from_be_bytes(count[..].try_into().unwrap()))
}

/// Run in a child: applies batches until it is killed, and tells what flushes have covered.
#[test]
fn child_applies_batches() {
    let Some(dir) = child_dir() else { return };
    let store = open_small(&dir);
    let applied = AtomicU64::new(batches_of(&store));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for pause_ms in (0..).map(|round| round % 7) {
                let covered = applied.load(Ordering::SeqCst);
                store.flush().unwrap();
                println!("flushed={covered}");
                std::thread::sleep(Duration::from_millis(pause_ms));
            }
        });
        loop {
            let n = applied.load(Ordering::SeqCst);
            store.apply(&batch(n)).unwrap();
            applied.store(n + 1, Ordering::SeqCst);
            if n.is_multiple_of(32) {
                println!("applied={}", n + 1);
            }
        }
    });
}

#[test]
fn a_killed_store_holds_a_prefix_of_the_batches() {
    let dir = tempfile::tempdir().unwrap();
    let (mut model, mut held) = (Rows::default(), 0);
    let mut numbers = Numbers(3);
    let (mut rounds_with_flush, mut rounds_with_loss) = (0, 0);
    for round in 0..12 {
        let mut child = child("store::tests::crash::child_applies_batches", dir.path(), "never");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (first_flush, flushed_once) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let (mut applied, mut flushed) = (0_u64, 0_u64);
            let told = |line: &str, name| line.split_once(name)?.1.parse().ok();
            for line in output.lines().map_while(Result::ok) {
                applied = told(&line, "applied=").unwrap_or(applied);
                if let Some(covered) = told(&line, "flushed=") {
                    flushed = covered;
                    // Nobody listens in the rounds that end at once.
                    let _ = first_flush.send(());
                }
            }
            (applied, flushed)
        });
        // One round in three may end while the child still opens the store.
        if round % 3 != 0 {
            flushed_once.recv_timeout(START_MAX).unwrap();
        }
        std::thread::sleep(Duration::from_millis(numbers.below(250)));
        child.kill().unwrap();
        child.wait().unwrap();
        let (applied, flushed) = reader.join().unwrap();

        let store = open_small(dir.path());
        let found = batches_of(&store);
        assert!(found >= flushed, "round {round}: {found} batches, but {flushed} were flushed");
        assert!(found >= held, "round {round}: {found} batches, but there were {held}");
        for n in held..found {
            model.apply(&batch(n));
        }
        assert!(Rows::read(&store).unwrap() == model, "round {round}: batches are split");
        rounds_with_flush += u64::from(flushed > held);
        rounds_with_loss += u64::from(applied > found);
        held = found;
        store.verify().unwrap();
    }
    assert!(rounds_with_flush > 3, "the children were killed before they did anything");
    assert!(rounds_with_loss > 0, "no child was killed with batches that were not flushed");
}

/// Run in a child: makes a store.
#[test]
fn child_opens() {
    if let Some(dir) = child_dir() {
        open_small(&dir);
    }
}

#[test]
fn a_store_killed_while_it_is_made_is_made_by_the_next_start() {
    for crash in ["store-head-written", "store-head-renamed", "store-created"] {
        let dir = tempfile::tempdir().unwrap();
        crash_at("store::tests::crash::child_opens", dir.path(), crash);
        let store = open_small(dir.path());
        assert_eq!(Rows::read(&store).unwrap(), Rows::default());
        store.apply(&put(Column::Key, "a", "1")).unwrap();
        store.close().unwrap();
        let store = open_small(dir.path());
        assert_eq!(store.get(Column::Key, b"a").unwrap(), Some(Bytes::from("1")));
    }
}
