//! The ranges beside range 0: who owns which keys, and how the writes that are committed in their
//! logs were numbered. A part of the spine's state.
//!
//! How a write was numbered is remembered until the range's own log says so (`Ref::noted`), so a
//! replica that restarts or falls behind finds every verdict either here or in its log, and never
//! needs the spine's old entries.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use prost::Message;

use crate::mutant::{self, Mutant};
use crate::proto::Span;
use crate::proto::internal::{self, Ref, Run, Void, void::Reason};
use crate::range::run;
use crate::{GroupId, NodeId};

/// Runs remembered for one range; a reference that would need more numbers only a part of what it
/// names, and the rest when the range has noted some. Consecutive writes of one range share a run
/// while no other range is numbered in between.
pub const RUNS_MAX: usize = 4_096;

/// One range.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Its keys.
    pub span: Span,
    /// Counts changes of the span.
    pub generation: u64,
    /// The nodes that are to have a replica. Its leader gets there by itself.
    pub replicas: Vec<NodeId>,
    /// Counts changes of `replicas`.
    pub changes: u64,
    /// The range was held as it was to be after so many of them.
    pub settled: u64,
    /// Nodes that were to have a replica since, and are not any more.
    pub former: BTreeSet<NodeId>,
    /// The change with which a replica came, of those that were not there from the beginning. A node
    /// that is to hold none any more may hold one for a while, and is remembered.
    pub since: BTreeMap<NodeId, u64>,
    /// The range it was split off; 0 for those that a cluster was founded with.
    pub parent: GroupId,
    /// Every write up to this sequence number has its revision, or is void.
    pub assigned: u64,
    runs: Vec<Run>,
}

/// What the rest of the state says about a write that is to be numbered.
pub trait Predicates {
    /// Why the write is void, if it is.
    fn check(&self, predicate: &internal::Predicate) -> Option<Reason>;
}

/// All ranges but range 0, which owns what is left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranges {
    by_id: BTreeMap<u64, Range>,
    /// By the first key.
    by_start: BTreeMap<Bytes, u64>,
}

impl Ranges {
    /// Adds a range; its span must be free.
    pub fn insert(&mut self, id: GroupId, range: Range) {
        assert!(id != GroupId::SPINE, "range 0 owns what no other range does");
        let overlapping = self.overlapping(&range.span);
        assert!(
            overlapping.iter().all(|other| *other == GroupId::SPINE),
            "a key has one owner (I9): {:?} overlaps {overlapping:?}",
            range.span
        );
        self.by_start.insert(range.span.start.clone(), id.0);
        self.by_id.insert(id.0, range);
    }

    /// A new range takes the keys of another from one on, up to where those end. The caller has
    /// looked that they are the other's and that nothing is under way on them.
    pub fn split(&mut self, parent: GroupId, child: GroupId, key: Bytes, replicas: Vec<NodeId>) {
        let rest = Span { start: key.clone(), end: None };
        let piece = self.pieces(&rest).into_iter().next();
        let (owner, span) = piece.expect("a span that is not empty has a piece");
        assert!(owner == parent, "{key:?} belongs to {owner}, not to {parent} (I9)");
        let mut born = Range { parent, ..Range::new(span, replicas) };
        if let Some(parent) = self.by_id.get_mut(&parent.0) {
            assert!(key > parent.span.start, "a range keeps its first key");
            parent.span.end = Some(key);
            parent.generation += 1;
            // A replica of the child is as old as that of the parent which it is cut off.
            (born.changes, born.settled) = (parent.changes, parent.settled);
            (born.since, born.former) = (parent.since.clone(), parent.former.clone());
        }
        self.insert(child, born);
    }

    /// A range takes over the keys of the one after it, which ceases. The caller has looked that they
    /// are neighbours and that nothing is under way on the keys.
    pub fn merge(&mut self, left: GroupId, right: GroupId) {
        let ceased = self.by_id.remove(&right.0).expect("a range that ceases exists");
        self.by_start.remove(&ceased.span.start);
        let stays = self.by_id.get_mut(&left.0).expect("a range that takes over exists");
        assert!(
            stays.span.end.as_ref() == Some(&ceased.span.start),
            "only neighbours are merged (I9): {:?} and {:?}",
            stays.span,
            ceased.span
        );
        stays.span.end = ceased.span.end;
        stays.generation += 1;
        for range in self.by_id.values_mut().filter(|range| range.parent == right) {
            range.parent = left;
        }
    }

    /// Ranges that were split off another.
    pub fn children(&self, parent: GroupId) -> Vec<GroupId> {
        let children = self.iter().filter(|(_, range)| range.parent == parent);
        children.map(|(range, _)| range).collect()
    }

    /// A member has come, and is to hold what has fewer than `wanted` replicas, or has gone.
    pub fn set_member(&mut self, node: NodeId, is_member: bool, wanted: usize) {
        for range in self.by_id.values_mut() {
            let mut replicas = range.replicas.clone();
            replicas.retain(|replica| *replica != node);
            if is_member && replicas.len() < wanted {
                replicas.push(node);
            }
            range.set_replicas(replicas);
            if !is_member {
                range.since.remove(&node);
                range.former.remove(&node);
            }
        }
    }

    /// Other nodes are to hold a range.
    pub fn set_replicas(&mut self, id: GroupId, replicas: Vec<NodeId>) {
        let range = self.by_id.get_mut(&id.0).expect("the caller has looked that it is there");
        range.set_replicas(replicas);
    }

    /// One node holds a range and is known to: nobody else is there to say otherwise.
    pub fn hold_alone(&mut self, id: GroupId, node: NodeId) {
        let range = self.by_id.get_mut(&id.0).expect("the caller has looked that it is there");
        range.changes += 1;
        range.settled = range.changes;
        range.replicas = vec![node];
        range.former.clear();
        range.since.clear();
    }

    /// By id.
    pub fn get(&self, id: GroupId) -> Option<&Range> {
        self.by_id.get(&id.0)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (GroupId, &Range)> {
        self.by_id.iter().map(|(id, range)| (GroupId(*id), range))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether the cluster is unsplit.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The range that owns a key.
    pub fn owner(&self, key: &[u8]) -> GroupId {
        let before =
            self.by_start.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        let owner = before.filter(|(_, id)| self.by_id[*id].span.contains(key));
        owner.map_or(GroupId::SPINE, |(_, id)| GroupId(*id))
    }

    /// The first key after another with which a range begins.
    pub fn first_start_after(&self, key: &[u8]) -> Option<&Bytes> {
        let after = (Bound::Excluded(key), Bound::Unbounded);
        self.by_start.range::<[u8], _>(after).next().map(|(start, _)| start)
    }

    /// The ranges that own keys of a span, in the order of their keys; range 0 comes last, if it
    /// owns any.
    pub fn overlapping(&self, span: &Span) -> Vec<GroupId> {
        if span.is_empty() {
            return Vec::new();
        }
        let mut owners = Vec::new();
        // Up to where the span is covered without a hole.
        let mut covered = Some(span.start.clone());
        let first = self.owner(&span.start);
        let from = if first == GroupId::SPINE {
            span.start.clone()
        } else {
            self.by_id[&first.0].span.start.clone()
        };
        let mut has_hole = false;
        for (start, id) in self.by_start.range(from..) {
            let range = &self.by_id[id];
            if !range.span.overlaps(span) {
                break;
            }
            has_hole |= covered.as_ref().is_some_and(|covered| start > covered);
            owners.push(GroupId(*id));
            covered = range.span.end.clone();
        }
        let reaches_end = match (&covered, &span.end) {
            (None, _) => true,
            (Some(covered), Some(end)) => covered >= end,
            (Some(_), None) => false,
        };
        if has_hole || !reaches_end {
            owners.push(GroupId::SPINE);
        }
        owners
    }

    /// A span cut by owner, in the order of the keys.
    pub fn pieces(&self, span: &Span) -> Vec<(GroupId, Span)> {
        let mut pieces = Vec::new();
        if span.is_empty() {
            return pieces;
        }
        let mut push = |owner, start: Bytes, end: Option<Bytes>| {
            let piece = Span { start, end };
            if !piece.is_empty() {
                pieces.push((owner, piece));
            }
        };
        // Everything before this is in a piece; `None` at the end of all keys.
        let mut next = Some(span.start.clone());
        let owners = self.overlapping(span).into_iter().filter(|id| *id != GroupId::SPINE);
        for id in owners {
            let own = &self.by_id[&id.0].span;
            let Some(from) = next.take() else { break };
            let start = from.clone().max(own.start.clone());
            push(GroupId::SPINE, from, Some(start.clone()));
            let end = [&own.end, &span.end].into_iter().flatten().min().cloned();
            push(id, start, end.clone());
            next = end;
        }
        if let Some(from) = next {
            push(GroupId::SPINE, from, span.end.clone());
        }
        pieces
    }

    /// Numbers what a reference names and is not numbered yet. `revision` is that of the state so
    /// far, and is moved on. `None` when there was nothing to number.
    pub fn assign(
        &mut self,
        reference: &Ref,
        revision: &mut i64,
        predicates: &dyn Predicates,
    ) -> Option<Run> {
        let range = self.by_id.get_mut(&reference.range)?;
        let is_told = !mutant::is(Mutant::NumbersForgotten);
        range.forget(if is_told { reference.noted } else { range.assigned });
        range.settle(reference.settled);
        if mutant::is(Mutant::StaleReport) {
            range.assigned = range.assigned.min(reference.noted);
        }
        if reference.upto <= range.assigned || range.runs.len() >= RUNS_MAX {
            return None;
        }
        let first = range.assigned + 1;
        let mut run = Run { first, count: reference.upto - range.assigned, ..Run::default() };
        // What holds for a write that no predicate names.
        let pass = internal::Predicate { pass: reference.pass, ..internal::Predicate::default() };
        let unnamed = predicates.check(&pass);
        let mut next = first;
        let named = reference.predicates.iter().filter(|it| it.seq <= reference.upto);
        for predicate in named {
            if predicate.seq < next {
                continue;
            }
            run.voids.extend(voids(next..predicate.seq, unnamed));
            run.voids.extend(voids(predicate.seq..predicate.seq + 1, predicates.check(predicate)));
            next = predicate.seq + 1;
        }
        run.voids.extend(voids(next..reference.upto + 1, unnamed));
        let mut numbered_count = run.count - run.voids.len() as u64;
        if mutant::is(Mutant::VoidsCounted) {
            numbered_count = run.count;
        }
        if numbered_count > 0 {
            run.revision = *revision + 1;
            *revision += i64::try_from(numbered_count).expect("a log holds fewer writes");
        }
        range.assigned = reference.upto;
        range.remember(run.clone());
        Some(run)
    }

    /// A range as it is stored.
    pub fn encode(&self, id: GroupId) -> Option<Bytes> {
        let range = self.by_id.get(&id.0)?;
        let stored = internal::Range {
            start: range.span.start.clone(),
            end: range.span.end.clone().unwrap_or_default(),
            generation: range.generation,
            replicas: range.replicas.iter().map(|node| node.0).collect(),
            assigned: range.assigned,
            runs: range.runs.clone(),
            parent: range.parent.0,
            changes: range.changes,
            settled: range.settled,
            former: range.former.iter().map(|node| node.0).collect(),
            since: range.since.iter().map(|(node, since)| (node.0, *since)).collect(),
        };
        Some(stored.encode_to_vec().into())
    }

    /// Takes a range as it was stored. `None` when that is damaged.
    pub fn decode(&mut self, id: GroupId, value: &[u8]) -> Option<()> {
        let stored = internal::Range::decode(value).ok()?;
        let end = (!stored.end.is_empty()).then_some(stored.end);
        let since = stored.since.into_iter().map(|(node, since)| (NodeId(node), since));
        let range = Range {
            changes: stored.changes,
            settled: stored.settled,
            former: stored.former.into_iter().map(NodeId).collect(),
            since: since.collect(),
            span: Span { start: stored.start, end },
            generation: stored.generation,
            replicas: stored.replicas.into_iter().map(NodeId).collect(),
            assigned: stored.assigned,
            parent: GroupId(stored.parent),
            runs: stored.runs,
        };
        let is_free = self.overlapping(&range.span).iter().all(|id| *id == GroupId::SPINE);
        (id != GroupId::SPINE && !range.span.is_empty() && is_free).then(|| self.insert(id, range))
    }
}

/// If there is a reason, all of these are void.
fn voids(seqs: std::ops::Range<u64>, reason: Option<Reason>) -> impl Iterator<Item = Void> {
    let reasons = reason.into_iter();
    reasons.flat_map(move |reason| seqs.clone().map(move |seq| Void { seq, reason: reason.into() }))
}

impl Range {
    /// A range of these keys in which nothing was written yet.
    pub fn new(span: Span, replicas: Vec<NodeId>) -> Self {
        Self {
            span,
            generation: 1,
            replicas,
            changes: 0,
            settled: 0,
            former: BTreeSet::new(),
            since: BTreeMap::new(),
            parent: GroupId::SPINE,
            assigned: 0,
            runs: Vec::new(),
        }
    }

    /// Whether it is held as it is to be.
    pub fn is_settled(&self) -> bool {
        self.settled == self.changes
    }

    /// Whether another change of who is to hold it may begin with this one under way: only one that does
    /// nothing but take back what is under way. Who was left out may be back when everybody knows, and
    /// not before, as there would be two replicas of one node.
    pub fn may_change_to(&self, nodes: &[NodeId]) -> bool {
        let mut left_out = self.replicas.iter().filter(|node| !nodes.contains(node));
        let are_known = nodes.iter().all(|node| self.replicas.contains(node));
        self.is_settled() || (are_known && left_out.all(|node| self.is_new(*node)))
    }

    /// A change that is under way brings a replica to this node, or did before it was taken back.
    pub fn is_new(&self, node: NodeId) -> bool {
        self.since.get(&node).is_some_and(|since| *since > self.settled)
    }

    /// Whether those who vote for it by now, whoever that is, have a majority without this node. Its
    /// members change one after the other: first those who are new come, then those who are not wanted
    /// any more go. Of several changes under way the ends of all but the last are forgotten, and nothing
    /// is sure.
    pub fn can_do_without(&self, node: NodeId, votes: impl Fn(NodeId) -> bool) -> bool {
        let after = self.replicas.iter().copied();
        let all: BTreeSet<NodeId> = after.clone().chain(self.former.iter().copied()).collect();
        if !all.contains(&node) || !votes(node) {
            return true;
        }
        let before = all.iter().copied().filter(|other| !self.is_new(*other));
        // Nobody is to come or go: a member was removed from the cluster, and may have its vote still.
        let is_one_gone = !self.is_settled()
            && self.former.is_empty()
            && !self.replicas.iter().any(|other| self.is_new(*other));
        let has_majority = |holders: BTreeSet<NodeId>| {
            let count = holders.into_iter().filter(|holder| votes(*holder)).count();
            2 * (count - 1) > count + usize::from(is_one_gone)
        };
        // With the fewest others.
        self.changes <= self.settled + 1
            && has_majority(before.chain([node]).collect())
            && has_majority(after.chain([node]).collect())
    }

    fn settle(&mut self, changes: u64) {
        self.settled = self.settled.max(changes);
        if self.is_settled() {
            self.former.clear();
        }
    }

    fn set_replicas(&mut self, replicas: Vec<NodeId>) {
        if replicas == self.replicas {
            return;
        }
        self.changes += 1;
        self.former.extend(self.replicas.iter().copied());
        self.former.retain(|node| !replicas.contains(node));
        for node in replicas.iter().filter(|node| !self.replicas.contains(node)) {
            self.since.insert(*node, self.changes);
        }
        self.replicas = replicas;
    }

    /// How the writes after what the range has noted were numbered: in order, without a gap up to
    /// `assigned`.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn remember(&mut self, next: Run) {
        if let Some(last) = self.runs.last_mut()
            && run::is_continued_by(last, next.revision)
        {
            last.count += next.count;
            last.voids.extend(next.voids);
            if last.revision == 0 {
                last.revision = next.revision;
            }
        } else {
            self.runs.push(next);
        }
    }

    /// The range's log tells how everything up to here was numbered.
    fn forget(&mut self, noted: u64) {
        let kept = self.runs.partition_point(|it| run::last(it) <= noted);
        self.runs.drain(..kept);
    }
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
