//! Numbers that only the range's own log tells of.

use prost::Message;

use crate::group::{Entry, EntryKind, HardState, Recovered};
use crate::memory::MemoryView;
use crate::proto::Span;
use crate::proto::internal::{ConfState, RangeEntry, RangeWrite, Run};
use crate::range::replica::tests::empty::Least;
use crate::range::replica::tests::hand_over::config;
use crate::range::replica::{Effect, Input, Replica, Task};
use crate::range::stored::Stored;
use crate::time::{Length, Time};

/// What is applied of a log whose first entry alone is known to be committed, and who said how its
/// write was numbered has gone.
fn applied(entries: Vec<RangeEntry>) -> Vec<Task> {
    let conf = ConfState { voters: vec![1, 3], ..ConfState::default() };
    let stored = Stored::first(conf.clone(), Span::all());
    let entry = |(index, content): (u64, RangeEntry)| Entry {
        index,
        term: 2,
        kind: EntryKind::Normal,
        data: content.encode_to_vec().into(),
        ..Entry::default()
    };
    let log = Recovered {
        hard_state: HardState { term: 2, vote: 0, commit: 2 },
        truncated: Recovered::FIRST,
        entries: (2..).zip(entries).map(entry).collect(),
        ..Recovered::first(conf)
    };
    let mut replica = Replica::new(config(3), Time(0), stored, log, Box::new(Least)).unwrap();
    let (store, mut tasks) = (MemoryView::new(), Vec::new());
    for second in 1..20 {
        let (mut out, now) = (Vec::new(), Time(0) + Length::from_secs(second));
        replica.step(now, &store, Input::Tick, &mut out).unwrap();
        tasks.extend(out.into_iter().filter_map(|effect| match effect {
            Effect::Apply(task) => Some(task),
            _ => None,
        }));
    }
    tasks
}

#[test]
fn a_note_is_believed_before_it_is_known_to_be_committed() {
    let write = RangeEntry { writes: vec![RangeWrite::default()], ..RangeEntry::default() };
    let run = Run { first: 1, count: 1, revision: 7, ..Run::default() };
    let note = RangeEntry { notes: vec![run], ..RangeEntry::default() };
    assert!(applied(vec![write.clone()]).is_empty(), "nobody has said how it was numbered");
    let tasks = applied(vec![write, note]);
    assert_eq!(tasks.len(), 1, "the note itself waits: {tasks:?}");
    assert_eq!((tasks[0].position.index, tasks[0].steps[0].revision), (2, 7));
}
