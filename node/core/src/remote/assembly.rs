//! A block of history for watchers, put together of the pieces that ranges have of it. Where a piece is
//! read is for the driver to say: here, if this node shows the range, or elsewhere.

use super::changes;
use super::{ANSWER_BYTES_MAX, Owners};
use crate::GroupId;
use crate::mvcc::layout::Revision;
use crate::mvcc::{self, ReplayPage};
use crate::proto::Span;
use crate::proto::internal::{AskedChanges, Told};
use crate::watch::{Block, BlockRequest};

/// A block under way. What it has is no more than the limits of the request and one revision.
#[derive(Debug)]
pub struct Assembly {
    request: BlockRequest,
    /// Keys to be read, each from a place on.
    missing: Vec<(Span, Revision)>,
    /// Pieces that were handed out.
    under_way: usize,
    /// The first revision that the block will not have.
    next: i64,
    /// Of pieces that were taken, in order.
    events: Vec<mvcc::Event>,
}

impl Assembly {
    /// Of a request of the hub.
    pub fn new(request: BlockRequest) -> Self {
        let first = Revision { main: request.from, sub: 0 };
        let missing = vec![(request.span.clone(), first)];
        let next = request.to + 1;
        Self { request, missing, under_way: 0, next, events: Vec::new() }
    }

    /// What the block is for.
    pub fn request(&self) -> &BlockRequest {
        &self.request
    }

    /// A piece that is to be read, and the range that owns its keys; `None` when there are none that
    /// were not handed out. It is to be read at a state that shows what the owners are of, which has
    /// the block's last revision, and must come back by `take` or `put_back`.
    pub fn next(&mut self, owners: &Owners) -> Option<(GroupId, AskedChanges)> {
        let (span, from) = self.missing.pop()?;
        let (range, piece) = owners.first_piece(&span);
        if let Some(start) = piece.end.clone().filter(|end| span.contains(end)) {
            self.missing.push((Span { start, end: span.end }, from));
        }
        self.under_way += 1;
        let (key, range_end) = piece.into_request();
        let limits = self.request.limits;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let asked = AskedChanges {
            key,
            range_end,
            from: from.main,
            from_sub: from.sub,
            // Nobody needs more of one range than there is of another.
            to: self.next - 1,
            wants_prev: self.request.wants_prev,
            changes_max: number(limits.events_max),
            bytes_max: number(limits.bytes_max.min(ANSWER_BYTES_MAX)),
            rows_max: number(limits.rows_max),
            is_backup: false,
            newest_at: 0,
        };
        Some((range, asked))
    }

    /// Takes a piece as it was read.
    pub fn take(&mut self, asked: &AskedChanges, page: ReplayPage) {
        let ReplayPage { mut events, next } = page;
        self.under_way -= 1;
        let covered = if next.main > asked.from {
            // The rest of a revision that is not whole comes with a later block.
            next.main
        } else {
            // One revision has more than an answer: it becomes a block of its own.
            self.missing.push((changes::span_of(asked), next));
            asked.from + 1
        };
        self.next = self.next.min(covered);
        self.events.append(&mut events);
        self.events.sort_by_key(|event| (event.revision, event.sub));
        self.cut();
    }

    /// Takes the answer of another node. False if it cannot be understood, and the piece is to be read
    /// again.
    pub fn take_told(&mut self, asked: &AskedChanges, told: Told) -> bool {
        let page = changes::page(asked, told);
        let is_understood = page.is_some();
        match page {
            Some(page) => self.take(asked, page),
            None => self.put_back(asked),
        }
        is_understood
    }

    /// A piece was not read. Handed out again, it goes by the owners as they are then.
    pub fn put_back(&mut self, asked: &AskedChanges) {
        self.under_way -= 1;
        let from = Revision { main: asked.from, sub: asked.from_sub };
        self.missing.push((changes::span_of(asked), from));
    }

    /// Leaves out what the block will not have.
    fn cut(&mut self) {
        let limits = self.request.limits;
        let (mut count, mut bytes) = (0, 0);
        for revision in self.events.chunk_by(|one, other| one.revision == other.revision) {
            let at = revision[0].revision;
            let is_full = count >= limits.events_max || bytes >= limits.bytes_max;
            if is_full && at > self.request.from {
                self.next = self.next.min(at);
            }
            count += revision.len();
            bytes += revision.iter().map(changes::bytes).sum::<usize>();
        }
        let next = self.next;
        self.events.truncate(self.events.partition_point(|event| event.revision < next));
    }

    /// Whether all pieces were taken.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.under_way == 0
    }

    /// The block.
    ///
    /// # Panics
    /// If it is not complete.
    pub fn finish(self) -> Block {
        assert!(self.is_complete(), "every piece counts");
        Block { events: self.events, through: self.next - 1 }
    }
}
