//! A range's leader is on a node whose state of the spine may be old: it does not tell of a learner that
//! the range has already. Not known yet is not the same as removed, so nobody goes before a ticket says
//! that the state is new.

use bytes::Bytes;
use flotilla_core::GroupId;
use flotilla_core::auth::Admission;
use flotilla_core::mvcc::Head;
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::ConfState;
use flotilla_core::range::replica::{Input, Members};

use super::found;
use super::range_machine::RangeMachine;
use crate::sim::Finding;

const LEARNER: u64 = 4;

/// See the module.
pub fn unheard_of_learner() -> Result<(), Finding> {
    let span = Span { start: Bytes::from_static(b"a"), end: None };
    let mut machine = RangeMachine::leader(GroupId(1), span, &[LEARNER]);
    let conf = ConfState { voters: vec![1], ..ConfState::default() };
    machine.step(Input::Members(Members { conf, ..Members::default() }));
    settle(&mut machine);
    check_learners(&machine, &[LEARNER])?;
    let Some(n) = machine.wanted_ticket() else {
        return found("a learner that is not wanted stays for ever");
    };
    let head = Head { revision: 1, compact_revision: 0 };
    machine.step(Input::Ticket(n, head, Admission::default()));
    settle(&mut machine);
    check_learners(&machine, &[])
}

fn settle(machine: &mut RangeMachine) {
    machine.step(Input::Tick);
    while machine.persist() {}
    machine.apply();
}

fn check_learners(machine: &RangeMachine, expected: &[u64]) -> Result<(), Finding> {
    let learners = machine.conf().learners;
    if learners == expected {
        return Ok(());
    }
    found(format!("the learners are {learners:?}, and should be {expected:?}"))
}
