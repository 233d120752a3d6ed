//! A `View` held in memory, for tests and for the simulator. Owns no meaning: rows are bytes.
//!
//! Cloning is cheap and gives a frozen copy: columns are shared until one side changes them.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;

use crate::mvcc::Counts;
use crate::view::{Batch, Column, View, ViewError, Visit, Write};

type Rows = BTreeMap<Bytes, Bytes>;

/// The columns as ordered maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryView {
    columns: [Arc<Rows>; Column::ALL.len()],
    counts: Counts,
}

/// Rows of a block of counts: few, as those who hold a view in memory have few keys.
const BLOCK_ROWS: usize = 3;

impl Default for MemoryView {
    fn default() -> Self {
        Self { columns: Default::default(), counts: Counts::new(BLOCK_ROWS) }
    }
}

impl MemoryView {
    /// Without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the changes of a batch in order.
    pub fn apply(&mut self, batch: &Batch) {
        for write in &batch.writes {
            match write {
                Write::Put(column, key, value) => {
                    self.rows_mut(*column).insert(key.clone(), value.clone());
                }
                Write::Delete(column, key) => {
                    self.rows_mut(*column).remove(key);
                }
            }
        }
        self.counts.note(batch);
    }

    /// All rows of a column in ascending order.
    pub fn rows(&self, column: Column) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        self.columns[column as usize].iter()
    }

    /// How many rows a column has.
    pub fn rows_count(&self, column: Column) -> usize {
        self.columns[column as usize].len()
    }

    fn rows_mut(&mut self, column: Column) -> &mut Rows {
        Arc::make_mut(&mut self.columns[column as usize])
    }

    /// The rows between the bounds; none when the bounds are the wrong way round.
    fn between(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        let is_inverted = match (from, to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
            | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        };
        let rows = &self.columns[column as usize];
        (!is_inverted).then(|| rows.range::<[u8], _>((from, to))).into_iter().flatten()
    }
}

fn visit_all<'a>(rows: impl Iterator<Item = (&'a Bytes, &'a Bytes)>, visit: Visit<'_>) {
    for (key, value) in rows {
        if visit(key, value) == ControlFlow::Break(()) {
            return;
        }
    }
}

impl View for MemoryView {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.columns[column as usize].get(key).cloned())
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        visit_all(self.between(column, from, to), visit);
        Ok(())
    }

    fn scan_back(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        visit_all(self.between(column, from, to).rev(), visit);
        Ok(())
    }

    fn counts(&self) -> Option<&Counts> {
        Some(&self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(view: &MemoryView, from: Bound<&[u8]>, to: Bound<&[u8]>) -> (String, String) {
        let mut forward = String::new();
        let mut back = String::new();
        view.scan(Column::Key, from, to, &mut |key, _| {
            forward.push_str(std::str::from_utf8(key).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
        view.scan_back(Column::Key, from, to, &mut |key, _| {
            back.push_str(std::str::from_utf8(key).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
        (forward, back)
    }

    #[test]
    fn bounds_in_both_directions() {
        let mut view = MemoryView::new();
        let mut batch = Batch::default();
        for key in ["a", "b", "c", "d"] {
            batch.put(Column::Key, key, key);
        }
        batch.delete(Column::Key, "d");
        batch.put(Column::Meta, "x", "other column");
        view.apply(&batch);

        let cases = [
            (Bound::Unbounded, Bound::Unbounded, "abc"),
            (Bound::Included("a"), Bound::Included("b"), "ab"),
            (Bound::Excluded("a"), Bound::Included("d"), "bc"),
            (Bound::Included("a"), Bound::Excluded("c"), "ab"),
            (Bound::Excluded("b"), Bound::Excluded("b"), ""),
            (Bound::Included("c"), Bound::Excluded("a"), ""),
            (Bound::Included("c"), Bound::Included("a"), ""),
        ];
        for (from, to, want) in cases {
            let (from, to) = (from.map(str::as_bytes), to.map(str::as_bytes));
            let (forward, back) = keys(&view, from, to);
            assert_eq!(forward, want, "{from:?} {to:?}");
            assert_eq!(back, want.chars().rev().collect::<String>(), "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_clone_does_not_move_on() {
        let mut view = MemoryView::new();
        let mut batch = Batch::default();
        batch.put(Column::Key, "a", "1");
        view.apply(&batch);
        let frozen = view.clone();
        let mut batch = Batch::default();
        batch.put(Column::Key, "a", "2");
        batch.delete(Column::Key, "a");
        batch.put(Column::Key, "a", "3");
        view.apply(&batch);
        assert_eq!(frozen.get(Column::Key, b"a").unwrap().unwrap(), "1");
        assert_eq!(view.get(Column::Key, b"a").unwrap().unwrap(), "3");
        assert_eq!(view.rows_count(Column::Key), 1);
    }
}
