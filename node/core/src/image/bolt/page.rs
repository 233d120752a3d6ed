//! One page: its head, its elements, and the two pages that begin a file.

use super::PAGE_BYTES;

/// The file is no database, or was changed since it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub String);

pub(super) fn damage(what: impl Into<String>) -> Damage {
    Damage(what.into())
}

/// Bytes of the head of a page, and of an element of either kind.
pub(super) const PAGE_HEAD_BYTES: usize = 16;
pub(super) const ELEMENT_BYTES: usize = 16;
/// Elements of a page: their number has two bytes, and the largest stands for more in free lists.
pub(super) const ELEMENTS_MAX: usize = u16::MAX as usize - 1;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
const META: u16 = 0x04;
pub(super) const FREE_LIST: u16 = 0x10;
/// Of an element of a leaf: its value is a bucket.
pub(super) const BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
/// Bytes of what a file's first pages say, up to the checksum.
const META_BYTES: usize = 56;
const META_SIZE_MIN: usize = PAGE_HEAD_BYTES + META_BYTES + 8;

/// The head of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHead {
    pub(super) id: u64,
    pub(super) flags: u16,
    pub(super) count: u16,
    /// Pages that belong to it beside the first.
    pub(super) overflow: u32,
}

impl PageHead {
    pub(super) fn encode(&self) -> [u8; PAGE_HEAD_BYTES] {
        let mut head = [0; PAGE_HEAD_BYTES];
        head[..8].copy_from_slice(&self.id.to_le_bytes());
        head[8..10].copy_from_slice(&self.flags.to_le_bytes());
        head[10..12].copy_from_slice(&self.count.to_le_bytes());
        head[12..].copy_from_slice(&self.overflow.to_le_bytes());
        head
    }

    pub(super) fn decode(page: &[u8]) -> Result<Self, Damage> {
        let cut = || damage("a page is cut short");
        Ok(Self {
            id: u64_at(page, 0).ok_or_else(cut)?,
            flags: u16_at(page, 8).ok_or_else(cut)?,
            count: u16_at(page, 10).ok_or_else(cut)?,
            overflow: u32_at(page, 12).ok_or_else(cut)?,
        })
    }
}

/// What the first two pages say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    /// Of the tree whose leaves are the buckets.
    pub(super) root: u64,
    pub(super) free_list: u64,
    /// Pages of the file.
    pub(super) pages_count: u64,
    pub(super) transaction: u64,
}

impl Meta {
    /// The whole page, which has the number of its transaction.
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = PageHead { id: self.transaction, flags: META, count: 0, overflow: 0 };
        let mut page = head.encode().to_vec();
        page.extend_from_slice(&MAGIC.to_le_bytes());
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.page_bytes.to_le_bytes());
        page.extend_from_slice(&0_u32.to_le_bytes());
        page.extend_from_slice(&self.root.to_le_bytes());
        page.extend_from_slice(&0_u64.to_le_bytes());
        page.extend_from_slice(&self.free_list.to_le_bytes());
        page.extend_from_slice(&self.pages_count.to_le_bytes());
        page.extend_from_slice(&self.transaction.to_le_bytes());
        let checksum = fnv(&page[PAGE_HEAD_BYTES..]);
        page.extend_from_slice(&checksum.to_le_bytes());
        page.resize(PAGE_BYTES, 0);
        page
    }

    /// From the beginning of a page; `None` if it is not valid.
    pub(super) fn decode(page: &[u8]) -> Option<Self> {
        let head = PageHead::decode(page).ok()?;
        let meta = page.get(PAGE_HEAD_BYTES..META_SIZE_MIN)?;
        let is_valid = head.flags & META != 0
            && u32_at(meta, 0)? == MAGIC
            && u32_at(meta, 4)? == VERSION
            && u64_at(meta, META_BYTES)? == fnv(&meta[..META_BYTES]);
        is_valid.then_some(Self {
            page_bytes: u32_at(meta, 8)?,
            root: u64_at(meta, 16)?,
            free_list: u64_at(meta, 32)?,
            pages_count: u64_at(meta, 40)?,
            transaction: u64_at(meta, 48)?,
        })
    }

    /// Bytes that `decode` needs.
    pub(super) const fn bytes() -> usize {
        META_SIZE_MIN
    }
}

/// An element of a leaf: flags, key, value.
pub(super) fn leaf_element(node: &[u8], n: usize) -> Result<(u32, &[u8], &[u8]), Damage> {
    let at = PAGE_HEAD_BYTES + n * ELEMENT_BYTES;
    let word = |n: usize| u32_at(node, at + 4 * n).ok_or_else(|| damage("a leaf is cut short"));
    let (flags, place, key_len, value_len) = (word(0)?, word(1)?, word(2)?, word(3)?);
    let key = slice(node, at, place, 0, key_len)?;
    Ok((flags, key, slice(node, at, place, key_len, value_len)?))
}

/// An element of a branch: the first key of a page below, and that page.
pub(super) fn branch_element(node: &[u8], n: usize) -> Result<(&[u8], u64), Damage> {
    let at = PAGE_HEAD_BYTES + n * ELEMENT_BYTES;
    let cut = || damage("a branch is cut short");
    let (place, key_len) = (u32_at(node, at).ok_or_else(cut)?, u32_at(node, at + 4));
    let key = slice(node, at, place, 0, key_len.ok_or_else(cut)?)?;
    Ok((key, u64_at(node, at + 8).ok_or_else(cut)?))
}

/// Bytes whose place is counted from their element.
fn slice(node: &[u8], element: usize, place: u32, skip: u32, len: u32) -> Result<&[u8], Damage> {
    let start = element as u64 + u64::from(place) + u64::from(skip);
    let end = start + u64::from(len);
    let bounds = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let found = bounds.and_then(|(start, end)| node.get(start..end));
    found.ok_or_else(|| damage("a row reaches beyond its page"))
}

/// FNV-1a of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}
