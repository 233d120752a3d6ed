//! What must hold after every event, seen from inside the nodes: one leader a term, the same
//! entries at the same committed places, each durable on a majority before it counts, the same
//! state after the same entry, and a stored state that is the folded one.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::group::Entry;
use flotilla_core::mvcc::{self, Head};
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::ConfState;
use flotilla_core::range::stored;
use flotilla_core::remote::Overlay;
use flotilla_core::spine::Shown;
use flotilla_core::spine::State;
use flotilla_core::spine::apply::Task;
use flotilla_core::spine::state::Position;

use super::apply_stage::{COMPARE_EVERY, common_rows};
use super::finding::{Class, Finding, Invariant, Stall};
use super::trace::Trace;
use super::world::World;

/// One step in so many compares the folded state with the stored one, when both stand at the same
/// entry.
const STATE_CHECK_ONE_IN: u64 = 40;

/// How many of the newest memberships an entry may have been committed under.
const CONFS_MAX: usize = 3;

/// What was seen so far, and the first thing that must not be.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    is_black_box: bool,
    found: Option<Finding>,
    leaders: BTreeMap<(GroupId, u64), u64>,
    /// Term and digest of every entry that was ever handed out as committed.
    committed: BTreeMap<u64, (u64, u64)>,
    positions: BTreeMap<u64, Position>,
    /// The last memberships, oldest first.
    confs: Vec<ConfState>,
    /// By index: digest of rows and history, and who had it first.
    rows: BTreeMap<u64, (u64, u64)>,
    /// By index and the first key of a range: digest of the range's history, and who had it first.
    spans: BTreeMap<(u64, Bytes), (u64, u64)>,
    steps: u64,
}

impl Invariants {
    pub(super) fn new(is_black_box: bool) -> Self {
        Self { is_black_box, ..Self::default() }
    }

    pub(super) fn is_intact(&self) -> bool {
        self.found.is_none()
    }

    pub(super) fn found(&self) -> Option<&Finding> {
        self.found.as_ref()
    }

    /// Something must not be. Which of these it is, the line says that calls this.
    #[track_caller]
    pub(super) fn break_with(&mut self, what: String) {
        self.find(Class::Inside(Location::caller().into()), what);
    }

    /// Something inside the nodes must not be; nobody looks there in a black box.
    #[track_caller]
    pub(super) fn break_inside(&mut self, what: String) {
        if !self.is_black_box {
            self.break_with(what);
        }
    }

    /// As `break_inside`, for what has a name.
    fn break_named(&mut self, invariant: Invariant, what: impl fmt::Display) {
        if !self.is_black_box {
            self.find(Class::Invariant(invariant), format!("{}: {what}", invariant.name()));
        }
    }

    /// The run waits for something in vain.
    pub(super) fn stall(&mut self, stall: Stall, what: impl fmt::Display) {
        self.find(Class::Stall(stall), format!("liveness: {what}"));
    }

    /// Only the first is kept: the rest follows from it.
    fn find(&mut self, class: Class, text: String) {
        self.found.get_or_insert(Finding { class, text });
    }

    pub(super) fn leads(&mut self, id: u64, term: u64) {
        self.leads_range(GroupId::SPINE, id, term);
    }

    pub(super) fn leads_range(&mut self, range: GroupId, id: u64, term: u64) {
        let first = *self.leaders.entry((range, term)).or_insert(id);
        if first != id {
            let what = format!("nodes {first} and {id} both lead term {term} of range {range}");
            self.break_named(Invariant::ElectionSafety, what);
        }
    }

    /// A crash took the terms after this one from the only voter of a group, by its own conf. It elects
    /// itself at once, and nothing of that leaves it before its vote is on disk (`Outbox`): another
    /// that still counts two voters may lead such a term.
    pub(super) fn forgets(&mut self, range: GroupId, id: u64, term: u64) {
        self.leaders.retain(|(of, led), by| *of != range || *led <= term || *by != id);
    }
}

impl World {
    /// An entry is handed out as committed.
    pub(super) fn check_committed(&mut self, id: u64, task: &Task) {
        let index = task.position.index;
        let node = &self.nodes[&id];
        let log = node.log.written.get(&GroupId::SPINE);
        let Some(entry) = log.and_then(|log| log.entry(index)) else {
            self.invariants.break_inside(format!(
                "node {id} is handed entry {index} as committed, which is not in its log"
            ));
            return;
        };
        let name = (entry.term, digest(entry));
        let known = self.invariants.committed.get(&index).copied();
        match known {
            Some(known) if known != name => self.invariants.break_named(
                Invariant::LogMatching,
                format_args!(
                    "at {index}, node {id} has committed term {}, others term {}",
                    name.0, known.0
                ),
            ),
            Some(_) => {}
            None => {
                let running = node.running.as_ref().expect("it is up");
                let conf = running.replica.group().conf();
                let term = entry.term;
                let confs = &mut self.invariants.confs;
                if confs.last() != Some(&conf) {
                    confs.push(conf);
                }
                // An entry counts under the membership its leader had applied, which can be a
                // little older than that of the node which hears of it first.
                let confs = confs[confs.len().saturating_sub(CONFS_MAX)..].to_vec();
                self.check_majority(id, index, term, &confs);
                self.invariants.committed.insert(index, name);
            }
        }
    }

    /// An entry that counts as committed is on the disks of a majority.
    fn check_majority(&mut self, id: u64, index: u64, term: u64, confs: &[ConfState]) {
        let holds = |voter: &u64| {
            self.nodes.get(voter).is_some_and(|node| {
                let log = node.log.durable.get(&GroupId::SPINE);
                let entry = log.and_then(|log| log.entry(index));
                let is_in_log = entry.is_some_and(|entry| entry.term == term);
                let state = State::load(&node.store.view).ok().flatten();
                is_in_log || state.is_some_and(|state| state.position().index >= index)
            })
        };
        let is_majority = |voters: &[u64]| {
            let holders_count = voters.iter().filter(|voter| holds(voter)).count();
            voters.is_empty() || holders_count > voters.len() / 2
        };
        let is_held =
            |conf: &ConfState| is_majority(&conf.voters) && is_majority(&conf.voters_outgoing);
        if !confs.iter().any(is_held) {
            let holders: Vec<u64> = self.nodes.keys().copied().filter(|id| holds(id)).collect();
            let what = format!(
                "node {id} takes entry {index} of term {term} for committed, which only \
                 {holders:?} have on disk, under {:?}",
                confs.last()
            );
            self.invariants.break_named(Invariant::CommittedOnMajority, what);
        }
    }

    /// A batch is in the store of a node.
    pub(super) fn check_applied(&mut self, id: u64, position: Position) {
        let index = position.index;
        let first = *self.invariants.positions.entry(index).or_insert(position);
        if first != position {
            self.invariants.break_inside(format!(
                "node {id} stands at {position:?}, another stood at {first:?}"
            ));
        }
        if index.is_multiple_of(COMPARE_EVERY) && !self.plan.is_split {
            self.compare_rows(id, index);
        }
    }

    /// A node shows more. Rows of ranges are applied in their own time, so only what is shown is
    /// compared.
    pub(super) fn check_shown(&mut self, id: u64, shown: Option<Shown>) {
        let Some(Shown { index, head }) = shown else { return };
        self.check_to_begin(id);
        let is_compared = index.is_multiple_of(COMPARE_EVERY / 8) && self.plan.scale.is_none();
        if !self.plan.is_split || !is_compared {
            return;
        }
        let reach = self.up(id).stage.reach().clone();
        for (range, span) in reach.owners.pieces() {
            if reach.has(range) {
                self.compare_range(id, index, head, range, &span);
            }
        }
    }

    /// A range that is to begin with another's rows is shown only while they come in order.
    pub(super) fn check_to_begin(&mut self, id: u64) {
        let node = &self.nodes[&id];
        let stage = &node.running.as_ref().expect("it is up").stage;
        let reach = stage.reach();
        if reach.owners.ranges().all(|range| range == GroupId::SPINE) {
            return;
        }
        let held = match stored::spans(&node.store.view) {
            Ok(held) => held,
            Err(error) => return self.invariants.break_with(format!("node {id}: {error}")),
        };
        let is_to_begin = |range: GroupId| {
            range != GroupId::SPINE
                && reach.has(range)
                && !held.contains_key(&range)
                && !stage.has_ended(range)
        };
        let is_shown = |start: &Bytes| {
            held.iter().any(|(range, span)| span.contains(start) && stage.follows(*range))
        };
        let pieces = reach.owners.pieces().into_iter();
        let wrong: Vec<_> =
            pieces.filter(|(range, span)| is_to_begin(*range) && !is_shown(&span.start)).collect();
        if let Some((range, span)) = wrong.first() {
            let what = format!(
                "node {id} shows range {range}, {span:?}, which has no rows here, nor has any that \
                 follows: here are {held:?}, not shown are {:?}",
                reach.lacking
            );
            self.invariants.break_inside(what);
        }
    }

    /// Every node that shows a range shows the same of it.
    fn compare_range(&mut self, id: u64, index: u64, head: Head, range: GroupId, span: &Span) {
        let before = Span { start: Bytes::new(), end: Some(span.start.clone()) };
        let after = span.end.clone().map(|start| Span { start, end: None });
        let others = [Some(before), after].into_iter().flatten().filter(|span| !span.is_empty());
        let part = Overlay::new(&self.nodes[&id].store.view, others.collect());
        let digest = match mvcc::hash_kv(&part, head, head.revision) {
            Ok(hash) => u64::from(hash),
            // A snapshot of a range that came from where more was compacted is not shown before that is.
            Err(error) => return self.invariants.break_with(format!("node {id}: {error}")),
        };
        self.trace.number(digest);
        let place = (index, span.start.clone());
        let (first, hash) = *self.invariants.spans.entry(place).or_insert((id, digest));
        if hash != digest {
            let ranges = self.ranges_text();
            let what = format!(
                "nodes {first} and {id} differ in range {range}, {span:?}, after entry {index}; \
                 {ranges}"
            );
            self.invariants.break_named(Invariant::StateMachineSafety, what);
        }
    }

    /// Replicas that applied the same entries have the same rows and the same history.
    fn compare_rows(&mut self, id: u64, index: u64) {
        let node = &self.nodes[&id];
        let head = node.running.as_ref().expect("it is up").stage.shown().head;
        let mut trace = Trace::new(0);
        for row in common_rows(&node.store.view) {
            trace.bytes(format!("{row:?}").as_bytes());
        }
        match mvcc::hash_kv(&node.store.view, head, 0) {
            Ok(hash) => trace.number(u64::from(hash)),
            Err(error) => self.invariants.break_with(format!("node {id}: {error}")),
        }
        self.compare_hash(id, index, trace.hash());
    }

    fn compare_hash(&mut self, id: u64, index: u64, digest: u64) {
        self.trace.number(digest);
        let (first, hash) = *self.invariants.rows.entry(index).or_insert((id, digest));
        if hash != digest {
            let what = format!("nodes {first} and {id} differ after entry {index}");
            self.invariants.break_named(Invariant::StateMachineSafety, what);
        }
    }

    /// What is stored is what was folded, whenever both stand at the same entry.
    pub(super) fn check_state(&mut self, id: u64) {
        self.invariants.steps += 1;
        if !self.invariants.steps.is_multiple_of(STATE_CHECK_ONE_IN) {
            return;
        }
        let node = &self.nodes[&id];
        let running = node.running.as_ref().expect("it is up");
        let folded = running.replica.state();
        if folded.position() != running.position || folded.position().index == 0 {
            return;
        }
        let difference = match State::load(&node.store.view) {
            Ok(Some(stored)) if stored == *folded => return,
            Ok(Some(stored)) => difference(&stored, folded),
            Ok(None) => "nothing is stored".to_owned(),
            Err(error) => error.to_string(),
        };
        self.invariants.break_inside(format!(
            "node {id} stores another state than it folded at entry {}: {difference}",
            folded.position().index
        ));
    }
}

fn difference(stored: &State, folded: &State) -> String {
    if stored.leases() != folded.leases() {
        format!("leases {:?} and {:?}", stored.leases(), folded.leases())
    } else if stored.members() != folded.members() {
        format!("members {:?} and {:?}", stored.members(), folded.members())
    } else if stored.conf() != folded.conf() {
        format!("membership {:?} and {:?}", stored.conf(), folded.conf())
    } else if stored.alarms() != folded.alarms() {
        "alarms".to_owned()
    } else {
        "request windows, removed members or the version".to_owned()
    }
}

fn digest(entry: &Entry) -> u64 {
    let mut trace = Trace::new(0);
    trace.number(entry.kind as u64);
    trace.bytes(&entry.data);
    trace.bytes(&entry.context);
    trace.hash()
}
