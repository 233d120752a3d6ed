//! The rows that it takes to evaluate a transaction, of ranges that are not read here.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::{Overlay, Owners, ROWS_BYTES_MAX};
use crate::Error;
use crate::GroupId;
use crate::command::Command;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::internal::{AskedRows, AskedSpan, SnapshotRow};
use crate::txn::Job;
use crate::view::{View, ViewError};

/// A transaction whose rows are fetched.
#[derive(Debug, Default)]
pub struct Gathering {
    /// Not looked at yet.
    wanted: VecDeque<AskedSpan>,
    /// Fetched: nothing of these is read here.
    foreign: Vec<Span>,
    /// Relied on to be here.
    local: Vec<AskedSpan>,
    rows: Vec<SnapshotRow>,
    bytes: usize,
    /// Nothing is made of values.
    keys_only: bool,
    /// Of the keys only what is attached to a lease, which has none but in these ranges.
    attached: Option<(i64, BTreeSet<u64>)>,
}

impl Gathering {
    /// Whatever it takes to decide what is done in several ranges.
    pub fn of_job(job: &Job) -> Self {
        match job {
            Job::Change(Command::Txn(request)) => Self::new(request),
            Job::Change(Command::Put(put)) => Self::of_span(&put.key, &Bytes::new()),
            Job::Change(Command::DeleteRange(delete)) => {
                let gathering = Self::of_span(&delete.key, &delete.range_end);
                Self { keys_only: !delete.prev_kv, ..gathering }
            }
            Job::LeaseEnd { id, ranges, .. } => {
                let (key, range_end) = Span::possible().into_request();
                let wanted = VecDeque::from([AskedSpan { key, range_end, revision: 0 }]);
                Self { wanted, attached: Some((*id, ranges.clone())), ..Self::default() }
            }
            Job::Change(_) | Job::Split { .. } | Job::Merge { .. } => Self::default(),
        }
    }

    fn of_span(key: &Bytes, range_end: &Bytes) -> Self {
        let (key, range_end) = (key.clone(), range_end.clone());
        let wanted = VecDeque::from([AskedSpan { key, range_end, revision: 0 }]);
        Self { wanted, ..Self::default() }
    }

    /// Whatever a transaction may look at, on whichever branch it goes.
    pub fn new(request: &pb::TxnRequest) -> Self {
        let mut wanted = VecDeque::new();
        add_txn(request, &mut wanted);
        Self { wanted, ..Self::default() }
    }

    /// The next rows to fetch, and from which range; `None` when nothing is left. `is_here` tells of
    /// which ranges the keys are read here. Asked again before `take`, it answers by the owners as
    /// they are then.
    pub fn next(
        &mut self,
        owners: &Owners,
        is_here: impl Fn(GroupId) -> bool,
    ) -> Option<(GroupId, AskedRows)> {
        while let Some(asked) = self.wanted.pop_front() {
            let span = span_of(&asked);
            if span.is_empty() {
                continue;
            }
            let (range, piece) = owners.first_piece(&span);
            let rest = piece.end.clone().filter(|end| span.contains(end));
            if let Some(start) = rest {
                let rest = Span { start, end: span.end.clone() };
                self.wanted.push_front(asked_span(rest, asked.revision));
            }
            let attached = self.attached.as_ref();
            if attached.is_some_and(|(_, ranges)| range.0 != 0 && !ranges.contains(&range.0)) {
                continue;
            }
            // What a key is now and what it was are asked for apart. The range may have come or gone
            // in between, and a key is read either here or elsewhere.
            let is_foreign = self.foreign.iter().any(|foreign| foreign.overlaps(&piece));
            if is_here(range) && !is_foreign {
                self.local.push(asked_span(piece, asked.revision));
                continue;
            }
            let lease = attached.map_or(0, |(lease, _)| *lease);
            let asked = asked_span(piece, asked.revision);
            self.wanted.push_front(asked.clone());
            let (span, keys_only) = (Some(asked), self.keys_only);
            return Some((range, AskedRows { span, lease, keys_only, bytes_max: 0 }));
        }
        None
    }

    /// Takes what `next` asked for: the rows of all keys below `next`, or of all if that is empty.
    ///
    /// # Errors
    /// It is too much for one request.
    pub fn take(&mut self, rows: Vec<SnapshotRow>, next: Bytes) -> Result<(), Error> {
        let Some(asked) = self.wanted.pop_front() else { return Ok(()) };
        let mut span = span_of(&asked);
        if !next.is_empty() && span.contains(&next) {
            let rest = Span { start: next.clone(), end: span.end.replace(next) };
            self.wanted.push_front(asked_span(rest, asked.revision));
        }
        self.wanted.extend(self.local.extract_if(.., |local| span_of(local).overlaps(&span)));
        self.foreign.push(span);
        self.bytes += rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
        self.rows.extend(rows);
        if self.bytes > ROWS_BYTES_MAX { Err(Error::RequestTooLarge) } else { Ok(()) }
    }

    /// Whether the keys that were not fetched are still read here.
    pub fn is_still_here(&self, owners: &Owners, is_here: impl Fn(GroupId) -> bool) -> bool {
        self.local.iter().all(|asked| {
            let mut rest = span_of(asked);
            loop {
                let (range, piece) = owners.first_piece(&rest);
                if !is_here(range) {
                    return false;
                }
                match piece.end.filter(|end| rest.contains(end)) {
                    Some(end) => rest.start = end,
                    None => return true,
                }
            }
        })
    }

    /// Whether everything is in the store.
    pub fn is_empty(&self) -> bool {
        self.foreign.is_empty()
    }

    /// The store together with what was fetched.
    ///
    /// # Errors
    /// A row that was fetched is damaged.
    pub fn over(self, local: &dyn View) -> Result<Overlay<'_>, ViewError> {
        let mut overlay = Overlay::new(local, self.foreign);
        overlay.add(self.rows)?;
        Ok(overlay)
    }
}

fn span_of(asked: &AskedSpan) -> Span {
    Span::from_request(asked.key.clone(), asked.range_end.clone())
}

fn asked_span(span: Span, revision: i64) -> AskedSpan {
    let (key, range_end) = span.into_request();
    AskedSpan { key, range_end, revision }
}

fn add_txn(txn: &pb::TxnRequest, wanted: &mut VecDeque<AskedSpan>) {
    let mut add = |key: &bytes::Bytes, range_end: &bytes::Bytes, revision: i64| {
        wanted.push_back(AskedSpan {
            key: key.clone(),
            range_end: range_end.clone(),
            revision: revision.max(0),
        });
    };
    for compare in &txn.compare {
        add(&compare.key, &compare.range_end, 0);
    }
    let mut inner = Vec::new();
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => {
                add(&range.key, &range.range_end, range.revision);
            }
            Some(Request::RequestPut(put)) => add(&put.key, &bytes::Bytes::new(), 0),
            Some(Request::RequestDeleteRange(delete)) => add(&delete.key, &delete.range_end, 0),
            Some(Request::RequestTxn(txn)) => inner.push(txn),
            None => {}
        }
    }
    inner.into_iter().for_each(|txn| add_txn(txn, wanted));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The range of a key comes, or goes, between the question of what the key is now and that of
    /// what it was: both are asked elsewhere.
    #[test]
    fn a_key_is_read_either_here_or_elsewhere() {
        let read = |revision| {
            let key = bytes::Bytes::from_static(b"k");
            let request = pb::RangeRequest { key, revision, ..Default::default() };
            pb::RequestOp { request: Some(Request::RequestRange(request)) }
        };
        let request = pb::TxnRequest { success: vec![read(0), read(3)], ..Default::default() };
        let owners = Owners::default();
        for was_here in [true, false] {
            let mut gathering = Gathering::new(&request);
            let calls = std::cell::Cell::new(0);
            let mut revisions = Vec::new();
            let is_here = |_| (calls.replace(calls.get() + 1) == 0) == was_here;
            while let Some((_, rows)) = gathering.next(&owners, is_here) {
                revisions.extend(rows.span.iter().map(|asked| asked.revision));
                gathering.take(Vec::new(), Bytes::new()).expect("nothing is little");
            }
            revisions.sort_unstable();
            assert_eq!(revisions, [0, 3], "was it here at first? {was_here}");
        }
    }

    /// No key is empty, and no request can name the keys before the lowest one.
    #[test]
    fn a_range_that_begins_at_the_lowest_key_is_asked_as_well() {
        let mut owners = Owners::default();
        owners.split(Bytes::from_static(b"\0"), GroupId(1));
        owners.split(Bytes::from_static(b"m"), GroupId(2));
        let ranges = BTreeSet::from([1, 2]);
        let job = Job::LeaseEnd { id: 7, expired_in_term: 0, granted_at: 0, ranges };
        let mut gathering = Gathering::of_job(&job);
        let mut asked = Vec::new();
        while let Some((range, _)) = gathering.next(&owners, |_| false) {
            asked.push(range.0);
            gathering.take(Vec::new(), Bytes::new()).expect("nothing is little");
        }
        assert_eq!(asked, [1, 2]);
    }
}
