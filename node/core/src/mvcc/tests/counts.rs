//! Counts that are remembered, while others write: whatever happens between two scans of a walk, and
//! between a batch's rows being there and its being noted, every count is that of its revision.

use std::cell::{Cell, RefCell};
use std::ops::Bound;

use super::chance::Chance;
use super::*;
use crate::mvcc::counts::BLOCKS_MAX;
use crate::proto::Span;
use crate::view::{Column, View, ViewError, Visit};

const KEYS: u64 = 40;
const STEPS: usize = 400;

/// A store that is written to while it is read.
struct Busy {
    rows: RefCell<MemoryView>,
    counts: Counts,
    chance: RefCell<Chance>,
    /// In the rows, and not noted yet.
    unnoted: RefCell<Option<Batch>>,
    /// What was there at each revision, from 1 on.
    there: RefCell<Vec<BTreeSet<Bytes>>>,
    /// The last revision that may be read.
    shown: Cell<i64>,
    scans: Cell<usize>,
    /// Nobody writes by himself.
    is_quiet: Cell<bool>,
}

fn key(n: u64) -> Bytes {
    format!("k{n:02}").into()
}

impl Busy {
    fn new(seed: u64) -> Self {
        Self {
            rows: RefCell::default(),
            counts: Counts::new(4),
            chance: RefCell::new(Chance::new(seed)),
            unnoted: RefCell::default(),
            there: RefCell::new(vec![BTreeSet::new(), BTreeSet::new()]),
            shown: Cell::new(1),
            scans: Cell::new(0),
            is_quiet: Cell::new(false),
        }
    }

    fn below(&self, end: u64) -> u64 {
        self.chance.borrow_mut().below(end as usize) as u64
    }

    fn move_on_a_little(&self) {
        if !self.is_quiet.get() {
            for _ in 0..self.below(3) {
                self.move_on();
            }
        }
    }

    /// One writer: a batch is in the rows, then it is noted, then it is shown.
    fn move_on(&self) {
        if let Some(batch) = self.unnoted.take() {
            self.counts.note(&batch);
            return;
        }
        let revision = self.there.borrow().len() as i64 - 1;
        if self.shown.get() < revision && self.below(2) == 0 {
            self.shown.set(revision);
            return;
        }
        let mut now = self.there.borrow().last().expect("never empty").clone();
        let key = key(self.below(KEYS));
        // First there are more and more, then fewer.
        let is_growing = revision < STEPS as i64 / 2;
        let deletes = if is_growing { 4 } else { 2 };
        let is_delete = self.below(deletes) == 0 && now.contains(&key);
        let effect = Effect { key: key.clone(), is_delete, ..Effect::default() };
        if is_delete {
            now.remove(&key)
        } else {
            now.insert(key)
        };
        let mut batch = Batch::default();
        let mut rows = self.rows.borrow_mut();
        Applier::new(&*rows)
            .apply(revision + 1, &[effect], false, &mut batch, &mut Vec::new())
            .expect("memory can be read");
        rows.apply(&batch);
        self.there.borrow_mut().push(now);
        *self.unnoted.borrow_mut() = Some(batch);
    }

    fn count(&self, span: &Span, revision: i64) -> i64 {
        history::count_live(self, span, revision).expect("nothing is compacted")
    }

    fn naive(&self, span: &Span, revision: i64) -> i64 {
        let there = self.there.borrow();
        there[revision as usize].iter().filter(|key| span.contains(key)).count() as i64
    }

    fn span(&self) -> Span {
        let (a, b) = (self.below(KEYS), self.below(KEYS));
        let end = (self.below(3) > 0).then(|| key(a.max(b) + 1));
        Span { start: key(a.min(b)), end }
    }
}

impl View for Busy {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.rows.borrow().get(column, key)
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        self.move_on_a_little();
        self.scans.set(self.scans.get() + usize::from(column == Column::Key));
        self.rows.borrow().scan(column, from, to, visit)?;
        self.move_on_a_little();
        Ok(())
    }

    fn scan_back(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        self.rows.borrow().scan_back(column, from, to, visit)
    }

    fn counts(&self) -> Option<&Counts> {
        Some(&self.counts)
    }
}

#[test]
fn counts_are_right_whoever_writes_meanwhile() {
    for seed in 0..60 {
        let busy = Busy::new(seed);
        for _ in 0..STEPS {
            match busy.below(12) {
                0..4 => busy.move_on(),
                4 if busy.below(20) == 0 => busy.counts.forget(),
                _ => {
                    let shown = busy.shown.get();
                    let back = busy.below(3).min(busy.below(20)) as i64;
                    let (span, revision) = (busy.span(), (shown - back).max(1));
                    let counted = busy.count(&span, revision);
                    assert_eq!(counted, busy.naive(&span, revision), "seed {seed}, {span:?}");
                }
            }
        }
    }
}

#[test]
fn what_was_walked_is_not_walked_again() {
    let busy = Busy::new(1);
    for n in 0..KEYS {
        let mut batch = Batch::default();
        let effect = Effect { key: key(n), ..Effect::default() };
        let mut rows = busy.rows.borrow_mut();
        let applied =
            Applier::new(&*rows).apply(n as i64 + 2, &[effect], false, &mut batch, &mut Vec::new());
        applied.expect("memory can be read");
        rows.apply(&batch);
    }
    busy.is_quiet.set(true);
    let head = KEYS as i64 + 1;
    let count = |span: &Span, revision| {
        let before = busy.scans.get();
        let count = history::count_live(&busy, span, revision).expect("memory can be read");
        (count, busy.scans.get() - before)
    };
    let all = Span { start: key(0), end: None };
    assert_eq!(count(&all, head), (KEYS as i64, 1));
    assert_eq!(count(&all, head), (KEYS as i64, 0), "all of it is known");
    assert_eq!(count(&all, head + 5), (KEYS as i64, 0));
    let part = Span { start: key(6), end: Some(key(30)) };
    assert_eq!(count(&part, head), (24, 2), "blocks at both ends are known as a whole only");
    assert_eq!(count(&all, head - 1), (KEYS as i64 - 1, 1), "it is known from its revision on");
    // A key goes: its block has changed, at that revision.
    let mut batch = Batch::default();
    let effect = Effect { key: key(9), is_delete: true, ..Effect::default() };
    let mut rows = busy.rows.borrow_mut();
    let applied =
        Applier::new(&*rows).apply(head + 1, &[effect], false, &mut batch, &mut Vec::new());
    applied.expect("memory can be read");
    rows.apply(&batch);
    drop(rows);
    busy.counts.note(&batch);
    assert_eq!(count(&all, head + 1), (KEYS as i64 - 1, 0));
    assert_eq!(count(&all, head), (KEYS as i64, 1), "the block that changed since is walked");
    busy.counts.forget();
    assert_eq!(count(&all, head + 1), (KEYS as i64 - 1, 1));
}

#[test]
fn what_is_remembered_is_bounded() {
    let counts = Counts::new(2);
    let walk = |rows: usize| {
        let plan = counts.plan(&Span::all(), 5);
        let piece = &plan.pieces[0];
        let mut found = plan.found(piece);
        for n in 0..rows {
            found.row(format!("{n:08}").as_bytes(), false, true);
        }
        plan.remember(piece, found, 5);
    };
    let known = || counts.plan(&Span::all(), 5).known;
    walk(2 * BLOCKS_MAX + 1);
    assert_eq!(known(), 0, "a walk with too many blocks");
    let under_way: Vec<_> = (0..1_000).map(|_| counts.plan(&Span::all(), 5)).collect();
    walk(10);
    assert_eq!(known(), 0, "a walk beside too many others");
    drop(under_way);
    walk(2 * BLOCKS_MAX);
    assert_eq!(known(), 2 * BLOCKS_MAX as i64);
}
