//! The rows of keys among each other, and beside where the groups stand that have them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};

use super::held::Holder;
use super::{Kind, Known, Place, Report};
use crate::mvcc::layout::{self, KeyValueFields, Record, RecordHead, Revision};
use crate::view::{Column, View, ViewError};
use crate::{GroupId, LeaseId, mvcc};

/// Why a row is not looked at further.
enum Wrong {
    /// It does not fit.
    Row(Kind, String),
    /// The store cannot be read.
    Store(ViewError),
}

type Checked = Result<(), Wrong>;

pub(super) fn check(known: &Known, view: &dyn View, report: &mut Report) {
    let mut order = Order::new(known);
    let rows = Rows { known, view, orphans: RefCell::default() };
    for column in Column::ALL {
        let mut count = 0;
        let scanned = view.scan(column, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            count += 1;
            let checked = match column {
                Column::Key => rows.key(key, value),
                Column::Revision => {
                    let follows = order.follows(key);
                    rows.revision(key, value).and(follows)
                }
                Column::History => rows.history(key, value),
                Column::LeaseKey => rows.lease(key, value),
                Column::Meta => Ok(()),
            };
            match checked {
                Ok(()) => ControlFlow::Continue(()),
                Err(Wrong::Row(kind, text)) => {
                    report.row(kind, column, key, text);
                    ControlFlow::Continue(())
                }
                Err(Wrong::Store(error)) => {
                    report.find(Kind::Unreadable, Place::Store, error.0);
                    ControlFlow::Break(())
                }
            }
        });
        report.rows_count[column as usize] = count;
        if let Err(error) = scanned {
            report.find(Kind::Unreadable, Place::Store, error.0);
        }
    }
    for (range, count) in rows.orphans.take() {
        report.note(format!(
            "{count} rows are of keys of range {range}, which has no replica here: its state has not \
             come yet"
        ));
    }
    if let Some(text) = order.missing_at_end() {
        report.find(Kind::Gap, Place::Store, text);
    }
}

fn wrong<T>(kind: Kind, text: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Row(kind, text.into()))
}

fn decoded<T>(result: Result<T, ViewError>) -> Result<T, Wrong> {
    result.map_err(|error| Wrong::Row(Kind::Malformed, error.0))
}

fn shown(revision: Revision) -> String {
    format!("{}.{}", revision.main, revision.sub)
}

struct Rows<'a> {
    known: &'a Known,
    view: &'a dyn View,
    /// Rows by the range that has no replica here.
    orphans: RefCell<BTreeMap<GroupId, u64>>,
}

impl Rows<'_> {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, Wrong> {
        self.view.get(column, key).map_err(Wrong::Store)
    }

    /// The newest record of a key: its event is there and says the same, and so is its attachment.
    fn key(&self, key: &[u8], value: &[u8]) -> Checked {
        let record = decoded(Record::decode(Bytes::copy_from_slice(value)))?;
        let fields = check_record(&record)?;
        if fields.key != key {
            let of = fields.key.escape_ascii();
            return wrong(Kind::Malformed, format!("its record is of \"{of}\""));
        }
        let Some(group) = self.holder(key)? else { return Ok(()) };
        let revision = record.head.revision;
        match self.get(Column::Revision, &revision.encode())? {
            None => {
                let text = format!("there is no event at its revision {}", shown(revision));
                return wrong(Kind::EventMissing, text);
            }
            Some(event) if event[..] != *value => {
                let text = format!("the event at its revision {} differs", shown(revision));
                return wrong(Kind::EventDiffers, text);
            }
            Some(_) => {}
        }
        if fields.lease == 0 {
            return Ok(());
        }
        if self.get(Column::LeaseKey, &mvcc::lease_row(LeaseId(fields.lease), key))?.is_none() {
            return wrong(Kind::Lease, format!("lease {:x} does not know it", fields.lease));
        }
        let leases = self.known.state.as_ref().map(crate::spine::State::leases);
        // In other ranges, it may have ended, or begun, where the spine's state here does not show it.
        let is_known = leases.is_none_or(|leases| leases.contains_key(&fields.lease));
        if group == GroupId::SPINE && !is_known {
            let text = format!("it is attached to lease {:x}, which is not there", fields.lease);
            return wrong(Kind::Lease, text);
        }
        Ok(())
    }

    /// An event: its key has it, nothing of it is compacted, and it continues what was before.
    fn revision(&self, row: &[u8], value: &[u8]) -> Checked {
        let revision = decoded(Revision::decode(row))?;
        let record = decoded(Record::decode(Bytes::copy_from_slice(value)))?;
        let fields = check_record(&record)?;
        let head = record.head;
        if head.revision != revision {
            let text = format!("its record is of revision {}", shown(head.revision));
            return wrong(Kind::Malformed, text);
        }
        let Some(group) = self.holder(fields.key)? else { return Ok(()) };
        if let Some(max) = self.known.revision_max(group)
            && revision.main > max
        {
            let text = format!("group {group}, which has its key, stands at revision {max} (I10)");
            return wrong(Kind::Ahead, text);
        }
        self.check_known(revision, &head, &fields)?;
        self.check_compacted(revision, &head)?;
        self.check_life(revision, &head, &fields)
    }

    /// Either it is the newest of its key, or the history has it.
    fn check_known(
        &self,
        revision: Revision,
        head: &RecordHead,
        of: &KeyValueFields<'_>,
    ) -> Checked {
        let key = of.key.escape_ascii();
        let Some(newest) = self.get(Column::Key, of.key)? else {
            return wrong(Kind::KeyMissing, format!("its key \"{key}\" is not there"));
        };
        let newest = decoded(RecordHead::decode(&newest))?;
        if newest.revision == revision {
            return Ok(());
        }
        if newest.revision < revision {
            let at = shown(newest.revision);
            return wrong(Kind::KeyStale, format!("its key \"{key}\" has stood still at {at}"));
        }
        let mut row = BytesMut::with_capacity(layout::history_key_len(of.key));
        layout::encode_history_key(of.key, revision, &mut row);
        match self.get(Column::History, &row)? {
            None => {
                let text = format!("the history of \"{key}\" does not have it");
                wrong(Kind::HistoryMissing, text)
            }
            Some(value) if decoded(layout::decode_history_value(&value))? != head.is_tombstone => {
                let text = format!("the history of \"{key}\" has another kind of event there");
                wrong(Kind::EventDiffers, text)
            }
            Some(_) => Ok(()),
        }
    }

    /// What compaction has passed keeps the newest record of each key, and no delete but at the
    /// compact revision itself.
    fn check_compacted(&self, revision: Revision, head: &RecordHead) -> Checked {
        let cursor = &self.known.cursor;
        if revision.main > cursor.finished {
            return Ok(());
        }
        let finished = cursor.finished;
        if head.is_tombstone && revision.main < finished {
            let text = format!("it is a delete, and {finished} is compacted");
            return wrong(Kind::Compaction, text);
        }
        if let Some(previous) = head.previous
            && self.get(Column::Revision, &previous.encode())?.is_some()
        {
            let previous = shown(previous);
            let text =
                format!("{previous}, which it supersedes, is there, and {finished} is compacted");
            return wrong(Kind::Compaction, text);
        }
        Ok(())
    }

    /// Numbers continue those of the record it superseded, which is there unless compaction may have
    /// taken it.
    fn check_life(
        &self,
        revision: Revision,
        head: &RecordHead,
        fields: &KeyValueFields<'_>,
    ) -> Checked {
        let Some(previous) = head.previous else {
            if head.is_tombstone {
                return wrong(Kind::Version, "it deletes what was not there");
            }
            let is_first = fields.version == 1 && fields.create_revision == revision.main;
            return if is_first {
                Ok(())
            } else {
                wrong(Kind::Version, "it supersedes nothing, and is not the first")
            };
        };
        let Some(before) = self.get(Column::Revision, &previous.encode())? else {
            if revision.main > self.known.cursor.target {
                let text = format!("{}, which it supersedes, is not there", shown(previous));
                return wrong(Kind::EventMissing, text);
            }
            return Ok(());
        };
        let before = decoded(Record::decode(before))?;
        let of_before = decoded(KeyValueFields::decode(&before.kv))?;
        if of_before.key != fields.key || before.head.is_tombstone {
            let text = format!("{}, which it supersedes, is another's", shown(previous));
            return wrong(Kind::EventDiffers, text);
        }
        let continues = fields.version == of_before.version + 1
            && fields.create_revision == of_before.create_revision;
        if !head.is_tombstone && !continues {
            let text = format!("its numbers do not continue those of {}", shown(previous));
            return wrong(Kind::Version, text);
        }
        Ok(())
    }

    /// A superseded record: its event is there, and its key is newer.
    fn history(&self, row: &[u8], value: &[u8]) -> Checked {
        let (key, revision) = decoded(layout::decode_history_key(row))?;
        let is_tombstone = decoded(layout::decode_history_value(value))?;
        if self.holder(&key)?.is_none() {
            return Ok(());
        }
        let Some(event) = self.get(Column::Revision, &revision.encode())? else {
            return wrong(Kind::EventMissing, "there is no event at its revision");
        };
        let record = decoded(Record::decode(event))?;
        let of = decoded(KeyValueFields::decode(&record.kv))?;
        if of.key != key || record.head.is_tombstone != is_tombstone {
            return wrong(Kind::EventDiffers, "the event at its revision is another's");
        }
        match self.get(Column::Key, &key)? {
            None => wrong(Kind::KeyMissing, "its key is not there"),
            Some(newest) if decoded(RecordHead::decode(&newest))?.revision <= revision => {
                wrong(Kind::KeyStale, "its key has no newer record")
            }
            Some(_) => Ok(()),
        }
    }

    /// An attached key is there, and attached.
    fn lease(&self, row: &[u8], value: &[u8]) -> Checked {
        let (lease, key) = decoded(layout::decode_lease_key(row))?;
        if !value.is_empty() {
            return wrong(Kind::Malformed, "it has a value");
        }
        if self.holder(key)?.is_none() {
            return Ok(());
        }
        let Some(newest) = self.get(Column::Key, key)? else {
            return wrong(Kind::KeyMissing, "the key is not there");
        };
        let record = decoded(Record::decode(newest))?;
        let attached = decoded(KeyValueFields::decode(&record.kv))?.lease;
        if record.head.is_tombstone || attached != lease {
            return wrong(Kind::Lease, "the key is not attached to it");
        }
        Ok(())
    }

    /// The group that has a key here; `None` if it is on its way out.
    fn holder(&self, key: &[u8]) -> Result<Option<GroupId>, Wrong> {
        match self.known.held.holder(key) {
            Holder::Here(group) => Ok(Some(group)),
            Holder::Left => Ok(None),
            Holder::Absent(GroupId::SPINE) => {
                wrong(Kind::Owner, "there is no state of the spine that it belongs to")
            }
            // The state of a range replaces those of others that it has taken over, and is cut off
            // where the next one begins that was cut off it since: what was the others' is of use to
            // nobody there until that comes, too, and replaces it. Likewise what a replica had that was
            // merged away when nobody here took it over. That there is a log says nothing: of a range
            // that has left, it ends when the store is durable.
            Holder::Absent(range) => {
                *self.orphans.borrow_mut().entry(range).or_default() += 1;
                Ok(None)
            }
        }
    }
}

/// What a record says of itself.
fn check_record(record: &Record) -> Result<KeyValueFields<'_>, Wrong> {
    let Record { head, kv } = record;
    let fields = decoded(KeyValueFields::decode(kv))?;
    let is_sound = if head.is_tombstone {
        fields == KeyValueFields { key: fields.key, ..KeyValueFields::default() }
    } else {
        fields.mod_revision == head.revision.main
            && (1..=fields.mod_revision).contains(&fields.create_revision)
            && fields.version >= 1
    };
    if !is_sound || fields.key.is_empty() {
        return wrong(Kind::Malformed, "its numbers do not fit each other");
    }
    if head.previous.is_some_and(|previous| previous >= head.revision) {
        return wrong(Kind::Malformed, "it supersedes what came later");
    }
    Ok(fields)
}

/// That revisions are dense (I1, I4), which one node sees only while nobody but the spine has keys.
struct Order {
    /// The last revision whose events may be gone.
    compacted: i64,
    /// Nothing is asked of what is behind this.
    head: Option<i64>,
    last: Revision,
}

impl Order {
    fn new(known: &Known) -> Self {
        let compacted = known.cursor.target.max(1);
        let state = known.state.as_ref().filter(|state| state.next_range() == 1);
        let head = state.filter(|_| known.stored.is_empty()).map(|state| state.position().revision);
        Self { compacted, head, last: Revision::last_of(compacted) }
    }

    /// Whatever the row says beside.
    fn follows(&mut self, row: &[u8]) -> Checked {
        let Ok(revision) = Revision::decode(row) else { return Ok(()) };
        if revision.main <= self.compacted {
            return Ok(());
        }
        let Revision { main, sub } = std::mem::replace(&mut self.last, revision);
        let is_next = revision == Revision { main, sub: sub.wrapping_add(1) }
            || revision == Revision { main: main + 1, sub: 0 };
        if self.head.is_some() && !is_next {
            let last = if sub == i64::MAX { main.to_string() } else { format!("{main}.{sub}") };
            let text = format!("revisions are missing between it and {last} (I1)");
            return wrong(Kind::Gap, text);
        }
        Ok(())
    }

    fn missing_at_end(&self) -> Option<String> {
        let head = self.head.filter(|head| *head > self.last.main)?;
        Some(format!(
            "revision {head} is the newest, and the last event is of {} (I1)",
            self.last.main
        ))
    }
}
