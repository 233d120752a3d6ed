//! The spine's log, folded to its end.

use std::collections::BTreeMap;

use prost::Message;

use super::log::Log;
use crate::GroupId;
use crate::command::RequestId;
use crate::group::{Change, EntryKind};
use crate::proto::internal::{
    ConfState, MemberChange, Run, Share, SpineEntry, member_change::Kind, record::Body,
};
use crate::range::stored::Stored;
use crate::spine::State;
use crate::spine::state::Verdict;
use crate::view::{Batch, ViewError};

/// What this member knows of the order.
pub(super) struct Order {
    /// At the end of its log.
    pub(super) state: State,
    /// The revision up to which it knew the order to be committed.
    pub(super) sure: i64,
    /// How writes of ranges were numbered, as far as it is still known.
    pub(super) runs: BTreeMap<GroupId, Vec<Run>>,
    /// What transactions over several ranges did to each, with their revisions, likewise.
    pub(super) shares: BTreeMap<GroupId, BTreeMap<RequestId, (i64, Share)>>,
    /// Ranges that were split off range 0 after the state that is stored.
    pub(super) begun: BTreeMap<GroupId, Stored>,
}

impl Order {
    /// From the stored state on.
    ///
    /// # Errors
    /// An entry cannot be read.
    pub(super) fn fold(state: State, log: &Log) -> Result<Self, ViewError> {
        let (mut runs, mut shares) = (BTreeMap::new(), BTreeMap::new());
        for (range, known) in state.ranges().iter() {
            runs.insert(range, known.runs().to_vec());
            let open = state.txns().open(range).filter_map(|(id, _)| {
                let (revision, share) = state.txns().share(range, id)?;
                Some((id, (revision, share.clone())))
            });
            shares.insert(range, open.collect());
        }
        let sure = state.position().revision;
        let mut order = Self { state, sure, runs, shares, begun: BTreeMap::new() };
        for (entry, changed) in &log.entries {
            order.state.enter(entry.index, entry.term);
            match (entry.kind, changed) {
                (EntryKind::Normal, _) => order.fold_records(&entry.data, entry.index)?,
                (EntryKind::Change, Some((change, conf))) => {
                    order.fold_change(&entry.context, change.as_ref(), conf.clone());
                }
                (EntryKind::Change, None) => unreachable!("a change is announced before its entry"),
            }
            if entry.index <= log.sure {
                order.sure = order.state.position().revision;
            }
        }
        Ok(order)
    }

    fn fold_records(&mut self, data: &bytes::Bytes, index: u64) -> Result<(), ViewError> {
        let content = SpineEntry::decode(data.clone())
            .map_err(|error| ViewError(format!("entry {index} of the order: {error}")))?;
        for record in content.records {
            let id = RequestId { origin: record.origin, n: record.n };
            match (self.state.fold(&record, &mut Batch::default()), record.body) {
                (Verdict::Assigned(assigned), _) => {
                    for (range, run) in assigned {
                        self.runs.entry(range).or_default().push(run);
                    }
                }
                (Verdict::Committed(revision), Some(Body::TxnCommit(commit))) => {
                    self.follow_commit(id, revision, commit.split.map(|split| split.key));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn follow_commit(&mut self, id: RequestId, revision: i64, cut: Option<bytes::Bytes>) {
        let ranges = self.state.ranges();
        for (range, _) in ranges.iter() {
            if let Some((_, share)) = self.state.txns().share(range, id) {
                let share = (revision, share.clone());
                self.shares.entry(range).or_default().insert(id, share);
            }
        }
        let Some(child) = cut.map(|key| ranges.owner(&key)) else { return };
        let Some(born) = ranges.get(child).filter(|born| born.parent == GroupId::SPINE) else {
            return;
        };
        let ids = |are_learners: bool| {
            let members = self.state.members().values();
            members.filter(|it| it.is_learner == are_learners).map(|it| it.id).collect()
        };
        let (voters, learners) = (ids(false), ids(true));
        let conf = ConfState { voters, learners, ..ConfState::default() };
        self.begun.insert(child, Stored::first(conf, born.span.clone()));
    }

    fn fold_change(&mut self, context: &bytes::Bytes, change: Option<&Change>, conf: ConfState) {
        let mut member = MemberChange::decode(context.clone()).unwrap_or_default();
        if change.is_none_or(|change| change.steps.is_empty()) {
            member.kind = Kind::None.into();
        }
        self.state.fold_change(&member, conf, &mut Batch::default());
    }
}
