//! Who waits for what on this node: the other ends of requests handed to the range actors.

use std::sync::Arc;

use dashmap::DashMap;
use flotilla_core::Error;
use flotilla_core::command::Outcome;
use flotilla_core::proto::internal::Told;
use tokio::sync::oneshot;

use super::inbox::{Inbox, Letter};

/// Requests and tickets under way. Bounded by the machine, which refuses what is too much.
#[derive(Debug, Default)]
pub struct Pending {
    outcomes: DashMap<u64, Waiting<Outcome>>,
    tickets: DashMap<u64, Waiting<Result<(), Error>>>,
    questions: DashMap<u64, Waiting<Told>>,
}

/// Someone waits, and finds the answer in the inbox of its worker if it has one.
#[derive(Debug)]
struct Waiting<T> {
    answer: oneshot::Sender<T>,
    inbox: Option<Arc<Inbox>>,
}

impl<T> Waiting<T> {
    fn new(inbox: Option<&Arc<Inbox>>) -> (Self, oneshot::Receiver<T>) {
        let (answer, receiver) = oneshot::channel();
        (Self { answer, inbox: inbox.cloned() }, receiver)
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
    pub fn expect_outcome(&self, n: u64, inbox: Option<&Arc<Inbox>>) -> oneshot::Receiver<Outcome> {
        let (waiting, receiver) = Waiting::new(inbox);
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
    ) -> oneshot::Receiver<Result<(), Error>> {
        let (waiting, receiver) = Waiting::new(inbox);
        self.tickets.insert(n, waiting);
        receiver
    }

    /// Opens the place where question `n` will be answered.
    pub fn expect_told(&self, n: u64, inbox: Option<&Arc<Inbox>>) -> oneshot::Receiver<Told> {
        let (waiting, receiver) = Waiting::new(inbox);
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

    /// Answers a request; nothing happens when its client went away.
    pub fn answer(&self, n: u64, outcome: Outcome) {
        if let Some((_, waiting)) = self.outcomes.remove(&n) {
            waiting.give(|answer| Letter::Outcome(answer, outcome));
        }
    }

    /// Answers a ticket.
    pub fn answer_ticket(&self, n: u64, result: Result<(), Error>) {
        if let Some((_, waiting)) = self.tickets.remove(&n) {
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
