//! From records to the groups' logs: what each group would remember if the log ended here. Owns
//! the meaning of records in the order they were written; reads no files and never guesses: a
//! record that cannot have been written here is an error.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use flotilla_proto::ids::GroupId;

use super::book::{Book, Checkpoint, Place, Run};
use super::format::NUMBER_MAX;
use super::operation::{Entry, GroupLog, HardState};
use super::record::{CheckpointGroups, Entries, EntryRef, Malformed, Record, Records, entry_bytes};

#[derive(Debug, Default)]
pub(super) struct Replay {
    groups: BTreeMap<GroupId, GroupReplay>,
    /// No frame was seen yet.
    is_started: bool,
}

#[derive(Debug, Default)]
struct GroupReplay {
    hard_state: HardState,
    truncated: (u64, u64),
    last_index: u64,
    /// Entries in the order they were written. They end at `last_index`, and may start late: the
    /// ones before may come as copies.
    tail: VecDeque<Placed>,
    /// Entries before `tail` that were found as copies.
    copies: BTreeMap<u64, Placed>,
    born: Place,
}

#[derive(Debug)]
struct Placed {
    entry: Entry,
    segment: u64,
}

impl Replay {
    /// Takes in one frame whose payload starts at `place`. The first frame of a segment must begin
    /// with a checkpoint, and no other may have one.
    pub(super) fn apply(
        &mut self,
        payload: &[u8],
        place: Place,
        is_first_of_segment: bool,
    ) -> Result<(), String> {
        let mut records = Records::new(payload, 0);
        let mut is_checkpoint_due = is_first_of_segment;
        loop {
            let place = Place { offset: place.offset + records.position() as u64, ..place };
            let record = records.next().map_err(|Malformed| malformed())?;
            let is_checkpoint = matches!(record, Some(Record::Checkpoint(_)));
            if is_checkpoint != is_checkpoint_due {
                return Err("a checkpoint is missing or in the wrong place".to_owned());
            }
            is_checkpoint_due = false;
            match record {
                None => return Ok(()),
                Some(record) => self.apply_record(record, place)?,
            }
        }
    }

    /// The groups' logs, and the book that knows where their entries lie.
    pub(super) fn finish(self) -> Result<(BTreeMap<GroupId, GroupLog>, Book), String> {
        let mut logs = BTreeMap::new();
        let mut book = Book::default();
        for (group, replay) in self.groups {
            let (checkpoint, born) = (replay.checkpoint(), replay.born);
            let (log, runs) = replay.finish(group)?;
            book.restore(group, checkpoint, born, runs);
            logs.insert(group, log);
        }
        Ok((logs, book))
    }

    fn apply_record(&mut self, record: Record<'_>, place: Place) -> Result<(), String> {
        match record {
            Record::Checkpoint(groups) => self.on_checkpoint(&groups),
            Record::Copies(entries) => match self.groups.get_mut(&entries.group) {
                Some(replay) => replay.on_copies(&entries, place),
                None => Err(format!("copies for group {}, which does not exist", entries.group)),
            },
            Record::Entries(entries) => {
                self.group(entries.group, place).on_entries(&entries, place)
            }
            Record::HardState { group, state } => {
                self.group(group, place).hard_state = state;
                Ok(())
            }
            Record::Truncate { group, index, term } => {
                self.group(group, place).on_truncate(index, term)
            }
            Record::Reset { group, index, term } => {
                let replay = self.group(group, place);
                *replay = GroupReplay {
                    hard_state: replay.hard_state,
                    truncated: (index, term),
                    last_index: index,
                    born: place,
                    ..GroupReplay::default()
                };
                Ok(())
            }
            Record::Remove { group } => {
                self.groups.remove(&group);
                Ok(())
            }
        }
    }

    fn group(&mut self, group: GroupId, place: Place) -> &mut GroupReplay {
        let born = GroupReplay { born: place, ..GroupReplay::default() };
        self.groups.entry(group).or_insert(born)
    }

    /// The first checkpoint is all that is known of segments that are gone. Each later one must
    /// say what replay came to know by itself.
    fn on_checkpoint(&mut self, groups: &CheckpointGroups<'_>) -> Result<(), String> {
        if !self.is_started {
            self.is_started = true;
            for (group, checkpoint) in groups.iter() {
                let Checkpoint { hard_state, truncated, last_index } = checkpoint;
                if truncated.0 > last_index || last_index >= NUMBER_MAX {
                    return Err(format!("group {group} ends before its own truncation, or never"));
                }
                let replay =
                    GroupReplay { hard_state, truncated, last_index, ..GroupReplay::default() };
                self.groups.insert(group, replay);
            }
            return Ok(());
        }
        let known = self.groups.iter().map(|(group, replay)| (*group, replay.checkpoint()));
        if known.eq(groups.iter()) {
            Ok(())
        } else {
            Err("its checkpoint contradicts the segments before it".to_owned())
        }
    }
}

impl GroupReplay {
    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            hard_state: self.hard_state,
            truncated: self.truncated,
            last_index: self.last_index,
        }
    }

    fn on_entries(&mut self, entries: &Entries<'_>, place: Place) -> Result<(), String> {
        let (group, first) = (entries.group, entries.first_index);
        if first > self.last_index + 1 || first <= self.truncated.0 {
            let (truncated, last) = (self.truncated.0, self.last_index);
            return Err(format!(
                "entries of group {group} from index {first} on, when it has {truncated} to {last}"
            ));
        }
        // Entries up to `last_index` that are not in `tail` are in segments that are gone, or come
        // later as copies.
        self.copies.split_off(&first);
        let replaced = (self.last_index + 1 - first).min(self.tail.len() as u64);
        self.tail.truncate(self.tail.len() - replaced as usize);
        for entry in entries.iter() {
            let entry = entry.map_err(|Malformed| malformed())?;
            self.last_index = entry.index;
            self.tail.push_back(Placed { entry: keep(&entry), segment: place.segment });
        }
        Ok(())
    }

    fn on_copies(&mut self, entries: &Entries<'_>, place: Place) -> Result<(), String> {
        let tail_start = self.tail_start();
        for entry in entries.iter() {
            let entry = entry.map_err(|Malformed| malformed())?;
            if entry.index <= self.truncated.0 || entry.index > self.last_index {
                let (group, index) = (entries.group, entry.index);
                return Err(format!("a copy of entry {index} of group {group}, which has none"));
            }
            let known = if entry.index >= tail_start {
                self.tail.get_mut((entry.index - tail_start) as usize)
            } else {
                self.copies.get_mut(&entry.index)
            };
            match known {
                Some(placed) if placed.entry.term == entry.term => {
                    placed.segment = place.segment;
                }
                Some(_) => {
                    let (group, index) = (entries.group, entry.index);
                    return Err(format!("a copy of entry {index} of group {group} is another one"));
                }
                None => {
                    let placed = Placed { entry: keep(&entry), segment: place.segment };
                    self.copies.insert(entry.index, placed);
                }
            }
        }
        Ok(())
    }

    fn on_truncate(&mut self, index: u64, term: u64) -> Result<(), String> {
        if index > self.last_index {
            let last = self.last_index;
            return Err(format!("truncation up to index {index}, when the last one is {last}"));
        }
        if index > self.truncated.0 {
            self.truncated = (index, term);
            self.copies = self.copies.split_off(&(index + 1));
            let dropped = (index + 1).saturating_sub(self.tail_start());
            self.tail.drain(..(dropped as usize).min(self.tail.len()));
        }
        Ok(())
    }

    /// Index of the first entry of `tail`, or where it would be.
    fn tail_start(&self) -> u64 {
        self.last_index + 1 - self.tail.len() as u64
    }

    fn finish(self, group: GroupId) -> Result<(GroupLog, VecDeque<Run>), String> {
        let mut runs: VecDeque<Run> = VecDeque::new();
        let mut entries = Vec::with_capacity(self.copies.len() + self.tail.len());
        let mut next = self.truncated.0 + 1;
        for Placed { entry, segment } in self.copies.into_values().chain(self.tail) {
            if entry.index != next {
                let found = entry.index;
                return Err(format!("group {group} has entry {found} but not entry {next}"));
            }
            next += 1;
            let bytes = entry_bytes(&entry);
            match runs.back_mut() {
                Some(run) if run.segment == segment && run.term == entry.term => run.bytes += bytes,
                _ => {
                    let (first_index, term) = (entry.index, entry.term);
                    runs.push_back(Run { first_index, term, segment, bytes });
                }
            }
            entries.push(entry);
        }
        if next != self.last_index + 1 {
            let last = self.last_index;
            return Err(format!("group {group} lacks entries {next} to {last}"));
        }
        let log = GroupLog { hard_state: self.hard_state, truncated: self.truncated, entries };
        Ok((log, runs))
    }
}

fn keep(entry: &EntryRef<'_>) -> Entry {
    let EntryRef { index, term, kind, data } = *entry;
    Entry { index, term, kind, data: Bytes::copy_from_slice(data) }
}

fn malformed() -> String {
    "a record with a right checksum makes no sense".to_owned()
}
