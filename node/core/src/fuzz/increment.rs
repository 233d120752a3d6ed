//! Increments of a backup: frames from wherever their owner kept them, down to changes without a hole.

use std::ops::ControlFlow;

use bytes::Bytes;
use flotilla_fuzz::{Edit, Target, apply, damaged, edits};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::messages;
use crate::image::{frames, increment};
use crate::proto::internal::BackupFrame;
use crate::proto::mvccpb::{Event, KeyValue};

/// An increment of revisions with so many changes each.
fn file(counts: &[usize]) -> Vec<u8> {
    let (mut writer, mut file) = increment::Writer::new(7, 5).unwrap();
    for (main, count) in (5..).zip(counts) {
        let event = |n: usize| {
            let key = Bytes::from(format!("key {n}"));
            let of_put = (main > 6 || n.is_multiple_of(2)).then_some((main, 1, 9));
            let (create_revision, version, lease) = of_put.unwrap_or_default();
            let mod_revision = main;
            let value = Bytes::from(vec![b'v'; n * 7]);
            let kv = KeyValue { key, create_revision, mod_revision, version, value, lease };
            Event { r#type: i32::from(of_put.is_none()), kv: Some(kv), prev_kv: None }
        };
        file.extend(writer.add(main.cast_unsigned(), (0..*count).map(event).collect()).unwrap());
    }
    file.extend(writer.finish(1, &[(9, 60)].into()));
    file
}

/// What is taken has no hole, and both ways to read it agree.
fn check(file: &[u8]) {
    // Damage is refused before the whole is read, or while it is.
    drop(increment::revision_at(&file, 6));
    let (mut places, mut count) = (Vec::new(), 0);
    let visited = increment::visit(&file, &mut |change, _| {
        places.push(change.revision);
        count += 1;
        ControlFlow::Continue(())
    });
    let Ok(summary) = visited else { return };
    assert_eq!(increment::summary(&file).unwrap(), summary);
    assert_eq!(summary.events_count, count);
    let ends = (places.first().map(|it| it.main), places.last().map(|it| it.main));
    assert_eq!(ends, (Some(summary.first), Some(summary.last)));
    for pair in places.windows(2) {
        let is_next = pair[1].main == pair[0].main && pair[1].sub == pair[0].sub + 1
            || pair[1].main == pair[0].main + 1 && pair[1].sub == 0;
        assert!(is_next, "{pair:?}");
    }
}

#[test]
fn fuzz_core_increment_damaged() {
    let counts = vec(1..5_usize, 1..20);
    let target = Target::new("core/increment").cases(512);
    target.run(damaged(counts.prop_map(|counts| file(&counts))), |file| check(&file));
}

/// Frames of any content whose checksums are right, and those of an increment that are lost, doubled or
/// changed.
#[test]
fn fuzz_core_increment_hostile_frames() {
    let anything = messages().encoded("flotilla.internal.BackupFrame");
    let of_increment = (vec(1..4_usize, 1..8), any::<usize>()).prop_map(|(counts, at)| {
        let mut contents = Vec::new();
        let file = file(&counts);
        frames::visit(&&file[..], &mut |content| {
            contents.push(BackupFrame { content: Some(content) }.encode_to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
        let len = contents.len();
        contents.swap(at % len, (at / 7) % len);
        contents
    });
    let changed = (of_increment, any::<usize>(), edits()).prop_map(
        |(mut contents, at, edits): (Vec<Vec<u8>>, usize, Vec<Edit>)| {
            let at = at % contents.len();
            apply(&mut contents[at], &edits, b"other");
            contents
        },
    );
    let contents = prop_oneof![1 => vec(anything, 1..6), 3 => changed];
    Target::new("core/increment_frames").cases(512).run(contents, |contents| {
        let frames: Vec<BackupFrame> =
            contents.iter().filter_map(|it| BackupFrame::decode(&it[..]).ok()).collect();
        let mut contents: Vec<_> = frames.into_iter().filter_map(|it| it.content).collect();
        let Some(last) = contents.pop() else { return };
        let mut file = frames::file_head();
        contents.into_iter().for_each(|content| file.extend(frames::frame(content)));
        file.extend(frames::last_frame(last));
        check(&file);
    });
}
