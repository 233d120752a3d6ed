//! Compares spans with a naive model: every key over a tiny alphabet up to a length, and the rules
//! said key by key. The alphabet holds the bytes that the rules treat apart, and one ordinary one.

use std::cmp::Ordering;
use std::iter;

use bytes::Bytes;

use super::Span;

const ALPHABET: [u8; 3] = [0x00, b'a', 0xff];

/// Length of the longest bound tried. Keys are one byte longer, so that a bound's successor is
/// among them.
const BOUND_LENGTH_MAX: usize = 2;

/// Every byte string over the alphabet up to `length_max` bytes.
fn strings(length_max: usize) -> Vec<Bytes> {
    let mut all = vec![Bytes::new()];
    let mut first_of_length = 0;
    for _ in 0..length_max {
        let shorter = all[first_of_length..].to_vec();
        first_of_length = all.len();
        for string in shorter {
            for byte in ALPHABET {
                all.push(string.iter().copied().chain(iter::once(byte)).collect());
            }
        }
    }
    all
}

fn bounds() -> Vec<Bytes> {
    strings(BOUND_LENGTH_MAX)
}

fn keys() -> Vec<Bytes> {
    strings(BOUND_LENGTH_MAX + 1)
}

/// Every span that two bounds or an open end can make, empty ones included.
fn spans() -> Vec<Span> {
    let mut spans = Vec::new();
    for start in bounds() {
        spans.push(Span { start: start.clone(), end: None });
        spans.extend(keys().into_iter().map(|end| Span { start: start.clone(), end: Some(end) }));
    }
    spans
}

/// Order of keys, written out byte by byte.
fn order(left: &[u8], right: &[u8]) -> Ordering {
    for (a, b) in left.iter().zip(right) {
        if a != b {
            return if a < b { Ordering::Less } else { Ordering::Greater };
        }
    }
    left.len().cmp(&right.len())
}

fn is_in(key: &[u8], span: &Span) -> bool {
    let at_or_after_start = order(key, &span.start) != Ordering::Less;
    let before_end = match &span.end {
        None => true,
        Some(end) => order(key, end) == Ordering::Less,
    };
    at_or_after_start && before_end
}

/// The keys of the universe for which `wanted` holds must be the ones in `span`.
#[track_caller]
fn assert_holds(span: &Span, wanted: impl Fn(&[u8]) -> bool) {
    for key in keys() {
        assert_eq!(span.contains(&key), wanted(&key), "key {key:?} in {span:?}");
    }
}

#[test]
fn the_universe_is_whole() {
    assert_eq!(bounds().len(), 1 + 3 + 9);
    assert_eq!(keys().len(), 1 + 3 + 9 + 27);
}

#[test]
fn contains_follows_byte_order() {
    for span in spans() {
        assert_holds(&span, |key| is_in(key, &span));
    }
}

#[test]
fn is_empty_means_that_no_key_is_in() {
    for span in spans() {
        let has_key = keys().iter().any(|key| is_in(key, &span));
        assert_eq!(span.is_empty(), !has_key, "{span:?}");
    }
}

#[test]
fn without_leaves_the_keys_that_are_not_in_the_other() {
    let keys = keys();
    for (one, other) in spans().iter().flat_map(|one| spans().into_iter().map(move |it| (one, it)))
    {
        let left = one.without(&other);
        for key in &keys {
            let count = left.iter().filter(|span| span.contains(key)).count();
            let is_wanted = one.contains(key) && !other.contains(key);
            assert_eq!(count, usize::from(is_wanted), "{one:?} without {other:?}, {key:?}");
        }
        assert!(left.iter().all(|span| !span.is_empty()));
    }
}

#[test]
fn overlaps_means_that_a_key_is_in_both() {
    let keys = keys();
    // One bit for each key of the universe.
    let members = |span: &Span| {
        let bits = keys.iter().enumerate().filter(|(_, key)| is_in(key, span));
        bits.fold(0_u64, |members, (bit, _)| members | 1 << bit)
    };
    let spans: Vec<(Span, u64)> =
        spans().into_iter().map(|span| (span.clone(), members(&span))).collect();
    for (a, in_a) in &spans {
        for (b, in_b) in &spans {
            assert_eq!(a.overlaps(b), in_a & in_b != 0, "{a:?} and {b:?}");
        }
    }
}

#[test]
fn a_request_means_what_etcd_says() {
    for key in bounds() {
        for range_end in bounds() {
            let span = Span::from_request(key.clone(), range_end.clone());
            assert_holds(&span, |candidate| match &range_end[..] {
                [] => candidate == key,
                [0] => order(candidate, &key) != Ordering::Less,
                end => {
                    order(candidate, &key) != Ordering::Less
                        && order(candidate, end) == Ordering::Less
                }
            });
        }
    }
}

#[test]
fn two_zero_bytes_are_an_end_and_not_an_open_end() {
    let span = Span::from_request(Bytes::from_static(b"\0"), Bytes::from_static(b"\0\0"));
    assert_eq!(span, Span::key(Bytes::from_static(b"\0")));
}

#[test]
fn single_key_is_found_however_the_span_was_written() {
    for key in bounds() {
        assert_eq!(Span::key(key.clone()).single_key(), Some(&key[..]));
    }
    // The universe reaches one byte beyond the bounds, so a span that holds more than one key at
    // all holds more than one of the universe.
    for span in spans() {
        let inside: Vec<Bytes> = keys().into_iter().filter(|key| is_in(key, &span)).collect();
        let expected = (inside.len() == 1).then(|| &inside[0][..]);
        assert_eq!(span.single_key(), expected, "{span:?}");
    }
}

#[test]
fn prefix_holds_the_keys_that_start_with_it() {
    for prefix in bounds() {
        let span = Span::prefix(prefix.clone());
        assert_holds(&span, |key| key.starts_with(&prefix));
        assert!(!span.is_empty());
    }
}

#[test]
fn prefix_is_written_as_clients_write_it() {
    let end = |prefix: &'static [u8]| Span::prefix(Bytes::from_static(prefix)).end;
    assert_eq!(end(b"ab"), Some(Bytes::from_static(b"ac")));
    assert_eq!(end(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
    assert_eq!(end(b"\xff\xff"), None);
    assert_eq!(Span::prefix(Bytes::new()), Span::all());
}

#[test]
fn all_holds_every_key() {
    assert_holds(&Span::all(), |_| true);
    assert!(!Span::all().is_empty());
    assert_eq!(Span::all().single_key(), None);
}
