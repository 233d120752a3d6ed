//! Recoveries of a member of three, from rows and logs made by hand, and what becomes of them: the
//! machine of a range joins what was written behind its log, and leads.

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::group::{Chance, Config, Entry};
use crate::memory::MemoryView;
use crate::mvcc::Applier;
use crate::proto::internal::{
    Effect, Lock, Prepare, RangeEntry, RangeWrite, Ref, Refs, Run, Share, TxnCommit, TxnId, Write,
};
use crate::range::replica::{self, Input, Limits, Replica};
use crate::time::{Length, Time};
use crate::verify::verify;

const ME: NodeId = NodeId(1);
const RANGE: GroupId = GroupId(1);
const TXN: TxnId = TxnId { origin: 9, n: 1 };

struct Zero;

impl Chance for Zero {
    fn below(&mut self, _: u64) -> u64 {
        0
    }
}

/// What is on the disks of member 1.
struct Disks {
    view: MemoryView,
    logs: BTreeMap<GroupId, Recovered>,
}

impl Disks {
    /// Of three members with a range from "m" on.
    fn new() -> Self {
        let member = |id| Member { id, name: format!("n{id}"), ..Member::default() };
        let mut state = State::bootstrap(7, vec![member(1), member(2), member(3)]);
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        state.pre_split(&[Bytes::from_static(b"m")], &nodes);
        let mut batch = Batch::default();
        state.write_all(&mut batch);
        let span = state.ranges().get(RANGE).expect("it was made").span.clone();
        Stored::first(conf(&[1, 2, 3]), span).write(RANGE, &mut batch);
        let mut view = MemoryView::new();
        view.apply(&batch);
        Self { view, logs: BTreeMap::new() }
    }

    /// The log of a group from index 2 on, of which the member knew so much to be committed.
    fn log(mut self, group: GroupId, commit: u64, contents: Vec<Vec<u8>>) -> Self {
        let entry = |(n, data): (u64, Vec<u8>)| Entry {
            index: n,
            term: 2,
            data: data.into(),
            ..Entry::default()
        };
        let entries = (2..).zip(contents).map(entry).collect();
        let hard_state = HardState { term: 2, vote: 2, commit };
        let truncated = Recovered::FIRST;
        let log = Recovered { hard_state, truncated, entries, ..Recovered::default() };
        self.logs.insert(group, log);
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.view, &self.logs, ME, false).expect("it can be recovered")
    }

    /// As the driver does.
    fn carry_out(&mut self, plan: Plan) {
        self.view.apply(&plan.rows);
        for (group, append) in plan.appends {
            let log = self.logs.entry(group).or_default();
            if let Some(place) = append.reset {
                (log.truncated, log.entries) = (place, Vec::new());
            }
            log.entries.extend(append.entries);
            log.hard_state = append.hard_state;
        }
    }

    /// Starts the range's machine on them and drives it until it leads. `runs` is what the spine tells.
    fn run_range(&mut self, runs: Vec<Run>) -> Replica {
        let stored = Stored::load(&self.view, RANGE).expect("readable").expect("it is here");
        let log = self.logs[&RANGE].clone();
        let (applied, members) = (stored.position.place(), stored.conf.clone());
        let recovered = Recovered { applied, conf: members, ..log };
        let config = replica::Config {
            node: ME,
            range: RANGE,
            since: 0,
            group: Config::new(ME, RANGE),
            report_again_after: Length::from_ms(100),
            abort_after: Length::from_ms(10_000),
            note_after: Length::from_ms(100),
            limits: Limits::default(),
        };
        let replica = Replica::new(config, Time(0), stored, recovered, Box::new(Zero));
        let mut replica = replica.expect("log and state fit");
        let mut inputs = vec![Input::Numbered(runs.clone())];
        for tick in 0..200_u64 {
            inputs.push(Input::Tick);
            while !inputs.is_empty() {
                let mut out = Vec::new();
                for input in std::mem::take(&mut inputs) {
                    let now = Time(tick * 100_000);
                    replica.step(now, &self.view, input, &mut out).expect("readable");
                }
                for effect in out {
                    self.carry_out_effect(effect, &runs, &mut inputs);
                }
            }
        }
        replica
    }

    fn carry_out_effect(&mut self, effect: replica::Effect, runs: &[Run], inputs: &mut Vec<Input>) {
        match effect {
            replica::Effect::Append(append) => inputs.push(Input::Persisted(append.token)),
            replica::Effect::WantNumbers => inputs.push(Input::Numbered(runs.to_vec())),
            replica::Effect::Apply(task) => {
                let (mut batch, mut events) = (Batch::default(), Vec::new());
                let mut applier = Applier::new(&self.view);
                for step in task.steps.iter().filter(|step| step.revision > 0) {
                    let (revision, effects, subs) = (step.revision, &step.effects, &step.subs);
                    if subs.is_empty() {
                        applier.apply(revision, effects, false, &mut batch, &mut events).map(drop)
                    } else {
                        applier.apply_share(revision, effects, subs, &mut batch, &mut events)
                    }
                    .expect("readable");
                }
                batch.writes.extend(task.rows.writes);
                self.view.apply(&batch);
                inputs.push(Input::Applied(task.position));
            }
            _ => {}
        }
    }

    /// The keys of the range.
    fn keys(&self) -> Vec<String> {
        let rows = self.view.rows(crate::view::Column::Key);
        rows.map(|(key, _)| key.escape_ascii().to_string()).collect()
    }
}

fn conf(voters: &[u64]) -> ConfState {
    ConfState { voters: voters.to_vec(), ..ConfState::default() }
}

fn put(key: &str) -> Effect {
    Effect { key: key.to_owned().into(), value: Bytes::from_static(b"v"), ..Effect::default() }
}

fn writes(keys: &[&str]) -> Vec<u8> {
    let write = |key: &&str| RangeWrite { effects: vec![put(key)], ..RangeWrite::default() };
    RangeEntry { writes: keys.iter().map(write).collect(), ..RangeEntry::default() }.encode_to_vec()
}

fn records(bodies: Vec<(TxnId, Body)>) -> Vec<u8> {
    let record =
        |(id, body): (TxnId, Body)| Record { origin: id.origin, n: id.n, body: Some(body) };
    SpineEntry { records: bodies.into_iter().map(record).collect() }.encode_to_vec()
}

fn reference(upto: u64, noted: u64) -> Vec<u8> {
    let refs = vec![Ref { range: RANGE.0, upto, noted, ..Ref::default() }];
    records(vec![(TxnId::default(), Body::Refs(Refs { refs }))])
}

fn inline(key: &str) -> Vec<u8> {
    let write = Write { effects: vec![put(key)], ..Write::default() };
    records(vec![(TxnId::default(), Body::Write(write))])
}

fn commit(prepared_at: u64, effects: Vec<Effect>) -> Vec<u8> {
    let subs = (0..effects.len() as u64).collect();
    let share = Share { range: RANGE.0, prepared_at, effects, subs, ..Share::default() };
    let commit = TxnCommit { shares: vec![share], ranges: vec![RANGE.0], ..TxnCommit::default() };
    records(vec![(TXN, Body::TxnCommit(commit))])
}

#[test]
fn a_member_that_has_everything_keeps_everything() {
    let spine = vec![Vec::new(), inline("a"), reference(2, 0), inline("b")];
    let range = vec![Vec::new(), writes(&["m1", "m2"])];
    let mut disks = Disks::new().log(GroupId::SPINE, 3, spine).log(RANGE, 3, range);
    let plan = disks.plan();
    let Report { sure, newest, ref removed, ref ranges, .. } = plan.report;
    assert_eq!((sure, newest, removed.len(), plan.report.complete()), (2, 5, 2, 2));
    assert!(ranges.iter().all(RangeReport::is_whole), "{ranges:?}");
    assert_eq!(plan.appends.last().map(|(group, _)| *group), Some(GroupId::SPINE));
    disks.carry_out(plan);
    assert!(!disks.plan().is_needed(), "it is alone");
    let run = Run { first: 1, count: 2, revision: 3, voids: Vec::new() };
    let replica = disks.run_range(vec![run]);
    assert!(replica.is_serving());
    assert_eq!(replica.group().conf(), conf(&[1]));
    assert_eq!(disks.keys(), ["m1", "m2"]);
    let report = verify(&disks.view, None);
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[test]
fn what_was_numbered_and_is_not_here_keeps_its_place() {
    let effects = vec![put("z"), Effect { is_delete: true, ..put("m9") }];
    let spine = vec![
        Vec::new(),
        reference(3, 0),
        inline("a"),
        reference(6, 0),
        commit(9, effects),
        reference(7, 0),
    ];
    let range = vec![Vec::new(), writes(&["m1", "m2"]), writes(&["m3", "m4"])];
    let mut disks = Disks::new().log(GroupId::SPINE, 4, spine).log(RANGE, 3, range);
    let plan = disks.plan();
    let report = &plan.report.ranges[0];
    assert_eq!((plan.report.sure, plan.report.newest, plan.report.complete()), (5, 10, 5));
    // 2 to 4 and 6 to 8 are of the range, 5 is of range 0, 9 of the transaction, 10 of the range.
    assert_eq!(report.missing, [(7, 8), (10, 10)]);
    assert_eq!((report.transactions_missing, report.deletes_dropped), (1, 1));
    let text = plan.report.to_string();
    assert!(text.contains("missing: revisions 7 to 8 of range 1 (keys from \"m\" on)"), "{text}");
    disks.carry_out(plan);
    assert!(!disks.plan().is_needed(), "it is alone");
    // The log tells how everything was numbered: nobody else has to.
    let replica = disks.run_range(Vec::new());
    assert!(replica.is_serving());
    assert_eq!((replica.applied().seq, replica.load().locks), (7, 0));
    assert!(replica.applied().index >= 9, "where the order knows of locks");
    assert_eq!(disks.keys(), ["m1", "m2", "m3", "m4", "z"]);
}

#[test]
fn writes_whose_numbers_nobody_knows_are_void() {
    // The note that told how 1 to 4 were numbered is not in the log here.
    let spine = vec![Vec::new(), reference(4, 0), reference(5, 4)];
    let range = vec![Vec::new(), writes(&["m1"])];
    let mut disks = Disks::new().log(GroupId::SPINE, 4, spine.clone()).log(RANGE, 3, range);
    // The order still knows by its own log.
    let report = disks.plan().report.ranges.remove(0);
    assert_eq!((report.missing, report.dropped_unnumbered), (vec![(3, 6)], 0));
    // Now it has been stored, and the log before is gone.
    let mut state = State::load(&disks.view).expect("readable").expect("there");
    let mut batch = Batch::default();
    for (index, data) in (2..).zip(&spine) {
        state.enter(index, 2);
        for record in SpineEntry::decode(&data[..]).expect("sound").records {
            state.fold(&record, &mut batch);
        }
    }
    state.position().write(&mut batch);
    disks.view.apply(&batch);
    let log = disks.logs.get_mut(&GroupId::SPINE).expect("there");
    (log.truncated, log.entries) = (Position { index: 4, term: 2 }, Vec::new());
    let plan = disks.plan();
    let report = &plan.report.ranges[0];
    assert_eq!((report.missing.clone(), report.missing_unnumbered), (vec![(6, 6)], 3));
    assert_eq!((report.dropped_unnumbered, plan.report.complete()), (1, 0));
    disks.carry_out(plan);
    let run = Run { first: 5, count: 1, revision: 6, voids: Vec::new() };
    let replica = disks.run_range(vec![run]);
    assert!(replica.is_serving());
    assert_eq!((replica.applied().seq, disks.keys().len()), (5, 0));
}

#[test]
fn locks_that_are_here_are_resolved_as_it_was_decided() {
    let lock = Lock { key: Bytes::from_static(b"m5"), is_write: true, ..Lock::default() };
    let prepares = vec![Prepare { id: Some(TXN), locks: vec![lock] }];
    let prepare = RangeEntry { prepares, ..RangeEntry::default() }.encode_to_vec();
    let spine = vec![Vec::new(), reference(1, 0), commit(4, vec![put("m5")])];
    let range = vec![Vec::new(), writes(&["m1"]), prepare];
    let mut disks = Disks::new().log(GroupId::SPINE, 2, spine).log(RANGE, 3, range);
    let plan = disks.plan();
    assert!(plan.report.ranges[0].is_whole());
    disks.carry_out(plan);
    let run = Run { first: 1, count: 1, revision: 2, voids: Vec::new() };
    let replica = disks.run_range(vec![run]);
    assert_eq!((replica.is_serving(), replica.load().locks), (true, 0));
    assert_eq!(disks.keys(), ["m1", "m5"]);
}

#[test]
fn ranges_that_are_not_here_are_given_up_on_demand_only() {
    let spine = vec![Vec::new(), reference(3, 0), commit(9, vec![put("z")])];
    let mut disks = Disks::new().log(GroupId::SPINE, 2, spine);
    let mut batch = Batch::default();
    batch.delete(crate::view::Column::Meta, stored::key(RANGE));
    disks.view.apply(&batch);
    let refused = plan(&disks.view, &disks.logs, ME, false).expect_err("it is not here");
    assert!(matches!(&refused, Refused::Lost(lost) if lost[0].0 == RANGE), "{refused}");
    let plan = plan(&disks.view, &disks.logs, ME, true).expect("it is given up");
    assert!(plan.report.ranges[0].is_lost && plan.report.complete() == 0);
    disks.carry_out(plan);
    assert!(!disks.plan().is_needed(), "it is alone");
    let stored = Stored::load(&disks.view, RANGE).expect("readable").expect("it begins");
    assert_eq!((stored.position.seq, stored.noted), (3, 3));
    assert!(stored.position.index > 9, "behind all locks that the order knows of");
    let replica = disks.run_range(Vec::new());
    assert!(replica.is_serving());
    let (spine, range) = (disks.logs.get(&GroupId::SPINE), disks.logs.get(&RANGE));
    assert!(spine.is_some() && range.is_some_and(|log| log.entries.is_empty()));
}

#[test]
fn who_was_removed_or_has_nothing_is_refused() {
    let disks = Disks::new();
    let stranger = plan(&disks.view, &disks.logs, NodeId(9), false).expect_err("a stranger");
    assert_eq!(stranger, Refused::NotMember(NodeId(9)));
    let empty = plan(&MemoryView::new(), &disks.logs, ME, false).expect_err("nothing is here");
    assert_eq!(empty, Refused::NoState);
}

/// A membership that was being changed when the quorum was lost, in a log that never said how it ended.
#[test]
fn changes_that_were_under_way_are_undone() {
    let change = group::Change {
        steps: vec![ChangeStep::AddVoter(NodeId(4)), ChangeStep::Remove(NodeId(1))],
    };
    let mut disks = Disks::new().log(GroupId::SPINE, 2, vec![Vec::new(), inline("a")]).log(
        RANGE,
        2,
        vec![Vec::new(), writes(&["m1"]), change.encode().to_vec()],
    );
    let log = disks.logs.get_mut(&RANGE).expect("there");
    log.entries[2].kind = group::EntryKind::Change;
    let plan = disks.plan();
    assert_eq!(plan.report.ranges[0].not_in_order, 1);
    disks.carry_out(plan);
    let run = Run { first: 1, count: 1, revision: 3, voids: Vec::new() };
    let replica = disks.run_range(vec![run]);
    assert!(replica.is_serving());
    assert_eq!(replica.group().conf(), conf(&[1]));
    assert_eq!(disks.keys(), ["m1"]);
}
