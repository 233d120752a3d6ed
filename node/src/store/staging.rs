//! A snapshot on its way in: rows are written to a generation of their own, beside the one in use,
//! which knows nothing of it until `Store::replace`. Dropped before that, or left by a crash, it
//! is removed as if it had never been.

use flotilla_core::view::Column;
use flotilla_proto::internal::SnapshotRow;

use super::database::Database;
use super::{Error, is_local};

/// Takes the rows of a snapshot.
pub struct Staging {
    database: Database,
}

/// A received snapshot, whole and on disk.
pub struct Sealed {
    pub(super) database: Database,
}

impl Staging {
    pub(super) fn new(database: Database) -> Self {
        database.retire();
        Self { database }
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

    /// Makes the rows durable.
    ///
    /// # Errors
    /// The disk refused.
    pub fn finish(self) -> Result<Sealed, Error> {
        self.database.flush()?;
        Ok(Sealed { database: self.database })
    }
}
