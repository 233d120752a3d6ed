//! One range's log, followed to its end as a replica would join it; and what is written behind that so
//! that the range has a place for everything that the order has numbered in it.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::log::Log;
use super::report::RangeReport;
use crate::GroupId;
use crate::command::RequestId;
use crate::group::EntryKind;
use crate::proto::Span;
use crate::proto::internal::{
    Merge, Prepare, PreparedTxn, RangeEntry, RangeWrite, Resolve, Run, Share, Split, void::Reason,
};
use crate::range::numbering::Verdict;
use crate::range::run;
use crate::range::stored::{Position, Stored};
use crate::spine::txns;
use crate::view::ViewError;

/// Writes that one added entry stands for.
const WRITES_PER_ENTRY: u64 = 1_024;

/// What the order knows of a range.
pub(super) struct Known<'a> {
    /// Every write up to here has its number.
    pub(super) assigned: u64,
    /// A replica is told how they were numbered, from this one on.
    pub(super) tells_from: u64,
    /// How they were numbered, as far as it is still known here.
    pub(super) runs: &'a [Run],
    /// See `Order`.
    pub(super) shares: &'a BTreeMap<RequestId, (i64, Share)>,
}

/// Where a range stands at the end of its log here.
pub(super) struct Replay {
    /// As the store would have it.
    pub(super) stored: Stored,
    /// Ranges that are split off on the way.
    pub(super) begun: Vec<(GroupId, Stored)>,
    /// Ranges that are taken over on the way.
    pub(super) merged: Vec<Merge>,
    /// Sequence number up to which it is applied in the store.
    applied: u64,
}

impl Replay {
    /// Follows the log from the stored state on.
    ///
    /// # Errors
    /// An entry cannot be read.
    pub(super) fn follow(range: GroupId, stored: Stored, log: &Log) -> Result<Self, ViewError> {
        let applied = stored.position.seq;
        let mut replay = Self { stored, begun: Vec::new(), merged: Vec::new(), applied };
        for (entry, changed) in &log.entries {
            let data =
                if entry.kind == EntryKind::Normal { entry.data.clone() } else { <_>::default() };
            let index = entry.index;
            let content = RangeEntry::decode(data)
                .map_err(|error| ViewError(format!("entry {index} of range {range}: {error}")))?;
            replay.follow_entry(index, &content);
            let Position { seq, .. } = replay.stored.position;
            let seq = seq + content.writes.len() as u64;
            replay.stored.position = Position { index, term: entry.term, seq };
            if let Some((_, conf)) = changed {
                replay.stored.conf = conf.clone();
            }
        }
        Ok(replay)
    }

    fn follow_entry(&mut self, index: u64, content: &RangeEntry) {
        if let Some(last) = content.notes.last() {
            self.stored.noted = self.stored.noted.max(run::last(last));
        }
        for prepare in &content.prepares {
            self.stored.prepared.push(PreparedTxn { index, prepare: Some(prepare.clone()) });
        }
        for resolve in &content.resolves {
            let id = txns::id_of(resolve.id.as_ref());
            if self.unlock(id) {
                self.change_span(resolve.split.as_ref(), resolve.merge.as_ref());
            }
        }
    }

    /// Whether the transaction had locks here.
    fn unlock(&mut self, id: RequestId) -> bool {
        let before = self.stored.prepared.len();
        self.stored.prepared.retain(|it| id_of(it) != id);
        self.stored.prepared.len() < before
    }

    fn change_span(&mut self, split: Option<&Split>, merge: Option<&Merge>) {
        if let Some(split) = split {
            let start = split.key.clone();
            let end = self.stored.span.end.replace(start.clone());
            self.stored.generation += 1;
            let born = Stored::first(self.stored.conf.clone(), Span { start, end });
            self.begun.push((GroupId(split.child), born));
        }
        if let Some(merge) = merge {
            let start = self.stored.span.start.clone();
            self.stored.span.end = Span::from_request(start, merge.end.clone()).end;
            self.stored.generation += 1;
            self.merged.push(merge.clone());
        }
    }

    /// Writes behind the end of the log what the order knows and the log does not: what became of
    /// transactions, and an empty write for each that is missing, so that those to come have numbers of
    /// their own; and how all of them were numbered.
    pub(super) fn complete(&mut self, log: &mut Log, known: &Known<'_>, report: &mut RangeReport) {
        let Known { assigned, runs, shares, .. } = *known;
        self.resolve(log, shares, report);
        let verdicts = verdicts(runs);
        let last = self.stored.position.seq;
        let mut missing = last + 1..assigned.max(last) + 1;
        for seq in missing.clone() {
            match verdicts.get(&seq) {
                Some(Verdict::Numbered(revision)) => report.miss(*revision),
                Some(Verdict::Void(_)) => {}
                None => report.missing_unnumbered += 1,
            }
        }
        while !missing.is_empty() {
            let count = WRITES_PER_ENTRY.min(missing.end - missing.start);
            missing.start += count;
            let writes = (0..count).map(|_| RangeWrite::default()).collect();
            log.add(RangeEntry { writes, ..RangeEntry::default() }.encode_to_vec());
        }
        let is_told = last >= assigned && known.tells_from <= self.stored.noted + 1;
        if !is_told {
            self.note(log, assigned, &verdicts, report);
        }
        report.not_in_order = last.saturating_sub(assigned);
        self.stored.position.seq = last.max(assigned);
        let is_behind = |(_, share): &&(i64, Share)| share.prepared_at > self.stored.position.index;
        let prepared_at =
            shares.values().filter(is_behind).map(|(_, share)| share.prepared_at).max();
        // The order knows of an entry at this index: whoever has come there has it.
        while prepared_at.is_some_and(|index| log.last_index() < index) {
            log.add(RangeEntry::default().encode_to_vec());
        }
        self.stored.position.index = log.last_index();
    }

    /// By where their keys were locked: those that are in conflict are in this order.
    fn resolve(
        &mut self,
        log: &mut Log,
        shares: &BTreeMap<RequestId, (i64, Share)>,
        report: &mut RangeReport,
    ) {
        let here: BTreeSet<RequestId> = self.stored.prepared.iter().map(id_of).collect();
        let end = self.stored.position.index;
        let is_open = |id: &RequestId, share: &Share| here.contains(id) || share.prepared_at > end;
        let mut open: Vec<_> =
            shares.iter().filter(|(id, (_, share))| is_open(id, share)).collect();
        open.sort_by_key(|(id, (_, share))| (share.prepared_at, **id));
        for (id, (revision, share)) in open {
            let Share { mut effects, mut subs, split, merge, .. } = share.clone();
            let is_missing = !here.contains(id);
            if is_missing {
                // Whether what it deletes is here nobody can tell: writes before it are missing.
                let kept: Vec<bool> = effects.iter().map(|effect| !effect.is_delete).collect();
                report.transactions_missing += 1;
                if kept.contains(&false) {
                    report.lack(*revision);
                }
                report.deletes_dropped += kept.iter().filter(|is_kept| !**is_kept).count();
                subs = subs
                    .into_iter()
                    .zip(&kept)
                    .filter(|(_, it)| **it)
                    .map(|(sub, _)| sub)
                    .collect();
                effects.retain(|effect| !effect.is_delete);
            }
            let name = Some(txns::to_proto(*id));
            let prepare = Prepare { id: name, locks: Vec::new() };
            let prepares = if is_missing { vec![prepare] } else { Vec::new() };
            self.unlock(*id);
            self.change_span(split.as_ref(), merge.as_ref());
            let (id, revision) = (name, *revision);
            let resolves = vec![Resolve { id, revision, effects, subs, split, merge }];
            log.add(RangeEntry { prepares, resolves, ..RangeEntry::default() }.encode_to_vec());
        }
    }

    /// The log tells of everything that the order has numbered. Other members may have had a note that is
    /// missing here, of which the order was told; then nobody knows how those writes were numbered, and
    /// those that are here and not applied have no effect.
    fn note(
        &mut self,
        log: &mut Log,
        assigned: u64,
        verdicts: &BTreeMap<u64, Verdict>,
        report: &mut RangeReport,
    ) {
        let (noted, last) = (self.stored.noted, self.stored.position.seq);
        let mut seqs = noted + 1..assigned + 1;
        let is_dropped = |seq: &u64| *seq > self.applied && !verdicts.contains_key(seq);
        let dropped = seqs.clone().filter(|seq| *seq <= last).filter(is_dropped).count();
        report.dropped_unnumbered += dropped as u64;
        while !seqs.is_empty() {
            let count = WRITES_PER_ENTRY.min(seqs.end - seqs.start);
            let notes = runs_of(seqs.start..seqs.start + count, verdicts);
            seqs.start += count;
            log.add(RangeEntry { notes, ..RangeEntry::default() }.encode_to_vec());
        }
        self.stored.noted = self.stored.noted.max(assigned);
    }
}

fn id_of(prepared: &PreparedTxn) -> RequestId {
    txns::id_of(prepared.prepare.as_ref().and_then(|prepare| prepare.id.as_ref()))
}

/// By sequence number: what became of each write.
fn verdicts(runs: &[Run]) -> BTreeMap<u64, Verdict> {
    let mut verdicts = BTreeMap::new();
    for it in runs {
        let mut revision = it.revision;
        let mut voids = it.voids.iter().peekable();
        for seq in it.first..=run::last(it) {
            let verdict = match voids.next_if(|void| void.seq == seq) {
                Some(void) => Verdict::Void(void.reason()),
                None => {
                    revision += 1;
                    Verdict::Numbered(revision - 1)
                }
            };
            verdicts.insert(seq, verdict);
        }
    }
    verdicts
}

/// How these were numbered, as runs; what nobody knows is void.
fn runs_of(seqs: std::ops::Range<u64>, verdicts: &BTreeMap<u64, Verdict>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for seq in seqs {
        let verdict = verdicts.get(&seq).copied().unwrap_or(Verdict::Void(Reason::Lost));
        run::add(&mut runs, seq, verdict);
    }
    runs
}
