//! Damage done to files while the log is closed: it is found, named by file and byte, and nothing
//! is made up or dropped because of it.

use super::*;
use format::{FRAME_HEADER_BYTES, FrameHeader, UNIT_BYTES};

/// A frame and the segment it is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Header and payload, without the padding.
    pub(super) bytes: u64,
    kind: FrameKind,
}

/// A log of three segments and what it holds.
struct Sample {
    disk: FakeDisk,
    model: Model,
    frames: Vec<Frame>,
    last_segment: u64,
}

impl Sample {
    fn new(is_closed: bool) -> Sample {
        let disk = FakeDisk::new();
        let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
        let mut model = Model::new();
        for round in 1..=30 {
            let batch = [
                append(1, vec![entries(1, round, round, 1, 20), hard_state(1, 1, round)]),
                append(round, vec![entries(round, round + 1 - round.min(2), round, 1, 9)]),
            ];
            let batch = if round == 2 { &batch[..1] } else { &batch[..] };
            let batch: Vec<_> = batch.iter().filter(|one| is_sound(&model, one)).cloned().collect();
            write(&mut writer, &batch).expect("a sound batch");
            apply_all(&mut model, &batch);
        }
        if is_closed {
            close(&mut writer);
        }
        let last_segment = writer.active.header.sequence;
        drop(writer);
        let frames = (1..=last_segment).flat_map(|segment| frames(&disk, segment)).collect();
        Sample { disk, model, frames, last_segment }
    }

    /// A copy of the disk on which one file is different.
    fn with(&self, segment: u64, change: impl FnOnce(&mut Vec<u8>)) -> FakeDisk {
        let disk = self.disk.copy();
        let path = segment_path(segment);
        let mut bytes = disk.read(&path);
        change(&mut bytes);
        disk.tamper(&path, bytes);
        disk
    }

    fn last_frame(&self) -> Frame {
        *self.frames.last().expect("some frames")
    }
}

fn is_sound(model: &Model, append: &Append) -> bool {
    let known = model.get(&append.group).cloned().unwrap_or_default();
    append.operations.iter().all(|operation| match operation {
        Operation::Entries(entries) => entries[0].index <= last_index(&known) + 1,
        _ => true,
    })
}

pub(super) fn frames(disk: &FakeDisk, segment: u64) -> Vec<Frame> {
    let file = disk.read(&segment_path(segment));
    let mut frames = Vec::new();
    let mut offset = UNIT_BYTES;
    while let Some(header) = FrameHeader::decode(&file[offset as usize..]) {
        let bytes = FRAME_HEADER_BYTES as u64 + u64::from(header.payload_bytes);
        frames.push(Frame { segment, offset, bytes, kind: header.kind });
        offset += header.frame_bytes();
    }
    frames
}

fn open_sample(disk: &FakeDisk) -> Result<Recovered, Error> {
    open_fake(disk, options()).map(|(_, recovered)| recovered)
}

#[track_caller]
fn assert_corrupt(outcome: Result<Recovered, Error>, segment: u64, offset: u64) {
    match outcome {
        Err(Error::Corrupt { path, offset: found, .. }) => {
            assert_eq!((path, found), (segment_path(segment), offset));
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("damage to segment {segment} at byte {offset} was not noticed"),
    }
}

#[test]
fn the_sample_is_sound() {
    let sample = Sample::new(true);
    assert_eq!(sample.last_segment, 3);
    assert!(sample.frames.len() > 30);
    let recovered = open_sample(&sample.disk.copy()).expect("a sound log");
    assert_eq!(recovered, Recovered { groups: sample.model, torn_tail: None, is_clean: true });
}

#[test]
fn every_flipped_bit_is_noticed_in_a_closed_log() {
    let sample = Sample::new(true);
    let last = sample.last_frame();
    assert_eq!(last.kind, FrameKind::Close);
    for frame in &sample.frames {
        for byte in frame.offset..frame.offset + frame.bytes {
            let disk = sample.with(frame.segment, |file| file[byte as usize] ^= 1 << (byte % 8));
            let outcome = open_sample(&disk);
            if frame.offset == last.offset && frame.segment == last.segment {
                // Without its last frame the log is as after a crash, and has all its content.
                let recovered = outcome.expect("only the mark is damaged");
                assert_eq!(recovered.groups, sample.model);
                assert!(!recovered.is_clean && recovered.torn_tail.is_some());
            } else {
                assert_corrupt(outcome, frame.segment, frame.offset);
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_a_segment_header_is_noticed() {
    let sample = Sample::new(true);
    for segment in 1..=sample.last_segment {
        for byte in 0..format::SEGMENT_HEADER_BYTES {
            for bit in 0..8 {
                let disk = sample.with(segment, |file| file[byte] ^= 1 << bit);
                assert_corrupt(open_sample(&disk), segment, 0);
            }
        }
    }
}

#[test]
fn flipped_padding_changes_nothing() {
    let sample = Sample::new(true);
    for frame in &sample.frames {
        let padding = (frame.offset + frame.bytes) as usize;
        let disk = sample.with(frame.segment, |file| file[padding] ^= 0xff);
        let recovered = open_sample(&disk).expect("padding does not matter");
        assert_eq!(recovered.groups, sample.model);
    }
}

#[test]
fn only_the_last_frame_of_a_crashed_log_can_be_cut() {
    let sample = Sample::new(false);
    let last = sample.last_frame();
    assert_eq!(last.kind, FrameKind::Data);
    for byte in last.offset..last.offset + last.bytes {
        let disk = sample.with(last.segment, |file| file[byte as usize] ^= 0x10);
        let recovered = open_sample(&disk).expect("the last frame may be torn");
        let torn = recovered.torn_tail.expect("it is reported");
        assert_eq!((torn.path, torn.offset), (segment_path(last.segment), last.offset));
        assert_eq!(torn.bytes, UNIT_BYTES);
        assert_ne!(recovered.groups, sample.model);
        // The cut is durable, and the log as it is now is confirmed.
        let again = open_sample(&disk).expect("a sound log");
        assert_eq!((again.groups, again.torn_tail), (recovered.groups, None));
    }
    for frame in &sample.frames[..sample.frames.len() - 1] {
        let disk = sample.with(frame.segment, |file| file[frame.offset as usize + 40] ^= 0x10);
        assert_corrupt(open_sample(&disk), frame.segment, frame.offset);
    }
}

#[test]
fn an_unclean_start_confirms_the_last_frame() {
    let sample = Sample::new(false);
    let last = sample.last_frame();
    open_sample(&sample.disk).expect("a sound log");
    let disk = sample.with(last.segment, |file| file[last.offset as usize + 70] ^= 1);
    assert_corrupt(open_sample(&disk), last.segment, last.offset);
}

#[test]
fn files_cut_short_at_any_length_are_noticed() {
    let sample = Sample::new(true);
    for segment in [1, sample.last_segment] {
        let full = sample.disk.read(&segment_path(segment)).len();
        for length in (0..64).chain((64..full).step_by(61)).chain(full - 64..full) {
            let disk = sample.with(segment, |file| file.truncate(length));
            let is_header_cut = length < format::SEGMENT_HEADER_BYTES;
            let offset = if is_header_cut { 0 } else { length as u64 };
            assert_corrupt(open_sample(&disk), segment, offset);
        }
    }
}

#[test]
fn missing_segments_are_named() {
    let sample = Sample::new(true);
    for segment in [2, 3] {
        let disk = sample.disk.copy();
        disk.tamper_remove(&segment_path(segment));
        match open_sample(&disk) {
            Err(Error::Missing { path }) => assert_eq!(path, segment_path(segment)),
            other => panic!("{other:?}"),
        }
    }
    // Without the first one, groups lack their first entries.
    let disk = sample.disk.copy();
    disk.tamper_remove(&segment_path(1));
    assert_corrupt(open_sample(&disk), 2, UNIT_BYTES);
}

#[test]
fn segments_that_changed_places_or_logs_are_noticed() {
    let sample = Sample::new(true);
    let disk = sample.disk.copy();
    disk.tamper(&segment_path(2), disk.read(&segment_path(3)));
    assert_corrupt(open_sample(&disk), 2, 0);

    let other = FakeDisk::new();
    let (mut writer, _) = open_writer(Box::new(other.clone()), options(), 99).expect("a new log");
    for round in 1..=30 {
        write(&mut writer, &[append(1, vec![entries(1, round, round, 1, 20)])]).expect("sound");
    }
    let disk = sample.disk.copy();
    disk.tamper(&segment_path(2), other.read(&segment_path(2)));
    assert_corrupt(open_sample(&disk), 2, 0);
}

#[test]
fn a_frame_taken_away_whole_is_noticed() {
    let sample = Sample::new(true);
    // In the middle of a segment, at its end, and the seal itself.
    for position in [5, 13, 14] {
        let frame = sample.frames[position];
        let disk = sample.with(frame.segment, |file| {
            file[frame.offset as usize..(frame.offset + UNIT_BYTES) as usize].fill(0);
        });
        assert_corrupt(open_sample(&disk), frame.segment, frame.offset);
    }
}

#[test]
fn a_frame_with_another_number_is_noticed() {
    let sample = Sample::new(true);
    let frame = sample.frames[5];
    let disk = sample.with(frame.segment, |file| {
        let bytes = &mut file[frame.offset as usize..];
        let header = FrameHeader::decode(bytes).expect("a frame");
        FrameHeader { number: header.number + 1, ..header }.encode(bytes);
    });
    assert_corrupt(open_sample(&disk), frame.segment, frame.offset);
}

#[test]
fn zeroed_and_random_regions_are_noticed() {
    let sample = Sample::new(true);
    let disk = sample.with(2, |file| file[8192..40960].fill(0));
    assert_corrupt(open_sample(&disk), 2, 8192);
    let disk = sample.with(1, |file| {
        let noise = (0u32..).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8);
        file.iter_mut().skip(5000).take(9000).zip(noise).for_each(|(byte, noise)| *byte = noise);
    });
    assert_corrupt(open_sample(&disk), 1, 8192);
}

#[test]
fn a_later_format_is_refused_by_its_number() {
    let sample = Sample::new(true);
    let disk = sample.with(1, |file| {
        file[8..12].copy_from_slice(&2u32.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&file[..12]), &file[16..48]);
        file[12..16].copy_from_slice(&checksum.to_le_bytes());
    });
    match open_sample(&disk) {
        Err(error @ Error::NewerFormat { found: 2, known: 1, .. }) => {
            assert!(error.to_string().contains("0000000000000001.wal"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// Frames with right checksums whose content was made to mislead the decoder.
#[test]
fn hostile_payloads_are_errors() {
    let huge = u32::MAX.to_le_bytes();
    let group = 1u64.to_le_bytes();
    let checkpoint = [&[7][..], &[0; 4]].concat();
    let with = |record: Vec<u8>| [checkpoint.clone(), record].concat();
    let number = |number: u64| number.to_le_bytes().to_vec();
    let payloads = [
        vec![],
        vec![9],
        [&[7][..], &huge].concat(),
        with(vec![0]),
        with(vec![1]),
        with([&[1][..], &group, &number(1), &huge, &huge].concat()),
        with([&[1][..], &group, &number(1), &huge, &[0; 4]].concat()),
        with(
            [&[1][..], &group, &number(1), &[1, 0, 0, 0], &[13, 0, 0, 0], &number(1), &[0], &huge]
                .concat(),
        ),
        with([&[1][..], &group, &number(0), &[0; 8]].concat()),
        with([&[1][..], &group, &number(u64::MAX), &[1, 0, 0, 0], &[0; 4]].concat()),
        with([&[1][..], &group, &number(5), &[0; 8]].concat()),
        with([&[2][..], &group, &number(1), &[0; 8]].concat()),
        with([&[4][..], &group, &number(7), &number(7)].concat()),
        with(checkpoint.clone()),
        // Numbers at which adding one goes over; found by fuzzing.
        with([&[1][..], &group, &number(1 << 62), &[0; 8]].concat()),
        with([&[4][..], &group, &number(u64::MAX), &number(7)].concat()),
        with([&[5][..], &group, &number(u64::MAX), &number(7)].concat()),
        [&[7][..], &[1, 0, 0, 0], &group, &[0; 40], &number(u64::MAX)].concat(),
    ];
    for payload in payloads {
        let disk = disk_with_frame(&payload, payload.len() as u32);
        assert_corrupt(open_sample(&disk), 1, UNIT_BYTES);
    }
    let disk = disk_with_frame(&[], u32::MAX);
    assert_corrupt(open_sample(&disk), 1, UNIT_BYTES);
}

pub(super) fn disk_with_frame(payload: &[u8], payload_bytes: u32) -> FakeDisk {
    let disk = FakeDisk::new();
    drop(open_fake(&disk, options()).expect("a new log"));
    let mut file = disk.read(&segment_path(1));
    let header = FrameHeader {
        log_id: LOG_ID,
        segment: 1,
        offset: UNIT_BYTES,
        number: 1,
        payload_bytes,
        payload_checksum: crc32c::crc32c(payload),
        kind: FrameKind::Data,
    };
    let frame = &mut file[UNIT_BYTES as usize..];
    header.encode(frame);
    frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    disk.tamper(&segment_path(1), file);
    disk
}

#[test]
fn stored_values_cannot_imitate_a_frame() {
    let disk = FakeDisk::new();
    let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
    write(&mut writer, &[append(1, vec![entries(1, 1, 1, 1, 9)])]).expect("a sound batch");
    // A value that lies on a unit of its own and looks like a frame of a log with another id.
    let offset = 2 * UNIT_BYTES;
    let mut imitation = vec![0; 200];
    FrameHeader {
        log_id: LOG_ID + 1,
        segment: 1,
        offset: offset + UNIT_BYTES,
        number: 3,
        payload_bytes: 0,
        payload_checksum: 0,
        kind: FrameKind::Data,
    }
    .encode(&mut imitation);
    let front = UNIT_BYTES as usize - FRAME_HEADER_BYTES - 25 - 13;
    let data = [vec![0; front], imitation].concat();
    let operation =
        Operation::Entries(vec![Entry { index: 2, term: 1, kind: 0, data: data.into() }]);
    write(&mut writer, &[append(1, vec![operation])]).expect("a sound batch");
    drop(writer);
    let mut file = disk.read(&segment_path(1));
    let unit = &file[(offset + UNIT_BYTES) as usize..];
    assert!(FrameHeader::decode(unit).is_some(), "the imitation is not where it should be");
    // The frame that holds it is torn.
    file[offset as usize + 200] ^= 1;
    disk.tamper(&segment_path(1), file);
    let recovered = open_sample(&disk).expect("a torn tail");
    assert_eq!(recovered.torn_tail.map(|torn| torn.bytes), Some(2 * UNIT_BYTES));
}
