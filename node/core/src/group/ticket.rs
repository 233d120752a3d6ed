//! The tickets of one group: read indexes asked for and not yet answered. raft-rs forgets such a
//! request in silence when there is no leader, when the leader has committed nothing in its term,
//! or when a message is lost; this book makes sure that each gets exactly one answer, and that an
//! answer is only ever taken for the request it belongs to.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::NodeId;
use crate::proto::internal;

/// Bytes of a ticket between nodes: node, nonce, number.
const NAME_BYTES: usize = 24;

/// The open tickets of this node, and requests of other nodes that a new leader holds back.
#[derive(Debug)]
pub(super) struct Book {
    node: NodeId,
    /// Drawn once per start, so that no late answer to an earlier start is taken for one to this.
    nonce: u64,
    /// Ticks since the start.
    clock: u64,
    ticks_max: u64,
    count_max: usize,
    /// Not asked yet, oldest first.
    waiting: VecDeque<Ticket>,
    /// Asked of the present leader in the present term, oldest first.
    asked: VecDeque<Ticket>,
    /// Requests of peers, held until this leader has committed an entry of its term.
    held: Vec<internal::RaftMessage>,
}

#[derive(Clone, Copy, Debug)]
struct Ticket {
    context: u64,
    since: u64,
}

impl Book {
    pub(super) fn new(node: NodeId, nonce: u64, ticks_max: usize, count_max: usize) -> Self {
        Self {
            node,
            nonce,
            clock: 0,
            ticks_max: ticks_max as u64,
            count_max,
            waiting: VecDeque::new(),
            asked: VecDeque::new(),
            held: Vec::new(),
        }
    }

    /// Takes a ticket; `false` if there are too many, which drops it.
    pub(super) fn take(&mut self, context: u64) -> bool {
        if self.waiting.len() + self.asked.len() >= self.count_max {
            return false;
        }
        self.waiting.push_back(Ticket { context, since: self.clock });
        true
    }

    /// Nothing waits, for this node or for a peer.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.asked.is_empty() && self.held.is_empty()
    }

    /// Holds a peer's request back; `false` if there are too many.
    pub(super) fn hold(&mut self, message: internal::RaftMessage) -> bool {
        if self.held.len() >= self.count_max {
            return false;
        }
        self.held.push(message);
        true
    }

    /// The requests of peers that were held back.
    pub(super) fn release(&mut self) -> Vec<internal::RaftMessage> {
        std::mem::take(&mut self.held)
    }

    /// The next ticket that is not asked yet, by its name between nodes. It counts as asked.
    pub(super) fn ask_next(&mut self) -> Option<Vec<u8>> {
        let ticket = self.waiting.pop_front()?;
        self.asked.push_back(ticket);
        let mut name = Vec::with_capacity(NAME_BYTES);
        for part in [self.node.0, self.nonce, ticket.context] {
            name.extend_from_slice(&part.to_be_bytes());
        }
        Some(name)
    }

    /// An answer has come for this name. Returns the ticket if it is one that waits for it.
    pub(super) fn answer(&mut self, name: &[u8]) -> Option<u64> {
        let at = self.find(name)?;
        self.asked.remove(at).map(|ticket| ticket.context)
    }

    /// Whether an answer for this name is waited for.
    pub(super) fn is_asked(&self, name: &Bytes) -> bool {
        self.find(name).is_some()
    }

    /// One tick has passed. Returns the tickets that waited too long; allocates only for them.
    pub(super) fn tick(&mut self) -> Vec<u64> {
        self.clock += 1;
        let mut dropped = Vec::new();
        for queue in [&mut self.asked, &mut self.waiting] {
            while queue.front().is_some_and(|ticket| self.clock - ticket.since > self.ticks_max) {
                dropped.extend(queue.pop_front().map(|ticket| ticket.context));
            }
        }
        dropped
    }

    /// Role, leader or term changed: what was asked will not be answered, and must not be asked
    /// again under its name. What was not asked yet goes on waiting.
    pub(super) fn change_leader(&mut self) -> impl Iterator<Item = u64> {
        self.held.clear();
        std::mem::take(&mut self.asked).into_iter().map(|ticket| ticket.context)
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let (node, rest) = name.split_first_chunk::<8>()?;
        let (nonce, rest) = rest.split_first_chunk::<8>()?;
        let (context, rest) = rest.split_first_chunk::<8>()?;
        if !rest.is_empty()
            || u64::from_be_bytes(*node) != self.node.0
            || u64::from_be_bytes(*nonce) != self.nonce
        {
            return None;
        }
        let context = u64::from_be_bytes(*context);
        self.asked.iter().position(|ticket| ticket.context == context)
    }
}
