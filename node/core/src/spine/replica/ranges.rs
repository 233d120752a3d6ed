//! What the replicas of other ranges on this node tell the spine's machine, and what they are told
//! of the order.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use bytes::Bytes;

use crate::group::Part;
use crate::mutant::{self, Mutant};
use crate::proto::internal::{RangeInfo, Record, Ref, Refs, TxnCommit, record::Body};
use crate::range::Tell;
use crate::range::replica::Input;
use crate::range::stored::{self, Stored};
use crate::spine::replica::{Effect, Parcel, Replica};
use crate::spine::txns::Decision;
use crate::time::{Length, Time};
use crate::view::{View, ViewError};
use crate::{GroupId, NodeId, command::RequestId, group};

/// Entries with references that this leader has proposed and that are not folded: what is reported
/// meanwhile shares the next.
const REFS_UNDER_WAY_MAX: usize = 2;
/// How long one holder of a range that is not here is taken for the one who knows its leader.
const GUESS_AGAIN_AFTER: Length = Length::from_ms(200);
/// How long a leader that was named has to stand before another one is asked at once in its place: who
/// names each other would be asked in turn for ever.
const HINT_STANDS: Length = Length::from_ms(100);

/// Who leads a range of which there is no replica here, as another has said; nobody, if that one does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hint {
    leader: Option<NodeId>,
    since: Time,
}

/// A replica that has no part in its range any more.
#[derive(Debug)]
pub(super) struct Leaving {
    /// The change of members that had brought it.
    pub(super) since: u64,
    pub(super) is_told: bool,
}

/// The replicas of other ranges on this node.
#[derive(Debug, Default)]
pub(super) struct Here {
    roles: BTreeMap<GroupId, group::Role>,
    /// Not sent to the spine's leader yet, or as the leader not proposed.
    reports: Vec<Ref>,
    refs_under_way: usize,
    /// Replicas that are here: they were begun without a state, have told of their role, or were
    /// found in the store.
    found: BTreeSet<GroupId>,
    /// The store was searched for them since this machine began.
    is_searched: bool,
    /// Those that have no part in their range any more, until they are gone.
    leaving: BTreeMap<GroupId, Leaving>,
    /// Those that seem to have none.
    outside: BTreeSet<GroupId>,
    /// Those that were begun without a state.
    begun: BTreeSet<GroupId>,
    /// Ranges of which the log had something at the start, and the store nothing.
    logs: BTreeSet<GroupId>,
    /// Those whose replica has left since this machine began.
    left: BTreeSet<GroupId>,
}

impl Here {
    /// Puts a report in the place of an older one.
    fn take(&mut self, reference: Ref) {
        let is_older = |known: &Ref| {
            known.range == reference.range
                && known.upto <= reference.upto
                && known.noted <= reference.noted
                && known.settled <= reference.settled
                && known.resolved.iter().all(|id| reference.resolved.contains(id))
        };
        self.reports.retain(|known| !is_older(known));
        self.reports.push(reference);
    }

    /// Ranges that this node leads.
    pub(super) fn led(&self) -> impl Iterator<Item = GroupId> {
        let led = self.roles.iter().filter(|(_, role)| role.part == Part::Leader);
        led.map(|(range, _)| *range)
    }

    fn leads(&self, range: GroupId) -> bool {
        self.roles.get(&range).is_some_and(|role| role.part == Part::Leader)
    }

    pub(super) fn leaving(&mut self) -> &mut BTreeMap<GroupId, Leaving> {
        &mut self.leaving
    }

    /// Looks for replicas in the store.
    pub(super) fn find(&mut self, view: &dyn View) -> Result<(), ViewError> {
        self.found.extend(stored::ids(view)?);
        Ok(())
    }

    /// Replicas that are here, as far as is known.
    pub(super) fn found(&self) -> &BTreeSet<GroupId> {
        &self.found
    }

    /// Whether a replica seems to have no part in its range.
    pub(super) fn is_outside(&self, range: GroupId) -> bool {
        self.outside.contains(&range)
    }

    pub(super) fn is_inside(&mut self, range: GroupId) {
        self.outside.remove(&range);
    }

    /// Whether a replica of a range has said anything and has not ended.
    pub(super) fn is_running(&self, range: GroupId) -> bool {
        self.roles.contains_key(&range)
    }

    /// The leader of a range, as its replica here knows it.
    pub(super) fn leader(&self, range: GroupId) -> Option<NodeId> {
        self.roles.get(&range)?.leader
    }
}

impl Replica {
    /// Whether a replica of the range is on this node.
    pub(super) fn is_here(&self, range: GroupId) -> bool {
        let known = self.state.ranges().get(range);
        known.is_some_and(|known| known.replicas.contains(&self.node()))
    }

    /// Whether this node leads the range that another was split off: then it should lead that, too.
    pub fn leads_parent_of(&self, range: GroupId) -> bool {
        let Some(known) = self.state.ranges().get(range) else { return false };
        match known.parent {
            GroupId::SPINE => self.status.is_leader,
            parent => self.ranges.leader(parent) == Some(self.node()),
        }
    }

    /// All ranges as this node knows them, in the order of their keys; range 0, which has what no
    /// other has, comes last.
    pub fn range_table(&self) -> Vec<RangeInfo> {
        let mut table: Vec<RangeInfo> = self
            .state
            .ranges()
            .iter()
            .map(|(range, known)| RangeInfo {
                range: range.0,
                start: known.span.start.clone(),
                end: known.span.end.clone().unwrap_or_default(),
                replicas: known.replicas.iter().map(|node| node.0).collect(),
                leader: self.known_leader(range).map_or(0, |leader| leader.0),
                parent: known.parent.0,
                generation: known.generation,
                writes: known.assigned,
                survey: None,
                is_changing: !known.is_settled(),
            })
            .collect();
        table.sort_by(|one, other| one.start.cmp(&other.start));
        table.push(RangeInfo {
            replicas: self.state.conf().voters.clone(),
            leader: self.status.leader.map_or(0, |leader| leader.0),
            ..RangeInfo::default()
        });
        table
    }

    fn known_leader(&self, range: GroupId) -> Option<NodeId> {
        self.ranges.leader(range).or_else(|| self.hint(range))
    }

    /// Other ranges with a replica here whose leader it does not know.
    pub fn leaderless_ranges(&self) -> usize {
        let here = self.state.ranges().iter().filter(|(range, _)| self.is_here(*range));
        here.filter(|(range, _)| self.ranges.leader(*range).is_none()).count()
    }

    /// One that has ceased goes on here until its keys are taken over, and one that this node is to
    /// hold no more until its members have changed.
    pub(super) fn tell(&mut self, range: GroupId, input: Input) {
        let goes_on = self.state.has_ceased(range) || self.ranges.found.contains(&range);
        if self.is_here(range) || goes_on {
            self.out.push(Effect::Range(range, input));
        }
    }

    pub(super) fn on_tell(&mut self, range: GroupId, tell: Tell) {
        match tell {
            Tell::Report(reference) => self.ranges.take(reference),
            Tell::WantNumbers(undecided) => {
                self.tell_members_of(range);
                self.tell_numbers(range, &undecided);
            }
            Tell::Prepared(id, index) => self.answer_prepare(range, id, Some(index)),
            Tell::PrepareFailed(id) => self.answer_prepare(range, id, None),
            Tell::AbortTxn(id) => self.abort_txn(id),
            Tell::WantTicket(n) => self.tickets.want_range(range, n, self.now),
            Tell::Reply(to, outcome) => self.reply(to, outcome),
            Tell::Unproposed(to, command) => self.hand_back(range, to, command),
            Tell::WantFinish(right, index) => {
                self.out.push(Effect::Range(right, Input::Finish(index)));
            }
            Tell::Retired => {
                self.ranges.roles.remove(&range);
                self.ranges.found.remove(&range);
                self.ranges.begun.remove(&range);
                self.ranges.outside.remove(&range);
                self.ranges.reports.retain(|report| report.range != range.0);
                self.is_unpark_due = true;
                let keeps_votes = self.ranges.leaving.remove(&range).is_some();
                if keeps_votes {
                    self.ranges.left.insert(range);
                }
                self.out.push(Effect::End { range, keeps_votes });
            }
            Tell::Outside => {
                self.ranges.outside.insert(range);
            }
            Tell::Removed(since) => {
                self.ranges.leaving.insert(range, Leaving { since, is_told: false });
                self.leave_ranges();
            }
            Tell::Gone(place, nodes) => self.tell_gone(range, place, nodes),
            Tell::Role(role) => {
                let before = self.ranges.roles.insert(range, role);
                self.ranges.found.insert(range);
                self.ranges.logs.remove(&range);
                self.ranges.left.remove(&range);
                self.tell_alive(range);
                let is_news = before.is_none_or(|before| before.leader != role.leader);
                self.is_unpark_due |= is_news && role.leader.is_some();
                self.tell_members_of(range);
            }
        }
    }

    /// A node that was behind may never see the entry with which a range began: it is contained in a
    /// snapshot of the range's parent.
    pub(super) fn look_for_absent(&mut self, view: &dyn View) -> Result<(), ViewError> {
        if self.applied.index != self.position().index {
            return Ok(());
        }
        if !mem::replace(&mut self.ranges.is_searched, true) {
            self.ranges.find(view)?;
        }
        // Nobody fills a replica of a range that has ceased.
        let begun: Vec<GroupId> = self.ranges.begun.iter().copied().collect();
        for range in begun.into_iter().filter(|range| self.state.has_ceased(*range)) {
            if Stored::load(view, range)?.is_none() {
                self.out.push(Effect::Range(range, Input::Retire));
            }
        }
        let known = self.state.ranges().iter();
        let silent: Vec<GroupId> = known
            .map(|(range, _)| range)
            .filter(|range| !self.ranges.found.contains(range))
            .filter(|range| self.is_here(*range) || self.may_vote_still(*range))
            .collect();
        let mut missing = Vec::new();
        for range in silent {
            match Stored::load(view, range)? {
                Some(_) => _ = self.ranges.found.insert(range),
                None => missing.push(range),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let here = stored::spans(view)?;
        let mut absent = Vec::new();
        for range in missing {
            let Some(known) = self.state.ranges().get(range) else { continue };
            let has_parents = self.have_parents_a_state(known.parent, view)?;
            // A replica here that lags still has the keys: the range that has them now begins when
            // that replica comes so far, and not before, as the older writes are in its log. It may
            // be of a range that has ceased, and is not taken over here yet.
            let is_to_come = here.values().any(|span| span.contains(&known.span.start))
                && !mutant::is(Mutant::BegunBeside);
            if has_parents && !is_to_come {
                absent.push(range);
            }
        }
        for range in absent {
            self.ranges.found.insert(range);
            self.ranges.begun.insert(range);
            self.ranges.logs.remove(&range);
            let known = self.state.ranges().get(range);
            let since = known.and_then(|it| it.since.get(&self.config.node)).copied().unwrap_or(0);
            self.out.push(Effect::Begin { range, since });
            self.tell_members_of(range);
        }
        Ok(())
    }

    /// Whether a range, and those that it was cut off, have a state here if they have a replica: one
    /// without, that is to be here, or begins now, may be sent a state from before the cuts.
    fn have_parents_a_state(&self, parent: GroupId, view: &dyn View) -> Result<bool, ViewError> {
        let mut next = Some(parent).filter(|range| *range != GroupId::SPINE);
        while let Some(range) = next {
            let is_here = self.is_here(range)
                || self.may_vote_still(range)
                || self.ranges.found.contains(&range);
            if is_here && Stored::load(view, range)?.is_none() {
                return Ok(false);
            }
            let known = self.state.ranges().get(range);
            next = known.map(|it| it.parent).filter(|range| *range != GroupId::SPINE);
        }
        Ok(true)
    }

    /// Whether a range that is to be here no more may need a vote of this node, which has none: it was
    /// cut off a range whose replica here has left, or was lost in a crash, before it had come as far,
    /// and its members are those of then. If they are not, who begins in vain hears it and leaves.
    fn may_vote_still(&self, range: GroupId) -> bool {
        let known = self.state.ranges().get(range);
        known.is_some_and(|it| it.former.contains(&self.node()))
            && !self.ranges.left.contains(&range)
    }

    /// At the start the log has something of these ranges, and the store nothing: a replica may begin
    /// with that, or one was left, and a crash came before its log was cut.
    pub fn set_logs(&mut self, logs: BTreeSet<GroupId>) {
        self.ranges.logs = logs;
    }

    /// A snapshot of the range that took over another here is perhaps from after a cut at which it gave
    /// those keys away again. Whoever has come as far as the table of ranges, in the changes of its
    /// span, is past all merges that the table knows of; if all have, nobody takes over what is left.
    ///
    /// Who has no state here yet may be sent one from before a merge. So while there are such ranges,
    /// only what stands in the way of the first of them is dropped: whoever took that over begins
    /// before it, and has come as far.
    pub(super) fn look_for_left_behind(&mut self, view: &dyn View) -> Result<(), ViewError> {
        // A learner that nobody leads has never told of a role.
        let here = self.ranges.found.union(&self.ranges.logs);
        let ceased: Vec<GroupId> =
            here.copied().filter(|range| self.state.has_ceased(*range)).collect();
        let is_left = mutant::is(Mutant::LeftBehind);
        if ceased.is_empty() || self.applied.index != self.position().index || is_left {
            return Ok(());
        }
        let mut first_without: Option<(&Bytes, GroupId)> = None;
        // One that is not wanted here takes over others as long as it has a part in its range.
        let goes_on = |range| self.ranges.found.contains(&range) && !self.ranges.is_outside(range);
        let here = self.state.ranges().iter().filter(|it| self.is_here(it.0) || goes_on(it.0));
        for (range, known) in here {
            match Stored::load(view, range)? {
                Some(stored) if stored.generation < known.generation => return Ok(()),
                Some(_) => {}
                None if !self.is_here(range) => {}
                None => {
                    let next = (&known.span.start, range);
                    first_without = first_without.into_iter().chain([next]).min();
                }
            }
        }
        if first_without.is_some_and(|(_, range)| self.ranges.begun.contains(&range)) {
            return Ok(());
        }
        let are_all_here = first_without.is_none();
        for range in ceased {
            let Some(stored) = Stored::load(view, range)? else {
                if are_all_here && self.ranges.logs.remove(&range) {
                    self.out.push(Effect::Forget(range));
                }
                continue;
            };
            let is_in_the_way = first_without.is_none_or(|(start, _)| stored.span.contains(start));
            if is_in_the_way || mutant::is(Mutant::DroppedEarly) {
                self.out.push(Effect::Drop(range));
            }
        }
        Ok(())
    }

    /// Everything that the state remembers for a range.
    fn tell_numbers(&mut self, range: GroupId, undecided: &[RequestId]) {
        let Some(known) = self.state.ranges().get(range) else { return };
        let runs = known.runs().to_vec();
        let open = self.state.txns().open(range);
        let open = open.map(|(id, share)| (id, share.prepared_at)).collect();
        self.tell(range, Input::Numbered(runs));
        self.tell(range, Input::OpenTxns(open));
        for id in undecided {
            if let Some(decision) = self.state.decision(range, *id) {
                self.tell(range, Input::Decided(*id, decision));
            }
        }
    }

    /// A transaction was decided: the leaders of its ranges write it down.
    pub(super) fn tell_decided(&mut self, id: RequestId, commit: Option<&TxnCommit>) {
        let led: Vec<GroupId> = match commit {
            Some(commit) => {
                let concerned = commit.ranges.iter().map(|range| GroupId(*range));
                concerned.filter(|range| self.ranges.leads(*range)).collect()
            }
            None => self.ranges.led().collect(),
        };
        for range in led {
            if self.state.has_ceased(range) {
                continue;
            }
            let decision = self.state.decision(range, id).unwrap_or(Decision::Abort);
            self.tell(range, Input::Decided(id, decision));
        }
    }

    pub(super) fn on_refs(&mut self, refs: Vec<Ref>) {
        if self.status.is_leader {
            refs.into_iter().for_each(|reference| self.ranges.take(reference));
        }
    }

    /// Sends what was reported to the spine's leader, or puts it into an entry.
    pub(super) fn report(&mut self, view: &dyn View) -> Result<(), ViewError> {
        if self.ranges.reports.is_empty() {
            return Ok(());
        }
        if self.status.is_leader {
            let is_full = self.ranges.refs_under_way >= REFS_UNDER_WAY_MAX;
            if self.is_serving() && !is_full {
                let refs = mem::take(&mut self.ranges.reports);
                self.ranges.refs_under_way += 1;
                let body = Some(Body::Refs(Refs { refs }));
                self.push_record(Record { body, ..Record::default() }, view)?;
            }
        } else if let Some(leader) = self.leader_within_reach() {
            for reference in mem::take(&mut self.ranges.reports) {
                self.out.push(Effect::Send(leader, Parcel::Ref(reference)));
            }
        }
        Ok(())
    }

    /// An entry with references was folded, or will never be.
    pub(super) fn refs_done(&mut self) {
        self.ranges.refs_under_way = self.ranges.refs_under_way.saturating_sub(1);
    }

    pub(super) fn stop_refs(&mut self) {
        self.ranges.refs_under_way = 0;
        // They were meant for this leader; ranges report again what is not numbered.
        self.ranges.reports.clear();
    }

    /// Tells every replica here.
    pub(super) fn tell_all(&mut self, input: impl Fn() -> Input) {
        for range in self.ranges_here() {
            self.out.push(Effect::Range(range, input()));
        }
    }

    /// Who may carry out requests for a range, if anybody can be reached. Where there is no replica of
    /// it, that is whom another has named, or anybody who holds it and may know.
    pub(super) fn range_leader(&self, range: GroupId) -> Option<NodeId> {
        let can_be_reached =
            |node: &NodeId| *node == self.node() || self.connected.contains_key(node);
        if self.ranges.is_running(range) {
            return self.ranges.leader(range).filter(can_be_reached);
        }
        let named = self.hint(range).filter(can_be_reached);
        named.or_else(|| {
            let holders = &self.state.ranges().get(range)?.replicas;
            let others = holders.iter().filter(|node| **node != self.node());
            let mut others = others.copied().filter(can_be_reached);
            // Another one now and then, as the first may know nothing either.
            let turn = self.now.0 / GUESS_AGAIN_AFTER.0;
            let count = others.clone().count().max(1) as u64;
            others.nth(usize::try_from(turn % count).expect("less than a count"))
        })
    }

    /// Who was asked does not lead a range, and names the one who does, if it knows. Whether it is worth
    /// asking that one at once; if not, time has to pass.
    pub(super) fn take_hint(&mut self, range: GroupId, from: NodeId, leader: NodeId) -> bool {
        if self.ranges.is_running(range) || self.state.ranges().get(range).is_none() {
            return false;
        }
        let known = self.hints.get(&range).copied();
        // Who names this node knows what was so before.
        let is_useless = leader == NodeId(0) || leader == from || leader == self.node();
        let named =
            if is_useless { self.hint(range).filter(|it| *it != from) } else { Some(leader) };
        let is_new = self.hint(range) != named;
        if is_new {
            self.hints.insert(range, Hint { leader: named, since: self.now });
        }
        let has_stood = known.is_none_or(|hint| hint.since + HINT_STANDS <= self.now);
        let is_asked_at_once =
            !is_useless && (has_stood || !is_new) && self.connected.contains_key(&leader);
        self.is_unpark_due |= is_asked_at_once;
        is_asked_at_once
    }

    pub(super) fn hint(&self, range: GroupId) -> Option<NodeId> {
        self.hints.get(&range)?.leader
    }

    /// Forgets what was said of ranges that are no more.
    pub(super) fn forget_hints(&mut self) {
        let ranges = self.state.ranges();
        self.hints.retain(|range, _| ranges.get(*range).is_some());
    }

    /// Replicas that are on this node, be they wanted here or not.
    pub(super) fn ranges_here(&self) -> BTreeSet<GroupId> {
        let known = self.state.ranges().iter().map(|(range, _)| range);
        let known = known.filter(|range| self.is_here(*range));
        // Some are ahead of this state, or have ceased and are not taken over yet.
        known.chain(self.ranges.found.iter().copied()).collect()
    }

    pub(super) fn leader_within_reach(&self) -> Option<NodeId> {
        self.status.leader.filter(|leader| self.connected.contains_key(leader))
    }
}
