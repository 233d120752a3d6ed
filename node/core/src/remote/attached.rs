//! Lease.LeaseTimeToLive's keys, of any number of ranges, at one state.

use bytes::Bytes;

use super::Owners;
use crate::proto::Span;
use crate::proto::internal::{AskedRows, AskedSpan, SnapshotRow};
use crate::spine::Shown;
use crate::view::ViewError;
use crate::{GroupId, LeaseId, mvcc};

/// The keys attached to a lease, being gathered.
#[derive(Debug)]
pub struct Attached {
    lease: LeaseId,
    shown: Shown,
    /// Not looked through yet; `None` when all is.
    rest: Option<Span>,
    keys: Vec<Bytes>,
}

impl Attached {
    /// At a state that is shown.
    pub fn new(shown: Shown, lease: LeaseId) -> Self {
        Self { lease, shown, rest: Some(Span::possible()), keys: Vec::new() }
    }

    /// Which range to ask next, and what. Asked again, it answers by the owners as they are then.
    pub fn next(&self, owners: &Owners) -> Option<(GroupId, AskedRows)> {
        let (range, span) = owners.first_piece(self.rest.as_ref()?);
        let (key, range_end) = span.into_request();
        let span = AskedSpan { key, range_end, revision: self.shown.head.revision };
        let asked = AskedRows { span: Some(span), lease: self.lease.0, ..AskedRows::default() };
        Some((range, asked))
    }

    /// Takes what `next` asked for (`remote::attached`).
    ///
    /// # Errors
    /// A row is damaged.
    pub fn take(&mut self, asked: &AskedRows, rows: &[SnapshotRow]) -> Result<(), ViewError> {
        for row in rows {
            self.keys.push(mvcc::lease_row_key(&row.key)?);
        }
        let asked = asked.span.as_ref().map(|it| (it.key.clone(), it.range_end.clone()));
        let end = asked.and_then(|(key, range_end)| Span::from_request(key, range_end).end);
        let rest = self.rest.take();
        self.rest = rest.zip(end).and_then(|(rest, start)| {
            rest.contains(&start).then(|| Span { start, end: rest.end.clone() })
        });
        Ok(())
    }

    /// The state that is read.
    pub fn shown(&self) -> Shown {
        self.shown
    }

    /// The keys in ascending order, when there is nothing left to ask.
    pub fn finish(self) -> Vec<Bytes> {
        self.keys
    }
}
