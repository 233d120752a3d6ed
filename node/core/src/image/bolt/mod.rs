//! The file format of bbolt: a B+ tree of pages, whose leaves hold rows or further trees (*buckets*).
//!
//! A file is a row of pages of one size. Pages 0 and 1 both say where the tree begins; the one with
//! the higher transaction counts. Each page has a head of 16 bytes, then one element for each row,
//! then the rows' bytes; a page that is longer than one is followed by its *overflow*. Numbers are
//! little-endian. Only what a database at rest has is known here: one that is written once, from
//! front to back, and one that is read. Source: the layout of go.etcd.io/bbolt, version 2 of the format.

mod page;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use page::Damage;
pub use reader::{Bytes, Reader};
pub use writer::{Finished, Writer};

/// Bytes of a page that is written. Any power of two from 512 to 64 KiB is read.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of the pages that say where the tree begins. They are written last.
pub const HEAD_BYTES: usize = 2 * PAGE_BYTES;
/// Levels of a tree that is read: far more than a file of any size needs.
const DEPTH_MAX: usize = 32;
/// Bytes of one page with its overflow that are read: far more than a value may have.
const NODE_BYTES_MAX: u64 = 256 << 20;
