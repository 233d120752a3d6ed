//! Segments come and go: what is kept, what is reused, what idle groups cost.

use super::*;

fn sequences(writer: &Writer) -> Vec<u64> {
    writer.segments.iter().map(|segment| segment.sequence).collect()
}

/// One busy group that truncates behind itself.
fn churn(writer: &mut Writer, model: &mut Model, group: u64, rounds: u64) {
    let log = model.get(&GroupId(group)).cloned().unwrap_or_default();
    for index in last_index(&log) + 1..=last_index(&log) + rounds {
        let mut operations = vec![entries(group, index, index, 1, 3000)];
        if index > 3 {
            operations.push(Operation::Truncate { index: index - 3, term: 1 });
        }
        let batch = [append(group, operations)];
        write(writer, &batch).expect("a sound batch");
        apply_all(model, &batch);
    }
}

#[track_caller]
fn assert_recovers(disk: &FakeDisk, options: Options, model: &Model) -> Writer {
    let (writer, recovered) = open_fake(&disk.copy(), options).expect("a sound log");
    assert_eq!(&recovered.groups, model);
    writer
}

#[test]
fn segments_nobody_needs_are_reused_and_their_frames_stay_dead() {
    let disk = FakeDisk::new();
    let options = Options { recycled_segments_max: 1, ..options() };
    let (mut writer, _) = open_fake(&disk, options.clone()).expect("a new log");
    let mut model = Model::new();
    for _ in 0..200 {
        churn(&mut writer, &mut model, 1, 1);
        // At every moment old frames follow the end of the log in its recycled segment.
        assert_recovers(&disk, options.clone(), &model);
    }
    assert!(writer.active.header.is_recycled);
    assert!(writer.segments.len() <= 2, "{:?}", sequences(&writer));
    let files = disk.file_names();
    assert!(files.len() <= 3, "{files:?}");
}

#[test]
fn without_recycling_files_are_deleted() {
    let disk = FakeDisk::new();
    let options = Options { recycled_segments_max: 0, ..options() };
    let (mut writer, _) = open_fake(&disk, options.clone()).expect("a new log");
    let mut model = Model::new();
    churn(&mut writer, &mut model, 1, 200);
    assert_eq!(disk.file_names().len(), writer.segments.len());
    assert!(!writer.active.header.is_recycled);
    assert_recovers(&disk, options, &model);
}

#[test]
fn spares_survive_a_restart_if_they_are_of_use() {
    let disk = FakeDisk::new();
    let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
    write(&mut writer, &[append(9, vec![entries(9, 1, 1, 1, 10)])]).expect("a sound batch");
    churn(&mut writer, &mut Model::new(), 1, 100);
    write(&mut writer, &[append(9, vec![Operation::Remove])]).expect("a sound batch");
    while writer.free_oldest().expect("frees") {}
    assert_eq!(writer.spares.len(), 2);
    close(&mut writer);
    drop(writer);
    let fewer = Options { recycled_segments_max: 1, ..options() };
    let (writer, _) = open_fake(&disk.copy(), fewer).expect("a sound log");
    assert_eq!(writer.spares.len(), 1);
    let longer = Options { segment_bytes: 128 << 10, ..options() };
    let (writer, _) = open_fake(&disk.copy(), longer).expect("a sound log");
    assert_eq!(writer.spares.len(), 0);
    let (writer, _) = open_fake(&disk, options()).expect("a sound log");
    assert_eq!(writer.spares.len(), 2);
}

#[test]
fn a_needed_entry_keeps_its_segment_and_all_later_ones() {
    let disk = FakeDisk::new();
    let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
    let mut model = Model::new();
    let idle = [append(9, vec![entries(9, 1, 1, 1, 10)])];
    write(&mut writer, &idle).expect("a sound batch");
    apply_all(&mut model, &idle);
    churn(&mut writer, &mut model, 1, 60);
    assert_eq!(sequences(&writer), [1, 2, 3, 4, 5]);
    let truncation = [append(9, vec![Operation::Truncate { index: 1, term: 1 }])];
    write(&mut writer, &truncation).expect("a sound batch");
    apply_all(&mut model, &truncation);
    while writer.free_oldest().expect("frees") {}
    assert_eq!(sequences(&writer), [5]);
    assert_recovers(&disk, options(), &model);
}

#[test]
fn replaced_entries_and_resets_and_removal_free_segments_too() {
    for operation in
        [entries(9, 1, 1, 2, 10), Operation::Reset { index: 7, term: 2 }, Operation::Remove]
    {
        let disk = FakeDisk::new();
        let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
        let mut model = Model::new();
        let idle = [append(9, vec![entries(9, 1, 5, 1, 10)])];
        write(&mut writer, &idle).expect("a sound batch");
        apply_all(&mut model, &idle);
        churn(&mut writer, &mut model, 1, 40);
        let release = [append(9, vec![operation])];
        write(&mut writer, &release).expect("a sound batch");
        apply_all(&mut model, &release);
        while writer.free_oldest().expect("frees") {}
        assert_eq!(writer.segments.len(), 1);
        assert_recovers(&disk, options(), &model);
    }
}

#[test]
fn idle_groups_are_moved_forward_and_cannot_pin_the_log() {
    let disk = FakeDisk::new();
    let options = Options { retained_bytes_max: 1 << 20, ..options() };
    let (mut writer, _) = open_fake(&disk, options.clone()).expect("a new log");
    let mut model = Model::new();
    for group in 10..=300 {
        let batch = [append(group, vec![entries(group, 1, 3, 1, 20), hard_state(1, 1, 1)])];
        write(&mut writer, &batch).expect("a sound batch");
        apply_all(&mut model, &batch);
    }
    let live_bytes = writer.book.live_bytes();
    let mut written = 0;
    let mut appended = 0;
    for index in 1..=600 {
        let mut operations = vec![entries(1, index, index, 1, 3000)];
        if index > 3 {
            operations.push(Operation::Truncate { index: index - 3, term: 1 });
        }
        let batch = [append(1, operations)];
        let bytes = record::append_bytes(&batch[0]).expect("sound");
        appended += bytes.next_multiple_of(4096);
        written += writer.write(FrameKind::Data, &batch, bytes).expect("sound").bytes;
        writer.free_oldest().expect("frees");
        apply_all(&mut model, &batch);
    }
    // The first 291 frames alone made the log longer than its limit.
    assert!(writer.copied_bytes > 20_000);
    assert!(writer.retained_bytes() <= (1 << 20) + 2 * (64 << 10), "{}", writer.retained_bytes());
    assert!(writer.book.live_bytes() < live_bytes + 20_000);
    assert!(written < 3 * appended, "{written} bytes written for {appended}");
    let essence = writer.book.essence(writer.segments[0].sequence);
    let reopened = assert_recovers(&disk, options, &model);
    assert_eq!(reopened.book.essence(reopened.segments[0].sequence), essence);
}

#[test]
fn a_log_that_is_mostly_alive_is_not_copied_in_circles() {
    let disk = FakeDisk::new();
    let options = Options { retained_bytes_max: 128 << 10, ..options() };
    let (mut writer, _) = open_fake(&disk, options.clone()).expect("a new log");
    let mut model = Model::new();
    for index in 1..=300 {
        let batch = [append(1, vec![entries(1, index, index, 1, 3900)])];
        write(&mut writer, &batch).expect("a sound batch");
        apply_all(&mut model, &batch);
    }
    assert_eq!(writer.copied_bytes, 0);
    assert!(writer.retained_bytes() > 1 << 20);
    assert_recovers(&disk, options, &model);
}

#[test]
fn ten_thousand_groups_fit() {
    let disk = FakeDisk::new();
    let options = Options {
        segment_bytes: 4 << 20,
        batch_bytes_max: 64 << 10,
        retained_bytes_max: 8 << 20,
        ..options()
    };
    let (mut writer, _) = open_fake(&disk, options.clone()).expect("a new log");
    let mut model = Model::new();
    for first in (0..10_000).step_by(100) {
        let batch: Vec<_> = (first..first + 100)
            .map(|group| append(group, vec![entries(group, 1, 2, 1, 50), hard_state(1, 1, 1)]))
            .collect();
        write(&mut writer, &batch).expect("a sound batch");
        apply_all(&mut model, &batch);
    }
    for index in 3..=1200 {
        let mut operations = vec![entries(7, index, index, 1, 30_000)];
        operations.push(Operation::Truncate { index: index - 1, term: 1 });
        let batch = [append(7, operations)];
        write(&mut writer, &batch).expect("a sound batch");
        apply_all(&mut model, &batch);
    }
    assert!(writer.retained_bytes() <= 16 << 20, "{}", writer.retained_bytes());
    assert_recovers(&disk, options, &model);
}

#[test]
fn too_many_groups_for_the_segments_are_an_error() {
    let disk = FakeDisk::new();
    let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
    let outcome = (0..10_000)
        .try_for_each(|group| write(&mut writer, &[append(group, vec![hard_state(1, 1, 1)])]));
    assert!(matches!(outcome, Err(Error::TooManyGroups { .. })), "{outcome:?}");
    drop(writer);
    // With longer segments, it opens and goes on.
    let longer = Options { segment_bytes: 1 << 20, ..options() };
    let (mut writer, recovered) = open_fake(&disk, longer).expect("a sound log");
    assert!(recovered.groups.len() > 800);
    for group in 0..100 {
        write(&mut writer, &[append(20_000 + group, vec![hard_state(1, 1, 1)])]).expect("fits");
    }
}

#[test]
fn the_largest_append_and_batch_fit() {
    let disk = FakeDisk::new();
    let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
    let mut model = Model::new();
    let largest = options().append_bytes_max() as usize - 25 - 13;
    for index in 1..=40 {
        let batch = [
            append(1, vec![entries(1, index, index, 1, largest)]),
            append(2, vec![entries(2, index, index, 1, largest)]),
        ];
        write(&mut writer, &batch).expect("fits");
        apply_all(&mut model, &batch);
    }
    assert_recovers(&disk, options(), &model);
}
