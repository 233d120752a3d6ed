//! Who waits for what on this node: the other ends of requests handed to the range actors.

use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;
use flotilla_core::Error;
use flotilla_core::command::Outcome;
use flotilla_core::proto::internal::Told;
use tokio::sync::oneshot;

use super::inbox::{Inbox, Letter};
use super::trace::{Phase, Trace};

/// Requests and tickets under way. Bounded by the machine, which refuses what is too much.
#[derive(Debug, Default)]
pub struct Pending {
    outcomes: DashMap<u64, Waiting<Outcome>>,
    tickets: DashMap<u64, Waiting<Result<(), Error>>>,
    questions: DashMap<u64, Waiting<Told>>,
}

/// Someone waits.
#[derive(Debug)]
struct Waiting<T> {
    answer: oneshot::Sender<T>,
    /// Where the answer is found; by itself if there is none.
    inbox: Option<Arc<Inbox>>,
    /// Where it is noted what kept the answer waiting.
    trace: Option<Arc<Trace>>,
}

impl<T> Waiting<T> {
    fn new(inbox: Option<&Arc<Inbox>>, trace: Option<&Arc<Trace>>) -> (Self, oneshot::Receiver<T>) {
        let (answer, receiver) = oneshot::channel();
        (Self { answer, inbox: inbox.cloned(), trace: trace.cloned() }, receiver)
    }

    fn note(&self, note: impl FnOnce(&Trace)) {
        self.trace.as_deref().inspect(|trace| note(trace));
    }

    fn give(self, letter: impl FnOnce(oneshot::Sender<T>) -> Letter) {
        let letter = letter(self.answer);
        match self.inbox {
            Some(inbox) => inbox.put(letter),
            None => letter.deliver(),
        }
    }
}

impl Pending {
    /// Opens the place where request `n` will be answered.
    pub fn expect_outcome(
        &self,
        n: u64,
        inbox: Option<&Arc<Inbox>>,
        trace: Option<&Arc<Trace>>,
    ) -> oneshot::Receiver<Outcome> {
        let (waiting, receiver) = Waiting::new(inbox, trace);
        self.outcomes.insert(n, waiting);
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
        inbox: Option<&Arc<Inbox>>,
        trace: Option<&Arc<Trace>>,
    ) -> oneshot::Receiver<Result<(), Error>> {
        let (waiting, receiver) = Waiting::new(inbox, trace);
        self.tickets.insert(n, waiting);
        receiver
    }

    /// Opens the place where question `n` will be answered.
    pub fn expect_told(&self, n: u64, inbox: Option<&Arc<Inbox>>) -> oneshot::Receiver<Told> {
        let (waiting, receiver) = Waiting::new(inbox, None);
        self.questions.insert(n, waiting);
        receiver
    }

    /// Answers a question.
    pub fn tell(&self, n: u64, told: Told) {
        if let Some((_, waiting)) = self.questions.remove(&n) {
            waiting.give(|answer| Letter::Told(answer, told));
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
        if let Some((_, waiting)) = self.outcomes.remove(&n) {
            waiting.note(note);
            waiting.give(|answer| Letter::Outcome(answer, outcome));
        }
    }

    /// Notes how far a request has come that is not answered yet.
    pub fn note(&self, n: u64, note: impl FnOnce(&Trace)) {
        if let Some(waiting) = self.outcomes.get(&n) {
            waiting.note(note);
        }
    }

    /// Answers a ticket.
    pub fn answer_ticket(&self, n: u64, result: Result<(), Error>) {
        if let Some((_, waiting)) = self.tickets.remove(&n) {
            waiting.note(|trace| trace.reach(Phase::Order, Instant::now()));
            waiting.give(|answer| Letter::Ticket(answer, result));
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
