//! Carrying out a committed write: from its effects to rows and events, the same on every replica.
//!
//! Never decides anything: what a key's numbers become follows from the record it replaces, found
//! by one point read for each effect.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::compact;
use super::event::Event;
use super::layout::{self, CompactionCursor, KeyValueFields, Record, RecordHead, Revision};
use super::lease_keys::lease_keys;
use crate::LeaseId;
use crate::proto::Span;
use crate::proto::internal::Effect;
use crate::proto::mvccpb::KeyValue;
use crate::view::{Batch, Column, View, ViewError};

/// How many keys of a span are there, at no particular revision: they must be locked.
///
/// # Errors
/// The store cannot be read.
pub fn newest_keys_count(view: &dyn View, span: &Span) -> Result<u64, ViewError> {
    Ok(Applier::new(view).live_keys(span)?.len() as u64)
}

/// Applies writes one after another on a view that does not show them yet, as long as they go into
/// one batch. Make a new one for the next batch, after this one's was applied.
pub struct Applier<'a> {
    view: &'a dyn View,
    changed: BTreeMap<Bytes, Changed>,
    /// Of the compaction, once it is needed.
    cursor: Option<CompactionCursor>,
}

/// A key that was changed since the view.
struct Changed {
    newest: Record,
    /// The encoded `KeyValue` before the main revision of `newest`, if the key was there.
    before: Option<Bytes>,
}

impl<'a> Applier<'a> {
    /// On top of everything applied so far.
    pub fn new(view: &'a dyn View) -> Self {
        Self { view, changed: BTreeMap::new(), cursor: None }
    }

    /// Applies the effects of one write at its revision, which must be above all earlier ones. Adds
    /// the rows to `batch` and an event for each effect to `events`. Returns the key of effect 0 as
    /// it was before, if wanted and there.
    ///
    /// # Errors
    /// The store cannot be read.
    ///
    /// # Panics
    /// The write deletes a key that is not there, or its revision is not new: what was decided does
    /// not fit this state, and going on would make replicas differ.
    pub fn apply(
        &mut self,
        revision: i64,
        effects: &[Effect],
        wants_prev: bool,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<Option<KeyValue>, ViewError> {
        self.note_late(revision, batch)?;
        let mut prev = None;
        let expanded = self.expand(effects)?;
        for (sub, effect) in (0..).zip(expanded.iter()) {
            let old = self.change(Revision { main: revision, sub }, effect, batch, events)?;
            if sub == 0 && wants_prev {
                prev =
                    live(&old).map(|old| layout::decode_key_value(old.kv.clone())).transpose()?;
            }
        }
        Ok(prev)
    }

    /// Applies the effects that a transaction over several ranges has in one of them, each at its
    /// own sub-revision. See `apply`.
    ///
    /// # Errors
    /// The store cannot be read.
    ///
    /// # Panics
    /// As `apply`.
    pub fn apply_share(
        &mut self,
        revision: i64,
        effects: &[Effect],
        subs: &[u64],
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<(), ViewError> {
        assert!(effects.len() == subs.len(), "every effect has its sub-revision");
        self.note_late(revision, batch)?;
        for (effect, first) in effects.iter().zip(subs) {
            let first = i64::try_from(*first).expect("a revision has fewer changes");
            let expanded = self.expand(std::slice::from_ref(effect))?;
            for (sub, effect) in (first..).zip(expanded.iter()) {
                self.change(Revision { main: revision, sub }, effect, batch, events)?;
            }
        }
        Ok(())
    }

    /// A range that lags may apply a write after the compaction has passed its revision: the
    /// compaction has to look there again.
    fn note_late(&mut self, revision: i64, batch: &mut Batch) -> Result<(), ViewError> {
        let cursor = match &mut self.cursor {
            Some(cursor) => cursor,
            unknown => unknown.insert(CompactionCursor::load(self.view)?),
        };
        if let Some(row) = compact::step_back(cursor, revision) {
            batch.put(Column::Meta, layout::COMPACTION_ROW, row);
        }
        Ok(())
    }

    /// Changes one key; returns its record before.
    fn change(
        &mut self,
        revision: Revision,
        effect: &Effect,
        batch: &mut Batch,
        events: &mut Vec<Event>,
    ) -> Result<Option<Record>, ViewError> {
        let (old, before) = self.find(&effect.key, revision.main)?;
        let change = Change { revision, effect, old: old.clone(), before };
        let (changed, event) = change.write(batch)?;
        self.changed.insert(effect.key.clone(), changed);
        events.push(event);
        Ok(old)
    }

    /// Names the keys of effects that stand for many. What they stand for was latched when it was
    /// decided, so it is the same here.
    fn expand<'e>(&self, effects: &'e [Effect]) -> Result<Cow<'e, [Effect]>, ViewError> {
        let is_many = |effect: &Effect| {
            effect.is_delete && (effect.lease != 0 || !effect.range_end.is_empty())
        };
        if !effects.iter().any(is_many) {
            return Ok(Cow::Borrowed(effects));
        }
        let mut expanded = Vec::new();
        // A lease has keys in some of these spans, and the effects do not say in which.
        let (mut are_leases, mut has_attached) = (false, false);
        for effect in effects {
            if !is_many(effect) {
                expanded.push(effect.clone());
                continue;
            }
            are_leases |= effect.lease != 0;
            let span = (!effect.range_end.is_empty())
                .then(|| Span::from_request(effect.key.clone(), effect.range_end.clone()));
            let keys = match span {
                Some(span) if effect.lease == 0 => self.live_keys(&span)?,
                span => {
                    let mut keys = self.attached_keys(LeaseId(effect.lease))?;
                    keys.retain(|key| span.as_ref().is_none_or(|span| span.contains(key)));
                    keys
                }
            };
            has_attached |= effect.lease != 0 && !keys.is_empty();
            assert!(!keys.is_empty() || effect.lease != 0, "a delete was decided of what is there");
            let delete = |key| Effect { key, is_delete: true, ..Default::default() };
            expanded.extend(keys.into_iter().map(delete));
        }
        assert!(has_attached || !are_leases, "a lease was ended that has keys");
        Ok(Cow::Owned(expanded))
    }

    fn live_keys(&self, span: &Span) -> Result<BTreeSet<Bytes>, ViewError> {
        let mut keys = BTreeSet::new();
        let mut damage = None;
        let to = span.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.view.scan(Column::Key, Bound::Included(&span.start), to, &mut |key, row| {
            match Record::decode(Bytes::copy_from_slice(row)) {
                Ok(record) if !record.head.is_tombstone => {
                    keys.insert(Bytes::copy_from_slice(key));
                }
                Ok(_) => {}
                Err(error) => damage = Some(error),
            }
            if damage.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(error) = damage {
            return Err(error);
        }
        for (key, changed) in self.changed.iter().filter(|(key, _)| span.contains(key)) {
            if changed.newest.head.is_tombstone {
                keys.remove(key);
            } else {
                keys.insert(key.clone());
            }
        }
        Ok(keys)
    }

    fn attached_keys(&self, lease: LeaseId) -> Result<BTreeSet<Bytes>, ViewError> {
        let mut keys: BTreeSet<Bytes> = lease_keys(self.view, lease)?.into_iter().collect();
        for (key, changed) in &self.changed {
            let is_attached = !changed.newest.head.is_tombstone
                && KeyValueFields::decode(&changed.newest.kv)?.lease == lease.0;
            if is_attached {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        }
        Ok(keys)
    }

    /// The newest record of a key, and the encoded `KeyValue` before `revision` if it was there.
    fn find(
        &self,
        key: &Bytes,
        revision: i64,
    ) -> Result<(Option<Record>, Option<Bytes>), ViewError> {
        let newest = match self.changed.get(key) {
            Some(changed) if changed.newest.head.revision.main == revision => {
                return Ok((Some(changed.newest.clone()), changed.before.clone()));
            }
            Some(changed) => Some(changed.newest.clone()),
            None => self.view.get(Column::Key, key)?.map(Record::decode).transpose()?,
        };
        let before = live(&newest).map(|newest| newest.kv.clone());
        Ok((newest, before))
    }
}

fn live(record: &Option<Record>) -> Option<&Record> {
    record.as_ref().filter(|record| !record.head.is_tombstone)
}

/// One effect at its revision, with the record it supersedes.
struct Change<'a> {
    revision: Revision,
    effect: &'a Effect,
    old: Option<Record>,
    before: Option<Bytes>,
}

impl Change<'_> {
    fn write(self, batch: &mut Batch) -> Result<(Changed, Event), ViewError> {
        let Self { revision, effect, old, before } = self;
        let key = &effect.key;
        if let Some(old) = &old {
            let was = old.head.revision;
            assert!(was < revision, "revision {revision:?} of a key comes after {was:?}");
        }
        let life = live(&old).map(|old| KeyValueFields::decode(&old.kv)).transpose()?;
        assert!(life.is_some() || !effect.is_delete, "a key is deleted that is not there");

        let (create_revision, version) =
            life.map_or((revision.main, 0), |life| (life.create_revision, life.version));
        let kv = if effect.is_delete {
            KeyValue { key: key.clone(), ..Default::default() }
        } else {
            KeyValue {
                key: key.clone(),
                create_revision,
                mod_revision: revision.main,
                version: version + 1,
                value: effect.value.clone(),
                lease: effect.lease,
            }
        };
        let newest = write_record(revision, effect.is_delete, &kv, old.as_ref(), &|_| true, batch)?;
        let event = Event::new(&newest, before.clone())?;
        Ok((Changed { newest, before }, event))
    }
}

/// Writes the rows of a change: of its key and its revision, of the record that it supersedes, and
/// of leases, as far as they are known. Returns the new record. `kv` of a delete has nothing but its key.
///
/// # Errors
/// The record before cannot be understood.
pub(super) fn write_record(
    revision: Revision,
    is_delete: bool,
    kv: &KeyValue,
    old: Option<&Record>,
    is_known: &dyn Fn(i64) -> bool,
    batch: &mut Batch,
) -> Result<Record, ViewError> {
    let key = &kv.key;
    let life = old.filter(|old| !old.head.is_tombstone);
    let head = RecordHead {
        revision,
        is_tombstone: is_delete,
        previous: life.map(|old| old.head.revision),
    };
    let life = life.map(|old| KeyValueFields::decode(&old.kv)).transpose()?;

    // All rows of the change are cut from one buffer.
    let superseded = old.map(|old| old.head);
    let attached_to = |lease: i64| if is_known(lease) { lease } else { 0 };
    let old_lease = life.map_or(0, |life| attached_to(life.lease));
    let new_lease = if is_delete { 0 } else { attached_to(kv.lease) };
    let lease_rows_count = if old_lease == new_lease {
        0
    } else {
        usize::from(old_lease != 0) + usize::from(new_lease != 0)
    };
    let mut rows = Rows::with_capacity(
        head.encoded_len()
            + kv.encoded_len()
            + layout::REVISION_BYTES
            + superseded.map_or(0, |_| layout::history_key_len(key))
            + lease_rows_count * (layout::LEASE_BYTES + key.len()),
    );
    let record = rows.cut(|buf| {
        head.encode(buf);
        kv.encode(buf).expect("a growing buffer takes every message");
    });
    batch.put(Column::Key, key.clone(), record.clone());
    batch.put(Column::Revision, rows.cut(|buf| buf.put_slice(&revision.encode())), record.clone());
    if let Some(superseded) = superseded {
        let value =
            if superseded.is_tombstone { layout::HISTORY_TOMBSTONE } else { layout::HISTORY_PUT };
        batch.put(
            Column::History,
            rows.cut(|buf| layout::encode_history_key(key, superseded.revision, buf)),
            value,
        );
    }
    if old_lease != new_lease {
        if old_lease != 0 {
            let row = rows.cut(|buf| layout::encode_lease_key(old_lease, key, buf));
            batch.delete(Column::LeaseKey, row);
        }
        if new_lease != 0 {
            let row = rows.cut(|buf| layout::encode_lease_key(new_lease, key, buf));
            batch.put(Column::LeaseKey, row, Bytes::new());
        }
    }

    Ok(Record { head, kv: record.slice(head.encoded_len()..) })
}

/// A buffer of known size from which rows are cut one after another.
struct Rows {
    buf: BytesMut,
}

impl Rows {
    fn with_capacity(bytes: usize) -> Self {
        Self { buf: BytesMut::with_capacity(bytes) }
    }

    fn cut(&mut self, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        write(&mut self.buf);
        self.buf.split().freeze()
    }
}
