//! A transaction that reads the past is committed in its range; before it is numbered, that past is
//! compacted. It must not take effect.

use bytes::Bytes;
use flotilla_core::proto::internal::{
    Compact, Effect, Member, Predicate, Record, Ref, Refs, Write, record::Body,
};
use flotilla_core::spine::State;
use flotilla_core::view::Batch;
use flotilla_core::{GroupId, NodeId};

use super::found;
use crate::sim::Finding;

/// See the module.
pub fn past_compacted() -> Result<(), Finding> {
    let mut state = State::bootstrap(1, vec![Member { id: 1, ..Member::default() }]);
    state.pre_split(&[Bytes::from_static(b"m")], &[NodeId(1)]);
    let mut rows = Batch::default();
    let put = Effect { key: Bytes::from_static(b"a"), ..Effect::default() };
    let write = Body::Write(Write { effects: vec![put], ..Write::default() });
    let reads_at = |seq, reads_at| Predicate { seq, reads_at, ..Predicate::default() };
    let predicates = vec![reads_at(1, 2), reads_at(2, 3)];
    let reference = Ref { range: 1, upto: 2, predicates, ..Ref::default() };
    let bodies = [
        write.clone(),
        write.clone(),
        write,
        Body::Compact(Compact { revision: 3 }),
        Body::Refs(Refs { refs: vec![reference] }),
    ];
    for (index, body) in (2..).zip(bodies) {
        state.enter(index, 1);
        state.fold(&Record { body: Some(body), ..Record::default() }, &mut rows);
    }
    let runs = state.ranges().get(GroupId(1)).map(|range| range.runs().to_vec());
    let voids = runs.iter().flatten().flat_map(|run| &run.voids).map(|void| void.seq);
    let (voids, revision) = (voids.collect::<Vec<_>>(), state.position().revision);
    if voids != [1] || revision != 5 {
        return found(format!("of two reads of the past, {voids:?} are void, at {revision}"));
    }
    Ok(())
}
