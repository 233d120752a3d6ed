//! Damage of every kind, drawn: to records, to payloads that their checksums vouch for, and to the files
//! of whole logs. docs/fuzzing.md has the table.

use flotilla_fuzz::{Target, apply as edit, damaged, edits, number};
use proptest::collection::vec;
use proptest::prelude::*;

use super::damage::{disk_with_frame, frames};
use super::*;
use format::{FrameHeader, UNIT_BYTES};
use record::{Record, Records};

/// An operation, still to be fitted to what its group has.
#[derive(Clone, Debug)]
struct Draft {
    group: u64,
    kind: u8,
    some: u64,
    more: u64,
    bytes: usize,
}

fn draft() -> impl Strategy<Value = Draft> {
    let bytes = prop_oneof![5 => 0..40_usize, 1 => 0..3000_usize];
    (1..4_u64, 0..12_u8, number(), number(), bytes)
        .prop_map(|(group, kind, some, more, bytes)| Draft { group, kind, some, more, bytes })
}

impl Draft {
    /// An operation that its group may ask for.
    fn fit(&self, model: &Model) -> Operation {
        let log = model.get(&GroupId(self.group)).cloned().unwrap_or_default();
        let (first, last) = (log.truncated.0 + 1, last_index(&log));
        let term = log.entries.last().map_or(log.truncated.1, |entry| entry.term);
        match self.kind {
            0 => Operation::Remove,
            1 => Operation::Reset { index: last + self.some % 5, term: term + 1 },
            2 | 3 => hard_state(self.some, self.more, self.some ^ self.more),
            4 | 5 if last >= first => {
                let index = first + self.some % (last + 1 - first);
                let term = log.entries[(index - first) as usize].term;
                Operation::Truncate { index, term }
            }
            kind => {
                let back = if kind == 6 { self.some % 3 } else { 0 };
                let from = (last + 1).saturating_sub(back).max(first);
                entries(self.group, from, from + self.more % 3, term + 1, self.bytes)
            }
        }
    }

    /// An operation that makes no sense.
    fn wild(&self) -> Operation {
        match self.kind {
            0 => Operation::Remove,
            1 => Operation::Reset { index: self.some, term: self.more },
            2 | 3 => hard_state(self.some, self.more, self.some),
            4 | 5 => Operation::Truncate { index: self.some, term: self.more },
            _ => {
                let last = self.some.saturating_add(self.more % 3).min(u64::MAX - 1);
                entries(
                    self.group,
                    self.some.clamp(1, last.max(1)),
                    last.max(1),
                    self.more,
                    self.bytes % 64,
                )
            }
        }
    }
}

/// A payload as the first frame of a log has it.
fn payload(operations: &[(u64, Operation)], copies: &[(u64, Operation)]) -> Vec<u8> {
    let mut payload = Vec::new();
    record::put_checkpoint(&mut payload, std::iter::empty::<(&GroupId, book::Checkpoint)>());
    for (group, operation) in operations {
        record::put_operation(&mut payload, GroupId(*group), operation);
    }
    for (group, operation) in copies {
        if let Operation::Entries(entries) = operation {
            record::put_copies(&mut payload, GroupId(*group), entries);
        }
    }
    payload
}

#[test]
fn fuzz_wal_records_come_back() {
    Target::new("wal/records_come_back").run(vec(draft(), 0..20), |drafts| {
        let mut model = Model::new();
        let mut operations = Vec::new();
        for draft in drafts {
            let operation = draft.fit(&model);
            apply(&mut model, GroupId(draft.group), &operation);
            operations.push((draft.group, operation));
        }
        let payload = payload(&operations, &[]);
        let mut records = Records::new(&payload, 0);
        assert!(matches!(records.next(), Ok(Some(Record::Checkpoint(_)))));
        for (group, operation) in &operations {
            let group = GroupId(*group);
            match records.next().unwrap().unwrap() {
                Record::Entries(found) => {
                    let entries = found.iter().map(|entry| {
                        let record::EntryRef { index, term, kind, data } = entry.unwrap();
                        Entry { index, term, kind, data: Bytes::copy_from_slice(data) }
                    });
                    assert_eq!(found.group, group);
                    assert_eq!(&Operation::Entries(entries.collect()), operation);
                }
                Record::HardState { group: of, state } => {
                    assert_eq!((of, &Operation::HardState(state)), (group, operation));
                }
                Record::Truncate { group: of, index, term } => {
                    assert_eq!((of, &Operation::Truncate { index, term }), (group, operation));
                }
                Record::Reset { group: of, index, term } => {
                    assert_eq!((of, &Operation::Reset { index, term }), (group, operation));
                }
                Record::Remove { group: of } => {
                    assert_eq!((of, &Operation::Remove), (group, operation));
                }
                Record::Copies(_) | Record::Checkpoint(_) => panic!("nobody wrote it"),
            }
        }
        assert!(matches!(records.next(), Ok(None)));
    });
}

/// A frame whose checksum is right and whose payload is not: it is refused by its place, or it is a log
/// that can be gone on with.
#[test]
fn fuzz_wal_payload() {
    let pairs = || vec(draft(), 0..8);
    let sound = (pairs(), pairs()).prop_map(|(drafts, copies)| {
        let wild = |drafts: &[Draft]| -> Vec<_> {
            drafts.iter().map(|draft| (draft.group, draft.wild())).collect()
        };
        payload(&wild(&drafts), &wild(&copies))
    });
    let target = Target::new("wal/payload").cases(400);
    target.run(damaged(sound), |mut payload| {
        payload.truncate((options().segment_bytes / 8) as usize);
        let disk = disk_with_frame(&payload, payload.len() as u32);
        match open_fake(&disk, options()) {
            Ok((writer, recovered)) => goes_on(&disk, writer, recovered.groups),
            Err(Error::Corrupt { path, offset, .. }) => {
                assert_eq!((path, offset), (segment_path(1), UNIT_BYTES));
            }
            Err(error) => panic!("{error}"),
        }
    });
}

/// Writes to a log that was just opened, and opens it again.
fn goes_on(disk: &FakeDisk, mut writer: Writer, mut model: Model) {
    // A group that no draft has.
    let more = [append(77, vec![Operation::Remove, entries(77, 1, 1, 1, 9)])];
    write(&mut writer, &more).expect("a sound batch");
    apply_all(&mut model, &more);
    drop(writer);
    let (_, again) = open_fake(disk, options()).expect("a sound log");
    assert_eq!(again.groups, model);
}

/// A frame as it was written, and what was known after it.
struct Written {
    segment: u64,
    offset: usize,
    /// Without its padding.
    bytes: Vec<u8>,
    model: Model,
}

fn written(
    disk: &FakeDisk,
    segments: std::ops::RangeInclusive<u64>,
    models: &BTreeMap<u64, Model>,
) -> Vec<Written> {
    let frames = segments.flat_map(|segment| frames(disk, segment));
    let written = frames.filter_map(|frame| {
        let file = disk.read(&segment_path(frame.segment));
        let offset = frame.offset as usize;
        let bytes = file[offset..offset + frame.bytes as usize].to_vec();
        let header = FrameHeader::decode(&bytes).expect("a frame");
        // What follows may be of an earlier life of the file.
        if !header.is_at(LOG_ID, frame.segment, frame.offset) {
            return None;
        }
        let (_, model) = models.range(..=header.number).next_back().expect("the first is empty");
        Some(Written { segment: frame.segment, offset, bytes, model: model.clone() })
    });
    written.collect()
}

/// Whatever is done to one file of a log: damage to a frame that another follows is refused by its place,
/// and where only the last frames are damaged, the log ends with one of them or with the one before. It is
/// never in any other state, and it goes on.
#[test]
fn fuzz_wal_log() {
    let frames = vec(vec(draft(), 1..4), 1..30);
    let inputs = (frames, any::<bool>(), any::<u64>(), edits(), any::<bool>());
    let target = Target::new("wal/log").cases(200).bytes_max(64 << 20);
    target.run(inputs, |(frames, is_closed, file, damages, is_near_the_end)| {
        let disk = FakeDisk::new();
        let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
        let mut model = Model::new();
        let mut models = BTreeMap::from([(0, model.clone())]);
        for drafts in frames {
            let mut batch = Vec::new();
            for draft in drafts {
                let operation = draft.fit(&model);
                apply(&mut model, GroupId(draft.group), &operation);
                batch.push(append(draft.group, vec![operation]));
            }
            write(&mut writer, &batch).expect("a sound batch");
            models.insert(writer.number - 1, model.clone());
        }
        if is_closed {
            close(&mut writer);
        }
        let oldest = writer.segments[0].sequence;
        let (last, end) = (writer.active.header.sequence, writer.active.offset as usize);
        drop(writer);
        let written = written(&disk, oldest..=last, &models);

        let segment = oldest + file % (last + 1 - oldest);
        let mut content = disk.read(&segment_path(segment));
        let header = content[..format::SEGMENT_HEADER_BYTES].to_vec();
        let other = disk.read(&segment_path(oldest));
        if is_near_the_end && segment == last {
            // Most of the file is empty, and the edits are to hit the end of what is not.
            let start = end.saturating_sub(3 * UNIT_BYTES as usize);
            let mut part = content[start..end].to_vec();
            edit(&mut part, &damages, &other);
            part.resize(end - start, 0);
            content[start..end].copy_from_slice(&part);
        } else {
            edit(&mut content, &damages, &other);
        }
        let is_intact = |it: &Written| {
            let found = content.get(it.offset..it.offset + it.bytes.len());
            it.segment != segment || found == Some(&it.bytes)
        };
        let last_intact = written.iter().rposition(is_intact);
        let is_middle_intact = written[..last_intact.unwrap_or(0)].iter().all(is_intact);
        let is_file_sound =
            content.len() >= options().segment_bytes as usize && content.starts_with(&header);
        disk.tamper(&segment_path(segment), content);
        match open_fake(&disk, options()) {
            Ok((writer, recovered)) => {
                assert!(is_file_sound && is_middle_intact, "damage was not noticed");
                let first = last_intact.map_or(&models[&0], |at| &written[at].model);
                let more = written[last_intact.map_or(0, |at| at + 1)..].iter().map(|it| &it.model);
                let mut possible = std::iter::once(first).chain(more);
                assert!(
                    possible.any(|model| *model == recovered.groups),
                    "something else was read"
                );
                goes_on(&disk, writer, recovered.groups);
            }
            // What a file says may contradict another, which is named then.
            Err(Error::Corrupt { path, .. } | Error::Missing { path }) => {
                assert!((oldest..=last + 1).any(|segment| path == segment_path(segment)));
            }
            Err(Error::NewerFormat { path, .. }) => assert_eq!(path, segment_path(segment)),
            Err(error) => panic!("{error}"),
        }
    });
}
