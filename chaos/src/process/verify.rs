//! What the nodes leave on their disks is looked at by the program's own verifier: whatever was done to
//! them, it must be sound. Flotilla alone has one; of another target the report says that nothing
//! was looked at.
//!
//! Silence is never taken for soundness: a disk counts as sound only if the verifier says so in its
//! own words, and says that it has read something.

use std::fmt;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::run::Run;

/// How long the verifier may take with one disk.
const LOOK_WITHIN: Duration = Duration::from_secs(600);

/// What is known of the disk of one node, or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Whose.
    pub node: String,
    /// What was found.
    pub look: Look,
}

/// How one disk was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The verifier found nothing; what it read.
    Sound(String),
    /// What it found, a line each, or how it ended instead of saying something.
    Unsound(Vec<String>),
    /// It was not looked at, which is a doubt about the run.
    Unread(String),
    /// There is nothing that could be looked at, and that is right.
    Nothing(String),
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        match &self.look {
            Look::Sound(read) => write!(f, "disk of {node}: sound: {read}"),
            Look::Unsound(lines) => write!(f, "disk of {node}: {} findings", lines.len()),
            Look::Unread(why) => write!(f, "disk of {node}: NOT VERIFIED: {why}"),
            Look::Nothing(why) => write!(f, "disk of {node}: not verified: {why}"),
        }
    }
}

/// Ends all nodes, and has their data directories verified. What is found in one is a finding of the run.
///
/// Every other node is asked to leave, and writes down what it has applied; the rest is killed, and leaves
/// what a crash does, often a log and few rows.
pub(super) async fn verify(run: &Arc<Run>) -> Vec<Disk> {
    for node in (0..run.nodes_count()).step_by(2).filter(|_| run.target.is_flotilla) {
        let held = Arc::clone(run);
        // Waiting for the process to leave blocks.
        let leaving = tokio::task::spawn_blocking(move || {
            tokio::runtime::Handle::current().block_on(async {
                let mut held = held.node(node).await;
                !held.is_started() || held.stop().is_some()
            })
        });
        if !leaving.await.unwrap_or(false) {
            run.remark(format!("n{node} did not leave when asked at the end"));
        }
    }
    for node in 0..run.nodes_count() {
        run.node(node).await.kill();
    }
    if !run.target.is_flotilla {
        let why = format!("{} has no verifier that is known here: not done", run.target.name);
        return vec![Disk { node: "all".to_owned(), look: Look::Nothing(why) }];
    }
    let members = run.members();
    let mut disks = Vec::new();
    for node in 0..run.nodes_count() {
        let (name, data, words) = {
            let held = run.node(node).await;
            (held.name.clone(), held.disk.data_dir(), held.words(&run.target))
        };
        let is_member = members.contains(&node);
        let look = match data.join("member").is_dir() {
            true => look(&words, data, is_member).await,
            false if is_member => Look::Unsound(vec!["it is a member and has no data".to_owned()]),
            // It never started, or was removed and its disk wiped.
            false => Look::Nothing("it is no member and has no data".to_owned()),
        };
        if let Look::Unsound(lines) = &look {
            for line in lines {
                run.find(format!("{name}: flotilla verify: {line}"));
            }
        }
        disks.push(Disk { node: name, look });
    }
    disks
}

/// Why a run proves less because disks could not be looked at.
pub(super) fn doubts(disks: &[Disk]) -> Vec<String> {
    let unread = disks.iter().filter_map(|Disk { node, look }| match look {
        Look::Unread(why) => Some(format!("the disk of {node} was not verified: {why}")),
        Look::Sound(_) | Look::Unsound(_) | Look::Nothing(_) => None,
    });
    let mut doubts: Vec<String> = unread.collect();
    let mut read = disks.iter().filter_map(|disk| match &disk.look {
        Look::Sound(said) => Some(keys_count(said)),
        Look::Unsound(_) | Look::Unread(_) | Look::Nothing(_) => None,
    });
    // The stores of all may be as empty as at their beginning, with everything in their logs.
    if read.clone().next().is_some() && !read.any(|keys| keys > Some(0)) {
        doubts.push("no store that was verified holds a key".to_owned());
    }
    doubts
}

/// `words` start the node: its program has the verifier, and a log elsewhere is named among its flags.
async fn look(words: &[String], data: PathBuf, has_served: bool) -> Look {
    let mut command = Command::new(&words[0]);
    command.arg("verify").args(wal_dir(words)).arg(data).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(LOOK_WITHIN, command.output()).await {
        Ok(Ok(output)) => judge(&output, has_served),
        Ok(Err(error)) => Look::Unread(format!("{}: {error}", words[0])),
        Err(_) => Look::Unread(format!("the verifier takes longer than {LOOK_WITHIN:?}")),
    }
}

fn wal_dir(words: &[String]) -> Vec<String> {
    let is_flag = |word: &String| word.trim_start_matches('-').starts_with("wal-dir");
    let Some(at) = words.iter().position(is_flag) else { return Vec::new() };
    match words[at].split_once('=') {
        Some((_, value)) => vec!["--wal-dir".to_owned(), value.to_owned()],
        None => [vec!["--wal-dir".to_owned()], words[at + 1..].iter().take(1).cloned().collect()]
            .concat(),
    }
}

fn judge(output: &Output, has_served: bool) -> Look {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let found: Vec<String> =
        said.lines().filter(|line| line.starts_with("found: ")).map(str::to_owned).collect();
    let last = said.lines().last().unwrap_or_default();
    match output.status.code() {
        Some(0) if found.is_empty() && last.starts_with("0 findings in ") => {
            match frames_count(&said) {
                Some(frames) if frames > 0 || !has_served => Look::Sound(summary(&said)),
                frames => Look::Unsound(vec![format!(
                    "a node that has served has {frames:?} frames in its log"
                )]),
            }
        }
        Some(1) if !found.is_empty() => Look::Unsound(found),
        // It says itself that it could not look, or a program around it does not find the verifier.
        Some(2 | 126 | 127) => Look::Unread(format!("{}: {}", output.status, errors.trim())),
        _ => Look::Unsound(vec![format!("it ends with {}: {said}{errors}", output.status)]),
    }
}

/// Of the line `log: 1 segments, 126 frames, …`.
fn frames_count(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.strip_prefix("log: "))?;
    line.split(", ").find_map(|part| part.strip_suffix(" frames"))?.parse().ok()
}

/// Of the line `store: 8 files, 61.3 KiB; rows: 50 keys, …`, among others.
fn keys_count(said: &str) -> Option<u64> {
    let (_, rows) = said.split_once("; rows: ")?;
    rows.split(", ").next()?.strip_suffix(" keys")?.parse().ok()
}

/// What was read, notes among it, as one line.
fn summary(said: &str) -> String {
    said.lines().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    const SOUND: &str = "log: 1 segments, 126 frames, 391 records, 780.1 KiB\n\
                         groups: 2, with 254 entries\n0 findings in 0.014 s\n";
    const EMPTY: &str = "note: there is no store\nlog: 0 segments, 0 frames, 0 records, 0 B\n\
                         0 findings in 0.001 s\n";

    fn judged(status: i32, said: &str, errors: &str, has_served: bool) -> Look {
        let status = ExitStatus::from_raw(status);
        let output = Output { status, stdout: said.into(), stderr: errors.into() };
        judge(&output, has_served)
    }

    fn exit(code: i32) -> i32 {
        code << 8
    }

    #[test]
    fn only_a_verifier_that_says_so_and_has_read_something_makes_a_disk_sound() {
        let unsound = |look: &Look| matches!(look, Look::Unsound(lines) if !lines.is_empty());
        assert!(matches!(judged(exit(0), SOUND, "", true), Look::Sound(_)));
        // A directory that holds nothing is sound, but not that of a node that has served.
        assert!(matches!(judged(exit(0), EMPTY, "", false), Look::Sound(_)));
        assert!(unsound(&judged(exit(0), EMPTY, "", true)));
        // Success without a word, as of `true`; a crash; words that contradict the exit status.
        assert!(unsound(&judged(exit(0), "", "", false)));
        assert!(unsound(&judged(6, "", "panicked", true)));
        assert!(unsound(&judged(exit(1), SOUND, "", true)));
        let found = format!("found: lease: one\n{SOUND}").replace("0 findings", "1 findings");
        assert!(unsound(&judged(exit(0), &found, "", true)));
        assert_eq!(
            judged(exit(1), &found, "", true),
            Look::Unsound(vec!["found: lease: one".to_owned()])
        );
        assert_eq!(
            judged(exit(2), "", "Error: no permission\n", true),
            Look::Unread("exit status: 2: Error: no permission".to_owned())
        );
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_leaves_a_doubt() {
        let look = look(&["/nowhere/flotilla".to_owned()], "/".into(), true).await;
        assert!(matches!(&look, Look::Unread(_)), "{look:?}");
        let disks = [Disk { node: "n0".to_owned(), look }];
        assert_eq!(doubts(&disks).len(), 1);
    }

    #[test]
    fn stores_without_a_key_leave_a_doubt() {
        let disk = |keys: u64| Disk {
            node: "n0".to_owned(),
            look: Look::Sound(format!(
                "log: 1 segments; store: 8 files, 61.3 KiB; rows: {keys} keys, 1 meta"
            )),
        };
        assert_eq!(doubts(&[disk(0), disk(0)]).len(), 1);
        assert_eq!(doubts(&[disk(0), disk(5)]).len(), 0);
        assert_eq!(doubts(&[]).len(), 0);
    }

    #[test]
    fn a_log_elsewhere_is_looked_at() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(wal_dir(&words("f --name n0")), words("")[1..]);
        assert_eq!(wal_dir(&words("f --wal-dir=/w --x")), words("--wal-dir /w"));
        assert_eq!(wal_dir(&words("f -wal-dir /w --x")), words("--wal-dir /w"));
    }
}
