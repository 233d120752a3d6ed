//! The disk under a node's log, which all groups share: records are durable only after a flush, and
//! a crash loses any suffix of those that were not. Owns what a restarted node finds. Knows nothing
//! of time.

use std::collections::{BTreeMap, VecDeque};

use flotilla_core::GroupId;
use flotilla_core::group::{Append, Entry, HardState, Position, Recovered};

use super::chance::Chance;

/// One write to the log.
#[derive(Clone, Debug)]
pub enum Record {
    /// An append, whose token is reported when it is durable.
    Append(Append),
    /// The log may forget everything up to here.
    Truncate(Position),
    /// The group has left; all of its log is forgotten.
    Remove,
}

/// A group's log as a sequence of records leaves it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Of the newest append.
    pub hard_state: HardState,
    /// Place before the first entry.
    pub truncated: Position,
    /// Without a gap.
    pub entries: VecDeque<Entry>,
}

impl Log {
    /// Carries a record out.
    ///
    /// # Errors
    /// The record does not fit: the log of a real node would refuse it and the node would stop.
    pub fn write(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Append(append) => {
                if let Some(place) = append.reset {
                    self.truncated = place;
                    self.entries.clear();
                }
                if let Some(first) = append.entries.first() {
                    if first.index > self.last_index() + 1 || first.index <= self.truncated.index {
                        return Err(format!(
                            "entries from {} on in a log from {} to {}",
                            first.index,
                            self.truncated.index,
                            self.last_index()
                        ));
                    }
                    let kept = first.index - self.truncated.index - 1;
                    self.entries.truncate(usize::try_from(kept).expect("a log fits in memory"));
                    self.entries.extend(append.entries.iter().cloned());
                }
                self.hard_state = append.hard_state;
            }
            Record::Truncate(place) => {
                if place.index > self.last_index() {
                    return Err(format!(
                        "truncation up to {} of a log that ends at {}",
                        place.index,
                        self.last_index()
                    ));
                }
                while self.entries.front().is_some_and(|entry| entry.index <= place.index) {
                    self.entries.pop_front();
                }
                if place.index > self.truncated.index {
                    self.truncated = *place;
                }
            }
            Record::Remove => *self = Self::default(),
        }
        Ok(())
    }

    /// Index of the last entry, or of the place before the first.
    pub fn last_index(&self) -> u64 {
        self.entries.back().map_or(self.truncated.index, |entry| entry.index)
    }

    /// Where it ends.
    pub fn last_place(&self) -> Position {
        let of = |entry: &Entry| Position { index: entry.index, term: entry.term };
        self.entries.back().map_or(self.truncated, of)
    }

    /// The entry at an index.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.truncated.index + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }
}

/// The logs of all groups as a sequence of records leaves them.
pub type Logs = BTreeMap<GroupId, Log>;

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct LogDisk {
    /// What survives a crash for certain.
    pub durable: Logs,
    /// What the running node has written, durable or not.
    pub written: Logs,
    /// Written and not durable, oldest first.
    unflushed: VecDeque<(GroupId, Record)>,
    /// How many of them the flush under way covers.
    flushing: usize,
}

impl LogDisk {
    /// Writes a record.
    ///
    /// # Errors
    /// It does not fit the log.
    pub fn write(&mut self, group: GroupId, record: Record) -> Result<(), String> {
        self.written.entry(group).or_default().write(&record)?;
        if matches!(record, Record::Remove) {
            self.written.remove(&group);
        }
        self.unflushed.push_back((group, record));
        Ok(())
    }

    /// Starts a flush of everything written, if none is under way and an append waits for it.
    pub fn start_flush(&mut self) -> bool {
        let is_append = |(_, record): &(_, Record)| matches!(record, Record::Append(_));
        if self.flushing > 0 || !self.unflushed.iter().any(is_append) {
            return false;
        }
        self.flushing = self.unflushed.len();
        true
    }

    /// The flush under way ends. Returns the newest token of each group that is durable.
    pub fn end_flush(&mut self) -> BTreeMap<GroupId, u64> {
        let mut tokens = BTreeMap::new();
        for _ in 0..std::mem::take(&mut self.flushing) {
            let (group, record) = self.unflushed.pop_front().expect("what is flushed was written");
            self.keep(group, &record);
            if let Record::Append(append) = record {
                tokens.insert(group, append.token);
            }
        }
        tokens
    }

    /// The node is gone: of what was not durable, some first records may have made it. Returns how
    /// many records were lost.
    pub fn crash(&mut self, chance: &mut Chance) -> usize {
        let kept = chance.between(0, self.unflushed.len() as u64);
        let kept = usize::try_from(kept).expect("a queue fits in memory");
        let lost = self.unflushed.len() - kept;
        for (group, record) in std::mem::take(&mut self.unflushed).into_iter().take(kept) {
            self.keep(group, &record);
        }
        self.flushing = 0;
        self.written = self.durable.clone();
        lost
    }

    /// What a group finds here when its node starts. The caller adds where the store stands.
    pub fn recovered(&self, group: GroupId) -> Recovered {
        let Some(log) = self.durable.get(&group) else { return Recovered::default() };
        Recovered {
            hard_state: log.hard_state,
            truncated: log.truncated,
            entries: log.entries.iter().cloned().collect(),
            ..Recovered::default()
        }
    }

    fn keep(&mut self, group: GroupId, record: &Record) {
        let log = self.durable.entry(group).or_default();
        log.write(record).expect("it fitted when it was written");
        if matches!(record, Record::Remove) {
            self.durable.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: GroupId = GroupId(1);

    fn append(token: u64, indexes: std::ops::RangeInclusive<u64>, term: u64) -> Record {
        let entries = indexes.map(|index| Entry { index, term, ..Entry::default() }).collect();
        let hard_state = HardState { term, ..HardState::default() };
        Record::Append(Append { token, reset: None, hard_state, entries })
    }

    #[test]
    fn a_crash_keeps_what_was_flushed_and_some_first_part_of_the_rest() {
        let mut ends = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let mut disk = LogDisk::default();
            disk.write(ONE, append(1, 1..=3, 1)).unwrap();
            assert!(disk.start_flush());
            disk.write(ONE, append(2, 4..=5, 1)).unwrap();
            assert_eq!(disk.end_flush(), BTreeMap::from([(ONE, 1)]));
            disk.write(ONE, append(3, 4..=6, 2)).unwrap();
            disk.crash(&mut Chance::new(seed));
            let log = &disk.durable[&ONE];
            ends.insert((log.last_index(), log.hard_state.term));
            assert_eq!(disk.written[&ONE].last_index(), log.last_index());
        }
        let all: Vec<_> = ends.into_iter().collect();
        assert_eq!(all, [(3, 1), (5, 1), (6, 2)]);
    }

    #[test]
    fn records_that_do_not_fit_are_refused() {
        let mut disk = LogDisk::default();
        disk.write(ONE, append(1, 1..=3, 1)).unwrap();
        assert!(disk.write(ONE, append(2, 5..=5, 1)).is_err());
        assert!(disk.write(ONE, Record::Truncate(Position { index: 4, term: 1 })).is_err());
        disk.write(ONE, Record::Truncate(Position { index: 2, term: 1 })).unwrap();
        assert!(disk.write(ONE, append(2, 2..=2, 1)).is_err());
        assert_eq!(disk.written[&ONE].entry(3).map(|entry| entry.index), Some(3));
        assert_eq!(disk.written[&ONE].entry(2), None);
    }
}
