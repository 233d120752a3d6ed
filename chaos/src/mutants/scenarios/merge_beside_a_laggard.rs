//! A range is to take over the one after it, whose replica on the same node has not applied all of its
//! log. What it lacks must come first.

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::command::RequestId;
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::{Lock, Merge, Share};
use flotilla_core::range::replica::Input;
use flotilla_core::range::stored::{Position, Stored};
use flotilla_core::spine::txns::Decision;

use super::found;
use super::range_machine::RangeMachine;
use crate::sim::Finding;

const LEFT: GroupId = GroupId(1);
const RIGHT: GroupId = GroupId(2);
/// The last index of the right range's log.
const RIGHT_AT: u64 = 9;

/// See the module.
pub fn merge_beside_a_laggard() -> Result<(), Finding> {
    let key = Bytes::from_static;
    let span = Span { start: key(b"a"), end: Some(key(b"m")) };
    let mut left = RangeMachine::leader(LEFT, span, &[]);
    let span = Span { start: key(b"m"), end: Some(key(b"z")) };
    let mut right = Stored::first(left.conf(), span);
    let mut stand_at = |left: &mut RangeMachine, index| {
        right.position = Position { index, term: 1, seq: 0 };
        left.set_beside(RIGHT, &right);
    };
    stand_at(&mut left, RIGHT_AT - 1);

    let id = RequestId { origin: 2, n: 1 };
    let lock = Lock { members: vec![1], ..Lock::default() };
    left.step(Input::Prepare(id, vec![lock]));
    while left.persist() {}
    let Some(left_at) = left.locked_at() else { return found("the membership is never locked") };
    let (range, right) = (LEFT.0, RIGHT.0);
    let merge = Merge { left: range, right, end: key(b"z"), left_at, right_at: RIGHT_AT };
    let share = Share { range, prepared_at: left_at, merge: Some(merge), ..Share::default() };
    left.step(Input::Decided(id, Decision::Commit(0, share)));
    while left.persist() {}
    if !left.ended.is_empty() {
        return found("a range is taken over that has not applied all of its log here (I16)");
    }
    stand_at(&mut left, RIGHT_AT);
    left.step(Input::Tick);
    if left.ended == [RIGHT] { Ok(()) } else { found("a range is never taken over") }
}
