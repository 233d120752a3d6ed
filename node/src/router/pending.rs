//! Who waits for what on this node: the other ends of requests handed to the range actors.

use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;
use flotilla_core::Error;
use flotilla_core::command::Outcome;
use flotilla_core::proto::internal::Told;
use tokio::sync::oneshot;

use super::trace::{Phase, Trace};

/// Requests and tickets under way. Bounded by the machine, which refuses what is too much.
#[derive(Debug, Default)]
pub struct Pending {
    outcomes: DashMap<u64, Waiter<Outcome>>,
    tickets: DashMap<u64, Waiter<Result<(), Error>>>,
    questions: DashMap<u64, oneshot::Sender<Told>>,
}

/// Who waits, and where it is noted what kept it waiting.
#[derive(Debug)]
struct Waiter<T> {
    sender: oneshot::Sender<T>,
    trace: Option<Arc<Trace>>,
}

impl<T> Waiter<T> {
    fn answer(self, answer: T) {
        // The client may have gone away.
        let _ = self.sender.send(answer);
    }
}

impl Pending {
    /// Opens the place where request `n` will be answered.
    pub fn expect_outcome(&self, n: u64, trace: Option<Arc<Trace>>) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.outcomes.insert(n, Waiter { sender, trace });
        receiver
    }

    /// Requests that wait for their outcome.
    pub fn outcomes_count(&self) -> usize {
        self.outcomes.len()
    }

    /// Opens the place where ticket `n` will be answered.
    pub fn expect_ticket(
        &self,
        n: u64,
        trace: Option<Arc<Trace>>,
    ) -> oneshot::Receiver<Result<(), Error>> {
        let (sender, receiver) = oneshot::channel();
        self.tickets.insert(n, Waiter { sender, trace });
        receiver
    }

    /// Opens the place where question `n` will be answered.
    pub fn expect_told(&self, n: u64) -> oneshot::Receiver<Told> {
        let (sender, receiver) = oneshot::channel();
        self.questions.insert(n, sender);
        receiver
    }

    /// Answers a question.
    pub fn tell(&self, n: u64, told: Told) {
        if let Some((_, sender)) = self.questions.remove(&n) {
            // The client went away.
            let _ = sender.send(told);
        }
    }

    /// The reader went away.
    pub fn forget_question(&self, n: u64) {
        self.questions.remove(&n);
    }

    /// Answers a request; nothing happens when its client went away. If nothing is known of a store
    /// that it waited for, it had to wait for its place in the order.
    pub fn answer(&self, n: u64, outcome: Outcome) {
        self.answer_noting(n, outcome, |trace| {
            let is_ordered = trace.has_reached(Phase::Order);
            trace.reach(if is_ordered { Phase::Apply } else { Phase::Order }, Instant::now());
        });
    }

    /// Answers a request, and has it noted what kept it waiting.
    pub fn answer_noting(&self, n: u64, outcome: Outcome, note: impl FnOnce(&Trace)) {
        if let Some((_, waiter)) = self.outcomes.remove(&n) {
            waiter.trace.as_deref().inspect(|trace| note(trace));
            waiter.answer(outcome);
        }
    }

    /// Notes how far a request has come that is not answered yet.
    pub fn note(&self, n: u64, note: impl FnOnce(&Trace)) {
        if let Some(waiter) = self.outcomes.get(&n) {
            waiter.trace.as_deref().inspect(|trace| note(trace));
        }
    }

    /// Answers a ticket.
    pub fn answer_ticket(&self, n: u64, result: Result<(), Error>) {
        if let Some((_, waiter)) = self.tickets.remove(&n) {
            if let Some(trace) = &waiter.trace {
                trace.reach(Phase::Order, Instant::now());
            }
            waiter.answer(result);
        }
    }

    /// The reader went away.
    pub fn forget_ticket(&self, n: u64) {
        self.tickets.remove(&n);
    }

    /// A request that could not be handed over.
    pub fn forget_outcome(&self, n: u64) {
        self.outcomes.remove(&n);
    }

    /// The node stops: everyone who waits is told so.
    pub fn stop(&self) {
        self.outcomes.clear();
        self.tickets.clear();
        self.questions.clear();
    }
}
