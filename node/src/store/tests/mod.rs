//! What the store promises, against plain maps: `contract` without crashes, `crash`, `replace` and
//! `shared` with the process killed, `damage` with files changed behind its back.

mod contract;
pub(super) mod crash;
mod damage;
mod replace;
mod shared;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use bytes::Bytes;
use flotilla_core::view::{Batch, Column, View, ViewError, Write};

use super::{Options, Store, open};

/// What a store should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows([BTreeMap<Bytes, Bytes>; Column::ALL.len()]);

impl Rows {
    fn apply(&mut self, batch: &Batch) {
        for write in &batch.writes {
            match write {
                Write::Put(column, key, value) => {
                    self.0[*column as usize].insert(key.clone(), value.clone());
                }
                Write::Delete(column, key) => {
                    self.0[*column as usize].remove(key);
                }
            }
        }
    }

    fn read(view: &dyn View) -> Result<Self, ViewError> {
        let mut rows = Self::default();
        for column in Column::ALL {
            let rows = &mut rows.0[column as usize];
            view.scan(column, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
                rows.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                ControlFlow::Continue(())
            })?;
            for (key, value) in &*rows {
                assert_eq!(view.get(column, key)?.as_ref(), Some(value), "{column:?} {key:?}");
            }
        }
        Ok(rows)
    }
}

/// The same numbers every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// So little memory that RocksDB flushes and compacts all the time.
fn small(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.memory_bytes = 4 << 20;
    options.write_buffer_bytes = 1 << 20;
    options
}

fn open_small(dir: &Path) -> Store {
    open(&small(dir)).unwrap()
}

/// A batch of one row.
fn put(column: Column, key: &str, value: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(column, key.to_owned(), value.to_owned());
    batch
}
