//! A range is to cease. Its leader was restarted and does not know any more how a write was numbered
//! that it has applied, and the range's log does not tell yet. Once the range is gone nobody can: so it
//! is not at its end before the log tells.

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::command::RequestId;
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::Lock;
use flotilla_core::range::replica::Input;
use flotilla_core::range::stored::{Position, Stored};

use super::found;
use super::range_machine::{RangeMachine, conf};
use crate::sim::Finding;

/// See the module.
pub fn merge_without_notes() -> Result<(), Finding> {
    let (start, end) = (Bytes::from_static(b"m"), Bytes::from_static(b"z"));
    let span = Span { start: start.clone(), end: Some(end.clone()) };
    let position = Position { index: 5, term: 1, seq: 1 };
    let stored = Stored { position, ..Stored::first(conf(&[]), span) };
    let mut machine = RangeMachine::restarted(GroupId(2), &stored);
    let keys = Lock { key: start, range_end: end, is_write: true, ..Lock::default() };
    let members = Lock { members: vec![1], is_write: true, ..Lock::default() };
    machine.step(Input::Prepare(RequestId { origin: 2, n: 1 }, vec![keys, members]));
    while machine.persist() {}
    machine.apply();
    machine.step(Input::Tick);
    if machine.locked_at().is_some() {
        return found(
            "a range is at its end whose log does not tell how a write was numbered (I16)",
        );
    }
    // The spine tells, and the leader notes it.
    machine.number(1);
    for _ in 0..2 {
        machine.wait();
        while machine.persist() {}
        machine.apply();
    }
    machine.step(Input::Tick);
    if machine.locked_at().is_some() { Ok(()) } else { found("a range never comes to its end") }
}
