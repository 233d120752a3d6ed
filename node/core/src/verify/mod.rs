//! Whether what a node has on its disks can have come about: the rows of the store among each other,
//! and beside what the log remembers. For `flotilla verify`, and for the simulator after every crash.
//!
//! What any crash can leave is right. Replicas of ranges may lag behind the spine's state here or be
//! ahead of it, so what only the cluster as a whole can know is not asked. Knows nothing of files and
//! checksums; changes nothing.

mod finding;
mod held;
mod logs;
mod rows;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::GroupId;
use crate::group::Recovered;
use crate::mvcc::layout::CompactionCursor;
use crate::range::stored::{self, Stored};
use crate::spine::State;
use crate::view::{View, ViewError};

pub use finding::{FINDINGS_MAX, Finding, Kind, Place, Report};
use held::Held;

/// Checks the rows of a store, and the logs of all groups that a node remembers, if it can be told what
/// it does. Each log is as it was found, without the place where the store stands.
pub fn verify(view: &dyn View, logs: Option<&BTreeMap<GroupId, Recovered>>) -> Report {
    let mut report = Report::default();
    match Known::load(view, logs) {
        Ok(known) => {
            table::check(&known, view, &mut report);
            if let Some(logs) = logs {
                logs::check(&known, logs, &mut report);
            }
            rows::check(&known, view, &mut report);
        }
        // What the rows mean depends on it.
        Err(error) => report.find(Kind::Unreadable, Place::Store, error.0),
    }
    report
}

/// What the rows are compared with.
struct Known {
    /// `None`: the node has not joined yet.
    state: Option<State>,
    /// Replicas of ranges.
    stored: BTreeMap<GroupId, Stored>,
    held: Held,
    cursor: CompactionCursor,
    /// The newest revision that the spine's state and log can have given, if its log is known.
    given: Option<i64>,
    /// By range: the highest revision that its own log names, if all of its log is there.
    named: BTreeMap<GroupId, i64>,
}

impl Known {
    fn load(
        view: &dyn View,
        logs: Option<&BTreeMap<GroupId, Recovered>>,
    ) -> Result<Self, ViewError> {
        let state = State::load(view)?;
        let mut stored = BTreeMap::new();
        for range in stored::ids(view)? {
            stored.extend(Stored::load(view, range)?.map(|it| (range, it)));
        }
        stored::ended_ids(view)?;
        let left = stored::left(view)?.into_iter().map(|(_, span)| span).collect();
        let held = Held::new(state.as_ref(), &stored, left);
        let cursor = CompactionCursor::load(view)?;
        let named = logs.map(|logs| logs::named(&stored, logs)).unwrap_or_default();
        let spine_log =
            logs.and_then(|logs| logs.get(&GroupId::SPINE)).cloned().unwrap_or_default();
        let known = state.as_ref().filter(|_| logs.is_some());
        let given = known.map(|state| logs::given(state, &spine_log));
        Ok(Self { state, stored, held, cursor, given, named })
    }

    /// The highest revision that a row of a group may have; `None` if it cannot be told.
    fn revision_max(&self, group: GroupId) -> Option<i64> {
        let state = self.state.as_ref()?;
        if group == GroupId::SPINE {
            return Some(state.position().revision);
        }
        // What it took over from another range may be from beyond what is known here.
        let is_on_its_own = self.stored.get(&group)?.generation == 1
            && state.ranges().get(group)?.parent == GroupId::SPINE;
        let named = self.named.get(&group).filter(|_| is_on_its_own)?;
        Some(self.given?.max(*named))
    }
}
