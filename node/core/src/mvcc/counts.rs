//! How many keys spans have, remembered from walks, so that counting again does not walk. A list with a
//! limit is counted to its end as well, so nearly every list is.
//!
//! The keyspace is remembered in blocks of some hundred neighbouring keys. A block says how many of its
//! keys are live, and the revision at which that changed last: at any revision from there on the count is
//! exact. What is not known, has changed since, or lies in a block only in part is walked.
//!
//! Who applies a batch notes it here after the rows are in the view, and before any of its revisions is
//! shown. A walk that is to be remembered is announced before its first row is read: whatever is noted
//! meanwhile in its span spoils it, and so does a row above its revision, which was perhaps noted before.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::draft::REVISION_BEFORE;
use super::layout::RecordHead;
use crate::proto::Span;
use crate::view::{Batch, Column, Write};

/// Rows of a block when it is made, of stores on disk.
pub const BLOCK_ROWS: usize = 512;
/// A block with so many times the keys it was made of is forgotten, and made anew as several.
const GROWTH_MAX: usize = 4;
/// Blocks that are remembered; with more, all are forgotten. A walk that finds more is not remembered.
pub(super) const BLOCKS_MAX: usize = 1 << 15;
/// Walks under way that are to be remembered: every change looks at all of them.
const WALKS_MAX: usize = 64;

/// What is remembered. A clone remembers nothing.
#[derive(Debug)]
pub struct Counts {
    block_rows: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By the key that each begins with. No two of them overlap.
    blocks: BTreeMap<Bytes, Block>,
    /// By number: walks that are under way.
    walks: BTreeMap<u64, Walk>,
    walks_begun: u64,
}

#[derive(Debug)]
struct Block {
    end: Option<Bytes>,
    count: i64,
    /// The count is that of every revision from this on.
    since: i64,
}

#[derive(Debug)]
struct Walk {
    span: Span,
    is_spoilt: bool,
}

/// What a count is made of.
pub(super) struct Plan<'a> {
    counts: &'a Counts,
    /// The keys of all blocks that are known.
    pub(super) known: i64,
    /// What is to be walked, in the order of keys.
    pub(super) pieces: Vec<Piece>,
}

/// A span to be walked.
pub(super) struct Piece {
    pub(super) span: Span,
    /// Its number, if it may be remembered.
    walk: Option<u64>,
}

/// What a walk has found, in blocks.
pub(super) struct Found {
    block_rows: usize,
    /// First key and live keys of each block.
    blocks: Vec<(Bytes, i64)>,
    /// Rows in the last block.
    rows: usize,
    is_spoilt: bool,
}

impl Counts {
    /// Nothing yet. Blocks are made of so many rows.
    pub fn new(block_rows: usize) -> Self {
        Self { block_rows: block_rows.max(2), known: Mutex::default() }
    }

    /// Takes note of a batch that is in the view.
    pub fn note(&self, batch: &Batch) {
        let mut known = None;
        for write in &batch.writes {
            let (key, change) = match write {
                Write::Put(Column::Key, key, record) => match RecordHead::decode(record) {
                    Ok(head) if head.is_tombstone => (key, Some((-1, head.revision.main))),
                    // Of a key that was there.
                    Ok(head) if head.previous.is_some() => continue,
                    Ok(head) => (key, Some((1, head.revision.main))),
                    Err(_) => (key, None),
                },
                // Of a tombstone, or of a range that has left.
                Write::Delete(Column::Key, key) => (key, None),
                Write::Put(..) | Write::Delete(..) => continue,
            };
            let known = known.get_or_insert_with(|| self.known());
            known.note(key, change, self.block_rows);
        }
    }

    /// Forgets everything: rows have changed in another way.
    pub fn forget(&self) {
        let mut known = self.known();
        known.blocks.clear();
        for walk in known.walks.values_mut() {
            walk.is_spoilt = true;
        }
    }

    /// What the count of a span at a revision is made of. Who counts at no particular revision has
    /// locked the keys: that is nothing to remember.
    pub(super) fn plan(&self, span: &Span, revision: i64) -> Plan<'_> {
        let mut known = self.known();
        let may_remember = revision < REVISION_BEFORE;
        let (mut count, mut pieces) = (0, Pieces::default());
        // Up to where the span is planned; none at the end of all keys.
        let mut planned = Some(span.start.clone());
        for (start, block) in known.blocks_in(span) {
            let from = start.max(&span.start);
            if let Some(planned) = planned.filter(|planned| planned < from) {
                pieces.walk_to_remember(&planned, Some(from));
            }
            let end = least_end(block.end.as_ref(), span.end.as_ref());
            let is_whole = from == start && end == block.end;
            if is_whole && block.since <= revision {
                count += block.count;
            } else {
                pieces.walk_only(from, end.as_ref());
            }
            planned = end;
        }
        let is_left = |planned: &Bytes| span.end.as_ref().is_none_or(|end| planned < end);
        if let Some(planned) = planned.filter(is_left) {
            pieces.walk_to_remember(&planned, span.end.as_ref());
        }
        let pieces = pieces.announce(&mut known, may_remember);
        Plan { counts: self, known: count, pieces }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where something ends that has two ends.
fn least_end(a: Option<&Bytes>, b: Option<&Bytes>) -> Option<Bytes> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b).clone()),
        (a, b) => a.or(b).cloned(),
    }
}

impl Known {
    /// The blocks that have keys of a span, in their order: the first may begin before it, the last may
    /// end behind it.
    fn blocks_in(&self, span: &Span) -> impl Iterator<Item = (&Bytes, &Block)> {
        let before = self.blocks.range::<Bytes, _>(..&span.start).next_back();
        let reaches_in = |block: &Block| block.end.as_ref().is_none_or(|end| *end > span.start);
        let to = span.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let within = self.blocks.range::<Bytes, _>((Bound::Included(&span.start), to));
        before.filter(|(_, block)| reaches_in(block)).into_iter().chain(within)
    }

    fn note(&mut self, key: &Bytes, change: Option<(i64, i64)>, block_rows: usize) {
        for walk in self.walks.values_mut() {
            walk.is_spoilt |= walk.span.contains(key);
        }
        let Some((start, block)) = self.blocks.range_mut::<Bytes, _>(..=key).next_back() else {
            return;
        };
        if block.end.as_ref().is_some_and(|end| end <= key) {
            return;
        }
        let is_usable = change.is_some_and(|(difference, revision)| {
            block.count += difference;
            block.since = block.since.max(revision);
            block.count <= (block_rows * GROWTH_MAX) as i64
        });
        if !is_usable {
            let start = start.clone();
            self.blocks.remove(&start);
        }
    }
}

/// What is to be walked, put together.
#[derive(Default)]
struct Pieces(Vec<(Span, bool)>);

impl Pieces {
    fn walk_only(&mut self, start: &Bytes, end: Option<&Bytes>) {
        // What is not remembered can be walked in one go.
        if let Some((last, false)) = self.0.last_mut()
            && last.end.as_ref() == Some(start)
        {
            last.end = end.cloned();
            return;
        }
        self.0.push((Span { start: start.clone(), end: end.cloned() }, false));
    }

    fn walk_to_remember(&mut self, start: &Bytes, end: Option<&Bytes>) {
        self.0.push((Span { start: start.clone(), end: end.cloned() }, true));
    }

    fn announce(self, known: &mut Known, may_remember: bool) -> Vec<Piece> {
        let announced = self.0.into_iter().map(|(span, is_remembered)| {
            let has_room = known.walks.len() < WALKS_MAX;
            let walk = (is_remembered && may_remember && has_room).then(|| {
                known.walks_begun += 1;
                let walk = Walk { span: span.clone(), is_spoilt: false };
                known.walks.insert(known.walks_begun, walk);
                known.walks_begun
            });
            Piece { span, walk }
        });
        announced.collect()
    }
}

impl Plan<'_> {
    /// For the rows of a piece.
    pub(super) fn found(&self, piece: &Piece) -> Found {
        let block_rows = self.counts.block_rows;
        Found {
            block_rows,
            blocks: vec![(piece.span.start.clone(), 0)],
            rows: 0,
            is_spoilt: piece.walk.is_none(),
        }
    }

    /// A piece was walked to its end at a revision.
    pub(super) fn remember(&self, piece: &Piece, found: Found, revision: i64) {
        let Some(number) = piece.walk else { return };
        let mut known = self.counts.known();
        let Some(walk) = known.walks.remove(&number) else { return };
        // Few rows are walked as fast as they are remembered.
        let is_small = found.blocks.len() == 1 && found.rows < found.block_rows / 2;
        // Another walk may have been remembered meanwhile.
        let is_known = known.blocks_in(&piece.span).next().is_some();
        if walk.is_spoilt || found.is_spoilt || is_small || is_known {
            return;
        }
        if known.blocks.len() + found.blocks.len() > BLOCKS_MAX {
            known.blocks.clear();
        }
        let ends = found.blocks.iter().skip(1).map(|(start, _)| Some(start.clone()));
        let ends: Vec<_> = ends.chain([piece.span.end.clone()]).collect();
        for ((start, count), end) in found.blocks.into_iter().zip(ends) {
            known.blocks.insert(start, Block { end, count, since: revision });
        }
    }
}

impl Drop for Plan<'_> {
    fn drop(&mut self) {
        let walks = self.pieces.iter().filter_map(|piece| piece.walk);
        let walks: Vec<u64> = walks.collect();
        if !walks.is_empty() {
            let mut known = self.counts.known();
            for walk in walks {
                known.walks.remove(&walk);
            }
        }
    }
}

impl Found {
    /// The next row: whether it is newer than the walk's revision, and whether its key was live then.
    pub(super) fn row(&mut self, key: &[u8], is_newer: bool, is_live: bool) {
        self.is_spoilt |= is_newer;
        if self.is_spoilt {
            return;
        }
        if self.rows == self.block_rows {
            if self.blocks.len() == BLOCKS_MAX {
                self.is_spoilt = true;
                self.blocks = Vec::new();
                return;
            }
            self.blocks.push((Bytes::copy_from_slice(key), 0));
            self.rows = 0;
        }
        self.rows += 1;
        if let Some((_, count)) = self.blocks.last_mut() {
            *count += i64::from(is_live);
        }
    }
}

impl Clone for Counts {
    fn clone(&self) -> Self {
        Self::new(self.block_rows)
    }
}

/// What is remembered changes no answer.
impl PartialEq for Counts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Counts {}
