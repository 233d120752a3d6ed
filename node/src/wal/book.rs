//! Which groups exist, where each one's log begins and ends, and which segments hold its entries.
//! Owns the answer to "may this segment go" and keeps it current in constant time per append.
//! Never holds entries and never walks over all groups.

use std::collections::{BTreeMap, VecDeque};

use flotilla_proto::ids::GroupId;

use super::format::NUMBER_MAX;
use super::operation::{Entry, HardState, Operation};
use super::record::entry_bytes;

/// A position in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    /// In the segment's file, in bytes.
    pub(super) offset: u64,
}

/// What the start of a segment repeats of a group, so that older segments can go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) hard_state: HardState,
    pub(super) truncated: (u64, u64),
    pub(super) last_index: u64,
}

/// Entries that follow each other in index, share a term, and whose living copies are in one
/// segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first_index: u64,
    pub(super) term: u64,
    pub(super) segment: u64,
    /// In records, about: an entry cut from a run counts as the run's average.
    pub(super) bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    groups: BTreeMap<GroupId, GroupBook>,
    pins: Pins,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupBook {
    hard_state: HardState,
    truncated: (u64, u64),
    last_index: u64,
    /// In the order of indexes, without gaps, from the index after `truncated` to `last_index`.
    runs: VecDeque<Run>,
    /// Where the group was created or last reset: what lies before belongs to an earlier life.
    born: Place,
}

/// How many runs each segment holds, and the bytes of all runs.
#[derive(Debug, Default)]
struct Pins {
    runs_by_segment: BTreeMap<u64, u64>,
    live_bytes: u64,
}

impl Book {
    pub(super) fn groups_count(&self) -> usize {
        self.groups.len()
    }

    /// Bytes of entries that some group still needs, about.
    pub(super) fn live_bytes(&self) -> u64 {
        self.pins.live_bytes
    }

    /// Whether some group needs an entry in this segment.
    pub(super) fn is_pinned(&self, segment: u64) -> bool {
        self.pins.runs_by_segment.contains_key(&segment)
    }

    pub(super) fn checkpoints(&self) -> impl ExactSizeIterator<Item = (&GroupId, Checkpoint)> {
        self.groups.iter().map(|(group, book)| (group, book.checkpoint()))
    }

    /// Takes note of one operation that is written at `place`, or says what rule it breaks.
    pub(super) fn apply(
        &mut self,
        group: GroupId,
        operation: &Operation,
        place: Place,
    ) -> Result<(), String> {
        if matches!(operation, Operation::Entries(entries) if entries.is_empty()) {
            return Ok(());
        }
        if matches!(operation, Operation::Remove) {
            if let Some(mut book) = self.groups.remove(&group) {
                book.clear(&mut self.pins);
            }
            return Ok(());
        }
        let book = self
            .groups
            .entry(group)
            .or_insert_with(|| GroupBook { born: place, ..GroupBook::default() });
        match operation {
            Operation::Entries(entries) => book.append(entries, place.segment, &mut self.pins),
            Operation::HardState(state) => {
                book.hard_state = *state;
                Ok(())
            }
            Operation::Truncate { index, term } => book.truncate(*index, *term, &mut self.pins),
            Operation::Reset { index, .. } if *index >= NUMBER_MAX => {
                Err(format!("a log that continues after index {index}"))
            }
            Operation::Reset { index, term } => {
                book.clear(&mut self.pins);
                book.truncated = (*index, *term);
                book.last_index = *index;
                book.born = place;
                Ok(())
            }
            Operation::Remove => unreachable!("handled above"),
        }
    }

    /// Whether the copy of this entry that lies in the record at `place` is the one the group
    /// needs.
    pub(super) fn is_live(&self, group: GroupId, index: u64, term: u64, place: Place) -> bool {
        self.groups.get(&group).is_some_and(|book| {
            place >= book.born
                && book.run_of(index).is_some_and(|at| book.runs[at].is(place.segment, term))
        })
    }

    /// Entries that were live in segment `from` are now in segment `to`.
    pub(super) fn moved(&mut self, group: GroupId, entries: &[Entry], from: u64, to: u64) {
        if let Some(book) = self.groups.get_mut(&group) {
            for entry in entries {
                book.move_entry(entry, from, to, &mut self.pins);
            }
        }
    }

    /// Adds a group found on disk. `runs` are as in [`GroupBook::runs`].
    pub(super) fn restore(
        &mut self,
        group: GroupId,
        checkpoint: Checkpoint,
        born: Place,
        runs: VecDeque<Run>,
    ) {
        for run in &runs {
            self.pins.add(run);
        }
        let Checkpoint { hard_state, truncated, last_index } = checkpoint;
        let book = GroupBook { hard_state, truncated, last_index, runs, born };
        self.groups.insert(group, book);
    }

    /// Everything that recovery must be able to rebuild, given the oldest segment kept.
    #[cfg(test)]
    pub(super) fn essence(&self, oldest_segment: u64) -> Essence {
        let group_essence = |(group, book): (&GroupId, &GroupBook)| {
            let is_forgotten = book.born.segment < oldest_segment;
            let born = if is_forgotten { Place::default() } else { book.born };
            let runs = book.runs.iter().map(|run| (run.first_index, run.term, run.segment));
            (*group, book.checkpoint(), born, runs.collect())
        };
        self.groups.iter().map(group_essence).collect()
    }
}

/// Of each group its marks, where it was born, and first index, term and segment of its runs.
#[cfg(test)]
pub(super) type Essence = Vec<(GroupId, Checkpoint, Place, Vec<(u64, u64, u64)>)>;

impl GroupBook {
    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            hard_state: self.hard_state,
            truncated: self.truncated,
            last_index: self.last_index,
        }
    }

    fn append(&mut self, entries: &[Entry], segment: u64, pins: &mut Pins) -> Result<(), String> {
        let Some(first) = entries.first() else {
            return Ok(());
        };
        if first.index > self.last_index + 1 {
            let (first, last) = (first.index, self.last_index);
            return Err(format!("entries from index {first} on, when the last one is {last}"));
        }
        if first.index <= self.truncated.0 {
            let (first, truncated) = (first.index, self.truncated.0);
            return Err(format!("entries from index {first} on, when {truncated} is truncated"));
        }
        if first.index <= self.last_index {
            self.cut_from(first.index, pins);
        }
        for entry in entries {
            let bytes = entry_bytes(entry);
            match self.runs.back_mut() {
                Some(run) if run.is(segment, entry.term) => {
                    run.bytes += bytes;
                    pins.live_bytes += bytes;
                }
                _ => self.push_run(entry, segment, bytes, pins),
            }
            self.last_index = entry.index;
        }
        Ok(())
    }

    fn push_run(&mut self, entry: &Entry, segment: u64, bytes: u64, pins: &mut Pins) {
        let run = Run { first_index: entry.index, term: entry.term, segment, bytes };
        pins.add(&run);
        self.runs.push_back(run);
    }

    /// Drops the entries from `index` on.
    fn cut_from(&mut self, index: u64, pins: &mut Pins) {
        while let Some(run) = self.runs.back().copied() {
            if run.first_index < index {
                let kept = share(&run, index - run.first_index, self.last_index);
                self.shrink_to(self.runs.len() - 1, kept, pins);
                break;
            }
            pins.remove(&run);
            self.runs.pop_back();
            self.last_index = run.first_index - 1;
        }
        self.last_index = index - 1;
    }

    fn truncate(&mut self, index: u64, term: u64, pins: &mut Pins) -> Result<(), String> {
        if index <= self.truncated.0 {
            return Ok(());
        }
        if index > self.last_index {
            let last = self.last_index;
            return Err(format!("truncation up to index {index}, when the last one is {last}"));
        }
        self.truncated = (index, term);
        while let Some(run) = self.runs.front().copied() {
            if run.first_index > index {
                break;
            }
            let last_index = self.last_index_of(0);
            if last_index > index {
                let kept = share(&run, last_index - index, last_index);
                self.shrink_to(0, kept, pins);
                self.runs[0].first_index = index + 1;
                break;
            }
            pins.remove(&run);
            self.runs.pop_front();
        }
        Ok(())
    }

    fn clear(&mut self, pins: &mut Pins) {
        for run in self.runs.drain(..) {
            pins.remove(&run);
        }
    }

    fn shrink_to(&mut self, at: usize, bytes: u64, pins: &mut Pins) {
        pins.live_bytes -= self.runs[at].bytes - bytes;
        self.runs[at].bytes = bytes;
    }

    /// Which run holds this index.
    fn run_of(&self, index: u64) -> Option<usize> {
        if index > self.last_index {
            return None;
        }
        self.runs.partition_point(|run| run.first_index <= index).checked_sub(1)
    }

    fn last_index_of(&self, at: usize) -> u64 {
        self.runs.get(at + 1).map_or(self.last_index, |next| next.first_index - 1)
    }

    /// Cuts the entry out of its run in `from` and puts it into one in `to`. An entry that is
    /// elsewhere already stays there.
    fn move_entry(&mut self, entry: &Entry, from: u64, to: u64, pins: &mut Pins) {
        let Some(at) = self.run_of(entry.index).filter(|at| self.runs[*at].is(from, entry.term))
        else {
            return;
        };
        let run = self.runs[at];
        let last_index = self.last_index_of(at);
        pins.remove(&run);
        self.runs.remove(at);

        let before = entry.index - run.first_index;
        let after = last_index - entry.index;
        let mut pieces = Vec::with_capacity(3);
        if before > 0 {
            pieces.push(Run { bytes: share(&run, before, last_index), ..run });
        }
        let bytes = share(&run, 1, last_index);
        pieces.push(Run { first_index: entry.index, segment: to, bytes, ..run });
        if after > 0 {
            let bytes = share(&run, after, last_index);
            pieces.push(Run { first_index: entry.index + 1, bytes, ..run });
        }
        let moved = at + usize::from(before > 0);
        for (position, piece) in pieces.into_iter().enumerate() {
            pins.add(&piece);
            self.runs.insert(at + position, piece);
        }
        self.join(moved + 1, pins);
        self.join(moved, pins);
    }

    /// Makes one run of this one, if there is one, and the one before, if they are of one kind.
    fn join(&mut self, at: usize, pins: &mut Pins) {
        let Some(run) = self.runs.get(at).copied() else {
            return;
        };
        let Some(before) = at.checked_sub(1).map(|before| self.runs[before]) else {
            return;
        };
        if before.is(run.segment, run.term) {
            pins.remove(&run);
            pins.remove(&before);
            self.runs.remove(at);
            let joined = Run { bytes: before.bytes + run.bytes, ..before };
            self.runs[at - 1] = joined;
            pins.add(&joined);
        }
    }
}

impl Run {
    fn is(&self, segment: u64, term: u64) -> bool {
        self.segment == segment && self.term == term
    }
}

impl Pins {
    fn add(&mut self, run: &Run) {
        *self.runs_by_segment.entry(run.segment).or_default() += 1;
        self.live_bytes += run.bytes;
    }

    fn remove(&mut self, run: &Run) {
        self.live_bytes -= run.bytes;
        let runs = self.runs_by_segment.get_mut(&run.segment).expect("every run is counted");
        *runs -= 1;
        if *runs == 0 {
            self.runs_by_segment.remove(&run.segment);
        }
    }
}

/// The part of a run's bytes that so many of its entries take, about.
fn share(run: &Run, entries: u64, last_index: u64) -> u64 {
    let all = last_index - run.first_index + 1;
    (u128::from(run.bytes) * u128::from(entries) / u128::from(all)) as u64
}
