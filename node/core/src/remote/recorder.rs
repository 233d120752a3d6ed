//! A view that remembers the rows it has shown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::view::{Column, View, ViewError, Visit};

/// Of keys only: what else is read belongs to no range.
pub(super) struct Recorder<'a> {
    view: &'a dyn View,
    seen: RefCell<BTreeMap<(Column, Bytes), Bytes>>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(view: &'a dyn View) -> Self {
        Self { view, seen: RefCell::default() }
    }

    fn add(&self, column: Column, key: &[u8], value: &[u8]) {
        if column != Column::Meta {
            let row = (column, Bytes::copy_from_slice(key));
            self.seen.borrow_mut().insert(row, Bytes::copy_from_slice(value));
        }
    }

    pub(super) fn into_rows(self) -> impl Iterator<Item = (Column, Bytes, Bytes)> {
        self.seen.into_inner().into_iter().map(|((column, key), value)| (column, key, value))
    }
}

impl View for Recorder<'_> {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        let value = self.view.get(column, key)?;
        if let Some(value) = &value {
            self.add(column, key, value);
        }
        Ok(value)
    }

    fn scan(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        self.view.scan(column, from, to, &mut |key, value| {
            self.add(column, key, value);
            visit(key, value)
        })
    }

    fn scan_back(
        &self,
        column: Column,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), ViewError> {
        self.view.scan_back(column, from, to, &mut |key, value| {
            self.add(column, key, value);
            visit(key, value)
        })
    }
}
