//! What operations mean, seen through a restart.

use super::*;

/// Writes each list of appends as one frame, restarts, and compares with the model.
fn check(batches: Vec<Vec<Append>>) -> Model {
    let disk = FakeDisk::new();
    let (mut writer, recovered) = open_fake(&disk, options()).expect("a new log");
    assert_eq!(recovered, Recovered { is_clean: true, ..Recovered::default() });
    let mut model = Model::new();
    for batch in &batches {
        write(&mut writer, batch).expect("a sound batch");
        apply_all(&mut model, batch);
    }
    let essence = writer.book.essence(0);
    drop(writer);
    let (writer, recovered) = open_fake(&disk, options()).expect("a sound log");
    assert_eq!(recovered, Recovered { groups: model.clone(), torn_tail: None, is_clean: false });
    assert_eq!(writer.book.essence(0), essence);
    model
}

#[test]
fn everything_written_is_there_after_a_restart() {
    let model = check(vec![
        vec![append(7, vec![hard_state(1, 2, 0), entries(7, 1, 3, 1, 300)])],
        vec![
            append(0, vec![entries(0, 1, 1, 5, 0)]),
            append(7, vec![entries(7, 4, 4, 1, 10), hard_state(1, 2, 4)]),
            append(u64::MAX, vec![hard_state(u64::MAX, u64::MAX, u64::MAX)]),
        ],
        vec![append(3, vec![])],
    ]);
    assert_eq!(model.len(), 3);
    assert_eq!(model[&GroupId(7)].entries.len(), 4);
}

#[test]
fn entries_replace_what_follows_the_first_of_them() {
    let model = check(vec![
        vec![append(1, vec![entries(1, 1, 9, 1, 20)])],
        vec![append(1, vec![entries(1, 4, 5, 2, 20), entries(1, 5, 6, 3, 20)])],
        vec![append(1, vec![entries(1, 7, 7, 3, 20)])],
    ]);
    let terms: Vec<_> = model[&GroupId(1)].entries.iter().map(|entry| entry.term).collect();
    assert_eq!(terms, [1, 1, 1, 2, 3, 3, 3]);
}

#[test]
fn all_entries_can_be_replaced() {
    check(vec![
        vec![append(1, vec![entries(1, 1, 3, 1, 20)])],
        vec![append(1, vec![entries(1, 1, 1, 2, 20)])],
    ]);
}

#[test]
fn truncation_forgets_the_front_and_keeps_its_term() {
    let model = check(vec![
        vec![append(1, vec![entries(1, 1, 9, 3, 20)])],
        vec![append(1, vec![Operation::Truncate { index: 4, term: 3 }])],
        // Going back changes nothing.
        vec![append(1, vec![Operation::Truncate { index: 2, term: 3 }])],
        vec![append(1, vec![entries(1, 5, 6, 4, 20)])],
    ]);
    assert_eq!(model[&GroupId(1)].truncated, (4, 3));
    assert_eq!(model[&GroupId(1)].entries.len(), 2);
}

#[test]
fn a_log_can_be_truncated_completely_and_go_on() {
    check(vec![
        vec![append(1, vec![entries(1, 1, 9, 3, 20)])],
        vec![append(1, vec![Operation::Truncate { index: 9, term: 3 }, entries(1, 10, 11, 3, 8)])],
    ]);
}

#[test]
fn reset_goes_on_after_a_snapshot_in_either_direction() {
    let model = check(vec![
        vec![append(1, vec![hard_state(2, 0, 0), entries(1, 1, 9, 2, 20)])],
        vec![append(1, vec![Operation::Reset { index: 50, term: 4 }, entries(1, 51, 52, 4, 20)])],
        vec![append(2, vec![Operation::Reset { index: 5, term: 5 }, entries(2, 6, 6, 5, 20)])],
        vec![append(2, vec![Operation::Reset { index: 3, term: 6 }])],
    ]);
    assert_eq!(model[&GroupId(1)].hard_state.term, 2);
    assert_eq!(model[&GroupId(2)].truncated, (3, 6));
}

#[test]
fn a_removed_group_is_gone_and_may_come_back() {
    let model = check(vec![
        vec![append(1, vec![hard_state(2, 1, 0), entries(1, 1, 9, 2, 20)])],
        vec![append(2, vec![hard_state(1, 1, 1)]), append(1, vec![Operation::Remove])],
        vec![append(1, vec![entries(1, 1, 2, 1, 20)])],
        vec![append(2, vec![Operation::Remove]), append(9, vec![Operation::Remove])],
        vec![append(
            2,
            vec![Operation::Entries(vec![]), Operation::Remove, entries(2, 1, 1, 1, 1)],
        )],
    ]);
    assert_eq!(model[&GroupId(1)].hard_state, HardState::default());
    assert_eq!(model[&GroupId(1)].entries.len(), 2);
}

#[test]
fn impossible_operations_end_the_log_before_anything_is_written() {
    let gap = entries(1, 6, 6, 1, 1);
    let before_truncation = entries(1, 2, 6, 2, 1);
    let beyond_the_end = Operation::Truncate { index: 6, term: 1 };
    for operation in [gap, before_truncation, beyond_the_end] {
        let disk = FakeDisk::new();
        let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
        let truncation = Operation::Truncate { index: 2, term: 1 };
        let first = [append(1, vec![entries(1, 1, 4, 1, 1), truncation])];
        write(&mut writer, &first).expect("a sound batch");
        let operations = disk.operations();
        let outcome = write(&mut writer, &[append(1, vec![operation.clone()])]);
        assert!(matches!(outcome, Err(Error::Misuse { group: GroupId(1), .. })), "{operation:?}");
        assert_eq!(disk.operations(), operations);
    }
}

#[test]
fn many_groups_share_one_log() {
    let all: Vec<_> = (0..500)
        .map(|group| append(group, vec![entries(group, 1, 2, 1, 100), hard_state(1, 1, group)]))
        .collect();
    let model = check(all.chunks(20).map(<[Append]>::to_vec).collect());
    assert_eq!(model.len(), 500);
}

#[test]
fn the_bytes_on_disk_stay_as_they_are() {
    let disk = FakeDisk::new();
    let (mut writer, _) = open_fake(&disk, options()).expect("a new log");
    let operations = vec![Operation::Entries(vec![entry(1, 2, "data")]), hard_state(3, 4, 5)];
    write(&mut writer, &[append(6, operations)]).expect("a sound batch");
    let file = disk.read(&segment_path(1));
    assert_eq!(file.len(), 64 << 10);
    assert_eq!(
        hex(&file[..48]),
        "666c6f746c6f670001000000241dd1d8f0debc9a78563412\
         010000000000000000000100000000000000000000000000"
    );
    assert_eq!(
        hex(&file[4096..4096 + 64 + 5 + 42 + 33]),
        "a3f207f1759ad386f0debc9a78563412010000000000000000100000000000000100000000000000\
         50000000e18030800100000000000000000000000000000007000000000106000000000000000100\
         000000000000010000001100000002000000000000000004000000646174610306000000000000\
         00030000000000000004000000000000000500000000000000"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn options_out_of_range_are_refused() {
    let odd = Options { segment_bytes: (64 << 10) + 1, ..options() };
    let small = Options { segment_bytes: 32 << 10, ..options() };
    let large = Options { segment_bytes: 512 << 20, ..options() };
    let batch = Options { batch_bytes_max: (8 << 10) + 1, ..options() };
    let queue = Options { queue_appends_max: 0, ..options() };
    for options in [odd, small, large, batch, queue] {
        let outcome = open_fake(&FakeDisk::new(), options);
        assert!(matches!(outcome, Err(Error::Option { .. })));
    }
}
