//! The keys as an operation sees them: the applied state at a revision, under the changes that its
//! own transaction has made so far.
//!
//! The revision of those changes is not known yet; key-values read back carry placeholders for it
//! (see `draft`).

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::Failure;
use super::draft::THIS_REVISION;
use super::history::{self, Wanted};
use super::layout;
use crate::proto::Span;
use crate::proto::mvccpb::KeyValue;
use crate::view::View;

/// A readable state of the keys.
pub(super) struct Keyspace<'a> {
    view: &'a dyn View,
    revision: i64,
    pending: BTreeMap<Bytes, Pending>,
}

/// A change that has no revision yet.
enum Pending {
    /// A put over whatever the applied state has, which is only looked up when it is read back.
    Put {
        value: Bytes,
        lease: i64,
    },
    /// A put over an earlier change of the same transaction.
    Known(KeyValue),
    Deleted,
}

impl<'a> Keyspace<'a> {
    pub(super) fn new(view: &'a dyn View, revision: i64) -> Self {
        Self { view, revision, pending: BTreeMap::new() }
    }

    /// The applied state at an older revision, without pending changes.
    pub(super) fn at(&self, revision: i64) -> Self {
        Self::new(self.view, revision)
    }

    /// Records a put.
    pub(super) fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> Result<(), Failure> {
        let pending = if self.pending.contains_key(&key) {
            Pending::Known(next_life(self.get(&key)?, key.clone(), value, lease))
        } else {
            Pending::Put { value, lease }
        };
        self.pending.insert(key, pending);
        Ok(())
    }

    /// Records the delete of a key that is there.
    pub(super) fn delete(&mut self, key: Bytes) {
        self.pending.insert(key, Pending::Deleted);
    }

    /// True if a change is pending in the span.
    pub(super) fn has_pending_in(&self, span: &Span) -> bool {
        self.pending_in(span).next().is_some()
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Failure> {
        match self.pending.get_key_value(key) {
            Some((key, pending)) => self.resolve(key, pending),
            None => self.get_applied(key),
        }
    }

    /// Visits the keys of a span in ascending order; see `history::visit_live`.
    pub(super) fn visit(
        &self,
        span: &Span,
        wanted: Wanted,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let mut pending = self.pending_in(span).peekable();
        if pending.peek().is_none() {
            return history::visit_live(self.view, span, self.revision, wanted, visit);
        }
        let mut failure = None;
        let mut has_ended = false;
        history::visit_live(self.view, span, self.revision, wanted, &mut |kv| {
            let flow = match self.visit_pending(&mut pending, Some(&kv.key), visit) {
                Ok(ControlFlow::Continue(is_shadowed)) if is_shadowed => ControlFlow::Continue(()),
                Ok(ControlFlow::Continue(_)) => visit(kv),
                Ok(ControlFlow::Break(())) => ControlFlow::Break(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            };
            has_ended = flow.is_break();
            flow
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if !has_ended {
            let _ = self.visit_pending(&mut pending, None, visit)?;
        }
        Ok(())
    }

    /// How many keys a span has.
    pub(super) fn count(&self, span: &Span) -> Result<i64, Failure> {
        let mut count = history::count_live(self.view, span, self.revision)?;
        for (key, pending) in self.pending_in(span) {
            let was_there = history::live_at(self.view, key, self.revision)?.is_some();
            let is_there = !matches!(pending, Pending::Deleted);
            count += i64::from(is_there) - i64::from(was_there);
        }
        Ok(count)
    }

    /// Visits the pending changes up to and including key `to`, or all that are left, and tells
    /// whether one of them is of `to` itself, so that the applied state of that key is void.
    fn visit_pending<'p>(
        &self,
        pending: &mut Peekable<impl Iterator<Item = (&'p Bytes, &'p Pending)>>,
        to: Option<&Bytes>,
        visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<ControlFlow<(), bool>, Failure> {
        let mut is_shadowed = false;
        while let Some((key, change)) = pending.next_if(|(key, _)| to.is_none_or(|to| *key <= to)) {
            is_shadowed = to == Some(key);
            if let Some(kv) = self.resolve(key, change)?
                && visit(kv).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(is_shadowed))
    }

    fn resolve(&self, key: &Bytes, pending: &Pending) -> Result<Option<KeyValue>, Failure> {
        match pending {
            Pending::Put { value, lease } => {
                let before = self.get_applied(key)?;
                Ok(Some(next_life(before, key.clone(), value.clone(), *lease)))
            }
            Pending::Known(kv) => Ok(Some(kv.clone())),
            Pending::Deleted => Ok(None),
        }
    }

    fn get_applied(&self, key: &[u8]) -> Result<Option<KeyValue>, Failure> {
        match history::live_at(self.view, key, self.revision)? {
            Some(record) => Ok(Some(layout::decode_key_value(record.kv)?)),
            None => Ok(None),
        }
    }

    fn pending_in(&self, span: &Span) -> impl Iterator<Item = (&Bytes, &Pending)> {
        let bounds = (
            Bound::Included(span.start.as_ref()),
            span.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        );
        let is_empty = self.pending.is_empty() || span.is_empty();
        (!is_empty).then(|| self.pending.range::<[u8], _>(bounds)).into_iter().flatten()
    }
}

/// A key after a put over `before`.
fn next_life(before: Option<KeyValue>, key: Bytes, value: Bytes, lease: i64) -> KeyValue {
    let (create_revision, version) =
        before.map_or((THIS_REVISION, 0), |before| (before.create_revision, before.version));
    let version = version + 1;
    KeyValue { key, create_revision, mod_revision: THIS_REVISION, version, value, lease }
}
