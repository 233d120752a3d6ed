//! A store of which some keys are read elsewhere.

use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use crate::memory::MemoryView;
use crate::mvcc::layout::{self, RecordHead};
use crate::proto::Span;
use crate::proto::internal::SnapshotRow;
use crate::view::{Batch, Column, View, ViewError, Visit};

/// The rows of some spans come from elsewhere, and what the store has of them does not count.
pub struct Overlay<'a> {
    local: &'a dyn View,
    foreign: Vec<Span>,
    rows: MemoryView,
}

impl<'a> Overlay<'a> {
    /// Over a store that does not show these spans.
    pub fn new(local: &'a dyn View, foreign: Vec<Span>) -> Self {
        Self { local, foreign, rows: MemoryView::new() }
    }

    /// Adds rows of those spans. What was fetched before may be of an older state, in which another
    /// record of a key was the newest: the older one of the two is history, as in a store.
    ///
    /// # Errors
    /// A row is damaged.
    pub fn add(&mut self, rows: Vec<SnapshotRow>) -> Result<(), ViewError> {
        for row in rows {
            let SnapshotRow { key, value, .. } = row;
            let mut batch = Batch::default();
            match Column::from_number(row.column) {
                None | Some(Column::Meta) => {}
                Some(Column::Key) => self.add_newest(key, value, &mut batch)?,
                Some(column) => batch.put(column, key, value),
            }
            self.rows.apply(&batch);
        }
        Ok(())
    }

    fn add_newest(&self, key: Bytes, value: Bytes, batch: &mut Batch) -> Result<(), ViewError> {
        let revision = RecordHead::decode(&value)?.revision;
        let Some(known) = self.rows.get(Column::Key, &key)? else {
            batch.put(Column::Key, key, value);
            return Ok(());
        };
        let known_revision = RecordHead::decode(&known)?.revision;
        if known_revision < revision {
            supersede(&key, known, batch)?;
            batch.put(Column::Key, key, value);
        } else if revision < known_revision {
            supersede(&key, value, batch)?;
        }
        Ok(())
    }

    fn is_foreign(&self, column: Column, key: &[u8], value: &[u8]) -> Result<bool, ViewError> {
        let key = layout::key_of(column, key, value)?;
        Ok(key.is_some_and(|key| self.foreign.iter().any(|span| span.contains(&key))))
    }

    /// The rows from elsewhere between the bounds, in order.
    fn fetched(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Vec<(Bytes, Bytes)>, ViewError> {
        let mut rows = Vec::new();
        self.rows.scan(column, from, to, &mut |key, value| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }
}

/// A record that is not the newest of its key any more.
fn supersede(key: &[u8], record: Bytes, batch: &mut Batch) -> Result<(), ViewError> {
    let RecordHead { revision, is_tombstone, .. } = RecordHead::decode(&record)?;
    let mut row = BytesMut::with_capacity(layout::history_key_len(key));
    layout::encode_history_key(key, revision, &mut row);
    let kind = if is_tombstone { layout::HISTORY_TOMBSTONE } else { layout::HISTORY_PUT };
    batch.put(Column::History, row.freeze(), kind);
    batch.put(Column::Revision, Bytes::copy_from_slice(&revision.encode()), record);
    Ok(())
}

/// Shows those of `rows` that come before `key`, or all. Whether to go on.
fn show_before(
    rows: &mut Peekable<impl Iterator<Item = (Bytes, Bytes)>>,
    is_before: impl Fn(&[u8]) -> bool,
    visit: Visit<'_>,
) -> ControlFlow<()> {
    while let Some((key, value)) = rows.next_if(|(key, _)| is_before(key)) {
        visit(&key, &value)?;
    }
    ControlFlow::Continue(())
}

impl View for Overlay<'_> {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        if let Some(row) = self.rows.get(column, key)? {
            return Ok(Some(row));
        }
        let Some(row) = self.local.get(column, key)? else { return Ok(None) };
        Ok((!self.is_foreign(column, key, &row)?).then_some(row))
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        let mut fetched = self.fetched(column, from, to)?.into_iter().peekable();
        let (mut damage, mut is_over) = (None, false);
        self.local.scan(column, from, to, &mut |key, value| {
            match self.is_foreign(column, key, value) {
                Ok(true) => return ControlFlow::Continue(()),
                Ok(false) => {}
                Err(error) => {
                    damage = Some(error);
                    return ControlFlow::Break(());
                }
            }
            let flow = show_before(&mut fetched, |it| it < key, visit);
            let flow = if flow.is_continue() { visit(key, value) } else { flow };
            is_over = flow.is_break();
            flow
        })?;
        if damage.is_none() && !is_over {
            let _ = show_before(&mut fetched, |_| true, visit);
        }
        damage.map_or(Ok(()), Err)
    }

    fn scan_back(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        let mut fetched = self.fetched(column, from, to)?.into_iter().rev().peekable();
        let (mut damage, mut is_over) = (None, false);
        self.local.scan_back(column, from, to, &mut |key, value| {
            match self.is_foreign(column, key, value) {
                Ok(true) => return ControlFlow::Continue(()),
                Ok(false) => {}
                Err(error) => {
                    damage = Some(error);
                    return ControlFlow::Break(());
                }
            }
            let flow = show_before(&mut fetched, |it| it > key, visit);
            let flow = if flow.is_continue() { visit(key, value) } else { flow };
            is_over = flow.is_break();
            flow
        })?;
        if damage.is_none() && !is_over {
            let _ = show_before(&mut fetched, |_| true, visit);
        }
        damage.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::mvcc::{self, Applier, Head};
    use crate::proto::etcdserverpb as pb;
    use crate::proto::internal::{Ask, AskedRows, AskedSpan, Effect, ask::What};
    use crate::remote::{self, Gathering, Owners};
    use crate::txn::Job;

    const KEY: &[u8] = b"k";

    fn put(view: &mut MemoryView, revision: i64) {
        let put = Effect { key: Bytes::from_static(KEY), ..Effect::default() };
        let mut batch = Batch::default();
        Applier::new(view)
            .apply(revision, &[put], false, &mut batch, &mut Vec::new())
            .expect("memory");
        view.apply(&batch);
    }

    fn fetch(view: &MemoryView, head: i64, revision: i64) -> Vec<SnapshotRow> {
        let key = Bytes::from_static(KEY);
        let span = Some(AskedSpan { key, range_end: Bytes::new(), revision });
        let what = Some(What::Rows(AskedRows { span, ..AskedRows::default() }));
        let ask = Ask { revision: head, compact_revision: -1, what, ..Ask::default() };
        remote::answer(view, &ask).expect("memory").rows
    }

    /// A transaction reads a key now and in the past, which is asked for apart; between the two
    /// questions, in whichever order they come, the key is written.
    #[test]
    fn rows_that_were_fetched_at_different_times_fit_together() {
        let head = Head { revision: 6, compact_revision: -1 };
        for (first, second) in [(0, 3), (3, 0), (5, 3), (3, 5)] {
            let mut far = MemoryView::new();
            [2, 4, 6].into_iter().for_each(|revision| put(&mut far, revision));
            let before = fetch(&far, head.revision, first);
            put(&mut far, 8);
            let after = fetch(&far, head.revision, second);

            let local = MemoryView::new();
            let span = Span::from_request(Bytes::from_static(KEY), Bytes::new());
            let mut overlay = Overlay::new(&local, vec![span]);
            overlay.add(before).expect("memory");
            overlay.add(after).expect("memory");
            for asked in [first, second] {
                let key = Bytes::from_static(KEY);
                let request = pb::RangeRequest { key, revision: asked, ..Default::default() };
                let here = mvcc::read(&overlay, head, &request).expect("it can be read");
                let there = mvcc::read(&far, head, &request).expect("it can be read");
                assert_eq!(here, there, "at {asked}, fetched at {first} and then at {second}");
            }
        }
    }

    /// The values of what is deleted without being shown are not fetched, and it takes many pages.
    #[test]
    fn keys_are_deleted_without_their_values() {
        let mut far = MemoryView::new();
        let keys: Vec<Bytes> = (0..20).map(|n| Bytes::from(format!("key {n:02}"))).collect();
        for (revision, key) in (2..).zip(keys.iter().cycle().take(30)) {
            let value = Bytes::from(vec![b'v'; 1 << 10]);
            let put = Effect { key: key.clone(), value, ..Effect::default() };
            let mut batch = Batch::default();
            Applier::new(&far)
                .apply(revision, &[put], false, &mut batch, &mut Vec::new())
                .expect("memory");
            far.apply(&batch);
        }
        let head = Head { revision: 31, compact_revision: -1 };
        for prev_kv in [false, true] {
            let range_end = Bytes::from_static(b"\0");
            let key = Bytes::from_static(b"key");
            let delete = pb::DeleteRangeRequest { key, range_end, prev_kv };
            let command = Command::DeleteRange(delete);
            let mut gathering = Gathering::of_job(&Job::Change(command.clone()));
            let (mut asked_count, mut bytes) = (0, 0);
            while let Some((_, mut rows)) = gathering.next(&Owners::default(), |_| false) {
                rows.bytes_max = 40;
                let what = Some(What::Rows(rows));
                let (revision, compact_revision) = (head.revision, head.compact_revision);
                let ask = Ask { revision, compact_revision, what, ..Ask::default() };
                let told = remote::answer(&far, &ask).expect("memory");
                asked_count += 1;
                let is_beyond = |row: &SnapshotRow| {
                    let column = Column::from_number(row.column).expect("it is one");
                    let key = layout::key_of(column, &row.key, &row.value).expect("it is sound");
                    !told.next.is_empty() && key.is_some_and(|key| *key >= *told.next)
                };
                assert!(!told.rows.iter().any(is_beyond), "a page holds no key of the next");
                bytes += told.rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
                gathering.take(told.rows, told.next).expect("it is little");
            }
            assert!(asked_count > 5, "{asked_count} pages");
            assert_eq!(bytes > 20 << 10, prev_kv, "{bytes} bytes");

            let local = MemoryView::new();
            let over = gathering.over(&local).expect("memory");
            let [here, there] = [&over as &dyn View, &far].map(|view| {
                mvcc::evaluate_newest(view, head, &mvcc::FoldDecides, &command).expect("memory")
            });
            assert_eq!(here, there, "prev_kv: {prev_kv}");
        }
    }
}
