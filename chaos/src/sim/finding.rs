//! What is found, by kind: which promise, which invariant, which stall, or which line of the source
//! that looks inside. Two runs that find the same class have met the same bug as far as a machine
//! can tell. Nothing here reads the text of a finding, which names nodes, entries and moments.

use std::cell::RefCell;
use std::fmt;
use std::panic::Location;

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which kind it is.
    pub class: Class,
    /// What was found.
    pub text: String,
}

impl Finding {
    /// Which check: a promise of `check`, an invariant of the simulator, or an assertion.
    pub fn check(&self) -> &'static str {
        self.class.check()
    }
}

/// A kind of finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// What clients saw breaks a promise of `check`, or a scenario does.
    Promise(&'static str),
    /// An invariant of the simulator that has a name is broken.
    Invariant(Invariant),
    /// A run that waits for something in vain.
    Stall(Stall),
    /// Something else that must not be, found by this line.
    Inside(Site),
    /// An assertion of a machine; where is known after [`note_panics`].
    Assertion(Option<Site>),
    /// The run proves nothing.
    Invalid,
}

impl Class {
    /// As a check is called.
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Promise(check) => check,
            Self::Invariant(invariant) => invariant.name(),
            Self::Stall(_) => "liveness",
            Self::Inside(_) => "inside",
            Self::Assertion(_) => "assertion",
            Self::Invalid => "invalid",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.check())?;
        match self {
            Self::Stall(stall) => write!(f, " ({stall:?})"),
            Self::Inside(site) | Self::Assertion(Some(site)) => write!(f, " ({site})"),
            Self::Promise(_) | Self::Invariant(_) | Self::Assertion(None) | Self::Invalid => Ok(()),
        }
    }
}

/// What must hold inside after every event, and has a name in the literature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// What counts as committed is on the disks of a majority.
    CommittedOnMajority,
    /// One leader a term.
    ElectionSafety,
    /// The same entry at the same committed place.
    LogMatching,
    /// The same state after the same entry.
    StateMachineSafety,
}

impl Invariant {
    /// With which what it finds begins.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CommittedOnMajority => "committed on a majority",
            Self::ElectionSafety => "election safety",
            Self::LogMatching => "log matching",
            Self::StateMachineSafety => "state machine safety",
        }
    }
}

/// What a run waits for in vain after everything healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stall {
    /// A member that was removed is told so.
    RemovedUntold,
    /// A node serves a write.
    Write,
    /// A node serves a read.
    Read,
    /// A node is up.
    NodeDown,
    /// The apply stage has done its work.
    Work,
    /// What is left of a range that has ceased is gone.
    Remains,
    /// A node has reported what it applied.
    Unreported,
    /// A range is held by those the table names.
    Holders,
    /// A node shows everything.
    Hidden,
    /// An idle range sleeps.
    Awake,
    /// A range follows somebody who is there.
    Leaderless,
    /// All replicas of a range follow the same leader.
    Disagreement,
    /// All nodes stand at the same entry.
    Positions,
    /// A watcher has seen everything.
    WatcherBehind,
    /// Everything on a stream has arrived.
    Stream,
}

/// A line of the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    file: String,
    line: u32,
}

impl From<&Location<'_>> for Site {
    fn from(location: &Location<'_>) -> Self {
        Self { file: location.file().to_owned(), line: location.line() }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

thread_local! {
    static PANICKED_AT: RefCell<Option<Site>> = const { RefCell::new(None) };
}

/// From now on a panic says nothing, and where it was is noted for the finding that it becomes.
pub fn note_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANICKED_AT.set(info.location().map(Site::from));
    }));
}

/// Where the last panic of this thread was, if that is known.
pub(super) fn take_panic_site() -> Option<Site> {
    PANICKED_AT.take()
}
