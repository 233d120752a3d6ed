//! What does not fit, and where: a line for each.

use std::fmt;

use bytes::Bytes;

use crate::GroupId;
use crate::mvcc::layout;
use crate::view::Column;

/// Findings that are listed; further ones are counted.
pub const FINDINGS_MAX: usize = 1_000;

/// What does not fit, in one word that an operator can look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Rows that the others are judged by cannot be read.
    Unreadable,
    /// A row is not what its column has, or its parts contradict each other.
    Malformed,
    /// A row tells of an event that is not there.
    EventMissing,
    /// Two rows tell different things of the same event.
    EventDiffers,
    /// A row tells of a key that is not there.
    KeyMissing,
    /// A key stands still at an older event than its newest.
    KeyStale,
    /// A superseded event is not in the history of its key.
    HistoryMissing,
    /// Version, or revision of creation, does not continue what was before.
    Version,
    /// A revision is missing (I1).
    Gap,
    /// A revision that nobody can have given yet (I10).
    Ahead,
    /// What is compacted is still there.
    Compaction,
    /// A lease and the keys attached to it do not agree.
    Lease,
    /// A key has two owners here, or none (I9).
    Owner,
    /// Where a state stands makes no sense by itself.
    Position,
    /// A state does not stand where its log says.
    Covered,
    /// A log has a gap, or an entry that means nothing.
    LogEntry,
    /// Members and consensus do not agree.
    Members,
    /// Users and roles do not agree.
    Users,
    /// The table of ranges contradicts itself.
    Table,
    /// How the writes of a range were numbered has a gap, or goes back (I3).
    Numbers,
}

impl Kind {
    /// As in docs/verify.md.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Malformed => "malformed",
            Self::EventMissing => "event-missing",
            Self::EventDiffers => "event-differs",
            Self::KeyMissing => "key-missing",
            Self::KeyStale => "key-stale",
            Self::HistoryMissing => "history-missing",
            Self::Version => "version",
            Self::Gap => "revision-gap",
            Self::Ahead => "revision-ahead",
            Self::Compaction => "compaction",
            Self::Lease => "lease",
            Self::Owner => "owner",
            Self::Position => "position",
            Self::Covered => "covered",
            Self::LogEntry => "log-entry",
            Self::Members => "members",
            Self::Users => "users",
            Self::Table => "table",
            Self::Numbers => "numbers",
        }
    }
}

/// Where something does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// No single row.
    Store,
    /// The state of a group, or its log.
    Group(GroupId),
    /// A row, by its key.
    Row(Column, Bytes),
}

/// Something that cannot have come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of which kind it is.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// What is wrong there.
    pub text: String,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of looking, `FINDINGS_MAX` at most.
    pub findings: Vec<Finding>,
    /// Further ones.
    pub unlisted_count: u64,
    /// What is no damage, and worth knowing.
    pub notes: Vec<String>,
    /// Rows of each column, in the order of `Column::ALL`.
    pub rows_count: [u64; Column::ALL.len()],
    /// Groups with a state or a log here.
    pub groups_count: u64,
    /// Entries of all logs.
    pub entries_count: u64,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.unlisted_count == 0
    }

    pub(super) fn find(&mut self, kind: Kind, place: Place, text: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, place, text: text.into() });
        } else {
            self.unlisted_count += 1;
        }
    }

    pub(super) fn group(&mut self, kind: Kind, group: GroupId, text: impl Into<String>) {
        self.find(kind, Place::Group(group), text);
    }

    pub(super) fn row(&mut self, kind: Kind, column: Column, key: &[u8], text: impl Into<String>) {
        self.find(kind, Place::Row(column, Bytes::copy_from_slice(key)), text);
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        if self.notes.len() < FINDINGS_MAX {
            self.notes.push(text.into());
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind.name())?;
        match &self.place {
            Place::Store => write!(f, "store: {}", self.text),
            Place::Group(group) => write!(f, "group {group}: {}", self.text),
            Place::Row(column, key) => write!(f, "store, {}: {}", Row(*column, key), self.text),
        }
    }
}

/// A row's key in words.
struct Row<'a>(Column, &'a [u8]);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(column, row) = *self;
        match column {
            Column::Key => write!(f, "key \"{}\"", row.escape_ascii()),
            Column::Revision => match layout::Revision::decode(row) {
                Ok(revision) => write!(f, "revision {}.{}", revision.main, revision.sub),
                Err(_) => write!(f, "revision row {row:02x?}"),
            },
            Column::History => match layout::decode_history_key(row) {
                Ok((key, revision)) => {
                    let key = key.escape_ascii();
                    write!(f, "history of \"{key}\" at {}.{}", revision.main, revision.sub)
                }
                Err(_) => write!(f, "history row {row:02x?}"),
            },
            Column::LeaseKey => match layout::decode_lease_key(row) {
                Ok((lease, key)) => write!(f, "lease {lease:x} of \"{}\"", key.escape_ascii()),
                Err(_) => write!(f, "lease row {row:02x?}"),
            },
            Column::Meta => write!(f, "meta row {row:02x?}"),
        }
    }
}
