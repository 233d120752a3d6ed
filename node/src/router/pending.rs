//! Who waits for what on this node: the other ends of requests handed to the range actors.

use dashmap::DashMap;
use flotilla_core::Error;
use flotilla_core::command::Outcome;
use flotilla_core::proto::internal::Told;
use tokio::sync::oneshot;

/// Requests and tickets under way. Bounded by the machine, which refuses what is too much.
#[derive(Debug, Default)]
pub struct Pending {
    outcomes: DashMap<u64, oneshot::Sender<Outcome>>,
    tickets: DashMap<u64, oneshot::Sender<Result<(), Error>>>,
    questions: DashMap<u64, oneshot::Sender<Told>>,
}

impl Pending {
    /// Opens the place where request `n` will be answered.
    pub fn expect_outcome(&self, n: u64) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.outcomes.insert(n, sender);
        receiver
    }

    /// Requests that wait for their outcome.
    pub fn outcomes_count(&self) -> usize {
        self.outcomes.len()
    }

    /// Opens the place where ticket `n` will be answered.
    pub fn expect_ticket(&self, n: u64) -> oneshot::Receiver<Result<(), Error>> {
        let (sender, receiver) = oneshot::channel();
        self.tickets.insert(n, sender);
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

    /// Answers a request; nothing happens when its client went away.
    pub fn answer(&self, n: u64, outcome: Outcome) {
        if let Some((_, sender)) = self.outcomes.remove(&n) {
            // The client went away.
            let _ = sender.send(outcome);
        }
    }

    /// Answers a ticket.
    pub fn answer_ticket(&self, n: u64, result: Result<(), Error>) {
        if let Some((_, sender)) = self.tickets.remove(&n) {
            // The client went away.
            let _ = sender.send(result);
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
