//! A node that gets little of a processor, or little memory beyond what it has: a control group
//! of its own. Effect: the kernel counted that the limit was hit.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::process::fault::{Class, Effect, Ground, Planned, Whom};
use crate::sim::chance::Chance;

/// Where control groups are: the first version has a tree for each controller.
const FIRST: &str = "/sys/fs/cgroup/cpu";
const SECOND: &str = "/sys/fs/cgroup";
/// Microseconds of a processor in each tenth of a second.
const QUOTA_US: u64 = 5_000;
const PERIOD_US: u64 = 100_000;
/// Bytes beyond those that the process had before.
const MEMORY_BYTES: u64 = 1 << 20;

/// A group, for as long as this value lives.
struct Group {
    folder: PathBuf,
    parent: PathBuf,
    is_first: bool,
    class: Class,
    pid: u32,
}

/// Why there are no control groups; `None` if there are.
pub fn missing_control_groups() -> Option<String> {
    let root = if Path::new(FIRST).is_dir() { FIRST } else { SECOND };
    let probe = Path::new(root).join(format!("flotilla-probe-{}", std::process::id()));
    let made = fs::create_dir(&probe);
    // An empty group can always be removed again.
    let _ = fs::remove_dir(&probe);
    made.err().map(|error| format!("no control group can be made below {root}: {error}"))
}

pub(super) async fn carry_out(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let hold = ground.hold_someone(chance).await;
    who.is(format!("n{}", hold.node));
    let group = {
        let mut held = ground.run.node(hold.node).await;
        // Too little memory may end it.
        held.may_leave = planned.class == Class::MemorySqueeze;
        let pid = held.pid().context("it does not run")?;
        Group::new(planned.class, pid)?
    };
    sleep(planned.lasts).await;
    let hits = group.hits()?;
    drop(group);
    ground.revive(hold.node).await?;
    ground.run.node(hold.node).await.may_leave = false;
    let what = format!("the limit was hit {hits} times");
    Ok(if hits > 0 { Ok(what) } else { Err(what) })
}

impl Group {
    fn new(class: Class, pid: u32) -> anyhow::Result<Self> {
        let is_first = Path::new(FIRST).is_dir();
        let parent = match (is_first, class) {
            (true, Class::MemorySqueeze) => Path::new(SECOND).join("memory"),
            (true, _) => PathBuf::from(FIRST),
            (false, _) => PathBuf::from(SECOND),
        };
        let folder = parent.join(format!("flotilla-{}-{pid}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let group = Self { folder, parent, is_first, class, pid };
        match (is_first, class) {
            (true, Class::MemorySqueeze) => {
                group.write("memory.limit_in_bytes", &MEMORY_BYTES.to_string())?;
            }
            (true, _) => {
                group.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
                group.write("cpu.cfs_quota_us", &QUOTA_US.to_string())?;
            }
            (false, Class::MemorySqueeze) => {
                group.write("memory.max", &MEMORY_BYTES.to_string())?;
            }
            (false, _) => group.write("cpu.max", &format!("{QUOTA_US} {PERIOD_US}"))?,
        }
        group.write("cgroup.procs", &pid.to_string())?;
        Ok(group)
    }

    /// How often the limit was hit.
    fn hits(&self) -> anyhow::Result<u64> {
        let (file, name) = match (self.is_first, self.class) {
            (true, Class::MemorySqueeze) => ("memory.failcnt", ""),
            (false, Class::MemorySqueeze) => ("memory.events", "max "),
            (_, _) => ("cpu.stat", "nr_throttled "),
        };
        let text = fs::read_to_string(self.folder.join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.unwrap_or("0").trim().parse()?)
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let file = self.folder.join(file);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has left needs no other group.
        let _ = fs::write(self.parent.join("cgroup.procs"), self.pid.to_string());
        let _ = fs::remove_dir(&self.folder);
    }
}
