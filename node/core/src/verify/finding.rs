//! What does not fit, and where: a line for each.

use std::fmt;

use bytes::Bytes;

use crate::GroupId;
use crate::mvcc::layout;
use crate::view::Column;

/// Findings that are listed; further ones are counted.
pub const FINDINGS_MAX: usize = 1_000;

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

    pub(super) fn find(&mut self, place: Place, text: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { place, text: text.into() });
        } else {
            self.unlisted_count += 1;
        }
    }

    pub(super) fn group(&mut self, group: GroupId, text: impl Into<String>) {
        self.find(Place::Group(group), text);
    }

    pub(super) fn row(&mut self, column: Column, key: &[u8], text: impl Into<String>) {
        self.find(Place::Row(column, Bytes::copy_from_slice(key)), text);
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        if self.notes.len() < FINDINGS_MAX {
            self.notes.push(text.into());
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
