//! From a request of a client to where it can be answered: commands go to the actor that owns
//! their range, reads take a ticket there and are then evaluated on the caller's own thread.
//!
//! It holds no decisions: the spine's machine decides what is refused, forwarded or answered.

mod head;
mod hot;
mod inbox;
mod overview;
mod pending;
mod record;
mod trace;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::Recipient;
use dashmap::DashMap;
use flotilla_core::auth::Pass;
use flotilla_core::command::{Answer, Command, Outcome};
use flotilla_core::mvcc::Head;
use flotilla_core::proto::internal::Told;
use flotilla_core::spine::replica::Question;
use flotilla_core::{Error, GroupId, NodeId};

pub use head::{Board, Notice, owner};
pub use hot::{Hot, REQUESTS_PER_LOOK, added_up};
pub use inbox::Inbox;
pub use overview::{Overview, SharedOverview};
pub use pending::Pending;
pub use record::{now_ms, on_record};
pub use trace::{Phase, Spent, Trace, phases};
pub use usage::Usage;

use crate::auth::Gate;
use crate::metrics::requests::{self, RequestKind};
use crate::metrics::upstream;
use crate::store::Store;

/// How often it is looked whether a range has got its new leader.
const TRANSFER_POLL: Duration = Duration::from_millis(20);
/// A hand-over may be lost on its way; it is asked for again after this.
const TRANSFER_AGAIN: Duration = Duration::from_secs(1);

/// A request on its way to the actor of its range. The actor answers it through `Pending`.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub enum Request {
    /// Something the leader must do, and what it was let in with; the number names it in `Pending`.
    /// It may be noted when it was taken up, as of the next.
    Command(u64, Pass, Command, Option<Arc<Trace>>),
    /// A read wants a ticket.
    Ticket(u64, Option<Arc<Trace>>),
    /// The reader went away.
    TicketUnwanted(u64),
    /// The leader of a range, wherever it is, is to hand over to this member. Not answered.
    Transfer(GroupId, NodeId),
    /// A read wants to know something of a range that is not read here.
    Question(u64, Question),
    /// The reader went away.
    QuestionUnwanted(u64),
}

/// A handle on the node's ranges. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    /// Which actor owns a group. The spine owns the whole keyspace while it is one range.
    actors: Arc<DashMap<GroupId, Recipient<Request>>>,
    pending: Arc<Pending>,
    /// Where answers to this handle's requests are found.
    inbox: Option<Arc<Inbox>>,
    next: Arc<AtomicU64>,
    board: Arc<Board>,
    store: Store,
    gate: Arc<Gate>,
}

impl Router {
    /// A router that knows no actor yet.
    pub fn new(pending: Arc<Pending>, board: Arc<Board>, store: Store, gate: Arc<Gate>) -> Self {
        let next = Arc::new(AtomicU64::new(1));
        Self { actors: Arc::new(DashMap::new()), pending, inbox: None, next, board, store, gate }
    }

    /// A handle for one worker, which is on the present thread.
    pub fn on_worker(self) -> Self {
        Self { inbox: Some(Inbox::start()), ..self }
    }

    /// Makes an actor reachable.
    pub fn register(&self, group: GroupId, actor: Recipient<Request>) {
        self.actors.insert(group, actor);
    }

    /// Has the leader carry out a command, with what it was let in with.
    ///
    /// # Errors
    /// What the leader answers, or a time-out when the outcome is unknown.
    pub async fn submit(&self, pass: Pass, command: Command) -> Outcome {
        self.submit_traced(pass, command, None).await
    }

    /// As `submit`, and notes where the time went.
    ///
    /// # Errors
    /// As `submit`.
    pub async fn submit_traced(
        &self,
        pass: Pass,
        command: Command,
        trace: Option<&Arc<Trace>>,
    ) -> Outcome {
        let (kind, began) = (RequestKind::of(&command), Instant::now());
        let outcome = self.submit_uncounted(pass, command, trace).await;
        if let Some(trace) = trace {
            trace.settle();
        }
        if let Some(kind) = kind {
            let is_lost = outcome.as_ref().is_err_and(is_end_unknown);
            requests::request_done(kind, began.elapsed(), !is_lost);
            if is_lost {
                metrics::counter!(upstream::PROPOSALS_FAILED).increment(1);
            }
        }
        outcome
    }

    async fn submit_uncounted(
        &self,
        pass: Pass,
        command: Command,
        trace: Option<&Arc<Trace>>,
    ) -> Outcome {
        self.board.usage().count_command();
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let answer = self.pending.expect_outcome(n, self.inbox.as_ref(), trace);
        if let Err(error) = self.send(Request::Command(n, pass, command, trace.cloned())) {
            self.pending.forget_outcome(n);
            return Err(error);
        }
        // The machine answers every request, with a time-out if need be; only a stopping node
        // drops the sender.
        answer.await.unwrap_or(Err(Error::Stopped))
    }

    /// Waits until this node's store has everything that was acknowledged before the call, and
    /// returns where it stands.
    ///
    /// # Errors
    /// No leader answered in time.
    pub async fn ticket(&self) -> Result<Head, Error> {
        self.ticket_traced(None).await
    }

    /// As `ticket`, and notes where the time went.
    ///
    /// # Errors
    /// As `ticket`.
    pub async fn ticket_traced(&self, trace: Option<&Arc<Trace>>) -> Result<Head, Error> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let answer = self.pending.expect_ticket(n, self.inbox.as_ref(), trace);
        let mut guard = TicketGuard { router: self, n, is_answered: false };
        self.send(Request::Ticket(n, trace.cloned()))?;
        let result = answer.await.unwrap_or(Err(Error::Stopped));
        guard.is_answered = true;
        if let Some(trace) = trace {
            trace.settle();
        }
        if let Err(error) = result {
            metrics::counter!(upstream::READ_INDEXES_FAILED).increment(1);
            if is_end_unknown(&error) {
                metrics::counter!(upstream::READ_INDEXES_SLOW).increment(1);
            }
            return Err(error);
        }
        Ok(self.head())
    }

    /// What may be read on this node, or on others at its word.
    pub fn head(&self) -> Head {
        if self.board.is_whole() { self.board.head() } else { self.board.reach().shown.head }
    }

    /// The spine index of what `head` says, or an earlier one.
    pub fn shown_index(&self) -> u64 {
        match self.board.is_whole() {
            true => self.board.applied_index(),
            false => self.board.reach().shown.index,
        }
    }

    /// Asks a node that shows a range. A refusal means: look anew who owns the keys, and whether they
    /// are read here.
    ///
    /// # Errors
    /// The node stops, or has no room.
    pub async fn ask(&self, question: Question) -> Result<Told, Error> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let answer = self.pending.expect_told(n, self.inbox.as_ref());
        let mut guard = QuestionGuard { router: self, n, is_answered: false };
        self.send(Request::Question(n, question))?;
        let told = answer.await.map_err(|_| Error::Stopped);
        guard.is_answered = true;
        told
    }

    /// Has a range led by a member. Answers when this node knows that it is.
    ///
    /// # Errors
    /// There is no such range, too much is under way on this node, or another leads it still.
    pub async fn transfer(
        &self,
        range: GroupId,
        to: NodeId,
        within: Duration,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + within;
        let mut again = Instant::now();
        loop {
            if self.board.range_leader(range).ok_or(Error::RangeNotFound)? == to {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Error::TimeoutLeaderTransfer);
            }
            if now >= again {
                self.send(Request::Transfer(range, to))?;
                again = now + TRANSFER_AGAIN;
            }
            tokio::time::sleep(TRANSFER_POLL).await;
        }
    }

    /// What is known of this node and the cluster.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Who clients are.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The applied state. Reads of it must name a revision at or below `board().head()`.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Commands of clients of this node that wait for their end.
    pub fn outcomes_pending(&self) -> usize {
        self.pending.outcomes_count()
    }

    fn send(&self, request: Request) -> Result<(), Error> {
        let actor = self.actors.get(&GroupId::SPINE).ok_or(Error::Stopped)?;
        actor.try_send(request).map_err(|error| match error {
            actix::prelude::SendError::Full(_) => Error::TooManyRequests,
            actix::prelude::SendError::Closed(_) => Error::Stopped,
        })
    }
}

/// Tells the machine when a reader's future is dropped before its ticket came.
struct TicketGuard<'a> {
    router: &'a Router,
    n: u64,
    is_answered: bool,
}

impl Drop for TicketGuard<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.router.pending.forget_ticket(self.n);
        // A full mailbox loses only the hint: the ticket ends by its deadline.
        let _ = self.router.send(Request::TicketUnwanted(self.n));
    }
}

/// Tells the machine when a reader's future is dropped before it was told.
struct QuestionGuard<'a> {
    router: &'a Router,
    n: u64,
    is_answered: bool,
}

impl Drop for QuestionGuard<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.router.pending.forget_question(self.n);
            // A full mailbox loses only the hint.
            let _ = self.router.send(Request::QuestionUnwanted(self.n));
        }
    }
}

/// An error that says nothing of what became of a request: nobody answered, or who did could not know.
fn is_end_unknown(error: &Error) -> bool {
    matches!(
        error,
        Error::Timeout
            | Error::TimeoutDueToLeaderFail
            | Error::TimeoutDueToConnectionLost
            | Error::TimeoutWaitAppliedIndex
            | Error::NoLeader
            | Error::Stopped
            | Error::TooManyRequests
    )
}

/// An answer of the kind that was asked for.
///
/// # Panics
/// When the machine answers with another kind, which is a bug in it.
pub fn expect_answer<T>(answer: Answer, take: impl FnOnce(Answer) -> Option<T>) -> T {
    take(answer).expect("the answer is of the command's kind")
}
