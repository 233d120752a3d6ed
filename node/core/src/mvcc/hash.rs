//! The hash of the history at a revision, equal on all replicas and in etcd.
//!
//! Does not depend on how far the physical compaction has come: what a compaction makes useless
//! is left out whether or not it is already gone.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::history::{self, Wanted};
use super::layout::{KeyValueFields, Record, RecordHead, Revision};
use super::{Failure, Head};
use crate::Error;
use crate::proto::Span;
use crate::view::{Column, View, ViewError};

/// What the hash begins with: the name of etcd's bucket.
const PREFIX: &[u8] = b"key";

/// Events of one scan. Few under test, so that most hashes take several.
const PAGE_ROWS_MAX: usize = if cfg!(test) { 3 } else { 1024 };
/// Bytes of events gathered by one scan, exceeded by at most one.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The same hash of events that come from several stores. They are added in the order of revisions.
#[derive(Clone, Debug)]
pub struct HashKv {
    crc: u32,
}

impl Default for HashKv {
    fn default() -> Self {
        Self { crc: crc32c::crc32c(PREFIX) }
    }
}

impl HashKv {
    /// Adds what is covered (`Below::Newest` in `kept_page`).
    pub fn add(&mut self, record: &Record) {
        self.crc = append(self.crc, record.head.revision, record.head.is_tombstone, &record.kv);
    }

    /// The hash.
    pub fn finish(self) -> u32 {
        self.crc
    }
}

/// The CRC32-C of Maintenance.HashKV at a revision; zero means the current one, and a negative one
/// covers no event.
///
/// It covers, in the order of revisions, every event above the compact revision and up to
/// `revision`. Of those at or below the compact revision, it covers the puts that are still the
/// newest of their key at `revision`; if no key is left at `revision`, those that are the newest at
/// the compact revision.
///
/// # Errors
/// A future or compacted revision is for the client; see `Failure` for the rest.
pub fn hash_kv(view: &dyn View, head: Head, revision: i64) -> Result<u32, Failure> {
    let Some(revision) = hashed_revision(head, revision)? else {
        return Ok(HashKv::default().finish());
    };
    let kept_at = if has_keys(view, revision)? { revision } else { head.compact_revision };

    let mut crc = crc32c::crc32c(PREFIX);
    let mut from = Bound::Included(Revision { main: 0, sub: 0 });
    loop {
        let page = read_page(view, from, revision)?;
        for row in &page.rows {
            let is_covered = row.revision.main > head.compact_revision
                || (!row.is_tombstone && is_newest(view, row, kept_at)?);
            if is_covered {
                crc = append(crc, row.revision, row.is_tombstone, &row.kv);
            }
        }
        match page.rows.last() {
            Some(last) if page.is_full => from = Bound::Excluded(last.revision),
            _ => break,
        }
    }
    // A later compaction may have taken rows that this one left.
    history::ensure_not_overtaken(view, head.compact_revision)?;
    Ok(crc)
}

/// What two members that hold the same state agree on. The rows that are read are others than those of
/// the history, so both are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// As `hash_kv`.
    pub history: u32,
    /// Of all that a read of every key at the revision would give.
    pub live: u32,
}

/// The checksum of a whole store at a revision, which is not 0.
///
/// # Errors
/// As `hash_kv`.
pub fn checksum(view: &dyn View, head: Head, revision: i64) -> Result<Checksum, Failure> {
    let history = hash_kv(view, head, revision)?;
    let mut live = 0;
    history::visit_live(view, &Span::all(), revision, Wanted::ALL, &mut |kv| {
        for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
            live = crc32c::crc32c_append(live, &number.to_be_bytes());
        }
        for bytes in [&kv.key, &kv.value] {
            live = crc32c::crc32c_append(live, &(bytes.len() as u64).to_be_bytes());
            live = crc32c::crc32c_append(live, bytes);
        }
        ControlFlow::Continue(())
    })?;
    history::ensure_not_overtaken(view, head.compact_revision)?;
    Ok(Checksum { history, live })
}

/// The revision that is asked for; `None` if no event is.
///
/// # Errors
/// It is in the future, or compacted.
pub fn hashed_revision(head: Head, revision: i64) -> Result<Option<i64>, Error> {
    if revision > head.revision {
        return Err(Error::FutureRevision);
    }
    if revision > 0 && revision < head.compact_revision {
        return Err(Error::Compacted);
    }
    let revision = if revision == 0 { head.revision } else { revision };
    Ok((revision > 0).then_some(revision))
}

fn has_keys(view: &dyn View, revision: i64) -> Result<bool, Failure> {
    let mut has_keys = false;
    history::visit_live(view, &Span::all(), revision, Wanted::keys(1), &mut |_| {
        has_keys = true;
        ControlFlow::Break(())
    })?;
    Ok(has_keys)
}

fn is_newest(view: &dyn View, row: &Row, revision: i64) -> Result<bool, Failure> {
    let key = KeyValueFields::decode(&row.kv)?.key;
    let newest = history::live_at(view, key, revision)?;
    Ok(newest.is_some_and(|newest| newest.head.revision == row.revision))
}

/// An event is hashed as etcd stores it: `main` and `sub` as 8 bytes with an underscore between
/// them, the mark of a delete, and the key-value.
fn append(crc: u32, revision: Revision, is_tombstone: bool, kv: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc, &revision.main.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, b"_");
    let crc = crc32c::crc32c_append(crc, &revision.sub.to_be_bytes());
    let crc = if is_tombstone { crc32c::crc32c_append(crc, b"t") } else { crc };
    crc32c::crc32c_append(crc, kv)
}

struct Page {
    rows: Vec<Row>,
    is_full: bool,
}

struct Row {
    revision: Revision,
    is_tombstone: bool,
    kv: Bytes,
}

fn read_page(view: &dyn View, from: Bound<Revision>, to: i64) -> Result<Page, ViewError> {
    let mut page = Page { rows: Vec::new(), is_full: false };
    let mut bytes = 0;
    let mut damage = None;
    let from = from.map(Revision::encode);
    let last = Revision::last_of(to.max(0)).encode();
    let bounds = (from.as_ref().map(|from| &from[..]), Bound::Included(&last[..]));
    view.scan(Column::Revision, bounds.0, bounds.1, &mut |_, value| {
        match RecordHead::decode(value) {
            Ok(head) => {
                let kv = Bytes::copy_from_slice(&value[head.encoded_len()..]);
                bytes += kv.len();
                let (revision, is_tombstone) = (head.revision, head.is_tombstone);
                page.rows.push(Row { revision, is_tombstone, kv });
            }
            Err(error) => damage = Some(error),
        }
        page.is_full = page.rows.len() >= PAGE_ROWS_MAX || bytes >= PAGE_BYTES_MAX;
        if page.is_full || damage.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    damage.map_or(Ok(page), Err)
}
