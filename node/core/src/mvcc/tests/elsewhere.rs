//! Reads of a store that shows some ranges only, with the help of one that shows them all.

use super::chance::Chance;
use super::*;
use crate::image::bolt::{HEAD_BYTES, Writer};
use crate::image::{self, Change, schema};
use crate::mvcc::layout::{self, Record};
use crate::mvcc::{Below, HashKv, kept_page};
use crate::proto::Span;
use crate::proto::internal::{Ask, ask::What};
use crate::remote::{
    self, Assembly, Attached, Backup, Gathering, Overlay, Owners, Reading, Wanted,
};
use crate::spine::Shown;
use crate::spine::ranges::{Range, Ranges};
use crate::view::Column;
use crate::watch::BlockRequest;
use crate::{GroupId, LeaseId, NodeId};

/// A node that shows some ranges, and has of the others what they were once.
#[derive(Debug)]
pub(super) struct Elsewhere {
    owners: Owners,
    lacking: BTreeSet<GroupId>,
    local: MemoryView,
    other: MemoryView,
    /// Questions put to the node that shows all.
    pub(super) asked: usize,
}

impl Elsewhere {
    pub(super) fn new(
        chance: &mut Chance,
        keys: &[&'static [u8]],
        once: &MemoryView,
        now: &MemoryView,
    ) -> Self {
        let mut ranges = Ranges::default();
        let cuts: BTreeSet<&[u8]> = keys.iter().copied().filter(|_| chance.one_in(3)).collect();
        let cuts: Vec<&[u8]> = cuts.into_iter().collect();
        let mut lacking = BTreeSet::new();
        for (at, start) in cuts.iter().enumerate() {
            let id = GroupId(at as u64 + 1);
            let end = cuts.get(at + 1).map(|end| Bytes::from_static(end));
            let span = Span { start: Bytes::from_static(start), end };
            // Between two ranges there may be keys of range 0.
            if !chance.one_in(4) {
                ranges.insert(id, Range::new(span, vec![NodeId(1)]));
            }
            if chance.one_in(2) {
                lacking.insert(id);
            }
        }
        if chance.one_in(4) {
            lacking.insert(GroupId::SPINE);
        }
        let local = mixed(once, now, |key| lacking.contains(&ranges.owner(key)));
        let owners = Owners::new(&ranges);
        Self { owners, lacking, local, other: now.clone(), asked: 0 }
    }

    pub(super) fn read(
        &mut self,
        chance: &mut Chance,
        head: Head,
        request: &pb::RangeRequest,
    ) -> Result<pb::RangeResponse, Failure> {
        let (mut begun, mut cursor) = (Vec::new(), None);
        // The node showed everything when the read began.
        if chance.one_in(3) && is_encodable(request) {
            let page = read_page(&self.other, head, request, None, chance.below(80))?;
            let Some(next) = page.next else { return Ok(page.answer) };
            (begun, cursor) = (page.answer.kvs, Some(next));
        }
        let shown = Shown { index: 0, head };
        let mut reading = Reading::resume(shown, request.clone(), cursor)?;
        while let Some((range, read)) = reading.next(&self.owners) {
            let is_here = !self.lacking.contains(&range);
            self.asked += usize::from(!is_here);
            let view = if is_here { &self.local } else { &self.other };
            let page = read_page(view, head, &read, None, chance.below(80))?;
            let next = page.next.map(|cursor| cursor.start().clone());
            reading.take(&read, page.answer, next);
        }
        let mut answer = reading.finish();
        answer.kvs.splice(..0, begun);
        Ok(answer)
    }

    /// The events of a span, block by block.
    pub(super) fn events(
        &mut self,
        chance: &mut Chance,
        head: Head,
        span: &Span,
        (from, to): (i64, i64),
        (wants_prev, limits): (bool, ReplayLimits),
    ) -> Vec<Event> {
        let (mut events, mut next) = (Vec::new(), from);
        while next <= to {
            let request = BlockRequest::of(span.clone(), next, to, wants_prev, limits);
            let mut assembly = Assembly::new(request);
            let mut pieces = Vec::new();
            while !assembly.is_complete() {
                if !chance.one_in(3)
                    && let Some(piece) = assembly.next(&self.owners)
                {
                    pieces.push(piece);
                    continue;
                }
                let Some((range, asked)) = pieces.pop() else { continue };
                if !self.lacking.contains(&range) {
                    let page = client(remote::changes(&self.local, &asked)).unwrap();
                    assembly.take(&asked, page);
                    continue;
                }
                self.asked += 1;
                let what = Some(What::Changes(asked.clone()));
                let ask = Ask { revision: head.revision, what, ..Ask::default() };
                let told = remote::answer(&self.other, &ask).unwrap();
                assert!(assembly.take_told(&asked, client(remote::outcome(told)).unwrap()));
            }
            let block = assembly.finish();
            assert!(block.through >= next && block.through <= to);
            assert!(block.events.iter().all(|event| event.revision <= block.through));
            events.extend(block.events);
            next = block.through + 1;
        }
        events
    }

    pub(super) fn lease_keys(&mut self, head: Head, lease: LeaseId) -> Vec<Bytes> {
        let mut attached = Attached::new(Shown { index: 0, head }, lease);
        while let Some((range, asked)) = attached.next(&self.owners) {
            let is_here = !self.lacking.contains(&range);
            self.asked += usize::from(!is_here);
            let view = if is_here { &self.local } else { &self.other };
            let rows = client(remote::attached(view, &asked)).unwrap();
            attached.take(&asked, &rows).unwrap();
        }
        attached.finish()
    }

    /// A node that shows everything.
    pub(super) fn nothing(now: &MemoryView) -> Self {
        let (owners, lacking) = (Owners::default(), BTreeSet::new());
        Self { owners, lacking, local: now.clone(), other: now.clone(), asked: 0 }
    }

    /// The keys that are not here, with some that were one range a moment ago.
    fn spans_elsewhere(&self, chance: &mut Chance) -> Vec<Span> {
        let mut elsewhere: Vec<Span> = Vec::new();
        for (range, span) in self.owners.pieces() {
            if !self.lacking.contains(&range) {
                continue;
            }
            match elsewhere.last_mut() {
                Some(last) if last.end.as_ref() == Some(&span.start) && chance.one_in(2) => {
                    last.end = span.end;
                }
                _ => elsewhere.push(span),
            }
        }
        elsewhere
    }

    /// A backup at a revision.
    pub(super) fn back_up(&mut self, chance: &mut Chance, head: Head) -> Vec<u8> {
        let elsewhere = self.spans_elsewhere(chance);
        let mut facts = image::Facts {
            compacted: head.compact_revision,
            compact_revision: head.compact_revision,
            leases: Default::default(),
            auth: Default::default(),
            alarms: Default::default(),
        };
        let origin = schema::Origin::default();
        let mut writer = Writer::default();
        schema::write_before(&facts, &origin, &mut writer);
        let compacted = (head.compact_revision, Below::Readable);
        let mut backup = Backup::new(head.revision, compacted, elsewhere);
        self.gather(chance, head, &mut backup, |record| {
            let (revision, is_delete) = (record.head.revision, record.head.is_tombstone);
            schema::write_change(&Change { revision, is_delete, kv: &record.kv }, &mut writer);
        });
        facts.compact_revision = backup.compact_revision();
        schema::write_after(&facts, &origin, &mut writer);
        let finished = writer.finish();
        let mut file = finished.head;
        assert_eq!(file.len(), HEAD_BYTES);
        file.extend(finished.tail);
        file
    }

    /// The hash of the history.
    pub(super) fn hash_kv(&mut self, chance: &mut Chance, head: Head) -> u32 {
        let any = pb::RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            limit: 1,
            ..pb::RangeRequest::default()
        };
        let has_keys = !client(self.read(chance, head, &any)).unwrap().kvs.is_empty();
        let newest_at = if has_keys { head.revision } else { head.compact_revision };
        let elsewhere = self.spans_elsewhere(chance);
        let compacted = (head.compact_revision, Below::Newest(newest_at));
        let mut backup = Backup::new(head.revision, compacted, elsewhere);
        let mut hash = HashKv::default();
        self.gather(chance, head, &mut backup, |record| hash.add(&record));
        hash.finish()
    }

    fn gather(
        &mut self,
        chance: &mut Chance,
        head: Head,
        backup: &mut Backup,
        mut take: impl FnMut(Record),
    ) {
        let is_lacking = |range: &GroupId| self.lacking.contains(range);
        loop {
            while let Some(record) = backup.pop() {
                take(record);
            }
            let page = match backup.wanted(&self.owners) {
                None => break,
                Some(Wanted::Here { from, mut limits }) => {
                    limits.events_max = chance.below(6);
                    limits.rows_max = chance.below(9);
                    let is_here = |key: &[u8]| {
                        let key = Span::from_request(Bytes::copy_from_slice(key), Bytes::new());
                        !self.lacking.contains(&self.owners.first_piece(&key).0)
                    };
                    let compacted = (head.compact_revision, backup.below());
                    kept_page(&self.local, &is_here, from, head.revision, compacted, limits)
                }
                Some(Wanted::Elsewhere(range, mut asked)) => {
                    assert!(is_lacking(&range));
                    self.asked += 1;
                    asked.changes_max = chance.below(5) as u32;
                    asked.rows_max = chance.below(9) as u32;
                    let ask = Ask {
                        revision: head.revision,
                        compact_revision: head.compact_revision,
                        what: Some(What::Changes(asked.clone())),
                        ..Ask::default()
                    };
                    let told = remote::answer(&self.other, &ask).unwrap();
                    Ok(remote::told_backup(&asked, remote::outcome(told).unwrap()).unwrap())
                }
            };
            backup.take(client(page).unwrap());
        }
    }

    pub(super) fn read_txn(
        &mut self,
        head: Head,
        request: &pb::TxnRequest,
    ) -> Result<pb::TxnResponse, Failure> {
        let is_here = |range| !self.lacking.contains(&range);
        let mut gathering = Gathering::new(request);
        while let Some((range, mut rows)) = gathering.next(&self.owners, is_here) {
            // From a page for each key to one for all.
            rows.bytes_max = [1, 60, 0][self.asked % 3];
            self.asked += 1;
            let ask = Ask {
                range: range.0,
                revision: head.revision,
                compact_revision: head.compact_revision,
                what: Some(What::Rows(rows)),
                ..Ask::default()
            };
            let told = remote::answer(&self.other, &ask).map_err(Failure::View)?;
            let told = remote::outcome(told)?;
            gathering.take(told.rows, told.next)?;
        }
        assert!(gathering.is_still_here(&self.owners, is_here));
        let overlay: Overlay<'_> = gathering.over(&self.local)?;
        read_txn(&overlay, head, request)
    }
}

/// The rows of one store for some keys, and of another for the others.
fn mixed(once: &MemoryView, now: &MemoryView, is_of_once: impl Fn(&[u8]) -> bool) -> MemoryView {
    let mut batch = Batch::default();
    for column in Column::ALL {
        for (view, is_once) in [(once, true), (now, false)] {
            for (row, value) in view.rows(column) {
                let key = layout::key_of(column, row, value).unwrap();
                if key.map_or(!is_once, |key| is_of_once(&key) == is_once) {
                    batch.put(column, row.clone(), value.clone());
                }
            }
        }
    }
    let mut view = MemoryView::new();
    view.apply(&batch);
    view
}
