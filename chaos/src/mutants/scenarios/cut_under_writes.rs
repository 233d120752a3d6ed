//! A range is to be cut while a write to a key behind the cut is committed and not numbered. Its
//! keys count as locked only when nothing is under way on them any more.

use bytes::Bytes;
use flotilla_core::command::RequestId;
use flotilla_core::proto::Span;
use flotilla_core::range::replica::Input;
use flotilla_core::spine::ranges::{Range, Ranges};
use flotilla_core::txn::{self, Coordinator, Job};
use flotilla_core::{GroupId, NodeId, Time};

use super::found;
use super::range_machine::RangeMachine;
use crate::sim::Finding;

const RANGE: GroupId = GroupId(1);

/// See the module.
pub fn cut_under_writes() -> Result<(), Finding> {
    let span = Span { start: Bytes::from_static(b"a"), end: Some(Bytes::from_static(b"z")) };
    let mut machine = RangeMachine::leader(RANGE, span.clone(), &[]);
    machine.put(b"n");
    while machine.persist() {}

    let mut ranges = Ranges::default();
    ranges.insert(RANGE, Range::new(span, vec![NodeId(1)]));
    let (id, key) = (RequestId { origin: 2, n: 1 }, Bytes::from_static(b"m"));
    let job = Job::Split { range: RANGE, key, is_here: true };
    let mut coordinator = Coordinator::new(id, job, &ranges);
    let mut wanted = Vec::new();
    let view = flotilla_core::memory::MemoryView::new();
    coordinator.step(Time(1), &view, &ranges, txn::Input::Tick, &mut wanted).expect("memory");
    for effect in wanted {
        if let txn::Effect::Prepare(RANGE, locks) = effect {
            machine.step(Input::Prepare(id, locks));
        }
    }
    while machine.persist() {}
    if machine.locked_at().is_some() {
        return found("keys are locked for a cut while a write to them has no number yet (I9)");
    }
    machine.number(1);
    while machine.persist() {}
    if machine.locked_at().is_some() { Ok(()) } else { found("the keys are never locked") }
}
