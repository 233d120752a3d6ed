//! Groups that share one database: the snapshot of one is put in the place of its old rows, or its
//! rows are removed, in many batches, while the rows of others are in use.
//!
//! A row of the node's own says what is under way, from the first of these batches to the last. The
//! database has no log, but a crash loses its newest batches only. So whatever is left of the
//! batches comes with that row, and the next start does all of them again before anything else; the
//! received rows stay on disk until the last batch is. A range's rows come as files, see `tables`, which
//! the next start does without.

use flotilla_core::GroupId;
use flotilla_core::range::stored;
use flotilla_core::snapshot::{Clear, Install, NODE_LOCAL, Scope};
use flotilla_core::view::{Batch, Column, View};

use super::database::Database;
use super::tables::Tables;
use super::{Error, Sealed, Store};
use crate::failpoint::Failpoint;

/// The row of what is under way.
const UNDER_WAY: [u8; 2] = [NODE_LOCAL, b'w'];
/// As a generation: nothing is put in the place of what is removed.
const NOTHING: u64 = 0;

/// What is under way with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnderWay {
    pub(super) group: GroupId,
    /// Where the received rows are.
    pub(super) generation: Option<u64>,
}

impl UnderWay {
    /// What a crash has left.
    pub(super) fn load(database: &Database) -> Result<Option<Self>, Error> {
        let Some(row) = database.get(Column::Meta, &UNDER_WAY)? else { return Ok(None) };
        let number = |at: usize| Some(u64::from_be_bytes(row.get(at..at + 8)?.try_into().ok()?));
        let (Some(group), Some(generation), 16) = (number(0), number(8), row.len()) else {
            return Err(Error::Row("what is under way cannot be understood".to_owned()));
        };
        let generation = (generation != NOTHING).then_some(generation);
        Ok(Some(Self { group: GroupId(group), generation }))
    }

    fn write(self, batch: &mut Batch) {
        let numbers = [self.group.0, self.generation.unwrap_or(NOTHING)];
        batch.put(Column::Meta, UNDER_WAY.to_vec(), numbers.map(u64::to_be_bytes).concat());
    }
}

impl Store {
    /// Puts the received snapshot of a group in the place of what the group has here, durable on
    /// return. Nobody may read the group's keys meanwhile.
    ///
    /// A spine that is alone here takes the whole store over in one step, as readers of its keys are
    /// not kept away.
    ///
    /// # Errors
    /// The disk refuses, or did so before; or the snapshot is not one of the group.
    pub fn install(&self, group: GroupId, sealed: Sealed) -> Result<(), Error> {
        if group == GroupId::SPINE && !has_ranges(&self.current())? {
            return self.replace(sealed);
        }
        let writer = self.writer()?;
        self.shared.recent.forget();
        let Sealed { database: received, tables } = sealed;
        let under_way = UnderWay { group, generation: Some(received.generation) };
        // From now on the start looks after it.
        received.keep();
        let done = match tables {
            Some(tables) => self.take_tables(under_way, &received, tables),
            None => carry_out(&self.current(), under_way, Some(&received), usize::MAX).map(|_| ()),
        };
        done.map_err(|error| self.stop(error))?;
        self.shared.counts.forget();
        drop(writer);
        Failpoint::InstallWritten.reached();
        self.flush()?;
        Failpoint::InstallFlushed.reached();
        received.retire();
        Ok(())
    }

    /// As `carry_out`, but the rows are not copied one by one. What says that it is under way must be
    /// on disk before them.
    fn take_tables(
        &self,
        under_way: UnderWay,
        received: &Database,
        tables: Tables,
    ) -> Result<(), Error> {
        let database = self.current();
        let mut install = Install::new(scope_of(&database, Some(received), under_way.group)?);
        let mut is_first = true;
        while !install.is_cleared() {
            let mut batch = install.next(&*database, received)?;
            if std::mem::take(&mut is_first) {
                under_way.write(&mut batch);
            }
            database.write(&batch)?;
            Failpoint::ExchangeBatch.reached();
        }
        database.flush()?;
        tables.put_into(&database)?;
        install.was_copied();
        let mut last = install.next(&*database, received)?;
        Failpoint::ExchangeBeforeLast.reached();
        last.delete(Column::Meta, UNDER_WAY.to_vec());
        database.write(&last)
    }

    /// Removes what a group has here, durable on return.
    ///
    /// # Errors
    /// The disk refuses, or did so before.
    pub fn clear(&self, group: GroupId) -> Result<(), Error> {
        let writer = self.writer()?;
        self.shared.recent.forget();
        let under_way = UnderWay { group, generation: None };
        let done = carry_out(&self.current(), under_way, None, usize::MAX);
        done.map_err(|error| self.stop(error))?;
        self.shared.counts.forget();
        drop(writer);
        #[cfg(test)]
        crate::failpoint::act::kill_at("clear written");
        self.flush()
    }
}

fn has_ranges(database: &Database) -> Result<bool, Error> {
    let mut has_ranges = false;
    database.visit_from(Column::Meta, &stored::key(GroupId::SPINE), &mut |key, _| {
        has_ranges = stored::is_row(key);
        std::ops::ControlFlow::Break(())
    })?;
    Ok(has_ranges)
}

fn scope_of(
    database: &Database,
    received: Option<&Database>,
    group: GroupId,
) -> Result<Scope, Error> {
    let scope = match received {
        Some(received) => Scope::of_install(database, received, group)?,
        None => Scope::load(database, group)?,
    };
    scope.ok_or_else(|| Error::Row(format!("range {group} is not known here")))
}

/// Applies the batches, or the first so many of them; true when all are.
pub(super) fn carry_out(
    database: &Database,
    under_way: UnderWay,
    received: Option<&Database>,
    batches_max: usize,
) -> Result<bool, Error> {
    let scope = scope_of(database, received, under_way.group)?;
    let mut work = match received {
        Some(_) => Work::Install(Install::new(scope)),
        None => Work::Clear(Clear::new(scope)),
    };
    for n in 0..batches_max {
        let (mut batch, is_last) = match (&mut work, received) {
            (Work::Install(install), Some(received)) => {
                let batch = install.next(database, received)?;
                (batch, install.is_finished())
            }
            (Work::Clear(clear), _) => {
                let batch = clear.next(database)?;
                let is_last = batch.is_none();
                (batch.unwrap_or_default(), is_last)
            }
            (Work::Install(_), None) => unreachable!("rows were received for an install"),
        };
        if is_last {
            Failpoint::ExchangeBeforeLast.reached();
            batch.delete(Column::Meta, UNDER_WAY.to_vec());
        } else if n == 0 {
            under_way.write(&mut batch);
        }
        database.write(&batch)?;
        if is_last {
            return Ok(true);
        }
        Failpoint::ExchangeBatch.reached();
    }
    Ok(false)
}

enum Work {
    Install(Install),
    Clear(Clear),
}
