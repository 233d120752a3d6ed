//! The history as a backup has it, put together in the order of revisions: of what is here, and of what
//! other nodes tell of the ranges that are not. Where a piece is read is for the driver to say.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::{ANSWER_BYTES_MAX, CHANGES_MAX, CHANGES_ROWS_MAX, Owners};
use crate::GroupId;
use crate::mvcc::layout::{Record, Revision};
use crate::mvcc::{Below, KeptPage, ReplayLimits};
use crate::proto::Span;
use crate::proto::internal::AskedChanges;

/// Bytes of all pieces that wait for each other, exceeded by one change of each.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// A piece is not asked to be shorter than this.
const PIECE_BYTES_MIN: usize = 32 << 10;

/// A piece that is to be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// Of all keys that are here.
    Here {
        /// From this place on.
        from: Revision,
        /// Where it is to end at the latest.
        limits: ReplayLimits,
    },
    /// Of keys of a range that another node has.
    Elsewhere(GroupId, AskedChanges),
}

/// A history on its way.
#[derive(Debug)]
pub struct Backup {
    to: i64,
    below: Below,
    /// The first is of what is here.
    sources: Vec<Source>,
    /// Of each source that has something waiting, the place of that.
    heads: BTreeSet<(Revision, usize)>,
    /// Sources that are to be read before anything can go on.
    empty: Vec<usize>,
    compact_revision: i64,
}

#[derive(Debug)]
struct Source {
    /// `None`: what is here.
    span: Option<Span>,
    next: Revision,
    waiting: VecDeque<Record>,
}

impl Backup {
    /// Of everything up to a revision, compacted at another or a later one. These keys are elsewhere.
    pub fn new(to: i64, (compact_revision, below): (i64, Below), elsewhere: Vec<Span>) -> Self {
        let elsewhere = elsewhere.into_iter().filter_map(without_empty_key);
        let spans = [None].into_iter().chain(elsewhere.map(Some));
        let next = Revision { main: 0, sub: 0 };
        let sources: Vec<Source> =
            spans.map(|span| Source { span, next, waiting: VecDeque::new() }).collect();
        let empty = (0..sources.len()).collect();
        Self { to, below, sources, heads: BTreeSet::new(), empty, compact_revision }
    }

    /// The revision it goes up to.
    pub fn to(&self) -> i64 {
        self.to
    }

    /// What is wanted at or below the compact revision.
    pub fn below(&self) -> Below {
        self.below
    }

    /// The compact revision that some of it has been through.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// The next change, unless something must be read before.
    pub fn pop(&mut self) -> Option<Record> {
        if !self.empty.is_empty() {
            return None;
        }
        let (_, at) = self.heads.pop_first()?;
        let source = &mut self.sources[at];
        let record = source.waiting.pop_front();
        match source.waiting.front() {
            Some(record) => {
                self.heads.insert((record.head.revision, at));
            }
            None if source.next.main <= self.to => self.empty.push(at),
            None => {}
        }
        record
    }

    /// What is to be read now, at a state that shows what the owners are of. `None` when everything was.
    pub fn wanted(&mut self, owners: &Owners) -> Option<Wanted> {
        let at = *self.empty.last()?;
        let share = WAITING_BYTES_MAX / self.sources.len();
        let bytes_max = share.clamp(PIECE_BYTES_MIN, ANSWER_BYTES_MAX);
        let from = self.sources[at].next;
        let Some(span) = self.sources[at].span.clone() else {
            let (events_max, rows_max) = (CHANGES_MAX as usize, usize::MAX);
            let limits = ReplayLimits { events_max, bytes_max, rows_max };
            return Some(Wanted::Here { from, limits });
        };
        let (range, piece) = owners.first_piece(&span);
        if let Some(start) = piece.end.clone().filter(|end| span.contains(end)) {
            // Cut since: the rest is a source of its own.
            self.empty.insert(0, self.sources.len());
            let rest = Some(Span { start, end: span.end });
            self.sources.push(Source { span: rest, next: from, waiting: VecDeque::new() });
            self.sources[at].span = Some(piece.clone());
        }
        let (key, range_end) = piece.into_request();
        let asked = AskedChanges {
            key,
            range_end,
            from: from.main,
            from_sub: from.sub,
            to: self.to,
            wants_prev: false,
            changes_max: CHANGES_MAX,
            bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX),
            rows_max: CHANGES_ROWS_MAX,
            is_backup: true,
            newest_at: match self.below {
                Below::Readable => 0,
                Below::Newest(revision) => revision,
            },
        };
        Some(Wanted::Elsewhere(range, asked))
    }

    /// Takes what was wanted last.
    ///
    /// # Panics
    /// Nothing was wanted.
    pub fn take(&mut self, page: KeptPage) {
        let at = *self.empty.last().expect("a piece is taken that was wanted");
        let source = &mut self.sources[at];
        assert!(source.next < page.next, "a piece goes on");
        source.next = page.next;
        source.waiting.extend(page.records);
        self.compact_revision = self.compact_revision.max(page.compact_revision);
        match source.waiting.front() {
            Some(record) => {
                self.heads.insert((record.head.revision, at));
                self.empty.pop();
            }
            None if source.next.main > self.to => drop(self.empty.pop()),
            None => {}
        }
    }
}

/// No key is empty. A request cannot name the span of the empty key alone: its end stands for no end.
fn without_empty_key(mut span: Span) -> Option<Span> {
    if span.start.is_empty() {
        span.start = Bytes::from_static(&[0]);
    }
    (!span.is_empty()).then_some(span)
}
