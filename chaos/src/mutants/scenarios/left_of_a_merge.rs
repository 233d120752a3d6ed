//! Range 1 took over ranges 2 and 3, and gave their keys away again to range 5. A node that missed all
//! of that is sent range 1 as it is now, so its replicas of 2 and 3 are taken over by nobody. What is
//! left of 2 stands in the way of range 5 and is dropped. What is left of 3 is not, yet: who has no
//! state here may be sent one that is still to take it over.

use bytes::Bytes;
use flotilla_core::group::{self, Recovered, Role};
use flotilla_core::membership::Policy;
use flotilla_core::memory::MemoryView;
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::{Member, Merge, Record, Split, TxnCommit, record::Body};
use flotilla_core::range::Tell;
use flotilla_core::range::stored::Stored;
use flotilla_core::spine::State;
use flotilla_core::spine::replica::{Config, Effect, Input, Limits, Replica};
use flotilla_core::time::Length;
use flotilla_core::view::Batch;
use flotilla_core::{GroupId, NodeId, Time};

use super::found;
use crate::sim::Finding;
use crate::sim::chance::Chance;

const NODE: NodeId = NodeId(1);
/// The first keys of ranges 1 to 4, when the cluster was founded.
const STARTS: [&[u8]; 4] = [b"0", b"a", b"g", b"m"];
/// More than go by between two looks.
const TICKS: u64 = 100;

/// See the module.
pub fn left_of_a_merge() -> Result<(), Finding> {
    let state = merged_and_cut();
    let view = store(&state);
    let dropped = dropped_by(state, &view);
    if dropped == [GroupId(2)] {
        return Ok(());
    }
    found(format!("of what is left of ranges 2 and 3, {dropped:?} is dropped"))
}

fn merged_and_cut() -> State {
    let mut state = State::bootstrap(1, vec![Member { id: NODE.0, ..Member::default() }]);
    state.pre_split(&STARTS.map(Bytes::from_static), &[NODE]);
    let merge = |right, end| {
        let end = Bytes::from_static(end);
        let merge = Merge { left: 1, right, end, left_at: 5, right_at: 5 };
        TxnCommit { ranges: vec![1, right], merge: Some(merge), ..TxnCommit::default() }
    };
    let (key, end) = (Bytes::from_static(STARTS[1]), Bytes::from_static(STARTS[3]));
    let split = Split { parent: 1, key, end, prepared_at: 9, ..Split::default() };
    let cut = TxnCommit { ranges: vec![1], split: Some(split), ..TxnCommit::default() };
    let commits = [merge(2, STARTS[2]), merge(3, STARTS[3]), cut];
    for (n, commit) in (1..).zip(commits) {
        state.enter(n + 1, 1);
        let record = Record { origin: 1, n, body: Some(Body::TxnCommit(commit)) };
        state.fold(&record, &mut Batch::default());
    }
    assert!(state.ranges().get(GroupId(5)).is_some(), "the keys were given away again");
    state
}

/// All but range 5 are here: 1 and 4 as they are now, 2 and 3 as they were.
fn store(state: &State) -> MemoryView {
    let mut rows = Batch::default();
    state.write_all(&mut rows);
    for (range, known) in state.ranges().iter().filter(|(range, _)| *range != GroupId(5)) {
        let first = Stored::first(state.conf().clone(), known.span.clone());
        Stored { generation: known.generation, ..first }.write(range, &mut rows);
    }
    for range in [2, 3] {
        let key = |at: usize| Bytes::from_static(STARTS[at]);
        let span = Span { start: key(range - 1), end: Some(key(range)) };
        Stored::first(state.conf().clone(), span).write(GroupId(range as u64), &mut rows);
    }
    let mut view = MemoryView::new();
    view.apply(&rows);
    view
}

fn dropped_by(state: State, view: &MemoryView) -> Vec<GroupId> {
    let config = Config {
        node: NODE,
        origin: 1,
        tick: Length::from_ms(100),
        group: group::Config::new(NODE, GroupId::SPINE),
        election_timeout: Length::from_secs(1),
        request_timeout: Length::from_secs(7),
        policy: Policy { learners_max: 1, is_strict: false },
        limits: Limits::default(),
        cluster_version: String::new(),
    };
    let position = state.position();
    let applied = group::Position { index: position.index, term: position.term };
    let recovered = Recovered { applied, conf: state.conf().clone(), ..Recovered::default() };
    let chance = Box::new(Chance::new(1));
    let replica = Replica::new(config, Time(0), state, recovered, chance);
    let mut replica = replica.expect("a state and an empty log fit together");
    let mut effects = Vec::new();
    let mut step = |now, input| {
        replica.step(Time(now), view, input, &mut effects).expect("memory");
    };
    for range in 1..=4 {
        step(0, Input::Range(GroupId(range), Tell::Role(Role::default())));
    }
    (1..=TICKS).for_each(|tick| step(tick * 100_000, Input::Tick));
    let mut dropped: Vec<GroupId> = effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Drop(range) => Some(range),
            _ => None,
        })
        .collect();
    dropped.sort_unstable();
    dropped.dedup();
    dropped
}
