//! What a node found on disk when it started, and how log and state are brought together again
//! after a crash between their writes. Never guesses: what cannot be explained by a crash is an
//! error.

use super::conf;
use super::config::Error;
use super::entry::{Entry, HardState, Position};
use crate::proto::internal;

/// A group as it was found on disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// As in the newest `Append` that survived.
    pub hard_state: HardState,
    /// Place before the first entry.
    pub truncated: Position,
    /// The log after it.
    pub entries: Vec<Entry>,
    /// Where the state stands, stored in the same batch as the state.
    pub applied: Position,
    /// Membership at `applied`, stored in the same batch.
    pub conf: internal::ConfState,
}

impl Recovered {
    /// Where the state of a new cluster stands. It is not zero, so that a node without any state
    /// can never follow the log from its beginning and miss the first membership.
    pub const FIRST: Position = Position { index: 1, term: 1 };

    /// A first member of a new group. The state at `FIRST` must be on disk, the log may be empty.
    pub fn first(conf: internal::ConfState) -> Self {
        Self { applied: Self::FIRST, conf, ..Self::default() }
    }

    /// A node that has nothing yet and waits to be added to an existing group.
    pub fn joining() -> Self {
        Self::default()
    }

    /// What `reconcile` would say, for whoever wants to know without starting a group. Gives back the
    /// place after which the log on disk would start anew.
    ///
    /// # Errors
    /// Log and state cannot have come about together.
    pub fn check(mut self) -> Result<Option<Position>, Error> {
        self.reconcile()
    }

    /// Checks everything, and mends the one difference a crash can leave: the state was replaced
    /// by a snapshot (or written for the first time) and the log was not yet. Returns the place
    /// after which the log on disk must start anew, if so.
    pub(super) fn reconcile(&mut self) -> Result<Option<Position>, Error> {
        self.check_log()?;
        if self.applied == Position::default() {
            if self.conf != internal::ConfState::default() {
                return Err(Error::ConfWithoutState);
            }
        } else {
            conf::check(&self.conf).map_err(Error::Conf)?;
        }
        if self.truncated.index > self.applied.index {
            return Err(Error::StateBehindLog {
                applied: self.applied.index,
                truncated: self.truncated.index,
            });
        }
        let reset = self.reset_if_state_is_ahead()?;
        self.check_term()?;
        let last = self.last();
        self.hard_state.commit = self.hard_state.commit.max(self.applied.index);
        if self.hard_state.commit > last.index {
            return Err(Error::LogLost { last: last.index, commit: self.hard_state.commit });
        }
        Ok(reset)
    }

    /// Whether the entries follow each other.
    ///
    /// # Errors
    /// They do not.
    pub fn check_log(&self) -> Result<(), Error> {
        let mut before = self.truncated;
        for entry in &self.entries {
            if entry.index != before.index + 1 || entry.term < before.term || entry.term == 0 {
                let (index, term) = (entry.index, entry.term);
                return Err(Error::Gap { after: before.index, index, term });
            }
            before = entry.position();
        }
        Ok(())
    }

    /// Whether the term on disk is that of the log, or later.
    pub(super) fn check_term(&self) -> Result<(), Error> {
        let (stored, found) = (self.hard_state.term, self.last().term);
        if stored < found { Err(Error::TermLost { stored, found }) } else { Ok(()) }
    }

    fn reset_if_state_is_ahead(&mut self) -> Result<Option<Position>, Error> {
        if self.position_at(self.applied.index) == Some(self.applied) {
            return Ok(None);
        }
        if self.applied.index <= self.hard_state.commit {
            // Only a snapshot beyond the committed entries replaces the state.
            return Err(Error::StateDisagrees { applied: self.applied.index });
        }
        self.truncated = self.applied;
        self.entries.clear();
        if self.hard_state.term < self.applied.term {
            // A vote is on disk before it is given, so none was given in this term.
            self.hard_state.term = self.applied.term;
            self.hard_state.vote = 0;
        }
        Ok(Some(self.applied))
    }

    fn position_at(&self, index: u64) -> Option<Position> {
        let after = index.checked_sub(self.truncated.index)?;
        match after {
            0 => Some(self.truncated),
            _ => self.entries.get(usize::try_from(after - 1).ok()?).map(Entry::position),
        }
    }

    fn last(&self) -> Position {
        self.entries.last().map_or(self.truncated, Entry::position)
    }
}
