//! The middle of a span by size, found in one pass that does not know how long it will be.

use bytes::Bytes;

/// Keys kept during a pass: the middle is found to a part in about half of this.
pub const MARKS_MAX: usize = 512;

/// Keys at about even distances. When there are too many, every other is dropped and the distance
/// is doubled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// A key, and the bytes of the rows before it.
    marks: Vec<(u64, Bytes)>,
    distance_bytes: u64,
    bytes: u64,
    rows: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self { marks: Vec::new(), distance_bytes: 1, bytes: 0, rows: 0 }
    }
}

impl Marks {
    /// The next row, in the order of their keys.
    pub fn add(&mut self, key: &[u8], row_bytes: u64) {
        let is_far = self.marks.last().is_none_or(|(at, _)| self.bytes >= at + self.distance_bytes);
        if is_far {
            self.marks.push((self.bytes, Bytes::copy_from_slice(key)));
            if self.marks.len() >= MARKS_MAX {
                let mut n = 0;
                self.marks.retain(|_| {
                    n += 1;
                    n % 2 == 1
                });
                self.distance_bytes = (self.bytes / (MARKS_MAX as u64 / 2)).max(1);
            }
        }
        self.bytes += row_bytes;
        self.rows += 1;
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The key that has about half of the bytes before it; not the first key.
    pub fn middle(&self) -> Option<Bytes> {
        let off = |(at, _): &&(u64, Bytes)| at.abs_diff(self.bytes / 2);
        self.marks.iter().skip(1).min_by_key(off).map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(rows: u64, row_bytes: impl Fn(u64) -> u64) -> (Marks, Vec<u64>) {
        let mut marks = Marks::default();
        let mut before = Vec::new();
        for n in 0..rows {
            before.push(marks.bytes());
            marks.add(format!("{n:09}").as_bytes(), row_bytes(n));
        }
        (marks, before)
    }

    #[test]
    fn the_middle_by_bytes_is_found_at_any_length() {
        for rows in [2, 3, 10, 511, 512, 513, 2_000, 100_000] {
            for row_bytes in [|_| 100, |n| 1 + n % 977, |n| if n < 20 { 5_000 } else { 50 }] {
                let (marks, before) = pass(rows, row_bytes);
                let key = marks.middle().expect("two rows have a border");
                let n: usize = String::from_utf8_lossy(&key).parse().expect("a number");
                let largest = (0..rows).map(row_bytes).max().unwrap_or(0);
                let off = before[n].abs_diff(marks.bytes() / 2);
                let allowed = largest + marks.bytes() / 64;
                assert!(off <= allowed && n > 0, "{rows} rows: off by {off}, {allowed} allowed");
                assert_eq!(marks.rows(), rows);
                assert!(marks.marks.len() < MARKS_MAX);
            }
        }
    }

    #[test]
    fn one_row_has_no_middle() {
        assert_eq!(pass(0, |_| 1).0.middle(), None);
        assert_eq!(pass(1, |_| 1).0.middle(), None);
    }
}
