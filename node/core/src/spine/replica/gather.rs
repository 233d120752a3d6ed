//! Transactions that are coordinated on a node which does not hold all of their ranges: when all keys
//! are locked and the ticket has come, the rows they are decided on are fetched from others (`remote`).
//! As the keys are locked, it does not matter when.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::RequestId;
use crate::mvcc::{Failure, Head};
use crate::proto::internal::{Told, ask::What};
use crate::remote::{self, Gathering};
use crate::spine::Shown;
use crate::spine::replica::ask::Asker;
use crate::spine::replica::{Question, Replica};
use crate::{Error, txn};

/// Transactions whose rows are fetched.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    under_way: BTreeMap<RequestId, Gather>,
    /// To begin again with the next tick: somebody did not show what was asked for.
    again: BTreeSet<RequestId>,
}

#[derive(Debug)]
struct Gather {
    /// The state they are read at.
    shown: Shown,
    gathering: Gathering,
}

impl Replica {
    /// A transaction's ticket has come.
    pub(super) fn begin_gathering(&mut self, id: RequestId) {
        let shown = self.reach.shown;
        let gathering = match self.txns.job(id) {
            Some(job) if !self.reach.lacking.is_empty() => Gathering::of_job(job),
            _ => Gathering::default(),
        };
        self.gathers.under_way.insert(id, Gather { shown, gathering });
        self.gather_next(id);
    }

    fn gather_next(&mut self, id: RequestId) {
        let Some(gather) = self.gathers.under_way.get_mut(&id) else { return };
        let reach = &self.reach;
        let next = gather.gathering.next(&reach.owners, |range| reach.has(range));
        let shown = gather.shown;
        match next {
            Some((range, rows)) => {
                let question = Question { range, shown, what: What::Rows(rows) };
                self.ask_for(Asker::Txn(id), question);
            }
            None => self.txns.input(id, txn::Input::Ticket(shown.head)),
        }
    }

    pub(super) fn on_rows_told(&mut self, id: RequestId, told: Told) {
        let Some(gather) = self.gathers.under_way.get_mut(&id) else { return };
        if told.is_refused {
            self.gather_again(id);
            return;
        }
        let taken = match remote::outcome(told) {
            Ok(told) => gather.gathering.take(told.rows, told.next).map_err(Failure::Client),
            Err(failure) => Err(failure),
        };
        match taken {
            Ok(()) => self.gather_next(id),
            Err(Failure::Client(error)) => self.fail_gathering(id, error),
            // A compaction came in between: with a newer head.
            Err(Failure::Overtaken | Failure::View(_)) => self.gather_again(id),
        }
    }

    fn fail_gathering(&mut self, id: RequestId, error: Error) {
        self.gathers.under_way.remove(&id);
        self.txns.input(id, txn::Input::TicketFailed(error));
    }

    pub(super) fn gather_again(&mut self, id: RequestId) {
        self.gathers.under_way.remove(&id);
        self.gathers.again.insert(id);
    }

    pub(super) fn tick_gathers(&mut self) {
        for id in std::mem::take(&mut self.gathers.again) {
            self.begin_gathering(id);
        }
        let txns = &self.txns;
        self.gathers.under_way.retain(|id, _| txns.job(*id).is_some());
    }

    /// What was fetched for a transaction that is about to be decided; `None` if what was relied on is
    /// not here any more, or it has to be fetched anew.
    pub(super) fn take_gathered(&mut self, id: RequestId, head: Head) -> Option<Gathering> {
        let gather = self.gathers.under_way.remove(&id)?;
        let reach = &self.reach;
        let is_here = gather.gathering.is_still_here(&reach.owners, |range| reach.has(range));
        if gather.shown.head == head && is_here {
            return Some(gather.gathering);
        }
        self.gathers.again.insert(id);
        None
    }
}
