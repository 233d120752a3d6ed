//! A cluster that has lost its quorum becomes a cluster of one of its members: what that member has is
//! kept, the others are removed for good. Decided by what is on the disks of the member while it is down,
//! and written behind the ends of its logs: there the order goes on as with any other entry.
//!
//! All of each log counts, be it known to be committed or not, as the end may have been acknowledged.
//! What the order has numbered in a range and the range's log here has not stays a gap: none of the
//! revisions that are known here is given to another write (I1, I3).

mod log;
mod order;
mod range;
mod report;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use prost::Message;

use crate::group::{Append, ChangeStep, HardState, Position, Recovered};
use crate::proto::Span;
use crate::proto::internal::{
    ConfState, Member, MemberChange, Record, Recovery, SpineEntry, member_change::Kind,
    record::Body,
};
use crate::range::stored::{self, Stored};
use crate::spine::State;
use crate::view::{Batch, View, ViewError};
use crate::{GroupId, NodeId, group};

use log::Log;
use order::Order;
use range::{Known, Replay};
pub use report::{RangeReport, Report};

/// Why a member cannot be made a cluster of its own.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The store cannot be read, or an entry of a log.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Log and state of a group do not fit together.
    #[error("the log of group {0} does not fit its state: {1}")]
    Log(GroupId, group::Error),
    /// Nothing was ever stored, or the member waits for its first state.
    #[error("there is no state of a cluster")]
    NoState,
    /// The member was removed from the cluster.
    #[error("member {0} is no member of its cluster any more")]
    NotMember(NodeId),
    /// These have no replica here.
    #[error("there is no replica here of {}", names(.0))]
    Lost(Vec<(GroupId, Span)>),
    /// A replica is from before a change of its keys of which its log does not tell.
    #[error("{} is here from before its keys were changed", report::name(*.0, .1))]
    Behind(GroupId, Span),
    /// What was left of a range that was moved away is still being removed.
    #[error("keys of {} that was moved away are still being removed here", report::name(*.0, .1))]
    Left(GroupId, Span),
}

fn names(ranges: &[(GroupId, Span)]) -> String {
    let names: Vec<String> = ranges.iter().map(|(id, span)| report::name(*id, span)).collect();
    names.join(", ")
}

/// What is to be written, in this order, each durable before the next. If it is cut short, what is left
/// can be planned anew.
#[derive(Debug, Default)]
pub struct Plan {
    /// What is said of it.
    pub report: Report,
    /// For the store.
    pub rows: Batch,
    /// For the logs; the order's own comes last.
    pub appends: Vec<(GroupId, Append)>,
}

impl Plan {
    /// Whether there is anything to do: the member may be alone already.
    pub fn is_needed(&self) -> bool {
        !self.appends.is_empty()
    }
}

/// Makes a plan by what is on the disks of a member that is down. `logs` are as they were found, without
/// the place where the store stands. Ranges that have no replica here are given up only if that is
/// wanted.
///
/// # Errors
/// It cannot be done, or not without giving up ranges.
pub fn plan(
    view: &dyn View,
    logs: &BTreeMap<GroupId, Recovered>,
    node: NodeId,
    gives_up: bool,
) -> Result<Plan, Refused> {
    let state = State::load(view)?.ok_or(Refused::NoState)?;
    let spine = open_spine(&state, logs, node)?;
    let order = Order::fold(state, &spine)?;
    if !order.state.members().contains_key(&node.0) {
        return Err(Refused::NotMember(node));
    }
    let others = order.state.members().values().filter(|member| member.id != node.0);
    let mut plan = Plan {
        report: Report {
            node,
            cluster_id: order.state.cluster_id(),
            removed: others.cloned().collect(),
            sure: order.sure,
            newest: order.state.position().revision,
            ranges: Vec::new(),
        },
        ..Plan::default()
    };
    let lost = plan_ranges(view, logs, node, &order, &mut plan)?;
    if !lost.is_empty() && !gives_up {
        return Err(Refused::Lost(lost));
    }
    let mut abandoned = Vec::new();
    for (range, span) in lost {
        begin_anew(view, logs, &order, range, &mut plan)?;
        plan.report.ranges.push(RangeReport { is_lost: true, ..RangeReport::new(range, span) });
        abandoned.push(range.0);
    }
    plan.report.ranges.sort_by_key(|range| range.range);
    plan_spine(spine, &order.state, abandoned, &mut plan);
    if plan.is_needed() {
        check(view, logs, &plan)?;
    }
    Ok(plan)
}

fn open_spine(
    state: &State,
    logs: &BTreeMap<GroupId, Recovered>,
    node: NodeId,
) -> Result<Log, Refused> {
    let mut log = logs.get(&GroupId::SPINE).cloned().unwrap_or_default();
    let position = state.position();
    log.applied = Position { index: position.index, term: position.term };
    log.conf = state.conf().clone();
    Log::commit_all(GroupId::SPINE, node, log).map_err(|it| Refused::Log(GroupId::SPINE, it))
}

type Replays = BTreeMap<GroupId, (Replay, Log)>;

/// Follows the log of a range here, and of those that are split off it.
fn follow(
    view: &dyn View,
    logs: &BTreeMap<GroupId, Recovered>,
    node: NodeId,
    first: (GroupId, Stored),
    replays: &mut Replays,
) -> Result<(), Refused> {
    let mut next = vec![first];
    while let Some((range, stored)) = next.pop() {
        if replays.contains_key(&range) {
            continue;
        }
        let mut log = logs.get(&range).cloned().unwrap_or_default();
        (log.applied, log.conf) = (stored.position.place(), stored.conf.clone());
        let log = Log::commit_all(range, node, log).map_err(|it| Refused::Log(range, it))?;
        let replay = Replay::follow(range, stored, &log)?;
        for (child, born) in &replay.begun {
            // It may have come to its own beginning before.
            if Stored::load(view, *child)?.is_none() {
                next.push((*child, born.clone()));
            }
        }
        replays.insert(range, (replay, log));
    }
    Ok(())
}

/// What is to be written for the ranges that are here. Gives back those that are not.
fn plan_ranges(
    view: &dyn View,
    logs: &BTreeMap<GroupId, Recovered>,
    node: NodeId,
    order: &Order,
    plan: &mut Plan,
) -> Result<Vec<(GroupId, Span)>, Refused> {
    let mut replays = Replays::new();
    let mut first: BTreeMap<GroupId, Stored> = order.begun.clone();
    for range in stored::ids(view)? {
        first.extend(Stored::load(view, range)?.map(|stored| (range, stored)));
    }
    for first in first {
        follow(view, logs, node, first, &mut replays)?;
    }
    let (none_known, no_runs) = (BTreeMap::new(), Vec::new());
    let mut lost = Vec::new();
    // A range that is split off has a higher id than the one it is split off.
    for (range, known) in order.state.ranges().iter() {
        let Some((mut replay, mut log)) = replays.remove(&range) else {
            lost.push((range, known.span.clone()));
            continue;
        };
        let begun_before = replay.begun.len();
        let mut report = RangeReport::new(range, known.span.clone());
        let facts = Known {
            assigned: known.assigned,
            tells_from: known.runs().first().map_or(known.assigned + 1, |run| run.first),
            runs: order.runs.get(&range).unwrap_or(&no_runs),
            shares: order.shares.get(&range).unwrap_or(&none_known),
        };
        replay.complete(&mut log, &facts, &mut report);
        for (child, born) in replay.begun.split_off(begun_before) {
            follow(view, logs, node, (child, born), &mut replays)?;
        }
        for merge in &replay.merged {
            let right = GroupId(merge.right);
            let end = replays.get(&right).map_or(0, |(_, log)| log.last_index());
            if end < merge.right_at {
                return Err(Refused::Behind(right, known.span.clone()));
            }
        }
        let here = &replay.stored;
        if here.span != known.span || here.generation != known.generation {
            return Err(Refused::Behind(range, known.span.clone()));
        }
        if !log.is_alone() {
            log.add_changes_to_alone(|_| MemberChange::default());
        }
        plan.report.ranges.push(report);
        if log.is_changed() {
            plan.appends.push((range, log.into_append()));
        }
    }
    Ok(lost)
}

/// A range of which nothing is here begins where the order has left it.
fn begin_anew(
    view: &dyn View,
    logs: &BTreeMap<GroupId, Recovered>,
    order: &Order,
    range: GroupId,
    plan: &mut Plan,
) -> Result<(), Refused> {
    let known = order.state.ranges().get(range).expect("the order knows what is lost");
    if stored::left(view)?.iter().any(|(_, span)| span.overlaps(&known.span)) {
        return Err(Refused::Left(range, known.span.clone()));
    }
    let log = logs.get(&range).cloned().unwrap_or_default();
    let shares = order.shares.get(&range).into_iter().flatten();
    let locked = shares.map(|(_, (_, share))| share.prepared_at).max().unwrap_or(0);
    let last = log.entries.last().map_or(log.truncated, group::Entry::position);
    let node = plan.report.node.0;
    let index = last.index.max(log.hard_state.commit).max(locked).max(Recovered::FIRST.index) + 1;
    let term = last.term.max(log.hard_state.term).max(Recovered::FIRST.term) + 1;
    let stored = Stored {
        position: stored::Position { index, term, seq: known.assigned },
        noted: known.assigned,
        generation: known.generation,
        ..Stored::first(ConfState { voters: vec![node], ..<_>::default() }, known.span.clone())
    };
    stored::forget_ended(range, &mut plan.rows);
    stored::set_since(range, 0, &mut plan.rows);
    stored.write(range, &mut plan.rows);
    let hard_state = HardState { term, vote: node, commit: index };
    let reset = Some(Position { index, term });
    plan.appends.push((range, Append { token: 0, reset, hard_state, entries: Vec::new() }));
    Ok(())
}

/// The others are removed as by anybody who asks for it, and the table of ranges names nobody else.
fn plan_spine(mut spine: Log, state: &State, abandoned: Vec<u64>, plan: &mut Plan) {
    let node = plan.report.node;
    let are_alone = state.ranges().iter().all(|(_, known)| known.replicas == [node]);
    let is_done = plan.appends.is_empty() && are_alone && state.members().len() == 1;
    if is_done && spine.is_alone() {
        return;
    }
    if !spine.is_alone() {
        spine.add_changes_to_alone(|step| member_change(state, step));
    }
    let recovery = Recovery { node: node.0, abandoned };
    let record = Record { body: Some(Body::Recovery(recovery)), ..Record::default() };
    spine.add(SpineEntry { records: vec![record] }.encode_to_vec());
    plan.appends.push((GroupId::SPINE, spine.into_append()));
}

fn member_change(state: &State, step: ChangeStep) -> MemberChange {
    let (kind, node) = match step {
        ChangeStep::Remove(node) => (Kind::Remove, node),
        ChangeStep::AddVoter(node) | ChangeStep::AddLearner(node) => (Kind::Promote, node),
    };
    let unknown = Member { id: node.0, ..Member::default() };
    let member = state.members().get(&node.0).cloned().unwrap_or(unknown);
    MemberChange { kind: kind.into(), member: Some(member), ..MemberChange::default() }
}

/// What comes of it is one member, who votes, and holds everything.
fn check(view: &dyn View, logs: &BTreeMap<GroupId, Recovered>, plan: &Plan) -> Result<(), Refused> {
    let node = plan.report.node;
    let mut logs = logs.clone();
    for (group, append) in &plan.appends {
        let log = logs.entry(*group).or_default();
        if let Some(place) = append.reset {
            log.truncated = place;
            log.entries.clear();
        }
        log.entries.extend(append.entries.iter().cloned());
        log.hard_state = append.hard_state;
    }
    let state = State::load(view)?.ok_or(Refused::NoState)?;
    let spine = open_spine(&state, &logs, node)?;
    assert!(spine.is_alone(), "a recovery ends with one vote: {:?}", spine.conf);
    let state = Order::fold(state, &spine)?.state;
    assert!(
        state.members().keys().eq([&node.0])
            && state.ranges().iter().all(|(_, known)| known.replicas == [node]),
        "a recovery ends with one member: {:?}",
        state.members()
    );
    Ok(())
}
