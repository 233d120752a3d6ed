//! What must wait for the disk: which appends are on their way, and which messages may leave only
//! after them. The one place that decides when a message leaves; it never reorders appends.

use std::collections::VecDeque;

use super::effect::{Append, Effect};
use super::message::Kind;

/// The appends that are not known to be on disk, oldest first, with the messages behind them.
#[derive(Debug)]
pub(super) struct Outbox {
    pending: VecDeque<Pending>,
    /// Term that is on disk.
    durable_term: u64,
    /// Appends held back while a snapshot is being installed; `None` when none is.
    withheld: Option<Vec<Effect>>,
    /// Newest token handed to the driver, and newest reported back.
    released: Option<u64>,
    persisted: Option<u64>,
}

#[derive(Debug)]
struct Pending {
    token: u64,
    term: u64,
    has_entries: bool,
    messages: Vec<Effect>,
}

impl Outbox {
    pub(super) fn new(durable_term: u64) -> Self {
        Self {
            pending: VecDeque::new(),
            durable_term,
            withheld: None,
            released: None,
            persisted: None,
        }
    }

    /// Notes an append. Returns it for the driver, unless it must wait until the snapshot before
    /// it is installed.
    pub(super) fn append(&mut self, append: Append) -> Option<Effect> {
        let newest = self.pending.back().map(|pending| pending.token).or(self.persisted);
        assert!(newest.is_none_or(|newest| newest < append.token), "tokens must grow");
        self.pending.push_back(Pending {
            token: append.token,
            term: append.hard_state.term,
            has_entries: !append.entries.is_empty(),
            messages: Vec::new(),
        });
        if let Some(withheld) = &mut self.withheld {
            withheld.push(Effect::Append(append));
            return None;
        }
        self.released = Some(append.token);
        Some(Effect::Append(append))
    }

    /// Lets a message of a node in this term out, now or when everything before it is on disk.
    pub(super) fn message(&mut self, kind: Kind, term: u64, effect: Effect, out: &mut Vec<Effect>) {
        // A leader of one voter elects itself in one step: even its appends must not leave before
        // the term they speak for cannot be forgotten.
        let is_term_durable = term <= self.durable_term;
        let may_leave = kind == Kind::ReadIndex || (is_term_durable && !kind.is_promise());
        match self.pending.back_mut() {
            Some(newest) if !may_leave => newest.messages.push(effect),
            _ => {
                let is_safe = kind == Kind::ReadIndex || is_term_durable;
                assert!(is_safe, "a message would speak for a term that is not on disk");
                out.push(effect);
            }
        }
    }

    /// The append with this token and all before it are on disk. Lets the messages behind them
    /// out, oldest first. `false` if that was known already.
    pub(super) fn persist(&mut self, token: u64, out: &mut Vec<Effect>) -> bool {
        assert!(self.released.is_some_and(|released| token <= released), "unknown token");
        if self.persisted.is_some_and(|persisted| token <= persisted) {
            return false;
        }
        self.persisted = Some(token);
        while self.pending.front().is_some_and(|oldest| oldest.token <= token) {
            let persisted = self.pending.pop_front().expect("there is a front");
            self.durable_term = persisted.term;
            out.extend(persisted.messages);
        }
        true
    }

    /// Whether everything that was handed to the driver is on disk.
    pub(super) fn is_all_persisted(&self) -> bool {
        self.released <= self.persisted
    }

    /// Token of the oldest append that is not on disk.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.pending.front().map(|pending| pending.token)
    }

    /// No entries are on their way to disk.
    pub(super) fn is_log_persisted(&self) -> bool {
        !self.pending.iter().any(|pending| pending.has_entries)
    }

    /// From here on appends wait for a snapshot to be installed.
    pub(super) fn withhold(&mut self) {
        assert!(self.withheld.is_none(), "one snapshot at a time");
        self.withheld = Some(Vec::new());
    }

    /// The snapshot is installed: hands out the appends that waited. `false` if none was.
    pub(super) fn release(&mut self, out: &mut Vec<Effect>) -> bool {
        let Some(withheld) = self.withheld.take() else { return false };
        self.released = self.pending.back().map(|pending| pending.token);
        out.extend(withheld);
        true
    }
}
