//! Writes a database from front to back. What is in memory is one page for each level of the tree.

use std::mem;

use super::page::{
    BRANCH, BUCKET, ELEMENT_BYTES, ELEMENTS_MAX, FREE_LIST, LEAF, Meta, PAGE_HEAD_BYTES, PageHead,
};
use super::{HEAD_BYTES, PAGE_BYTES};

/// A database on its way. What `take` gives follows `HEAD_BYTES` bytes that are written last.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    next_page: u64,
    /// The bucket being written.
    name: Option<Vec<u8>>,
    tree: Tree,
    /// The names of those that are written, and their roots.
    buckets: Vec<(Vec<u8>, u64)>,
}

/// The end of a database.
#[derive(Debug)]
pub struct Finished {
    /// Follows what was taken before.
    pub tail: Vec<u8>,
    /// Goes to the beginning of the file.
    pub head: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            out: Vec::new(),
            next_page: (HEAD_BYTES / PAGE_BYTES) as u64,
            name: None,
            tree: Tree::default(),
            buckets: Vec::new(),
        }
    }
}

impl Writer {
    /// Begins a bucket, and ends the one before.
    ///
    /// # Panics
    /// Its name does not follow that of the one before.
    pub fn bucket(&mut self, name: &[u8]) {
        self.end_bucket();
        let is_after = self.buckets.last().is_none_or(|(last, _)| last[..] < *name);
        assert!(is_after, "buckets are written in the order of their names");
        self.name = Some(name.to_vec());
    }

    /// Adds a row to the bucket.
    ///
    /// # Panics
    /// There is no bucket, or the key does not follow the one before.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        assert!(self.name.is_some(), "rows belong to a bucket");
        self.tree.put(0, key, value, &mut Pages { out: &mut self.out, next: &mut self.next_page });
    }

    /// What is complete by now, in whole pages.
    pub fn take(&mut self) -> Vec<u8> {
        mem::take(&mut self.out)
    }

    /// Bytes that `take` would give.
    pub fn ready_bytes(&self) -> usize {
        self.out.len()
    }

    /// Ends the database.
    pub fn finish(mut self) -> Finished {
        self.end_bucket();
        let mut pages = Pages { out: &mut self.out, next: &mut self.next_page };
        for (name, root) in mem::take(&mut self.buckets) {
            let mut value = root.to_le_bytes().to_vec();
            value.extend_from_slice(&0_u64.to_le_bytes());
            self.tree.put(BUCKET, &name, &value, &mut pages);
        }
        let root = mem::take(&mut self.tree).finish(&mut pages);
        let free_list = pages.write(FREE_LIST, 0, &[], &[]);
        let meta = |transaction| Meta {
            page_bytes: PAGE_BYTES as u32,
            root,
            free_list,
            pages_count: self.next_page,
            transaction,
        };
        let head = [meta(0).encode(), meta(1).encode()].concat();
        Finished { tail: self.out, head }
    }

    fn end_bucket(&mut self) {
        if let Some(name) = self.name.take() {
            let tree = mem::take(&mut self.tree);
            let root = tree.finish(&mut Pages { out: &mut self.out, next: &mut self.next_page });
            self.buckets.push((name, root));
        }
    }
}

/// Where pages go.
struct Pages<'a> {
    out: &'a mut Vec<u8>,
    next: &'a mut u64,
}

impl Pages<'_> {
    /// Writes a page with its overflow; gives its number.
    fn write(&mut self, flags: u16, count: usize, elements: &[u8], data: &[u8]) -> u64 {
        let bytes = PAGE_HEAD_BYTES + elements.len() + data.len();
        let pages_count = bytes.div_ceil(PAGE_BYTES);
        let id = *self.next;
        *self.next += pages_count as u64;
        let head = PageHead {
            id,
            flags,
            count: u16::try_from(count).expect("pages are ended before"),
            overflow: u32::try_from(pages_count - 1).expect("a row is smaller"),
        };
        self.out.extend_from_slice(&head.encode());
        self.out.extend_from_slice(elements);
        self.out.extend_from_slice(data);
        self.out.resize(self.out.len() + pages_count * PAGE_BYTES - bytes, 0);
        id
    }
}

/// A tree whose rows come in order.
#[derive(Debug, Default)]
struct Tree {
    leaf: Node,
    /// Above the leaves, the lowest first.
    branches: Vec<Node>,
    last_key: Option<Vec<u8>>,
}

/// A page that is being filled.
#[derive(Debug, Default)]
struct Node {
    rows: Vec<Row>,
    data: Vec<u8>,
}

/// Of a leaf: flags and the length of the value. Of a branch: the page below.
#[derive(Debug)]
enum Rest {
    Leaf(u32, u32),
    Branch(u64),
}

#[derive(Debug)]
struct Row {
    /// Where it begins in `data`.
    start: usize,
    key_len: u32,
    rest: Rest,
}

impl Node {
    fn has_room(&self, bytes: usize) -> bool {
        let elements = PAGE_HEAD_BYTES + (self.rows.len() + 1) * ELEMENT_BYTES;
        self.rows.is_empty()
            || (elements + self.data.len() + bytes <= PAGE_BYTES && self.rows.len() < ELEMENTS_MAX)
    }

    fn add(&mut self, key: &[u8], value: &[u8], rest: Rest) {
        let key_len = u32::try_from(key.len()).expect("keys are far smaller");
        self.rows.push(Row { start: self.data.len(), key_len, rest });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn first_key(&self) -> &[u8] {
        self.rows.first().map_or(&[], |row| &self.data[..row.key_len as usize])
    }

    /// Writes it and begins anew.
    fn write(&mut self, flags: u16, pages: &mut Pages<'_>) -> u64 {
        let mut elements = Vec::with_capacity(self.rows.len() * ELEMENT_BYTES);
        for (n, row) in self.rows.iter().enumerate() {
            let place = (self.rows.len() - n) * ELEMENT_BYTES + row.start;
            let place = u32::try_from(place).expect("the rows before the last fit into a page");
            let key_len = row.key_len.to_le_bytes();
            match row.rest {
                Rest::Leaf(flags, value_len) => {
                    elements.extend_from_slice(&flags.to_le_bytes());
                    elements.extend_from_slice(&place.to_le_bytes());
                    elements.extend_from_slice(&key_len);
                    elements.extend_from_slice(&value_len.to_le_bytes());
                }
                Rest::Branch(page) => {
                    elements.extend_from_slice(&place.to_le_bytes());
                    elements.extend_from_slice(&key_len);
                    elements.extend_from_slice(&page.to_le_bytes());
                }
            }
        }
        let id = pages.write(flags, self.rows.len(), &elements, &self.data);
        self.rows.clear();
        self.data.clear();
        id
    }
}

impl Tree {
    fn put(&mut self, flags: u32, key: &[u8], value: &[u8], pages: &mut Pages<'_>) {
        let is_after = self.last_key.as_ref().is_none_or(|last| last[..] < *key);
        assert!(is_after && !key.is_empty(), "rows are written in the order of their keys");
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        if !self.leaf.has_room(key.len() + value.len()) {
            self.end_leaf(pages);
        }
        let value_len = u32::try_from(value.len()).expect("values are far smaller");
        self.leaf.add(key, value, Rest::Leaf(flags, value_len));
    }

    fn end_leaf(&mut self, pages: &mut Pages<'_>) {
        let key = self.leaf.first_key().to_vec();
        let page = self.leaf.write(LEAF, pages);
        self.add_branch(0, key, page, pages);
    }

    fn add_branch(&mut self, level: usize, key: Vec<u8>, page: u64, pages: &mut Pages<'_>) {
        if self.branches.len() == level {
            self.branches.push(Node::default());
        }
        if !self.branches[level].has_room(key.len()) {
            let first = self.branches[level].first_key().to_vec();
            let full = self.branches[level].write(BRANCH, pages);
            self.add_branch(level + 1, first, full, pages);
        }
        self.branches[level].add(&key, &[], Rest::Branch(page));
    }

    /// Writes what is left; gives the number of the root.
    fn finish(mut self, pages: &mut Pages<'_>) -> u64 {
        if self.branches.is_empty() {
            return self.leaf.write(LEAF, pages);
        }
        if !self.leaf.rows.is_empty() {
            self.end_leaf(pages);
        }
        let mut level = 0;
        loop {
            let key = self.branches[level].first_key().to_vec();
            let page = self.branches[level].write(BRANCH, pages);
            level += 1;
            if level == self.branches.len() {
                return page;
            }
            self.add_branch(level, key, page, pages);
        }
    }
}
