//! A range's leader is on a node whose state of the spine is old: it does not tell of a learner that the
//! range has already. Not known yet is not the same as removed.

use std::collections::BTreeSet;

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::ConfState;
use flotilla_core::range::replica::Input;

use super::found;
use super::range_machine::RangeMachine;
use crate::sim::Finding;

const LEARNER: u64 = 4;

/// See the module.
pub fn unheard_of_learner() -> Result<(), Finding> {
    let span = Span { start: Bytes::from_static(b"a"), end: None };
    let mut machine = RangeMachine::leader(GroupId(1), span, &[LEARNER]);
    let known = ConfState { voters: vec![1], ..ConfState::default() };
    for (removed, expected) in
        [(BTreeSet::new(), vec![LEARNER]), (BTreeSet::from([LEARNER]), vec![])]
    {
        machine.step(Input::Members(known.clone(), removed));
        machine.step(Input::Tick);
        while machine.persist() {}
        machine.apply();
        let learners = machine.conf().learners;
        if learners != expected {
            return found(format!("the learners are {learners:?}, and should be {expected:?}"));
        }
    }
    Ok(())
}
