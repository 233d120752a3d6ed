//! One node: where it lives, and the process while there is one. Knows how to start, kill and
//! pause it; when to do so is decided by the faults.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::disk::Disk;
use crate::process::target::{Place, Target};

/// How often it is looked whether a process has left.
const POLL_EVERY: Duration = Duration::from_millis(5);
/// How long a node may take to leave when asked nicely.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// One node of a cluster.
#[derive(Debug)]
pub struct Node {
    /// Name of the member.
    pub name: String,
    /// URL for clients.
    pub client_url: String,
    /// URL for peers.
    pub peer_url: String,
    /// Network namespace it is started in; `None`: that of this process.
    pub namespace: Option<String>,
    /// What its data lies on.
    pub disk: Disk,
    /// Where both its outputs go.
    pub log: PathBuf,
    /// `name=url` of the members it is told of.
    pub initial_cluster: String,
    /// True once it has joined a cluster that ran already.
    pub joins: bool,
    /// It belongs to the cluster.
    pub is_member: bool,
    /// A fault is under way that may make it leave by itself.
    pub may_leave: bool,
    /// Variables of its environment beside those of the caller, from the next start on.
    pub variables: Vec<(String, String)>,
    /// The program that it is started as, if it is no more that of the run.
    pub replaced_by: Option<Target>,
    /// How it left by itself, when it was allowed to.
    pub left: Option<ExitStatus>,
    process: Option<Child>,
}

impl Node {
    /// A node that was never started.
    pub fn new(name: &str, urls: (String, String), disk: Disk, log: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            client_url: urls.0,
            peer_url: urls.1,
            namespace: None,
            disk,
            log,
            initial_cluster: String::new(),
            joins: false,
            is_member: false,
            may_leave: false,
            variables: Vec::new(),
            replaced_by: None,
            left: None,
            process: None,
        }
    }

    /// Starts the process and returns at once. Data that is there is kept.
    ///
    /// # Errors
    /// It runs already, or the program cannot be started.
    pub fn start(&mut self, target: &Target) -> anyhow::Result<()> {
        anyhow::ensure!(self.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let words = self.words(target);
        let mut command = match &self.namespace {
            // `ip` becomes the program, so the process id is the node's own.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).args(&words);
                command
            }
            None => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                command
            }
        };
        // Variables of the caller's environment would count as flags.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", words[0]))?;
        self.process = Some(child);
        self.left = None;
        Ok(())
    }

    /// The words that start it.
    pub fn words(&self, target: &Target) -> Vec<String> {
        self.replaced_by.as_ref().unwrap_or(target).command_line(&Place {
            name: &self.name,
            data: &self.disk.data_dir(),
            client: &self.client_url,
            peer: &self.peer_url,
            cluster: &self.initial_cluster,
            state: if self.joins { "existing" } else { "new" },
        })
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// True from the start until it is killed, or has been found to have left.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// How it left by itself, if it did. It then counts as stopped.
    pub fn take_exit(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().ok()??;
        self.process = None;
        Some(status)
    }

    /// SIGKILL: the process leaves between two instructions. Returns whether there was one.
    pub fn kill(&mut self) -> bool {
        let Some(mut child) = self.process.take() else { return false };
        // It may have left by itself a moment ago.
        let was_running = matches!(child.try_wait(), Ok(None));
        let _ = child.kill();
        let _ = child.wait();
        was_running
    }

    /// SIGTERM, then waits until it has left; a process that ignores it is killed. Returns how it
    /// left, `None` if it had to be killed or did not run.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_WITHIN;
        let child = self.process.as_mut()?;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                self.process = None;
                return Some(status);
            }
            std::thread::sleep(POLL_EVERY);
        }
        self.kill();
        None
    }

    /// Sends a signal, if the process runs. Returns whether it was sent.
    pub fn signal(&self, signal: Signal) -> bool {
        let pid = self.pid().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// True if the kernel says that the process is stopped.
    pub fn is_paused(&self) -> bool {
        let stat =
            self.pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        // The name in parentheses may hold anything; the state is the word after it.
        let state = stat.as_deref().and_then(|stat| stat.rsplit_once(") "));
        state.is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// The last lines it wrote.
    pub fn last_words(&self, lines_count: usize) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(lines_count)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
