//! A snapshot on its way in: rows are written to a generation of their own, beside the one in use,
//! which knows nothing of it until `Store::replace`. Dropped before that, or left by a crash, it
//! is removed as if it had never been.

use flotilla_core::GroupId;
use flotilla_core::view::Column;
use flotilla_proto::internal::SnapshotRow;

use super::database::Database;
use super::tables::Tables;
use super::{Error, Store, is_local};

/// Takes the rows of a snapshot.
pub struct Staging {
    database: Database,
    /// What it is for.
    store: Store,
}

/// A received snapshot, whole and on disk.
pub struct Sealed {
    pub(super) database: Database,
    /// The same rows, ready to be taken over by a store of many groups.
    pub(super) tables: Option<Tables>,
}

impl Staging {
    pub(super) fn new(database: Database, store: Store) -> Self {
        database.retire();
        Self { database, store }
    }

    /// Writes some rows. Rows that are local to their node are passed over: the sender's are not
    /// ours.
    ///
    /// # Errors
    /// A row of an unknown column, or the disk refused.
    pub fn append(&self, rows: &[SnapshotRow]) -> Result<(), Error> {
        let known = |row: &SnapshotRow| Column::from_number(row.column);
        if let Some(row) = rows.iter().find(|row| known(row).is_none()) {
            return Err(Error::UnknownColumn(row.column));
        }
        let rows = rows.iter().filter_map(|row| {
            let column = known(row)?;
            (!is_local(column, &row.key)).then_some((column, &row.key[..], Some(&row.value[..])))
        });
        self.database.write_rows(rows)
    }

    /// Makes the rows durable, which are those of a group, and all that the store has: there is little
    /// left to be flushed when they are put into it.
    ///
    /// # Errors
    /// A row is not of the group, or the disk refuses.
    pub fn finish(self, group: GroupId) -> Result<Sealed, Error> {
        self.database.flush()?;
        let tables = Tables::write(&self.database, group, self.store.tuning())?;
        self.store.flush()?;
        Ok(Sealed { database: self.database, tables })
    }
}
