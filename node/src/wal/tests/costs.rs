//! What the log costs, in operations of the disk and in bytes: the same on every machine and in every run,
//! so that a regression is seen without a disk and without a clock. A bound is what was counted when it was
//! set; who has to raise it says why.

use super::*;

const ENTRY_BYTES: usize = 256;
/// Appends of groups that were flushed together, as they are under load.
const APPENDS: u64 = 64;
const FRAMES: u64 = 20;

/// Bytes of a frame beside its records, padded to a whole block.
const FRAME_BYTES_MAX: u64 = 4096;
/// Bytes of an append of one entry beside the entry's data.
const APPEND_BYTES_MAX: u64 = 32;

/// Operations, flushes and bytes of one frame.
fn frame(appends: u64) -> (u64, u64, u64) {
    let disk = FakeDisk::new();
    let options = Options { segment_bytes: 8 << 20, batch_bytes_max: 1 << 20, ..options() };
    let (mut writer, _) = open_fake(&disk, options).expect("a new log");
    let batch = |index: u64| -> Vec<Append> {
        let one = |group| append(group, vec![entries(group, index, index, 1, ENTRY_BYTES)]);
        (1..=appends).map(one).collect()
    };
    // The first frame of a log makes its first file.
    write(&mut writer, &batch(1)).expect("written");
    let (operations, flushes) = (disk.operations(), disk.flushes());
    let mut bytes = 0;
    for index in 2..2 + FRAMES {
        let batch = batch(index);
        let sizes = batch.iter().map(|append| record::append_bytes(append).expect("sound")).sum();
        bytes += writer.write(FrameKind::Data, &batch, sizes).expect("written").bytes;
    }
    let operations = disk.operations() - operations;
    (operations / FRAMES, (disk.flushes() - flushes) / FRAMES, bytes / FRAMES)
}

#[test]
fn a_frame_is_one_write_and_one_flush_however_many_groups_it_serves() {
    for appends in [1, APPENDS] {
        let (operations, flushes, _) = frame(appends);
        assert_eq!((operations, flushes), (2, 1), "{appends} appends in a frame");
    }
}

#[test]
fn an_entry_costs_few_bytes_beside_its_own() {
    let data = APPENDS * ENTRY_BYTES as u64;
    let (_, _, bytes) = frame(APPENDS);
    let each = (bytes - data) / APPENDS;
    println!("{bytes} bytes for {APPENDS} entries of {ENTRY_BYTES}: {each} more for each");
    let bytes_max = data + APPENDS * APPEND_BYTES_MAX + FRAME_BYTES_MAX;
    assert!(bytes <= bytes_max, "{bytes} bytes, {bytes_max} at most");
}
