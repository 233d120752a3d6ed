//! What is said of a recovery before it is carried out: what is here, and what may be lost.

use std::fmt;

use crate::proto::Span;
use crate::proto::internal::Member;
use crate::{GroupId, NodeId};

/// Stretches of revisions that are named for one range; of further ones only how many there are is told.
const STRETCHES_MAX: usize = 64;

/// What is here of one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeReport {
    /// Which.
    pub range: GroupId,
    /// Its keys.
    pub span: Span,
    /// There is no replica of it here. It begins anew, without a key.
    pub is_lost: bool,
    /// Revisions whose writes in this range are not here, as stretches from the first to the last.
    pub missing: Vec<(i64, i64)>,
    /// Writes that are not here, and of which nobody here knows the revision.
    pub missing_unnumbered: u64,
    /// Writes that are here, and have no effect as nobody here knows their revision.
    pub dropped_unnumbered: u64,
    /// Writes that are here and that the order, as far as it is here, does not know of: they are
    /// numbered when the node starts.
    pub not_in_order: u64,
    /// Transactions over several ranges whose locks here are missing. What they put is kept.
    pub transactions_missing: u64,
    /// What these would have deleted, and is not.
    pub deletes_dropped: usize,
    /// The first revision of which something is not here, if one is known.
    pub first_lacking: Option<i64>,
}

impl RangeReport {
    /// Nothing is missing.
    pub fn new(range: GroupId, span: Span) -> Self {
        Self { range, span, ..Self::default() }
    }

    /// Revisions come in order.
    pub(super) fn miss(&mut self, revision: i64) {
        self.lack(revision);
        match self.missing.last_mut() {
            Some((_, last)) if *last + 1 == revision => *last = revision,
            _ => self.missing.push((revision, revision)),
        }
    }

    pub(super) fn lack(&mut self, revision: i64) {
        self.first_lacking = Some(self.first_lacking.map_or(revision, |first| first.min(revision)));
    }

    /// Whether everything that the order here knows of is here.
    pub fn is_whole(&self) -> bool {
        self.first_lacking.is_none() && !self.lacks_unknown()
    }

    /// Whether something is not here of which the revision is not known.
    fn lacks_unknown(&self) -> bool {
        self.is_lost || self.missing_unnumbered + self.dropped_unnumbered > 0
    }
}

/// What is here of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The member whose data this is.
    pub node: NodeId,
    /// Its cluster.
    pub cluster_id: u64,
    /// The other members, which will have been removed.
    pub removed: Vec<Member>,
    /// The order was known to be committed up to this revision.
    pub sure: i64,
    /// It is here up to this one.
    pub newest: i64,
    /// Of each range but range 0, which is the order itself.
    pub ranges: Vec<RangeReport>,
}

impl Report {
    /// Everything up to this revision is here and was committed. 0 if that cannot be told.
    pub fn complete(&self) -> i64 {
        let complete = self.ranges.iter().map(|range| match range.first_lacking {
            _ if range.lacks_unknown() => 0,
            Some(first) => first - 1,
            None => self.sure,
        });
        complete.fold(self.sure, i64::min)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, cluster_id, sure, newest, .. } = self;
        writeln!(f, "member {node} of cluster {cluster_id:x} is to be alone")?;
        for member in &self.removed {
            let urls = member.peer_urls.join(",");
            writeln!(f, "removed for good: member {:x} {} {urls}", member.id, member.name)?;
        }
        match self.complete() {
            0 => writeln!(f, "surely here: see the ranges below")?,
            complete => writeln!(f, "surely here: everything up to revision {complete}")?,
        }
        if newest > sure {
            writeln!(
                f,
                "kept: revisions {} to {newest} are in the log of this member, which does not know \
                 whether they were committed",
                sure + 1
            )?;
        }
        for range in &self.ranges {
            write!(f, "{range}")?;
        }
        writeln!(
            f,
            "may be lost: what other members acknowledged after revision {newest}, of which nothing is \
             known here"
        )
    }
}

impl fmt::Display for RangeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(self.range, &self.span);
        if self.is_lost {
            writeln!(f, "lost: {name} has no replica here; it will begin anew, without a key")?;
        }
        let listed = self.missing.iter().take(STRETCHES_MAX);
        for (first, last) in listed {
            writeln!(f, "missing: revisions {first} to {last} of {name}")?;
        }
        if let Some(more) = self.missing.len().checked_sub(STRETCHES_MAX + 1) {
            let more = more + 1;
            writeln!(f, "missing: {more} more stretches of revisions of {name}")?;
        }
        let counts = [
            (self.missing_unnumbered, "missing", "writes, whose revisions are not known here"),
            (self.dropped_unnumbered, "dropped", "writes here, as nobody knows their revisions"),
            (
                self.transactions_missing,
                "kept in part",
                "transactions, of which nothing is deleted",
            ),
            (self.deletes_dropped as u64, "dropped", "deletes of such transactions"),
            (self.not_in_order, "kept", "writes here, which have no revision yet"),
        ];
        for (count, word, what) in counts.iter().filter(|(count, ..)| *count > 0) {
            writeln!(f, "{word}: {count} {what}, of {name}")?;
        }
        Ok(())
    }
}

/// A range and its keys, for people.
pub(super) fn name(range: GroupId, span: &Span) -> String {
    let from = span.start.escape_ascii();
    match &span.end {
        Some(end) => {
            format!("range {range} (keys from \"{from}\" to before \"{}\")", end.escape_ascii())
        }
        None => format!("range {range} (keys from \"{from}\" on)"),
    }
}
