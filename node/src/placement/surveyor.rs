//! From heartbeats and the table of ranges to a survey: what the spine's leader knows of the
//! cluster. Remembers what no heartbeat says: who was heard of when, and how old and how quiet ranges
//! are, counted from when this node began to lead.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_core::NodeId;
use flotilla_core::proto::internal::{
    Heartbeat, LedRange, NodeInfo, RangeInfo, RangeSurvey, ReplicaProgress,
};
use flotilla_core::time::{Length, Time};
use flotilla_placement::{Load, Node, Policy, ROOT, Range, Replica, Spine, Survey};

use super::beat::spans;
use crate::range::Looked;

/// A new leader plans nothing for so many times the rest between two heartbeats: by then every living
/// node has sent one.
const PLANS_AFTER: u64 = 3;
/// A node that said this long ago that it leads a range, likewise, is not believed any more.
const CLAIM_LASTS: u64 = 5;

/// What is remembered from survey to survey.
#[derive(Debug, Default)]
pub(super) struct Surveyor {
    /// Between two heartbeats of a node.
    rest: Length,
    term: u64,
    since: Time,
    heard: BTreeMap<u64, (Time, Heartbeat)>,
    ranges: BTreeMap<u64, Remembered>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    generation: u64,
    since: Time,
    busy: Time,
}

impl Surveyor {
    /// A heartbeat has come.
    pub(super) fn hear(&mut self, now: Time, from: NodeId, heartbeat: Heartbeat) {
        self.heard.insert(from.0, (now, heartbeat));
    }

    /// This node leads the spine in this term.
    pub(super) fn lead(&mut self, now: Time, term: u64, rest: Length) {
        if self.term != term {
            *self = Self { term, since: now, ..Self::default() };
        }
        self.rest = rest;
    }

    /// Enough was heard to go by.
    pub(super) fn is_ready(&self, now: Time) -> bool {
        now.since(self.since).0 >= PLANS_AFTER * self.rest.0
    }

    /// The cluster as it is known. Ranges in `changing` are left alone.
    pub(super) fn survey(
        &mut self,
        now: Time,
        looked: &Looked,
        policy: &Policy,
        changing: &BTreeSet<u64>,
    ) -> Survey {
        self.heard.retain(|id, _| looked.members.iter().any(|member| member.id == *id));
        let mut known = std::mem::take(&mut self.ranges);
        let claims = self.claims(now, looked);
        let reads = self.reads(now);
        let voters = looked.members.iter().filter(|member| !member.is_learner);
        let nodes: BTreeMap<u64, Node> =
            voters.map(|it| (it.id, self.node(now, it.id, it.is_draining))).collect();
        let spine = Spine {
            replicas: followers_of(looked),
            leader: looked.status.leader.map(|leader| leader.0),
            is_changing: looked.is_changing,
        };
        let mut survey = Survey { nodes, spine, ..Survey::default() };
        for info in &looked.ranges {
            let claim = claims.get(&info.range).copied();
            let reads_per_second = reads.get(&info.range).copied().unwrap_or(0);
            let Some(mut range) = range_of(looked, info, claim, reads_per_second) else { continue };
            // A change of its replicas that cannot come to an end is taken back.
            let is_lost = |it: &Replica| it.is_learner && !survey.is_staying(policy, it.node);
            let is_moving = info.is_changing && !range.replicas.iter().any(is_lost);
            range.is_changing = is_moving || changing.contains(&info.range);
            let is_quiet = is_quiet(policy, &range);
            let fresh = Remembered { generation: info.generation, since: now, busy: now };
            let remembered = known.entry(info.range).or_insert(fresh);
            if remembered.generation != info.generation {
                *remembered = fresh;
            }
            if !is_quiet {
                remembered.busy = now;
            }
            range.age_ms = now.since(remembered.since).0 / 1_000;
            range.quiet_ms = now.since(remembered.busy).0 / 1_000;
            survey.ranges.insert(info.range, range);
        }
        known.retain(|id, _| survey.ranges.contains_key(id));
        self.ranges = known;
        survey
    }

    fn node(&self, now: Time, id: u64, is_draining: bool) -> Node {
        let Some((at, heartbeat)) = self.heard.get(&id) else {
            let silent_ms = now.since(self.since).0 / 1_000;
            return Node { silent_ms, is_draining, ..Node::default() };
        };
        // Where heartbeats are rare, nobody is silent who is not due.
        let more_rest = self.rest.0.saturating_sub(super::HEARTBEAT_EVERY.0);
        Node {
            zone: heartbeat.zone.clone(),
            silent_ms: now.since(*at).0.saturating_sub(more_rest) / 1_000,
            is_draining,
            capacity_bytes: heartbeat.capacity_bytes,
            used_bytes: heartbeat.used_bytes,
            write_bytes_per_second: heartbeat.write_bytes_per_second,
            requests_per_second: heartbeat.requests_per_second,
        }
    }

    /// What the leader of each range told of it. Of two that claim one, the replica of the range on
    /// this node knows better, if there is one, or else the newer is right.
    fn claims(&self, now: Time, looked: &Looked) -> BTreeMap<u64, (u64, &LedRange)> {
        let me = looked.status.leader.unwrap_or_default().0;
        let known = |it: &RangeInfo| {
            let is_sure = it.leader != 0 && it.replicas.contains(&me);
            (it.range, is_sure.then_some(it.leader))
        };
        let leaders: BTreeMap<u64, Option<u64>> = looked.ranges.iter().map(known).collect();
        let mut claims: BTreeMap<u64, (Time, u64, &LedRange)> = BTreeMap::new();
        for (node, (at, heartbeat)) in &self.heard {
            if now.since(*at).0 >= CLAIM_LASTS * self.rest.0 {
                continue;
            }
            for led in &heartbeat.led {
                let is_believed =
                    leaders.get(&led.range).is_some_and(|known| known.is_none_or(|it| it == *node));
                let is_newer = claims.get(&led.range).is_none_or(|(before, ..)| before < at);
                if is_believed && is_newer {
                    claims.insert(led.range, (*at, *node, led));
                }
            }
        }
        claims.into_iter().map(|(range, (_, node, led))| (range, (node, led))).collect()
    }

    /// Reads of clients of all nodes.
    fn reads(&self, now: Time) -> BTreeMap<u64, u64> {
        let mut sums = BTreeMap::new();
        for (at, heartbeat) in self.heard.values() {
            if now.since(*at).0 < CLAIM_LASTS * self.rest.0 {
                for reads in &heartbeat.reads {
                    *sums.entry(reads.range).or_default() += reads.reads_per_second;
                }
            }
        }
        sums
    }

    /// For operators: the ranges of a survey. Those that nobody has told of are left out.
    pub(super) fn range_infos(&self, now: Time, looked: &Looked) -> BTreeMap<u64, RangeSurvey> {
        let claims = self.claims(now, looked);
        let reads = self.reads(now);
        let lag = |led: &LedRange| led.replicas.iter().map(|it| it.lag_entries).max();
        claims
            .into_iter()
            .map(|(range, (_, led))| {
                let info = RangeSurvey {
                    bytes: led.bytes,
                    keys: led.keys,
                    is_counted: led.is_counted,
                    writes_per_second: led.writes_per_second,
                    write_bytes_per_second: led.write_bytes_per_second,
                    reads_per_second: reads.get(&range).copied().unwrap_or(0),
                    lag_entries: lag(led).unwrap_or(0),
                };
                (range, info)
            })
            .collect()
    }

    /// For operators: all members, learners too.
    pub(super) fn node_infos(&self, now: Time, looked: &Looked) -> Vec<NodeInfo> {
        let led = |id| looked.ranges.iter().filter(|range| range.leader == id).count() as u64;
        let info = |member: &flotilla_core::proto::internal::Member| {
            let node = self.node(now, member.id, member.is_draining);
            NodeInfo {
                node: member.id,
                name: member.name.clone(),
                zone: node.zone,
                is_draining: node.is_draining,
                silent_ms: node.silent_ms,
                capacity_bytes: node.capacity_bytes,
                used_bytes: node.used_bytes,
                requests_per_second: node.requests_per_second,
                write_bytes_per_second: node.write_bytes_per_second,
                led: led(member.id),
            }
        };
        looked.members.iter().map(info).collect()
    }
}

/// A range by its leader's word, or what the table alone says of it: its replicas then count as far
/// behind, so that nothing is moved on a guess. `None` for range 0 if it owns nothing.
fn range_of(
    looked: &Looked,
    info: &RangeInfo,
    claim: Option<(u64, &LedRange)>,
    reads_per_second: u64,
) -> Option<Range> {
    // If range 0 has several pieces, the first is taken, and the survey says of itself that it has
    // holes.
    let (start, end) = spans(&looked.ranges, info).into_iter().next()?;
    let leader = claim.map(|(node, _)| node).or((info.leader != 0).then_some(info.leader));
    let told = claim.map(|(_, led)| led);
    let replicas = match info.range {
        ROOT => Vec::new(),
        _ => replicas_of(looked, info, told.map_or(&[], |led| &led.replicas)),
    };
    let mut range = Range {
        start: start.to_vec(),
        end: end.map(|end| end.to_vec()).unwrap_or_default(),
        generation: info.generation,
        replicas,
        leader,
        ..Range::default()
    };
    range.load.reads_per_second = reads_per_second;
    // What was found for another span says nothing of this one.
    if let Some(led) = told.filter(|led| led.generation == info.generation) {
        (range.bytes, range.keys) = (led.bytes, led.keys);
        range.load = Load {
            writes_per_second: led.writes_per_second,
            write_bytes_per_second: led.write_bytes_per_second,
            reads_per_second,
        };
        let key = |key: &[u8]| (!key.is_empty()).then(|| key.to_vec());
        range.load_split_key = key(&led.load_split_key);
        range.size_split_key = key(&led.size_split_key);
    }
    Some(range)
}

/// Who holds a range, and who is to: how far they are the leader has told, or may not have yet.
/// Learners of the cluster do not vote here, and are left out.
fn replicas_of(looked: &Looked, info: &RangeInfo, told: &[ReplicaProgress]) -> Vec<Replica> {
    let is_voter = |node: &u64| looked.members.iter().any(|it| it.id == *node && !it.is_learner);
    let of = |node: u64| match told.iter().find(|it| it.node == node) {
        Some(&ReplicaProgress { is_learner, lag_entries, learner_ms, .. }) => {
            Replica { node, is_learner, lag_entries, learner_ms }
        }
        // Its leader has not looked yet, or has not begun with it.
        None => Replica {
            node,
            is_learner: info.is_changing && !told.is_empty(),
            lag_entries: u64::MAX,
            learner_ms: 0,
        },
    };
    let mut replicas: Vec<Replica> =
        info.replicas.iter().copied().filter(is_voter).map(of).collect();
    if info.is_changing {
        // They go, and vote until then.
        let leaving = told.iter().map(|it| it.node).filter(|it| !info.replicas.contains(it));
        replicas.extend(leaving.map(of));
    }
    replicas
}

/// Who follows the spine with a vote, or could have one: learners of the cluster are left to the
/// operator.
fn followers_of(looked: &Looked) -> Vec<Replica> {
    let is_learner = |node: u64| looked.members.iter().any(|it| it.id == node && it.is_learner);
    let replicas = looked.replicas.iter().filter(|replica| !is_learner(replica.node));
    let replica = |it: &ReplicaProgress| Replica {
        node: it.node,
        is_learner: it.is_learner,
        lag_entries: it.lag_entries,
        ..Replica::default()
    };
    replicas.map(replica).collect()
}

fn is_quiet(policy: &Policy, range: &Range) -> bool {
    range.load.writes_per_second <= policy.merge_writes_per_second
        && range.load.write_bytes_per_second <= policy.merge_write_bytes_per_second
        && range.load.reads_per_second <= policy.merge_reads_per_second
}

#[cfg(test)]
mod tests {
    use flotilla_core::proto::internal::{Member, RangeReads};
    use flotilla_core::spine::Status;

    use super::*;

    fn looked() -> Looked {
        let member = |id| Member { id, ..Member::default() };
        let range = |range, start: &'static str, leader| RangeInfo {
            range,
            start: start.into(),
            leader,
            replicas: vec![1, 2],
            generation: 1,
            ..RangeInfo::default()
        };
        let mut first = range(5, "b", 2);
        first.end = "m".into();
        Looked {
            status: Status { is_leader: true, leader: Some(NodeId(1)), term: 4, is_learner: false },
            members: vec![member(1), Member { is_draining: true, ..member(2) }],
            ranges: vec![first, range(6, "m", 0), RangeInfo { generation: 0, ..range(0, "", 1) }],
            replicas: vec![progress(1, 0), progress(2, 3)],
            is_changing: false,
            open_decisions: Vec::new(),
            replicas_wanted: 2,
            leases_count: 0,
            leases_ending: Vec::new(),
        }
    }

    fn progress(node: u64, lag_entries: u64) -> ReplicaProgress {
        ReplicaProgress { node, lag_entries, ..ReplicaProgress::default() }
    }

    fn led(range: u64, generation: u64, keys: u64) -> LedRange {
        let replicas = vec![progress(1, 7), progress(2, 0)];
        LedRange { range, generation, keys, replicas, ..LedRange::default() }
    }

    fn second(n: u64) -> Time {
        Time(0) + Length::from_secs(n)
    }

    #[test]
    fn a_survey_has_what_leaders_told_and_when_nodes_were_heard_of() {
        let (mut surveyor, looked) = (Surveyor::default(), looked());
        surveyor.lead(second(10), 4, second(1).since(Time(0)));
        assert!(!surveyor.is_ready(second(12)) && surveyor.is_ready(second(13)));
        let reads = |reads_per_second| vec![RangeReads { range: 5, reads_per_second }];
        let one = Heartbeat { led: vec![led(0, 0, 9)], reads: reads(30), ..Heartbeat::default() };
        surveyor.hear(second(13), NodeId(1), one);
        let two = Heartbeat {
            zone: "z".to_owned(),
            led: vec![led(5, 1, 100), led(6, 0, 50)],
            reads: reads(12),
            ..Heartbeat::default()
        };
        surveyor.hear(second(12), NodeId(2), two);
        let policy = Policy::default();
        let survey = surveyor.survey(second(14), &looked, &policy, &BTreeSet::from([6]));
        assert_eq!(survey.nodes[&1].silent_ms, 1_000);
        assert_eq!((survey.nodes[&2].silent_ms, survey.nodes[&2].is_draining), (2_000, true));
        assert_eq!((survey.nodes[&2].zone.as_str(), survey.nodes.len()), ("z", 2));
        assert_eq!(survey.crack(), None);
        let (root, five, six) = (&survey.ranges[&0], &survey.ranges[&5], &survey.ranges[&6]);
        assert_eq!((root.keys, root.leader, &root.end[..]), (9, Some(1), &b"b"[..]));
        assert_eq!((five.keys, five.leader, five.load.reads_per_second), (100, Some(2), 42));
        assert_eq!(five.replicas[0], Replica { lag_entries: 7, ..Replica::voter(1) });
        assert_eq!((six.keys, six.leader), (0, Some(2)), "told of another span");
        assert!(six.is_changing && !five.is_changing);
        assert_eq!(survey.spine.replicas[1].lag_entries, 3);
    }

    /// Where the spine's leader has no replica of a range, its table has hearsay.
    #[test]
    fn who_says_that_it_leads_a_range_that_is_not_here_is_believed() {
        let (mut surveyor, mut looked) = (Surveyor::default(), looked());
        surveyor.lead(second(1), 4, second(1).since(Time(0)));
        let heartbeat = Heartbeat { led: vec![led(5, 1, 50)], ..Heartbeat::default() };
        surveyor.hear(second(1), NodeId(2), heartbeat);
        looked.ranges[0].leader = 3;
        let mut leader = |looked: &Looked| {
            let survey = surveyor.survey(second(2), looked, &Policy::default(), &BTreeSet::new());
            survey.ranges[&5].leader
        };
        assert_eq!(leader(&looked), Some(3), "the replica here knows better");
        looked.ranges[0].replicas = vec![2, 3];
        assert_eq!(leader(&looked), Some(2));
    }

    #[test]
    fn who_is_silent_is_not_believed_and_age_begins_anew_with_a_change() {
        let (mut surveyor, mut looked) = (Surveyor::default(), looked());
        let policy = Policy::default();
        surveyor.lead(second(1), 4, second(1).since(Time(0)));
        let heartbeat = Heartbeat { led: vec![led(6, 1, 50)], ..Heartbeat::default() };
        surveyor.hear(second(1), NodeId(2), heartbeat);
        let survey = |surveyor: &mut Surveyor, at, looked: &Looked| {
            surveyor.survey(second(at), looked, &policy, &BTreeSet::new())
        };
        assert_eq!(survey(&mut surveyor, 2, &looked).ranges[&6].leader, Some(2));
        let later = survey(&mut surveyor, 8, &looked);
        assert_eq!((later.ranges[&6].leader, later.nodes[&1].silent_ms), (None, 7_000));
        assert_eq!((later.ranges[&6].age_ms, later.ranges[&6].quiet_ms), (6_000, 6_000));
        assert_eq!(later.ranges[&6].replicas[0].lag_entries, u64::MAX, "nothing is known of them");
        looked.ranges[1].generation = 2;
        assert_eq!(survey(&mut surveyor, 9, &looked).ranges[&6].age_ms, 0);
        surveyor.lead(second(10), 5, second(1).since(Time(0)));
        assert_eq!(survey(&mut surveyor, 11, &looked).nodes[&2].silent_ms, 1_000);
    }
}
