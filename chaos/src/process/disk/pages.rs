//! The content of a file as sparse pages in memory. Pages are shared until one of the owners
//! writes, so a second copy costs what differs.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4_096;
const PAGE_BYTES: usize = 4_096;

type Page = [u8; PAGE_BYTES];

/// Content: pages that are not there are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    size: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Pages {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Pages that are there.
    pub fn count(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Pages that would have to be made to write there.
    pub fn missing(&self, offset: u64, length: u64) -> u64 {
        if length == 0 {
            return 0;
        }
        let (first, last) = (offset / PAGE, (offset + length - 1) / PAGE);
        last - first + 1 - self.pages.range(first..=last).count() as u64
    }

    /// What is there, at most `length` bytes.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(length as u64));
        let mut bytes = Vec::new();
        let mut at = offset;
        while at < end {
            let within = index(at % PAGE);
            let take = (PAGE_BYTES - within).min(index(end - at));
            match self.pages.get(&(at / PAGE)) {
                Some(page) => bytes.extend_from_slice(&page[within..within + take]),
                None => bytes.resize(bytes.len() + take, 0),
            }
            at += take as u64;
        }
        bytes
    }

    /// Writes, growing as far as needed.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let within = index(at % PAGE);
            let take = (PAGE_BYTES - within).min(rest.len());
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + take].copy_from_slice(&rest[..take]);
            at += take as u64;
            rest = &rest[take..];
        }
        self.size = self.size.max(at);
    }

    /// Takes over whole pages that another has alike, so that both keep them once.
    pub fn share(&mut self, other: &Pages, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        for (number, page) in self.pages.range_mut(offset / PAGE..=end / PAGE) {
            if let Some(theirs) = other.pages.get(number).filter(|theirs| *theirs == page) {
                *page = Arc::clone(theirs);
            }
        }
    }

    /// Grows with zeros, or forgets what is behind.
    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, self.size - size);
        }
        self.size = size;
    }

    /// Makes a part zero, without a change of size.
    pub fn zero(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        let pages: Vec<u64> =
            self.pages.range(offset / PAGE..=end / PAGE).map(|(page, _)| *page).collect();
        for number in pages {
            let start = number * PAGE;
            let from = index(offset.saturating_sub(start).min(PAGE));
            let to = index(end.saturating_sub(start).min(PAGE));
            if (from, to) == (0, PAGE_BYTES) {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                Arc::make_mut(page)[from..to].fill(0);
            }
        }
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("a part of a page or of memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::chance::Chance;

    #[test]
    fn pages_are_what_a_vector_is() {
        let mut chance = Chance::new(3);
        let (mut pages, mut model) = (Pages::default(), Vec::<u8>::new());
        for round in 0..2_000 {
            let offset = chance.below(20_000);
            let length = index(chance.below(9_000));
            let at = index(offset);
            match chance.below(4) {
                0 | 1 => {
                    let data: Vec<u8> = (0..length).map(|n| (n + round) as u8 | 1).collect();
                    pages.write(offset, &data);
                    if length > 0 {
                        model.resize(model.len().max(at + length), 0);
                        model[at..at + length].copy_from_slice(&data);
                    }
                }
                2 => {
                    pages.resize(offset);
                    model.resize(at, 0);
                }
                _ => {
                    pages.zero(offset, length as u64);
                    let end = model.len().min(at + length);
                    if at < end {
                        model[at..end].fill(0);
                    }
                }
            }
            let mut other = pages.clone();
            other.write(offset / 2, &[7; 5_000]);
            pages.share(&other, 0, offset);
            assert_eq!(pages.size(), model.len() as u64);
            assert_eq!(pages.read(0, model.len()), model);
            let part = model.get(at..model.len().min(at + 100)).unwrap_or(&[]);
            assert_eq!(pages.read(offset, 100), part);
        }
    }
}
