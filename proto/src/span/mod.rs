//! A span of keys, and etcd's rules for writing one in a request. Keys are raw bytes compared
//! byte by byte; a key sorts after each of its own prefixes. Owns no meaning beyond that: which
//! group serves a span is decided elsewhere.

use bytes::{BufMut, Bytes, BytesMut};

/// What a request sends as `range_end` to mean "every key from `key` on".
const OPEN_END: &[u8] = b"\0";

/// The keys `start <= key < end`; without `end`, every key from `start` on.
///
/// A span may be empty (`end <= start`). Equality compares the bounds, so two empty spans can
/// differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The lowest key that may belong to the span.
    pub start: Bytes,
    /// The lowest key above the span, or `None` if there is none.
    pub end: Option<Bytes>,
}

impl Default for Span {
    /// No key at all.
    fn default() -> Self {
        Self { start: Bytes::new(), end: Some(Bytes::new()) }
    }
}

impl Span {
    /// The keys a request means by `key` and `range_end`: with an empty `range_end` the one key,
    /// with a single zero byte every key from `key` on, otherwise `[key, range_end)`, which is
    /// empty when `range_end <= key`.
    pub fn from_request(key: Bytes, range_end: Bytes) -> Span {
        if range_end.is_empty() {
            Span::key(key)
        } else if range_end == OPEN_END {
            Span { start: key, end: None }
        } else {
            Span { start: key, end: Some(range_end) }
        }
    }

    /// Every key that there can be. No key is empty, and a request cannot name the keys before the
    /// lowest one: its end would stand for no end.
    pub fn possible() -> Span {
        Span { start: Bytes::from_static(&[0]), end: None }
    }

    /// As a request names the span: `key` and `range_end`.
    pub fn into_request(self) -> (Bytes, Bytes) {
        (self.start, self.end.unwrap_or(Bytes::from_static(OPEN_END)))
    }

    /// Exactly one key. The span ends at the next possible key, which is `key` and a zero byte.
    pub fn key(key: Bytes) -> Span {
        let mut next = BytesMut::with_capacity(key.len() + 1);
        next.put_slice(&key);
        next.put_u8(0);
        Span { start: key, end: Some(next.freeze()) }
    }

    /// Every key that starts with `prefix`, by the rule of etcd's clients: the end is the prefix
    /// with its last byte below 0xff raised by one and the rest cut. A prefix of only 0xff bytes
    /// has no end, and the empty prefix is every key.
    pub fn prefix(prefix: Bytes) -> Span {
        let Some(last) = prefix.iter().rposition(|&byte| byte < 0xff) else {
            return Span { start: prefix, end: None };
        };
        let mut end = BytesMut::from(&prefix[..=last]);
        end[last] += 1;
        Span { start: prefix, end: Some(end.freeze()) }
    }

    /// Every key.
    pub fn all() -> Span {
        Span { start: Bytes::new(), end: None }
    }

    /// True if no key belongs to the span.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// True if `key` belongs to the span.
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    /// True if some key belongs to both spans; never true for an empty span.
    pub fn overlaps(&self, other: &Span) -> bool {
        // The higher start is itself a key, so it is the lowest one that both can hold.
        let lowest = self.start.as_ref().max(other.start.as_ref());
        self.contains(lowest) && other.contains(lowest)
    }

    /// What of this span is not in another: what is before it, and what is after it. No span of
    /// the answer is empty.
    pub fn without(&self, other: &Span) -> Vec<Span> {
        let parts = if self.overlaps(other) {
            let before = Span { start: self.start.clone(), end: Some(other.start.clone()) };
            let after = other.end.clone().map(|start| Span { start, end: self.end.clone() });
            [Some(before), after]
        } else {
            [Some(self.clone()), None]
        };
        parts.into_iter().flatten().filter(|span| !span.is_empty()).collect()
    }

    /// The key, if the span holds exactly one.
    pub fn single_key(&self) -> Option<&[u8]> {
        let (zero, head) = self.end.as_ref()?.split_last()?;
        (*zero == 0 && *head == *self.start).then_some(head)
    }
}

#[cfg(test)]
mod tests;
