//! Reads a database, and checks each page that it comes to. Trusts nothing: the file comes from
//! wherever its owner kept it.

use std::ops::ControlFlow;

use super::page::{
    BRANCH, BUCKET, Damage, ELEMENT_BYTES, LEAF, Meta, PAGE_HEAD_BYTES, PageHead, branch_element,
    damage, leaf_element, u64_at,
};
use super::{DEPTH_MAX, NODE_BYTES_MAX};
use crate::image::Error;

const PAGE_BYTES_MIN: u32 = 512;
const PAGE_BYTES_MAX: u32 = 64 << 10;
/// Bytes of a bucket's value before the page that a small bucket has in it.
const BUCKET_HEAD_BYTES: usize = 16;

/// The bytes of a file, without what was put behind the database.
pub trait Bytes {
    /// How many there are.
    fn len(&self) -> u64;

    /// Fills `into` with those from a place on, which are there.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Error>;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Error> {
        let start = usize::try_from(at).ok();
        let found = start.and_then(|start| self.get(start..start.checked_add(into.len())?));
        into.copy_from_slice(found.ok_or_else(|| damage("it is cut short"))?);
        Ok(())
    }
}

/// Called for each row; `Break` ends the walk.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// A database at rest.
#[derive(Debug)]
pub struct Reader<B> {
    bytes: B,
    meta: Meta,
}

/// Where a bucket's tree begins.
enum Root {
    Page(u64),
    /// A small bucket is one leaf within the leaf that names it.
    Inline(Vec<u8>),
}

impl<B: Bytes> Reader<B> {
    /// Looks at the first pages.
    ///
    /// # Errors
    /// Neither is valid, or the file is shorter than they say.
    pub fn open(bytes: B) -> Result<Self, Error> {
        let mut metas: Vec<Meta> = Vec::new();
        // The second page is where the first says, or at any size if the first is damaged.
        let sizes = (0..).map(|n| PAGE_BYTES_MIN << n).take_while(|size| *size <= PAGE_BYTES_MAX);
        for place in [0].into_iter().chain(sizes) {
            let mut page = vec![0; Meta::bytes()];
            if u64::from(place) + page.len() as u64 > bytes.len() {
                break;
            }
            bytes.read(u64::from(place), &mut page)?;
            metas.extend(Meta::decode(&page).filter(|it| place == 0 || it.page_bytes == place));
        }
        let newest = metas.into_iter().max_by_key(|meta| meta.transaction);
        let meta = newest.ok_or_else(|| damage("it does not begin as a database of etcd"))?;
        let is_sound = meta.page_bytes.is_power_of_two()
            && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&meta.page_bytes);
        if !is_sound {
            return Err(damage("its pages have an impossible size").into());
        }
        let wanted = meta.pages_count.checked_mul(u64::from(meta.page_bytes));
        if wanted.is_none_or(|wanted| wanted > bytes.len()) {
            return Err(damage("it is shorter than its first page says").into());
        }
        Ok(Self { bytes, meta })
    }

    /// Bytes of all pages, those that are not used included.
    pub fn size(&self) -> u64 {
        self.meta.pages_count * u64::from(self.meta.page_bytes)
    }

    /// The names of all buckets, in order.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>, Error> {
        let mut names = Vec::new();
        self.walk(&Root::Page(self.meta.root), &mut |flags, name, _| {
            if flags & BUCKET != 0 {
                names.push(name.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    /// Visits the rows of a bucket in the order of their keys. Whether there is such a bucket.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn visit(&self, bucket: &[u8], visit: Visit<'_>) -> Result<bool, Error> {
        let mut value = None;
        self.walk(&Root::Page(self.meta.root), &mut |flags, name, found| {
            if name == bucket && flags & BUCKET != 0 {
                value = Some(found.to_vec());
            }
            if name < bucket { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let Some(value) = value else { return Ok(false) };
        let page = u64_at(&value, 0).filter(|_| value.len() >= BUCKET_HEAD_BYTES);
        let root = match page.ok_or_else(|| damage("a bucket is cut short"))? {
            0 => Root::Inline(value[BUCKET_HEAD_BYTES..].to_vec()),
            page => Root::Page(page),
        };
        // A bucket within a bucket is nothing that etcd has.
        self.walk(&root, &mut |flags, key, value| match flags & BUCKET {
            0 => visit(key, value),
            _ => ControlFlow::Continue(()),
        })?;
        Ok(true)
    }

    fn walk(&self, root: &Root, visit: VisitElement<'_>) -> Result<(), Error> {
        let mut walk = Walk { reader: self, last_key: None, pages_left: self.meta.pages_count };
        match root {
            Root::Page(page) => walk.page(*page, 0, visit).map(drop),
            Root::Inline(node) => {
                let head = PageHead::decode(node)?;
                if head.flags & LEAF == 0 {
                    return Err(damage("a small bucket is no leaf").into());
                }
                walk.leaf(node, head, visit).map(drop).map_err(Error::from)
            }
        }
    }
}

type VisitElement<'a> = &'a mut dyn FnMut(u32, &[u8], &[u8]) -> ControlFlow<()>;

/// A walk over one tree.
struct Walk<'a, B> {
    reader: &'a Reader<B>,
    /// Keys rise through the whole tree.
    last_key: Option<Vec<u8>>,
    /// No page is come to twice.
    pages_left: u64,
}

impl<B: Bytes> Walk<'_, B> {
    fn page(
        &mut self,
        id: u64,
        depth: usize,
        visit: VisitElement<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let (node, head) = self.read(id)?;
        if depth >= DEPTH_MAX {
            return Err(damage("a tree has too many levels").into());
        }
        match (head.flags & LEAF != 0, head.flags & BRANCH != 0) {
            (true, false) => Ok(self.leaf(&node, head, visit)?),
            (false, true) if head.count > 0 => {
                for n in 0..usize::from(head.count) {
                    let (key, below) = branch_element(&node, n)?;
                    if self.last_key.as_ref().is_some_and(|last| last[..] >= *key) {
                        return Err(damage("the keys of a branch are out of order").into());
                    }
                    if self.page(below, depth + 1, visit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
            _ => Err(damage(format!("page {id} is neither leaf nor branch")).into()),
        }
    }

    fn leaf(
        &mut self,
        node: &[u8],
        head: PageHead,
        visit: VisitElement<'_>,
    ) -> Result<ControlFlow<()>, Damage> {
        if PAGE_HEAD_BYTES + usize::from(head.count) * ELEMENT_BYTES > node.len() {
            return Err(damage("a leaf is cut short"));
        }
        for n in 0..usize::from(head.count) {
            let (flags, key, value) = leaf_element(node, n)?;
            if self.last_key.as_ref().is_some_and(|last| last[..] >= *key) {
                return Err(damage("the keys of a leaf are out of order"));
            }
            let last_key = self.last_key.get_or_insert_default();
            last_key.clear();
            last_key.extend_from_slice(key);
            if visit(flags, key, value).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A page with its overflow.
    fn read(&mut self, id: u64) -> Result<(Vec<u8>, PageHead), Error> {
        let (meta, bytes) = (&self.reader.meta, &self.reader.bytes);
        let page_bytes = u64::from(meta.page_bytes);
        if id < 2 || id >= meta.pages_count {
            return Err(damage(format!("there is no page {id}")).into());
        }
        let mut node = vec![0; meta.page_bytes as usize];
        bytes.read(id * page_bytes, &mut node)?;
        let head = PageHead::decode(&node)?;
        let pages = u64::from(head.overflow) + 1;
        if head.id != id || id + pages > meta.pages_count || pages * page_bytes > NODE_BYTES_MAX {
            return Err(damage(format!("page {id} does not say who it is")).into());
        }
        let left = self.pages_left.checked_sub(pages);
        self.pages_left = left.ok_or_else(|| damage("a page belongs to itself"))?;
        if pages > 1 {
            let rest = usize::try_from((pages - 1) * page_bytes).expect("checked above");
            node.resize(node.len() + rest, 0);
            bytes.read((id + 1) * page_bytes, &mut node[meta.page_bytes as usize..])?;
        }
        Ok((node, head))
    }
}
