//! History on its way to a hub: what it wants, and what it is given. Who reads it, and where, is for
//! the driver to say: here (`BlockRequest::read`) if the node shows all the keys, or in pieces from
//! wherever they are (`remote::Assembly`).

use crate::Error;
use crate::mvcc::{self, Failure, Replay, ReplayLimits};
use crate::proto::Span;
use crate::view::{View, ViewError};

/// History that a hub wants. It may be read at any state that shows the revision `to` or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// Counts the requests of the hub.
    pub(super) number: u64,
    pub(super) aim: Aim,
    /// Of these keys.
    pub span: Span,
    /// The first revision.
    pub from: i64,
    /// The last revision, unless a limit comes first.
    pub to: i64,
    /// With the keys as they were before.
    pub wants_prev: bool,
    /// Where the block may end.
    pub limits: ReplayLimits,
}

/// Whom a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// The live watchers, who lack what was published without its events.
    Gap,
    /// Watchers that are behind, but nearly up to date.
    Near,
    /// Watchers that are behind, in their turn.
    Sweep,
}

/// Consecutive revisions with all their events on the keys that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// In the order of revision and sub-revision.
    pub events: Vec<mvcc::Event>,
    /// The last revision it covers: at least the first that was asked for.
    pub through: i64,
}

impl BlockRequest {
    /// For tests of what puts blocks together.
    #[cfg(test)]
    pub(crate) fn of(
        span: Span,
        from: i64,
        to: i64,
        wants_prev: bool,
        limits: ReplayLimits,
    ) -> Self {
        Self { number: 0, aim: Aim::Sweep, span, from, to, wants_prev, limits }
    }

    /// Reads it from a store that shows all of its keys. `None` when some of it is compacted, which
    /// the next head will tell.
    ///
    /// # Errors
    /// The store cannot be read. The process must stop.
    pub fn read(&self, view: &dyn View) -> Result<Option<Block>, ViewError> {
        let Self { span, from, to, wants_prev, limits, .. } = self;
        match mvcc::events_from(view, span, *from, *to, *wants_prev, *limits) {
            Ok(Replay { events, next }) => Ok(Some(Block { events, through: next - 1 })),
            Err(Failure::Overtaken | Failure::Client(Error::Compacted)) => Ok(None),
            Err(Failure::View(error)) => Err(error),
            Err(Failure::Client(error)) => Err(ViewError(format!("history refused: {error}"))),
        }
    }
}
