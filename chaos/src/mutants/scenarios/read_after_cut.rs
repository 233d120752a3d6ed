//! A range is cut, and its new half has no replica on a node that holds the old one. A key of the
//! new half is written elsewhere; a reader at that node must look for it elsewhere.

use bytes::Bytes;
use flotilla_core::memory::MemoryView;
use flotilla_core::proto::Span;
use flotilla_core::proto::etcdserverpb::RangeRequest;
use flotilla_core::proto::internal::{ConfState, Member};
use flotilla_core::range::stored::Stored;
use flotilla_core::remote::{self, Reading};
use flotilla_core::spine::State;
use flotilla_core::spine::apply::{Cut, Task};
use flotilla_core::spine::state::Position;
use flotilla_core::stage::{Stage, Work};
use flotilla_core::view::Batch;
use flotilla_core::{GroupId, NodeId};

use super::found;
use crate::sim::Finding;

const OLD: GroupId = GroupId(1);
const NEW: GroupId = GroupId(2);

/// See the module.
pub fn read_after_cut() -> Result<(), Finding> {
    let mut state = State::bootstrap(1, vec![Member { id: 1, ..Member::default() }]);
    state.pre_split(&[Bytes::from_static(b"a")], &[NodeId(1)]);
    let mut rows = Batch::default();
    state.write_all(&mut rows);
    let conf = ConfState { voters: vec![1], ..ConfState::default() };
    let span = Span { start: Bytes::from_static(b"a"), end: None };
    Stored::first(conf, span).write(OLD, &mut rows);
    let mut view = MemoryView::new();
    view.apply(&rows);
    let mut stage = Stage::open(&view).expect("memory");
    let mut run = |works| {
        let applied = stage.run(&view, works).expect("memory");
        view.apply(&applied.batch);
        stage.reach().clone()
    };
    run(vec![Work::CatchingUp(OLD), Work::CaughtUp(OLD)]);

    // The cut; then a write to the new half, which is numbered 2.
    let key = Bytes::from_static(b"m");
    let cut = Cut { parent: OLD, child: NEW, key: key.clone(), generation: 2 };
    let at = |index, revision| Position { index, term: 1, revision, compact_revision: -1 };
    run(vec![Work::Spine(Task {
        position: at(2, 1),
        cuts: vec![cut],
        elsewhere: vec![NEW],
        ..Task::default()
    })]);
    let written = Task { position: at(3, 2), assigned: vec![(NEW, 1)], ..Task::default() };
    let reach = run(vec![Work::Spine(written)]);
    if reach.shown.head.revision != 2 {
        return found(format!("a range without a replica here is waited for: {reach:?}"));
    }

    let request = RangeRequest { key, ..RangeRequest::default() };
    let reading = Reading::new(reach.shown, request).expect("revision 2 can be read");
    let (range, page) = reading.next(&reach.owners).expect("a key is wanted");
    if !reach.has(range) {
        return Ok(());
    }
    let answer = remote::page(&view, reach.shown.head, &page).expect("memory").answer;
    found(format!("a key written at 2 is read here, of range {range}: {} found", answer.count))
}
