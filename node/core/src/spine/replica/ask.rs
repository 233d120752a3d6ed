//! Questions to nodes that show a range which this one does not (`remote`), and those of others.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use crate::command::RequestId;
use crate::mutant::{self, Mutant};
use crate::proto::internal::{Ask, Told, ask::What};
use crate::spine::replica::{Effect, Parcel, Replica, Shown};
use crate::time::{Length, Time};
use crate::{GroupId, NodeId, remote};

/// Questions of this node's readers that are under way; a further one is refused, and its reader looks
/// anew after a while.
const OPEN_MAX: usize = 10_000;
/// Set in the numbers of questions that the machine itself asks.
const OWN: u64 = 1 << 63;

/// A question that is not answered by then goes to another node.
const ANOTHER_AFTER: Length = Length::from_ms(500);
/// How long a node that lags behind keeps a question, to answer it when it has come so far.
const KEEP_FOR: Length = Length::from_ms(400);
/// Questions of others that wait; further ones are refused.
const KEPT_MAX: usize = 1_000;

/// What a reader wants to know of a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The range.
    pub range: GroupId,
    /// The state it reads. Readers may know of a newer one than the machine does.
    pub shown: Shown,
    /// See `internal::Ask`.
    pub what: What,
}

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A reader, by its number.
    Reader(u64),
    /// A transaction that is coordinated here.
    Txn(RequestId),
    /// Whether this node has a part in a range that it is not to hold.
    Leaving(GroupId),
}

/// Questions under way.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// Of this node.
    open: BTreeMap<u64, Open>,
    own_count: u64,
    /// Of others, until this node shows as much.
    kept: VecDeque<(NodeId, Ask, Time)>,
}

#[derive(Debug)]
struct Open {
    asker: Asker,
    ask: Ask,
    since: Time,
    /// Who was asked last, and when.
    sent: Option<(NodeId, Time)>,
    /// How many were asked.
    tries: u64,
}

impl Replica {
    /// A reader wants to know; it is answered once.
    pub(super) fn on_question(&mut self, n: u64, question: Question) {
        assert!(n & OWN == 0, "a reader's question is not one of the machine's");
        self.open_question(n, Asker::Reader(n), question);
    }

    /// The machine wants to know. At most one question for an asker is under way.
    pub(super) fn ask_for(&mut self, asker: Asker, question: Question) {
        if self.asks.open.range(OWN..).all(|(_, open)| open.asker != asker) {
            self.asks.own_count += 1;
            self.open_question(OWN | self.asks.own_count, asker, question);
        }
    }

    fn open_question(&mut self, n: u64, asker: Asker, question: Question) {
        let Question { range, shown, what } = question;
        let ask = Ask {
            origin: self.config.origin,
            n,
            range: range.0,
            index: shown.index,
            revision: shown.head.revision,
            compact_revision: shown.head.compact_revision,
            what: Some(what),
        };
        if self.asks.open.len() >= OPEN_MAX {
            self.tell_asker(asker, remote::refusal(&ask));
            return;
        }
        let open = Open { asker, ask, since: self.now, sent: None, tries: n & !OWN };
        let before = self.asks.open.insert(n, open);
        assert!(before.is_none(), "a question has a number of its own");
        self.ask(n);
    }

    pub(super) fn forget_question(&mut self, n: u64) {
        self.asks.open.remove(&n);
    }

    /// Puts a question to the next node that may know.
    fn ask(&mut self, n: u64) {
        let Some(open) = self.asks.open.get(&n) else { return };
        let holders = self.holders(GroupId(open.ask.range));
        let connected = |node: &NodeId| self.connected.contains_key(node);
        let holders: Vec<NodeId> = holders.into_iter().filter(connected).collect();
        let open = self.asks.open.get_mut(&n).expect("it was just found");
        open.sent = None;
        if holders.is_empty() {
            return;
        }
        let at = usize::try_from(open.tries % holders.len() as u64).expect("less than the length");
        open.tries += 1;
        open.sent = Some((holders[at], self.now));
        self.out.push(Effect::Send(holders[at], Parcel::Ask(open.ask.clone())));
    }

    /// Other nodes with a replica of a range.
    fn holders(&self, range: GroupId) -> Vec<NodeId> {
        let mut holders: Vec<NodeId> = match self.state.ranges().get(range) {
            Some(known) => known.replicas.clone(),
            None => self.state.members().keys().copied().map(NodeId).collect(),
        };
        holders.retain(|node| *node != self.node());
        holders
    }

    pub(super) fn on_told(&mut self, from: NodeId, told: Told) {
        let n = told.n;
        if told.origin != self.config.origin {
            return;
        }
        let Some(open) = self.asks.open.get_mut(&n) else { return };
        if open.sent.is_none_or(|(to, _)| to != from) {
            return;
        }
        if told.is_refused {
            // Asked again by the tick, with whatever is known by then.
            open.sent = None;
            return;
        }
        let asker = open.asker;
        self.asks.open.remove(&n);
        self.tell_asker(asker, told);
    }

    fn tell_asker(&mut self, asker: Asker, told: Told) {
        match asker {
            Asker::Reader(n) => self.out.push(Effect::Told(n, told)),
            Asker::Txn(id) => self.on_rows_told(id, told),
            Asker::Leaving(range) => self.on_members_told(range, told.mark),
        }
    }

    /// A reader hears that it has to look anew who owns the keys, and whether they can be read here.
    pub(super) fn tick_asks(&mut self) {
        let mut again = Vec::new();
        let mut over = Vec::new();
        for (n, open) in &self.asks.open {
            let is_late = open.sent.is_none_or(|(to, at)| {
                at + ANOTHER_AFTER <= self.now || !self.connected.contains_key(&to)
            });
            let is_leaving = matches!(open.asker, Asker::Leaving(_));
            let is_here = !is_leaving && self.reach.has(GroupId(open.ask.range));
            if is_here || !self.is_owned(&open.ask) || open.since + ANOTHER_AFTER <= self.now {
                over.push(*n);
            } else if is_late {
                again.push(*n);
            }
        }
        for n in over {
            let open = self.asks.open.remove(&n).expect("it was just found");
            self.tell_asker(open.asker, remote::refusal(&open.ask));
        }
        again.into_iter().for_each(|n| self.ask(n));
        let horizon = self.now - KEEP_FOR;
        while self.asks.kept.front().is_some_and(|(_, _, at)| *at <= horizon) {
            let (from, ask, _) = self.asks.kept.pop_front().expect("there is a front");
            self.refuse_ask(from, &ask);
        }
    }

    fn refuse_ask(&mut self, from: NodeId, ask: &Ask) {
        self.out.push(Effect::Send(from, Parcel::Told(remote::refusal(ask))));
    }

    /// Another node asks.
    pub(super) fn on_ask(&mut self, from: NodeId, ask: Ask) {
        if !self.has_come_to(&ask) && self.asks.kept.len() < KEPT_MAX {
            self.asks.kept.push_back((from, ask, self.now));
        } else {
            self.answer_ask(from, ask);
        }
    }

    /// More is shown than before.
    pub(super) fn answer_kept(&mut self) {
        for (from, ask, at) in mem::take(&mut self.asks.kept) {
            if !self.has_come_to(&ask) {
                self.asks.kept.push_back((from, ask, at));
            } else {
                self.answer_ask(from, ask);
            }
        }
    }

    fn answer_ask(&mut self, from: NodeId, ask: Ask) {
        let is_shown = self.has_come_to(&ask);
        if is_shown && self.reach.has(GroupId(ask.range)) && self.is_owned(&ask) {
            self.out.push(Effect::Answer(from, ask));
        } else {
            self.refuse_ask(from, &ask);
        }
    }

    /// Whether as much is shown here as the node that asks shows.
    fn has_come_to(&self, ask: &Ask) -> bool {
        self.reach.shown.index >= ask.index || mutant::is(Mutant::AskNotAwaited)
    }

    /// Whether the range has all keys that are asked for.
    fn is_owned(&self, ask: &Ask) -> bool {
        let range = GroupId(ask.range);
        remote::spans(ask).iter().all(|span| self.reach.owners.owns(range, span))
    }
}
