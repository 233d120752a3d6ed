//! A tree of spans that answers "which of you hold this key" in steps that grow with the logarithm
//! of the spans and the number of answers. A treap in the order of (start, end) in which each node
//! also knows the span that reaches furthest below it. The spans themselves belong to the buckets.

use std::cmp::Ordering;

use super::index::Bucket;
use super::slab::{NONE, Slab, Slot};

#[derive(Debug)]
pub(super) struct SpanTree {
    nodes: Slab<Node>,
    root: Slot,
    /// Nodes ever made, from which the next one's priority follows.
    made: u64,
    /// Nodes looked at by `find`.
    #[cfg(test)]
    pub(super) visits: std::cell::Cell<usize>,
}

#[derive(Debug)]
struct Node {
    bucket: Slot,
    left: Slot,
    right: Slot,
    /// A parent's is never below its children's.
    priority: u32,
    /// The bucket under this node, itself included, that ends last.
    widest: Slot,
}

type Buckets = Slab<Bucket>;

impl SpanTree {
    pub(super) fn new() -> Self {
        Self {
            nodes: Slab::new(),
            root: NONE,
            made: 0,
            #[cfg(test)]
            visits: std::cell::Cell::new(0),
        }
    }

    /// The bucket of exactly this span.
    pub(super) fn get(&self, buckets: &Buckets, start: &[u8], end: Option<&[u8]>) -> Option<Slot> {
        let mut at = self.root;
        while at != NONE {
            let node = &self.nodes[at];
            match compare(start, end, &buckets[node.bucket]) {
                Ordering::Less => at = node.left,
                Ordering::Equal => return Some(node.bucket),
                Ordering::Greater => at = node.right,
            }
        }
        None
    }

    /// Adds the buckets whose span holds `key`, in ascending order of their spans.
    pub(super) fn find(&self, buckets: &Buckets, key: &[u8], found: &mut Vec<Slot>) {
        self.find_below(self.root, buckets, key, found);
    }

    /// Adds a bucket whose span is not there yet.
    pub(super) fn insert(&mut self, buckets: &Buckets, bucket: Slot) {
        self.made += 1;
        let priority = scatter(self.made);
        let node =
            self.nodes.insert(Node { bucket, left: NONE, right: NONE, priority, widest: bucket });
        let (left, right) = self.split(buckets, self.root, bucket);
        let left = self.join(buckets, left, node);
        self.root = self.join(buckets, left, right);
    }

    /// Removes a bucket that is there.
    pub(super) fn remove(&mut self, buckets: &Buckets, bucket: Slot) {
        self.root = self.remove_below(buckets, self.root, bucket);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.nodes.heap_bytes()
    }

    fn find_below(&self, mut at: Slot, buckets: &Buckets, key: &[u8], found: &mut Vec<Slot>) {
        while at != NONE {
            #[cfg(test)]
            self.visits.set(self.visits.get() + 1);
            let node = &self.nodes[at];
            let bucket = &buckets[node.bucket];
            if *bucket.start > *key {
                // Spans to the right start no lower.
                at = node.left;
                continue;
            }
            // All spans to the left have started as well: some hold the key if the widest does.
            if node.left != NONE && !is_ended(&buckets[self.nodes[node.left].widest], key) {
                self.find_below(node.left, buckets, key, found);
            }
            if !is_ended(bucket, key) {
                found.push(node.bucket);
            }
            at = node.right;
        }
    }

    /// The tree under `at` as two: the spans below that of `bucket`, and the others.
    fn split(&mut self, buckets: &Buckets, at: Slot, bucket: Slot) -> (Slot, Slot) {
        if at == NONE {
            return (NONE, NONE);
        }
        let node = &self.nodes[at];
        let (left, right, pivot) = (node.left, node.right, &buckets[bucket]);
        if compare(&pivot.start, pivot.end(), &buckets[node.bucket]) == Ordering::Greater {
            let (low, high) = self.split(buckets, right, bucket);
            self.set_children(buckets, at, left, low);
            (at, high)
        } else {
            let (low, high) = self.split(buckets, left, bucket);
            self.set_children(buckets, at, high, right);
            (low, at)
        }
    }

    /// One tree of two, all of whose spans in `left` are below those in `right`.
    fn join(&mut self, buckets: &Buckets, left: Slot, right: Slot) -> Slot {
        if left == NONE {
            return right;
        }
        if right == NONE {
            return left;
        }
        if self.nodes[left].priority >= self.nodes[right].priority {
            let joined = self.join(buckets, self.nodes[left].right, right);
            self.set_children(buckets, left, self.nodes[left].left, joined);
            left
        } else {
            let joined = self.join(buckets, left, self.nodes[right].left);
            self.set_children(buckets, right, joined, self.nodes[right].right);
            right
        }
    }

    fn remove_below(&mut self, buckets: &Buckets, at: Slot, bucket: Slot) -> Slot {
        assert!(at != NONE, "the bucket is in the tree");
        let node = &self.nodes[at];
        let (left, right, span) = (node.left, node.right, &buckets[bucket]);
        match compare(&span.start, span.end(), &buckets[node.bucket]) {
            Ordering::Less => {
                let left = self.remove_below(buckets, left, bucket);
                self.set_children(buckets, at, left, right);
                at
            }
            Ordering::Equal => {
                self.nodes.remove(at);
                self.join(buckets, left, right)
            }
            Ordering::Greater => {
                let right = self.remove_below(buckets, right, bucket);
                self.set_children(buckets, at, left, right);
                at
            }
        }
    }

    fn set_children(&mut self, buckets: &Buckets, at: Slot, left: Slot, right: Slot) {
        let mut widest = self.nodes[at].bucket;
        for child in [left, right] {
            if child != NONE {
                let reach = self.nodes[child].widest;
                if compare_ends(buckets[reach].end(), buckets[widest].end()).is_gt() {
                    widest = reach;
                }
            }
        }
        let node = &mut self.nodes[at];
        node.left = left;
        node.right = right;
        node.widest = widest;
    }
}

/// The order of the tree.
fn compare(start: &[u8], end: Option<&[u8]>, bucket: &Bucket) -> Ordering {
    start.cmp(&bucket.start).then_with(|| compare_ends(end, bucket.end()))
}

/// No end is the last end.
fn compare_ends(one: Option<&[u8]>, other: Option<&[u8]>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => one.cmp(other),
        (one, other) => one.is_none().cmp(&other.is_none()),
    }
}

/// True if the span lies wholly below `key`.
fn is_ended(bucket: &Bucket, key: &[u8]) -> bool {
    bucket.end().is_some_and(|end| end <= key)
}

/// A number that looks random, the same in every run: the finalizer of SplitMix64 (Steele, Lea,
/// Flood: Fast splittable pseudorandom number generators, 2014). A client that knows it could
/// still not choose the order in which all watchers arrive.
fn scatter(n: u64) -> u32 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32
}
