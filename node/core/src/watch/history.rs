//! Events of the past, read from the store in blocks of whole revisions. Owns where a block
//! ends; never keeps one.

use std::ops::ControlFlow;

use super::Event;
use super::limits::Limits;
use crate::mvcc;
use crate::view::ViewError;

/// Called for each event; `Break` ends the visit.
pub type Visit<'a> = &'a mut dyn FnMut(mvcc::Event) -> ControlFlow<()>;

/// What a store remembers of its changes.
pub trait History {
    /// Visits the events of the revisions `from..=to` in the order of revision and sub-revision.
    /// Without `wants_prev` their `prev` may be left out.
    ///
    /// # Errors
    /// The store cannot be read.
    fn visit(
        &self,
        from: i64,
        to: i64,
        wants_prev: bool,
        visit: Visit<'_>,
    ) -> Result<(), ViewError>;

    /// The compacted revision at this moment, -1 before any compaction: events below it may be
    /// missing, at it and above they are complete.
    ///
    /// # Errors
    /// The store cannot be read.
    fn compact_revision(&self) -> Result<i64, ViewError>;
}

/// Consecutive revisions with all their events.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) events: Vec<Event>,
    /// The last revision it covers.
    pub(super) through: i64,
    /// Compacted by the time it was read: if that is above the first revision asked for, events
    /// may be missing.
    pub(super) compact_revision: i64,
}

impl Block {
    /// Reads from `from` up to `to`, or up to a limit, but at least one whole revision.
    pub(super) fn read(
        history: &dyn History,
        from: i64,
        to: i64,
        wants_prev: bool,
        limits: &Limits,
    ) -> Result<Self, ViewError> {
        let mut events: Vec<Event> = Vec::new();
        let mut bytes = 0;
        let mut through = to;
        history.visit(from, to, wants_prev, &mut |change| {
            let last = events.last().map(|event| event.change().revision);
            let is_full = events.len() >= limits.block_events_max || bytes >= limits.block_bytes_max;
            if let Some(last) = last
                && is_full
                && change.revision > last
            {
                through = last;
                return ControlFlow::Break(());
            }
            bytes += change.kv.len() + change.prev.as_ref().map_or(0, |prev| prev.len());
            events.push(change.into());
            ControlFlow::Continue(())
        })?;
        // Asked only now: a compaction that came while the block was read counts as well.
        let compact_revision = history.compact_revision()?;
        Ok(Self { events, through, compact_revision })
    }
}
